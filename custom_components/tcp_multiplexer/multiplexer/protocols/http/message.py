"""HTTP messages: parsed, judged, and written for the other side.

The strategy: h11 parses the head that `Reader` has found, and what is to go further is
written out from h11's raw fields. So the parser is one that the world has tested, while
every field keeps its case and its place, and what leaves here is framed by us alone: by
a Content-Length, or not at all.

Heads may end their lines with a bare LF (RFC 9112 §2.2) and fold them (§5.2), both as
h11 reads it; neither leaves here. A request that could be read in two ways is an error,
and so is one with control characters: h11 takes some of them, and of a field value that
is white space up to one that it does not take, it takes seconds to say so. What devices
get wrong, `tidy` puts right before h11 sees it.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
import re
from typing import NamedTuple, cast

import h11

from .syntax import CONTROL, MessageError
from .tidy import tidy

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
_PERSONAL = frozenset((b"authorization", b"cookie", b"proxy-authorization"))
"""What the answer to a TRACE leaves out (RFC 9110 §9.3.8)."""
_NO_BODY = frozenset((HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED))
_MAX_MEMBERS = 100
"""Of Connection, Upgrade or Expect."""
_MAX_FORWARDS = 999_999_999
"""The most that we pass on, as RFC 9110 §7.6.2 allows."""

_TRANSFER_ENCODING = re.compile(
    rb"^transfer-encoding:(.*)$", re.MULTILINE | re.IGNORECASE
)
_HOST = rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]++|%[0-9A-Fa-f]{2})++)"
"""RFC 3986: a name or an address; never with user information (RFC 9110 §4.2.4)."""
_HOST_FIELD = re.compile(rb"(?:%s)?(?::[0-9]*)?" % _HOST)
_ABSOLUTE_FORM = re.compile(
    rb"http://(%s(?::[0-9]*)?)([/?][^#]*)?" % _HOST, re.IGNORECASE
)


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
        return _serialise(start, [*self.fields, *connection], self.body)


def _serialise(start_line: bytes, fields: Iterable[Field], body: bytes = b"") -> bytes:
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
    return _serialise(start, fields, b"" if asker.method == b"HEAD" else body)


def _members(fields: Iterable[Field], name: bytes) -> set[bytes]:
    """Return the members of a comma-separated field, in small letters.

    Raises:
        MessageError: there are too many, each of which costs time.

    """
    values = [value.lower() for raw, value in fields if raw.lower() == name]
    if not values:
        return set()
    members = b",".join(values).split(b",", _MAX_MEMBERS)
    if len(members) > _MAX_MEMBERS:
        reason = f"a list of more than {_MAX_MEMBERS} members"
        raise MessageError(HTTPStatus.BAD_REQUEST, reason)
    return {member.strip() for member in members} - {b""}


def _passed_on(
    fields: Fields, version: bytes, length: int | None, *without: bytes
) -> Fields:
    """Give the fields that go further: hop-by-hop ones out, Via in.

    Args:
        fields: The fields as they came.
        version: The HTTP version that they came with.
        length: The body's, where it came without Content-Length; it is told in the
            place of Transfer-Encoding if there is one.
        without: More names to leave out.

    """
    dropped = {*_HOP_BY_HOP, *_members(fields, b"connection")}
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


class RequestHead(NamedTuple):
    """A request whose body may still be on its way."""

    asker: Asker
    target: bytes
    fields: Fields
    """As they came, but for Host and Max-Forwards."""
    version: bytes
    length: int
    """The body's, as far as Content-Length says it."""
    chunked: bool
    must_continue: bool
    """The client holds its body back until it reads 100 (Continue)."""
    answer: bytes | None
    """Our own answer, where the request goes no further."""

    def payload(self, body: bytes) -> bytes:
        """Write the request for the device."""
        length = len(body) if self.chunked else None
        fields = _passed_on(self.fields, self.version, length, b"expect")
        start = b"%s %s HTTP/1.1" % (self.asker.method, self.target)
        return _serialise(start, fields, body)


def _next_event(connection: h11.Connection) -> object:
    """Ask h11, without the bytes of a client in the error's text.

    Raises:
        MessageError: what arrived is no HTTP.

    """
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as err:
        reason = str(err).partition(":")[0]
        raise MessageError(err.error_status_hint, reason) from err


def read_request_head(raw: bytes, authority: bytes) -> RequestHead:
    """Parse and judge the head of a request.

    Raises:
        MessageError: the request is refused.

    """
    if CONTROL.search(raw):
        reason = "a control character, or a bare CR"
        raise MessageError(HTTPStatus.BAD_REQUEST, reason)
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    try:
        request = cast(h11.Request, _next_event(connection))
    except MessageError as err:
        if err.status == HTTPStatus.NOT_IMPLEMENTED:
            raise _coding_error(raw) from err
        raise
    http_1_0 = request.http_version == b"1.0"
    names = {name for name, _ in request.headers}
    _refuse_other_protocols(request, upgrade=b"upgrade" in names and not http_1_0)
    chunked = b"transfer-encoding" in names
    if chunked and (http_1_0 or b"content-length" in names):
        reason = "Transfer-Encoding with Content-Length, or in HTTP/1.0"
        raise MessageError(HTTPStatus.BAD_REQUEST, reason)
    target, fields = _address(request, authority)
    expected = _members(fields, b"expect")
    if expected - {b"100-continue"}:
        reason = "Expect may only be 100-continue"
        raise MessageError(HTTPStatus.EXPECTATION_FAILED, reason)

    asker = Asker(request.method, http_1_0, _persists(fields, http_1_0=http_1_0))
    length = _content_length(request) or 0
    answer = None
    if request.method in {b"OPTIONS", b"TRACE"}:
        fields, last = _count_forwards(fields)
        answer = _last_answer(asker, request) if last else None
    return RequestHead(
        asker=asker,
        target=target,
        fields=fields,
        version=request.http_version,
        length=length,
        chunked=chunked,
        must_continue=bool(expected) and (chunked or length > 0) and not http_1_0,
        answer=answer,
    )


def _persists(fields: Fields, *, http_1_0: bool) -> bool:
    """Tell whether its sender wants the connection to go on (RFC 9112 §9.3)."""
    options = _members(fields, b"connection")
    return b"close" not in options and (not http_1_0 or b"keep-alive" in options)


def _content_length(message: h11.Request | h11.Response) -> int | None:
    """Give Content-Length; h11 has checked it and made one of equal ones."""
    for name, value in message.headers:
        if name == b"content-length":
            return int(value)
    return None


def _coding_error(raw: bytes) -> MessageError:
    """Say what is wrong about a Transfer-Encoding that is not just chunked."""
    value = b",".join(_TRANSFER_ENCODING.findall(raw)).lower()
    codings = [coding.strip() for coding in value.split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        # nobody can tell where the body ends (RFC 9112 §6.3)
        reason = "Transfer-Encoding must end in chunked, once"
        return MessageError(HTTPStatus.BAD_REQUEST, reason)
    reason = "the only Transfer-Encoding understood here is chunked"
    return MessageError(HTTPStatus.NOT_IMPLEMENTED, reason)


def _refuse_other_protocols(request: h11.Request, *, upgrade: bool) -> None:
    """Refuse what cannot be answered in HTTP/1.

    An offer to upgrade may be left unanswered (RFC 9110 §7.8), and h2c is merely
    offered. WebSocket is meant: its client has no use for another answer.

    Raises:
        MessageError: the request is refused.

    """
    if not request.http_version.startswith(b"1."):
        status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        raise MessageError(status, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    upgrade = upgrade and any(
        offered.partition(b"/")[0] == b"websocket"
        for offered in _members(request.headers, b"upgrade")
    )
    if request.method == b"CONNECT" or upgrade:
        what = "WebSocket" if upgrade else "CONNECT"
        reason = f"a connection that many share cannot be given to one: no {what}"
        raise MessageError(HTTPStatus.NOT_IMPLEMENTED, reason)


def _address(request: h11.Request, authority: bytes) -> tuple[bytes, Fields]:
    """Give the target in the device's form, and the fields with the Host to it.

    Raises:
        MessageError: the target or Host is invalid (RFC 9112 §3.2).

    """
    fields = request.headers.raw_items()
    hosts = [value for name, value in request.headers if name == b"host"]
    # h11 takes one at most, and misses it in 1.1, but not in a later version
    if not all(map(_HOST_FIELD.fullmatch, hosts)):
        raise MessageError(HTTPStatus.BAD_REQUEST, "invalid Host")
    if not hosts and request.http_version != b"1.0":
        raise MessageError(HTTPStatus.BAD_REQUEST, "missing Host")
    target, to_server = request.target, request.method == b"OPTIONS"
    if absolute := _ABSOLUTE_FORM.fullmatch(target):
        authority, target = absolute[1], absolute[2] or (b"*" if to_server else b"/")
        if target.startswith(b"?"):
            target = b"/" + target
        fields = [
            (name, authority if name.lower() == b"host" else value)
            for name, value in fields
        ]
    elif not target.startswith(b"/") and not (target == b"*" and to_server):
        raise MessageError(HTTPStatus.BAD_REQUEST, "invalid request target")
    return target, fields if hosts else [(b"Host", authority), *fields]


def _count_forwards(fields: Fields) -> tuple[Fields, bool]:
    """Count Max-Forwards down; tell whether the request ends here."""
    counted, last = [], False
    for name, value in fields:
        forwards = value
        if name.lower() == b"max-forwards" and value.isdigit():
            # int() would refuse a very long number
            left = int(value) if len(value) < 10 else _MAX_FORWARDS + 1
            last = last or left == 0
            forwards = b"%d" % (left - 1)
        counted.append((name, forwards))
    return counted, last


def _last_answer(asker: Asker, request: h11.Request) -> bytes:
    """Answer OPTIONS or TRACE as the last recipient (RFC 9110 §7.6.2, §9.3.8)."""
    if request.method == b"OPTIONS":
        body = b"This is tcp_multiplexer; the device behind it was not asked.\n"
        return own_response(asker, HTTPStatus.OK, body)
    fields = request.headers.raw_items()
    shown = [field for field in fields if field[0].lower() not in _PERSONAL]
    start = b"TRACE %s HTTP/%s" % (request.target, request.http_version)
    body = _serialise(start, shown)
    return own_response(asker, HTTPStatus.OK, body, content_type=b"message/http")


class ResponseHead(NamedTuple):
    """A final response whose body may still be on its way."""

    status: int
    reason: bytes
    fields: Fields
    """As they came, but for a length that means nothing."""
    version: bytes
    length: int
    """The body's, as far as Content-Length says it."""
    chunked: bool
    """The body is in the chunked transfer coding."""
    until_close: bool
    """The body ends with the connection."""
    reusable: bool
    """The connection may carry another request."""

    def response(self, interim: bytes, body: bytes) -> HttpResponse:
        """Make the response for the client."""
        anew = self.chunked or self.until_close  # framed as it cannot go further
        length = len(body) if anew else None
        fields = _passed_on(self.fields, self.version, length)
        return HttpResponse(self.status, self.reason, fields, body, interim)


def _parse_response(
    raw: bytes, *, to_head: bool
) -> h11.InformationalResponse | h11.Response:
    """Have h11 parse a head.

    Raises:
        MessageError: it is invalid.

    """
    connection = h11.Connection(h11.CLIENT)
    # All that h11 has to know is whether this is a HEAD.
    method = b"HEAD" if to_head else b"GET"
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"")]))
    connection.receive_data(raw)
    return cast(h11.InformationalResponse | h11.Response, _next_event(connection))


def _parse_any_response(
    raw: bytes, *, to_head: bool
) -> h11.InformationalResponse | h11.Response:
    """Parse a head as it is, or put right what its device got wrong.

    Raises:
        MessageError: it is invalid, and nobody can say what is meant.

    """
    if not CONTROL.search(raw):
        with suppress(MessageError):
            response = _parse_response(raw, to_head=to_head)
            if response.http_version.startswith(b"1."):
                return response
    return _parse_response(tidy(raw, to_head=to_head), to_head=to_head)


def read_response_head(raw: bytes, *, to_head: bool) -> ResponseHead | bytes:
    """Parse a head and find out how its body is framed (RFC 9112 §6.3).

    Of an interim response, returns what the client should see of it.

    Raises:
        MessageError: it cannot be passed on.

    """
    response = _parse_any_response(raw, to_head=to_head)
    if isinstance(response, h11.InformationalResponse):
        return _interim(response)
    status = response.status_code
    fields = response.headers.raw_items()
    http_1_0 = response.http_version == b"1.0"
    chunked = any(name == b"transfer-encoding" for name, _ in response.headers)
    length = _content_length(response)
    has_body = not to_head and status not in _NO_BODY
    until_close = has_body and not chunked and length is None
    # RFC 9112 §6.1: what sends such a message may have more of it to send.
    faulty = chunked and (http_1_0 or length is not None)
    if chunked or status == HTTPStatus.NO_CONTENT:
        # The length is wrong, or has no place here (RFC 9112 §6.3, RFC 9110 §8.6).
        fields = [field for field in fields if field[0].lower() != b"content-length"]
    return ResponseHead(
        status=status,
        reason=response.reason,
        fields=fields,
        version=response.http_version,
        length=length or 0 if has_body and not chunked else 0,
        chunked=has_body and chunked,
        until_close=until_close,
        reusable=_persists(fields, http_1_0=http_1_0)
        and not until_close
        and not faulty,
    )


def _interim(response: h11.InformationalResponse) -> bytes:
    """Write an interim response; 100 (Continue) was an answer to us alone."""
    if response.status_code == HTTPStatus.CONTINUE:
        return b""
    fields = response.headers.raw_items()
    fields = _passed_on(fields, response.http_version, None, b"content-length")
    start = b"HTTP/1.1 %d %s" % (response.status_code, response.reason)
    return _serialise(start, fields)
