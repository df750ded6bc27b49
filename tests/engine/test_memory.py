"""Large responses take no more memory than there is, and none waits forever."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from custom_components.tcp_multiplexer.multiplexer.limits import Limits
from custom_components.tcp_multiplexer.multiplexer.memory import Memory
from tests.waiting import settled, until

from .conftest import Multiplex
from .devices import Client, port_of, serving

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
SIZE = 3_000_000
BUFFER = 1_000_000
READ_AT_ONCE = 256 << 10
"""What asyncio reads of a connection before it can be told to read no more."""


class LargeDevice:
    """Sends as many bytes as it is asked for; those of large responses but the last."""

    def __init__(self) -> None:
        self.complete = asyncio.Event()

    async def __call__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.split(b" ")[1][1:])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            if size == SIZE:
                writer.write(bytes(size - 1))
                await writer.drain()
                await self.complete.wait()
            else:
                await asyncio.sleep(0.01)
                writer.write(bytes(size - 1))
            writer.write(b".")


async def body(client: Client, size: int) -> None:
    """Ask for a response and take it."""
    client.writer.write(GET % size)
    await client.reader.readuntil(b"\r\n\r\n")
    assert await client.reader.readexactly(size) == bytes(size - 1) + b"."


async def test_large_responses_wait_for_one_another_s_memory(
    multiplex: Multiplex,
) -> None:
    device = LargeDevice()
    async with serving(device) as port:
        multiplexer = await multiplex(
            protocol="http",
            port=port,
            max_connections=4,
            timeout=60,
            limits=Limits(buffer=BUFFER),
        )
        clients = [await Client.connect(port_of(multiplexer)) for _ in range(4)]
        while multiplexer.snapshot().connections < len(clients):
            await asyncio.gather(*(body(client, 10) for client in clients))
        before = multiplexer.snapshot().bytes_from_upstream
        asking = [asyncio.create_task(body(client, SIZE)) for client in clients]
        await until(lambda: multiplexer.snapshot().bytes_from_upstream > SIZE)
        received = await settled(lambda: multiplexer.snapshot().bytes_from_upstream)
        most = SIZE + BUFFER + len(clients) * READ_AT_ONCE
        assert received - before <= most < len(clients) * SIZE
        device.complete.set()
        await asyncio.gather(*asking)
        for client in clients:
            client.close()
        await multiplexer.stop()


async def test_response_is_received_though_its_request_takes_all_memory(
    multiplex: Multiplex,
) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(SIZE)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        writer.write(bytes(SIZE - 1) + b".")

    async with serving(take) as port:
        multiplexer = await multiplex(
            protocol="http", port=port, timeout=60, limits=Limits(buffer=BUFFER)
        )
        client = await Client.connect(port_of(multiplexer))
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % SIZE
        client.writer.write(head + bytes(SIZE))
        await client.reader.readuntil(b"\r\n\r\n")
        assert (await client.reader.readexactly(SIZE)).endswith(b".")
        client.close()
        await multiplexer.stop()


class Connection:
    """Notes when it is read on."""

    def __init__(self, read: list[str], name: str) -> None:
        self.occupied = 0
        self.read_on = lambda: read.append(name)


async def test_next_response_may_grow_once_the_oldest_has_ended() -> None:
    memory = Memory(60, BUFFER)
    read: list[str] = []
    first, second, third = (Connection(read, name) for name in ("1", "2", "3"))
    assert memory.receiving(first, BUFFER)
    assert not memory.receiving(second, 1000)
    assert not memory.receiving(third, 2000)
    assert memory.receiving(first, 2 * BUFFER)
    assert not read
    assert memory.receiving(second, 0)  # its connection is lost
    assert memory.receiving(first, 0)
    assert read == ["3"]
    assert memory.occupied == 2000


async def test_requests_wait_for_the_memory_of_responses() -> None:
    memory = Memory(60, BUFFER)
    read: list[str] = []
    response, client = Connection(read, "response"), Connection(read, "client")
    memory.receiving(response, BUFFER + 1)
    memory.begun(cast(Any, client), incomplete=True)
    client.occupied = 1000
    memory.occupy(1000, incomplete=True)
    assert not memory.has_room(client)
    memory.starve(client)
    memory.receiving(response, 0)
    assert read == ["client"]
    memory.stop()
