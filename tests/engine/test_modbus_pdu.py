"""What Modbus requests and responses say, and units by other numbers."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Failure,
    Ignored,
    Request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    describe,
    explain,
    explain_write,
    may_answer,
    outline,
    registers_read,
    success_response,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.protocol import (
    ModbusProtocol,
)
from tests.wire import Frame, exception, read, values, write

from .streams import options, received

MODBUS = ModbusProtocol(options())
payloads = st.binary(min_size=2, max_size=254)


def hexed(text: str) -> bytes:
    """Give the bytes of a payload, those of unit 1."""
    return b"\1" + bytes.fromhex(text)


# ---- writes that are only acknowledged ------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        # the examples of the specification, 6.5 to 6.16
        ("05 00AC FF00", "05 00AC FF00"),
        ("06 0001 0003", "06 0001 0003"),
        ("0F 0013 000A 02 CD01", "0F 0013 000A"),
        ("10 0001 0002 04 000A 0102", "10 0001 0002"),
        ("15 0D 06 0004 0007 0003 06AF 04BE 100D", None),
        ("16 0004 00F2 0025", "16 0004 00F2 0025"),
        ("17 0003 0006 000E 0003 06 00FF 00FF 00FF", "refused"),
        ("08 0001 0000", "refused"),
        ("2B 0D 00", "refused"),
        ("41 01", "refused"),
    ],
)
def test_success_is_made_up_where_it_follows_from_the_request(
    asked: str, answered: str | None
) -> None:
    payload = hexed(asked)
    expected = {"refused": None, None: payload}.get(answered, b"")
    if expected == b"":
        expected = hexed(str(answered))
    assert success_response(payload) == expected
    assert MODBUS.acknowledge(MODBUS.request(payload)) == expected


# ---- words for programs ---------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("05 00AC FF00", {"address": 0xAC, "value": True}),
        ("05 00AC 0000", {"address": 0xAC, "value": False}),
        ("06 0001 0003", {"address": 1, "value": 3}),
        (
            "0F 0013 000A 02 CD01",
            {
                "address": 0x13,
                "value": [bool(int(bit)) for bit in "1011001110"],
            },
        ),
        ("10 0001 0002 04 000A 0102", {"address": 1, "value": [10, 258]}),
        ("16 0004 00F2 0025", {"address": 4, "value": "00f20025"}),
        (
            "17 0003 0006 000E 0003 06 00FF 0001 0002",
            {"address": 14, "value": [255, 1, 2]},
        ),
        ("15 01 06", {"value": "0106"}),
        ("08 0001 0000", {"value": "00010000"}),
    ],
)
def test_write_is_told_with_where_and_what(asked: str, told: dict[str, Any]) -> None:
    payload = hexed(asked)
    head = {"unit": 1, "function": payload[1]}
    assert explain_write(payload) == head | told
    assert MODBUS.explain_write(MODBUS.request(payload)) == head | told


@pytest.mark.parametrize(
    ("asked", "answered", "told"),
    [
        (
            "03 006B 0003",
            "03 06 022B 0000 0064",
            {"address": 107, "count": 3, "values": [555, 0, 100]},
        ),
        ("04 0008 0001", "84 02", {"address": 8, "count": 1, "exception": 2}),
        (
            "01 0013 000A",
            "01 02 CD01",
            {"address": 19, "count": 10, "values": [bool(int(b)) for b in "1011001110"]},
        ),
        # fewer bits than were asked for: no more are told than came
        (
            "02 0000 FFFF",
            "02 01 01",
            {"address": 0, "count": 65535, "values": [True] + [False] * 7},
        ),
        ("06 0001 0003", "06 0001 0003", {"address": 1, "value": 3}),
        (
            "17 0003 0002 000E 0003 06 00FF 0001 0002",
            "17 04 0007 0008",
            {
                "address": 3,
                "count": 2,
                "values": [7, 8],
                "write_address": 14,
                "write_count": 3,
                "value": [255, 1, 2],
            },
        ),
        ("07", None, {}),
        ("03 00", "03", {}),
    ],
)  # fmt: skip
def test_exchange_is_told_by_names(
    asked: str, answered: str | None, told: dict[str, Any]
) -> None:
    payload = hexed(asked)
    response = None if answered is None else hexed(answered)
    got = explain(payload, response)
    assert got.pop("unit") == 1
    assert got.pop("function") == payload[1]
    assert got.pop("function_name")
    assert got.pop("exception_name", None) == (
        "illegal data address" if "exception" in told else None
    )
    assert got == told
    assert MODBUS.explain(payload, response).items() >= told.items()


def test_request_that_reads_and_writes_says_of_both_where_and_how_many() -> None:
    payload = hexed("17 0003 0002 000E 0003 06 00FF 0001 0002")
    asked, _ = outline(payload, None)
    assert asked == {
        "unit": 1,
        "function": 0x17,
        "address": 3,
        "count": 2,
        "write_address": 14,
        "write_count": 3,
    }
    assert describe(payload, None) == (
        "unit 1 read/write multiple registers read 3 count 2 write 14 count 3"
    )
    assert outline(payload[:9], None)[0].keys() == asked.keys() - {
        "write_address",
        "write_count",
    }


def test_what_nobody_asked_for_has_no_names() -> None:
    assert explain(b"", b"\1" + values()) == {}


@given(payload=payloads, response=st.none() | payloads)
def test_anything_can_be_explained(payload: bytes, response: bytes | None) -> None:
    for function in (payload[1], 1, 3, 5, 15, 16, 22, 23):
        asked = payload[:1] + bytes((function,)) + payload[2:]
        assert explain(asked, response)["unit"] == payload[0]
        if response is not None:
            same = response[:1] + bytes((function,)) + response[2:]
            assert len(repr(explain(asked, same))) < 20_000


# ---- what fits ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answered", "fits"),
    [
        ("03 0000 0002", "03 04 0001 0002", True),
        ("03 0000 0002", "03 02 0001", False),
        ("03 0000 0002", "03", False),
        ("03 0000 0002", "04 04 0001 0002", False),
        ("03 0000 0002", "83 02", True),
        ("03 0000 0002", "84 02", False),
        ("01 0000 0008", "01 01 00", True),
        ("01 0000 0009", "01 01 00", False),
        ("02 0000 0009", "02 02 0000", True),
        ("17 0000 0002 0000 0001 02 0000", "17 04 0000 0000", True),
        ("06 0001 0003", "06 0009 0003", False),
        ("06 0001 0003", "06 0001 0009", False),
        ("10 0001 0001 02 0009", "10 0001 0001", True),
        ("03", "03 04", True),
    ],
)
def test_response_fits_by_function_and_byte_count(
    asked: str, answered: str, fits: bool
) -> None:
    assert may_answer(hexed(asked), hexed(answered)) is fits


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("03 0000 007D", 125),
        ("04 0000 FFFF", 65535),
        ("17 0003 0006 000E 0003 06 00FF 00FF 00FF", 6),
        ("01 0000 07D0", 0),
        ("10 0001 0002 04 000A 0102", 0),
        ("03", 0),
    ],
)
def test_registers_read_are_counted(asked: str, count: int) -> None:
    assert registers_read(hexed(asked)) == count


@given(payload=payloads, number=st.integers(0, 0xFFFF))
def test_trace_shows_frames_as_they_were(payload: bytes, number: int) -> None:
    frame = Frame(number, payload[0], payload[1:])
    assert MODBUS.on_wire(payload, number) == frame.encoded()


# ---- units by other numbers -----------------------------------------------------

UNITS = {1: 5, 5: 1, 2: 255, 0: 7}


@given(unit=st.integers(0, 255), transaction=st.integers(0, 0xFFFF))
def test_units_are_mapped_on_the_way_to_the_device_and_back(
    unit: int, transaction: int
) -> None:
    protocol = ModbusProtocol(options(unit_map=tuple(UNITS.items())))
    codec = protocol.downstream()
    (asked,) = received(codec, Frame(transaction, unit, write(1, 2)).encoded())
    assert isinstance(asked, Request)
    device_unit = UNITS.get(unit, unit)
    assert asked.payload == bytes((device_unit,)) + write(1, 2)
    assert asked.writes == device_unit  # writes of others to it have to wait
    answer = codec.reply(asked, bytes((device_unit,)) + write(1, 2))
    assert answer == Frame(transaction, unit, write(1, 2)).encoded()
    refusal = codec.refuse(asked, Failure.BUSY)
    assert refusal == Frame(transaction, unit, exception(6, 0x06)).encoded()


def test_map_leaves_the_stream_as_it_is() -> None:
    codec = ModbusProtocol(options(unit_map=((1, 5),))).downstream()
    whole = Frame(1, 1, read()).encoded()
    foreign = whole[:2] + b"\0\1" + whole[4:]
    ignored, asked = received(codec, foreign + whole + whole[:5])
    assert isinstance(ignored, Ignored)
    assert isinstance(asked, Request)
    assert codec.buffered == 5
    unfinished = codec.eof()
    assert unfinished is not None
    assert "unfinished" in unfinished.reason
