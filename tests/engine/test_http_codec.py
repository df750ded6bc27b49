"""The HTTP gateway, byte by byte: what passes, what is refused, what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
import itertools
import re
import time

import h11
from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    DownstreamEvent,
    Failed,
    Failure,
    Progress,
    Reply,
    Request,
    Unsolicited,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.chunked import (
    ChunkedBody,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.gateway import (
    HttpProtocol,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.known_heads import (
    HEADS,
    LONGEST,
    KnownHeads,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.message import (
    HttpResponse,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.reader import (
    HEAD_LIMIT,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.syntax import (
    CONTROL,
    MessageError,
)

from .streams import fed, options, payloads, pieces, received

MAX_BODY = 2000
VIA = b"Via: 1.1 tcp_multiplexer\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CONTINUE = Reply(b"HTTP/1.1 100 Continue\r\n\r\n")


def gateway(host: str = "192.0.2.7", port: int = 80) -> HttpProtocol:
    return HttpProtocol(options(host=host, port=port, max_body=MAX_BODY))


def events_of(raw: bytes) -> list[DownstreamEvent]:
    return received(gateway().downstream(), raw)


def request_of(raw: bytes) -> Request:
    """Give the one request that `raw` is."""
    (request,) = events_of(raw)
    assert isinstance(request, Request)
    return request


def sent(raw: bytes) -> bytes:
    """Give what the device sees of the request `raw`, our Via taken off."""
    head, _, body = request_of(raw).payload.partition(b"\r\n\r\n")
    assert (head + b"\r\n").endswith(VIA)
    return head[: 2 - len(VIA)] + b"\r\n" + body


def refusal(events: list[DownstreamEvent], method: str = "GET") -> int:
    """Give the status with which `events` refuse a `method`, having read nothing."""
    (close,) = events
    assert isinstance(close, Close)
    response = parsed(close.data, method)
    assert (b"connection", b"close") in response.headers
    assert bool(response.body) is (method != "HEAD")
    assert close.reason.startswith(str(response.status))
    return response.status


def own(head: h11.Request | h11.Response) -> list[tuple[bytes, bytes]]:
    """Give the fields that no gateway has anything to do with."""
    return [field for field in head.headers.raw_items() if field[0].startswith(b"X-")]


class Parsed:
    """A response as h11, a client, reads it."""

    def __init__(self, head: h11.Response, body: bytes) -> None:
        self.status = head.status_code
        self.headers = list(head.headers)
        self.own = own(head)
        self.body = body


def parsed(raw: bytes, method: str) -> Parsed:
    """Read `raw`, which must be exactly one final response to a `method`."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    head = client.next_event()
    while isinstance(head, h11.InformationalResponse):
        head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    return Parsed(head, body)


def upstream_events(
    raw: bytes, asked: bytes = GET
) -> list[UpstreamEvent[HttpResponse]]:
    codec = gateway().upstream()
    codec.send(request_of(asked))
    return codec.feed(raw)


def answer_to(raw: bytes, asked: bytes = GET) -> bytes:
    """Give what the client of `asked` gets when the device responds `raw`, no Via."""
    downstream = gateway().downstream()
    (request,) = received(downstream, asked)
    assert isinstance(request, Request)
    codec = gateway().upstream()
    codec.send(request)
    events = codec.feed(raw) or codec.eof()
    (answer,) = events
    assert isinstance(answer, Answer)
    assert answer.request is request
    return downstream.reply(request, answer.response).replace(VIA, b"")


def failure_of(events: list[UpstreamEvent[HttpResponse]]) -> str:
    """Give the reason for which a response was not passed on."""
    failed, close = events
    assert isinstance(failed, Failed)
    assert failed.failure is Failure.INVALID_RESPONSE
    assert isinstance(close, Close)
    return failed.reason


# ---- requests that pass -----------------------------------------------------------


def test_fields_keep_their_order_case_and_bytes() -> None:
    raw = (
        b"GET /a?b=%20&c HTTP/1.1\r\nx-lower: 1\r\nHost: Device.local:80\r\n"
        b"X-UPPER: a , b\r\nCookie: k=v\r\nCookie: k2=v2\r\nX-Obs: \xe9\xff\r\n"
        b"X-Empty: \r\nAuthorization: Basic eA==\r\nProxy-Authorization: x\r\n\r\n"
    )
    assert sent(raw) == raw


def test_via_is_added_to_what_others_added() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred\r\n\r\n"
    assert request_of(raw).payload == raw[:-2] + VIA + b"\r\n"


def test_via_names_the_version_that_was_received() -> None:
    raw = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
    assert request_of(raw).payload == (
        b"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 tcp_multiplexer\r\n\r\n"
    )


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: close\r\n",
        b"connection: Keep-Alive, TE\r\n",
        b"Keep-Alive: timeout=5\r\n",
        b"Proxy-Connection: keep-alive\r\n",
        b"TE: trailers\r\n",
        b"Trailer: X-Sum\r\n",
        b"Connection: X-Hop\r\nX-Hop: 1\r\n",
        b"x-hop: 1\r\nConnection: close\r\nX-HOP: 2\r\nConnection: keep-alive,X-hop\r\n",
        b"Connection: Via\r\nVia: 1.1 somebody\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\nUpgrade: h2c\r\n",
        b"Upgrade: h2c\r\nHTTP2-Settings: AAM\r\n",
        b"Upgrade: TLS/1.3, IRC/6.9\r\nConnection: upgrade\r\n",
    ],
)
def test_hop_by_hop_fields_stay_behind(field: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n%sX-Other: 1\r\n\r\n"
    assert sent(raw % field) == raw % b""


def test_connection_cannot_take_host_or_length_away() -> None:
    fields = b"Host: a\r\nContent-Length: 1\r\n"
    raw = b"POST / HTTP/1.1\r\nConnection: host, Content-Length\r\n" + fields + b"\r\nx"
    assert sent(raw) == b"POST / HTTP/1.1\r\n" + fields + b"\r\nx"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"Content-Length: 3\r\n\r\nabc", None, id="length"),
        pytest.param(b"content-length: 0\r\n\r\n", None, id="length 0"),
        pytest.param(b"\r\n", None, id="no body"),
        pytest.param(
            b"Content-Length: 3, 3\r\nX: 1\r\ncontent-length: 3\r\n\r\nabc",
            b"Content-Length: 3\r\nX: 1\r\n\r\nabc",
            id="the same length repeated",
        ),
        pytest.param(
            b"transfer-encoding: Chunked\r\nX: 1\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            b"Content-Length: 3\r\nX: 1\r\n\r\nabc",
            id="chunked",
        ),
        pytest.param(
            CHUNKED + b"\r\n0\r\n\r\n",
            b"Content-Length: 0\r\n\r\n",
            id="chunked, empty",
        ),
        pytest.param(
            CHUNKED + b'\r\n3;a=b;c="\\"d"\r\nabc\r\n000;x\r\n\r\n',
            b"Content-Length: 3\r\n\r\nabc",
            id="chunk extensions",
        ),
        pytest.param(
            CHUNKED + b"Trailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: b\r\n"
            b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"Content-Length: 3\r\n\r\nabc",
            id="trailers",
        ),
    ],
)
def test_body_passes_whole_with_its_length(raw: bytes, expected: bytes | None) -> None:
    """And the request behind it is not mistaken for a part of it."""
    start = b"PUT / HTTP/1.1\r\nHost: a\r\n"
    first, second = payloads(events_of(start + raw + GET))
    head, _, body = (start + (expected or raw)).partition(b"\r\n\r\n")
    assert first == head + b"\r\n" + VIA + b"\r\n" + body
    assert second == GET[:-2] + VIA + b"\r\n"


@pytest.mark.parametrize(
    ("asked", "target", "host"),
    [
        (b"GET http://dev/x?y HTTP/1.1", b"GET /x?y", b"dev"),
        (b"GET HTTP://Dev:8080/ HTTP/1.1", b"GET /", b"Dev:8080"),
        (b"GET http://dev HTTP/1.1", b"GET /", b"dev"),
        (b"GET http://dev?y HTTP/1.1", b"GET /?y", b"dev"),
        (b"GET http://[fe80::1]:80/ HTTP/1.1", b"GET /", b"[fe80::1]:80"),
        (b"OPTIONS http://dev HTTP/1.1", b"OPTIONS *", b"dev"),
        (b"OPTIONS http://dev/ HTTP/1.1", b"OPTIONS /", b"dev"),
        (b"OPTIONS http://dev?y HTTP/1.1", b"OPTIONS /?y", b"dev"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS *", b"a"),
        (b"GET //x HTTP/1.1", b"GET //x", b"a"),
    ],
)
def test_target_and_host_reach_the_device_in_its_form(
    asked: bytes, target: bytes, host: bytes
) -> None:
    raw = asked + b"\r\nX: 1\r\nhost: a\r\n\r\n"
    assert sent(raw) == target + b" HTTP/1.1\r\nX: 1\r\nhost: " + host + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("host", "port", "named"),
    [
        ("192.0.2.7", 80, b"192.0.2.7"),
        ("inverter.local", 8080, b"inverter.local:8080"),
        ("fe80::1%eth0", 80, b"[fe80::1]"),
        ("2001:db8::1", 81, b"[2001:db8::1]:81"),
        ("wärmepumpe.local", 80, b""),
    ],
)
def test_http_1_0_request_without_host_gets_the_devices(
    host: str, port: int, named: bytes
) -> None:
    codec = gateway(host, port).downstream()
    (request,) = payloads(received(codec, b"GET / HTTP/1.0\r\nX: 1\r\n\r\n"))
    assert request.startswith(b"GET / HTTP/1.1\r\nHost: %s\r\nX: 1\r\n" % named)


def test_http_1_0_request_for_a_url_gets_the_urls_host() -> None:
    raw = b"GET http://b/ HTTP/1.0\r\nX: 1\r\n\r\n"
    assert request_of(raw).payload.startswith(b"GET / HTTP/1.1\r\nHost: b\r\nX: 1\r\n")


def test_later_minor_version_is_taken_for_1_1() -> None:
    assert b"\r\nVia: 1.9 tcp" in request_of(GET.replace(b"1.1", b"1.9")).payload


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b"\r\n\r\n\n\r\n"])
def test_empty_lines_before_a_request_are_ignored(blank: bytes) -> None:
    codec = gateway().downstream()
    assert len(payloads(received(codec, blank + GET + blank + GET + blank))) == 2
    assert codec.buffered == 0
    assert codec.eof() is None


def test_bare_line_feeds_and_folded_lines_leave_as_they_should_be() -> None:
    raw = b"GET / HTTP/1.1\nHost: a\nX: 1,\n\t 2\r\n\n"
    assert sent(raw) == b"GET / HTTP/1.1\r\nHost: a\r\nX: 1, 2\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "safe"),
    [
        ("GET", True),
        ("HEAD", True),
        ("OPTIONS", True),
        ("TRACE", False),
        ("PUT", False),
        ("DELETE", False),
        ("POST", False),
        ("get", False),
        ("BREW", False),
    ],
)
def test_only_safe_methods_may_be_sent_twice(method: str, safe: bool) -> None:
    raw = GET.replace(b"GET", method.encode())
    assert request_of(raw).retry_safe is safe


def test_what_is_lost_is_resent_only_if_the_connection_had_served() -> None:
    assert HttpProtocol.retry_needs_served
    assert gateway().downstream().ordered
    assert not HttpProtocol.correlated


def test_pipelined_requests_come_out_one_by_one_and_in_order() -> None:
    codec = gateway().downstream()
    codec.receive_data(b"".join(GET.replace(b"/", b"/%d" % n, 1) for n in range(50)))
    for n in range(50):
        event = codec.next_event()
        assert isinstance(event, Request)
        assert event.payload.startswith(b"GET /%d " % n)
    assert codec.next_event() is None
    assert codec.buffered == 0


# ---- expectations and Max-Forwards ------------------------------------------------

EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 3\r\n", b"abc"), (CHUNKED, b"3\r\nabc\r\n0\r\n\r\n")],
)
def test_body_is_asked_for_before_it_comes(framing: bytes, body: bytes) -> None:
    codec = gateway().downstream()
    head = EXPECTING + framing + b"\r\n"
    assert received(codec, head) == [CONTINUE]
    assert received(codec, body[:-1]) == []
    (request,) = payloads(received(codec, body[-1:]))
    assert b"Expect" not in request
    assert request.endswith(b"\r\n\r\nabc")


def test_body_is_asked_for_in_its_turn() -> None:
    first, asked, second = events_of(GET + EXPECTING + b"Content-Length: 1\r\n\r\nx")
    assert isinstance(first, Request)
    assert asked == CONTINUE
    assert isinstance(second, Request)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(EXPECTING + b"\r\n", id="no body"),
        pytest.param(EXPECTING + b"Content-Length: 0\r\n\r\n", id="empty body"),
        pytest.param(
            EXPECTING.replace(b"1.1", b"1.0") + b"Content-Length: 1\r\n\r\nx", id="1.0"
        ),
    ],
)
def test_no_body_is_asked_for_where_none_is_held_back(raw: bytes) -> None:
    assert b"Expect" not in request_of(raw).payload


def test_body_is_not_asked_for_if_it_is_too_long() -> None:
    events = events_of(EXPECTING + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1))
    assert refusal(events) == HTTPStatus.CONTENT_TOO_LARGE


@pytest.mark.parametrize("value", [b"200-ok", b"100-continue, x", b"100-continue=1"])
def test_other_expectations_fail(value: bytes) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: %s\r\nContent-Length: 1\r\n\r\n"
    assert refusal(events_of(raw % value)) == HTTPStatus.EXPECTATION_FAILED


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"1", b"0"),
        (b"010", b"9"),
        (b"9" * 9, b"999999998"),
        pytest.param(b"9" * 6000, b"999999999", id="very long number"),
        (b"-1", b"-1"),
        (b"1 1", b"1 1"),
        (b"", b""),
    ],
)
def test_max_forwards_counts_down(method: bytes, before: bytes, after: bytes) -> None:
    raw = method + b" / HTTP/1.1\r\nHost: a\r\nmax-forwards: %s\r\n\r\n"
    assert sent(raw % before) == raw % after


def test_max_forwards_of_other_methods_passes() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"
    assert sent(raw) == raw


def test_last_options_is_answered_here() -> None:
    raw = b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"
    answer, request = events_of(raw + GET)
    assert isinstance(answer, Reply)
    assert parsed(answer.data, "OPTIONS").status == HTTPStatus.OK
    assert isinstance(request, Request)


def test_last_trace_shows_the_request_without_its_secrets() -> None:
    shown = b"TRACE /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nVia: 1.1 b\r\n\r\n"
    secrets = b"\r\nCookie: a\r\nauthorization: b\r\nProxy-Authorization: c\r\n\r\n"
    (answer,) = events_of(shown[:-4] + secrets)
    assert isinstance(answer, Reply)
    response = parsed(answer.data, "TRACE")
    assert (b"content-type", b"message/http") in response.headers
    assert response.body == shown


def test_last_options_of_a_client_that_closes() -> None:
    raw = b"OPTIONS / HTTP/1.0\r\nMax-Forwards: 0\r\nContent-Length: 1\r\n\r\nx"
    (close,) = events_of(raw)
    assert isinstance(close, Close)
    response = parsed(close.data, "OPTIONS")
    assert response.status == HTTPStatus.OK
    assert (b"connection", b"close") in response.headers


# ---- requests that are refused ----------------------------------------------------


def post(*fields: bytes, version: bytes = b"1.1") -> bytes:
    """Write the head of a POST with `fields`."""
    lines = (b"POST / HTTP/" + version, b"Host: a", *fields, b"", b"")
    return b"\r\n".join(lines)


REFUSED = [
    (400, "no Host", b"GET / HTTP/1.1\r\n\r\n"),
    (400, "no Host in a later version", b"GET / HTTP/1.2\r\n\r\n"),
    (400, "two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (400, "two Hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, "Host list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    (400, "Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "Host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    (400, "Host with a wrong port", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    (400, "Host of other letters", b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n"),
    (400, "Host folded", b"GET / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: x\r\n\r\n"),
    (400, "user in target", b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "no host in target", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "no host but a port", b"GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "other scheme", b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "fragment in URL", b"GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "authority as target", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "relative target", b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "asterisk", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "bytes in target", b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "spaces in target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "HTTP/0.9", b"GET /\r\n\r\n"),
    (400, "no version", b"GET / HTTX/1.1\r\nHost: a\r\n\r\n"),
    (400, "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (400, "space first", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "bare CR first", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "folded first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    (400, "no colon", post(b"X")),
    (400, "no name", post(b": x")),
    (400, "NUL", post(b"X: a\0b")),
    (400, "bare CR", post(b"X: a\rb")),
    (400, "bare CR hides a field", post(b"X: a\rTransfer-Encoding: chunked")),
    *(
        (400, f"control character {code:#04x}", post(b"X: a%cb" % code))
        for code in {*range(0x20), 0x7F} - {*b"\t\n"}
    ),
    (400, "control character first", post(b"X: \x01")),
    (400, "control character in a name", post(b"X\x7f: a")),
    (501, "CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    (501, "WebSocket", post(b"Connection: Upgrade", b"Upgrade: websocket")),
    (501, "WebSocket among others", post(b"Upgrade: h2c, WebSocket/13")),
    (501, "other coding", post(b"Transfer-Encoding: gzip, chunked")),
    (501, "other coding before", post(b"Transfer-Encoding: gzip", CHUNKED[:-2])),
    (505, "HTTP/2 by prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (505, "HTTP/2 otherwise", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, "HTTP/0.9 by name", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    (413, "long body", post(b"Content-Length: %d" % (MAX_BODY + 1))),
    (413, "very long body", post(b"Content-Length: " + b"9" * 20)),
]

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
SMUGGLING = [
    (400, "CL.TE", post(b"Content-Length: 6", b"Transfer-Encoding: chunked")),
    (400, "TE.CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 6")),
    (400, "two lengths", post(b"Content-Length: 6", b"Content-Length: 5")),
    (400, "list of lengths", post(b"Content-Length: 6, 5")),
    (400, "length and empty", post(b"Content-Length: 6", b"Content-Length:")),
    (400, "empty length", post(b"Content-Length:")),
    (400, "plus", post(b"Content-Length: +6")),
    (400, "minus", post(b"Content-Length: -1")),
    (400, "minus 0", post(b"Content-Length: -0")),
    (400, "hexadecimal", post(b"Content-Length: 0x6")),
    (400, "underscore", post(b"Content-Length: 1_0")),
    (400, "decimals", post(b"Content-Length: 6.0")),
    (400, "two words", post(b"Content-Length: 6 6")),
    (400, "other digits", post("Content-Length: ٦".encode())),
    (400, "21 digits", post(b"Content-Length: " + b"0" * 20 + b"6")),
    (400, "space before colon", post(b"Content-Length : 6")),
    (400, "TE, space before colon", post(b"Transfer-Encoding : chunked")),
    (400, "TE, tab before colon", post(b"Transfer-Encoding\t: chunked")),
    (400, "TE, vertical tab", post(b"Transfer-Encoding: \x0bchunked")),
    (400, "TE, bare CR", post(b"Transfer-Encoding:\rchunked")),
    (400, "TE, NUL", post(b"Transfer-Encoding: chunked\0")),
    (400, "TE unknown", post(b"Transfer-Encoding: xchunked")),
    (400, "TE quoted", post(b'Transfer-Encoding: "chunked"')),
    (400, "TE identity", post(b"Transfer-Encoding: identity")),
    (400, "TE empty", post(b"Transfer-Encoding:")),
    (400, "TE chunked not last", post(b"Transfer-Encoding: chunked, gzip")),
    (400, "TE chunked twice", post(b"Transfer-Encoding: chunked, chunked")),
    (400, "TE twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x")),
    (400, "TE with parameter", post(b"Transfer-Encoding: chunked;q=1")),
    (400, "TE in 1.0", post(b"Transfer-Encoding: chunked", version=b"1.0")),
    (
        400,
        "TE and CL in 1.0",
        post(b"Content-Length: 6", b"Transfer-Encoding: chunked", version=b"1.0"),
    ),
    (400, "no chunk size", post(CHUNKED[:-2]) + b"\r\n"),
    (400, "chunk size with sign", post(CHUNKED[:-2]) + b"+1\r\nx\r\n0\r\n\r\n"),
    (400, "chunk size with prefix", post(CHUNKED[:-2]) + b"0x1\r\nx\r\n0\r\n\r\n"),
    (400, "chunk size of 17 digits", post(CHUNKED[:-2]) + b"0" * 16 + b"1\r\nx\r\n"),
    (400, "space before chunk size", post(CHUNKED[:-2]) + b" 1\r\nx\r\n"),
    (400, "words behind chunk size", post(CHUNKED[:-2]) + b"1 x\r\nx\r\n"),
    (400, "bare CR in chunk line", post(CHUNKED[:-2]) + b"1;a\rb\r\nx\r\n"),
    (400, "chunk line of two CRs", post(CHUNKED[:-2]) + b"1\r\r\nx\r\n"),
    (400, "chunk longer than said", post(CHUNKED[:-2]) + b"1\r\nxy\r\n0\r\n\r\n"),
    (400, "chunk line of bare LF", post(CHUNKED[:-2]) + b"1\nx\n0\n\n"),
    (400, "chunk ended by bare LF", post(CHUNKED[:-2]) + b"1\r\nx\n0\r\n\r\n"),
    (400, "trailer without colon", post(CHUNKED[:-2]) + b"0\r\nX\r\n\r\n"),
    (400, "trailer with NUL", post(CHUNKED[:-2]) + b"0\r\nX: \0\r\n\r\n"),
    (400, "trailer without name", post(CHUNKED[:-2]) + b"0\r\n: x\r\n\r\n"),
    (400, "trailer folded first", post(CHUNKED[:-2]) + b"0\r\n X: x\r\n\r\n"),
    (413, "endless chunk", post(CHUNKED[:-2]) + b"FFFFFFFF\r\n"),
    (413, "chunk of 16 digits", post(CHUNKED[:-2]) + b"F" * 16 + b"\r\n"),
]


@pytest.mark.parametrize(
    ("status", "raw"),
    [pytest.param(status, raw, id=name) for status, name, raw in REFUSED],
)
def test_request_is_refused_and_its_client_closed(status: int, raw: bytes) -> None:
    assert refusal(events_of(raw)) == status


@pytest.mark.parametrize(
    ("status", "raw"),
    [pytest.param(status, raw, id=name) for status, name, raw in SMUGGLING],
)
def test_no_request_is_smuggled(status: int, raw: bytes) -> None:
    """Whatever somebody else would take for its end, nothing passes behind it."""
    codec = gateway().downstream()
    events = received(codec, raw + b"0\r\n\r\n" + SMUGGLED)
    assert refusal(events) == status
    assert received(codec, SMUGGLED) == []
    assert codec.buffered == 0


def test_refused_head_request_gets_no_body() -> None:
    (close,) = events_of(b"HEAD / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n")
    assert isinstance(close, Close)
    assert close.data.endswith(b"\r\n\r\n")
    assert parsed(close.data, "HEAD").status == HTTPStatus.EXPECTATION_FAILED


def test_refusal_does_not_repeat_what_the_client_sent() -> None:
    (close,) = events_of(b"GET /<script> HTTP/1.1\r\nHost: a\r\n<script>\r\n\r\n")
    assert isinstance(close, Close)
    assert b"script" not in close.data
    assert "script" not in close.reason


def test_requests_before_a_refused_one_stand() -> None:
    request, close = events_of(GET + b"GET x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(request, Request)
    assert isinstance(close, Close)


# ---- bounds -----------------------------------------------------------------------


def head_of(size: int, *, in_target: bool = False) -> bytes:
    """Write the head of a request that is `size` bytes long."""
    before, after = b"GET /", b" HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
    filling = b"x" * (size - len(before + after))
    if in_target:
        return before + filling + after
    return before + after[:-4] + filling + after[-4:]


@pytest.mark.parametrize("step", [HEAD_LIMIT * 2, 1000, 7])
def test_head_may_be_as_long_as_the_limit(step: int) -> None:
    head = head_of(HEAD_LIMIT)
    codec = gateway().downstream()
    parts = [head[at : at + step] for at in range(0, len(head), step)]
    (request,) = payloads(event for part in parts for event in received(codec, part))
    assert request == head[:-2] + VIA + b"\r\n"


@pytest.mark.parametrize("step", [HEAD_LIMIT * 2, 1000])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (head_of(HEAD_LIMIT + 1), HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (head_of(HEAD_LIMIT * 2)[:-4], HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (head_of(HEAD_LIMIT * 2, in_target=True), HTTPStatus.URI_TOO_LONG),
        (b"G" * (HEAD_LIMIT + 1), HTTPStatus.URI_TOO_LONG),
    ],
    ids=["a byte more", "unfinished", "target", "method"],
)
def test_longer_head_is_refused(head: bytes, status: int, step: int) -> None:
    codec = gateway().downstream()
    for at in range(0, len(head), step):
        if events := received(codec, head[at : at + step]):
            assert refusal(events) == status
            assert at + step > HEAD_LIMIT
            return
    pytest.fail("the head was taken")


def chunks(body: bytes, size: int) -> bytes:
    """Write `body` in chunks of `size`."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return (
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    )


@pytest.mark.parametrize("size", [1, 100, MAX_BODY + 1])
def test_body_may_be_as_long_as_the_limit(size: int) -> None:
    body = b"x" * MAX_BODY
    whole = post(b"Content-Length: %d" % MAX_BODY) + body
    assert request_of(whole).payload.endswith(b"\r\n\r\n" + body)
    assert request_of(post(CHUNKED[:-2]) + chunks(body, size)).payload.endswith(body)
    events = events_of(post(CHUNKED[:-2]) + chunks(body + b"x", size))
    assert refusal(events) == HTTPStatus.CONTENT_TOO_LARGE


@pytest.mark.parametrize("size", [MAX_BODY + 1, 1 << 40])
def test_chunk_beyond_the_limit_is_refused_before_it_comes(size: int) -> None:
    line = b"%x\r\n" % size
    events = events_of(post(CHUNKED[:-2]) + line)
    assert refusal(events) == HTTPStatus.CONTENT_TOO_LARGE
    assert "longer" in failure_of(upstream_events(OK + CHUNKED + b"\r\n" + line))
    first = chunks(b"x", 1)[:-5]
    assert events_of(post(CHUNKED[:-2]) + first + b"%x\r\n" % (MAX_BODY - 1)) == []
    events = events_of(post(CHUNKED[:-2]) + first + b"%x\r\n" % MAX_BODY)
    assert refusal(events) == HTTPStatus.CONTENT_TOO_LARGE


def test_chunk_extensions_are_bounded() -> None:
    codec = gateway().downstream()
    assert received(codec, post(CHUNKED[:-2])) == []
    chunk = b"1;%s\r\nx\r\n" % (b"y" * 4_000)
    for _ in range(4):
        assert received(codec, chunk) == []
    assert refusal(received(codec, chunk)) == HTTPStatus.CONTENT_TOO_LARGE


def test_long_body_in_chunks_of_a_byte_passes() -> None:
    body = b"x" * 100_000
    codec = HttpProtocol(options(max_body=len(body))).downstream()
    (request,) = payloads(received(codec, post(CHUNKED[:-2]) + chunks(body, 1)))
    assert request.endswith(b"\r\n\r\n" + body)


def test_only_so_many_chunks_are_read_at_once() -> None:
    """The engine can turn to other clients in between."""
    codec = gateway().downstream()
    stream = post(CHUNKED[:-2]) + chunks(b"x" * MAX_BODY, 1)
    codec.receive_data(stream)
    left = []
    while isinstance(event := codec.next_event(), Progress):
        left.append(codec.buffered)
    assert isinstance(event, Request)
    assert len(left) >= MAX_BODY // 50
    assert left[-1] == len(stream)
    assert codec.buffered == 0


@pytest.mark.parametrize(
    "endless",
    [
        b"1;" + b"x" * 5_000,
        b"0" * 5_000,
        b"1" + b" " * 5_000,
        b"0\r\nX: " + b"x" * 20_000,
    ],
)
@pytest.mark.parametrize("step", [20_000, 999])
def test_chunk_line_and_trailers_are_bounded(endless: bytes, step: int) -> None:
    downstream, upstream = gateway().downstream(), gateway().upstream()
    upstream.send(request_of(GET))
    assert received(downstream, post(CHUNKED[:-2])) == []
    assert upstream.feed(OK + CHUNKED + b"\r\n") == []
    parts = [endless[at : at + step] for at in range(0, len(endless), step)]
    events = [event for part in parts for event in received(downstream, part)]
    assert refusal(events) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    for part in parts:
        if failed := upstream.feed(part):
            assert "too long" in failure_of(failed)
            return
    pytest.fail("the line was taken")


@pytest.mark.parametrize("line", [b"a:\n", b"a: b\r\n"])
def test_lines_of_a_head_are_bounded(line: bytes) -> None:
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n"
    assert request_of(start + line * 125 + end)
    for more in (line * 126, b"X:\r\n" + b" \r\n" * 125, line * 10_000):
        events = events_of(start + more + end)
        assert refusal(events) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    length = b"Content-Length: 0\r\n"
    assert answer_to(OK + line * 1021 + length + end)
    assert "lines" in failure_of(upstream_events(OK + line * 1022 + length + end))


@pytest.mark.parametrize("name", [b"Connection", b"Upgrade", b"Expect"])
def test_members_of_a_list_are_bounded(name: bytes) -> None:
    status = HTTPStatus.EXPECTATION_FAILED if name == b"Expect" else None
    for members in (b",".join([b"a"] * 100), b",".join([b"a"] * 50) + b"," * 50):
        events = events_of(GET[:-2] + name + b": " + members + b"\r\n\r\n")
        assert (refusal(events) if status else None) == status
    for values in ([b"," * 100], [b",".join([b"a"] * 99), b"a,"], [b"," * 50_000]):
        lines = b"".join(name + b": " + value + b"\r\n" for value in values)
        assert refusal(events_of(GET[:-2] + lines + b"\r\n")) == HTTPStatus.BAD_REQUEST
        if name == b"Connection":
            failure_of(upstream_events(OK + lines + b"Content-Length: 0\r\n\r\n"))


@pytest.mark.parametrize("bad", [b"\0", b"\x0b", b"\r\r"])
def test_white_space_before_a_bad_character_costs_no_time(bad: bytes) -> None:
    """A pattern that tries every way of parting it takes seconds."""
    line = b"X:" + b" \t" * 30_000 + bad + b"x\r\n"
    started = time.process_time()
    assert refusal(events_of(GET[:-2] + line + b"\r\n")) == HTTPStatus.BAD_REQUEST
    upstream_events(OK + line + b"Content-Length: 0\r\n\r\n")
    assert time.process_time() - started < 0.5


def test_buffered_counts_what_is_received_and_not_given() -> None:
    codec = gateway().downstream()
    head = post(b"Content-Length: 5")
    assert received(codec, head) == []
    assert codec.buffered == len(head)
    assert received(codec, b"abcd") == []
    assert codec.buffered == len(head) + 4
    codec.receive_data(b"e" + GET + GET)
    assert isinstance(codec.next_event(), Request)
    assert codec.buffered == 2 * len(GET)
    assert isinstance(codec.next_event(), Request)
    assert codec.buffered == len(GET)
    assert isinstance(codec.next_event(), Request)
    assert codec.buffered == 0


def test_unfinished_request_at_the_end_is_told() -> None:
    for raw in (GET[:-1], post(b"Content-Length: 2") + b"x"):
        codec = gateway().downstream()
        assert received(codec, raw) == []
        assert codec.eof() is not None
    codec = gateway().downstream()
    assert received(codec, GET) != []
    assert codec.eof() is None


def test_body_in_many_pieces_costs_its_length() -> None:
    """Copying what is there for every piece would cost its square."""
    size = 4 << 20
    protocol = HttpProtocol(options(max_body=size))
    raw = post(b"Content-Length: %d" % size) + bytes(size)
    response = raw.replace(b"POST / HTTP/1.1", b"HTTP/1.1 200 OK", 1)
    downstream, upstream = protocol.downstream(), protocol.upstream()
    upstream.send(request_of(GET))
    events: list[object] = []
    started = time.process_time()
    for at in range(0, len(raw), 64):
        events += received(downstream, raw[at : at + 64])
        events += upstream.feed(response[at : at + 64])
    assert len(events) == 2
    assert time.process_time() - started < 8


# ---- whether the client's connection persists -------------------------------------


@pytest.mark.parametrize(
    ("version", "connection", "persists", "told"),
    [
        (b"1.1", b"", True, None),
        (b"1.1", b"Connection: keep-alive\r\n", True, None),
        (b"1.1", b"Connection: close\r\n", False, b"close"),
        (b"1.1", b"Connection: x\r\nConnection: y , CLOSE\r\n", False, b"close"),
        (b"1.1", b"Connection: keep-alive, close\r\n", False, b"close"),
        (b"1.1", b"Connection: closed\r\n", True, None),
        (b"1.0", b"", False, b"close"),
        (b"1.0", b"Connection: Keep-Alive\r\n", True, b"keep-alive"),
        (b"1.0", b"Connection: keep-alive, close\r\n", False, b"close"),
        (b"1.0", b"Proxy-Connection: keep-alive\r\n", False, b"close"),
    ],
)
@pytest.mark.parametrize("failure", [None, Failure.BUSY])
def test_persistence_is_between_the_client_and_us(
    version: bytes,
    connection: bytes,
    persists: bool,
    told: bytes | None,
    failure: Failure | None,
) -> None:
    raw = b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + connection + b"\r\n"
    downstream = gateway().downstream()
    events = received(downstream, raw + raw)
    assert len(events) == (2 if persists else 1)
    assert downstream.buffered == 0
    request = events[0]
    assert isinstance(request, Request)
    upstream = gateway().upstream()
    assert b"onnection" not in upstream.send(request)
    (answer,) = upstream.feed(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    assert isinstance(answer, Answer)
    if failure is None:
        reply = downstream.reply(request, answer.response)
    else:
        reply = downstream.refuse(request, failure) or b""
    assert dict(parsed(reply, "GET").headers).get(b"connection") == told
    assert downstream.must_close is not persists


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Failure.NO_CONNECTION, 502),
        (Failure.CONNECTION_LOST, 502),
        (Failure.INVALID_RESPONSE, 502),
        (Failure.NO_RESPONSE, 504),
        (Failure.BUSY, 503),
        (Failure.PAUSED, 503),
        (Failure.REFUSED, 403),
        (Failure.TOO_LARGE, 413),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_client_is_told_why_there_is_no_response(
    method: str, failure: Failure, status: int
) -> None:
    codec = gateway().downstream()
    (request,) = received(codec, GET.replace(b"GET", method.encode()))
    assert isinstance(request, Request)
    refused = codec.refuse(request, failure)
    assert refused is not None
    response = parsed(refused, method)
    headers = dict(response.headers)
    assert response.status == status
    assert headers[b"content-type"].startswith(b"text/plain")
    assert (b"retry-after" in headers) is (failure is Failure.BUSY)
    assert not codec.must_close
    if method == "HEAD":
        assert response.body == b""
    else:
        assert response.body.count(b".") + response.body.count(b"?") >= 1
        assert len(response.body) == int(headers[b"content-length"])


def test_every_failure_has_words() -> None:
    codec = gateway().downstream()
    for failure in Failure:
        assert codec.refuse(request_of(GET), failure)


# ---- responses --------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


def test_response_keeps_its_line_fields_and_body() -> None:
    raw = (
        b"HTTP/1.1 299 Not so \xe9 OK\r\ndate: x\r\nSERVER: y\r\nSet-Cookie: a=b\r\n"
        b"content-length: 3\r\nset-cookie: c=d\r\nX-Empty: \r\n\r\nabc"
    )
    (answer,) = upstream_events(raw)
    assert isinstance(answer, Answer)
    assert bytes(answer.response) == raw.replace(
        b"\r\n\r\nabc", b"\r\n" + VIA + b"\r\nabc"
    )


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: keep-alive\r\n",
        b"Keep-Alive: timeout=5\r\n",
        b"Proxy-Connection: close\r\n",
        b"Trailer: x\r\n",
        b"Upgrade: h2c\r\n",
        b"Connection: close, X-Hop\r\nX-Hop: 1\r\n",
    ],
)
def test_hop_by_hop_fields_of_responses_stay_behind(field: bytes) -> None:
    raw = OK + b"%sContent-Length: 1\r\nX-Other: 1\r\n\r\nx"
    assert answer_to(raw % field) == raw % b""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(
            b"transfer-encoding: chunked\r\nX: 1\r\n\r\n3;a\r\nabc\r\n0\r\n\r\n",
            b"Content-Length: 3\r\nX: 1\r\n\r\nabc",
            id="chunked",
        ),
        pytest.param(
            CHUNKED + b"\r\n0\r\nX-Sum: 1\r\nX: 2\r\n\r\n",
            b"Content-Length: 0\r\n\r\n",
            id="trailers",
        ),
        pytest.param(
            b"Content-Length: 3,3\r\nContent-Length: 3\r\n\r\nabc",
            b"Content-Length: 3\r\n\r\nabc",
            id="the same length repeated",
        ),
        pytest.param(
            b"Content-Length: 9\r\n" + CHUNKED + b"\r\n1\r\nx\r\n0\r\n\r\n",
            b"Content-Length: 1\r\n\r\nx",
            id="both framings",
        ),
        pytest.param(
            b"X: 1\r\n\r\nabc",
            b"X: 1\r\nContent-Length: 3\r\n\r\nabc",
            id="until close",
        ),
        pytest.param(b"\r\n", b"Content-Length: 0\r\n\r\n", id="nothing until close"),
        pytest.param(
            b"X \t: 1\r\nContent-Length : 1\r\nY: a :b\r\n\r\nx",
            b"X: 1\r\nContent-Length: 1\r\nY: a :b\r\n\r\nx",
            id="space before colon",
        ),
        pytest.param(
            b"X: 1\r\n  2\r\nContent-Length: 0\r\n\r\n",
            b"X: 1 2\r\nContent-Length: 0\r\n\r\n",
            id="folded line",
        ),
    ],
)
def test_response_is_framed_anew(raw: bytes, expected: bytes) -> None:
    assert answer_to(OK + raw) == OK + expected


@pytest.mark.parametrize(
    ("method", "raw", "expected"),
    [
        (b"HEAD", OK + b"Content-Length: 5\r\n\r\n", None),
        (b"HEAD", OK + b"X: 1\r\n\r\n", None),
        (b"HEAD", OK + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), None),
        (b"HEAD", OK + CHUNKED + b"\r\n", OK + b"\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", None),
        (
            b"GET",
            b"HTTP/1.1 304 Not Modified\r\n" + CHUNKED + b"\r\n",
            b"HTTP/1.1 304 Not Modified\r\n\r\n",
        ),
        (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (
            b"DELETE",
            b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ],
)
def test_response_without_a_body_ends_with_its_head(
    method: bytes, raw: bytes, expected: bytes | None
) -> None:
    assert answer_to(raw, GET.replace(b"GET", method)) == (expected or raw)


def test_responses_follow_one_another_on_a_connection() -> None:
    codec = gateway().upstream()
    for method, raw in (
        (b"HEAD", OK + b"Content-Length: 5\r\n\r\n"),
        (b"GET", OK + b"Content-Length: 5\r\n\r\nabcde"),
        (b"GET", OK + CHUNKED + b"\r\n1\r\nx\r\n0\r\nX: y\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (b"PUT", b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", OK + b"Content-Length: 0\r\n\r\n"),
    ):
        request = request_of(GET.replace(b"GET", method))
        assert codec.send(request) == request.payload
        (answer,) = codec.feed(raw)
        assert isinstance(answer, Answer)
        assert answer.request is request
        assert answer.response.interim.startswith(b"HTTP/1.1 103 ") is (
            method == b"PUT"
        )
        assert codec.reusable


INTERIM = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: 1\r\n\r\n"
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\n"
)


def test_interim_responses_precede_the_final_one() -> None:
    final = OK + b"Content-Length: 1\r\n\r\nx"
    shown = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    )
    assert answer_to(INTERIM + final) == shown + final


def test_http_1_0_client_gets_no_interim_responses() -> None:
    asked = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
    reply = answer_to(INTERIM + OK + CHUNKED + b"\r\n1\r\nx\r\n0\r\n\r\n", asked)
    assert reply == OK + b"Content-Length: 1\r\nConnection: close\r\n\r\nx"


def test_interim_response_is_not_the_answer() -> None:
    codec = gateway().upstream()
    request = request_of(GET)
    codec.send(request)
    assert codec.feed(INTERIM) == []
    assert codec.begun(request)
    (answer,) = codec.feed(OK + b"Content-Length: 0\r\n\r\n")
    assert isinstance(answer, Answer)


@pytest.mark.parametrize(
    ("raw", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", True),
        (
            b"HTTP/1.1 200 OK\r\nConnection: X, Close\r\nContent-Length: 1\r\n\r\nx",
            False,
        ),
        (b"HTTP/1.1 304 OK\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
        (
            b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx",
            True,
        ),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n1\r\nx\r\n0\r\n\r\n", True),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
            False,
        ),
        (
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
            + CHUNKED
            + b"\r\n1\r\nx\r\n0\r\n\r\n",
            False,
        ),
    ],
)
def test_device_says_whether_its_connection_goes_on(raw: bytes, reusable: bool) -> None:
    codec = gateway().upstream()
    codec.send(request_of(GET))
    (answer,) = codec.feed(raw)
    assert isinstance(answer, Answer)
    assert codec.reusable is reusable


def test_response_may_end_with_the_connection() -> None:
    codec = gateway().upstream()
    codec.send(request_of(GET))
    assert codec.feed(OK + b"\r\nabc") == []
    assert codec.feed(b"HTTP/1.1 404 not the next one\r\n\r\n") == []
    (answer,) = codec.eof()
    assert isinstance(answer, Answer)
    assert answer.response.body == b"abcHTTP/1.1 404 not the next one\r\n\r\n"
    assert not codec.reusable
    assert codec.eof() == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        OK + b"Content-Length: 2\r\n\r\nx",
        OK + CHUNKED + b"\r\n1\r\nx\r\n",
        OK + CHUNKED + b"\r\n1\r\nx\r\n0\r\n",
        INTERIM,
    ],
)
def test_response_cut_short_is_none(raw: bytes) -> None:
    codec = gateway().upstream()
    codec.send(request_of(GET))
    assert codec.feed(raw) == []
    assert codec.eof() == []
    assert not codec.reusable


INVALID = {
    "garbage": b"x",
    "other protocol": b"ICY 200 OK\r\n",
    "empty line first": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/3": b"HTTP/3 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/3.0, interim": b"HTTP/3.0 100 Continue\r\n\r\n",
    "HTTP/1": b"HTTP/1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "no colon": OK + b"X\r\n\r\n",
    "no colon, but behind it": OK + b"X\r\n : a\r\n\r\n",
    "NUL": OK + b"X: a\0\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 a\0b\r\n\r\n",
    "folded first field": OK + b" X: a\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "odd length": OK + b"Content-Length: 1x\r\n\r\n",
    "signed length": OK + b"Content-Length: +1\r\n\r\nx",
    "length and empty": OK + b"Content-Length: 1,\r\n\r\nx",
    "length, control character": OK + b"Content-Length: 1\x01\r\n\r\nx",
    "length, bare CR": OK + b"Content-Length: 1\r2\r\n\r\nx",
    "length's name": OK + b"Content-Length\x0b: 1\r\n\r\nx",
    "length behind a bare CR": OK + b"X: a\rContent-Length: 1\r\n\r\nx",
    "length behind LF, CR": OK + b"X: a\n\rContent-Length: 1\r\n\r\nx",
    "coding's name": OK + b"[Transfer-Encoding]: chunked\r\n\r\n",
    "coding, control character": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "chunked and more": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked with parameter": OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n",
    "other coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunk size": OK + CHUNKED + b"\r\nx\r\n",
    "chunk size, words": OK + CHUNKED + b"\r\n1 x\r\nx\r\n",
    "chunk size, prefix": OK + CHUNKED + b"\r\n0x1\r\nx\r\n",
    "chunk end": OK + CHUNKED + b"\r\n1\r\nxx\r\n",
    "trailer": OK + CHUNKED + b"\r\n0\r\nX\r\n\r\n",
    "trailer, NUL": OK + CHUNKED + b"\r\n0\r\nX: \0\r\n\r\n",
    "long, by length": OK + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1),
    "long, chunked": OK + CHUNKED + b"\r\n" + chunks(b"x" * (MAX_BODY + 1), 100),
    "long, until close": OK + b"\r\n" + b"x" * (MAX_BODY + 1),
    "long head": OK + b"X: " + b"x" * HEAD_LIMIT,
    "long interim heads": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000,
}


LENGTH_2 = b"Content-Length: 2\r\n"
SLOPPY: dict[str, tuple[bytes, bytes]] = {
    **{
        f"status line {line!r}": (line + b"\r\n" + LENGTH_2 + b"\r\nok", reason)
        for line, reason in {
            b"HTTP/1.1 200": b"",
            b"HTTP/1.1 200OK": b"OK",
            b"HTTP/1.1  200  OK ": b"OK",
            b"HTTP/1.1 200\tOK": b"OK",
            b"HTTP/1.1\t200 OK": b"OK",
            b"HTTP/1.1 200-OK": b"-OK",
            b"HTTP/1.1 200 a\x0bb\x1b[": b"a b [",
            b"HTTP/1.1 200 a\rb": b"a b",
            b"http/1.1 200 OK": b"OK",
            b"HTTP/2 200": b"",
            b"HTTP/2.0 200 OK": b"OK",
        }.items()
    },
}
"""Responses with a reason phrase, and the reason as it is passed on."""

SLOPPY_FIELDS = {
    "space in a name": (b"A B: x\r\nX: 1\r\n" + LENGTH_2, b"X: 1\r\n" + LENGTH_2),
    "no name": (b": x\r\n" + LENGTH_2, LENGTH_2),
    "odd names": (b"X(1): x\r\n\xc4: x\r\n<a>:\r\n" + LENGTH_2, LENGTH_2),
    "odd name, folded": (b"A B: x\r\n y\r\n\tz\r\n" + LENGTH_2, LENGTH_2),
    "control characters": (
        b"X: a\x01\x7fb\x0c\r\nY: a\rb\r\n" + LENGTH_2,
        b"X: a  b\r\nY: a b\r\n" + LENGTH_2,
    ),
    "CRs too many": (b"X: 1\r\r\n" + LENGTH_2[:-1] + b"\r\n\r", b"X: 1\r\n" + LENGTH_2),
    "bare LFs": (b"X: 1\nA B: 2\nContent-Length: 2\n", b"X: 1\r\n" + LENGTH_2),
    "folded": (b"A B:\r\nX:\r\n 1\r\n \r\n" + LENGTH_2, b"X: 1\r\n" + LENGTH_2),
    "spaces": (b"A B:\r\nContent-Length \t : \t2\t\r\n", LENGTH_2),
    "length twice": (b"A B:\r\n" + LENGTH_2 + b"content-length:2,2\r\n", LENGTH_2),
    "identity": (b"Transfer-Encoding: Identity\r\n" + LENGTH_2, LENGTH_2),
    "identity until close": (b"Transfer-Encoding: identity\r\n", LENGTH_2),
    "no coding": (b"Transfer-Encoding: ,\r\n" + LENGTH_2, LENGTH_2),
}


@pytest.mark.parametrize(("raw", "reason"), SLOPPY.values(), ids=SLOPPY)
def test_sloppy_status_line_is_put_right(raw: bytes, reason: bytes) -> None:
    expected = b"HTTP/1.1 200 " + reason + b"\r\n" + LENGTH_2 + b"\r\nok"
    assert answer_to(raw).replace(b"Via: 1.0 tcp_multiplexer\r\n", b"") == expected


@pytest.mark.parametrize(("raw", "fields"), SLOPPY_FIELDS.values(), ids=SLOPPY_FIELDS)
def test_sloppy_fields_are_put_right(raw: bytes, fields: bytes) -> None:
    assert answer_to(OK + raw + b"\r\nok") == OK + fields + b"\r\nok"
    # and of an interim response nothing wrong is shown either
    interim = b"HTTP/1.1 103 E\r\n" + raw + b"\r\n"
    shown = b"".join(
        line + b"\r\n"
        for line in fields.split(b"\r\n")
        if line and b"Length" not in line
    )
    final = OK + LENGTH_2 + b"\r\nok"
    assert answer_to(interim + final) == b"HTTP/1.1 103 E\r\n%s\r\n" % shown + final


@pytest.mark.parametrize(
    "fields",
    [
        CHUNKED * 2,
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: identity\r\n" + CHUNKED,
        b"Transfer-Encoding: , Chunked ,identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"A B: x\r\nTransfer-Encoding:\r\n chunked\r\n",
        LENGTH_2 + CHUNKED + b"A B: x\r\n" + CHUNKED,
    ],
)
def test_chunked_means_chunked_once(fields: bytes) -> None:
    raw = OK + fields + b"\r\n" + chunks(b"ok", 1)
    assert answer_to(raw) == OK + LENGTH_2 + b"\r\nok"


@pytest.mark.parametrize(
    "body",
    [
        b"2\nok\n0\n\n",
        b"2\r\nok\n0\r\n\n",
        b"2 \t\r\nok\r\n0 \r\n\r\n",
        b'02 ; a\r\nok\r\n000 ;b="\x01\r"\r\n\r\n',
        b"2\r\nok\r\n0\r\nA B: \x01\nX: y\r\n\r\n",
    ],
)
def test_sloppy_chunks_are_understood(body: bytes) -> None:
    assert answer_to(OK + CHUNKED + b"\r\n" + body) == OK + LENGTH_2 + b"\r\nok"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: x\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"Content-Length:\r\n",
        b"Transfer-Encoding: gzip\r\n",
    ],
)
def test_wrong_length_of_no_body_is_left_out(method: bytes, fields: bytes) -> None:
    status = b"200 OK" if method == b"HEAD" else b"304 Not Modified"
    raw = b"HTTP/1.1 " + status + b"\r\n%sETag: x\r\n\r\n"
    asked = GET.replace(b"GET", method)
    assert answer_to(raw % fields, asked) == raw % b""
    failure_of(upstream_events(OK + fields + b"\r\n"))


def test_connection_of_another_version_is_not_used_again() -> None:
    """Whether it persists, its device has not said in any words that we know."""
    for version in (b"HTTP/2", b"http/1.1"):
        codec = gateway().upstream()
        codec.send(request_of(GET))
        (answer,) = codec.feed(version + b" 200 OK\r\n" + LENGTH_2 + b"\r\nok")
        assert isinstance(answer, Answer)
        assert not codec.reusable


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID)
def test_invalid_response_fails_and_closes(raw: bytes) -> None:
    codec = gateway().upstream()
    codec.send(request_of(GET))
    reason = failure_of(codec.feed(raw))
    assert reason
    assert not codec.reusable


def test_longest_body_passes_whatever_its_framing() -> None:
    body = b"x" * MAX_BODY
    for raw in (
        OK + b"Content-Length: %d\r\n\r\n" % MAX_BODY + body,
        OK + CHUNKED + b"\r\n" + chunks(body, 1),
        OK + b"\r\n" + body,
    ):
        assert answer_to(raw).endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("unasked", [b"x", b"\r\n", OK + b"Content-Length: 0\r\n\r\n"])
def test_what_nobody_asked_for_is_stray_and_closes(unasked: bytes) -> None:
    codec = gateway().upstream()
    stray, close = codec.feed(unasked)
    assert isinstance(stray, Unsolicited)
    assert stray.data == unasked
    assert isinstance(close, Close)
    assert not codec.reusable

    answer, stray, close = upstream_events(OK + b"Content-Length: 1\r\n\r\nx" + unasked)
    assert isinstance(answer, Answer)
    assert answer.response.body == b"x"
    assert isinstance(stray, Unsolicited)
    assert stray.data == unasked
    assert isinstance(close, Close)


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", OK + b"Content-Length: 4\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n"),
    ],
)
def test_body_where_none_may_be_is_unsolicited(method: bytes, head: bytes) -> None:
    """Or it would begin the next client's response."""
    asked = GET.replace(b"GET", method)
    answer, stray, close = upstream_events(head + b"body", asked)
    assert isinstance(answer, Answer)
    assert isinstance(stray, Unsolicited)
    assert isinstance(close, Close)


def test_expired_request_gives_the_connection_up() -> None:
    codec = gateway().upstream()
    request = request_of(GET)
    codec.send(request)
    assert codec.expire(request) is False
    assert not codec.reusable
    stray, close = codec.feed(OK + b"Content-Length: 0\r\n\r\n")
    assert isinstance(stray, Unsolicited)
    assert isinstance(close, Close)


def test_response_has_begun_with_its_first_byte() -> None:
    codec = gateway().upstream()
    request, other = request_of(GET), request_of(GET)
    codec.send(request)
    assert not codec.begun(request)
    codec.feed(b"H")
    assert codec.begun(request)
    assert not codec.begun(other)
    codec.feed(OK[1:] + b"Content-Length: 0\r\n\r\n")
    codec.send(other)
    assert not codec.begun(other)


# ---- heads that come again --------------------------------------------------------

POLLED = (
    b"GET /a HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nConnection: TE\r\n"
    b"Content-Type: x\r\n\r\n"
)
TOLD = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 10\r\nConnection: y\r\nY: 1\r\n"
    b"\r\n0123456789"
)


def knowing() -> HttpProtocol:
    """Make a protocol that has read `POLLED` and `TOLD` before."""
    protocol = gateway()
    assert taken(protocol, POLLED) == taken(protocol, POLLED)
    assert told(protocol, TOLD) == told(protocol, TOLD)
    return protocol


def taken(protocol: HttpProtocol, raw: bytes) -> list[object]:
    """Give what a new client's bytes come to, and whether it may go on."""
    codec = protocol.downstream()
    events = received(codec, raw)
    if not events or not isinstance(events[-1], Close):
        events += received(codec, GET)
    return [
        (event.payload, event.context, event.retry_safe)
        if isinstance(event, Request)
        else event
        for event in events
    ]


def told(protocol: HttpProtocol, raw: bytes, asked: bytes = GET) -> list[object]:
    """Give what a device's bytes come to, and whether its connection may go on."""
    codec = protocol.upstream()
    codec.send(request_of(asked))
    events = fed(codec, raw)
    left = codec.buffered
    if not events or not isinstance(events[-1], Close):
        events += codec.eof()
    # all but the request, which is another each time
    return [
        left,
        *(
            (event.response,)
            if isinstance(event, Answer)
            else tuple(event)[isinstance(event, Failed) :]
            for event in events
        ),
    ]


def answers_fast(protocol: HttpProtocol, raw: bytes, asked: bytes = GET) -> bool:
    codec = protocol.upstream()
    codec.send(request_of(asked))
    return codec.fast_answer(raw) is not None


def altered(raw: bytes) -> Iterator[bytes]:
    """Give what differs from `raw` in one byte: another, one more or one less."""
    for at, byte in itertools.product(range(len(raw)), b"\0\t\n\r\x7f\xff #,:/019Aa"):
        yield raw[:at] + bytes([byte]) + raw[at + 1 :]
        yield raw[:at] + bytes([byte]) + raw[at:]
    yield from (raw[:at] + raw[at + 1 :] for at in range(len(raw)))


def test_request_that_differs_in_a_byte_is_another() -> None:
    protocol = gateway()
    for raw in altered(POLLED):
        taken(protocol, POLLED)
        assert protocol.downstream().fast_request(POLLED)
        assert taken(protocol, raw) == taken(gateway(), raw), raw


def test_response_that_differs_in_a_byte_is_another() -> None:
    protocol = gateway()
    for raw in altered(TOLD):
        told(protocol, TOLD)
        assert answers_fast(protocol, TOLD)
        assert told(protocol, raw) == told(gateway(), raw), raw


def test_what_is_known_comes_to_the_same_in_any_pieces() -> None:
    protocol = knowing()
    for at in range(1, len(POLLED)):
        codec = protocol.downstream()
        assert received(codec, POLLED[:at]) == []
        assert payloads(received(codec, POLLED[at:])) == payloads(events_of(POLLED))
        assert protocol.downstream().fast_request(POLLED)
    for at in range(1, len(TOLD)):
        upstream = protocol.upstream()
        upstream.send(request_of(GET))
        assert fed(upstream, TOLD[:at]) == []
        (answer,) = fed(upstream, TOLD[at:])
        assert isinstance(answer, Answer)
        assert [0, (answer.response,)] == told(gateway(), TOLD)


@pytest.mark.parametrize("raw", [raw for _, _, raw in (*REFUSED, *SMUGGLING)])
def test_what_is_refused_is_refused_whatever_came_before(raw: bytes) -> None:
    protocol = knowing()
    fields = POLLED.partition(b"\n")[2]
    for stream in (
        raw,
        raw + POLLED,
        raw[:-2] + fields,
        POLLED[:-2] + raw.partition(b"\n")[2],
        raw.partition(b"\n")[0] + b"\n" + fields,
    ):
        expected = taken(gateway(), stream)
        assert taken(protocol, stream) == taken(protocol, stream) == expected


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID)
def test_invalid_response_is_invalid_whatever_came_before(raw: bytes) -> None:
    protocol = knowing()
    for response in (raw, TOLD, raw):
        assert told(protocol, response) == told(gateway(), response)
    assert not answers_fast(protocol, raw)


def test_fields_are_known_whatever_is_asked_with_them() -> None:
    codec = knowing().downstream()
    for target in (b"/", b"/b?c=d#e", b"//x/../", b"/" + b"x" * 2000):
        request = codec.fast_request(POLLED.replace(b"/a", target))
        assert request
        assert request.payload == request_of(POLLED).payload.replace(b"/a", target)
        assert request.retry_safe


@pytest.mark.parametrize(
    "line",
    [
        b"GET /%s HTTP/1.1\r\n" % (b"x" * 2001),
        b"GET * HTTP/1.1\r\n",
        b"GET http://b/ HTTP/1.1\r\n",
        b"GET /a HTTP/1.0\r\n",
        b"GET /a HTTP/1.1\n",
        b"GET /a\xe9 HTTP/1.1\r\n",
        b"HEAD /a HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\r\n",
        b"\r\nGET /a HTTP/1.1\r\n",
    ],
)
def test_other_request_lines_are_read_each_time(line: bytes) -> None:
    protocol = knowing()
    raw = line + POLLED.partition(b"\n")[2]
    assert taken(protocol, raw) == taken(gateway(), raw)
    assert protocol.downstream().fast_request(raw) is None


def test_clients_share_what_is_known_and_nothing_else() -> None:
    protocol = knowing()
    closing = POLLED.replace(b"TE", b"close")
    taken(protocol, closing)
    staying, leaving, begun = (protocol.downstream() for _ in range(3))
    assert received(begun, b"GET /b HTTP/1.1\r\nX: ") == []
    last = leaving.fast_request(closing)
    assert last
    assert leaving.fast_request(POLLED) is None
    assert received(leaving, POLLED) == []
    assert begun.fast_request(POLLED) is None
    assert payloads(received(begun, POLLED))[0].startswith(b"GET /b ")
    first = staying.fast_request(POLLED)
    assert first
    for codec, request, ends in ((leaving, last, True), (staying, first, False)):
        codec.refuse(request, Failure.BUSY)
        assert codec.must_close is ends
    assert staying.fast_request(POLLED) is not first


def test_body_that_looks_like_what_is_known_is_a_body() -> None:
    protocol = knowing()
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(POLLED)
    client = protocol.downstream()
    assert received(client, post) == []
    assert client.fast_request(POLLED) is None
    assert payloads(received(client, POLLED))[0].endswith(b"\r\n\r\n" + POLLED)
    device = protocol.upstream()
    (request,) = received(protocol.downstream(), POLLED)
    assert isinstance(request, Request)
    device.send(request)
    assert (
        device.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(TOLD)) == []
    )
    assert device.fast_answer(TOLD) is None
    (answer,) = device.feed(TOLD)
    assert isinstance(answer, Answer)
    assert answer.response.body == TOLD


def test_response_behind_an_interim_one_comes_with_that() -> None:
    protocol = knowing()
    device = protocol.upstream()
    (request,) = received(protocol.downstream(), POLLED)
    assert isinstance(request, Request)
    device.send(request)
    assert device.feed(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") == []
    assert device.fast_answer(TOLD) is None
    (answer,) = device.feed(TOLD)
    assert isinstance(answer, Answer)
    assert answer.response.interim


@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: Basic eA==",
        b"Proxy-Authorization: x",
        b"cookie: a",
        b"X-API-Key: a",
        b"hue-application-key: a",
        b"Referer: http://a/?password=b",
        b"Content-Length: 0",
        b"Expect: 100-continue",
    ],
)
def test_request_that_may_have_secrets_is_not_kept(field: bytes) -> None:
    protocol = gateway()
    raw = POLLED[:-2] + field + b"\r\n\r\n"
    assert taken(protocol, raw) == taken(protocol, raw) == taken(gateway(), raw)
    assert protocol.downstream().fast_request(raw) is None
    assert len(protocol.known_requests) == 1  # the GET behind it


def test_target_is_not_kept() -> None:
    protocol = gateway()
    for target in (b"/?password=a", b"/?password=b"):
        request = POLLED.replace(b"/a", target)
        assert target in payloads(received(protocol.downstream(), request))[0]
    assert len(protocol.known_requests) == 1
    known = protocol.known_requests.get(POLLED.partition(b"\n")[2])
    assert known
    assert b"password" not in known.rest


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param(b"Set-Cookie: a=b\r\nContent-Length: 1\r\n", b"x", id="cookie"),
        pytest.param(
            b"WWW-Authenticate: Digest nonce=1\r\nContent-Length: 1\r\n",
            b"x",
            id="nonce",
        ),
        pytest.param(b"Connection: close\r\nContent-Length: 1\r\n", b"x", id="close"),
        pytest.param(b"Content-Length: 1\r\n", b"", id="body still to come"),
        pytest.param(b"Content-Length: 1\r\n", b"xy", id="more than the body"),
        pytest.param(CHUNKED, b"1\r\nx\r\n0\r\n\r\n", id="chunked"),
        pytest.param(CHUNKED, b"", id="chunks still to come"),
        pytest.param(b"", b"x", id="until close"),
        pytest.param(b"", b"", id="nothing until close"),
    ],
)
def test_response_that_is_not_whole_or_not_alone_is_read(
    head: bytes, body: bytes
) -> None:
    protocol = gateway()
    raw = OK + head + b"\r\n" + body
    assert told(protocol, raw) == told(protocol, raw) == told(gateway(), raw)
    assert not answers_fast(protocol, raw)


def test_response_is_taken_only_if_it_is_awaited() -> None:
    protocol = knowing()
    upstream = protocol.upstream()
    assert upstream.fast_answer(TOLD) is None
    request = request_of(GET)
    upstream.send(request)
    answer = upstream.fast_answer(TOLD)
    assert answer
    assert answer[0] is request
    assert not upstream.begun(request)
    assert upstream.fast_answer(TOLD) is None
    stray, close = upstream.feed(TOLD)
    assert isinstance(stray, Unsolicited)
    assert isinstance(close, Close)


def test_response_behind_an_interim_one_is_read() -> None:
    protocol = knowing()
    upstream = protocol.upstream()
    upstream.send(request_of(GET))
    assert fed(upstream, INTERIM) == []
    assert upstream.fast_answer(TOLD) is None
    (answer,) = upstream.feed(TOLD)
    assert isinstance(answer, Answer)
    assert b"103" in answer.response.interim
    assert answers_fast(protocol, TOLD)
    assert not answers_fast(protocol, INTERIM + TOLD)


def test_response_to_head_is_none_to_get() -> None:
    protocol = knowing()
    head, _, body = TOLD.partition(b"0123")
    to_head = b"HEAD" + GET[3:]
    assert told(protocol, TOLD, to_head) == told(gateway(), TOLD, to_head)
    assert told(protocol, head, to_head)[0] == 0
    assert len(protocol.known_responses) == 1
    assert told(protocol, head)[0] == len(head)  # its body is awaited
    protocol = gateway()
    told(protocol, head, to_head)
    assert len(protocol.known_responses) == 0
    assert told(protocol, head + b"0123" + body) == told(gateway(), TOLD)


def test_ping_may_be_answered_by_what_is_known() -> None:
    protocol = knowing()
    ping = protocol.probe(None)
    assert ping
    upstream = protocol.upstream()
    upstream.send(ping)
    assert not protocol.ping_works
    (answer,) = fed(upstream, TOLD)
    assert isinstance(answer, Answer)
    assert protocol.ping_works


def test_few_heads_are_kept_and_the_latest() -> None:
    protocol = gateway()
    for number in range(HEADS + 10):
        polled = POLLED.replace(b"*/*", b"%d" % number)
        answered = TOLD.replace(b"Y: 1", b"Y: %d" % number)
        taken(protocol, polled)
        told(protocol, answered)
    assert len(protocol.known_requests) == len(protocol.known_responses) == HEADS
    assert protocol.downstream().fast_request(polled)
    assert answers_fast(protocol, answered)
    assert not protocol.downstream().fast_request(POLLED.replace(b"*/*", b"1"))
    assert not answers_fast(protocol, TOLD)


def test_what_comes_again_needs_no_room() -> None:
    known = KnownHeads[int]()
    for number in range(HEADS):
        known.keep(b"%d" % number, number)
    known.keep(b"3", 4)
    assert [known.get(b"%d" % number) for number in (0, 3)] == [0, 4]
    known.keep(b"new", 5)
    assert [known.get(raw) for raw in (b"0", b"1", b"new")] == [None, 1, 5]


def test_long_heads_are_not_kept() -> None:
    known = KnownHeads[int]()
    known.keep(b"x" * LONGEST, 1)
    known.keep(b"x" * (LONGEST + 1), 2)
    assert len(known) == 1
    protocol = gateway()
    raw = TOLD.replace(b"Y: 1", b"Y: " + b"1" * LONGEST)
    told(protocol, raw)
    assert not answers_fast(protocol, raw)
    assert len(protocol.known_responses) == 0


# ---- the host program's own requests, probes, words -------------------------------


def test_own_request_is_one_whole_message() -> None:
    raw = EXPECTING + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc"
    request = gateway().request(raw)
    assert request.payload.startswith(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3"
    )
    assert request.payload.endswith(b"abc")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\r\n",
        b"nonsense\r\n\r\n",
        GET[:-1],
        GET + b"x",
        GET + GET,
        GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"x",
        post(b"Content-Length: 2") + b"x",
        EXPECTING + b"Content-Length: 2\r\n\r\nx",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    ],
)
def test_own_request_must_be_exactly_one(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not exactly one HTTP request"):
        gateway().request(payload)


def probe_of(protocol: HttpProtocol) -> Request:
    probe = protocol.probe(None)
    assert probe is not None
    assert probe.retry_safe
    return probe


def test_probe_is_a_ping() -> None:
    assert probe_of(gateway("fe80::1", 81)).payload == (
        b"OPTIONS * HTTP/1.1\r\nHost: [fe80::1]:81\r\n" + VIA + b"\r\n"
    )


@pytest.mark.parametrize(
    ("response", "next_probe"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"OPTIONS * "),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"OPTIONS * "),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"HEAD / "),
        (b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n", b"HEAD / "),
        (b"HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n", b"HEAD / "),
        (b"nonsense", b"HEAD / "),
        (b"", b"HEAD / "),
    ],
)
def test_probe_becomes_head_where_a_ping_upsets_the_device(
    response: bytes, next_probe: bytes
) -> None:
    protocol = gateway()
    codec = protocol.upstream()
    codec.send(probe_of(protocol))
    codec.feed(response)
    assert probe_of(protocol).payload.startswith(next_probe)
    codec = protocol.upstream()
    codec.send(probe_of(protocol))
    codec.feed(OK + b"Content-Length: 0\r\n\r\n")
    assert probe_of(protocol).payload.startswith(next_probe)


@pytest.mark.parametrize(
    ("status", "no"), [(200, False), (304, False), (400, True), (503, True)]
)
def test_device_says_no_by_status(status: int, no: bool) -> None:
    raw = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    (answer,) = upstream_events(raw)
    assert isinstance(answer, Answer)
    assert gateway().is_exception(answer.response) is no


@pytest.mark.parametrize(
    ("asked", "answered", "said"),
    [
        (GET, None, "GET /"),
        (
            b"GET /path HTTP/1.1\r\n",
            OK + b"Content-Length: 123\r\n\r\nx",
            "GET /path -> 200, 123 bytes",
        ),
        (
            b"GET /path HTTP/1.1\r\n",
            b"HTTP/1.1 304 Not Modified\r\n\r\n",
            "GET /path -> 304",
        ),
        (b"HEAD / HTTP/1.1\r\n", OK + b"Content-Length: 123\r\n\r\n", "HEAD / -> 200"),
        (b"GET /" + b"x" * 100, None, "GET /" + "x" * 74 + "…"),
        (b"\xff", b"\xff", "� -> "),
    ],
)
def test_exchange_in_words(asked: bytes, answered: bytes | None, said: str) -> None:
    assert gateway().describe(asked, answered).startswith(said)
    assert len(gateway().describe(asked, answered)) < 120


@given(st.binary(), st.none() | st.binary())
def test_anything_can_be_put_into_words(asked: bytes, answered: bytes | None) -> None:
    assert isinstance(gateway().describe(asked, answered), str)


# ---- any stream, in any pieces ----------------------------------------------------

TOKENS = st.text("abcXYZ019-_.!~", min_size=1, max_size=8).map(str.encode)
VALUES = st.text(
    st.characters(
        min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f\x85\xa0"
    ),
    max_size=12,
).map(lambda text: text.encode("latin-1"))
OWN_FIELDS = st.lists(
    st.tuples(TOKENS.map(lambda name: b"X-" + name), VALUES), max_size=4
)
BODIES = st.binary(max_size=60)
SIZES = st.integers(1, 20)


@st.composite
def messages(
    draw: st.DrawFn, start: bytes, framings: tuple[str, ...]
) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], str]:
    """Draw a message: on the wire, its body, its own fields and its framing."""
    fields, body = draw(OWN_FIELDS), draw(BODIES)
    framing = draw(st.sampled_from(framings))
    line_end = draw(st.sampled_from([b"\r\n", b"\n"]))
    lines = [
        start,
        *(
            name + b":" + draw(st.sampled_from([b"", b" ", b" \t "])) + value
            for name, value in fields
        ),
    ]
    if framing == "length":
        lines.insert(
            draw(st.integers(1, len(lines))), b"Content-Length: %d" % len(body)
        )
    elif framing == "chunked":
        lines.insert(draw(st.integers(1, len(lines))), CHUNKED[:-2])
    else:
        body = body if framing == "close" else b""
    wire = chunks(body, draw(SIZES)) if framing == "chunked" else body
    if framing == "chunked" and draw(st.booleans()):
        wire = wire[:-2] + b"X-Trailer: 1\r\n\r\n"
    return line_end.join([*lines, b"", b""]) + wire, body, fields, framing


METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"X-ODD"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]:
    """Draw a request: as it stands on the wire, its method, body and own fields."""
    method = draw(METHODS)
    start = method + b" /" + draw(TOKENS) + b" HTTP/1.1"
    raw, body, fields, _ = draw(messages(start, ("none", "length", "chunked")))
    line_end = b"\r\n" if b"\r\n" in raw[: raw.index(b"\n") + 1] else b"\n"
    raw = raw.replace(line_end, line_end + b"Host: a" + line_end, 1)
    return draw(st.sampled_from([b"", b"\r\n"])) + raw, method, body, fields


@given(st.data(), st.lists(requests(), min_size=1, max_size=5))
def test_requests_are_the_same_in_any_pieces(
    data: st.DataObject,
    drawn: list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]],
) -> None:
    stream = b"".join(raw for raw, *_ in drawn)
    whole = payloads(events_of(stream))
    codec = gateway().downstream()
    parts = data.draw(pieces(stream))
    assert payloads(event for part in parts for event in received(codec, part)) == whole
    assert codec.buffered == 0
    assert len(whole) == len(drawn)
    for payload, (_, method, body, fields) in zip(whole, drawn, strict=True):
        server = h11.Connection(h11.SERVER)
        server.receive_data(payload)
        head = server.next_event()
        assert isinstance(head, h11.Request)
        assert head.method == method
        assert own(head) == fields
        assert payload.partition(b"\r\n\r\n")[2] == body


@given(st.data(), requests())
def test_response_comes_back_the_same_in_any_pieces(
    data: st.DataObject, asked: tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]
) -> None:
    """Down, up and down again: the client reads what the device said."""
    downstream, upstream = gateway().downstream(), gateway().upstream()
    (request,) = received(downstream, asked[0])
    assert isinstance(request, Request)
    upstream.send(request)
    status = data.draw(st.sampled_from([200, 204, 304, 404, 500]))
    bodiless = asked[1] == b"HEAD" or status in {204, 304}
    framings = ("length", "chunked", "close") if not bodiless else ("none",)
    raw, body, fields, framing = data.draw(
        messages(b"HTTP/1.1 %d X" % status, framings)
    )
    interim = data.draw(st.sampled_from([b"", b"HTTP/1.1 100 C\r\n\r\n", INTERIM]))
    events = [
        event
        for part in data.draw(pieces(interim + raw))
        for event in upstream.feed(part)
    ]
    if framing == "close":
        assert events == []
        events = upstream.eof()
    (answer,) = events
    assert isinstance(answer, Answer)
    assert answer.request is request
    assert upstream.reusable is (framing != "close")
    response = parsed(downstream.reply(request, answer.response), asked[1].decode())
    assert response.status == status
    assert response.body == body
    assert response.own == fields
    assert not downstream.must_close


CODED = st.lists(
    st.sampled_from(
        [
            b"1\r\na\r\n", b"02\r\nbc\r\n", b"A;x=y\r\n0123456789\r\n", b"0\r\n", b"\r\n",
            b"X: 1\r\n", b" folded\r\n", b"X:\n", b"1", b"a", b";", b" ", b"\n", b"\r", b":",
        ]
    )
    | st.binary(max_size=2),
    max_size=12,
).map(b"".join)  # fmt: skip


@given(st.data(), CODED, st.booleans())
def test_chunks_are_read_as_h11_reads_them(
    data: st.DataObject, stream: bytes, tolerant: bool
) -> None:
    """A client's must be what h11 takes; of a device's, h11 takes nothing otherwise."""
    if data.draw(st.booleans()):
        stream += b"0\r\n\r\n"
    h11_body, h11_rest = b"", None
    server = h11.Connection(h11.SERVER)
    server.receive_data(post(CHUNKED[:-2]) + stream)
    server.next_event()
    with suppress(h11.RemoteProtocolError):
        while isinstance(event := server.next_event(), h11.Data):
            h11_body += event.data
        if isinstance(event, h11.EndOfMessage):
            h11_rest = server.trailing_data[0]

    chunked, pending = ChunkedBody(MAX_BODY, tolerant=tolerant), bytearray()
    body = None
    refused = False
    for part in data.draw(pieces(stream)):
        pending += part
        if body is None and not refused:
            try:
                body = chunked.read(pending)
            except MessageError:
                refused = True
    if body is not None and not tolerant:
        assert h11_rest is not None
    if h11_rest is not None and not CONTROL.search(stream):
        assert (body, bytes(pending)) == (h11_body, h11_rest)


FRAGMENTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.0\r\n", b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 304 x\r\n", b"HTTP/1.1 100 x\r\n", b"HTTP/1.1 101 x\r\n",
        b"Host: a\r\n", CHUNKED, b"Content-Length: 5\r\n", b"content-length: 5, 6\r\n",
        b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Upgrade: x\r\n",
        b"Expect: 100-continue\r\n", b"Max-Forwards: 0\r\n", b"\r\n", b"\n", b"\r",
        b" ", b"5\r\nabcde\r\n", b"0\r\n", b"ffffffffffffffffffff\r\n", b"abcde",
        b"TRACE / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"\0", b":", b"HEAD ",
        b"http/1.1 200\tOK\n", b"HTTP/2 103 \x01\r\n", b"A B: x\r\n", b"X: \x01y\r\n",
        b" folded \r\r\n", b"Transfer-Encoding: identity\r\n", b": Content-Length\r\n",
    ]
)  # fmt: skip
IN_ORDER = re.compile(
    rb"(?:HTTP/1\.1 [0-9]{3} [\t -~\x80-\xff]*\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: (?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*"
    rb"[!-~\x80-\xff])?)?\r\n)*\r\n)+"
)
"""Heads as RFC 9112 has them, without what only a tolerant reader takes."""
STREAMS = st.binary(max_size=200) | st.lists(
    FRAGMENTS | st.binary(max_size=3), max_size=20
).map(b"".join)


@given(st.data(), STREAMS)
def test_client_may_send_any_bytes(data: st.DataObject, stream: bytes) -> None:
    """They are requests or one clean refusal, the same in any pieces; never a crash."""
    whole = events_of(stream)
    codec = gateway().downstream()
    events: list[DownstreamEvent] = []
    received_bytes = 0
    for part in data.draw(pieces(stream)):
        received_bytes += len(part)
        if events and isinstance(events[-1], Close):
            break
        events += received(codec, part)
        assert 0 <= codec.buffered <= received_bytes
    assert [type(event) for event in events] == [type(event) for event in whole]
    for event, same in zip(events, whole, strict=True):
        if isinstance(event, Request):
            assert isinstance(same, Request)
            assert event.payload == same.payload
            server = h11.Connection(h11.SERVER)
            server.receive_data(event.payload)
            while not isinstance(server.next_event(), h11.EndOfMessage):
                pass
            assert server.trailing_data == (b"", False)
        else:
            assert event == same
    if events and isinstance(events[-1], Close) and events[-1].reason[0].isdigit():
        without_body = events[-1].data.endswith(b"\r\n\r\n")
        method = "HEAD" if without_body else "GET"
        assert refusal(events[-1:], method) >= HTTPStatus.BAD_REQUEST
    codec.eof()


@given(st.data(), STREAMS, METHODS)
def test_device_may_send_any_bytes(
    data: st.DataObject, stream: bytes, method: bytes
) -> None:
    """They answer the request at most once; what is passed on can be read."""
    request = request_of(GET.replace(b"GET", method))
    outcomes = []
    for parts in ([stream] if stream else [], data.draw(pieces(stream))):
        codec = gateway().upstream()
        codec.send(request)
        events: list[UpstreamEvent[HttpResponse]] = []
        for part in parts:
            events += codec.feed(part)
            if events and isinstance(events[-1], Close):
                break
        else:
            events += codec.eof()
        ends = [event for event in events if isinstance(event, Answer | Failed)]
        assert len(ends) <= 1
        for end in ends:
            assert end.request is request
            if isinstance(end, Answer):
                reply = gateway().downstream().reply(request, end.response)
                parsed(reply, method.decode())
                assert IN_ORDER.match(reply)
        assert [type(event) for event in events[:-1]].count(Close) == 0
        outcomes.append([type(event) for event in ends])
    assert outcomes[0] == outcomes[1]
