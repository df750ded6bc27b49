"""Messages behind a header that gives their length: ISO 8583 and MPU.

ISO 8583 says what a message is but not how to send it over TCP; every network has its
own length header. They differ in size, encoding and in whether the header counts
itself, so one codec with those three as settings (`LengthHeader`) speaks them all. The
body is not looked into: a header such as a TPDU is a part of it.

A message of length zero is a keepalive: it is echoed where it came from and is neither
a request nor a response.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum
import string
from typing import ClassVar, override

from .compiled import mypyc_attr
from .framed import FramedProtocol, Framer, FramingError


class LengthEncoding(enum.Enum):
    """How the header writes its number, most significant digit first."""

    BINARY = "binary"
    BCD = "BCD"
    """Two decimal digits a byte."""
    ASCII = "ASCII"
    """One decimal digit a byte."""
    HEX = "hex"
    """One hexadecimal digit a byte, as ASCII."""


_HEX_DIGITS = frozenset(string.hexdigits.encode())


@dataclass(frozen=True, slots=True)
class LengthHeader:
    """A header that gives the length of the body behind it."""

    size: int
    """Of the header, in bytes."""
    encoding: LengthEncoding = LengthEncoding.BINARY
    inclusive: bool = False
    """The number counts the header itself."""
    max_body: int = 65_535
    """The longest body to accept, in bytes, where the header could say more."""

    def body_length(self, header: bytes) -> int:
        """Read the length of the body that follows `header`.

        Raises:
            FramingError: this is no length, or one that cannot be accepted.

        """
        number = self._number(header)
        if not self.inclusive:
            length = number
        elif number == 0:
            return 0  # Amex polls with a plain zero
        else:
            length = number - self.size
        if not 0 <= length <= self.max_body:
            raise FramingError(f"length {number} is out of bounds")
        return length

    def _number(self, header: bytes) -> int:
        match self.encoding:
            case LengthEncoding.BINARY:
                return int.from_bytes(header)
            case LengthEncoding.BCD:
                digits = header.hex()
                if digits.isdecimal():
                    return int(digits)
            case LengthEncoding.ASCII:
                # Only digits: int() alone would take "+123" and "1_23" too.
                if header.isdigit():
                    return int(header)
            case LengthEncoding.HEX:
                if _HEX_DIGITS.issuperset(header):
                    return int(header, 16)
        raise FramingError(f"{header.hex(' ')} is no {self.encoding.value} length")


class LengthFramer(Framer):
    """Cuts a stream by its length headers."""

    __slots__ = ("_expected", "_header")

    def __init__(self, header: LengthHeader) -> None:
        super().__init__()
        self._header = header
        self._expected = 0
        """The whole length of the message that is coming; 0: not known yet."""

    @override
    def next_message(self) -> bytes | None:
        available = len(self._buffer) - self._start
        if not self._expected:
            size = self._header.size
            if available < size:
                return None
            header = bytes(self._buffer[self._start : self._start + size])
            self._expected = size + self._header.body_length(header)
        if available < self._expected:
            return None
        message = self.take(self._expected)
        self._expected = 0
        return message

    @override
    def is_keepalive(self, message: bytes) -> bool:
        return len(message) == self._header.size

    @property
    @override
    def may_be_keepalive(self) -> bool:
        return self.buffered < self._header.size


@mypyc_attr(allow_interpreted_subclasses=True)
class LengthPrefixedProtocol(FramedProtocol):
    """Any protocol whose messages stand behind a length header."""

    header: ClassVar[LengthHeader]

    @override
    def framer(self) -> LengthFramer:
        return LengthFramer(self.header)

    @override
    def describe(self, payload: bytes, response: bytes | None) -> str:
        """Name the message types where they can be read, else show bytes."""
        asked = self._describe_message(payload)
        if response is None:
            return asked
        return f"{asked} -> {self._describe_message(response)}"

    def _describe_message(self, message: bytes) -> str:
        """Say `0800, 112 bytes` of a message that begins with its type in ASCII."""
        body = message[self.header.size :]
        kind = body[:4]
        if len(kind) == 4 and kind.isdigit():
            return f"{kind.decode()}, {len(body)} bytes"
        return f"{len(body)} bytes {body[:32].hex(' ')}"


class Iso8583Protocol(LengthPrefixedProtocol):
    """ISO 8583 behind two bytes of binary length, which do not count themselves."""

    name = "iso8583"
    title = "ISO 8583"
    header = LengthHeader(2)


class MpuProtocol(LengthPrefixedProtocol):
    """ISO 8583 as the MPU switch sends it: behind exactly four decimal digits."""

    name = "mpu"
    title = "MPU"
    header = LengthHeader(4, LengthEncoding.ASCII)
