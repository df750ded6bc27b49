"""The two ends of a measurement: a Modbus/TCP device, and clients that ask it.

A register holds its own address, and no two clients read at the same ones: a response
that went to the wrong client is seen. All clients count their transaction identifiers
from 1, as real ones do. No asyncio: what is measured uses that.

    peers.py device PORT SECONDS_PER_RESPONSE
    peers.py clients PORT CLIENTS SECONDS      prints what came of it as JSON
"""

import json
import selectors
import socket
import statistics
import struct
import sys
import threading
import time

COUNT = 10
"""Registers that a request reads."""
REQUEST = struct.Struct(">HHHBBHH")
REGISTERS = b"".join(address.to_bytes(2) for address in range(1 << 16))


def response(transaction: int, address: int) -> bytes:
    """Give the one right response."""
    head = struct.pack(">HHHBBB", transaction, 0, 3 + 2 * COUNT, 1, 3, 2 * COUNT)
    return head + REGISTERS[2 * address : 2 * (address + COUNT)]


RESPONSE_SIZE = len(response(0, 0))


def device(port: int, delay: float) -> None:
    """Serve each connection in order, each response taking `delay` seconds."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as server:
        while True:
            link, _ = server.accept()
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(link, delay), daemon=True).start()


def serve(link: socket.socket, delay: float) -> None:
    """Answer what comes on one connection until it ends."""
    received = b""
    while data := link.recv(65536):
        received += data
        whole = len(received) - len(received) % REQUEST.size
        for transaction, *_, address, _ in REQUEST.iter_unpack(received[:whole]):
            time.sleep(delay) if delay else None
            link.sendall(response(transaction, address))
        received = received[whole:]


class Client:
    """Asks, waits for the response, and asks again."""

    def __init__(self, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.transaction = 0
        self.received = self.expected = b""
        self.sent = 0.0
        self.took: list[float] = []
        self.wrong = 0

    def ask(self) -> None:
        """Send the next request."""
        self.transaction = self.transaction % 0xFFFF + 1
        address = (self.number * 997 + self.transaction * 7) % 60_000
        self.expected = response(self.transaction, address)
        self.sent = time.perf_counter()
        self.socket.send(REQUEST.pack(self.transaction, 0, 6, 1, 3, address, COUNT))

    def hear(self) -> bool:
        """Take what came; tell whether a response is complete."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("a client's connection was closed")
        self.received += data
        if len(self.received) < RESPONSE_SIZE:
            return False
        self.took.append(time.perf_counter() - self.sent)
        self.wrong += self.received != self.expected
        self.received = b""
        return True


def clients(port: int, count: int, seconds: float) -> dict[str, float]:
    """Let clients ask for so long, and tell how they fared."""
    selector = selectors.DefaultSelector()
    everybody = [Client(port, number) for number in range(count)]
    started = time.perf_counter()
    for client in everybody:
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.ask()
    waiting = count
    while waiting:
        ready = selector.select(5)
        if not ready:
            raise TimeoutError("no response within 5 s")
        asking = time.perf_counter() < started + seconds
        for key, _ in ready:
            if key.data.hear():
                if asking:
                    key.data.ask()
                else:
                    waiting -= 1
    took = [time for client in everybody for time in client.took]
    return {
        "responses": len(took),
        "per_second": len(took) / (time.perf_counter() - started),
        "median_ms": statistics.median(took) * 1e3,
        "p99_ms": statistics.quantiles(took, n=100)[98] * 1e3,
        "wrong": sum(client.wrong for client in everybody),
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["device", port, delay]:
            device(int(port), float(delay))
        case ["clients", port, count, seconds]:
            print(json.dumps(clients(int(port), int(count), float(seconds))))
