"""Each Modbus function, translated into a call and back.

The examples are those of the specification (Modbus Application Protocol V1.1b3,
section 6), so that neither side is taken from the code.
"""

from typing import Any
from unittest.mock import call, create_autospec

from modbus_connection import ModbusUnit
import pytest

from custom_components.tcp_multiplexer.shared_unit import ask

UNIT = b"\x11"


def bits(digits: str) -> list[bool]:
    """Return bits, the one with the lowest address first."""
    return [digit == "1" for digit in digits.replace(" ", "")]


@pytest.mark.parametrize(
    ("request_pdu", "method", "arguments", "result", "response_pdu"),
    [
        pytest.param(
            "01 0013 0013",
            "read_coils",
            (0x13, 0x13),
            bits("10110011 11010110 101"),
            "01 03 CD6B05",
            id="read coils",
        ),
        pytest.param(
            "02 00C4 0016",
            "read_discrete_inputs",
            (0xC4, 0x16),
            bits("00110101 11011011 101011"),
            "02 03 ACDB35",
            id="read discrete inputs",
        ),
        pytest.param(
            "03 006B 0003",
            "read_holding_registers",
            (0x6B, 3),
            [0x22B, 0, 0x64],
            "03 06 022B 0000 0064",
            id="read holding registers",
        ),
        pytest.param(
            "04 0008 0001",
            "read_input_registers",
            (8, 1),
            [0xA],
            "04 02 000A",
            id="read input registers",
        ),
        pytest.param(
            "05 00AC FF00",
            "write_coil",
            (0xAC, True),
            None,
            "05 00AC FF00",
            id="switch a coil on",
        ),
        pytest.param(
            "05 00AC 0000",
            "write_coil",
            (0xAC, False),
            None,
            "05 00AC 0000",
            id="switch a coil off",
        ),
        pytest.param(
            "06 0001 0003",
            "write_register",
            (1, 3),
            None,
            "06 0001 0003",
            id="write a register",
        ),
        pytest.param(
            "0F 0013 000A 02 CD01",
            "write_coils",
            (0x13, bits("10110011 10")),
            None,
            "0F 0013 000A",
            id="write coils",
        ),
        pytest.param(
            "10 0001 0002 04 000A 0102",
            "write_registers",
            (1, [0xA, 0x102]),
            None,
            "10 0001 0002",
            id="write registers",
        ),
        pytest.param(
            "16 0004 00F2 0025",
            "mask_write_register",
            (4, 0xF2, 0x25),
            None,
            "16 0004 00F2 0025",
            id="mask write a register",
        ),
        pytest.param(
            "17 0003 0006 000E 0003 06 00FF 00FF 00FF",
            "read_write_registers",
            (3, 6, 0xE, [0xFF, 0xFF, 0xFF]),
            [0xFE, 0xACD, 1, 3, 0xD, 0xFF],
            "17 0C 00FE 0ACD 0001 0003 000D 00FF",
            id="read and write registers",
        ),
        pytest.param(
            "18 04DE",
            "read_fifo_queue",
            (0x4DE,),
            [0x1B8, 0x1284],
            "18 0006 0002 01B8 1284",
            id="read a FIFO queue",
        ),
        pytest.param(
            "07", "read_exception_status", (), 0x6D, "07 6D", id="exception status"
        ),
        pytest.param(
            "08 0000 A537",
            "diagnostics",
            (0, 0xA537),
            0xA537,
            "08 0000 A537",
            id="echo",
        ),
        pytest.param(
            "08 000B 0000", "diagnostics", (11, 0), 7, "08 000B 0007", id="a counter"
        ),
        pytest.param(
            "0B",
            "get_comm_event_counter",
            (),
            (False, 0x108),
            "0B FFFF 0108",
            id="event counter, busy",
        ),
        pytest.param(
            "0B",
            "get_comm_event_counter",
            (),
            (True, 0),
            "0B 0000 0000",
            id="event counter, ready",
        ),
        pytest.param(
            "11", "report_server_id", (), b"\x0b", "11 02 0B FF", id="server ID"
        ),
        pytest.param(
            "14 07 06 0004 0001 0003",
            "read_file_record",
            (4, 1, 3),
            [0xDFE, 0x20, 0],
            "14 08 07 06 0DFE 0020 0000",
            id="read a file record",
        ),
        pytest.param(
            "15 0D 06 0004 0007 0003 06AF 04BE 100D",
            "write_file_record",
            (4, 7, [0x6AF, 0x4BE, 0x100D]),
            None,
            "15 0D 06 0004 0007 0003 06AF 04BE 100D",
            id="write a file record",
        ),
        pytest.param(
            "2B 0E 01 00",
            "read_device_identification",
            (),
            {0: b"Company", 1: b"PCXX", 2: b"V2.11"},
            "2B 0E 01 81 00 00 0300 07 436F6D70616E79 01 04 50435858 02 05 56322E3131",
            id="read device identification",
        ),
    ],
)
async def test_examples_of_the_specification(
    request_pdu: str,
    method: str,
    arguments: tuple[Any, ...],
    result: Any,
    response_pdu: str,
) -> None:
    unit = create_autospec(ModbusUnit, instance=True)
    getattr(unit, method).return_value = result
    response = await ask(unit, UNIT + bytes.fromhex(request_pdu))
    assert response == UNIT + bytes.fromhex(response_pdu)
    assert unit.mock_calls == [getattr(call, method)(*arguments)]


async def answer(unit: Any, request_pdu: str) -> str:
    """Ask a unit, and return the response as digits."""
    response = await ask(unit, UNIT + bytes.fromhex(request_pdu))
    assert response[:1] == UNIT
    return response[1:].hex(" ").upper()


async def test_records_are_read_one_a_call() -> None:
    """The example of the specification (6.14)."""
    unit = create_autospec(ModbusUnit, instance=True)
    unit.read_file_record.side_effect = [[0xDFE, 0x20], [0x33CD, 0x40]]
    assert (
        await answer(unit, "14 0E 06 0004 0001 0002 06 0003 0009 0002")
        == "14 0C 05 06 0D FE 00 20 05 06 33 CD 00 40"
    )
    assert unit.mock_calls == [
        call.read_file_record(4, 1, 2),
        call.read_file_record(3, 9, 2),
    ]


async def test_event_log_is_put_together() -> None:
    """The example of the specification (6.10)."""
    unit = create_autospec(ModbusUnit, instance=True)
    unit.get_comm_event_log.return_value = b"\x20\0"
    unit.get_comm_event_counter.return_value = (True, 0x108)
    unit.diagnostics.return_value = 0x121
    assert await answer(unit, "0C") == "0C 08 00 00 01 08 01 21 20 00"
    assert call.diagnostics(0x0B) in unit.mock_calls


BASIC = {0: b"AB", 1: b"C", 2: b"D"}


@pytest.mark.parametrize(
    ("request_pdu", "response_pdu"),
    [
        pytest.param(
            "2B 0E 02 00",
            "2B 0E 02 81 00 00 03 00 02 41 42 01 01 43 02 01 44",
            id="regular",
        ),
        pytest.param(
            "2B 0E 03 01",
            "2B 0E 03 81 00 00 02 01 01 43 02 01 44",
            id="from the second",
        ),
        pytest.param(
            "2B 0E 01 07",
            "2B 0E 01 81 00 00 03 00 02 41 42 01 01 43 02 01 44",
            id="from one that is not there",
        ),
        pytest.param("2B 0E 04 01", "2B 0E 04 81 00 00 01 01 01 43", id="one"),
        pytest.param("2B 0E 04 05", "AB 02", id="one that is not there"),
        pytest.param("2B 0E 05 00", "AB 03", id="no such read code"),
        pytest.param("2B 0E 01", "AB 03", id="cut short"),
        pytest.param("2B 0D 00 00 00", "AB 01", id="another interface"),
    ],
)
async def test_device_identification(request_pdu: str, response_pdu: str) -> None:
    """What is asked for, of what there is (6.21)."""
    unit = create_autospec(ModbusUnit, instance=True)
    unit.read_device_identification.return_value = BASIC
    assert await answer(unit, request_pdu) == response_pdu


async def test_identification_that_is_too_long_goes_on() -> None:
    unit = create_autospec(ModbusUnit, instance=True)
    objects = {number: bytes([65 + number]) * 100 for number in range(3)}
    unit.read_device_identification.return_value = objects
    head = await ask(unit, UNIT + b"\x2b\x0e\1\0")
    assert head[1:9] == bytes.fromhex("2B 0E 01 81 FF 02 02 00")
    rest = await ask(unit, UNIT + b"\x2b\x0e\1\2")
    assert rest[1:] == bytes.fromhex("2B 0E 01 81 00 00 01 02 64") + b"C" * 100


@pytest.mark.parametrize(
    "request_pdu",
    [
        pytest.param("41 0000", id="a vendor's function"),
        pytest.param("09", id="an unknown function"),
        pytest.param(
            "15 12 06 0004 0007 0001 06AF 06 0004 0008 0001 04BE",
            id="several file records written",
        ),
    ],
)
async def test_what_the_api_cannot_do_is_illegal(
    request_pdu: str, caplog: pytest.LogCaptureFixture
) -> None:
    unit = create_autospec(ModbusUnit, instance=True)
    function = bytes.fromhex(request_pdu)[0]
    assert await answer(unit, request_pdu) == f"{function | 0x80:02X} 01"
    assert not unit.mock_calls
    assert not caplog.records


async def test_surplus_bits_are_no_coils() -> None:
    unit = create_autospec(ModbusUnit, instance=True)
    assert await answer(unit, "0F 0000 0002 01 FD") == "0F 00 00 00 02"
    assert unit.mock_calls == [call.write_coils(0, [True, False])]


@pytest.mark.parametrize(
    "request_pdu",
    [
        pytest.param("03 0000", id="cut short"),
        pytest.param("03 0000 0001 00", id="too long"),
        pytest.param("03 0000 007E", id="too many registers"),
        pytest.param("07 00", id="something where nothing belongs"),
        pytest.param("08 0000", id="diagnostics without data"),
        pytest.param("08 0000 0001 0002", id="a longer echo than the API has"),
        pytest.param("14 06 06 0004 0001 00", id="a record cut short"),
        pytest.param("14 07 05 0004 0001 0001", id="no reference to a file"),
        pytest.param("14 00", id="no record"),
        pytest.param("14", id="nothing"),
        pytest.param("14 07 06 0004 0001 007A", id="a record too long to return"),
        pytest.param("15 0B 06 0004 0007 0003 06AF 04BE", id="a record cut short"),
        pytest.param(
            "17 0000 0001 0000 0002 02 0001", id="fewer values than announced"
        ),
        pytest.param("17 0000 0001 0000 0002 03 0001 0002", id="half a register"),
        pytest.param("05 0000 1234", id="a coil neither on nor off"),
        pytest.param("0F 0013 000A 01 CD", id="too few coils"),
        pytest.param("0F 0013 000A 02 CD01 00", id="too many coils"),
        pytest.param("10 0001 0002 04 000A", id="too few registers"),
        pytest.param("10 0001 0002 02 000A 0102", id="another byte count"),
    ],
)
async def test_malformed_requests_are_not_sent(
    request_pdu: str, caplog: pytest.LogCaptureFixture
) -> None:
    unit = create_autospec(ModbusUnit, instance=True)
    function = bytes.fromhex(request_pdu)[0]
    assert await answer(unit, request_pdu) == f"{function | 0x80:02X} 03"
    assert not unit.mock_calls
    assert not caplog.records
