"""What Modbus reads of functions 1 to 4 cover, and how their responses are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, override

from ..extent import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FUNCTIONS = frozenset((1, 2, 3, 4))
_BIT_FUNCTIONS = frozenset((1, 2))
_READ = 6
"""Bytes of a request: unit, function, address and quantity (6.1 to 6.4)."""
_HEAD = 3
"""Bytes of a response before its data: unit, function and byte count."""
_BITS = 16
"""Bits in a register, and in what a device takes to be as much."""


class ModbusExtent(Extent):
    """Coils, discrete inputs, holding registers or input registers of a unit."""

    __slots__ = ("_bits", "_size")

    def __init__(self, area: bytes, first: int, end: int) -> None:
        """Cover addresses of an area: a unit identifier and a function code."""
        super().__init__(area, first, end)
        self._bits = area[1] in _BIT_FUNCTIONS
        count = end - first
        self._size = (count + 7) // 8 if self._bits else 2 * count

    @override
    def is_whole(self, response: bytes) -> bool:
        # its unit may be another, where matching is lenient
        return (
            len(response) == _HEAD + self._size
            and response[1:2] == self.area[1:]
            and response[2] == self._size
        )

    @override
    def cut(self, response: bytes, part: Extent) -> bytes:
        skip, count = part.first - self.first, part.end - part.first
        data = response[_HEAD:]
        if self._bits:
            bits = int.from_bytes(data, "little") >> skip & ((1 << count) - 1)
            data = bits.to_bytes((count + 7) // 8, "little")
        else:
            data = data[2 * skip : 2 * (skip + count)]
        return response[:2] + bytes((len(data),)) + data

    @override
    def join(self, responses: Sequence[bytes]) -> bytes:
        data = b"".join(response[_HEAD:] for response in responses)
        return responses[0][:2] + bytes((len(data),)) + data

    def parts(self, registers: int) -> Iterator[bytes]:
        """Yield the requests for its parts, none of which reads more than `registers`.

        As in the specification's own limits, 16 bits count as much as a register.
        """
        most = registers * _BITS if self._bits else registers
        if self.end - self.first <= most:
            return
        for first in range(self.first, self.end, most):
            count = min(most, self.end - first)
            yield self.area + first.to_bytes(2) + count.to_bytes(2)


def extent_of(payload: bytes) -> ModbusExtent | None:
    """Return what a request covers; None if it is no plain read, or passes 65535."""
    if len(payload) != _READ or payload[1] not in _FUNCTIONS:
        return None
    first = int.from_bytes(payload[2:4])
    end = first + int.from_bytes(payload[4:])
    return ModbusExtent(payload[:2], first, end) if end <= 0x10000 else None
