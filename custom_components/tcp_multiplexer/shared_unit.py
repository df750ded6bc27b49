"""Modbus requests, translated into calls to a unit of Home Assistant's connection.

The API of that connection has registers and coils, not frames. So requests are decoded
and responses encoded here (Modbus Application Protocol V1.1b3, section 6). Only
functions that the API has are translated; others get exception 0x01 (illegal function).
"""

from collections.abc import Awaitable, Callable
import struct
from typing import Any, Final

ILLEGAL_FUNCTION: Final = 0x01
ILLEGAL_VALUE: Final = 0x03
SERVER_FAILURE: Final = 0x04
_EXCEPTION: Final = 0x80
_COIL: Final = {b"\xff\0": True, b"\0\0": False}

type Unit = Any
"""A `modbus_connection.ModbusUnit`; that package is installed only when needed."""


async def ask(unit: Unit, payload: bytes) -> bytes:
    """Send the request in `payload` to a unit. Both ways: unit identifier and PDU.

    Raises:
        ValueError: the request is malformed, or its numbers are out of range.
        ModbusError: the device or the connection failed.

    """
    handler = _HANDLERS.get(payload[1])
    if handler is None:
        return refusal(payload, ILLEGAL_FUNCTION)
    try:
        return payload[:2] + await handler(unit, payload[2:])
    except struct.error as err:
        message = "the request is cut short"
        raise ValueError(message) from err


def refusal(payload: bytes, code: int) -> bytes:
    """Return the exception response to a request: unit identifier and PDU."""
    return bytes((payload[0], payload[1] | _EXCEPTION, code))


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))


def _from_words(words: list[int]) -> bytes:
    return struct.pack(f">{len(words)}H", *words)


def _from_bits(bits: list[bool]) -> bytes:
    number = sum(bit << at for at, bit in enumerate(bits))
    return number.to_bytes((len(bits) + 7) // 8, "little")


def _values(data: bytes, at: int, size: int) -> bytes:
    """Return the values of a write, of which there must be as many as announced."""
    values = data[at + 1 :]
    if len(values) != size or data[at : at + 1] != bytes((size,)):
        message = "the request announces another number of values than it has"
        raise ValueError(message)
    return values


async def _read_coils(unit: Unit, data: bytes) -> bytes:
    bits = _from_bits(await unit.read_coils(*struct.unpack(">HH", data)))
    return bytes((len(bits),)) + bits


async def _read_discrete_inputs(unit: Unit, data: bytes) -> bytes:
    bits = _from_bits(await unit.read_discrete_inputs(*struct.unpack(">HH", data)))
    return bytes((len(bits),)) + bits


async def _read_holding_registers(unit: Unit, data: bytes) -> bytes:
    words = _from_words(await unit.read_holding_registers(*struct.unpack(">HH", data)))
    return bytes((len(words),)) + words


async def _read_input_registers(unit: Unit, data: bytes) -> bytes:
    words = _from_words(await unit.read_input_registers(*struct.unpack(">HH", data)))
    return bytes((len(words),)) + words


async def _write_coil(unit: Unit, data: bytes) -> bytes:
    address, raw = struct.unpack(">H2s", data)
    if raw not in _COIL:
        message = "a coil is 0xFF00 or 0x0000"
        raise ValueError(message)
    await unit.write_coil(address, _COIL[raw])
    return data


async def _write_register(unit: Unit, data: bytes) -> bytes:
    await unit.write_register(*struct.unpack(">HH", data))
    return data


async def _write_coils(unit: Unit, data: bytes) -> bytes:
    address, count = struct.unpack_from(">HH", data)
    number = int.from_bytes(_values(data, 4, (count + 7) // 8), "little")
    await unit.write_coils(address, [bool(number >> at & 1) for at in range(count)])
    return data[:4]


async def _write_registers(unit: Unit, data: bytes) -> bytes:
    address, count = struct.unpack_from(">HH", data)
    await unit.write_registers(address, _words(_values(data, 4, 2 * count)))
    return data[:4]


async def _mask_write_register(unit: Unit, data: bytes) -> bytes:
    await unit.mask_write_register(*struct.unpack(">HHH", data))
    return data


async def _read_write_registers(unit: Unit, data: bytes) -> bytes:
    read_address, read_count, address, count = struct.unpack_from(">HHHH", data)
    values = _words(_values(data, 8, 2 * count))
    words = _from_words(
        await unit.read_write_registers(read_address, read_count, address, values)
    )
    return bytes((len(words),)) + words


async def _read_fifo_queue(unit: Unit, data: bytes) -> bytes:
    words = await unit.read_fifo_queue(*struct.unpack(">H", data))
    return struct.pack(">HH", 2 + 2 * len(words), len(words)) + _from_words(words)


_HANDLERS: Final[dict[int, Callable[[Unit, bytes], Awaitable[bytes]]]] = {
    0x01: _read_coils,
    0x02: _read_discrete_inputs,
    0x03: _read_holding_registers,
    0x04: _read_input_registers,
    0x05: _write_coil,
    0x06: _write_register,
    0x0F: _write_coils,
    0x10: _write_registers,
    0x16: _mask_write_register,
    0x17: _read_write_registers,
    0x18: _read_fifo_queue,
}
