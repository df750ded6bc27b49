"""Time the engine alone with HTTP: GETs over kept connections between fake transports.

    benchmarks/http_engine.py                   microseconds a GET, 1 and 20 clients
    benchmarks/http_engine.py --against FOLDER  the same beside another checkout

What a head costs depends on whether the like of it has come before. So there are three
kinds: each client repeats itself and the device has no clock, as small devices have
none; the same with another Date in each response; and no head comes a second time.
All that the device is sent and the clients are answered is compared byte for byte.
How to read `--against`, see engine.py.
"""

import asyncio
from collections import deque
from functools import partial
import gc
from pathlib import Path
import sys
from time import process_time
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine import Benchmark, Transport, start

CLIENTS = (1, 20)
KINDS = ("repeated", "dated", "new")
CHUNKS = 20
"""The best of so many is the figure: whatever disturbs a chunk only makes it slower."""
REQUESTS = 200
"""Exchanges in a chunk."""
REQUEST = (
    b"GET /rpc/Switch.GetStatus?id=%d HTTP/1.1\r\nHost: 192.168.1.20\r\n"
    b"User-Agent: HomeAssistant/2026.11.0 aiohttp/3.13.2 Python/3.14\r\n"
    b"Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n"
)
"""As aiohttp writes it."""
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: ShellyHTTP/1.0.0\r\n%b"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)
DATE = b"Date: Fri, 27 Nov 2026 %02d:%02d:%02d GMT\r\n"
BODY = b'{"id":%d,"source":"init","output":true,"apower":%d.5,"voltage":229.8}'
VIA = b"Via: 1.1 tcp_multiplexer\r\n\r\n"


class Exchange(NamedTuple):
    """A request and its response: as each is sent, and as it must arrive."""

    request: bytes
    forwarded: bytes
    response: bytes
    reply: bytes


def exchange(kind: str, number: int, clients: int) -> Exchange:
    """Return the exchange with a running number, of clients that take turns."""
    request = REQUEST % (number if kind == "new" else number % clients)
    clock = (number // 3600 % 24, number // 60 % 60, number % 60)
    date = b"" if kind == "repeated" else DATE % clock
    body = BODY % (number % clients, number % 1000)
    response = RESPONSE % (date, len(body), body)
    head, _, _ = response.partition(b"\r\n\r\n")
    return Exchange(request, request[:-2] + VIA, response, head + b"\r\n" + VIA + body)


async def measure(engine: Any, kind: str, clients: int) -> float:
    """Return the seconds of processor time that an exchange takes, at best."""
    loop = await start(engine, port=80, protocol="http")
    answered: deque[bytes] = deque()
    protocols = [loop.accept() for _ in range(clients)]
    for client in protocols:
        client.connection_made(Transport(answered))
    for number, client in enumerate(protocols):
        client.data_received(exchange(kind, number, clients).request)
    best = float("inf")
    gc.disable()
    for chunk in range(CHUNKS):
        numbers = range(chunk * REQUESTS, (chunk + 1) * REQUESTS)
        expected = [exchange(kind, number, clients) for number in numbers]
        # each client asks again as soon as it is answered
        steps = [
            (
                expected[at].response,
                protocols[number % clients],
                exchange(kind, number + clients, clients).request,
            )
            for at, number in enumerate(numbers)
        ]
        before = process_time()
        for response, client, request in steps:
            loop.device.data_received(response)
            client.data_received(request)
        best = min(best, process_time() - before)
        for each in expected:
            assert loop.asked.popleft() == each.forwarded
            assert answered.popleft() == each.reply
        gc.collect()
        await asyncio.sleep(0)
    assert len(loop.asked) == 1
    assert not answered
    assert loop.responses() == CHUNKS * REQUESTS
    return best / REQUESTS


if __name__ == "__main__":
    cases = {
        f"{kind}, {clients} clients": partial(measure, kind=kind, clients=clients)
        for kind in KINDS
        for clients in CLIENTS
    }
    Benchmark(__file__, cases).main(__doc__)
