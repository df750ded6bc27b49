"""Values in registers: what goes there comes back, and what does not fit is told."""

import struct

from hypothesis import given, strategies as st
from pymodbus.client.mixin import ModbusClientMixin
import pytest

from custom_components.tcp_multiplexer.services.values import (
    DataType,
    Table,
    UnfitError,
    WordOrder,
    decode,
    encode,
    read_request,
    write_request,
)

HOLDING, COILS = Table.HOLDING_REGISTERS, Table.COILS
BIG, LITTLE = WordOrder.BIG, WordOrder.LITTLE
WHOLE = {
    DataType.INT16: st.integers(-(2**15), 2**15 - 1),
    DataType.UINT16: st.integers(0, 2**16 - 1),
    DataType.INT32: st.integers(-(2**31), 2**31 - 1),
    DataType.UINT32: st.integers(0, 2**32 - 1),
    DataType.INT64: st.integers(-(2**63), 2**63 - 1),
    DataType.UINT64: st.integers(0, 2**64 - 1),
    DataType.FLOAT32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    DataType.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
}


@given(data=st.data(), order=st.sampled_from(WordOrder))
@pytest.mark.parametrize("data_type", WHOLE)
def test_numbers_are_stored_as_others_store_them(
    data: st.DataObject, data_type: DataType, order: WordOrder
) -> None:
    values = data.draw(st.lists(WHOLE[data_type], min_size=1, max_size=5))
    stored = encode(values, HOLDING, data_type, order)
    theirs = b"".join(
        register.to_bytes(2)
        for value in values
        for register in ModbusClientMixin.convert_to_registers(
            value,
            ModbusClientMixin.DATATYPE[data_type.name],
            word_order="little" if order is LITTLE else "big",
        )
    )
    assert stored == theirs
    back = decode(stored, HOLDING, len(values), data_type, order)
    assert back is not None
    if data_type is DataType.FLOAT32:  # in few digits, and yet the same
        same = [struct.pack(">f", value) for value in back if value is not None]
        assert same == [struct.pack(">f", value) for value in values]
    else:
        assert back == values


def test_floats_are_told_in_the_digits_that_they_have() -> None:
    stored = encode([230.1], HOLDING, DataType.FLOAT32, BIG)
    assert decode(stored, HOLDING, 1, DataType.FLOAT32, BIG) == [230.1]


@pytest.mark.parametrize("data", ["7fc00000", "7f800000", "ff800000"])
def test_what_is_no_number_is_none(data: str) -> None:
    stored = bytes.fromhex(data)
    assert decode(stored, HOLDING, 1, DataType.FLOAT32, BIG) == [None]


def test_text_has_two_characters_a_register() -> None:
    stored = encode("SMA, 5.0", HOLDING, DataType.STRING, BIG)
    assert stored == b"SMA, 5.0"
    assert encode(["odd"], HOLDING, DataType.STRING, LITTLE) == b"odd\0"
    padded = b"SUN2000 \0\0\xff\xff"
    assert decode(padded, HOLDING, 6, DataType.STRING, BIG) == ["SUN2000"]


def test_bits_are_packed_the_first_one_lowest() -> None:
    bits = encode("1, off,TRUE no;1", COILS, DataType.UINT16, BIG)
    assert bits == b"\1\0\1\0\1"
    assert write_request(7, COILS, 3, bits, several=False) == bytes.fromhex(
        "07 0F 0003 0005 01 15"
    )
    assert decode(b"\x15", COILS, 5, DataType.UINT16, BIG) == [
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("values", "several", "request_"),
    [
        ([5], False, "01 06 0010 0005"),
        ([5], True, "01 10 0010 0001 02 0005"),
        ([5, 6], False, "01 10 0010 0002 04 0005 0006"),
    ],
)
def test_registers_are_written_by_the_function_for_so_many(
    values: list[int], several: bool, request_: str
) -> None:
    data = encode(values, HOLDING, DataType.UINT16, BIG)
    payload = write_request(1, HOLDING, 16, data, several=several)
    assert payload == bytes.fromhex(request_)


@pytest.mark.parametrize(
    ("value", "request_"),
    [
        (True, "01 05 0010 FF00"),
        (0, "01 05 0010 0000"),
        (1.0, "01 05 0010 FF00"),
    ],
)
def test_a_single_coil_is_switched(value: object, request_: str) -> None:
    data = encode([value], COILS, DataType.UINT16, BIG)
    payload = write_request(1, COILS, 16, data, several=False)
    assert payload == bytes.fromhex(request_)


@pytest.mark.parametrize(
    ("value", "data_type"),
    [
        (65536, "uint16"),
        (-1, "uint16"),
        (1.5, "int32"),
        (True, "uint16"),
        ("much", "int16"),
        (None, "int16"),
        ("nan", "float32"),
        ("inf", "float64"),
        (1e39, "float32"),
        (10**400, "uint64"),
    ],
)
def test_what_cannot_be_stored_is_told(value: object, data_type: str) -> None:
    with pytest.raises(UnfitError) as problem:
        encode([value], HOLDING, DataType(data_type), BIG)
    assert problem.value.key == "invalid_number"
    assert problem.value.placeholders == {"value": str(value), "data_type": data_type}


def test_numbers_may_be_written_in_many_ways() -> None:
    expected = bytes.fromhex("0010 0010 0010")
    assert encode("0x10, 16 16", HOLDING, DataType.UINT16, BIG) == expected
    assert encode([16.0, "16", 16], HOLDING, DataType.UINT16, BIG) == expected


def test_a_coil_is_on_or_off() -> None:
    with pytest.raises(UnfitError, match="invalid_bit"):
        encode([2], COILS, DataType.UINT16, BIG)


@pytest.mark.parametrize(
    ("table", "data_type", "most"),
    [
        (HOLDING, DataType.UINT16, 125),
        (Table.INPUT_REGISTERS, DataType.FLOAT32, 62),
        (HOLDING, DataType.INT64, 31),
        (COILS, DataType.UINT16, 2000),
        (Table.DISCRETE_INPUTS, DataType.FLOAT64, 2000),
    ],
)
def test_as_many_are_read_as_one_request_may(
    table: Table, data_type: DataType, most: int
) -> None:
    assert read_request(1, table, 0, most, data_type)
    with pytest.raises(UnfitError) as problem:
        read_request(1, table, 0, most + 1, data_type)
    assert problem.value.key == "too_many_values"
    assert problem.value.placeholders == {"most": str(most)}


@pytest.mark.parametrize(("table", "most"), [(HOLDING, 123), (COILS, 1968)])
def test_as_many_are_written_as_one_request_may(table: Table, most: int) -> None:
    def data(count: int) -> bytes:
        return encode([1] * count, table, DataType.UINT16, BIG)

    assert write_request(1, table, 0, data(most), several=False)
    with pytest.raises(UnfitError, match="too_much_to_write"):
        write_request(1, table, 0, data(most + 1), several=False)
    with pytest.raises(UnfitError, match="no_values"):
        write_request(1, table, 0, data(0), several=False)


def test_tables_end_at_the_last_address() -> None:
    assert read_request(1, HOLDING, 65535, 1, DataType.UINT16)
    with pytest.raises(UnfitError, match="beyond_last_address"):
        read_request(1, HOLDING, 65535, 1, DataType.UINT32)
    assert write_request(1, HOLDING, 65535, b"\0\0", several=False)
    with pytest.raises(UnfitError, match="beyond_last_address"):
        write_request(1, HOLDING, 65535, bytes(4), several=False)


@pytest.mark.parametrize(
    ("table", "count", "data"), [(HOLDING, 2, b"\0\1"), (COILS, 9, b"\0")]
)
def test_other_than_so_many_are_no_values(
    table: Table, count: int, data: bytes
) -> None:
    assert decode(data, table, count, DataType.UINT16, BIG) is None
