"""Cutting a stream into HTTP messages: where a head ends, and where its body does.

`Reader` finds where a head ends, by itself; h11, which parsed the head, reads the body.
Heads may end their lines with a bare LF (RFC 9112 §2.2).
"""

from http import HTTPStatus
import re

import h11

HEAD_LIMIT = 64 << 10
"""The longest head, start line and blank line included; interim heads count too."""

_PIECE = 16 << 10
"""What h11 gets of a body at once; what it leaves comes back. It keeps no more than
16 KiB of a chunk's first line or of trailer fields."""

_BLANK_LINES = re.compile(rb"(?:\r?\n)+")
_HEAD_END = re.compile(rb"\n\r?\n")


class MessageError(Exception):
    """What arrived cannot be passed on; a client is told `status` and `reason`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Reader:
    """Cuts one direction of a connection into heads and, through h11, bodies."""

    __slots__ = ("_body", "_fed", "_max_body", "_pending", "_searched")

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._pending = bytearray()
        """Received, and not yet taken or fed to h11."""
        self._searched = 0
        """So many bytes of it are known not to end a head."""
        self._fed = 0
        """Bytes of the current message that are no longer pending."""
        self._body = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes received that are not yet part of a complete message."""
        return self._fed + len(self._pending)

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        self._pending += data

    def peek(self, count: int) -> bytes:
        """Show the first bytes of what comes next."""
        return bytes(self._pending[:count])

    def take_all(self) -> bytes:
        """Remove everything that is pending and give it."""
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def drop(self) -> None:
        """Forget everything."""
        self._pending.clear()
        self._body.clear()
        self._fed = self._searched = 0

    def skip_blank_lines(self) -> None:
        """Remove empty lines before a message."""
        if blank := _BLANK_LINES.match(self._pending):
            del self._pending[: blank.end()]
            self._searched = 0

    def take_head(self) -> bytes | None:
        """Remove the next head, blank line included, and give it, once it is there.

        Raises:
            MessageError: it is longer than `HEAD_LIMIT`.

        """
        pending = self._pending
        found = _HEAD_END.search(pending, max(0, self._searched - 2))
        self._searched = found.end() if found else len(pending)
        if self._fed + self._searched > HEAD_LIMIT:
            if b"\n" not in pending[:HEAD_LIMIT]:
                raise MessageError(HTTPStatus.URI_TOO_LONG, "request line too long")
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise MessageError(status, f"head longer than {HEAD_LIMIT} bytes")
        if not found:
            return None
        head = bytes(pending[: self._searched])
        del pending[: self._searched]
        self._searched = 0
        self._fed += len(head)
        return head

    def check_length(self, length: int) -> None:
        """Judge a body by its Content-Length, before it comes.

        Raises:
            MessageError: it is longer than allowed.

        """
        if length > self._max_body:
            status = HTTPStatus.CONTENT_TOO_LARGE
            raise MessageError(status, f"body longer than {self._max_body} bytes")

    def take_body(self, connection: h11.Connection) -> bytes | None:
        """Give the body that `connection` is about to read, once it is there.

        Raises:
            MessageError: it is longer than allowed, or its framing is invalid.

        """
        while True:
            event = next_event(connection)
            if isinstance(event, h11.Data):
                self._body += event.data
                self.check_length(len(self._body))
            elif isinstance(event, h11.EndOfMessage):
                self._pending[:0] = connection.trailing_data[0]
                self._fed = 0
                body = bytes(self._body)
                self._body = bytearray()
                return body
            elif self._pending:
                piece = self.peek(_PIECE)
                del self._pending[:_PIECE]
                self._fed += len(piece)
                # Chunks of a byte or long chunk extensions: the framing counts too.
                self.check_length(self._fed // 2 - HEAD_LIMIT)
                connection.receive_data(piece)
            else:
                return None


def next_event(connection: h11.Connection) -> object:
    """Ask h11, without the bytes of a client in the error's text.

    Raises:
        MessageError: what arrived is no HTTP.

    """
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as err:
        reason = str(err).partition(":")[0]
        raise MessageError(err.error_status_hint, reason) from err
