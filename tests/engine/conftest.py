"""A device, multiplexers in front of it, and clients of these."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
import logging
from typing import Any

import pytest

from custom_components.tcp_multiplexer import multiplexer
from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings
from custom_components.tcp_multiplexer.multiplexer.limits import LIMITS, Limits

from .devices import Client, Device, port_of, running

type Multiplex = Callable[..., Awaitable[Multiplexer]]
type Connect = Callable[..., Awaitable[Client]]


@pytest.fixture(autouse=True)
def _log_levels_stay() -> Iterator[None]:
    """Undo what a command line within this process set for all that follows."""
    logger = logging.getLogger(multiplexer.__name__)
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def enable_event_loop_debug() -> None:
    """Run the event loop as users do.

    Home Assistant's plugin switches asyncio's debug mode on; here it would double the
    time of every test and find nothing, for the engine has no threads.
    """


@pytest.fixture
async def device() -> AsyncGenerator[Device]:
    """Have a device with one slot switched on."""
    async with running() as device:
        yield device


@pytest.fixture
async def multiplex(device: Device) -> AsyncGenerator[Multiplex]:
    """Start multiplexers that share the device; they are stopped in the end."""
    started: list[Multiplexer] = []

    async def start(
        *,
        paused: bool = False,
        limits: Limits = LIMITS,
        detailed: bool = False,
        **settings: Any,
    ) -> Multiplexer:
        defaults: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": device.port,
            "listen_host": "127.0.0.1",
            "listen_port": 0,
        }
        mux = Multiplexer(
            Settings(**(defaults | settings)),
            paused=paused,
            limits=limits,
            detailed=detailed,
        )
        started.append(mux)
        await mux.start()
        return mux

    yield start
    for mux in started:
        await mux.stop()


@pytest.fixture
async def connect() -> AsyncGenerator[Connect]:
    """Connect clients to a multiplexer; they are closed in the end."""
    clients: list[Client] = []

    async def connect(multiplexer: Multiplexer, host: str = "127.0.0.1") -> Client:
        client = await Client.connect(port_of(multiplexer), host)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()
