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
    def connection(self) -> bytes:
        """Our Connection field for it, if it needs one (RFC 9112 §9.3)."""
        if not self.keep_alive:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self.http_1_0 else b""


class HttpResponse(NamedTuple):
    """A final response with what preceded it, ready for any client."""

    status: int
    head: bytes
    """Its lines, but for Connection, which is each client's own, and the blank one."""
    body: bytes
    interim: bytes
    """The interim responses, serialised."""

    def __bytes__(self) -> bytes:
        """Write the final response as a client sees it."""
        return b"%b\r\n%b" % (self.head, self.body)

    def serialise(self, connection: bytes) -> bytes:
        """Write the final response with a client's Connection field."""
        return b"%b%b\r\n%b" % (self.head, connection, self.body)


class OutgoingHead(NamedTuple):
    """A head as it goes further, but for the blank line."""

    lines: bytes
    """All of it; or what precedes Content-Length, where the body is framed anew."""
    rest: bytes = b""
    """What stands behind that Content-Length."""
    anew: bool = False

    def with_length(self, length: int) -> bytes:
        """Write it, with the length of its body if that is framed anew."""
        if not self.anew:
            return self.lines
        return b"%bContent-Length: %d\r\n%b" % (self.lines, length, self.rest)


def serialise(start_line: bytes, fields: Iterable[Field]) -> bytes:
    """Write the lines of a head, but for the blank one."""
    return start_line + b"\r\n" + b"".join(b"%b: %b\r\n" % field for field in fields)


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
    )
    start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
    shown = b"" if asker.method == b"HEAD" else body
    return b"%b%b\r\n%b" % (serialise(start, fields), asker.connection, shown)


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
    start_line: bytes,
    fields: Fields,
    version: bytes,
    *without: bytes,
    anew: bool = False,
) -> OutgoingHead:
    """Write what goes further of a head: hop-by-hop fields out, Via in.

    Args:
        start_line: The first line, as it goes further.
        fields: The fields as they came.
        version: The HTTP version that they came with.
        without: More names to leave out.
        anew: The body came without Content-Length and gets one, in the place of
            Transfer-Encoding if there is one.

    """
    dropped = {*_HOP_BY_HOP, *members(fields, b"connection")}
    dropped = {*dropped - {b"host", b"content-length"}, *without}
    passed: Fields = []
    place = None
    for field in fields:
        name = field[0].lower()
        if name not in dropped:
            passed.append(field)
        elif name == b"transfer-encoding" and place is None:
            place = len(passed)
    if place is None:
        place = len(passed)
    passed.append((b"Via", version + b" tcp_multiplexer"))
    if not anew:
        return OutgoingHead(serialise(start_line, passed))
    before, behind = passed[:place], passed[place:]
    rest = b"".join(b"%b: %b\r\n" % field for field in behind)
    return OutgoingHead(serialise(start_line, before), rest, anew=True)


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
