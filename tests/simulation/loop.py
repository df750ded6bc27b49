"""An asyncio event loop whose time and whose sockets are simulated.

Two kinds of things happen, and they never share a queue. What belongs to the program
under test (its callbacks, timers, tasks and the turns in which its transports are
read) runs in *turns*, as in a real loop: first what was ready, then input and output,
then the timers that are due. What belongs to the world around it (bytes on their way,
the device at work, clients who think) are *events*, each at its own moment. So after
the program has stopped, whatever its side still holds is a leak.

Time stands still while something runs and jumps to whatever comes next. A program that
is busy does not answer at once: a *stall*, drawn from the seed, makes the loop's turn
late, so that input from several peers and timers come together in one turn, as they do
in life. An exception that nobody caught ends the simulation at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from heapq import heappop, heappush
from math import inf
from random import Random
import socket
from typing import TYPE_CHECKING, Any, Protocol, override

if TYPE_CHECKING:
    from collections import deque

    from .network import Network

BEGINNING = 1000.0
"""The loop's time at the start: not 0, so that a forgotten stamp shows."""
_STALL_SHARE = 0.1
_TURNS_IN_NO_TIME = 10_000
"""More than the most that anything takes: 1,000 messages of one client are 16 turns."""


class Turn(Protocol):
    """Something on the program's side that has input to be taken in a turn."""

    def turn(self) -> None:
        """Take it."""


class Deadlock(AssertionError):  # noqa: N818 - what it is, like KeyboardInterrupt
    """Nothing is ready, no timer runs, nothing is on its way: it waits for ever."""


class Restless(AssertionError):  # noqa: N818 - likewise
    """Something is called in turn after turn, and no time passes: it burns a core."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop without a selector, threads or a clock of this world."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, rng: Random, *, stall: float = 0.0) -> None:
        """Draw from `rng`; a turn comes up to `stall` seconds late now and then."""
        super().__init__()
        self.set_debug(False)
        self.set_exception_handler(self._fail)
        self.network: Network | None = None
        self.stall = stall
        self.turns = 0
        """Turns that the program has had."""
        self.steps = 0
        """Callbacks, and transports that were read or written, in these turns."""
        self.step: Callable[[], None] | None = None
        """Called after every turn and every event: where invariants are checked."""
        self._rng = rng
        self._now = self._turned_at = BEGINNING
        self._turns_before = 0
        """How many turns there were when the time last went on."""
        self._stalled_until = BEGINNING
        self._world: list[tuple[float, int, Callable[..., object], Sequence[Any]]] = []
        self._posted = 0
        self._input: list[Turn] = []
        self._failure: BaseException | None = None
        self._condition: Callable[[], bool] | None = None
        self._end = inf

    # What the world uses

    @override
    def time(self) -> float:
        return self._now

    def post(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Let an event of the world happen at `when`; it cannot be called back."""
        self._posted += 1
        heappush(self._world, (when, self._posted, callback, args))

    def wake(self, turn: Turn) -> None:
        """Let something on the program's side be called in its next turn."""
        self._input.append(turn)

    def leftovers(self) -> list[asyncio.Handle]:
        """Give what the program has still scheduled."""
        handles = [*self._ready, *self._scheduled]
        return [handle for handle in handles if not handle.cancelled()]

    @property
    def stalled(self) -> bool:
        """The next turn comes late."""
        return self._stalled_until > self._now

    # What the test uses

    def run_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Run until `condition` holds, at most `limit` seconds; tell if it does."""
        self._end = self._now + limit
        self.post(self._end, _nothing)
        self._condition = condition
        try:
            self.run_forever()
        finally:
            self._condition = None
        return condition()

    def run_for(self, seconds: float) -> None:
        """Run for so long."""
        self.run_until(lambda: False, seconds)

    # The loop itself

    def _run_once(self) -> None:
        """Let happen what comes, up to the moment for which somebody waits.

        The turns of a life are many, and those of `run_forever` would cost as much as
        what happens in them.
        """
        world, condition, end = self._world, self._condition, self._end
        step = self.step
        while not self._stopping:
            now = self._now
            if condition is not None and (now >= end or condition()):
                self._stopping = True
                return
            if self._ready or self._input:
                due = max(now, self._stalled_until)
            else:
                scheduled = self._scheduled
                while scheduled and scheduled[0].cancelled():
                    heappop(scheduled)
                due = inf
                if scheduled:
                    due = max(scheduled[0].when(), self._stalled_until)
            if world and world[0][0] <= due:
                when, _, callback, args = heappop(world)
                if when > now:
                    self._now = when
                callback(*args)
            elif due == inf:
                message = "nothing is ready, no timer runs and nothing is on its way"
                raise Deadlock(message)
            else:
                if due > now:
                    self._now = due
                self._take_turn()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if step is not None:
                step()

    def _take_turn(self) -> None:
        self.turns += 1
        if self._now > self._turned_at:
            self._turned_at, self._turns_before = self._now, self.turns
        elif self.turns - self._turns_before > _TURNS_IN_NO_TIME:
            message = f"{_TURNS_IN_NO_TIME:,} turns in no time: {self._ready}"
            raise Restless(message)
        ready = self._ready
        left_over = len(ready)
        for _ in range(left_over):
            self._call(ready.popleft())
        if self._input:
            inputs, self._input = self._input, []
            if len(inputs) > 1:
                self._rng.shuffle(inputs)
            self.steps += len(inputs)
            for turn in inputs:
                turn.turn()
        scheduled = self._scheduled
        now = self._now
        if scheduled and scheduled[0].when() <= now:
            due = []
            while scheduled and scheduled[0].when() <= now:
                due.append(heappop(scheduled))
            for handle in due:
                self._call(handle)
        if self.stall and self._rng.random() < _STALL_SHARE:
            self._stalled_until = now + self.stall * self._rng.random()

    def _call(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            self.steps += 1
            handle._run()  # noqa: SLF001 - what an event loop does with a handle
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure

    def _fail(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, BaseException):
            error = AssertionError(context["message"])
        error.add_note(f"asyncio: {context['message']}")
        if self._failure is None:
            self._failure = error

    # What asyncio's own parts call, and has no meaning here

    def _write_to_self(self) -> None:
        """Wake a selector: there is none, and there are no other threads."""

    def _process_events(self, event_list: object) -> None:
        """Take a selector's events: there is none."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Count a cancelled timer: they are dropped as their time comes."""

    # The network

    def _net(self) -> Network:
        assert self.network is not None, "this loop has no network"
        return self.network

    @override
    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: None = None,
        sock: socket.socket | None = None,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        assert ssl is None
        if sock is not None:
            return await self._net().begin(protocol_factory, sock)
        assert host is not None
        assert port is not None
        return await self._net().connect(protocol_factory, host, port)

    @override
    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        host, port, *_ = address
        await self._net().dialled(sock, host, port)

    @override
    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Sequence[str] | None = None,
        port: int = 0,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        backlog: int = 100,
        ssl: None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        start_serving: bool = True,
    ) -> asyncio.AbstractServer:
        assert ssl is None
        if host is None:
            host = ("0.0.0.0", "::")  # noqa: S104 - nothing listens in this world
        hosts = [host] if isinstance(host, str) else host
        server = self._net().serve(protocol_factory, hosts, port)
        if start_serving:
            await server.start_serving()
        return server

    @override
    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, ...]]:
        assert isinstance(host, str)
        assert isinstance(port, int)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in await self._net().resolve(host)
        ]

    @override
    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> Awaitable[Any]:
        message = f"the simulation has no threads, yet {func} wants one"
        raise AssertionError(message)


def _nothing() -> None:
    """Happen, so that time does not jump beyond this moment."""
