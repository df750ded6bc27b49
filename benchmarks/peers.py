"""The two ends of a measurement: a Modbus/TCP device, and clients that ask it.

A register holds its own address, and no two clients read at the same ones: a response
that went to the wrong client is seen. All clients count their transaction identifiers
from 1, as real ones do. What they send and expect is made beforehand, since they share
the core with what is measured. No asyncio: what is measured uses that.

    peers.py device PORT       unit 1 responds at once, unit 2 takes 5 ms
    peers.py clients PORT      does what it reads as JSON, a line each, and prints what
                               came of it likewise:
        {"connect": 64}                     have so many clients, each answered once
        {"ask": 64, "unit": 1, "seconds": 1}
                                            so many ask, each again when it is answered
        {"ask": 8, "unit": 1, "seconds": 1, "rate": 200}
                                            so many ask in turn, at this rate in all
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
import json
import select
import socket
import statistics
import struct
import sys
import threading
import time
from typing import Any

SERVICE_SECONDS = {1: 0.0, 2: 0.005}
"""What the device takes for a response, by unit."""
COUNT = 10
"""Registers that a request reads."""
AHEAD = 64
"""Requests of a client that differ; then it begins anew."""
REQUEST = struct.Struct(">HHHBBHH")
REGISTERS = b"".join(address.to_bytes(2) for address in range(1 << 16))
PATIENCE = 10.0
"""Seconds after which a response counts as lost, which ends the measurement."""


def body(unit: int, address: int) -> bytes:
    """Give what follows the transaction identifier in the one right response."""
    head = struct.pack(">HHBBB", 0, 3 + 2 * COUNT, unit, 3, 2 * COUNT)
    return head + REGISTERS[2 * address : 2 * (address + COUNT)]


# ---- the device ----------------------------------------------------------------------


def table_of_bodies() -> dict[bytes, bytes]:
    """Give what follows the transaction identifier, of requests and responses."""
    return {
        REQUEST.pack(0, 0, 6, unit, 3, address, COUNT)[2:]: body(unit, address)
        for unit in SERVICE_SECONDS
        for address in range((1 << 16) - COUNT)
    }


def device(port: int) -> None:
    """Serve each connection in order."""
    bodies = table_of_bodies()
    with socket.create_server(("127.0.0.1", port), backlog=1024) as server:
        while True:
            link, _ = server.accept()
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(link, bodies), daemon=True).start()


def serve(link: socket.socket, bodies: dict[bytes, bytes]) -> None:
    """Answer what comes on one connection until it ends."""
    size, slow, pause = REQUEST.size, 2, SERVICE_SECONDS[2]
    rest = b""
    with link, suppress(ConnectionError):
        while data := link.recv(65536):
            received = rest + data
            whole = len(received) - len(received) % size
            rest = received[whole:]
            responses = b""
            for at in range(0, whole, size):
                if received[at + 6] == slow:
                    time.sleep(pause)
                request = received[at : at + size]
                responses += request[:2] + bodies[request[2:]]
            if responses:
                link.sendall(responses)


# ---- the clients ---------------------------------------------------------------------


class Client:
    """Asks, and compares every byte of what it is answered."""

    def __init__(self, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.receive: Callable[[int], bytes] = self.socket.recv
        self.send: Callable[[bytes], int] = self.socket.send
        self.wrong = 0
        self.sent = 0.0
        self.expected = self.received = b""
        self._number = number
        self.exchanges: dict[int, Iterator[tuple[bytes, bytes]]] = {
            unit: cycle(self._exchanges(unit)) for unit in SERVICE_SECONDS
        }

    def _exchanges(self, unit: int) -> list[tuple[bytes, bytes]]:
        """Give requests, each with its response."""
        made = []
        for at in range(AHEAD):
            address = self._number * AHEAD + at
            request = REQUEST.pack(at + 1, 0, 6, unit, 3, address, COUNT)
            made.append((request, request[:2] + body(unit, address)))
        return made

    def hear(self, data: bytes) -> bool:
        """Take what is not just the right response; tell whether one is complete."""
        if not data:
            raise ConnectionError("a client's connection was closed")
        self.received += data
        if len(self.received) < 6 + int.from_bytes(self.received[4:6]):
            return False
        self.wrong += self.received != self.expected
        self.received = b""
        return True

    def exchange(self, unit: int) -> float:
        """Ask once; return the seconds until the response was there."""
        request, self.expected = next(self.exchanges[unit])
        began = time.perf_counter()
        self.send(request)
        while not self.hear(self.receive(4096)):
            pass
        return time.perf_counter() - began


def connect(clients: list[Client], port: int, count: int) -> None:
    """Have more clients, each of which was answered, rightly at last.

    A multiplexer that has only just started may refuse, or have no device yet.
    """
    end = time.monotonic() + PATIENCE
    while len(clients) < count:
        try:
            client = Client(port, len(clients))
            client.socket.settimeout(PATIENCE)
            client.exchange(1)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
            continue
        while client.wrong and time.monotonic() < end:
            time.sleep(0.02)
            client.wrong = 0
            client.exchange(1)
        client.socket.settimeout(None)
        clients.append(client)


def ask(clients: list[Client], unit: int, seconds: float) -> list[float]:
    """Let clients ask again whenever they are answered; return what that took each."""
    took: list[float] = []
    poll = select.epoll()
    asking = {}
    clock = time.perf_counter
    for client in clients:
        poll.register(client.socket, select.EPOLLIN)
        asking[client.socket.fileno()] = client
    end = clock() + seconds
    for client in clients:
        request, client.expected = next(client.exchanges[unit])
        client.sent = clock()
        client.send(request)
    while asking:
        ready = poll.poll(PATIENCE)
        if not ready:
            raise TimeoutError("no response in time")
        for descriptor, _ in ready:
            client = asking[descriptor]
            data = client.receive(4096)
            if (data != client.expected or client.received) and not client.hear(data):
                continue
            now = clock()
            took.append(now - client.sent)
            if now < end:
                request, client.expected = next(client.exchanges[unit])
                client.sent = clock()
                client.send(request)
            else:
                del asking[descriptor]
    poll.close()
    return took


def pace(clients: list[Client], unit: int, seconds: float, rate: float) -> list[float]:
    """Let one client after the other ask, at a steady rate; return what it took."""
    began = time.perf_counter()
    took = []
    for number in range(round(seconds * rate)):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        took.append(clients[number % len(clients)].exchange(unit))
    return took


def follow(port: int) -> None:
    """Do what is said, a line each, until nothing is."""
    clients: list[Client] = []
    for line in sys.stdin:
        said: dict[str, Any] = json.loads(line)
        result: dict[str, float] = {}
        if "connect" in said:
            connect(clients, port, said["connect"])
        else:
            result = asked(clients[: said.pop("ask")], **said)
        print(json.dumps(result), flush=True)


def asked(
    clients: list[Client], unit: int, seconds: float, rate: float = 0
) -> dict[str, Any]:
    """Let clients ask, and tell how they fared."""
    began = time.perf_counter()
    took = pace(clients, unit, seconds, rate) if rate else ask(clients, unit, seconds)
    lasted = time.perf_counter() - began
    wrong = sum(client.wrong for client in clients)
    for client in clients:
        client.wrong = 0
    return {
        "responses": len(took),
        "per_second": len(took) / lasted,
        "median_ms": statistics.median(took) * 1e3,
        "p99_ms": statistics.quantiles(took, n=100)[98] * 1e3,
        "wrong": wrong,
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["device", port]:
            device(int(port))
        case ["clients", port]:
            follow(int(port))
