"""Floods the program, and prints what that costs: memory, and another client's time.

Each flood is played with real sockets against a real process of the command line. The
other client asks every 5 ms meanwhile, and waits for each response. The program has a
core of its own; device, flooder and client share another, where the flooder is polite.

    benchmarks/floods.py                        a minute each
    benchmarks/floods.py connects --seconds 600 those with this word in their names
"""

import argparse
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
import itertools
import multiprocessing
import os
from pathlib import Path
import random
import selectors
import shlex
import socket
import ssl
from statistics import quantiles
import subprocess
import sys
from tempfile import TemporaryDirectory
import threading
import time
from typing import NamedTuple

FLOODER = "127.0.0.2"
"""The flooder's address: one address does not get all the places."""
PAUSE = 0.005
"""Seconds between the other client's requests."""
SETTLES = 20
"""Seconds within which memory is to be given back."""
READ = bytes.fromhex("000100000006010300000001")
WRITE = bytes.fromhex("000100000006010600000001")
RTU_READ = bytes.fromhex("010300000001840a")
MESSAGE = b"\0\x140800" + bytes(16)
GET = b"GET /%d HTTP/1.1\r\nHost: device\r\n\r\n"
CHUNK = b"1\r\nx\r\n"

# ---- the device -----------------------------------------------------------------


def modbus(received: bytearray) -> Generator[bytes]:
    """Take requests for registers, and give them zeros."""
    while len(received) >= 6 and len(received) >= (end := 6 + received[5]):
        count = int.from_bytes(received[10:12]) if received[7] in {3, 4} else 0
        pdu = bytes((received[7], 2 * count)) + bytes(2 * count)
        if not count:
            pdu = bytes((received[7] | 0x80, 1))
        yield bytes(received[:4] + (len(pdu) + 1).to_bytes(2) + received[6:7]) + pdu
        del received[:end]


def http(received: bytearray) -> Generator[bytes]:
    """Take requests without a body; the target says how long the response's is."""
    while end := received.find(b"\r\n\r\n") + 1:
        size = int(received.split(b" ", 2)[1][1:] or b"0")
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
        del received[: end + 3]


def mirror(received: bytearray) -> Generator[bytes]:
    """Give back what comes."""
    yield bytes(received)
    received.clear()


DEVICES = {"modbus": modbus, "http": http, "iso8583": mirror, "echo": mirror}


def serve(link: socket.socket, protocol: str) -> None:
    """Answer what comes on one connection until it ends."""
    received = bytearray()
    with link, suppress(OSError):
        while data := link.recv(65536):
            received += data
            for response in DEVICES[protocol](received):
                link.sendall(response)


def run_device(server: socket.socket, protocol: str) -> None:
    """Serve each connection in a thread of its own."""
    while True:
        link, _ = server.accept()
        threading.Thread(target=serve, args=(link, protocol), daemon=True).start()


# ---- the floods -----------------------------------------------------------------


def connect(port: int, source: str = FLOODER) -> socket.socket:
    """Connect as a client."""
    return socket.create_connection(
        ("127.0.0.1", port), timeout=5, source_address=(source, 0)
    )


def connects(port: int) -> None:
    """Connect, and close."""
    while True:
        connect(port).close()


def handshakes(port: int) -> None:
    """Connect, complete the handshake of TLS, and close."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    while True:
        with suppress(OSError), connect(port) as link:
            context.wrap_socket(link).close()


def crowd(port: int, begin: bytes = b"") -> None:
    """Take as many places as there are, and give the oldest up for another."""
    links = []
    while True:
        links.append(connect(port))
        with suppress(OSError):
            links[-1].sendall(begin)
        if len(links) > 300:
            links.pop(0).close()


def one_by_one(port: int, data: bytes) -> None:
    """Ask, wait for the response, and come back for the next."""
    while True:
        with suppress(OSError), connect(port) as link:
            link.sendall(data)
            link.recv(65536)


class Stream:
    """Pieces that are sent over and over."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = itertools.cycle(pieces)
        self._left = b""

    def send(self, link: socket.socket) -> None:
        """Send as much of a piece as is taken."""
        self._left = self._left or next(self._pieces)
        self._left = self._left[link.send(self._left) :]


def pump(port: int, *pieces: bytes, reads: bool = True, begin: bytes = b"") -> None:
    """Send pieces as fast as they are taken, on several connections."""
    selector = selectors.DefaultSelector()
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    events = both if reads else selectors.EVENT_WRITE
    while True:
        while len(selector.get_map()) < 4:
            link = connect(port)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.sendall(begin)
            link.setblocking(False)
            selector.register(link, events, (link, Stream(pieces)))
        for key, ready in selector.select(1):
            link, stream = key.data
            try:
                if ready & selectors.EVENT_READ and not link.recv(1 << 20):
                    raise ConnectionError
                if ready & selectors.EVENT_WRITE:
                    stream.send(link)
            except OSError:
                selector.unregister(link)
                link.close()


class Flood(NamedTuple):
    """A flood, and the program that it is played against."""

    protocol: str
    play: Callable[[int], None] | None
    flags: str = ""
    listener: str = ""
    """The kind of listener, if it is not the usual one."""


def pumping(protocol: str, *pieces: bytes, **how: object) -> Flood:
    """Make a flood of messages."""
    flags, listener = str(how.pop("flags", "")), str(how.pop("listener", ""))
    return Flood(
        protocol,
        lambda port: pump(port, *pieces, **how),  # type: ignore[arg-type]
        flags,
        listener,
    )


RNG = random.Random(1)
NOISE = [RNG.randbytes(1024) for _ in range(64)]
ALL = [READ[:6] + bytes((n >> 8, n & 0x7F, 0, n & 255, 0, 1)) for n in range(1 << 16)]
RNG.shuffle(ALL)
FIELDS = b"".join(b"X-Field-%d: %s\r\n" % (n, b"a" * 400) for n in range(120))
POST = b"POST / HTTP/1.1\r\nHost: device\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "nothing": Flood("modbus", None),
    "connects": Flood("modbus", connects),
    "TLS connects": Flood("modbus", handshakes, listener="tls"),
    "TLS half-open": Flood(
        "modbus", lambda port: crowd(port, b"\x16\3\1\2\0\1"), listener="tls"
    ),
    "silent clients": Flood("modbus", crowd),
    "a connection each": Flood("modbus", lambda port: one_by_one(port, READ)),
    "pipelined reads": pumping("modbus", READ * 100),
    "unread responses": pumping("modbus", READ * 100, reads=False),
    "refused writes": pumping("modbus", WRITE * 100, flags="--write-policy deny"),
    "acknowledged writes": pumping(
        "modbus", WRITE * 100, flags="--write-policy acknowledge"
    ),
    "units and functions": pumping("modbus", *ALL),
    "byte by byte": pumping("modbus", *(bytes((n,)) for n in READ)),
    "RTU reads": pumping("modbus", RTU_READ * 100, listener="rtu"),
    "RTU noise": pumping("modbus", *NOISE, listener="rtu"),
    "V5 noise": pumping(
        "modbus", *NOISE, *(b"\xa5" + n for n in NOISE), listener="solarman"
    ),
    "HTTP requests": pumping("http", GET % 0 * 100),
    "HTTP unread": pumping("http", GET % 1_000_000, reads=False),
    "HTTP chunks": pumping("http", CHUNK * 1000, begin=POST),
    "HTTP heads": pumping("http", (GET % 0)[:-2] + FIELDS + b"\r\n"),
    "HTTP refusals": pumping("http", b"GET /0 HTTP/1.1\r\n\r\n"),
    "keepalives": pumping("iso8583", b"\0\0" * 1000),
    "keepalives unread": pumping("iso8583", b"\0\0" * 1000, reads=False),
    "messages": pumping("iso8583", MESSAGE * 100),
    "lines": pumping("echo", b"x\n" * 100),
}

# ---- the measurement ------------------------------------------------------------

REQUESTS = {
    "modbus": READ,
    "http": GET % 0,
    "iso8583": MESSAGE,
    "echo": b"hello\n",
}
LISTENERS = ("", "rtu", "solarman", "tls")


def memory(pid: int) -> float:
    """Return what a process holds, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def ask(port: int, request: bytes, until: float, took: list[float]) -> None:
    """Be the other client until some time; note how long each response takes."""
    with connect(port, "127.0.0.1") as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (began := time.perf_counter()) < until:
            link.sendall(request)
            if not link.recv(65536):
                raise ConnectionError("the other client was closed")
            took.append(time.perf_counter() - began)
            time.sleep(PAUSE)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def running(target: Callable[..., None], *args: object) -> Generator[None]:
    """Have a function run in a process of its own."""
    process = multiprocessing.get_context("fork").Process(
        target=apart, args=(target, *args), daemon=True
    )
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def apart(target: Callable[..., None], *args: object) -> None:
    """Run a function that ends with its process."""
    with suppress(KeyboardInterrupt):
        target(*args)


def polite(play: Callable[[int], None], port: int) -> None:
    """Play a flood, behind whatever else wants the core."""
    os.nice(10)
    while True:
        with suppress(OSError):
            play(port)


@contextmanager
def program(flood: Flood, device: int, ports: dict[str, int]) -> Generator[int]:
    """Run the program on the first core; give its pid."""
    with TemporaryDirectory() as folder:
        key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
        subprocess.run(
            shlex.split(
                "openssl req -x509 -nodes -newkey ec -pkeyopt "
                "ec_paramgen_curve:prime256v1 -subj /CN=localhost "
                f"-keyout {key} -out {certificate}"
            ),
            check=True,
            capture_output=True,
        )
        command = (
            f"-m tcp_multiplexer server -p {flood.protocol} -t 127.0.0.1:{device} "
            f"-l 127.0.0.1:{ports['']} --timeout 5 {flood.flags}"
        )
        if flood.protocol == "modbus":
            command += (
                f" --also-listen-rtu 127.0.0.1:{ports['rtu']}"
                f" --also-listen-solarman 127.0.0.1:{ports['solarman']}"
                f" --also-listen-tls 127.0.0.1:{ports['tls']}"
                f" --listen-tls-certificate {certificate} --listen-tls-key {key}"
            )
        running = subprocess.Popen(
            (sys.executable, *shlex.split(command)), stderr=subprocess.DEVNULL
        )
        os.sched_setaffinity(running.pid, CORES[:1])
        try:
            yield running.pid
        finally:
            running.terminate()
            running.wait(10)


CORES = sorted(os.sched_getaffinity(0))


def wait_for(port: int) -> None:
    """Return once somebody listens."""
    for _ in range(200):
        with suppress(OSError):
            connect(port).close()
            return
        time.sleep(0.1)
    raise TimeoutError("the program does not listen")


def measure(name: str, flood: Flood, seconds: float) -> None:
    """Play a flood and print what came of it."""
    ports = {listener: free_port() for listener in LISTENERS}
    request = REQUESTS[flood.protocol]
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(running(run_device, server, flood.protocol))
        device = server.getsockname()[1]
        pid = stack.enter_context(program(flood, device, ports))
        wait_for(ports[""])
        ask(ports[""], request, time.perf_counter() + 2, [])
        before = highest = memory(pid)
        took: list[float] = []
        end = time.perf_counter() + seconds
        with ExitStack() as flooded:
            if flood.play is not None:
                port = ports[flood.listener]
                flooded.enter_context(running(polite, flood.play, port))
            args = (ports[""], request, end, took)
            other = threading.Thread(target=ask, args=args, daemon=True)
            other.start()
            while other.is_alive():
                highest = max(highest, memory(pid))
                other.join(0.25)
        after, settled = memory(pid), time.perf_counter() + SETTLES
        while after > before + 1 and time.perf_counter() < settled:
            time.sleep(0.25)
            after = memory(pid)
    ms = [1e3 * part for part in quantiles(took or [0.0, 0.0], n=100)]
    print(
        f"{name:20} {before:7.1f} {highest - before:+7.1f} {after - before:+7.1f}"
        f" {len(took):8} {ms[49]:7.2f} {ms[98]:7.2f} {1e3 * max(took or [0]):7.1f}",
        flush=True,
    )


def main() -> None:
    """Read the arguments and play the floods."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="words of their names; default: all")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    os.sched_setaffinity(0, CORES[-1:])
    print(f"{'':20} {'MiB':>7} {'most':>7} {'after':>7} {'others':>8}", end="")
    print(f" {'median':>7} {'99 %':>7} {'ms most':>7}")
    for name, flood in FLOODS.items():
        if not options.words or any(word in name for word in options.words):
            measure(name, flood, options.seconds)


if __name__ == "__main__":
    main()
