"""Devices that do not echo transaction identifiers: served leniently, noticed strictly.

The codec is asked byte by byte; the engine meets a real device that answers with
transaction identifier 0 whatever it is asked with.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    Event,
    EventType,
    Failure,
    RequestError,
    Settings,
    SettingsError,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    Mismatch,
    Request,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.protocol import (
    ModbusProtocol,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import Matching
from tests.waiting import until
from tests.wire import Frame, exception, read, values, write

from .conftest import Connect, Multiplex
from .devices import Asked, Device, Responder, answer, ignore, send
from .streams import options, pieces


def codec(matching: str) -> UpstreamCodec[bytes]:
    """Give an upstream codec."""
    return ModbusProtocol(options(matching=matching, quiet=0.7)).upstream()


def asking(
    pdu: bytes, *, unit: int = 1, matching: str = "lenient"
) -> tuple[UpstreamCodec[bytes], Request]:
    """Give an upstream codec that has sent a request."""
    upstream = codec(matching)
    request = modbus_request(bytes((unit,)) + pdu, None)
    upstream.send(request)
    return upstream, request


def frame(pdu: bytes, *, unit: int = 1, transaction: int = 0) -> bytes:
    """Give a frame as such a device sends it."""
    return Frame(transaction, unit, pdu).encoded()


# ---- the codec ------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [0, 1, 2, 0xFFFF])
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (read(5, 3), values(5, 3)),
        (read(5, 3), exception(3, 2)),
        (b"\x01\0\0\0\x09", b"\x01\x02\xff\x01"),
        (b"\x02\0\0\0\x08", b"\x02\x01\xff"),
        (b"\x17\0\0\0\x01\0\0\0\x01\x02\0\0", b"\x17\x02\0\x07"),
        (write(1, 2), write(1, 2)),
        (b"\x11", b"\x11\x02\x01\xff"),
        (b"\x41\x05", b"\x41"),
        (b"\x03", b"\x03"),
    ],
)
def test_any_identifier_will_do(asked: bytes, said: bytes, transaction: int) -> None:
    upstream, request = asking(asked)
    data = frame(said, transaction=transaction)
    assert upstream.feed(data) == [Answer(request, b"\x01" + said)]
    # nobody asked twice
    (stray,) = upstream.feed(data)
    assert stray == Unsolicited("nobody asked", data)


def test_a_differing_unit_is_replaced_by_the_one_asked() -> None:
    upstream, request = asking(read(), unit=7)
    assert upstream.feed(frame(values(), unit=255)) == [
        Answer(request, b"\x07" + values())
    ]


@pytest.mark.parametrize("other", [write(2, 2), write(1, 3)])
def test_a_confirmation_of_another_write_is_unsolicited(other: bytes) -> None:
    upstream, request = asking(write(1, 2))
    (stray,) = upstream.feed(frame(other))
    assert isinstance(stray, Unsolicited)
    assert upstream.feed(frame(write(1, 2))) == [Answer(request, b"\x01" + write(1, 2))]


@pytest.mark.parametrize(
    "said",
    [
        values(0, 3),
        values(0, 1),
        b"\x04" + values()[1:],
        exception(4, 2),
        write(0, 1),
        b"\x03",
    ],
    ids=["longer", "shorter", "function", "exception's function", "write", "no count"],
)
def test_what_does_not_fit_is_a_unsolicited(said: bytes) -> None:
    upstream, request = asking(read(0, 2))
    data = frame(said)
    assert upstream.feed(data) == [
        Unsolicited("function or byte count do not fit", data)
    ]
    assert upstream.feed(frame(values())) == [Answer(request, b"\x01" + values())]


def test_late_responses_are_discarded_and_the_line_is_quiet() -> None:
    upstream, request = asking(read())
    assert upstream.quiet == 0.7
    assert upstream.expire(request)
    data = frame(values())
    assert upstream.feed(data) == [
        Unsolicited("it came after its deadline", data, late=True)
    ]
    again = modbus_request(b"\x01" + read(), None)
    upstream.send(again)
    assert upstream.feed(data) == [Answer(again, b"\x01" + values())]
    assert upstream.feed(data) == [Unsolicited("nobody asked", data)]


def test_a_response_cut_short_closes_the_connection() -> None:
    upstream, request = asking(read())
    assert not upstream.begun(request)
    assert upstream.feed(frame(values())[:9]) == []
    assert upstream.begun(request)
    assert not upstream.expire(request)
    fresh, _ = asking(read(0, 9))
    assert fresh.feed(frame(values(0, 9))[:-3]) == []
    (closed,) = fresh.feed(frame(values()))
    assert isinstance(closed, Close)


@given(data=st.data())
def test_any_split_gives_the_same(data: st.DataObject) -> None:
    upstream, request = asking(read())
    stream = frame(values(0, 1)) + frame(values())
    events: list[UpstreamEvent[bytes]] = []
    for piece in data.draw(pieces(stream)):
        events += upstream.feed(piece)
    assert [type(event) for event in events] == [Unsolicited, Answer]
    assert events[1] == Answer(request, b"\x01" + values())


@pytest.mark.parametrize(
    ("data", "lenient"),
    [
        (frame(values()), Mismatch.IDENTIFIER),
        (frame(exception(3, 2)), Mismatch.IDENTIFIER),
        (frame(values(), transaction=1, unit=9), Mismatch.UNIT),
        (frame(values(0, 3)), None),
        (frame(write(1, 2)), None),
        (frame(write(1, 2), transaction=1), None),
    ],
    ids=["read", "exception", "unit", "count", "function", "function, identifier fits"],
)
def test_strict_matching_notes_what_lenient_would_take(
    data: bytes, lenient: Mismatch | None
) -> None:
    upstream, _ = asking(read(), matching="strict")
    (stray,) = upstream.feed(data)
    assert isinstance(stray, Unsolicited)
    assert stray.lenient is lenient


def test_late_responses_are_no_reason_to_be_lenient() -> None:
    upstream, first = asking(read(), matching="strict")
    upstream.expire(first)
    (idle,) = upstream.feed(frame(values()))
    assert isinstance(idle, Unsolicited)
    assert not idle.lenient
    upstream.send(modbus_request(b"\x01" + read(), None))
    (late,) = upstream.feed(frame(values(), transaction=1))
    assert isinstance(late, Unsolicited)
    assert late.late
    assert not late.lenient


def test_only_one_may_be_in_flight() -> None:
    options: dict[str, Any] = {"host": "h", "max_connections": 2}
    Settings(matching=Matching.LENIENT, **options)
    with pytest.raises(SettingsError) as error:
        Settings(matching=Matching.LENIENT, max_in_flight=2, **options)
    assert error.value.field == "max_in_flight"


# ---- a real device --------------------------------------------------------------


def as_zero(asked: Asked) -> None:
    """Answer with transaction identifier 0, and unit 0."""
    pdu = asked.link.device.answer(asked.unit, asked.pdu)
    asked.link.transport.write(frame(pdu, unit=0))


async def test_lenient_matching_serves_many_clients(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.respond = as_zero
    multiplexer = await multiplex(matching=Matching.LENIENT)
    clients = [await connect(multiplexer) for _ in range(6)]

    async def use(number: int) -> None:
        client = clients[number]
        for i in range(30):
            address = number * 100 + i
            assert await client.ask(read(address)) == values(address)
            assert await client.ask(write(address, i)) == write(address, i)
            assert await client.ask(read(address, 1)) == b"\x03\x02\0" + bytes((i,))
            assert await client.ask(b"\x63") == exception(0x63, 1)

    await asyncio.gather(*(use(number) for number in range(6)))
    snapshot = multiplexer.snapshot()
    assert snapshot.requests == snapshot.responses == 6 * 30 * 4
    assert snapshot.unsolicited_responses == 0
    assert snapshot.connection_attempts == 1


async def test_a_late_response_reaches_nobody(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """After a timeout nothing is sent until the late response can have come."""
    device.respond = as_zero
    multiplexer = await multiplex(matching=Matching.LENIENT, timeout=0.5, quiet=0.8)
    client = await connect(multiplexer)
    assert await client.ask(read(1)) == values(1)
    device.script.append(device.held.append)
    began = asyncio.get_running_loop().time()
    assert await client.ask(read(100)) == exception(3, 0x0B)
    as_zero(device.held[0])
    await multiplexer.apply(replace(multiplexer.settings, timeout=10.0))
    assert await client.ask(read(200)) == values(200)
    assert asyncio.get_running_loop().time() >= began + 0.5 + 0.8
    snapshot = multiplexer.snapshot()
    assert (snapshot.late_responses, snapshot.unsolicited_responses) == (1, 0)
    assert snapshot.connection_attempts == 1


async def test_strict_matching_proposes_lenient(
    device: Device, multiplex: Multiplex
) -> None:
    """At the third request in a row: within 15 s of traffic by default."""
    device.respond = as_zero
    multiplexer = await multiplex(timeout=0.4)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    for i in range(1, 5):
        with pytest.raises(RequestError) as error:
            await multiplexer.request(b"\x01" + read(i))
        assert error.value.failure is Failure.NO_RESPONSE
        assert multiplexer.snapshot().would_match_leniently == i
        told = [event.type for event in events].count(EventType.LENIENT_WOULD_HELP)
        assert told == (i >= 3)
    assert Settings(host="h").timeout * 3 < 60
    multiplexer.reset_statistics()
    assert multiplexer.snapshot().would_match_leniently == 0


async def test_a_device_that_errs_now_and_then_is_not_proposed_for(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(timeout=0.4)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    for i in range(1, 9):
        device.script.append(answer if i % 3 == 0 else as_zero)
        asked = multiplexer.request(b"\x01" + read(i))
        if i % 3 == 0:
            assert await asked == b"\x01" + values(i)
        else:
            with pytest.raises(RequestError):
                await asked
    assert multiplexer.snapshot().would_match_leniently == 6
    assert EventType.LENIENT_WOULD_HELP not in [event.type for event in events]


@pytest.mark.parametrize("respond", [ignore, send(frame(values(0, 9)))])
async def test_a_device_that_is_silent_is_not_proposed_for(
    respond: Responder, device: Device, multiplex: Multiplex
) -> None:
    """Nor one that says something else altogether."""
    device.respond = respond
    multiplexer = await multiplex(timeout=0.4)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    for _ in range(3):
        with pytest.raises(RequestError):
            await multiplexer.request(b"\x01" + read())
    assert multiplexer.snapshot().would_match_leniently == 0
    assert EventType.LENIENT_WOULD_HELP not in [event.type for event in events]


async def test_a_stray_before_the_answer_is_no_reason(
    device: Device, multiplex: Multiplex
) -> None:
    """What counts is only what was discarded although nothing better came."""

    def twice(asked: Asked) -> None:
        as_zero(asked)
        answer(asked)

    device.respond = twice
    multiplexer = await multiplex()
    for i in range(5):
        assert await multiplexer.request(b"\x01" + read(i)) == b"\x01" + values(i)
    await until(lambda: multiplexer.snapshot().unsolicited_responses == 5)
    assert multiplexer.snapshot().would_match_leniently == 0
