"""The listener in moments that real sockets cannot be made to hit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, override

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    Settings,
    make_protocol,
)
from custom_components.tcp_multiplexer.multiplexer.assembly import make_dispatcher
from custom_components.tcp_multiplexer.multiplexer.dispatch.queue import RequestQueue
from custom_components.tcp_multiplexer.multiplexer.dispatch.timer import Timer
from custom_components.tcp_multiplexer.multiplexer.downstream.client import Client
from custom_components.tcp_multiplexer.multiplexer.downstream.listener import Listener
from custom_components.tcp_multiplexer.multiplexer.limits import LIMITS
from custom_components.tcp_multiplexer.multiplexer.memory import Memory
from custom_components.tcp_multiplexer.multiplexer.observe.events import Events
from custom_components.tcp_multiplexer.multiplexer.observe.statistics import Statistics


class Wire(asyncio.Transport):
    """A connection of which a test says when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.reading = True

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else default

    @override
    def is_closing(self) -> bool:
        return self.closing

    @override
    def abort(self) -> None:
        self.closing = True

    @override
    def pause_reading(self) -> None:
        self.reading = False

    @override
    def resume_reading(self) -> None:
        assert not self.closing
        self.reading = True


@pytest.fixture
async def there() -> AsyncGenerator[Listener]:
    """Return a listener that was not started: its clients come by `accept`.

    Its dispatcher has no supply, for nothing is asked to the end.
    """
    events = Events()
    settings = Settings(protocol="http", host="127.0.0.1", port=9)
    protocol = make_protocol(settings)
    queue = RequestQueue(32)
    statistics = Statistics(0, 0.0)
    there = Listener(
        settings,
        protocol,
        queue,
        make_dispatcher(settings, protocol, queue, statistics, events, Timer(), ""),
        statistics,
        events,
        Memory(settings.timeout, LIMITS.buffer),
    )
    yield there
    for client in tuple(there.clients):
        client.connection_lost(None)
    await there.stop()
    events.close()


def accept(there: Listener, wire: Wire | None = None) -> Client:
    """Have a client whose connection, and handshake, is ready now."""
    client = Client(there, there.protocol.downstream())
    client.connection_made(wire or Wire())
    return client


async def test_client_whose_handshake_ends_during_the_stop_is_not_waited_for(
    there: Listener,
) -> None:
    first = accept(there)
    stop = asyncio.create_task(there.stop())
    await asyncio.sleep(0)
    late = accept(there)
    first.connection_lost(None)
    async with asyncio.timeout(5):
        await stop
    late.connection_lost(None)
    assert not there.clients


async def test_memory_of_a_client_lost_while_it_waits_for_some_is_given_back(
    there: Listener,
) -> None:
    client = accept(there)
    there.memory.occupy(LIMITS.buffer)  # a complete request of somebody else
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n"
    client.data_received(head + bytes(200_000))
    assert there.memory.occupied > LIMITS.buffer
    client.connection_lost(ConnectionResetError())
    assert there.memory.occupied == LIMITS.buffer


async def test_next_oldest_may_grow_once_the_oldest_reads_no_more(
    there: Listener,
) -> None:
    wire = Wire()
    oldest, second = accept(there), accept(there, wire)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99000000\r\n\r\n"
    oldest.data_received(head.replace(b"99", b"16", 1) + bytes(100_000))
    second.data_received(head.replace(b"99", b"16", 1) + bytes(100_000))
    there.memory.occupy(LIMITS.buffer, incomplete=True)
    second.data_received(bytes(1000))
    assert not wire.reading
    oldest.pause_writing()
    assert wire.reading
