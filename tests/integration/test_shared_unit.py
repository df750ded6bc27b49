"""Each Modbus function, translated into a call and back.

The examples are those of the specification (Modbus Application Protocol V1.1b3,
section 6), so that neither side is taken from the code.
"""

from typing import Any
from unittest.mock import create_autospec

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
    (call,) = unit.mock_calls
    assert (call[0], call.args) == (method, arguments)


async def test_other_functions_are_illegal() -> None:
    unit = create_autospec(ModbusUnit, instance=True)
    assert await ask(unit, UNIT + b"\x07") == UNIT + b"\x87\x01"
    assert not unit.mock_calls


@pytest.mark.parametrize(
    "request_pdu",
    [
        pytest.param("03 0000", id="cut short"),
        pytest.param("05 0000 1234", id="a coil neither on nor off"),
        pytest.param("0F 0013 000A 01 CD", id="too few coils"),
        pytest.param("10 0001 0002 04 000A", id="too few registers"),
        pytest.param("10 0001 0002 02 000A 0102", id="another byte count"),
    ],
)
async def test_malformed_requests_are_not_sent(request_pdu: str) -> None:
    unit = create_autospec(ModbusUnit, instance=True)
    with pytest.raises(ValueError, match=r"request|coil"):
        await ask(unit, UNIT + bytes.fromhex(request_pdu))
    assert not unit.mock_calls
