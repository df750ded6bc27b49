"""Devices that take one segment for one request, and overlook those behind it."""

from __future__ import annotations

import asyncio

from tests.wire import exception, read, values

from .conftest import Connect, Multiplex
from .devices import Asked, Device, answer


def overlooking(device: Device) -> None:
    """Have the device answer the first of the requests that one turn of it brings."""
    busy = False

    def free() -> None:
        nonlocal busy
        busy = False

    def respond(asked: Asked) -> None:
        nonlocal busy
        if not busy:
            busy = True
            asyncio.get_running_loop().call_soon(free)
            answer(asked)

    device.respond = respond


async def test_device_that_takes_one_request_a_segment_is_noticed(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    overlooking(device)
    multiplexer = await multiplex(max_in_flight=4, timeout=0.5, share_reads=False)
    clients = [await connect(multiplexer) for _ in range(4)]
    lost = []
    for address in range(6):
        heard = await asyncio.gather(*(c.ask(read(address)) for c in clients))
        lost.append(heard.count(exception(3, 0x0B)))
        assert heard.count(values(address)) == 4 - lost[-1]
    assert 0 < sum(lost) <= 6
    assert lost[3:] == [0, 0, 0]


async def test_unit_that_is_off_does_not_stop_pipelining(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    def respond(asked: Asked) -> None:
        if asked.unit == 1:
            answer(asked)

    device.respond = respond
    multiplexer = await multiplex(max_in_flight=6, timeout=0.3, share_reads=False)
    clients = [await connect(multiplexer) for _ in range(6)]
    for address in range(3):
        units = (1, 2, 1, 2, 2, 2)
        await asyncio.gather(
            *(c.ask(read(address), unit=u) for c, u in zip(clients, units, strict=True))
        )
    device.hold()
    asking = [asyncio.ensure_future(c.ask(read(9))) for c in clients]
    await device.holds(6)
    for asked in device.held:
        answer(asked)
    assert await asyncio.gather(*asking) == [values(9)] * 6
