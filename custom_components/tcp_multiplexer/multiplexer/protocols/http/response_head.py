"""The heads of responses: parsed, and judged by where their bodies end.

What devices get wrong, `tidy` puts right before h11 sees it.
"""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple, cast

import h11

from .message import (
    HttpResponse,
    OutgoingHead,
    content_length,
    next_event,
    passed_on,
    persists,
)
from .syntax import CONTROL, MessageError
from .tidy import tidy

_NO_BODY = frozenset((HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED))
_PERSONAL = frozenset((b"authentication-info", b"set-cookie", b"www-authenticate"))
# All that h11 has to know of a request is whether it is a HEAD.
_GET, _HEAD = (
    h11.Request(method=method, target=b"/", headers=[(b"Host", b"")])
    for method in (b"GET", b"HEAD")
)


class ResponseHead(NamedTuple):
    """A final response whose body may still be on its way."""

    status: int
    outgoing: OutgoingHead
    """As clients are to see it."""
    length: int
    """The body's, as far as Content-Length says it."""
    chunked: bool
    """The body is in the chunked transfer coding."""
    until_close: bool
    """The body ends with the connection."""
    reusable: bool
    """The connection may carry another request."""
    personal: bool
    """It has secrets, or what is meant for one request."""

    def response(self, interim: bytes, body: bytes) -> HttpResponse:
        """Make the response for the client."""
        head = self.outgoing.with_length(len(body))
        return HttpResponse(self.status, head, body, interim)


def _parse_response(
    raw: bytes, *, to_head: bool
) -> h11.InformationalResponse | h11.Response:
    """Have h11 parse a head.

    Raises:
        MessageError: it is invalid.

    """
    connection = h11.Connection(h11.CLIENT)
    connection.send(_HEAD if to_head else _GET)
    connection.receive_data(raw)
    return cast(h11.InformationalResponse | h11.Response, next_event(connection))


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
    length = content_length(response)
    has_body = not to_head and status not in _NO_BODY
    until_close = has_body and not chunked and length is None
    # RFC 9112 §6.1: what sends such a message may have more of it to send.
    faulty = chunked and (http_1_0 or length is not None)
    if chunked or status == HTTPStatus.NO_CONTENT:
        # The length is wrong, or has no place here (RFC 9112 §6.3, RFC 9110 §8.6).
        fields = [field for field in fields if field[0].lower() != b"content-length"]
    start = b"HTTP/1.1 %d %b" % (status, response.reason)
    anew = until_close or (has_body and chunked)  # framed as it cannot go further
    return ResponseHead(
        status=status,
        outgoing=passed_on(start, fields, response.http_version, anew=anew),
        length=length or 0 if has_body and not chunked else 0,
        chunked=has_body and chunked,
        until_close=until_close,
        reusable=persists(fields, http_1_0=http_1_0) and not until_close and not faulty,
        personal=any(name in _PERSONAL for name, _ in response.headers),
    )


def _interim(response: h11.InformationalResponse) -> bytes:
    """Write an interim response; 100 (Continue) was an answer to us alone."""
    if response.status_code == HTTPStatus.CONTINUE:
        return b""
    fields = response.headers.raw_items()
    start = b"HTTP/1.1 %d %b" % (response.status_code, response.reason)
    head = passed_on(start, fields, response.http_version, b"content-length")
    return head.lines + b"\r\n"
