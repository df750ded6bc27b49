"""Two lives that differ in one client, and how long all the others wait in each.

All else is drawn from the same seed, for each client by itself: when it asks what, how
long the device takes, how long bytes are on their way. So what differs between the two
lives is what the one client costs the others.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple, override

from .clients import Flooder, HalfCloser, Leaver, SimulatedClient, SlowReader, Temper
from .dialects import Ask, Verdict, read
from .loop import BEGINNING
from .manners import Manners, Order
from .network import Conditions, Link
from .questions import Question
from .world import World

TIMEOUT = 5.0
PATIENCE = 1.03
"""Seconds: the least that a device is given, which is enough for a fast one."""
SILENT = 9
"""The unit that is silent, where one is."""


class Reader(SimulatedClient):
    """Reads registers of some units only."""

    units: tuple[int, ...] = (1, 2)

    @override
    def ask(self) -> Question:
        dialect = self.scene.dialect
        asked = dialect.ask
        dialect.ask = self._think_of  # type: ignore[method-assign]
        try:
            return super().ask()
        finally:
            dialect.ask = asked  # type: ignore[method-assign]

    def _think_of(self, rng: Random) -> Ask:
        return read(rng.choice(self.units), 3, rng.randrange(2000), 1)


class Punctual(Reader):
    """Reads at moments of its own, and notes how long it waits.

    (A write may have to wait for all older ones to its unit: they keep their order.)
    """

    began = 0.0

    @override
    def begin(self) -> None:
        self.period = self.rng.uniform(0.5, 2.0)
        self.began_at: list[float] = []
        self.waits: list[float] = []
        self.verdicts: list[Verdict | None] = []
        self.began = self.loop.time() + self.rng.uniform(0.0, 1.0)
        self.within(self.began - self.loop.time(), self.ask_on)

    @override
    def answered(self, question: Question) -> None:
        self.began_at.append(question.asked - BEGINNING)
        self.waits.append(self.loop.time() - question.asked)
        self.verdicts.append(question.verdict)
        due = self.began + len(self.waits) * self.period
        self.within(max(0.0, due - self.loop.time()), self.ask_on)


class AsksTheSilent(Reader):
    """Asks the silent unit without pause."""

    units = (SILENT,)


class Deaf(Flooder):
    """Floods, and reads nothing."""

    @override
    def prepare(self, link: Link) -> None:
        super().prepare(link)
        self.asker.slow = True
        link.narrow(1024)


FAULTY: dict[str, Callable[[Random], tuple[type[SimulatedClient], Temper]]] = {
    "asks a silent unit": lambda _: (AsksTheSilent, Temper(think=(0.0, 0.0))),
    "floods": lambda _: (Flooder, Temper()),
    "floods and reads nothing": lambda _: (Deaf, Temper()),
    "leaves again and again": lambda rng: (Leaver, Temper(depth=rng.choice((1, 8)))),
    "says at once that this was all": lambda _: (HalfCloser, Temper()),
    "reads now and then": lambda _: (SlowReader, Temper(depth=64)),
}
"""Clients that make life hard for the others."""


class Waits(NamedTuple):
    """How long the questions of the others took, in their order for each of them."""

    seconds: list[list[float]]
    began: list[list[float]]
    """When they were asked, in seconds from the beginning."""
    verdicts: list[list[Verdict | None]]
    response: float
    """How long the device takes, with the way to it."""
    connections: int
    """How often the device was connected to."""


def waits(
    seed: int,
    faulty: str | None,
    *,
    seconds: float,
    manners: dict[str, Any],
    settings: dict[str, Any],
) -> Waits:
    """Live a life with a faulty client or without; tell how long the others wait."""
    rng = Random(seed)
    service, latency = rng.choice((0.002, 0.02, 0.05)), rng.choice((0.0002, 0.005))
    others = rng.randint(2, 4)
    with World(
        f"{seed}/isolation",
        manners=Manners(service=(service, service), order=Order.GLOBAL, **manners),
        conditions=Conditions(
            latency=(latency, latency), jitter=0.0, split=0.0, merge=0.0
        ),
        timeout=TIMEOUT,
        share_reads=False,
        queue_size=rng.choice((4, 32)),
        **settings,
    ) as world:
        world.start()
        world.run_for(1)
        clients = [
            world.client(Punctual, number, Temper()) for number in range(1, others + 1)
        ]
        if faulty is not None:
            kind, temper = FAULTY[faulty](rng)
            world.client(kind, 99, temper)
        world.run_for(seconds)
        world.stop()
        return Waits(
            [client.waits for client in clients],
            [client.began_at for client in clients],
            [client.verdicts for client in clients],
            service + 4 * latency,
            len(world.device.dials),
        )


def excess(with_it: Waits, without: Waits) -> float:
    """Give by how much a question of the others took longer beside the faulty one."""
    return max(
        beside - alone
        for those, these in zip(with_it.seconds, without.seconds, strict=True)
        for beside, alone in zip(those, these, strict=False)
    )
