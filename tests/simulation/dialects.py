"""What the simulated peers speak, and how any answer can be judged.

A dialect is the peers' own small idea of a protocol, independent of the engine's
codecs: how messages are cut from a stream, what a client may ask, what a device does
with it, and what is a right answer. Every question is unlike every other, and every
answer follows from its question alone (or from what was written before), so that an
answer that belongs to another question is always seen.

A message is a pair: the transaction identifier (0 where the protocol has none) and the
body, which names the question. Modbus bodies are a unit identifier and a PDU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
import enum
from functools import cache
from random import Random
from typing import NamedTuple, override

UNITS = (1, 2, 3)
CELLS = 0x8000
"""Modbus registers from here on can be written, in cells of two."""
CELLS_EACH = 16
"""Cells of each unit that clients read and write."""
GATEWAY_CODES = (0x06, 0x0A, 0x0B)
BUSY, NO_PATH, NO_ANSWER = GATEWAY_CODES
CONFIRMED = frozenset((0x05, 0x06, 0x0F, 0x10, 0x16))
"""Writes whose answer repeats what was written, from the address on."""
_RARE = (0x05, 0x06, 0x0F, 0x16, 0x17, 0x41, 0x07, 0x11, 0x2B)
RARE_ON_LINES = _RARE[:5] + _RARE[6:8]
"""Those whose answers are as long as the function says."""
_WRITES = frozenset({0x05, 0x06, 0x0F, 0x10, 0x16, 0x17, 0x41})
_RETRY_SAFE = frozenset({0x01, 0x02, 0x03, 0x04, 0x07, 0x11, 0x2B})
_PATTERN = 8192


class Verdict(enum.IntEnum):
    """What an answer is."""

    RIGHT = enum.auto()
    """The device's own answer to just this question."""
    EXCEPTION = enum.auto()
    """The device's own refusal of just this question."""
    GATEWAY = enum.auto()
    """The multiplexer's excuse."""
    RULE = enum.auto()
    """What a rule of the owner's says to it, without the device."""
    WRONG = enum.auto()


class Ask(NamedTuple):
    """What a client may ask."""

    body: bytes
    retry_safe: bool = True
    writes: int | None = None
    """The unit that it changes."""
    logs_in: bool = False
    """Its function is not the specification's: it may be a login."""


class Dialect(ABC):
    """One protocol, as the simulated peers speak it."""

    name: str
    """As the engine calls it."""
    correlated = False
    """Answers name their question."""
    drops_reads = False
    """What a client asked that has left is dropped, unless it writes."""
    excuses = False
    """Who gets no answer is told so; else his connection is closed."""
    last_words = False
    """Who talks nonsense is told so before he is closed."""

    @abstractmethod
    def pack(self, tid: int, body: bytes) -> bytes:
        """Give a question's bytes on the wire."""

    @abstractmethod
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        """Take whole questions off the front of `buffer`."""

    def pack_answer(self, tid: int, body: bytes) -> bytes:
        """Give an answer's bytes on the wire."""
        return self.pack(tid, body)

    def cut_answers(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        """Take whole answers off the front of `buffer`."""
        return self.cut(buffer)

    def probes(self, unit: int) -> tuple[bytes, ...]:  # noqa: ARG002 - Modbus has units
        """Give what the engine may ask by itself before any client has."""
        return ()

    def gave_up(self, excuse: bytes) -> bool:  # noqa: ARG002 - some have none
        """Tell whether an excuse leaves it open if the question reached the device."""
        return True

    @abstractmethod
    def ask(self, rng: Random) -> Ask:
        """Think of something new to ask."""

    @abstractmethod
    def execute(self, body: bytes, now: float) -> bytes:
        """Do what the device does, and give the body of its answer."""

    @abstractmethod
    def judge(self, body: bytes, answer: bytes, since: float, now: float) -> Verdict:
        """Say what an answer is to a question open from `since` to `now`."""

    @abstractmethod
    def unsolicited(self, rng: Random, size: int) -> bytes:
        """Give a well-formed message that answers nothing, of `size` bytes or more."""

    @abstractmethod
    def garbage(self, rng: Random) -> bytes:
        """Give bytes that no peer can take for a message."""


# Modbus/TCP


@cache
def _pattern(unit: int, table: int) -> bytes:
    """Give the fixed values of a table of a unit; no byte of them is 0."""
    values = Random(f"{unit}/{table}").randbytes(_PATTERN)
    return bytes(value or 0x5A for value in values)


def fixed(unit: int, function: int, address: int, size: int) -> bytes:
    """Give `size` bytes of values, as (unit, function, address) determine them."""
    pattern = _pattern(unit, function)
    start = address * 2 % (_PATTERN - 256)
    return pattern[start : start + size]


@cache
def _bits(unit: int, function: int) -> int:
    """Give the fixed coils or inputs of a unit; of four in a row, one is set."""
    return int.from_bytes(_pattern(unit, function), "little") | int("11" * _PATTERN, 16)


def bits(unit: int, function: int, address: int, count: int) -> bytes:
    """Give so many coils or inputs from an address on, packed."""
    values = _bits(unit, function) >> address % (4 * _PATTERN) & ((1 << count) - 1)
    return values.to_bytes((count + 7) // 8, "little")


def unique(number: int, size: int) -> bytes:
    """Give a number's own value, none of whose bytes is 0."""
    digits = []
    for _ in range(size):
        number, digit = divmod(number, 255)
        digits.append(digit + 1)
    return bytes(reversed(digits))


def exception_of(body: bytes) -> bytes:
    """Give the exception with which the device refuses a question: always the same."""
    return bytes((body[0], body[1] | 0x80, 1 + sum(body) % 4))


def no_answer(body: bytes) -> bytes:
    """Give the exception with which a gateway tells that a unit is silent."""
    return bytes((body[0], body[1] | 0x80, NO_ANSWER))


def is_read(body: bytes, every: int) -> bool:
    """Tell whether a question reads at one of so many addresses."""
    return body[1] in {3, 4} and int.from_bytes(body[2:4]) % every == every - 1


def read(unit: int, function: int, address: int, count: int) -> Ask:
    """Ask for values."""
    return Ask(bytes((unit, function)) + address.to_bytes(2) + count.to_bytes(2))


def covers(body: bytes, ask: Ask) -> bool:
    """Tell whether a question reads all that another one reads, and more."""
    if body[:2] != ask.body[:2] or body[1] > 4 or body == ask.body:
        return False
    first, count = _range(body)
    other, others = _range(ask.body)
    return first <= other and other + others <= first + count


def read_cell(unit: int, cell: int, count: int = 1) -> Ask:
    """Ask for what was last written into a cell, or into several in a row."""
    return read(unit, 3, CELLS + 2 * cell, 2 * count)


def write_cell(unit: int, cell: int, value: bytes) -> Ask:
    """Ask to write four bytes into a cell."""
    head = bytes((unit, 0x10)) + (CELLS + 2 * cell).to_bytes(2)
    return Ask(head + b"\0\2\4" + value, retry_safe=False, writes=unit)


class ModbusDialect(Dialect):
    """Modbus/TCP, and a device with memory."""

    name = "modbus"
    correlated = True
    drops_reads = True
    excuses = True

    def __init__(self) -> None:
        """Start with cells that hold their fixed values."""
        self.rare: tuple[int, ...] = _RARE
        """Functions that are asked now and then."""
        self.atomic = True
        """A read shows cells as they were at one time."""
        self._asked = 0
        self._cells: dict[tuple[int, int], list[tuple[float, bytes]]] = {}
        """Per cell, since when it has held what."""

    @override
    def pack(self, tid: int, body: bytes) -> bytes:
        return b"%c%c\0\0%c%c" % (tid >> 8, tid & 255, 0, len(body)) + body

    @override
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        while len(buffer) > 6 and len(buffer) >= 6 + buffer[5]:
            end = 6 + buffer[5]
            tid, body = buffer[0] << 8 | buffer[1], bytes(buffer[6:end])
            del buffer[:end]
            yield tid, body

    @override
    def ask(self, rng: Random) -> Ask:
        self._asked += 1
        unit = UNITS[int(rng.random() * len(UNITS))]
        kind = rng.random()
        if kind < 0.65:
            count = 1 + int(rng.random() ** 3 * 100)
            return read(unit, rng.randint(1, 4), int(rng.random() * 2000), count)
        if kind < 0.75:
            return read_cell(unit, rng.randrange(CELLS_EACH))
        if kind < 0.85:
            value = unique(self._asked, 4)
            return write_cell(unit, rng.randrange(CELLS_EACH), value)
        return self._ask_rarely(rng, unit)

    def _ask_rarely(self, rng: Random, unit: int) -> Ask:
        """Ask what is asked now and then; every write writes a value of its own."""
        own = unique(self._asked, 4)
        function = rng.choice(self.rare)
        match function:
            case 0x05:
                on = b"\xff" if self._asked >> 16 else b"\0"
                data = (self._asked & 0xFFFF).to_bytes(2) + on + b"\0"
            case 0x06:
                data = own
            case 0x16:
                data = own + b"\1\1"
            case 0x0F:
                data = b"\x30\0\0\x20\4" + own
            case 0x17:
                data = b"\0\7\0\2" + b"\x50\0\0\2\4" + own
            case 0x41:
                data = own + rng.randbytes(rng.randrange(200))
            case 0x2B:
                data = b"\x0e\x01" + own[-1:]
            case _:
                data = b""
        return Ask(
            bytes((unit, function)) + data,
            retry_safe=function in _RETRY_SAFE,
            writes=unit if function in _WRITES else None,
            logs_in=function == 0x41,
        )

    @override
    def execute(self, body: bytes, now: float) -> bytes:
        unit, function = body[0], body[1]
        head = body[:2]
        match function:
            case 0x01 | 0x02:
                packed = bits(unit, function, *_range(body))
                data = bytes((len(packed),)) + packed
            case 0x03 | 0x04 if body[2] < CELLS >> 8:
                data = _sized(unit, body, int.from_bytes(body[4:6]) * 2)
            case 0x03:
                cells = self._histories(body)
                values = b"".join(history[-1][1] for history in cells)
                data = bytes((len(values),)) + values
            case 0x05 | 0x06 | 0x16 | 0x41:
                data = body[2:]
            case 0x0F | 0x10:
                if body[2] >= CELLS >> 8:
                    history = self._history(unit, int.from_bytes(body[2:4]))
                    history.append((now, body[7:11]))
                data = body[2:6]
            case 0x17:
                data = b"\4" + fixed(unit, function, 7, 4)
            case 0x07 | 0x2B:
                data = fixed(unit, function, 0, 1 if function == 0x07 else 12)
            case 0x11:
                data = _sized(unit, body + b"\0\0", 12)
            case _:
                return bytes((unit, function | 0x80, 1))
        return head + data

    def _history(self, unit: int, address: int) -> list[tuple[float, bytes]]:
        history = self._cells.get((unit, address))
        if history is None:
            history = [(0.0, fixed(unit, 3, address & 0xFF, 4))]
            self._cells[unit, address] = history
        return history

    def _histories(self, body: bytes) -> list[list[tuple[float, bytes]]]:
        """Give what the cells have held that a question reads."""
        first, count = _range(body)
        return [self._history(body[0], first + at) for at in range(0, count, 2)]

    @override
    def judge(self, body: bytes, answer: bytes, since: float, now: float) -> Verdict:
        if answer[:2] == body[:2]:
            if body[1] == 3 and body[2] >= CELLS >> 8:
                right = self._held_at_once(body, answer[3:], since, now)
                right = right and answer[2] == len(answer) - 3
            else:
                right = answer == self._expected(body)
            return Verdict.RIGHT if right else Verdict.WRONG
        if answer == exception_of(body):  # of odd length, too, it is passed on as this
            return Verdict.EXCEPTION
        if (
            len(answer) == 3
            and answer[0] == body[0]
            and answer[1] == body[1] | 0x80
            and answer[2] in GATEWAY_CODES
        ):
            return Verdict.GATEWAY
        return Verdict.WRONG

    def _expected(self, body: bytes) -> bytes:
        """Give the one right answer, where it does not depend on writes."""
        if body[1] in (0x0F, 0x10):
            return body[:6]
        return self.execute(body, 0.0)

    def _held_at_once(
        self, body: bytes, values: bytes, since: float, now: float
    ) -> bool:
        """Tell whether cells held these values at one time from `since` to `now`."""
        histories = self._histories(body)
        if len(values) != 4 * len(histories):
            return False
        first, last = since, now
        for at, history in enumerate(histories):
            value = values[4 * at : 4 * at + 4]
            begins = [start for start, held in history if held == value]
            if not begins:
                return False
            begin = max(begins[-1], since)
            end = min(
                (start for start, _ in history if start > begins[-1]), default=now
            )
            if begin > min(end, now):
                return False
            first, last = max(first, begin), min(last, end)
        return first <= last or not self.atomic

    @override
    def unsolicited(self, rng: Random, size: int) -> bytes:
        values = max(2, size - 9)
        body = bytes((rng.choice(UNITS), 3, values)) + fixed(1, 3, 0, min(values, 250))
        return self.pack(self.far_from(rng.randrange(0xFFFF), rng), body)

    @override
    def probes(self, unit: int) -> tuple[bytes, ...]:
        return (bytes((unit, 3, 0, 0, 0, 1)),)

    @override
    def gave_up(self, excuse: bytes) -> bool:
        return excuse[2] == NO_ANSWER

    @staticmethod
    def far_from(tid: int, rng: Random) -> int:
        """Give an identifier that no request will have any time soon.

        No byte of it is 0 or a unit, so that it cannot pass for another field.
        """
        while True:
            other = (tid + rng.randrange(5_000, 60_000)) & 0xFFFF
            if other >> 8 > 0x80 and other & 255 > 0x80:
                return other

    @override
    def garbage(self, rng: Random) -> bytes:
        size = rng.randrange(8, 64)
        data = bytearray(rng.randbytes(size))
        match rng.randrange(3):
            case 0:  # noise: no protocol identifier of 0
                data[2] |= 1
            case 1:  # a header that announces too much
                data[2:6] = b"\0\0" + rng.randrange(255, 1 << 16).to_bytes(2)
            case _:  # one that announces nothing
                data[2:6] = b"\0\0\0\1"
        data[7] &= 0x7F  # an exception is one whatever its header announces
        return bytes(data)


def _range(body: bytes) -> tuple[int, int]:
    """Give the first address that a question reads, and how many."""
    return int.from_bytes(body[2:4]), int.from_bytes(body[4:6])


def _sized(unit: int, body: bytes, size: int) -> bytes:
    """Give fixed values behind their number of bytes."""
    return bytes((size,)) + fixed(unit, body[1], int.from_bytes(body[2:4]), size)


# Protocols without identifiers


class PlainDialect(Dialect):
    """Messages that name nothing: one question, one answer, by order alone."""

    def __init__(self) -> None:
        """Start counting questions."""
        self._asked = 0

    @override
    def ask(self, rng: Random) -> Ask:
        self._asked += 1
        padding = b"x" * int(rng.random() ** 4 * 400)
        return Ask(b"ask %d %s" % (self._asked, padding), retry_safe=False)

    @override
    def execute(self, body: bytes, now: float) -> bytes:
        return b"told " + body[4:]

    @override
    def judge(self, body: bytes, answer: bytes, since: float, now: float) -> Verdict:
        right = answer == self.execute(body, now)
        return Verdict.RIGHT if right else Verdict.WRONG

    @override
    def unsolicited(self, rng: Random, size: int) -> bytes:
        return self.pack(0, b"told nobody %d" % rng.randrange(1000) + b"y" * size)


class LineDialect(PlainDialect):
    """Newline-terminated echo."""

    name = "echo"

    @override
    def pack(self, tid: int, body: bytes) -> bytes:
        return body + b"\n"

    @override
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        while (end := buffer.find(b"\n")) >= 0:
            body = bytes(buffer[:end])
            del buffer[: end + 1]
            yield 0, body

    @override
    def garbage(self, rng: Random) -> bytes:
        # Any line may be an answer: only one that never ends is none.
        return b"?" * ((64 << 10) + 1)


class LengthDialect(PlainDialect):
    """Messages behind their length: two bytes (ISO 8583), or four digits (MPU)."""

    def __init__(self, name: str) -> None:
        """Speak as the engine's protocol of this name."""
        super().__init__()
        self.name = name
        self._digits = name == "mpu"
        self._size = 4 if self._digits else 2

    @override
    def pack(self, tid: int, body: bytes) -> bytes:
        if self._digits:
            return b"%04d" % len(body) + body
        return len(body).to_bytes(2) + body

    @override
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        size = self._size
        while len(buffer) >= size:
            head = bytes(buffer[:size])
            end = size + (int(head) if self._digits else int.from_bytes(head))
            if len(buffer) < end:
                return
            body = bytes(buffer[size:end])
            del buffer[:end]
            yield 0, body

    @override
    def garbage(self, rng: Random) -> bytes:
        # A header that announces more than comes, or is none.
        return b"9x99" if self._digits else b"\xff\xff" + rng.randbytes(20)
