"""Any bytes, from either side, end in an answer or a closed connection.

Never in an exception that nobody caught, a hang, growing memory or the suffering of
others. What is random is seeded: a failing seed is in the test's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
import gc
import logging
import random
import struct
import tracemalloc
from typing import Any

import pytest

from custom_components.tcp_multiplexer import multiplexer as engine
from custom_components.tcp_multiplexer.multiplexer import Event, EventType
from tests.waiting import PATIENCE, until
from tests.wire import Frame, read, values, write

from .conftest import Connect, Multiplex
from .devices import Asked, Client, Device, answer, port_of, send

SEEDS = range(6)
HTTP = b"GET / HTTP/1.1\r\nHost: inverter\r\n\r\n"


@pytest.fixture(autouse=True)
async def nothing_goes_unnoticed(
    caplog: pytest.LogCaptureFixture,
) -> AsyncGenerator[None]:
    """Fail a test in which an exception went uncaught anywhere in the loop."""
    logging.getLogger("asyncio").setLevel(logging.INFO)
    caplog.set_level(logging.DEBUG, engine.__name__)
    uncaught: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: uncaught.append(context)
    )
    yield
    assert uncaught == []
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
    assert [r for r in caplog.records if r.exc_info] == []


def noise(rng: random.Random) -> bytes:
    """Give bytes that are wrong in one of the ways in which bytes are wrong."""
    pdu = rng.randbytes(rng.randrange(1, 254))
    frame = Frame(rng.randrange(1 << 16), rng.randrange(256), pdu).encoded()
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 400))
    if kind == 1:  # a frame, cut anywhere
        return frame[: rng.randrange(1, len(frame))]
    if kind == 2:  # one bit of it is wrong
        at = rng.randrange(len(frame))
        return (
            frame[:at] + bytes((frame[at] ^ 1 << rng.randrange(8),)) + frame[at + 1 :]
        )
    if kind == 3:  # another length than it has
        return frame[:4] + struct.pack(">H", rng.randrange(1 << 16)) + frame[6:]
    if kind == 4:  # of another protocol
        return frame[:2] + rng.randbytes(2) + frame[4:]
    if kind == 5:  # a whole frame, of nobody knows what
        return frame
    if kind == 6:
        return HTTP
    return bytes(rng.randrange(1, 400))


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_bytes_of_clients(
    device: Device, multiplex: Multiplex, connect: Connect, seed: int
) -> None:
    rng = random.Random(seed)
    multiplexer = await multiplex(timeout=2, queue_size=4)
    honest = await connect(multiplexer)

    async def vandal() -> None:
        client = await connect(multiplexer)
        for _ in range(rng.randrange(1, 12)):
            client.writer.write(noise(rng))
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            client.writer.write(b"\0\1\0\0\xff\xff" * 50)
        with suppress(OSError):  # it may have been closed by now
            client.half_close()
        # It gets whole frames, and then an end: it is not left hanging.
        async with asyncio.timeout(PATIENCE):
            while not await client.closed():
                pass

    for turn in range(5):
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(vandal())
            for address in range(10):
                right = values(100 * turn + address)
                assert await honest.ask(read(100 * turn + address)) == right
    await until(lambda: len(multiplexer.snapshot().clients) == 1)
    await until(lambda: multiplexer.snapshot().queue_depth == 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_any_bytes_of_the_device(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    seed: int,
    max_in_flight: int,
) -> None:
    """Noise instead of, before, within and behind answers; no client gets any of it.

    What cannot be told from an answer is left out: one cut short and completed by
    noise that then ends, or goes on like a frame.
    """
    rng = random.Random(seed)

    def babble(asked: Asked) -> None:
        right = asked.frame()
        said = [
            noise(rng),
            noise(rng) + right,
            right + noise(rng),
            right[: rng.randrange(len(right))] + HTTP,
            right + right,
            right,
            right,
        ]
        asked.link.transport.write(rng.choice(said))
        if rng.random() < 0.1:
            asked.link.transport.close()

    device.respond = babble
    multiplexer = await multiplex(
        timeout=0.2, reconnect_backoff=0.1, max_in_flight=max_in_flight
    )
    clients = [await connect(multiplexer) for _ in range(4)]

    async def ask(number: int, client: Client) -> None:
        for turn in range(20):
            address = 1000 * number + turn
            got = await client.ask(read(address, 3))
            if got[0] == 3:
                assert got == values(address, 3)
            else:
                assert got[0] == 0x83

    async with asyncio.timeout(2 * PATIENCE):
        await asyncio.gather(*(ask(n, client) for n, client in enumerate(clients)))
    assert len(multiplexer.snapshot().clients) == 4  # none was closed for that
    device.respond = answer
    await multiplexer.reconnect(drain=False)
    # something new: a read that the device hung up at is only tried now and then
    assert await clients[0].ask(read(900)) == values(900)


async def test_frame_that_was_cut_closes_its_connection_with_one_line(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    caplog.clear()
    device.script.append(send(lambda asked: asked.frame()[:-1] + asked.frame()))
    assert (await client.ask(write(1, 2)))[0] == 0x86
    assert await client.ask(read(1)) == b"\3\4\0\2" + values(2, 1)[2:]
    closed = [event for event in events if event.type is EventType.CONNECTION_CLOSED]
    assert [(event.reason, event.detail) for event in closed] == [
        ("invalid_data", "a frame was cut short")
    ]
    lines = [r for r in caplog.records if "Disconnected" in r.getMessage()]
    assert len(lines) == 1
    assert "a frame was cut short" in lines[0].getMessage()


async def test_greeting_of_the_device_is_passed_over(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.greeting = b"login: "
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    await until(lambda: multiplexer.snapshot().unsolicited_responses == 1)
    assert await client.ask(read(7)) == values(7)
    assert multiplexer.snapshot().connection_attempts == 1


async def test_garbage_of_clients_is_told_once_per_address(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    multiplexer = await multiplex()
    for _ in range(5):
        client = await connect(multiplexer)
        client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await client.closed()
    lines = [r for r in caplog.records if "does not speak modbus" in r.getMessage()]
    assert [r.levelno for r in lines] == [logging.WARNING] + [logging.DEBUG] * 4
    assert multiplexer.snapshot().invalid_requests == 5
    assert multiplexer.snapshot().requests == 0


async def test_what_came_before_garbage_is_served(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.hold()
    client.send(write(1, 2), write(3, 4))
    client.writer.write(b"garbage")
    assert await client.closed()
    device.release()
    await device.has_been_asked(2)
    assert device.asked == [write(1, 2), write(3, 4)]


async def test_noise_leaves_nothing_in_memory(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, engine.__name__)
    multiplexer = await multiplex(trace_size=10)
    client = await connect(multiplexer)
    port = port_of(multiplexer)
    rng = random.Random(1)

    async def ravage(times: int) -> int:
        for _ in range(times):
            vandal = await Client.connect(port)
            vandal.writer.write(b"\0\1\0\0\xff\xff" + bytes(2000))
            assert await vandal.closed()
            vandal.close()
            strays = b"".join(
                Frame(rng.randrange(40_000, 1 << 16), 1, rng.randbytes(253)).encoded()
                for _ in range(8)
            )
            device.script.append(send(strays, lambda asked: asked.frame()))
            assert await client.ask(read(1)) == values(1)
        await until(lambda: len(multiplexer.snapshot().clients) == 1)
        device.requests.clear()
        device.links[0].received.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await ravage(40)
        after = await ravage(100)
    finally:
        tracemalloc.stop()
    # Any of it would be 2 KB each time. (What is remembered of an exchange is less.)
    assert after - before < 100 * 1200
