"""Clients as they are: many, impatient, slow, half-closed, unwelcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
import itertools
import resource
import socket
import struct
import sys
import time
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    ClientRefusal,
    Event,
    EventType,
    Multiplexer,
)
from custom_components.tcp_multiplexer.multiplexer.downstream.web_page import (
    begins_http,
)
from custom_components.tcp_multiplexer.multiplexer.limits import Limits
from custom_components.tcp_multiplexer.multiplexer.memory import Memory
from custom_components.tcp_multiplexer.multiplexer.sockets import set_keepalive
from tests.waiting import settled, until
from tests.wire import Frame, exception, read, values, write

from .conftest import Connect, Multiplex
from .devices import (
    Client,
    Device,
    ignore,
    port_of,
    reset,
    running,
    serving,
    silent_port,
)


def names(multiplexer: Multiplexer) -> list[int]:
    """Give the ports of the clients, in the order in which they came."""
    return [client.port for client in multiplexer.snapshot().clients]


async def gone(multiplexer: Multiplexer, client: Client) -> None:
    """Wait until a client is not there any more."""
    await until(lambda: client.address[1] not in names(multiplexer))


@pytest.mark.parametrize(
    ("data", "is_http"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"PROPFIND * HTTP/2\n\0", True),
        (b"POST /" + b"a" * (64 << 10), True),
        (b"PO", None),
        (b"GET /status", None),
        (b"GET /status\n", False),
        (b"GETS", False),
        (b"\x01\x06\x00\x05\n", False),
        (b"0800", False),
    ],
)
def test_what_begins_an_http_request(data: bytes, is_http: bool | None) -> None:
    assert begins_http(data) is is_http


async def test_http_responses_of_our_own_wait_in_a_bounded_line(
    multiplex: Multiplex,
) -> None:
    trace = (
        b"TRACE / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nLong: %s\r\n\r\n"
        % bytes(8000).replace(b"\0", b"a")
    )
    with silent_port() as port:
        multiplexer = await multiplex(protocol="http", port=port, timeout=60)
        client = await Client.connect(port_of(multiplexer))
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + trace * 200)
        received = await settled(lambda: multiplexer.snapshot().bytes_from_clients)
        assert received <= 256 << 10
        client.close()
        await multiplexer.stop()


# ---- who may come ---------------------------------------------------------------


async def test_client_from_elsewhere_is_closed_at_once_and_counted(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(allowed_networks=(ip_network("127.0.0.2/32"),))
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    stranger = await connect(multiplexer)
    stranger.send(write(1, 2))
    assert await stranger.closed()
    assert (
        Event(EventType.CLIENT_REFUSED, "127.0.0.1", ClientRefusal.NOT_ALLOWED)
        in events
    )
    friend = Client(
        *await asyncio.open_connection(
            "127.0.0.1", port_of(multiplexer), local_addr=("127.0.0.2", 0)
        )
    )
    assert await friend.ask(read()) == values()
    friend.close()
    snapshot = multiplexer.snapshot()
    assert (snapshot.clients_refused, snapshot.clients_peak) == (1, 1)
    assert (snapshot.requests, snapshot.bytes_from_clients) == (1, 12)
    assert device.asked == [read()]


async def test_one_client_too_many_is_closed_at_once(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_clients=2)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    clients = [await connect(multiplexer) for _ in range(2)]
    assert await (await connect(multiplexer)).closed()
    assert (
        Event(EventType.CLIENT_REFUSED, "127.0.0.1", ClientRefusal.TOO_MANY_CLIENTS)
        in events
    )
    for client in clients:
        assert await client.ask(read()) == values()
    clients[0].close()
    await gone(multiplexer, clients[0])
    assert await (await connect(multiplexer)).ask(read()) == values()
    assert multiplexer.snapshot().clients_peak == 2


async def test_five_hundred_clients_are_served(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=60, max_clients=2000)
    clients = [await connect(multiplexer) for _ in range(500)]
    for turn in range(2):
        for number, client in enumerate(clients):
            client.send(read(2 * number + turn))
        for number, client in enumerate(clients):
            assert (await client.receive()).pdu == values(2 * number + turn)
    snapshot = multiplexer.snapshot()
    assert len(snapshot.clients) == snapshot.clients_peak == 500
    assert [client.requests for client in snapshot.clients] == [2] * 500
    assert len(device.links) == 1


# ---- clients that leave ---------------------------------------------------------


def close(client: Client) -> None:
    """Leave politely."""
    client.close()


def break_off(client: Client) -> None:
    """Leave without a word."""
    client.reset()


def half_close(client: Client) -> None:
    """Leave, but listen."""
    client.half_close()


@pytest.mark.parametrize("leave", [close, break_off, half_close])
async def test_reads_of_one_that_left_are_dropped_and_its_writes_carried_out(
    device: Device, multiplex: Multiplex, connect: Connect, leave: Any
) -> None:
    multiplexer = await multiplex()
    patient, hasty = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    patient.send(read(1))
    await device.holds(1)
    hasty.send(read(2), write(3, 4), read(5), write(6, 7))
    await until(lambda: multiplexer.snapshot().queue_depth == 4)
    leave(hasty)
    await until(lambda: multiplexer.snapshot().queue_depth == 2)
    device.release()
    assert (await patient.receive()).pdu == values(1)
    await device.has_been_asked(3)
    assert device.asked == [read(1), write(3, 4), write(6, 7)]
    if leave is half_close:  # it still listens, and is told what became of them
        assert [(await hasty.receive()).pdu for _ in range(2)] == device.asked[1:]
        assert await hasty.closed()
    await gone(multiplexer, hasty)


async def test_disconnected_client_left_its_writes_too(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.hold()
    client.send(write(1, 2), write(3, 4), read(5))
    await device.holds(1)
    assert multiplexer.disconnect_client() == 1
    assert await client.closed()
    device.release()
    await device.has_been_asked(2)
    assert device.asked == [write(1, 2), write(3, 4)]


async def test_exchange_in_flight_ends_normally_when_its_client_leaves(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    listening, deaf, other = [await connect(multiplexer) for _ in range(3)]
    device.hold()
    listening.send(read(1))
    await device.holds(1)
    listening.half_close()
    deaf.send(read(2))
    await until(lambda: multiplexer.snapshot().queue_depth == 1)
    device.release()
    assert (await listening.receive()).pdu == values(1)
    assert await listening.closed()
    assert (await deaf.receive()).pdu == values(2)
    device.hold()
    deaf.send(read(3))
    await device.holds(1)
    deaf.reset()
    await gone(multiplexer, deaf)
    device.release()
    assert await other.ask(read(4)) == values(4)
    snapshot = multiplexer.snapshot()
    assert (snapshot.responses, snapshot.unsolicited_responses) == (4, 0)


async def test_patient_client_does_not_wait_for_those_who_gave_up(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(share_reads=False)
    patient, other = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    other.send(read(1))
    await device.holds(1)
    for _ in range(5):
        crowd = [await connect(multiplexer) for _ in range(8)]
        for number, client in enumerate(crowd):
            client.send(read(100 + number))
        await until(lambda: multiplexer.snapshot().queue_depth >= 7)
        for client in crowd:
            client.close()
        await until(lambda: len(names(multiplexer)) == 2)
    patient.send(read(2))
    await until(lambda: multiplexer.snapshot().queue_depth == 1)
    device.release()
    assert (await patient.receive()).pdu == values(2)
    assert device.asked == [read(1), read(2)]


async def test_leaving_is_noticed_though_the_queue_is_full(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """A client over its bound is read on a little, so that its close is seen."""
    multiplexer = await multiplex(queue_size=2)
    other, hasty = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    other.send(read(1))
    await device.holds(1)
    hasty.send(*(read(i) for i in range(100)), write(2, 2), read(3), write(4, 4))
    await until(lambda: multiplexer.snapshot().queue_depth == 2)
    asked = multiplexer.snapshot().requests
    hasty.half_close()
    await until(lambda: multiplexer.snapshot().requests == asked + 2)
    # What had no room is dropped like the rest; a command is a command.
    device.release()
    assert [(await hasty.receive()).pdu for _ in range(2)] == [write(2, 2), write(4, 4)]
    assert await hasty.closed()
    assert device.asked == [read(1), write(2, 2), write(4, 4)]


async def test_garbage_behind_the_last_write_does_not_matter_any_more(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=1)
    other, hasty = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    other.send(read(1))
    await device.holds(1)
    hasty.send(read(8), read(9), write(2, 2))
    hasty.writer.write(b"\0\1\0\0\0\0" + Frame(9, 1, write(3, 3)).encoded())
    await until(lambda: multiplexer.snapshot().queue_depth == 1)
    asked = multiplexer.snapshot().requests
    hasty.half_close()
    await until(lambda: multiplexer.snapshot().requests == asked + 1)
    device.release()
    assert (await hasty.receive()).pdu == write(2, 2)
    assert await hasty.closed()
    assert device.asked == [read(1), write(2, 2)]


async def test_order_is_kept_by_reads_that_have_to_ask_themselves(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """What a client placed behind a read that followed another's stays behind it."""
    multiplexer = await multiplex(queue_size=1)
    leader, follower = [await connect(multiplexer) for _ in range(2)]
    assert await leader.ask(read(9)) == values(9)
    device.hold()
    leader.send(read(1, 1))
    await device.holds(1)
    follower.send(read(1, 1), write(1, 5), read(1, 1))
    await until(lambda: multiplexer.snapshot().queue_depth == 1)
    leader.reset()
    await gone(multiplexer, leader)
    lost = device.held.pop()
    device.release()
    reset(lost)
    answers = [(await follower.receive()).pdu for _ in range(3)]
    assert answers == [values(1, 1), write(1, 5), b"\3\2\0\5"]
    assert device.asked == [read(9), read(1, 1), read(1, 1), write(1, 5), read(1, 1)]


@pytest.mark.parametrize("protocol", ["echo", "mpu"])
async def test_half_close_of_other_protocols_is_answered_first(
    multiplex: Multiplex, protocol: str
) -> None:
    message = {"echo": b"hello\n", "mpu": b"0005hello"}[protocol]
    received = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            received.append(await reader.readexactly(len(message)))
            writer.write(received[-1])
        await reader.read()

    async with serving(serve) as port:
        multiplexer = await multiplex(protocol=protocol, port=port, queue_size=1)
        client = await Client.connect(port_of(multiplexer))
        client.writer.write(message * 3 + message[:2])
        client.half_close()
        assert await client.reader.read() == message * 3
        client.close()
        await until(lambda: not names(multiplexer))
        assert multiplexer.snapshot().invalid_requests == 1  # the rest of a message
        await multiplexer.stop()


# ---- clients that do not read ---------------------------------------------------


@asynccontextmanager
async def slow_client(multiplexer: Multiplexer) -> AsyncGenerator[Client]:
    """Have a client behind a path that holds next to nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port_of(multiplexer)))
    client = Client(*await asyncio.open_connection(sock=sock))
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield client
    finally:
        client.close()


def read_on(client: Client) -> None:
    """Let a slow client read after all, and its path hold more."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def test_slow_reader_holds_up_nobody_and_gets_everything_in_the_end(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=8, timeout=60)
    other = await connect(multiplexer)
    async with slow_client(multiplexer) as slow:
        pdus = [read(i, 125) for i in range(3000)]
        slow.send(*pdus)
        # It is asked no more for than fits into the buffers on its way.
        await until(lambda: multiplexer.snapshot().in_flight == 0 < len(device.asked))
        seen = 0
        while seen < len(device.requests):
            seen = len(device.requests)
            assert await other.ask(read(5)) == values(5)
            seen += 1
        assert seen < 2500
        snapshot = multiplexer.snapshot()
        (one,) = [c for c in snapshot.clients if c.port == slow.address[1]]
        assert one.pending <= 8
        assert one.bytes_in - 12 * one.requests <= 4096  # enough to notice its close
        read_on(slow)
        for number in range(3000):
            frame = await slow.receive()
            assert (frame.transaction, frame.pdu) == (number + 1, values(number, 125))


async def test_slow_reader_is_not_blamed_for_a_message_that_nobody_reads(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(queue_size=10_000, timeout=0.5)
    last = Frame(9999, 1, read(7)).encoded()
    async with slow_client(multiplexer) as slow:
        slow.send(*(read(i, 125) for i in range(1500)))
        slow.writer.write(last[:3])
        began = time.monotonic()
        await until(lambda: multiplexer.snapshot().failures["busy"])  # it is held
        slow.writer.write(last[3:])
        await until(lambda: time.monotonic() > began + 1.2)
        assert names(multiplexer)
        read_on(slow)
        frames = [await slow.receive() for _ in range(1501)]
        assert {frame.pdu[:1] for frame in frames} == {b"\3", b"\x83"}
        # Its time is over if it was read while nobody took the responses.
        either = (values(7), exception(3, 0x06))
        assert frames[-1] in [Frame(9999, 1, pdu) for pdu in either]


async def test_slow_reader_may_leave(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """What it had pending is dropped, and the device is free for the others."""
    multiplexer = await multiplex(queue_size=8, timeout=60)
    other = await connect(multiplexer)
    async with slow_client(multiplexer) as slow:
        slow.send(*(read(i, 125) for i in range(1500)))
        await until(lambda: len(device.requests) > 100)
        await settled(lambda: len(device.requests))
        assert multiplexer.snapshot().queue_depth
        slow.reset()
        await gone(multiplexer, slow)
    assert multiplexer.snapshot().queue_depth == 0
    asked = len(device.requests)
    assert await other.ask(read(5)) == values(5)
    assert len(device.requests) == asked + 1 < 1500


async def test_slow_reader_that_asks_no_more_gets_everything_and_an_end(
    multiplex: Multiplex,
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    lines = [b"%05d" % number * 800 + b"\n" for number in range(200)]
    async with serving(echo) as port:
        multiplexer = await multiplex(
            protocol="echo", port=port, queue_size=1000, timeout=60
        )
        async with slow_client(multiplexer) as slow:
            slow.writer.write(b"".join(lines))
            slow.half_close()
            await until(lambda: multiplexer.snapshot().requests == len(lines))
            await until(lambda: multiplexer.snapshot().responses)
            assert await settled(lambda: multiplexer.snapshot().responses) < len(lines)
            read_on(slow)
            for line in lines:
                assert await slow.reader.readexactly(len(line)) == line
            assert await slow.reader.read() == b""
        await multiplexer.stop()


# ---- memory ---------------------------------------------------------------------


def post(size: int, *, body: bytes | None = None) -> bytes:
    """Give an HTTP request with a large body, or some of it."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    return head + (bytes(size) if body is None else body)


async def test_large_messages_wait_for_one_another_s_memory(
    multiplex: Multiplex,
) -> None:
    limits = Limits(buffer=500_000)
    size = 300_000
    bodies = 0
    go_on = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal bodies
        while head := await reader.readuntil(b"\r\n\r\n"):
            assert b"Content-Length: 300000" in head
            await reader.readexactly(size)
            bodies += 1
            await go_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serving(take) as port:
        multiplexer = await multiplex(
            protocol="http", port=port, timeout=60, limits=limits
        )
        clients = [await Client.connect(port_of(multiplexer)) for _ in range(4)]
        for client in clients:
            client.writer.write(post(size))
        await until(lambda: bodies == 1)
        # One is in flight; of the others no more is read than there is memory for,
        # and what comes at once.
        seen = await settled(lambda: multiplexer.snapshot().bytes_from_clients)
        assert seen < size + 500_000 + len(clients) * 65_536 < len(clients) * size
        # Then all have begun, and no memory is left to complete one but the oldest.
        go_on.set()
        for client in clients:
            await client.reader.readuntil(b"\r\n\r\nok")
            client.close()
        await until(lambda: not names(multiplexer))
        await multiplexer.stop()


async def test_memory_of_large_messages_is_given_back_however_they_end(
    multiplex: Multiplex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered, refused, dropped with their client, or never completed."""
    size = 300_000
    taken = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"Content-Length" in head:
                await reader.readexactly(size)
            taken += 1
            if b"GET /silent" not in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serving(take) as port:
        memories: list[Memory] = []

        def make(*arguments: Any) -> Memory:
            memories.append(Memory(*arguments))
            return memories[-1]

        monkeypatch.setattr(sys.modules[Multiplexer.__module__], "Memory", make)
        multiplexer = await multiplex(protocol="http", port=port, timeout=60)
        (memory,) = memories

        async def come(data: bytes) -> Client:
            client = await Client.connect(port_of(multiplexer))
            client.writer.write(data)
            return client

        answered = await come(post(size))
        await answered.reader.readuntil(b"\r\n\r\nok")
        silent = await come(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: taken == 2)
        dropped = await come(post(size).replace(b"POST", b"GET"))
        refused = await come(post(size))
        unfinished = await come(post(size, body=bytes(size - 1)))
        await until(lambda: multiplexer.snapshot().queue_depth == 2)
        await until(lambda: memory.occupied > 2 * size)
        dropped.reset()
        unfinished.reset()
        await until(lambda: len(names(multiplexer)) == 3)
        await multiplexer.apply(replace(multiplexer.settings, timeout=0.1))
        assert b" 503 " in await refused.reader.readline()
        await until(lambda: memory.occupied == 0)
        await multiplexer.stop()
        for client in (answered, silent, dropped, refused, unfinished):
            client.close()


LARGE = 8_000_000
"""Bytes of a response: more than the system takes at once."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a device whose responses are large."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        writer.write(bytes(LARGE))


async def test_client_that_leaves_most_unread_is_closed_for_the_others(
    multiplex: Multiplex,
) -> None:
    limits = Limits(buffer=LARGE * 3 // 2)
    async with serving(large) as port:
        multiplexer = await multiplex(
            protocol="http", port=port, timeout=60, limits=limits
        )
        async with slow_client(multiplexer) as greedy, slow_client(multiplexer) as slow:
            greedy.writer.write(GET * 4)
            # It gets two, and no more while these are unread.
            await until(lambda: multiplexer.snapshot().responses == 2)
            await until(lambda: multiplexer.snapshot().queue_depth == 2)
            assert await settled(lambda: multiplexer.snapshot().responses) == 2
            slow.writer.write(GET)
            await until(lambda: names(multiplexer) == [slow.address[1]])
            read_on(slow)
            await slow.reader.readuntil(b"\r\n\r\n")
            assert await slow.reader.readexactly(LARGE) == bytes(LARGE)
            # What was read counts no more.
            for _ in range(2):
                slow.writer.write(GET)
                await slow.reader.readuntil(b"\r\n\r\n")
                assert await slow.reader.readexactly(LARGE) == bytes(LARGE)
        await multiplexer.stop()


async def test_last_words_reach_a_client_that_still_sends(
    multiplex: Multiplex,
) -> None:
    """Though it is read no further because of what it has not read itself."""
    async with serving(large) as port:
        multiplexer = await multiplex(protocol="http", port=port)
        for half_closed in (False, True):
            client = await Client.connect(port_of(multiplexer))
            client.writer.write(GET + b"GARBAGE\r\n\r\n")
            if half_closed:
                client.half_close()
            told = await client.reader.read()
            assert len(told) > LARGE
            assert b"HTTP/1.1 400 " in told[LARGE:]
            client.close()
            await until(lambda: not names(multiplexer))
        await multiplexer.stop()


# ---- messages that are not --------------------------------------------------------


async def test_message_begun_and_not_completed_in_time_closes_its_client(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.2)
    idle, first, second = [await connect(multiplexer) for _ in range(3)]
    before = time.monotonic()
    first.writer.write(b"\0")
    second.send(read(1))
    second.writer.write(Frame(9, 1, read(2)).encoded()[:-1])
    assert (await second.receive()).pdu == values(1)
    assert await first.closed()
    assert await second.closed()
    assert time.monotonic() - before >= 0.199
    assert multiplexer.snapshot().invalid_requests == 2
    assert await idle.ask(read(3)) == values(3)


async def test_client_whose_pieces_end_within_messages_is_not_closed(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.3)
    client = await connect(multiplexer)
    frame = Frame(1, 1, read()).encoded()
    client.writer.write(frame[:5])
    began = time.monotonic()
    while time.monotonic() - began < 0.8:
        client.writer.write(frame[5:] + frame[:5])
        assert (await client.receive()).pdu == values()


async def test_message_in_time_is_not_late(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """Nor is the next, when a timer for an earlier one rings."""
    multiplexer = await multiplex(timeout=0.3)
    first, second = [await connect(multiplexer) for _ in range(2)]
    frame = Frame(1, 1, read()).encoded()
    first.writer.write(frame[:3])
    await until(lambda: multiplexer.snapshot().bytes_from_clients == 3)
    at = time.monotonic() + 0.15
    await until(lambda: time.monotonic() >= at)
    second.writer.write(frame[:3])
    assert await first.closed()
    second.writer.write(frame[3:])
    assert (await second.receive()).pdu == values()
    at = time.monotonic() + 0.4
    await until(lambda: time.monotonic() >= at)
    assert await second.ask(read(1)) == values(1)


async def test_frame_of_another_protocol_is_counted_and_changes_nothing(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    client.writer.write(bytes.fromhex("0007 0001 0006 01 03 0000 0001"))
    assert await client.ask(read()) == values()
    assert device.asked == [read()]
    assert multiplexer.snapshot().invalid_requests == 1


async def test_timeout_of_a_full_queue_lets_its_client_go_on(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """One whose last pending request was refused may place another at once."""
    multiplexer = await multiplex(queue_size=1, timeout=3600, matching="lenient")
    holder, blocked, waiting = [await connect(multiplexer) for _ in range(3)]
    device.respond = ignore
    holder.send(read(1))
    await device.has_been_asked(1)
    await multiplexer.apply(replace(multiplexer.settings, timeout=0.4))
    blocked.send(read(2))
    await until(lambda: multiplexer.snapshot().queue_depth == 1)
    at = time.monotonic() + 0.2
    await until(lambda: time.monotonic() >= at)
    blocked.send(read(3))
    waiting.send(read(4))
    assert (await blocked.receive()).pdu == exception(3, 0x06)
    assert [client.pending for client in multiplexer.snapshot().clients] == [0, 1, 1]
    for client in (waiting, blocked):
        assert (await client.receive()).pdu == exception(3, 0x06)


# ---- the socket -----------------------------------------------------------------


async def test_client_that_is_gone_before_it_is_accepted_is_none(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex()
    for _ in range(3):
        hasty = socket.create_connection(("127.0.0.1", port_of(multiplexer)))
        hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        hasty.close()
    polite = await Client.connect(port_of(multiplexer))
    assert await polite.ask(read()) == values()
    assert names(multiplexer) == [polite.address[1]]
    polite.close()


async def test_options_that_a_system_lacks_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    set_keepalive(asyncio.Transport())  # has no socket at all
    async with running() as device:
        client = await Client.connect(device.port)
        set_keepalive(client.writer.transport)
        sock: socket.socket = client.writer.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        client.close()


async def test_dead_peers_are_found_by_the_system() -> None:
    async with running() as device:
        client = await Client.connect(device.port)
        set_keepalive(client.writer.transport)
        sock: socket.socket = client.writer.get_extra_info("socket")

        def option(level: int, name: int) -> int:
            return sock.getsockopt(level, name)

        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        idle = option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval = option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        count = option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert idle + interval * count <= 60
        assert 0 < option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
        client.close()


async def test_clients_are_refused_before_file_descriptors_run_out(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    multiplexer = await multiplex()
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    first = await connect(multiplexer)
    in_use = first.writer.get_extra_info("socket").fileno()
    limit = next(n for n in itertools.count() if n - min(64, n // 4) > in_use + 4)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    others = [await connect(multiplexer) for _ in range(6)]
    refused = Event(
        EventType.CLIENT_REFUSED, "127.0.0.1", ClientRefusal.TOO_MANY_OPEN_FILES
    )
    await until(lambda: refused in events)
    assert await others[-1].closed()
    assert await first.ask(read()) == values()
    assert multiplexer.snapshot().clients_refused > 1
    assert [r.levelname for r in caplog.records].count("WARNING") == 1
