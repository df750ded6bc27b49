"""Puts a world together: clock, network, device, clients, and the engine in it.

`World` is what every scenario stands on: the real `Multiplexer` between a simulated
device and simulated clients, with a `Watch` on it. `Life` is a world in which
everything is drawn from one seed: settings, manners, tempers, faults, and what the
owner does meanwhile. It goes on until enough has been exchanged and suffered.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
import logging
from random import Random
import traceback
from types import TracebackType
from typing import Any, Self, override

from custom_components.tcp_multiplexer.multiplexer import (
    Multiplexer,
    RequestError,
    Settings,
)

from .clients import (
    Babbler,
    Dribbler,
    HalfCloser,
    Intruder,
    Leaver,
    SimulatedClient,
    SlowReader,
    Staller,
    Temper,
    Vanisher,
)
from .device import (
    MODBUS_FAULTS,
    PLAIN_FAULTS,
    UNLIMITED,
    Fault,
    Manners,
    Order,
    SimulatedDevice,
    Slots,
)
from .dialects import DIALECTS, Dialect, Verdict, dialect
from .invariants import Violation, Watch
from .loop import SimulatedLoop
from .network import Conditions, Network

EXCHANGES = 2000
"""Right answers that a life must see."""
FAULTS = 10
"""Faults of each kind that it must see."""
STOP_SECONDS = 2.0
"""A stop may last so long, whatever clients do."""
_DEEPEST = 64
"""Requests that a client has open at most."""
_TOLD = 40
"""Lines of the log that a failure comes with."""
_LIMIT = 100_000.0
"""Seconds of simulated time after which a life is given up."""


class World(AbstractContextManager["World"]):
    """A device, a multiplexer and whoever comes to it, in a time of their own."""

    def __init__(
        self,
        seed: int | str = 0,
        *,
        manners: Manners | None = None,
        conditions: Conditions | None = None,
        stall: float = 0.0,
        **settings: Any,
    ) -> None:
        """Prepare a world; `settings` are the multiplexer's."""
        self.seed = seed
        self.settings = Settings(
            **{
                "host": "device",
                "listen_host": "127.0.0.1",
                "listen_port": 5020,
                "health_check_interval": 0.0,
                **settings,
            }
        )
        self.address = ("127.0.0.1", 5020)
        self.dialect: Dialect = dialect(self.settings.protocol)
        self.loop = SimulatedLoop(self.rng("loop"), stall=stall)
        self.network = Network(self.loop, self.rng("network"), conditions)
        self.network.names["device"] = ["10.0.0.2"]
        self.device = SimulatedDevice(
            self.network, self.dialect, self.rng("device"), manners
        )
        self.watch = Watch(self.network, self.dialect, self.settings)
        self.device.on_link = self.watch.upstream
        self.winding_down = False
        self.mux: Multiplexer

    def rng(self, part: str) -> Random:
        """Give a part of the world its own dice."""
        return Random(f"{self.seed}/{part}")

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.loop.set_exception_handler(lambda *_: None)
        if error is not None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
        self.loop.close()

    def start(self, *, paused: bool = False) -> Multiplexer:
        """Start the multiplexer."""

        async def start() -> Multiplexer:
            mux = Multiplexer(self.settings, paused=paused, rng=self.rng("engine"))
            await mux.start()
            return mux

        self.mux = self.watch.mux = self.run(start())
        return self.mux

    def stop(self) -> None:
        """Stop the multiplexer, in time, and see that nothing is left of it."""
        self.watch.excused = True
        self.winding_down = True
        self.run(self.mux.stop(), limit=STOP_SECONDS)
        self.watch.check_stopped()

    def run[T](self, what: Coroutine[Any, Any, T], limit: float = 60.0) -> T:
        """Run a coroutine to its end, in at most `limit` seconds."""
        task = self.loop.create_task(what)
        if not self.loop.run_until(task.done, limit):
            task.cancel()
            raise Violation(f"{what} did not end within {limit:g} s")
        return task.result()

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_for(seconds)

    def client[C: SimulatedClient](
        self, kind: type[C], number: int, temper: Temper
    ) -> C:
        """Let a client come, from an address of its own."""
        source = f"192.168.1.{number}" if kind is not Intruder else f"8.8.8.{number}"
        client = kind(self, self.rng(f"client {number}"), source, temper)
        client.connect()
        return client


class Life(World):
    """A world in which everything is drawn from one seed."""

    def __init__(self, seed: int | str, protocol: str = "modbus") -> None:
        """Draw everything."""
        rng = Random(f"{seed}/{protocol}/life")
        modbus = protocol == "modbus"
        timeout = rng.choice((0.3, 0.5, 1.0, 3.0))
        backoff = rng.choice((0.1, 0.2, 0.5))
        connections = rng.choice((1, 1, 2, 4))
        slots = rng.choice((1, 1, 2, 3, UNLIMITED))
        super().__init__(
            f"{seed}/{protocol}",
            conditions=Conditions(
                latency=rng.choice(((1e-4, 5e-4), (2e-4, 0.002), (0.001, 0.02))),
                split=rng.choice((0.0, 0.05, 0.3)),
                merge=rng.choice((0.0, 0.2, 0.8)),
            ),
            stall=rng.choice((0.0, 0.003, 0.03)),
            manners=Manners(
                service=rng.choice(((0.0, 0.001), (0.001, 0.01), (0.02, 0.03))),
                dawdle=rng.choice(((0.0, 0.0), (0.0, 0.0), (0.0, 0.02))),
                order=rng.choice(tuple(Order)),
                slots=slots,
                beyond=rng.choice(tuple(Slots)),
                fault_share=rng.choice((0.07, 0.085, 0.11)),
                refuse_share=0.2,
                faults=MODBUS_FAULTS if modbus else PLAIN_FAULTS,
                late=(timeout * 1.02, timeout * 1.8),
                slot_timeout=rng.choice((1.0, 3.0)),
            ),
            protocol=protocol,
            timeout=timeout,
            connect_delay=rng.choice((0.0, 0.0, 0.05, timeout / 4)),
            request_delay=rng.choice((0.0, 0.0, 0.0, 0.005, 0.02)),
            connect_on_demand=rng.random() < 0.3,
            idle_timeout=rng.choice((0.0, 0.0, 0.2, 1.0)),
            max_lifetime=rng.choice((0.0, 0.0, 1.0, 10.0)),
            reconnect_backoff=backoff,
            reconnect_backoff_max=backoff * rng.choice((1, 4, 10)),
            max_connections=connections,
            max_in_flight=rng.choice((1, 1, 2, 4, 16)) if modbus else 1,
            queue_size=rng.choice((1, 2, 8, 32, 1000)),
            health_check_interval=rng.choice((0.0, 0.5, 5.0)),
            share_reads=rng.random() < 0.5,
            writes_first=rng.random() < 0.5,
        )
        self.starts_paused = rng.random() < 0.1
        self.crowd = _crowd(rng)
        self._rng = rng
        self._tasks: list[asyncio.Task[None]] = []
        self.mood_seconds = 2.0
        self.owner_seconds = 3.0

    @property
    def exchanges(self) -> int:
        """Right answers of the device's, so far."""
        return self.watch.verdicts[Verdict.RIGHT]

    @property
    def lacking(self) -> list[Fault]:
        """Kinds of faults that were not seen often enough yet."""
        manners = self.device.manners
        return [
            fault
            for fault in (*manners.faults, *manners.connect_faults)
            if self.device.faults[fault] < FAULTS
        ]

    @property
    def digest(self) -> str:
        """Two lives with the same digest went the same way."""
        faults = sum(self.device.faults.values())
        return f"{self.network.digest:08x} {self.exchanges} {faults}"

    def live(self) -> None:
        """Live it, from the start of the multiplexer to its stop."""
        self.start(paused=self.starts_paused)
        for number, (kind, temper) in enumerate(self.crowd, start=1):
            self.client(kind, number, temper)
        self.loop.post(self.loop.time() + 1, self._mood)
        self.loop.post(self.loop.time() + 1, self._owner)
        if not self.loop.run_until(self._enough, _LIMIT):
            message = f"only {self.exchanges} exchanges; seldom seen: {self.lacking}"
            raise Violation(message)
        if self._rng.random() < 0.5:
            self._wind_down()
        self.stop()
        for task in self._tasks:
            if not task.done():
                raise Violation(f"{task} still runs after the stop")

    def _enough(self) -> bool:
        return self.exchanges >= EXCHANGES and not self.lacking

    def _wind_down(self) -> None:
        """Ask no more, and see that everybody is answered."""
        self.winding_down = True
        self.mux.resume()
        watch = self.watch
        # A client that is held back asks one thing after the other, each with its time.
        limit = (2 + _DEEPEST) * watch.timeout
        if not self.loop.run_until(lambda: not watch.unanswered(), limit):
            raise Violation(f"never answered: {watch.unanswered()}")

        def idle() -> bool:
            picture = self.mux.snapshot()
            return not (picture.queue_depth or picture.in_flight)

        if not self.loop.run_until(idle, limit):
            raise Violation(f"nobody asks, yet {self.mux.snapshot()}")

    def _mood(self) -> None:
        """Let the device do something unasked, now and then."""
        if not self.winding_down:
            self.device.mood()
            pause = self._rng.expovariate(1 / self.mood_seconds)
            self.loop.post(self.loop.time() + pause, self._mood)

    def _owner(self) -> None:
        """Let the owner do something, now and then."""
        if self.winding_down:
            return
        rng, mux = self._rng, self.mux
        match rng.randrange(9):
            case 0:
                self._begin(self._pause())
            case 1:
                self.watch.told_to_connect()
                self._begin(mux.reconnect(drain=rng.random() < 0.5))
            case 2:
                self.watch.excused = True
                mux.disconnect_client(
                    rng.choice((None, f"192.168.1.{rng.randint(1, len(self.crowd))}"))
                )
                self.watch.excused = False
            case 3:
                self._begin(self._apply())
            case 4:
                mux.reset_statistics()
                mux.trace()
            case _:
                self._begin(self._request())
        pause = rng.expovariate(1 / self.owner_seconds)
        self.loop.post(self.loop.time() + pause, self._owner)

    def _begin(self, what: Coroutine[Any, Any, None]) -> None:
        """Begin something; what fails in it fails the life."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.remove(task)
            task.result()

        task = self.loop.create_task(what)
        self._tasks.append(task)
        task.add_done_callback(done)

    async def _pause(self) -> None:
        await self.mux.pause()
        await asyncio.sleep(self._rng.uniform(0, 1))
        self.watch.told_to_connect()
        self.mux.resume()

    async def _apply(self) -> None:
        rng, settings = self._rng, self.mux.settings
        settings = replace(
            settings,
            timeout=min(max(settings.timeout * rng.choice((0.5, 1, 2)), 0.2), 5.0),
            max_connections=rng.choice((1, settings.max_connections)),
            queue_size=rng.choice((1, 4, settings.queue_size)),
            idle_timeout=rng.choice((0.0, 0.5)),
            connect_on_demand=rng.random() < 0.5,
        )
        self.watch.applied(settings)
        self.watch.told_to_connect()
        if not await self.mux.apply(settings):
            raise Violation(f"could not be applied: {settings}")

    async def _request(self) -> None:
        ask = self.dialect.ask(self._rng)
        body = ask.body
        if not self.dialect.correlated:
            body = self.dialect.pack(0, body)
        question = self.watch.asked(self.watch.host(), 0, ask)
        try:
            answer = await self.mux.request(body)
        except RequestError as error:
            self.watch.failed(question, error.failure)
            return
        if not self.dialect.correlated:
            buffer = bytearray(answer)
            ((_, answer),) = self.dialect.cut(buffer)
        self.watch.answered(question, answer)


def _crowd(rng: Random) -> list[tuple[type[SimulatedClient], Temper]]:
    """Draw the clients of a life."""
    crowd: list[tuple[type[SimulatedClient], int]] = [
        (SimulatedClient, rng.randint(2, 5)),
        (Leaver, rng.randint(1, 3)),
        (Dribbler, rng.randint(0, 1)),
        (HalfCloser, rng.randint(0, 2)),
        (SlowReader, rng.randint(0, 1)),
        (Babbler, rng.randint(0, 1)),
        (Staller, rng.randint(0, 1)),
        (Vanisher, rng.randint(0, 1)),
        (Intruder, rng.randint(0, 1)),
    ]
    clients = []
    for kind, count in crowd:
        for _ in range(count):
            depth = rng.choice((1, 1, 1, 2, 8, 32))
            if kind in (Babbler, Dribbler, Staller):
                depth = 1
            elif kind is SlowReader:
                depth = rng.choice((8, _DEEPEST))
            elif kind is not SimulatedClient:
                depth = min(depth, 8)
            temper = Temper(
                depth=depth,
                think=rng.choice(((0.0, 0.0), (0.0, 0.02), (0.05, 0.3))),
                constant=kind is SimulatedClient and depth == 1 and rng.random() < 0.2,
            )
            clients.append((kind, temper))
    return clients


PROTOCOLS = tuple(DIALECTS)


@dataclass
class Report:
    """How a life went."""

    seed: int
    replay: str
    """The command that lives it again."""
    digest: str
    exchanges: int
    faults: dict[str, int]
    error: str
    """What it broke, and where; empty where it went well."""
    log: list[str]
    """What passed last."""


def live(seed: int, protocol: str = "modbus", *, keep: bool = False) -> Report:
    """Live a life and tell how it went; with `keep`, with all that passed in it."""
    life = Life(seed, protocol)
    if keep:
        life.network.log = deque()
    error = ""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a line for each of thousands of connections
    try:
        with life:
            life.live()
    except Exception:  # noqa: BLE001 - whatever ends a life, it is told
        error = traceback.format_exc()
    finally:
        logging.disable(disabled)
    option = "" if protocol == "modbus" else f" --protocol {protocol}"
    log = [_told(entry) for entry in life.network.log] if keep or error else []
    return Report(
        seed=seed,
        replay=f"script/simulate 1 {seed}{option}",
        digest=life.digest,
        exchanges=life.exchanges,
        faults={fault.value: count for fault, count in life.device.faults.items()},
        error=error,
        log=log if keep else log[-_TOLD:],
    )


def _told(entry: tuple[Any, ...]) -> str:
    """Say for people what passed."""
    time, *what = entry
    words = [part.hex(" ") if isinstance(part, bytes) else str(part) for part in what]
    return f"{time:.6f} {' '.join(words)}"
