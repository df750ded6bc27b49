r"""Lines: messages that end with a newline, as an echo server speaks them.

A message is everything up to and including `\n`; a `\r` before it is data. What
follows the last newline when a client stops sending is not a message: it is dropped and
reported.
"""

from __future__ import annotations

from typing import override

from .framed import FramedProtocol, Framer, FramingError

MAX_LINE = 64 << 10
"""The longest line in bytes, including its newline."""


class LineFramer(Framer):
    """Splits a stream at its newlines."""

    __slots__ = ("_searched",)

    def __init__(self) -> None:
        super().__init__()
        self._searched = 0
        """How many of the buffered bytes are known not to contain a newline."""

    @override
    def next_message(self) -> bytes | None:
        start = self._start
        end = self._buffer.find(b"\n", start + self._searched, start + MAX_LINE)
        if end < 0:
            self._searched = self.buffered
            if self._searched >= MAX_LINE:
                raise FramingError(f"a line of more than {MAX_LINE} bytes")
            return None
        self._searched = 0
        return self.take(end + 1 - start)


class EchoProtocol(FramedProtocol):
    """Newline-terminated messages."""

    name = "echo"
    title = "Echo"

    @override
    def framer(self) -> LineFramer:
        return LineFramer()

    @override
    def describe(self, payload: bytes, response: bytes | None) -> str:
        """Return the lines themselves, cut to a readable length."""
        asked = _readable(payload)
        return asked if response is None else f"{asked} -> {_readable(response)}"


def _readable(line: bytes) -> str:
    text = line.removesuffix(b"\n").decode(errors="replace")
    return repr(text) if len(text) <= 64 else f"{text[:64]!r}... {len(line)} bytes"
