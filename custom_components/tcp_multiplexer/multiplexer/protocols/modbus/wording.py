"""Requests in words, as owners write them: `unit=1 read=40608`.

Source: Modbus Application Protocol V1.1b3, 6.
"""

from __future__ import annotations

from .quantities import is_possible

_EXAMPLES = "write 'unit=1 read=40608' or 'unit=1 write=49999 value=1'"
_READS = frozenset((1, 2, 3, 4))
_COIL = {0: b"\0\0", 1: b"\xff\0"}


def payload_of(words: str) -> bytes:
    """Return the unit identifier and PDU of a read or a write in words.

    Registers are as on the wire, from 0; `0x` marks hexadecimal numbers. A read may
    have `count` (1) and `function` (3; 1 to 4). A write has a `value`, or several with
    commas in between, and may have `function`: 5 for a coil, else 6 or 16 (6 for one
    value).

    Raises:
        ValueError: they say no request; the text says what to write.

    """
    try:
        payload = _payload(words)
    except (KeyError, OverflowError, ValueError):
        payload = b""
    if not payload or not is_possible(payload):
        raise ValueError(f"{words!r} is no request; {_EXAMPLES}")
    return payload


def _payload(words: str) -> bytes:
    """Return the same, unchecked, or nothing; raises errors of many kinds."""
    parts = [word.partition("=") for word in words.split()]
    given = {name: [int(number, 0) for number in v.split(",")] for name, _, v in parts}
    (unit,) = given.pop("unit")
    pdu = _read(given) if "read" in given else _write(given)
    repeated = len({name for name, *_ in parts}) < len(parts)
    return b"" if given or repeated else bytes((unit,)) + pdu


def _read(given: dict[str, list[int]]) -> bytes:
    """Take the words of a read; return its PDU."""
    (function,) = given.pop("function", [3])
    (address,), (count,) = given.pop("read"), given.pop("count", [1])
    if function not in _READS:
        raise ValueError(function)
    return bytes((function,)) + address.to_bytes(2) + count.to_bytes(2)


def _write(given: dict[str, list[int]]) -> bytes:
    """Take the words of a write; return its PDU."""
    (address,), values = given.pop("write"), given.pop("value")
    (function,) = given.pop("function", [6 if len(values) == 1 else 16])
    head = bytes((function,)) + address.to_bytes(2)
    if function == 16:
        data = b"".join(value.to_bytes(2) for value in values)
        return head + len(values).to_bytes(2) + bytes((len(data),)) + data
    (value,) = values
    if function == 5:
        return head + _COIL[value]
    if function != 6:
        raise ValueError(function)
    return head + value.to_bytes(2)
