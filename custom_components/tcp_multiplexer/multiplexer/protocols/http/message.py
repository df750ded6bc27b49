"""HTTP messages: what reading and writing them share, on either side.

The strategy: h11 parses the head that `Reader` has found, and what is to go further is
written out from h11's raw fields. So the parser is one that the world has tested, while
every field keeps its case and its place, and what leaves here is framed by us alone: by
a Content-Length, or not at all.

Heads may end their lines with a bare LF (RFC 9112 §2.2) and fold them (§5.2), both as
h11 reads it; neither leaves here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import h11

from .syntax import MessageError

type Field = tuple[bytes, bytes]
type Fields = list[Field]

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_MAX_MEMBERS = 100
"""Of Connection, Upgrade or Expect."""


class Asker(NamedTuple):
    """How a client wants its response: the `context` of its request."""

    method: bytes
    http_1_0: bool
    """It speaks HTTP/1.0: no interim responses, and persistence must be said."""
    keep_alive: bool

    @property
    def connection(self) -> Fields:
        """Our Connection field for it, if it needs one (RFC 9112 §9.3)."""
        if not self.keep_alive:
            return [(b"Connection", b"close")]
        return [(b"Connection", b"keep-alive")] if self.http_1_0 else []


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A final response with what preceded it, ready for any client."""

    status: int
    reason: bytes
    fields: Fields
    """All but Connection, which is each client's own."""
    body: bytes
    interim: bytes
    """The interim responses, serialised."""

    def __bytes__(self) -> bytes:
        """Write the final response as a client sees it."""
        return self.serialise([])

    def serialise(self, connection: Fields) -> bytes:
        """Write the final response with a client's Connection field."""
        start = b"HTTP/1.1 %d %s" % (self.status, self.reason)
        return serialise(start, [*self.fields, *connection], self.body)


def serialise(start_line: bytes, fields: Iterable[Field], body: bytes = b"") -> bytes:
    """Write one message."""
    lines = (start_line, *(b"%s: %s" % field for field in fields), b"", body)
    return b"\r\n".join(lines)


def own_response(
    asker: Asker,
    status: int,
    body: bytes,
    *extra: Field,
    content_type: bytes = b"text/plain; charset=utf-8",
) -> bytes:
    """Write a response of our own, for a person to read."""
    fields = (
        (b"Content-Type", content_type),
        (b"Content-Length", b"%d" % len(body)),
        *extra,
        *asker.connection,
    )
    start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
    return serialise(start, fields, b"" if asker.method == b"HEAD" else body)


def members(fields: Iterable[Field], name: bytes) -> set[bytes]:
    """Return the members of a comma-separated field, in small letters.

    Raises:
        MessageError: there are too many, each of which costs time.

    """
    values = [value.lower() for raw, value in fields if raw.lower() == name]
    if not values:
        return set()
    found = b",".join(values).split(b",", _MAX_MEMBERS)
    if len(found) > _MAX_MEMBERS:
        reason = f"a list of more than {_MAX_MEMBERS} members"
        raise MessageError(HTTPStatus.BAD_REQUEST, reason)
    return {member.strip() for member in found} - {b""}


def passed_on(
    fields: Fields, version: bytes, length: int | None, *without: bytes
) -> Fields:
    """Return the fields that go further: hop-by-hop ones out, Via in.

    Args:
        fields: The fields as they came.
        version: The HTTP version that they came with.
        length: The body's, where it came without Content-Length; it is told in the
            place of Transfer-Encoding if there is one.
        without: More names to leave out.

    """
    dropped = {*_HOP_BY_HOP, *members(fields, b"connection")}
    dropped = {*dropped - {b"host", b"content-length"}, *without}
    framing = [] if length is None else [(b"Content-Length", b"%d" % length)]
    passed: Fields = []
    for field in fields:
        name = field[0].lower()
        if name not in dropped:
            passed.append(field)
        elif name == b"transfer-encoding" and framing:
            passed.append(framing.pop())
    return [*passed, *framing, (b"Via", version + b" tcp_multiplexer")]


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


def persists(fields: Fields, *, http_1_0: bool) -> bool:
    """Return whether its sender wants the connection to go on (RFC 9112 §9.3)."""
    options = members(fields, b"connection")
    return b"close" not in options and (not http_1_0 or b"keep-alive" in options)


def content_length(message: h11.Request | h11.Response) -> int | None:
    """Return Content-Length; h11 has checked it and made one of equal ones."""
    for name, value in message.headers:
        if name == b"content-length":
            return int(value)
    return None
