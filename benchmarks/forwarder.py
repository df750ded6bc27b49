"""The least that a Modbus/TCP multiplexer in Python can be, to measure others by.

It numbers requests anew and matches responses by that. It knows no deadlines, limits,
fairness, reconnecting or statistics.

    forwarder.py LISTEN_PORT DEVICE_PORT [--pipeline]
"""

import asyncio
from collections import deque
from collections.abc import Callable
import sys
from typing import cast, override

type Taker = Callable[[Frames, bytes], None]


class Frames(asyncio.Protocol):
    """Cuts a stream into frames, and hands them on."""

    def __init__(self, take: Taker) -> None:
        self.take = take
        self.rest = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast("asyncio.Transport", transport).write

    @override
    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        at = 0
        while len(data) - at >= 6:
            end = at + 6 + int.from_bytes(data[at + 4 : at + 6])
            if end > len(data):
                break
            self.take(self, data[at:end])
            at = end
        self.rest = data[at:]


async def main(listen: int, device: int, *, pipeline: bool) -> None:
    """Forward until this process is ended."""
    loop = asyncio.get_running_loop()
    transaction = 0
    in_flight: dict[bytes, tuple[Frames, bytes]] = {}
    waiting: deque[tuple[Frames, bytes]] = deque()

    def ask(client: Frames, frame: bytes) -> None:
        nonlocal transaction
        if in_flight and not pipeline:
            waiting.append((client, frame))
            return
        transaction = (transaction + 1) & 0xFFFF
        own = transaction.to_bytes(2)
        in_flight[own] = client, frame[:2]
        upstream.write(own + frame[2:])

    def answer(_: Frames, frame: bytes) -> None:
        client, theirs = in_flight.pop(frame[:2])
        if waiting:
            ask(*waiting.popleft())
        client.write(theirs + frame[2:])

    _, upstream = await loop.create_connection(
        lambda: Frames(answer), "127.0.0.1", device
    )
    server = await loop.create_server(
        lambda: Frames(ask), "127.0.0.1", listen, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    ports = int(sys.argv[1]), int(sys.argv[2])
    asyncio.run(main(*ports, pipeline="--pipeline" in sys.argv))
