"""A simulated device that does not echo transaction identifiers."""

from __future__ import annotations

import asyncio
from typing import override

from custom_components.tcp_multiplexer.multiplexer import Event, EventType

from .clients import Leaver, SimulatedClient, Temper
from .device import HOST, PORT
from .dialects import Verdict
from .network import Link
from .world import World


class NoEcho(asyncio.Protocol):
    """Answers everything at once, right, and with transaction identifier 0."""

    def __init__(self, world: World) -> None:
        """Stand where the world's own device stood."""
        self.world = world
        self.buffer = bytearray()
        world.network.hosts[HOST, PORT] = self._accept

    def _accept(self, link: Link) -> asyncio.Protocol:
        self.link = link
        self.buffer.clear()
        self.world.watch.upstream(link)
        return self

    @override
    def data_received(self, data: bytes) -> None:
        self.buffer += data
        dialect = self.world.dialect
        for _, body in dialect.cut(self.buffer):
            answer = dialect.execute(body, self.world.loop.time())
            self.link.accepted.write(dialect.pack(0, answer))


def crowd(world: World) -> None:
    """Let some clients come and ask all the time."""
    for number, kind in enumerate((SimulatedClient, SimulatedClient, Leaver), 1):
        world.client(kind, number, Temper(think=(0.1, 1.0)))


def test_strict_matching_proposes_lenient_within_a_minute() -> None:
    """With all settings as they are by default."""
    events: list[Event] = []
    with World("strict", share_reads=False, writes_first=False) as world:
        NoEcho(world)
        world.start().subscribe(events.append)
        crowd(world)
        world.run_for(60)
        world.stop()
    assert [e.type for e in events].count(EventType.LENIENT_WOULD_HELP) == 1
    assert world.watch.verdicts[Verdict.RIGHT] == 0


def test_lenient_matching_serves_it() -> None:
    with World(
        "lenient", matching="lenient", share_reads=False, writes_first=False
    ) as world:
        NoEcho(world)
        world.start()
        crowd(world)
        world.run_for(60)
        world.stop()
    assert world.watch.verdicts[Verdict.RIGHT] > 100
    assert world.watch.verdicts[Verdict.GATEWAY] == 0
