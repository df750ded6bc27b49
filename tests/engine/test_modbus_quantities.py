"""Quantities that a request may have, and what becomes of those that it may not."""

from __future__ import annotations

import pytest

from custom_components.tcp_multiplexer.multiplexer import Failure, RequestError
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import OnFailure
from tests.wire import exception, read, values

from .conftest import Connect, Multiplex
from .devices import Device


def plain(function: int, count: int) -> bytes:
    """Return a read of bits or registers."""
    return bytes((function, 0, 5)) + count.to_bytes(2)


def words(function: int, count: int, size: int, data: int) -> bytes:
    """Return a write of several, whose byte count and data may be anything."""
    return bytes((function, 0, 9)) + count.to_bytes(2) + bytes((size,)) + bytes(data)


def both(count: int, written: int, size: int) -> bytes:
    """Return a read and write of registers."""
    head = b"\x17\0\1" + count.to_bytes(2) + b"\0\2" + written.to_bytes(2)
    return head + bytes((size,)) + bytes(size)


def files(*lengths: int) -> bytes:
    """Return a read of file records of these lengths."""
    records = b"".join(b"\6\0\1\0\0" + length.to_bytes(2) for length in lengths)
    return bytes((0x14, len(records))) + records


POSSIBLE = [
    *(plain(function, count) for function in (3, 4) for count in (1, 125)),
    *(plain(function, count) for function in (1, 2) for count in (1, 126, 2000)),
    plain(3, 1) + b"\0",  # what is too much is the device's business
    words(0x0F, 1, 1, 1),
    words(0x0F, 8, 1, 1),
    words(0x0F, 9, 2, 2),
    words(0x0F, 1968, 246, 246),
    words(0x10, 1, 2, 2),
    words(0x10, 123, 246, 246),
    words(0x10, 1, 2, 3),
    both(1, 1, 2),
    both(125, 121, 242),
    files(1),
    files(121),
    files(60, 60),
    b"\x15\x09\6\0\1\0\0\0\1\0\1",
    b"\5\0\0\x55\0",  # some relays toggle at this value
    b"\x18\0\0",
    b"\x41\0\0\xff\xff",
    b"\x07",
]

IMPOSSIBLE = [
    *(plain(function, count) for function in (3, 4) for count in (0, 126, 256, 0xFFFF)),
    *(plain(function, count) for function in (1, 2) for count in (0, 2001, 0xFFFF)),
    *(bytes((function, 0, 5, 0))[:size] for function in (1, 3) for size in range(1, 5)),
    words(0x0F, 0, 0, 0),
    words(0x0F, 1969, 247, 247),
    words(0x0F, 9, 1, 2),
    words(0x0F, 8, 2, 2),
    words(0x0F, 9, 2, 1),
    b"\x0f\0\0\0\1",
    words(0x10, 0, 0, 0),
    words(0x10, 124, 248, 248),
    words(0x10, 0x101, 2, 2),
    words(0x10, 2, 2, 4),
    words(0x10, 1, 4, 4),
    words(0x10, 2, 4, 3),
    b"\x10\0\0\0\1",
    both(0, 1, 2),
    both(126, 1, 2),
    both(1, 0, 0),
    both(1, 122, 244),
    both(1, 1, 4),
    both(1, 1, 2)[:-1],
    files(122),
    files(60, 61),
    b"\x14",
    b"\x14\0",
    files(1)[:-1],
    b"\x15\x06" + bytes(6),
    b"\x15\xfc" + bytes(0xFC),
]


@pytest.mark.parametrize("pdu", POSSIBLE, ids=bytes.hex)
def test_quantity_of_the_specification_passes(pdu: bytes) -> None:
    assert modbus_request(b"\1" + pdu, None).flaw is None


@pytest.mark.parametrize("pdu", IMPOSSIBLE, ids=bytes.hex)
def test_quantity_beyond_the_specification_is_a_flaw(pdu: bytes) -> None:
    request = modbus_request(b"\1" + pdu, None)
    assert request.flaw is Failure.TOO_LARGE
    assert request.payload == b"\1" + pdu
    assert request.share_key is request.writes is None
    assert not request.retry_safe
    assert request.expects_reply


@pytest.mark.parametrize("pdu", [read(0, 126), words(0x10, 2, 2, 4)], ids=bytes.hex)
@pytest.mark.parametrize("on_failure", OnFailure)
async def test_it_is_answered_here_and_never_sent(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    on_failure: OnFailure,
    pdu: bytes,
) -> None:
    multiplexer = await multiplex(on_failure=on_failure)
    client = await connect(multiplexer)
    assert await client.ask(pdu) == exception(pdu[0], 3)
    with pytest.raises(RequestError) as error:
        await multiplexer.request(b"\1" + pdu)
    assert error.value.failure is Failure.TOO_LARGE
    assert await client.ask(read(0, 125)) == values(0, 125)
    assert device.asked == [read(0, 125)]
    assert multiplexer.snapshot().failures["too_large"] == 2
