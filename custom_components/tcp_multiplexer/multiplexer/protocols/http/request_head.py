"""The heads of requests: parsed, judged, and written for the device.

A request that could be read in two ways is an error. So is one with control characters:
h11 takes some of them, and where white space precedes one that it does not take, it
takes seconds to say so.
"""

from __future__ import annotations

from http import HTTPStatus
import re
from typing import NamedTuple, cast

import h11

from .message import (
    Asker,
    Fields,
    OutgoingHead,
    content_length,
    members,
    next_event,
    own_response,
    passed_on,
    persists,
    serialise,
)
from .syntax import CONTROL, MessageError

_PERSONAL = frozenset((b"authorization", b"cookie", b"proxy-authorization"))
"""What the answer to a TRACE leaves out (RFC 9110 §9.3.8)."""
_IMPERSONAL = frozenset(
    (
        b"accept",
        b"accept-charset",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"connection",
        b"content-type",
        b"host",
        b"keep-alive",
        b"pragma",
        b"user-agent",
    )
)
"""Fields without secrets, as far as programs send them that poll. Others may have some:
there are names for keys and tokens that nobody knows."""
_RETRY_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
PLAIN_GET = re.compile(rb"GET /[!-~]{0,2000} HTTP/1\.1\r\n")
"""A request line that neither changes what the fields mean nor leaves here otherwise:
with any target like this, h11 and what is below come to the same end."""
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


class KnownGet(NamedTuple):
    """What the fields behind a `PLAIN_GET` come to."""

    asker: Asker
    rest: bytes
    """What the device is to see behind the request line."""


class RequestHead(NamedTuple):
    """A request whose body may still be on its way."""

    asker: Asker
    outgoing: OutgoingHead
    """As the device is to see it."""
    length: int
    """The body's, as far as Content-Length says it."""
    chunked: bool
    must_continue: bool
    """The client holds its body back until it reads 100 (Continue)."""
    answer: bytes | None
    """Our own answer, where the request goes no further."""
    retry_safe: bool
    plain: bool
    """It begins with a `PLAIN_GET`, and that and its fields are all there is to it:
    neither secrets nor a body."""

    def known(self, start: int) -> KnownGet:
        """Return what follows its request line of `start` bytes, if it is `plain`."""
        return KnownGet(self.asker, self.outgoing.lines[start:] + b"\r\n")

    def payload(self, body: bytes) -> bytes:
        """Write the request for the device."""
        return b"%b\r\n%b" % (self.outgoing.with_length(len(body)), body)


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
        request = cast(h11.Request, next_event(connection))
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
    expected = members(fields, b"expect")
    if expected - {b"100-continue"}:
        reason = "Expect may only be 100-continue"
        raise MessageError(HTTPStatus.EXPECTATION_FAILED, reason)

    asker = Asker(request.method, http_1_0, persists(fields, http_1_0=http_1_0))
    length = content_length(request) or 0
    answer = None
    if request.method in {b"OPTIONS", b"TRACE"}:
        fields, last = _count_forwards(fields)
        answer = _last_answer(asker, request) if last else None
    start = b"%b %b HTTP/1.1" % (request.method, target)
    outgoing = passed_on(start, fields, request.http_version, b"expect", anew=chunked)
    return RequestHead(
        asker=asker,
        outgoing=outgoing,
        length=length,
        chunked=chunked,
        must_continue=bool(expected) and (chunked or length > 0) and not http_1_0,
        answer=answer,
        retry_safe=request.method in _RETRY_SAFE,
        plain=names <= _IMPERSONAL and PLAIN_GET.match(raw) is not None,
    )


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
        for offered in members(request.headers, b"upgrade")
    )
    if request.method == b"CONNECT" or upgrade:
        what = "WebSocket" if upgrade else "CONNECT"
        reason = f"a connection that many share cannot be given to one: no {what}"
        raise MessageError(HTTPStatus.NOT_IMPLEMENTED, reason)


def _address(request: h11.Request, authority: bytes) -> tuple[bytes, Fields]:
    """Return the target in the device's form, and the fields with the Host to it.

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
    body = serialise(start, shown) + b"\r\n"
    return own_response(asker, HTTPStatus.OK, body, content_type=b"message/http")
