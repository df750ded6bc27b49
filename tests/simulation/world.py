"""Puts a world together: clock, network, device, clients, and the engine in it.

`World` is what every scenario stands on: the real `Multiplexer` between a simulated
device and simulated clients, with a `Watch` on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Self, override

from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings

from .clients import SimulatedClient, Temper
from .device import SimulatedDevice
from .dialects import RARE_ON_LINES, Dialect, ModbusDialect
from .faces import CarelessFace, Face, MappedFace, RtuFace
from .invariants import Watch
from .loop import SimulatedLoop
from .manners import Manners
from .network import Conditions, Network
from .questions import Violation
from .registry import dialect

STOP_SECONDS = 2.0
"""A stop may last so long, whatever clients do."""


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
        self.rtu_address = ("127.0.0.1", 5021)
        self.dialect: Dialect = dialect(self.settings.protocol)
        if self.settings.framing == "rtu" and isinstance(self.dialect, ModbusDialect):
            self.dialect.rare = RARE_ON_LINES
        units = dict(self.settings.unit_map)
        self.face: Face = self.dialect
        self.rtu_face: Face = RtuFace(self.dialect)
        if units:
            self.face = MappedFace(self.face, units)
            self.rtu_face = MappedFace(self.rtu_face, units)
        self.loop = SimulatedLoop(self.rng("loop"), stall=stall)
        self.network = Network(self.loop, self.rng("network"), conditions)
        self.network.names["device"] = ["10.0.0.2"]
        self.device = SimulatedDevice(
            self.network,
            self.dialect,
            self.rng("device"),
            manners,
            self._device_face(manners or Manners()),
        )
        self.watch = Watch(self.network, self.dialect, self.settings)
        self.device.on_link = partial(self.watch.upstream, face=self.device.face)
        self.device.on_odd = self.watch.refused_oddly
        self.winding_down = False
        self.stopping = False
        self.mux: Multiplexer

    def _device_face(self, manners: Manners) -> Face:
        if self.settings.framing == "rtu":
            return RtuFace(self.dialect)
        if self.settings.matching == "lenient":
            return CarelessFace(self.dialect, manners.habit)
        return self.dialect

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
        self.watch.own.attach(self.mux)
        return self.mux

    def stop(self) -> None:
        """Stop the multiplexer, in time, and see that nothing is left of it."""
        self.watch.excused = True
        self.winding_down = self.stopping = True
        self.run(self.mux.stop(), limit=STOP_SECONDS)
        latest = self.loop.time() + 0.001
        # Who waited for something else of it learns of its end in the next turns.
        while asyncio.all_tasks(self.loop) and self.loop.time() < latest:
            self.loop.run_for(0.0001)
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
        self, kind: type[C], number: int, temper: Temper, source: str = ""
    ) -> C:
        """Let a client come, from an address of its own unless told otherwise."""
        source = source or f"192.168.1.{number}"
        client = kind(self, self.rng(f"client {number}"), source, temper)
        client.connect()
        return client
