"""What sharing gains, and that it never shows anybody an older value.

The values are judged by the kit: a read may only give what its cell held at some time
while the read was open. On a simulated clock the rates are exact.
"""

from __future__ import annotations

from typing import Any, override

import pytest

from .clients import SimulatedClient, Temper
from .dialects import Ask, read_cell, write_cell
from .manners import Manners, Order
from .questions import Question
from .world import World

SERVICE = 0.02
"""Seconds that the device takes for a response."""
SECONDS = 10.0
_MANNERS = Manners(service=(SERVICE, SERVICE), order=Order.GLOBAL)
_EAGER = Temper(think=(0.0, 0.0))


class Scripted(SimulatedClient):
    """A client whose questions are thought of for it."""

    @override
    def ask(self) -> Question:
        dialect = self.scene.dialect
        asked = dialect.ask
        dialect.ask = lambda rng: self.think_of()  # type: ignore[method-assign]  # noqa: ARG005
        try:
            return super().ask()
        finally:
            dialect.ask = asked  # type: ignore[method-assign]

    def think_of(self) -> Ask:
        """Read the cell that everybody reads."""
        return read_cell(1, 0)


class Own(Scripted):
    """Reads a cell that nobody else reads."""

    @override
    def think_of(self) -> Ask:
        return read_cell(1, int(self.source.rpartition(".")[2]))


class Editor(Scripted):
    """Writes, and reads what it wrote, in two units; among everybody's cells."""

    written = 0

    @override
    def think_of(self) -> Ask:
        unit, cell = self.rng.randrange(1, 3), self.rng.randrange(2)
        if self.rng.random() < 0.3:
            Editor.written += 1
            value = Editor.written.to_bytes(4)
            return write_cell(unit, cell, value)
        return read_cell(unit, cell)


class Writer(Scripted):
    """Writes now and then, and notes how long each takes."""

    began = 0.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.took: list[float] = []

    @override
    def think_of(self) -> Ask:
        self.began = self.loop.time()
        return write_cell(1, 99, self.rng.randbytes(4))

    @override
    def answered(self, question: Question) -> None:
        self.took.append(self.loop.time() - self.began)
        super().answered(question)


def crowd(number: int, **settings: Any) -> tuple[list[int], int]:
    """Let clients read the same for a while; give their answers, and the requests."""
    with World(manners=_MANNERS, **settings) as world:
        world.start()
        clients = [world.client(Scripted, i, _EAGER) for i in range(1, number + 1)]
        world.run_for(SECONDS)
        world.stop()
        return [client.answers for client in clients], len(world.device.received)


def test_eight_clients_get_what_one_gets() -> None:
    """Each has at least 0.9 of its own rate; the device has 1.3 times the work."""
    (alone,), requests_alone = crowd(1)
    together, requests = crowd(8)
    assert alone > 0.8 * SECONDS / SERVICE
    assert min(together) >= 0.9 * alone
    assert requests <= 1.3 * requests_alone


def test_thirty_two_clients_get_a_multiple() -> None:
    """The sum over clients is 25 times what it is without sharing."""
    shared, _ = crowd(32)
    unshared, _ = crowd(32, share_reads=False)
    assert sum(shared) >= 25 * sum(unshared)


def test_cache_answers_within_its_time_and_asks_again_after() -> None:
    """With a second of time-to-live, the device is asked about once a second."""
    (answers,), requests = crowd(1, cache_ttl=1.0)
    assert SECONDS - 2 <= requests <= SECONDS + 1
    assert answers > 10 * requests


def test_so_many_responses_are_remembered_and_the_oldest_forgotten() -> None:
    """What clients read of one device is bounded, but not what they might read."""
    most = 4096
    manners = Manners(service=(0.0, 0.0))
    with World(manners=manners, cache_ttl=3600.0, timeout=60.0) as world:
        world.start()

        def asks_the_device(unit: int, cell: int) -> bool:
            before = len(world.device.received)
            ask = read_cell(unit, cell)
            question = world.watch.asked(world.watch.host(), 0, ask)
            world.watch.answered(question, world.run(world.mux.request(ask.body)))
            return len(world.device.received) > before

        assert asks_the_device(2, 0)
        assert all(asks_the_device(1, cell) for cell in range(most))
        assert not asks_the_device(1, 0)
        assert asks_the_device(1, most)  # and the first is forgotten for it
        assert not asks_the_device(1, 1)
        assert not asks_the_device(1, most)
        assert asks_the_device(1, 0)
        assert asks_the_device(2, 0)  # the bound is one for all units
        world.stop()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"share_reads": False},
        {"cache_ttl": 0.5},
        {"max_in_flight": 8},
        {"max_connections": 3},
        {"writes_first": False, "cache_ttl": 0.2, "max_connections": 2},
    ],
    ids=str,
)
def test_no_read_gives_what_a_write_has_replaced(
    settings: dict[str, Any], seed: int
) -> None:
    """Whoever reads after a write was answered sees it, shared or remembered or not."""
    manners = Manners(service=(0.001, 0.01), dawdle=(0.0, 0.03), order=Order.PARALLEL)
    with World(f"edit {seed}", manners=manners, **settings) as world:
        world.start()
        for number in range(1, 7):
            world.client(Editor, number, Temper(depth=1 + number % 3))
        world.run_for(8.0)
        snapshot = world.mux.snapshot()
        world.stop()
        assert snapshot.responses > 300
        if settings.get("share_reads", True):
            assert snapshot.reads_shared
        if settings.get("cache_ttl"):
            assert snapshot.reads_cached


def test_a_write_passes_the_pollers() -> None:
    """While eight clients poll at full speed, a write takes two service times."""
    with World(manners=_MANNERS) as world:
        world.start()
        for number in range(1, 9):
            world.client(Own, number, _EAGER)
        writer = world.client(Writer, 20, Temper(think=(0.05, 0.2)))
        world.run_for(SECONDS)
        world.stop()
    took = sorted(writer.took)
    assert len(took) > 20
    assert took[len(took) // 2] <= 2.2 * SERVICE


def test_writes_do_not_starve_reads() -> None:
    """Of five requests served while writers never pause, one is a read."""
    with World(manners=_MANNERS) as world:
        world.start()
        writers = [world.client(Writer, number, _EAGER) for number in range(1, 9)]
        reader = world.client(Own, 20, _EAGER)
        world.run_for(SECONDS)
        world.stop()
    writes = sum(len(writer.took) for writer in writers)
    assert reader.answers >= writes // 5
