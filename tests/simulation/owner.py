"""The owner of a simulated multiplexer, who does this and that at any moment.

Nothing that it begins is awaited before the next: a pause may meet a reconnect that
still drains, a resume the pause, and the stop of it all whatever is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from custom_components.tcp_multiplexer.multiplexer import RequestError, Settings

from .questions import Violation

if TYPE_CHECKING:
    from .world import World

_WORTH = 3
"""A call counts as so much that passes: a reconnect alone ends and begins tasks."""


class Owner:
    """Calls what the interface of a multiplexer has."""

    def __init__(self, world: World, rng: Random, addresses: int) -> None:
        """Own the multiplexer of a world, to which clients of `addresses` come."""
        self._world = world
        self._rng = rng
        self._addresses = addresses
        self._first = world.settings
        self._tasks: list[asyncio.Task[None]] = []
        self.seconds = 3.0
        """Between two calls, on average."""

    resets = True
    """He begins to count anew at times."""

    def act(self) -> None:
        """Do something, and something else later."""
        world, rng, mux = self._world, self._rng, self._world.mux
        if world.winding_down:
            return
        world.network.passed += _WORTH
        match rng.randrange(10):
            case 0:
                self._begin(mux.pause())
                world.loop.post(world.loop.time() + rng.uniform(0, 1), self.resume)
            case 1:
                world.watch.told_to_connect()
                self._begin(mux.reconnect(drain=rng.random() < 0.5))
            case 2:
                world.watch.excused = True
                mux.disconnect_client(self._address())
                world.watch.excused = False
            case 3 | 4:
                self._begin(self._apply())
            case 5:
                if self.resets:
                    mux.reset_statistics()
                mux.trace()
            case _:
                self._begin(self._request())
        # At times one call follows the other at once.
        pause = rng.choice((0.0, 0.001, 1.0, 1.0)) * rng.expovariate(1 / self.seconds)
        world.loop.post(world.loop.time() + pause, self.act)

    def resume(self) -> None:
        """Let the device be used again."""
        if not self._world.stopping:
            self._world.network.passed += _WORTH
            self._world.watch.told_to_connect()
            self._world.mux.resume()

    def see_all_ended(self) -> None:
        """See that nothing that was begun has outlived the stop."""
        for task in self._tasks:
            if not task.done():
                raise Violation(f"{task} still runs after the stop")

    def _address(self) -> str | None:
        number = self._rng.randint(0, self._addresses)
        return f"192.168.1.{number}" if number else None

    def _begin(self, what: Coroutine[Any, Any, None]) -> None:
        """Begin something; what fails in it fails the life."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.remove(task)
            task.result()

        task = self._world.loop.create_task(what)
        self._tasks.append(task)
        task.add_done_callback(done)

    async def _apply(self) -> None:
        settings = self._other_settings()
        self._world.watch.applied(settings)
        self._world.watch.told_to_connect()
        if not await self._world.mux.apply(settings):
            raise Violation(f"could not be applied: {settings}")

    def _other_settings(self) -> Settings:
        rng, settings, first = self._rng, self._world.mux.settings, self._first
        if self._world.device.face.correlated or settings.protocol != "modbus":
            # (Elsewhere the device's late answers keep to the first timeout.)
            # (Nor is it shorter than a gateway keeps everybody waiting for each of its
            # silent units: then nobody would ever be answered in time.)
            manners = self._world.device.manners
            least = max(0.2, manners.holds if manners.in_order else 0.0)
            timeout = min(max(settings.timeout * rng.choice((0.5, 1, 2)), least), 5.0)
            settings = replace(settings, timeout=timeout)
        settings = replace(
            settings,
            max_connections=rng.choice((1, first.max_connections)),
            queue_size=rng.choice((1, 4, first.queue_size)),
            idle_timeout=rng.choice((0.0, 0.5)),
            connect_on_demand=rng.random() < 0.5,
            max_clients=rng.choice((first.max_clients, 1000)),
        )
        if settings.protocol != "modbus":
            return settings
        return replace(
            settings,
            cache_ttl=rng.choice((first.cache_ttl, 0.0, 0.3)),
            write_rules=rng.choice((first.write_rules, ())),
            repeated_write_ttl=rng.choice((first.repeated_write_ttl, 0.0)),
            max_read_registers=rng.choice((first.max_read_registers, 125)),
        )

    async def _request(self) -> None:
        world = self._world
        dialect, watch = world.dialect, world.watch
        ask = world.device.face.ask(self._rng)
        body = ask.body
        if dialect.name != "modbus":
            body = dialect.pack(0, body)
        question = watch.asked(watch.host(), 0, ask)
        try:
            answer = await world.mux.request(body)
        except RequestError as error:
            watch.failed(question, error.failure)
            return
        if dialect.name != "modbus":
            buffer = bytearray(answer)
            ((_, answer),) = dialect.cut_answers(buffer)
        watch.answered(question, answer)
