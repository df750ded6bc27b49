"""Every fault on real sockets, for each protocol: what a client sees of it.

    python -m tests.engine.faults

writes docs/faults.md anew; `test_faults.py` holds that page to what happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
import re
import resource
import time
from typing import Any, Final, cast, override
from unittest.mock import patch

from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings
from tests.waiting import until
from tests.wire import Frame, cut_frames

from .serial_line import with_crc
from .test_conformance import SPEAKERS, Speaker, modbus_frame

PAGE: Final = Path(__file__).parents[2] / "docs" / "faults.md"
TIMEOUT: Final = 1.0
AT_ONCE: Final = 0.7 * TIMEOUT
"""What has come by then did not wait for the deadline."""
GIVEN_UP: Final = 2.5 * TIMEOUT
"""When a client here stops waiting."""
ACCEPTED: Final = 0.01
"""How long a connection stays open that the device does not want, so that it is always
open for us."""
RATE: Final = 10_000 / 60
"""Connects a second."""

PROTOCOLS: Final = {
    "Modbus/TCP": SPEAKERS["modbus"],
    "RTU over TCP": SPEAKERS["modbus rtu"],
    "HTTP": SPEAKERS["http"],
    "ISO 8583": SPEAKERS["iso8583"],
    "MPU": SPEAKERS["mpu"],
    "lines": SPEAKERS["echo"],
}
MODBUS: Final = ("Modbus/TCP", "RTU over TCP")
NO_BODY: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
type React = Callable[["Line", bytes], None]


class Line(asyncio.Protocol):
    """A connection that the device has accepted."""

    transport: asyncio.Transport

    def __init__(self, device: Device) -> None:
        """Belong to a device."""
        self._device = device

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._device.lines.append(self)
        if self._device.hangs_up:
            self.later(ACCEPTED, self.transport.close)

    @override
    def data_received(self, data: bytes) -> None:
        self._device.heard.append(data)
        if not self._device.hangs_up:
            self._device.react(self, data)

    def say(self, data: bytes) -> None:
        """Send something, unless the connection is gone."""
        if not self.transport.is_closing():  # uvloop's transports would raise an error
            self.transport.write(data)

    def later(self, seconds: float, what: Callable[..., object], *args: Any) -> None:
        """Do something later."""
        asyncio.get_running_loop().call_later(seconds, what, *args)


class Device:
    """A device that reacts to requests as it is told."""

    def __init__(self, speaker: Speaker) -> None:
        """Answer as it should until told otherwise."""
        self.speaker = speaker
        self.lines: list[Line] = []
        self.heard: list[bytes] = []
        self.hangs_up = False
        """Close connections once they are accepted."""
        self.react: React = self.answer
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, at the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Line(self), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listen no more, and break off what there is."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for line in self.lines:
            line.transport.abort()

    def answer(self, line: Line, sent: bytes) -> None:
        """Answer."""
        if self.speaker is PROTOCOLS["HTTP"] and not re.match(rb"GET /\d", sent):
            line.say(NO_BODY)  # The multiplexer looks whether it answers.
        else:
            line.say(self.speaker.answer(sent))

    def script(self, *reactions: React) -> None:
        """React so to the next requests, one after the other, then answer again."""
        left = list(reactions)

        def react(line: Line, sent: bytes) -> None:
            (left.pop(0) if left else self.answer)(line, sent)

        self.react = react


class Client:
    """A client, and what it has received."""

    def __init__(self, scene: Scene) -> None:
        """Know how it speaks."""
        self._scene = scene
        self.received = b""
        self.closed = False

    async def connect(self, source: str = "127.0.0.1") -> None:
        """Connect."""
        port = self._scene.port
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(source, 0)
        )

    def send(self, data: bytes) -> None:
        """Send anything."""
        self._writer.write(data)

    def leave(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def gone(self) -> None:
        """Wait until that is done."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, number: int = 1) -> str:
        """Ask something, and say what comes of it."""
        self.send(self._scene.request(number))
        return await self.sees(number)

    async def sees(self, number: int = 1) -> str:
        """Return in words what the client gets for a request."""
        begin = time.monotonic()
        wanted = self._scene.wanted(number)
        before = len(self.received)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(GIVEN_UP):
                while not self._told(self.received[before:], wanted):
                    data = await self._reader.read(65536)
                    if not data:
                        break
                    self.received += data
                else:
                    got = self._told(self.received[before:], wanted)
                    return got if wanted in self.received else got + _when(begin)
        elapsed = time.monotonic() - begin
        if elapsed >= GIVEN_UP:
            return "nothing"
        return f"connection closed{_when(begin)}"

    def _told(self, data: bytes, wanted: bytes) -> str:
        """Return what a complete reply means, or nothing."""
        if wanted in data:
            alone = self._scene.name == "HTTP" or data == wanted
            return "the response" if alone else "the response, with the noise"
        if self._scene.is_modbus:
            for frame in cut_frames(bytearray(data)):
                if frame.pdu[0] & 0x80:
                    return f"exception 0x{frame.pdu[1]:02X}"
                return "another response"
        if status := re.match(rb"HTTP/1.1 (\d+) ", data):
            return status[1].decode()
        return ""


def _when(begin: float) -> str:
    """Return when something came."""
    waited = time.monotonic() - begin
    return " at once" if waited < AT_ONCE else " at the deadline"


@dataclass
class Scene:
    """A multiplexer between a device and clients, for one fault."""

    name: str
    speaker: Speaker
    device: Device
    mux: Multiplexer
    clients: list[Client] = field(default_factory=list)
    """All that have come."""

    @property
    def is_modbus(self) -> bool:
        """Whether clients speak Modbus/TCP."""
        return self.name in MODBUS

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.mux.snapshot().listen_addresses[0][1]

    def request(self, number: int) -> bytes:
        """Return a request as a client sends it."""
        return modbus_frame(number) if self.is_modbus else self.speaker.ask(number)

    def wanted(self, number: int) -> bytes:
        """Return what a client must get, or what nobody else gets of it."""
        speaker = SPEAKERS["modbus"] if self.is_modbus else self.speaker
        return speaker.heard(number)

    async def client(self, source: str = "127.0.0.1") -> Client:
        """Let a client come."""
        client = Client(self)
        await client.connect(source)
        self.clients.append(client)
        return client

    async def asks(self) -> str:
        """Let a client come and ask, and say what it sees."""
        return await (await self.client()).ask()


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    title: str
    what: str
    play: Callable[[Scene], Awaitable[str]]
    only: tuple[str, ...] = tuple(PROTOCOLS)
    alone: bool = False
    """It changes the whole process, so nothing else may happen beside it."""
    absent: bool = False
    """The device is not there at first."""


def _silent(line: Line, sent: bytes) -> None:
    """Do not answer."""


async def _then(scene: Scene, client: Client, sees: str) -> str:
    """Add what the next request gets, where that is not the response."""
    again = await client.ask(2) if "closed" not in sees else await _asked_anew(scene)
    return sees if again == "the response" else f"{sees}; the next: {again}"


async def _asked_anew(scene: Scene) -> str:
    return await (await scene.client()).ask(2)


def _once(reaction: Callable[[Device, Line, bytes], None]) -> Any:
    """Return how a fault is played that the device makes at its first request."""

    async def play(scene: Scene) -> str:
        device = scene.device
        device.script(lambda line, sent: reaction(device, line, sent))
        client = await scene.client()
        return await _then(scene, client, await client.ask())

    return play


async def _refused(scene: Scene) -> str:
    return await scene.asks()


async def _closed_after_accept(scene: Scene) -> str:
    scene.device.hangs_up = True
    scene.device.stop()
    await scene.device.start()
    return await scene.asks()


def _reset_in_response(device: Device, line: Line, sent: bytes) -> None:
    line.say(device.speaker.answer(sent)[:-1])
    line.later(0.05, line.transport.abort)


async def _half_open(scene: Scene) -> str:
    """Be silent on the first connection, and answer on any other."""
    device = scene.device

    def react(line: Line, sent: bytes) -> None:
        if line is not device.lines[0]:
            device.answer(line, sent)

    device.react = react
    client = await scene.client()
    seen = [await client.ask()]
    while seen[-1] != "the response" and len(seen) < 6:
        if "closed" in seen[-1]:
            client = await scene.client()
        seen.append(await client.ask(len(seen) + 1))
    return ", then ".join(dict.fromkeys(seen))


async def _late(scene: Scene) -> str:
    device = scene.device
    came = asyncio.Event()

    def come(line: Line, sent: bytes) -> None:
        device.answer(line, sent)
        came.set()

    device.script(lambda line, sent: line.later(1.2 * TIMEOUT, come, line, sent))
    client = await scene.client()
    sees = await client.ask()
    await came.wait()
    return await _then(scene, client, sees)


def _doubled(device: Device, line: Line, sent: bytes) -> None:
    line.say(2 * device.speaker.answer(sent))


async def _unsolicited(scene: Scene) -> str:
    client = await scene.client()
    await client.ask()
    device = scene.device
    before = scene.mux.snapshot().bytes_from_upstream
    said = device.speaker.answer(device.heard[-1])
    device.lines[-1].say(said)
    await until(lambda: scene.mux.snapshot().bytes_from_upstream > before)
    return await client.ask(2)


def _garbage(device: Device, line: Line, sent: bytes) -> None:
    line.say(b"\xff\xfe\xfd\xfc" * 5 + device.speaker.answer(sent))


def _split(device: Device, line: Line, sent: bytes) -> None:
    for number, byte in enumerate(device.speaker.answer(sent)):
        line.later(number * 0.005, line.say, bytes((byte,)))


def _wrong(at: int) -> Callable[[Device, Line, bytes], None]:
    """Return how to answer with another byte there, and rightly a little later."""

    def react(device: Device, line: Line, sent: bytes) -> None:
        right = device.speaker.answer(sent)
        is_rtu = device.speaker is PROTOCOLS["RTU over TCP"]
        place = at - 6 if is_rtu else at
        other = bytearray(right)
        other[place] ^= 0x04
        wrong = with_crc(bytes(other[:-2])) if is_rtu else bytes(other)
        line.say(wrong)
        line.later(0.1, line.say, right)

    return react


async def _restart(scene: Scene) -> str:
    client = await scene.client()
    await client.ask()
    scene.device.stop()
    asking = asyncio.create_task(client.ask(2))
    await asyncio.sleep(0.3 * TIMEOUT)
    await scene.device.start()
    return await asking


def _slow(device: Device, line: Line, sent: bytes) -> None:
    line.later(0.6 * TIMEOUT, line.say, device.speaker.answer(sent))


async def _slow_reader(scene: Scene) -> str:
    """Ask much without reading; say what another client gets meanwhile."""
    slow = await scene.client()
    for number in range(50):
        slow.send(scene.request(number))
    return f"other clients: {await (await scene.client()).ask(200)}"


async def _client_gone(scene: Scene) -> str:
    scene.device.script(_silent_for(0.2))
    gone = await scene.client()
    gone.send(scene.request(1))
    await until(lambda: scene.device.heard)
    gone.leave()
    return f"other clients: {await (await scene.client()).ask(2)}"


def _silent_for(seconds: float) -> React:
    def react(line: Line, sent: bytes) -> None:
        line.later(seconds, line._device.answer, line, sent)  # noqa: SLF001

    return react


async def _flood(scene: Scene) -> str:
    flood = await scene.client("127.0.0.2")
    flood.send(b"".join(scene.request(number % 250) for number in range(1000)))
    seen = [await (await scene.client()).ask(number) for number in (1, 2)]
    return f"other clients: {', '.join(dict.fromkeys(seen))}"


async def _slow_head(scene: Scene) -> str:
    """Send less than a request, and then nothing."""
    client = await scene.client()
    client.send(scene.request(1)[:3])
    return await client.sees()


async def _oversized(scene: Scene) -> str:
    client = await scene.client()
    client.send(
        {
            "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000,
            "ISO 8583": b"\xff\xff" + b"x" * 65_535,
            "MPU": b"9999" + b"x" * 9_999,
            "lines": b"x" * 70_000,
        }.get(scene.name, Frame(1, 1, bytes(300)).encoded())
    )
    if scene.name in {"ISO 8583", "MPU"}:  # Nothing longer can be said.
        scene.device.react = lambda line, _: line.say(
            scene.speaker.answer(scene.speaker.ask(1))
        )
    return await client.sees()


async def _connects(scene: Scene) -> str:
    """Connect at the rate for a second and a half; then ask."""
    begin = time.monotonic()
    came = 0
    while (elapsed := time.monotonic() - begin) < 1.5:
        while came < elapsed * RATE:
            came += 1
            (await scene.client()).leave()
        await asyncio.sleep(0.01)
    return await scene.asks()


async def _no_descriptors(scene: Scene) -> str:
    """Let hardly any be left; say what a client gets that is there, and a new one."""
    there = await scene.client()
    await there.ask()
    limit = next(n for n in count() if n - min(64, n // 4) > _descriptors() + 4)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        # (There may be free ones below the highest.)
        newcomers = [await scene.client()]
        while not scene.mux.snapshot().clients_refused:
            newcomers.append(await scene.client())
            await asyncio.sleep(0)
        newcomer = await newcomers[-1].ask(3)
        return f"a newcomer: {newcomer}; who is connected: {await there.ask(2)}"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _descriptors() -> int:
    """Return the highest file descriptor that is in use."""
    return max(int(each.name) for each in Path("/proc/self/fd").iterdir())


async def _clock_jump(scene: Scene) -> str:
    client = await scene.client()
    await client.ask()
    scene.device.script(_silent_for(0.2))
    asking = asyncio.create_task(client.ask(2))
    await until(lambda: len(scene.device.heard) == 2)
    now = time.time
    with patch.object(time, "time", lambda: now() + 3600):
        return await asking


async def _silent_unit(scene: Scene) -> str:
    """Ask a unit that never answers, again and again, and another one."""
    device = scene.device
    at = 0 if scene.name == "RTU over TCP" else 6

    def react(line: Line, sent: bytes) -> None:
        if sent[at] != 9:
            device.answer(line, sent)

    device.react = react
    client, other = await scene.client(), await scene.client()
    seen = []
    for number in range(4):
        ask = bytearray(scene.request(number))
        ask[6] = 9
        client.send(bytes(ask))
        seen.append(await client.sees())
        await other.ask(number)
    silent = ", then ".join(dict.fromkeys(seen))
    return f"{silent}; other units: {await other.ask(7)}"


async def _poison(scene: Scene) -> str:
    """Ask something at which the device closes the connection, each time."""
    device = scene.device
    client = await scene.client()
    poison: list[bytes] = []

    def react(line: Line, sent: bytes) -> None:
        if not poison:  # It comes first; it may have another identifier when resent.
            poison.append(sent[2:])
        if sent[2:] == poison[0]:
            line.transport.close()
        else:
            device.answer(line, sent)

    device.react = react
    return await _then(scene, client, await client.ask(66))


FAULTS: Final = (
    Fault("Refused", "The device refuses connections.", _refused, absent=True),
    Fault(
        "Closed after accept",
        "The device accepts each connection and closes it.",
        _closed_after_accept,
    ),
    Fault(
        "Reset within a response",
        "The connection breaks off within the response.",
        _once(_reset_in_response),
    ),
    Fault(
        "Half-open",
        "The connection is dead and nobody said so: nothing comes on it any more. A new "
        "one works.",
        _half_open,
    ),
    Fault("Late", "The response comes after the deadline.", _late),
    Fault("Never", "There is no response.", _once(lambda *_: None)),
    Fault("Doubled", "The response comes twice.", _once(_doubled)),
    Fault(
        "Unsolicited",
        "The device says something that nobody asked for, and then answers.",
        _unsolicited,
    ),
    Fault("Garbage", "Noise comes before the response.", _once(_garbage)),
    Fault("Split", "The response comes byte by byte.", _once(_split)),
    Fault(
        "Wrong identifier",
        "A response with another transaction identifier comes before the right one.",
        _once(_wrong(1)),
        only=MODBUS[:1],
    ),
    Fault(
        "Wrong unit",
        "A response of another unit comes before the right one.",
        _once(_wrong(6)),
        only=MODBUS,
    ),
    Fault(
        "Wrong function",
        "A response with another function code comes before the right one.",
        _once(_wrong(7)),
        only=MODBUS,
    ),
    Fault(
        "Restart",
        "The device goes away with a request pending, and is back in time.",
        _restart,
    ),
    Fault("Slow device", "The response takes most of the timeout.", _once(_slow)),
    Fault("Slow reader", "A client asks 50 times and reads nothing.", _slow_reader),
    Fault("Client gone", "A client leaves while it is served.", _client_gone),
    Fault("Flood", "A client sends 1,000 requests at once.", _flood),
    Fault("Slow head", "A client begins a request and goes no further.", _slow_head),
    Fault(
        "Oversized",
        "A client sends more than a message may have, or as much as it can have.",
        _oversized,
    ),
    Fault("10,000 connects a minute", "Clients come and go at once.", _connects),
    Fault(
        "No descriptors left",
        "Nearly all file descriptors of the process are in use.",
        _no_descriptors,
        alone=True,
    ),
    Fault(
        "Clock jump",
        "The time of day jumps by an hour while a request is in flight.",
        _clock_jump,
        alone=True,
    ),
    Fault(
        "A silent unit",
        "One unit behind a gateway never answers, the others do.",
        _silent_unit,
        only=MODBUS,
    ),
    Fault(
        "A poison request",
        "A request makes the device close the connection, whenever it comes.",
        _poison,
    ),
)

COUNTED: Final = {
    "timeouts": "timeouts",
    "late_responses": "late responses",
    "unsolicited_responses": "unsolicited responses",
    "invalid_requests": "invalid requests",
    "clients_refused": "clients refused",
    "reconnects": "reconnects",
}
type Row = tuple[str, str]
"""What a client sees, and what is counted."""


async def play(name: str, fault: Fault) -> Row:
    """Play a fault with a protocol; return what there was to see."""
    speaker = PROTOCOLS[name]
    device = Device(speaker)
    await device.start()
    if fault.absent:
        device.stop()
    mux = Multiplexer(
        Settings(
            **{
                "host": "127.0.0.1",
                "port": device.port,
                "listen_host": "127.0.0.1",
                "listen_port": 0,
                "protocol": speaker.protocol.name,
                "timeout": TIMEOUT,
                "reconnect_backoff": 0.1,
                "reconnect_backoff_max": 0.1,
                "quiet": 0.2,
                "health_check_interval": 0.0,
                **speaker.settings,
            }
        )
    )
    await mux.start()
    scene = Scene(name, speaker, device, mux)
    try:
        if not fault.absent:
            await until(lambda: mux.snapshot().connections)
        sees = await fault.play(scene)
        return sees, counted(mux)
    finally:
        for client in scene.clients:
            await client.gone()
        await mux.stop()
        device.stop()
        await asyncio.sleep(0)  # What was aborted leaves the loop.


def counted(mux: Multiplexer) -> str:
    """Return in words which counters of what goes wrong are not zero."""
    picture = mux.snapshot()
    failures = [
        f"failures ({name.replace('_', ' ')})"
        for name, count in picture.failures.items()
        if count
    ]
    others = [words for name, words in COUNTED.items() if getattr(picture, name)]
    return ", ".join([*failures, *others]) or "nothing"


async def play_all(name: str) -> dict[str, Row]:
    """Play all faults that a protocol can have."""
    faults = [fault for fault in FAULTS if name in fault.only]
    together = [fault for fault in faults if not fault.alone]
    rows = dict(
        zip(
            [fault.title for fault in together],
            await asyncio.gather(*(play(name, fault) for fault in together)),
            strict=True,
        )
    )
    for fault in faults:
        if fault.alone:
            rows[fault.title] = await play(name, fault)
    return {fault.title: rows[fault.title] for fault in faults}


HEAD: Final = """# Faults

What a client sees of a fault, and what is counted, with the default settings but a
timeout of one second. *At once* is before the deadline, with nothing left to wait for.
Requests and responses, which are always counted, are not named.

Each line has been seen on real sockets: `tests/engine/faults.py` plays all of them and
writes this page (`python -m tests.engine.faults`), and a test plays them again.
"""


def page(seen: Mapping[str, Mapping[str, Row]]) -> str:
    """Return the page for what was seen, by protocol and fault."""
    parts = [HEAD]
    for fault in FAULTS:
        parts.append(f"\n## {fault.title}\n\n{fault.what}\n")
        parts.append("\n| Protocol | What a client gets | What is counted |\n")
        parts.append("| --- | --- | --- |\n")
        alike: dict[Row, list[str]] = {}
        for name in fault.only:
            alike.setdefault(seen[name][fault.title], []).append(name)
        parts += [
            f"| {', '.join(names)} | {' | '.join(row)} |\n"
            for row, names in alike.items()
        ]
    return "".join(parts)


def read_page(text: str) -> dict[str, dict[str, Row]]:
    """Return what a page says, by protocol and fault."""
    said: dict[str, dict[str, Row]] = {name: {} for name in PROTOCOLS}
    for part in text.split("\n## ")[1:]:
        title = part.partition("\n")[0]
        rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", part, re.MULTILINE)
        for names, sees, counts in rows[2:]:
            for name in names.split(", "):
                said[name][title] = sees, counts
    return said


async def main() -> None:
    """Play everything and write the page."""
    seen = {name: await play_all(name) for name in PROTOCOLS}
    PAGE.write_text(page(seen), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
