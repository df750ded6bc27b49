"""Bodies in the chunked transfer coding (RFC 9112 §7.1).

h11 could read them, but it says how long a chunk is only once its data is there, and
reads at once all that it has. Here a chunk that is too long is refused before its data
comes, and no more is read at once than others can wait for.

A client's coding must be exactly the standard's. A device may end its lines with a bare
LF, and its extensions and trailer fields may contain what they like: they go no
further, and where the body ends is the same for every reader.
"""

from __future__ import annotations

from http import HTTPStatus
import re

from .syntax import TEXT, TOKEN, MessageError

_LINE_LIMIT = 4 << 10
"""The longest line with a chunk's size, extensions included."""
_TRAILER_LIMIT = 16 << 10
"""The longest trailer section."""
_LINE_ALLOWANCE = 16
_EXCESS_LIMIT = 16 << 10
"""Bytes that the framing may have beyond `_LINE_ALLOWANCE` for each chunk and twice its
data, as in Go's net/http: it bounds extensions, and leaves chunks of one byte alone."""
_STEPS_AT_ONCE = 64
"""Lines and pieces of data that are read at once, two for each chunk: what a request
costs."""


class _Grammar:
    """What the framing of a body may look like."""

    def __init__(self, line: bytes, ends: tuple[bytes, ...], fields: bytes) -> None:
        self.line = re.compile(rb"([0-9A-Fa-f]{1,16})" + line)
        """The line before a chunk's data."""
        self.ends = ends
        """The line ends that may follow it."""
        self.trailers = re.compile(rb"\n(?:%s)*\r?\n" % fields)
        """What follows the last chunk's line, from the end of that."""


_STRICT = _Grammar(
    rb"(?:[ \t]*|;%s)\r\n" % TEXT,
    (b"\r\n",),
    rb"%s:%s\r?\n(?:[ \t]%s\r?\n)*" % (TOKEN, TEXT, TEXT),
)
_TOLERANT = _Grammar(
    rb"[ \t]*(?:\r?|;[^\n]*)\n", (b"\r\n", b"\n"), rb"[^:\0\n]*:[^\0\n]*\n"
)
_TRAILERS_END = re.compile(rb"\n\r?\n")


class ChunkedBody:
    """One body, as far as it has come."""

    __slots__ = (
        "_body",
        "_excess",
        "_grammar",
        "_last",
        "_left",
        "_max_body",
        "has_more",
    )

    def __init__(self, max_body: int, *, tolerant: bool) -> None:
        self.has_more = False
        """There is more to be read than was read at once."""
        self._max_body = max_body
        self._grammar = _TOLERANT if tolerant else _STRICT
        self._body = bytearray()
        self._left: int | None = None
        """Bytes still to come of a chunk's data. None: its line is next."""
        self._last = False
        """The line of the last chunk was there; trailer fields may follow."""
        self._excess = 0

    def read(self, pending: bytearray) -> bytes | None:
        """Remove from `pending` what belongs to the body; return that once it is whole.

        Raises:
            MessageError: it is longer than allowed, or its framing is invalid.

        """
        at, before = 0, -1
        for _ in range(_STEPS_AT_ONCE):
            if self._last or at == before:
                break
            before = at
            take = self._take_line if self._left is None else self._take_data
            at = take(pending, at)
        self.has_more = not self._last and at != before
        end = self._find_end(pending, at) if self._last else None
        del pending[: end or at]
        return bytes(self._body) if end else None

    def _take_line(self, pending: bytearray, at: int) -> int:
        """Read the line before a chunk's data; return where it ends."""
        end = pending.find(b"\n", at, at + _LINE_LIMIT) + 1
        if not end:
            _check_length(len(pending) - at, _LINE_LIMIT)
            return at
        line = self._grammar.line.fullmatch(pending, at, end)
        if line is None:
            raise MessageError(HTTPStatus.BAD_REQUEST, "invalid chunk size")
        size = int(line[1], 16)
        if size > self._max_body - len(self._body):
            reason = f"body longer than {self._max_body} bytes"
            raise MessageError(HTTPStatus.CONTENT_TOO_LARGE, reason)
        excess = self._excess + end - at - _LINE_ALLOWANCE - 2 * size
        if excess > _EXCESS_LIMIT:
            reason = "chunk extensions longer than the body"
            raise MessageError(HTTPStatus.CONTENT_TOO_LARGE, reason)
        self._excess = max(0, excess)
        if size:
            self._left = size
            return end
        self._last = True
        return end - 1

    def _take_data(self, pending: bytearray, at: int) -> int:
        """Read a chunk's data and the line end behind it, as far as they are there."""
        if left := self._left:
            data = pending[at : at + left]
            self._body += data
            self._left = left - len(data)
            at += len(data)
            if self._left:
                return at
        for end in self._grammar.ends:
            if pending.startswith(end, at):
                self._left = None
                return at + len(end)
        if bytes(pending[at : at + 2]) not in {b"", b"\r"}:
            raise MessageError(HTTPStatus.BAD_REQUEST, "no line end after a chunk")
        return at

    def _find_end(self, pending: bytearray, at: int) -> int | None:
        """Find the end of the trailer section, once it is there."""
        end = _TRAILERS_END.search(pending, at, at + _TRAILER_LIMIT)
        if end is None:
            _check_length(len(pending) - at, _TRAILER_LIMIT)
            return None
        if not self._grammar.trailers.fullmatch(pending, at, end.end()):
            raise MessageError(HTTPStatus.BAD_REQUEST, "invalid trailer fields")
        return end.end()


def _check_length(length: int, limit: int) -> None:
    if length >= limit:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise MessageError(status, "chunk size or trailer fields too long")
