"""Cutting a stream into HTTP messages: where a head ends, and where its body does.

How a body is framed, the head says, which h11 has parsed. Heads may end their lines
with a bare LF (RFC 9112 §2.2), and those of devices with CRs too many.
"""

from __future__ import annotations

from http import HTTPStatus
import re

from .chunked import ChunkedBody
from .syntax import MessageError

HEAD_LIMIT = 64 << 10
"""The longest head, start line and blank line included; interim heads count too."""

_BLANK_LINES = re.compile(rb"(?:\r?\n)+")
_HEAD_END = re.compile(rb"\n\r?\n")
_TOLERANT_HEAD_END = re.compile(rb"\n\r{0,2}\n")


class Reader:
    """Cuts one direction of a connection into heads and bodies."""

    __slots__ = (
        "_chunked",
        "_fed",
        "_lines",
        "_max_body",
        "_max_lines",
        "_pending",
        "_searched",
        "_tolerant",
    )

    def __init__(self, max_body: int, max_lines: int, *, tolerant: bool) -> None:
        self._max_body = max_body
        self._max_lines = max_lines
        """Of a head; those of interim heads count too. Each costs time to parse."""
        self._tolerant = tolerant
        """The sender is a device, whose small errors are forgiven."""
        self._pending = bytearray()
        """Received, and not yet taken."""
        self._searched = 0
        """So many bytes of it are known not to end a head."""
        self._fed = 0
        """Bytes of the current message that are no longer pending."""
        self._lines = 0
        """Lines of its heads."""
        self._chunked: ChunkedBody | None = None

    @property
    def buffered(self) -> int:
        """Bytes received that are not yet part of a complete message."""
        return self._fed + len(self._pending)

    @property
    def has_more(self) -> bool:
        """There is more of a body to be read than was read at once."""
        return self._chunked is not None and self._chunked.has_more

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        self._pending += data

    def peek(self, count: int) -> bytes:
        """Show the first bytes of what comes next."""
        return bytes(self._pending[:count])

    def take_all(self) -> bytes:
        """Remove everything that is pending and return it."""
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def drop(self) -> None:
        """Forget everything."""
        self._pending.clear()
        self._chunked = None
        self._fed = self._searched = self._lines = 0

    def skip_blank_lines(self) -> None:
        """Remove empty lines before a message."""
        if blank := _BLANK_LINES.match(self._pending):
            del self._pending[: blank.end()]
            self._searched = 0

    def take_head(self) -> bytes | None:
        """Remove the next head, blank line included, and return it, once it is there.

        Raises:
            MessageError: it is longer than `HEAD_LIMIT`, or has too many lines.

        """
        pending = self._pending
        head_end = _TOLERANT_HEAD_END if self._tolerant else _HEAD_END
        found = head_end.search(pending, max(0, self._searched - 3))
        self._searched = found.end() if found else len(pending)
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if self._fed + self._searched > HEAD_LIMIT:
            if b"\n" not in pending[:HEAD_LIMIT]:
                raise MessageError(HTTPStatus.URI_TOO_LONG, "request line too long")
            raise MessageError(status, f"head longer than {HEAD_LIMIT} bytes")
        if not found:
            return None
        head = bytes(pending[: self._searched])
        del pending[: self._searched]
        self._searched = 0
        self._fed += len(head)
        self._lines += head.count(b"\n")
        if self._lines > self._max_lines:
            raise MessageError(status, f"head of more than {self._max_lines} lines")
        return head

    def check_length(self, length: int) -> None:
        """Judge a body by its length, as far as that is known.

        Raises:
            MessageError: it is longer than allowed.

        """
        if length > self._max_body:
            status = HTTPStatus.CONTENT_TOO_LARGE
            raise MessageError(status, f"body longer than {self._max_body} bytes")

    def check_pending(self) -> None:
        """Judge a body that ends with the connection, as far as it is there.

        Raises:
            MessageError: it is longer than allowed.

        """
        self.check_length(len(self._pending))

    def take_body(self, length: int, *, chunked: bool) -> bytes | None:
        """Remove a body and return it, once it is there.

        Args:
            length: Its length, where it is not chunked.
            chunked: It is in the chunked transfer coding.

        Raises:
            MessageError: it is longer than allowed, or its framing is invalid.

        """
        pending = self._pending
        if chunked:
            if self._chunked is None:
                self._chunked = ChunkedBody(self._max_body, tolerant=self._tolerant)
            before = len(pending)
            body = self._chunked.read(pending)
            self._fed += before - len(pending)
        else:
            body = bytes(pending[:length]) if len(pending) >= length else None
            if body:
                del pending[:length]
        if body is not None:
            self._chunked = None
            self._fed = self._lines = 0
        return body
