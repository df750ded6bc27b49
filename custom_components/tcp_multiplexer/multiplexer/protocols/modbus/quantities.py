"""How much one request may read or write.

Source: Modbus Application Protocol V1.1b3, 6. What goes beyond is answered with
exception 0x03 and never sent: a device that takes it sends a frame longer than there
may be, and one that does not may hang up, to the harm of all who share the connection.
"""

from __future__ import annotations

MAX_REGISTERS = 125
"""The most that one request may read (6.3, 6.4, 6.17)."""

_MAX_BITS = 2000
_MAX_BITS_WRITTEN = 0x7B0
_MAX_REGISTERS_WRITTEN = 123
_MAX_REGISTERS_WRITTEN_AND_READ = 121

_MAX_READ = {1: _MAX_BITS, 2: _MAX_BITS, 3: MAX_REGISTERS, 4: MAX_REGISTERS}

_READ_FILE_RECORD = 0x14
_WRITE_FILE_RECORD = 0x15
_SUB_REQUEST = 7
"""Bytes: reference type, file, record and length, the last three of two bytes."""
_MAX_FILE_BYTES = {_READ_FILE_RECORD: 0xF5, _WRITE_FILE_RECORD: 0xFB}


def is_possible(payload: bytes) -> bool:
    """Return whether the quantities of a request are ones that it may have.

    Those of other functions than 1 to 4, 15, 16, 20, 21 and 23 are the device's
    business, and so are bytes beyond the end of a request.
    """
    function = payload[1]
    if function in _MAX_READ:
        return 1 <= int.from_bytes(payload[4:6]) <= _MAX_READ[function] and (
            len(payload) >= 6
        )
    if function == 0x0F:
        count = int.from_bytes(payload[4:6])
        return 1 <= count <= _MAX_BITS_WRITTEN and _brings(payload, 6, (count + 7) // 8)
    if function == 0x10:
        count = int.from_bytes(payload[4:6])
        return 1 <= count <= _MAX_REGISTERS_WRITTEN and _brings(payload, 6, 2 * count)
    if function == 0x17:
        count = int.from_bytes(payload[8:10])
        return (
            1 <= int.from_bytes(payload[4:6]) <= MAX_REGISTERS
            and 1 <= count <= _MAX_REGISTERS_WRITTEN_AND_READ
            and _brings(payload, 10, 2 * count)
        )
    if function in _MAX_FILE_BYTES:
        return _is_possible_of_files(payload)
    return True


def _brings(payload: bytes, at: int, size: int) -> bool:
    """Return whether the byte count at `at` is `size`, and so many bytes follow."""
    return payload[at : at + 1] == bytes((size,)) and len(payload) > at + size


def _is_possible_of_files(payload: bytes) -> bool:
    most = _MAX_FILE_BYTES[payload[1]]
    size = payload[2] if len(payload) > 2 else 0
    if not _SUB_REQUEST <= size <= most or len(payload) < 3 + size:
        return False
    if payload[1] == _WRITE_FILE_RECORD:
        return True
    # each record that is read comes behind its length and reference type
    lengths = range(3 + 5, 3 + size, _SUB_REQUEST)
    told = sum(2 + 2 * int.from_bytes(payload[at : at + 2]) for at in lengths)
    return told <= most
