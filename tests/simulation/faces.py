"""How a peer frames what it says, where that is not as its dialect does it.

A face packs questions and answers and cuts them from a stream, as a dialect does. Unit
identifiers may be other ones on a client's side; on a serial line there is no
transaction identifier, and a device may have ideas of its own about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Protocol, override

from tests.engine.serial_line import with_crc

from .dialects import Ask, Dialect
from .manners import Habit

_QUESTION_SIZES = {**dict.fromkeys((1, 2, 3, 4, 5, 6), 6), 7: 2, 0x11: 2, 0x16: 8}
_ANSWER_SIZES = {5: 6, 6: 6, 7: 3, 0x0F: 6, 0x10: 6, 0x16: 8}
_COUNTS_AT = {0x0F: 6, 0x10: 6, 0x17: 10}
"""Where a question says how many bytes follow."""
_FUNCTIONS = {*_QUESTION_SIZES, *_COUNTS_AT}


class Face(Protocol):
    """What peers of the engine need in order to talk."""

    correlated: bool

    def ask(self, rng: Random) -> Ask:
        """Think of something to ask that can be said in this way."""

    def pack(self, tid: int, body: bytes) -> bytes:
        """Give a question's bytes."""

    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        """Take whole questions off a buffer."""

    def pack_answer(self, tid: int, body: bytes) -> bytes:
        """Give an answer's bytes."""

    def cut_answers(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        """Take whole answers off a buffer."""


class RtuFace(Face):
    """Frames of a serial line: a unit, a PDU, a CRC; lengths follow from the PDU."""

    correlated = False

    def __init__(self, dialect: Dialect) -> None:
        """Frame what a dialect of Modbus says."""
        self._dialect = dialect

    @override
    def ask(self, rng: Random) -> Ask:
        while (ask := self._dialect.ask(rng)).body[1] not in _FUNCTIONS:
            pass
        return ask

    @override
    def pack(self, tid: int, body: bytes) -> bytes:
        return with_crc(body)

    @override
    def pack_answer(self, tid: int, body: bytes) -> bytes:
        return with_crc(body)

    @override
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        return _frames(buffer, answers=False)

    @override
    def cut_answers(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        return _frames(buffer, answers=True)


def _frames(buffer: bytearray, *, answers: bool) -> Iterator[tuple[int, bytes]]:
    while len(buffer) > 2:
        at = 2 if answers else _COUNTS_AT.get(buffer[1], -1)
        size = (_ANSWER_SIZES if answers else _QUESTION_SIZES).get(buffer[1])
        if buffer[1] & 0x80:
            size = 3
        if size is None:
            if len(buffer) <= at:
                return
            size = at + 1 + buffer[at]
        if len(buffer) < size + 2:
            return
        body = bytes(buffer[:size])
        assert with_crc(body) == buffer[: size + 2], "no frame, or not the next one"
        del buffer[: size + 2]
        yield 0, body


class MappedFace(Face):
    """A client that knows the device's units by other numbers."""

    def __init__(self, face: Face, units: Mapping[int, int]) -> None:
        """Translate `units` of the client to units of the device."""
        self.correlated = face.correlated
        self._face = face
        self._there = dict(units)
        self._back = {there: here for here, there in units.items()}

    @override
    def ask(self, rng: Random) -> Ask:
        return self._face.ask(rng)

    @override
    def pack(self, tid: int, body: bytes) -> bytes:
        return self._face.pack(tid, _renumbered(body, self._back))

    @override
    def pack_answer(self, tid: int, body: bytes) -> bytes:
        return self._face.pack_answer(tid, _renumbered(body, self._back))

    @override
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        for tid, body in self._face.cut(buffer):
            yield tid, _renumbered(body, self._there)

    @override
    def cut_answers(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        for tid, body in self._face.cut_answers(buffer):
            yield tid, _renumbered(body, self._there)


def _renumbered(body: bytes, units: Mapping[int, int]) -> bytes:
    return bytes((units.get(body[0], body[0]),)) + body[1:]


class CarelessFace(Face):
    """A Modbus/TCP device whose answers may bear any identifier."""

    correlated = False

    def __init__(self, dialect: Dialect, habit: Habit) -> None:
        """Have a habit."""
        self._dialect = dialect
        self._habit = habit
        self._count = 0

    @override
    def ask(self, rng: Random) -> Ask:
        return self._dialect.ask(rng)

    @override
    def pack(self, tid: int, body: bytes) -> bytes:
        return self._dialect.pack(tid, body)

    @override
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        return self._dialect.cut(buffer)

    @override
    def pack_answer(self, tid: int, body: bytes) -> bytes:
        self._count = (self._count + 1) & 0xFF
        said = {Habit.ECHOES: tid, Habit.COUNTS: self._count}.get(self._habit, 0)
        return self._dialect.pack(said, body)

    @override
    def cut_answers(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        return self._dialect.cut(buffer)
