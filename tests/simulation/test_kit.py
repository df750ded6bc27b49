"""What the kit itself promises: the clock, the network, and that both repeat.

A simulation that is kinder than life finds nothing; one that is unlike it finds what is
not there. So what asyncio and TCP do, its loop and its transports must do as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
import errno
from random import Random
import resource
import socket
from typing import Any, override

import pytest

from .loop import BEGINNING, Deadlock, Restless, SimulatedLoop
from .network import (
    Conditions,
    Endpoint,
    Link,
    Network,
    NoDescriptor,
    ProgramEndpoint,
    Refusal,
)

HOST, PORT = "10.0.0.9", 502
PLAIN = Conditions(latency=(0.5, 0.5), jitter=0.0, split=0.0, merge=0.0)
"""Bytes are half a second on their way, and come as they were written."""


@contextmanager
def looping(seed: int = 0, *, stall: float = 0.0) -> Generator[SimulatedLoop]:
    """Have a loop."""
    loop = SimulatedLoop(Random(seed), stall=stall)
    try:
        yield loop
    finally:
        loop.set_exception_handler(lambda *_: None)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()


class Ear(asyncio.Protocol):
    """Notes what a transport tells it, and when."""

    def __init__(self, loop: SimulatedLoop, *, keeps_open: bool = False) -> None:
        """Say at the end of the stream whether the transport shall stay open."""
        self.loop = loop
        self.keeps_open = keeps_open
        self.transport: Any = None
        self.pieces: list[tuple[float, bytes]] = []
        self.ends: list[float] = []
        self.lost: list[tuple[float, Exception | None]] = []
        self.writable: list[bool] = []

    @property
    def data(self) -> bytes:
        """All that was heard."""
        return b"".join(piece for _, piece in self.pieces)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.pieces.append((self.loop.time() - BEGINNING, data))

    @override
    def eof_received(self) -> bool:
        self.ends.append(self.loop.time() - BEGINNING)
        return self.keeps_open

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append((self.loop.time() - BEGINNING, exc))

    @override
    def pause_writing(self) -> None:
        self.writable.append(False)

    @override
    def resume_writing(self) -> None:
        self.writable.append(True)


class Call:
    """A connection that the program has opened to a host of the world."""

    def __init__(
        self,
        loop: SimulatedLoop,
        conditions: Conditions = PLAIN,
        *,
        seed: int = 0,
        keeps_open: bool = False,
    ) -> None:
        """Connect; two ears listen."""
        self.loop = loop
        self.network = Network(loop, Random(seed), conditions)
        self.near = Ear(loop, keeps_open=keeps_open)
        self.far = Ear(loop, keeps_open=keeps_open)
        self.link: Link

        def accept(link: Link) -> asyncio.Protocol:
            self.link = link
            return self.far

        self.network.hosts[HOST, PORT] = accept
        opening = loop.create_task(
            loop.create_connection(lambda: self.near, HOST, PORT)
        )
        assert loop.run_until(opening.done, 10)
        opening.result()

    @property
    def there(self) -> Endpoint:
        """The world's end."""
        return self.link.accepted


def outcome(loop: SimulatedLoop, what: Any, limit: float = 10.0) -> Any:
    """Run a coroutine of the program's to its end."""
    task = loop.create_task(what)
    assert loop.run_until(task.done, limit)
    return task.result()


# ---- the clock ------------------------------------------------------------------


def test_time_jumps_to_whatever_comes_next_and_in_its_order() -> None:
    told: list[tuple[str, float]] = []

    def tell(what: str) -> None:
        told.append((what, loop.time() - BEGINNING))

    with looping() as loop:
        loop.post(BEGINNING + 3, tell, "event")
        loop.call_at(BEGINNING + 2, tell, "timer")
        loop.post(BEGINNING + 5, tell, "first of two")
        loop.post(BEGINNING + 5, tell, "second of two")
        loop.call_at(BEGINNING + 5, tell, "the program, after what it may see")
        loop.call_at(BEGINNING + 4, tell, "cancelled").cancel()
        loop.call_soon(tell, "ready")
        loop.run_for(3600)
        assert loop.time() == BEGINNING + 3600
    assert told == [
        ("ready", 0),
        ("timer", 2),
        ("event", 3),
        ("first of two", 5),
        ("second of two", 5),
        ("the program, after what it may see", 5),
    ]


def test_an_event_of_the_past_happens_now() -> None:
    with looping() as loop:
        loop.run_for(10)
        told: list[float] = []
        loop.post(BEGINNING, lambda: told.append(loop.time()))
        loop.run_for(1)
        assert told == [BEGINNING + 10]


def test_what_becomes_ready_in_a_turn_waits_for_the_next() -> None:
    told: list[int] = []
    with looping() as loop:
        loop.call_soon(lambda: loop.call_soon(lambda: told.append(loop.turns)))
        loop.call_soon(lambda: told.append(loop.turns))
        loop.run_for(1)
    assert told == [1, 2]


def test_running_stops_when_the_condition_holds_and_at_the_limit() -> None:
    with looping() as loop:
        done: list[int] = []
        for second in range(1, 11):
            loop.post(BEGINNING + second, done.append, second)
        assert loop.run_until(lambda: len(done) == 3, 100)
        assert loop.time() == BEGINNING + 3
        assert not loop.run_until(lambda: len(done) == 9, 2)
        assert loop.time() == BEGINNING + 5


def test_a_stall_makes_turns_late_by_no_more_than_it_is() -> None:
    with looping(stall=0.5) as loop:
        late: list[float] = []

        def note(due: float) -> None:
            late.append(loop.time() - due)

        for number in range(1000):
            due = BEGINNING + number / 10
            loop.call_at(due, note, due)
        loop.run_for(200)
    assert len(late) == 1000
    assert 0.3 < max(late) <= 0.5
    assert sorted(late)[500] == 0


def test_waiting_for_nothing_is_told() -> None:
    with looping() as loop, pytest.raises(Deadlock):
        loop.run_until_complete(asyncio.Event().wait())


def test_what_is_called_again_and_again_in_no_time_is_found() -> None:
    with looping() as loop:

        def again() -> None:
            loop.call_soon(again)

        again()
        with pytest.raises(Restless, match="again"):
            loop.run_for(1)


def test_an_exception_that_nobody_caught_ends_the_simulation_at_once() -> None:
    with looping() as loop:
        loop.call_at(BEGINNING + 1, lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            loop.run_for(10)
        assert loop.time() == BEGINNING + 1


def test_what_the_program_leaves_behind_is_found_and_the_world_s_is_not() -> None:
    with looping() as loop:
        loop.post(BEGINNING + 99, print)
        loop.call_later(60, print).cancel()
        assert not loop.leftovers()
        handle = loop.call_later(60, print)
        loop.run_for(1)
        assert loop.leftovers() == [handle]


def test_there_are_no_threads() -> None:
    with looping() as loop, pytest.raises(AssertionError, match="no threads"):
        loop.run_in_executor(None, print)


# ---- bytes on their way ---------------------------------------------------------


def test_bytes_arrive_after_the_latency_as_they_were_written() -> None:
    with looping() as loop:
        call = Call(loop)
        began = loop.time() - BEGINNING
        call.near.transport.write(b"one")
        loop.run_for(0.25)
        call.near.transport.write(b"two")
        loop.run_for(2)
        assert call.far.pieces == [(began + 0.5, b"one"), (began + 0.75, b"two")]


@pytest.mark.parametrize("seed", range(5))
def test_bytes_are_cut_and_glued_and_never_change_their_order(seed: int) -> None:
    conditions = Conditions(latency=(0.01, 0.1), jitter=0.5, split=0.4, merge=0.4)
    with looping() as loop:
        call = Call(loop, conditions, seed=seed)
        rng = Random(seed)
        said = [rng.randbytes(20) for _ in range(200)]
        for data in said:
            call.near.transport.write(data)
            loop.run_for(0.05)
        loop.run_for(5)
        heard = [piece for _, piece in call.far.pieces]
        assert b"".join(heard) == b"".join(said)
        assert any(len(piece) < 20 for piece in heard)  # cut
        assert any(len(piece) > 20 for piece in heard)  # glued


def test_whole_writes_are_not_cut_and_nothing_is_glued_to_their_end() -> None:
    conditions = Conditions(latency=(0.1, 0.1), jitter=0.0, split=0.9, merge=0.9)
    with looping() as loop:
        call = Call(loop, conditions)
        for _ in range(20):
            call.there.write(b"x" * 5)
            call.there.write_whole(b"whole")
            loop.run_for(1)
        assert sum(piece.endswith(b"whole") for _, piece in call.near.pieces) == 20


def test_what_is_not_read_piles_up_with_the_writer_who_is_told() -> None:
    """A pipe takes a part of a write, the rest as there is room: nothing is lost."""
    with looping() as loop:
        call = Call(loop)
        call.link.dialled.narrow(1000)
        call.there.pause_reading()
        said = Random(1).randbytes(200_000)
        call.near.transport.write(said[:50_000])
        assert call.near.writable == []
        call.near.transport.write(said[50_000:])
        assert call.near.writable == [False]
        loop.run_for(10)
        assert call.far.data == b""
        assert call.link.dialled._out.unread == 1000  # noqa: SLF001 - what the pipe holds
        call.there.resume_reading()
        assert loop.run_until(lambda: call.far.data == said, 1000)
        assert call.near.writable == [False, True]
        assert all(len(piece) <= 1000 for _, piece in call.far.pieces)


def test_the_program_reads_no_more_at_once_than_it_asks_for() -> None:
    with looping() as loop:
        call = Call(loop)
        call.near.transport.max_size = 4
        call.there.write(b"0123456789")
        call.there.close()
        loop.run_for(5)
        assert [piece for _, piece in call.near.pieces] == [b"0123", b"4567", b"89"]
        assert len(call.near.ends) == 1


def test_a_program_that_does_not_read_hears_nothing_until_it_does() -> None:
    with looping() as loop:
        call = Call(loop)
        call.near.transport.pause_reading()
        call.there.write(b"hello")
        call.there.close()
        loop.run_for(5)
        assert (call.near.pieces, call.near.ends, call.near.lost) == ([], [], [])
        call.near.transport.resume_reading()
        loop.run_for(5)
        assert (call.near.data, len(call.near.lost)) == (b"hello", 1)


# ---- ends -----------------------------------------------------------------------


def test_close_sends_all_that_was_written_and_then_the_end() -> None:
    with looping() as loop:
        call = Call(loop)
        call.link.dialled.narrow(100)
        said = b"x" * 1000
        call.near.transport.write(said)
        call.near.transport.close()
        call.near.transport.write(b"too late")
        assert not call.near.lost  # not before all is sent
        loop.run_for(60)
        assert call.far.data == said
        assert len(call.far.ends) == len(call.far.lost) == len(call.near.lost) == 1


def test_abort_throws_away_what_was_not_sent() -> None:
    with looping() as loop:
        call = Call(loop)
        call.link.dialled.narrow(100)
        call.near.transport.write(b"x" * 1000)
        call.near.transport.abort()
        loop.run_for(60)
        assert call.far.data == b"x" * 100
        assert [error for _, error in call.near.lost] == [None]


def test_half_a_connection_may_be_closed() -> None:
    with looping() as loop:
        call = Call(loop, keeps_open=True)
        call.there.write_eof()
        loop.run_for(1)
        call.near.transport.write(b"still here")
        loop.run_for(1)
        assert len(call.near.ends) == 1
        assert call.far.data == b"still here"
        with pytest.raises(RuntimeError):
            call.there.write(b"more")


def test_a_reset_tells_both_ends_and_loses_what_was_on_its_way() -> None:
    with looping() as loop:
        call = Call(loop)
        call.near.transport.write(b"lost")
        call.there.write(b"lost")
        call.link.reset()
        loop.run_for(5)
        for ear in (call.near, call.far):
            assert ear.data == b""
            ((_, error),) = ear.lost
            assert isinstance(error, ConnectionResetError)


def test_who_vanishes_is_found_by_keepalive_alone() -> None:
    with looping() as loop:
        call = Call(loop)
        began = loop.time() - BEGINNING
        call.link.vanish()
        call.near.transport.write(b"anybody?")
        loop.run_for(29)
        assert not call.near.lost
        loop.run_for(100)
        assert call.far.data == b""
        ((when, error),) = call.near.lost
        assert 30 <= when - began <= 75
        assert isinstance(error, TimeoutError)


def test_closing_before_all_was_read_resets_the_other_end() -> None:
    with looping() as loop:
        call = Call(loop, keeps_open=True)
        call.near.transport.pause_reading()
        call.there.write(b"unread")
        loop.run_for(1)
        call.near.transport.close()
        loop.run_for(5)
        ((_, error),) = call.far.lost
        assert isinstance(error, ConnectionResetError)


def test_writing_to_who_is_gone_brings_a_reset() -> None:
    with looping() as loop:
        call = Call(loop, keeps_open=True)
        call.there.close()
        loop.run_for(2)
        assert not call.near.lost  # it may still say something
        call.near.transport.write(b"hello?")
        loop.run_for(5)
        ((_, error),) = call.near.lost
        assert isinstance(error, ConnectionResetError)


# ---- connecting -----------------------------------------------------------------


def test_a_host_may_refuse_or_say_nothing_and_a_name_may_be_unknown() -> None:
    with looping() as loop:
        network = Network(loop, Random(0), PLAIN)
        network.hosts[HOST, 1] = lambda _: Refusal.REFUSED
        network.hosts[HOST, 2] = lambda _: Refusal.IGNORED
        network.names["device"] = [HOST]

        async def connect(name: str, port: int) -> None:
            await asyncio.wait_for(
                loop.create_connection(lambda: Ear(loop), name, port), 60
            )

        with pytest.raises(ConnectionRefusedError):
            outcome(loop, connect("device", 1), 61)
        with pytest.raises(ConnectionRefusedError):
            outcome(loop, connect(HOST, 99), 61)  # nobody listens
        with pytest.raises(TimeoutError):
            outcome(loop, connect(HOST, 2), 61)
        with pytest.raises(socket.gaierror):
            outcome(loop, connect("nobody", 1), 61)
        assert not network.open


def test_the_program_s_listener_takes_clients_until_it_is_closed() -> None:
    with looping() as loop:
        network = Network(loop, Random(0), PLAIN)
        ears: list[Ear] = []

        def factory() -> Ear:
            ears.append(Ear(loop))
            return ears[-1]

        def dial(client: Ear) -> None:
            network.dial(
                client,
                "127.0.0.1",
                5020,
                source="192.168.1.7",
                prepare=links.append,
                refused=lambda: refusals.append(client),
            )
            loop.run_for(5)

        links: list[Link] = []
        refusals: list[Ear] = []
        server = outcome(loop, loop.create_server(factory, "127.0.0.1", 5020))
        with pytest.raises(OSError, match=f"Errno {errno.EADDRINUSE}"):
            outcome(loop, loop.create_server(factory, "127.0.0.1", 5020))
        first, second = Ear(loop), Ear(loop)
        dial(first)
        (ear,) = ears
        assert ear.transport.get_extra_info("peername")[0] == "192.168.1.7"
        server.close()
        dial(second)
        assert refusals == [second]
        ear.transport.write(b"who was in stays in")
        loop.run_for(5)
        assert first.data == b"who was in stays in"


def test_a_socket_has_the_lowest_number_that_is_free_and_there_may_be_no_more() -> None:
    with looping() as loop:
        network = Network(loop, Random(0), Conditions(descriptors=2))
        ends = [ProgramEndpoint(network, "here", "there") for _ in range(4)]
        for end in ends:
            network._link(Endpoint(network, "there", "here"), end)  # noqa: SLF001 - as it does
        for end in ends[:2]:
            end.begin(Ear(loop))
        assert [end.descriptor for end in ends[:2]] == [0, 1]
        with pytest.raises(NoDescriptor):
            ends[2].begin(Ear(loop))
        ends[0].abort()
        loop.run_for(1)
        ends[3].begin(Ear(loop))
        assert ends[3].descriptor == 0
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        numbers = [end.get_extra_info("socket").fileno() for end in (ends[1], ends[3])]
        assert numbers == [limit - 1, limit - 2]


# ---- it repeats -----------------------------------------------------------------


def chatter(seed: int) -> tuple[list[Any], int]:
    """Let two ends talk at random; give the trace, and its digest."""
    with looping(seed, stall=0.01) as loop:
        call = Call(loop, Conditions(split=0.3, merge=0.3), seed=seed)
        rng = Random(99)
        for _ in range(100):
            call.near.transport.write(rng.randbytes(rng.randrange(1, 50)))
            call.there.write(rng.randbytes(rng.randrange(1, 50)))
            loop.run_for(rng.random() * 0.01)
        call.link.reset()
        loop.run_for(1)
        trace = [*call.network.log, *call.near.pieces, *call.far.pieces]
        return list(map(str, trace)), call.network.digest


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    assert chatter(1) == chatter(1)
    (one, digest), (other, other_digest) = chatter(1), chatter(2)
    assert one != other
    assert digest != other_digest
