"""Modbus tables in plain terms: numbers and texts to registers, and back.

Addresses are those on the wire, from 0. Each register has two bytes, the high one first
(Modbus Application Protocol V1.1b3, 4.2); which register of a longer number comes first
is the device's choice. Nothing here knows Home Assistant.
"""

from collections.abc import Sequence
from contextlib import suppress
import enum
from math import isfinite, nan
import re
import struct
from typing import Final

_LAST_ADDRESS: Final = 0xFFFF
_MOST_READ: Final = {1: 2000, 2: 2000, 3: 125, 4: 125}
"""Bits or registers in one request, by function (6.1 to 6.4)."""
_MOST_COILS: Final = 1968
_MOST_REGISTERS: Final = 123
"""The same of those that write (6.11, 6.12)."""


class Table(enum.StrEnum):
    """Where values are."""

    HOLDING_REGISTERS = "holding_registers"
    INPUT_REGISTERS = "input_registers"
    COILS = "coils"
    DISCRETE_INPUTS = "discrete_inputs"


class DataType(enum.StrEnum):
    """What registers mean."""

    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    """Two characters a register, up to the first that is zero."""


class WordOrder(enum.StrEnum):
    """Which register of a number of several comes first."""

    BIG = "big"
    """The one with the highest digits."""
    LITTLE = "little"


_FUNCTIONS: Final = {
    Table.COILS: 1,
    Table.DISCRETE_INPUTS: 2,
    Table.HOLDING_REGISTERS: 3,
    Table.INPUT_REGISTERS: 4,
}
_BITS: Final = (Table.COILS, Table.DISCRETE_INPUTS)
WRITABLE: Final = (Table.HOLDING_REGISTERS, Table.COILS)

_FORMATS: Final = {
    DataType.INT16: "h",
    DataType.UINT16: "H",
    DataType.INT32: "i",
    DataType.UINT32: "I",
    DataType.INT64: "q",
    DataType.UINT64: "Q",
    DataType.FLOAT32: "f",
    DataType.FLOAT64: "d",
}
_FLOATS: Final = (DataType.FLOAT32, DataType.FLOAT64)
_TRUE: Final = ("1", "true", "on", "yes")
_FALSE: Final = ("0", "false", "off", "no")

type Value = bool | float | str | None
"""A bit, a number, or a text; None: not a number."""


class UnfitError(Exception):
    """What was asked for cannot be; `key` names the translated reason."""

    def __init__(self, key: str, /, **placeholders: str) -> None:
        super().__init__(key)
        self.key = key
        self.placeholders = placeholders


def read_request(
    unit: int, table: Table, address: int, count: int, data_type: DataType
) -> bytes:
    """Return unit and PDU of a request for so many values.

    Raises:
        UnfitError: that is more than one request may read, or beyond the table.

    """
    function = _FUNCTIONS[table]
    quantity = count if table in _BITS else count * width(data_type)
    most = _MOST_READ[function]
    if quantity > most:
        each = 1 if table in _BITS else width(data_type)
        raise UnfitError("too_many_values", most=str(most // each))
    _check_end(address, quantity)
    return struct.pack(">BBHH", unit, function, address, quantity)


def write_request(
    unit: int, table: Table, address: int, data: bytes, *, several: bool
) -> bytes:
    """Return unit and PDU of a request that writes `data`, as `encode` returns it.

    With `several`, a single value is written by the function for several too: some
    devices have no other.

    Raises:
        UnfitError: that is more than one request may write, or beyond the table.

    """
    if table is Table.COILS:
        quantity, most, one, many = len(data), _MOST_COILS, 5, 15
        single = b"\xff\0" if data[:1] == b"\1" else b"\0\0"
        packed = _packed(data)
    else:
        quantity, most, one, many = len(data) // 2, _MOST_REGISTERS, 6, 16
        single = packed = data
    if not quantity:
        raise UnfitError("no_values")
    if quantity > most:
        raise UnfitError("too_much_to_write", most=str(most))
    _check_end(address, quantity)
    if quantity == 1 and not several:
        return struct.pack(">BBH", unit, one, address) + single
    head = struct.pack(">BBHHB", unit, many, address, quantity, len(packed))
    return head + packed


def _check_end(address: int, quantity: int) -> None:
    if address + quantity - 1 > _LAST_ADDRESS:
        raise UnfitError("beyond_last_address")


def _packed(bits: bytes) -> bytes:
    """Pack bits, a byte each, eight to a byte, the first one lowest (6.11)."""
    number = sum(bit << at for at, bit in enumerate(bits))
    return number.to_bytes((len(bits) + 7) // 8, "little")


def width(data_type: DataType) -> int:
    """Return how many registers a value has; of a text, as many as are asked for."""
    if data_type is DataType.STRING:
        return 1
    return struct.calcsize(f">{_FORMATS[data_type]}") // 2


def decode(
    data: bytes, table: Table, count: int, data_type: DataType, order: WordOrder
) -> list[Value] | None:
    """Return the values in a response's data; None if it has not just so many."""
    if table in _BITS:
        if len(data) != (count + 7) // 8:
            return None
        bits = int.from_bytes(data, "little")
        return [bool(bits >> at & 1) for at in range(count)]
    size = 2 * width(data_type)
    if len(data) != count * size:
        return None
    if data_type is DataType.STRING:
        return [data.partition(b"\0")[0].decode(errors="replace").strip()]
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return [_number(_ordered(part, order), data_type) for part in parts]


def encode(
    values: str | Sequence[object],
    table: Table,
    data_type: DataType,
    order: WordOrder,
) -> bytes:
    """Return values as they stand in registers; of coils, a byte for each.

    Values may be a list, or a text with commas between them.

    Raises:
        UnfitError: one of them cannot be stored as `data_type`.

    """
    if table is Table.COILS:
        return bytes(_bit(value) for value in _listed(values))
    if data_type is DataType.STRING:
        text = values if isinstance(values, str) else "".join(map(str, values))
        data = text.encode()
        return data + b"\0" * (len(data) % 2)
    return b"".join(
        _ordered(_packed_number(value, data_type), order) for value in _listed(values)
    )


def _listed(values: str | Sequence[object]) -> Sequence[object]:
    if isinstance(values, str):
        return [part for part in re.split(r"[\s,;]+", values) if part]
    return values


def _ordered(data: bytes, order: WordOrder) -> bytes:
    """Turn the order of registers round, if it is not the usual one."""
    if order is WordOrder.BIG:
        return data
    return b"".join(data[at : at + 2] for at in range(len(data) - 2, -1, -2))


def _number(data: bytes, data_type: DataType) -> Value:
    [value] = struct.unpack(f">{_FORMATS[data_type]}", data)
    if data_type not in _FLOATS:
        return int(value)
    if not isfinite(value):
        return None
    if data_type is DataType.FLOAT32:  # the shortest that is the same
        return next(
            short
            for digits in range(6, 10)
            if struct.pack(">f", short := float(f"{value:.{digits}g}")) == data
        )
    return float(value)


def _packed_number(value: object, data_type: DataType) -> bytes:
    text = str(value)
    number: float = nan
    with suppress(ValueError):
        if data_type in _FLOATS:
            number = float(text)
        elif isinstance(value, float) and value.is_integer():
            number = int(value)
        else:
            number = int(text, 0)
    with suppress(struct.error, OverflowError):
        if isfinite(number):
            return struct.pack(f">{_FORMATS[data_type]}", number)
    raise UnfitError("invalid_number", value=text, data_type=data_type.value)


def _bit(value: object) -> bool:
    text = str(value).lower().removesuffix(".0")
    if text in _TRUE:
        return True
    if text not in _FALSE:
        raise UnfitError("invalid_bit", value=str(value))
    return False
