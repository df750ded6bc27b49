"""HTTP/1.1: a small gateway in the sense of RFC 9110, as a pair of codecs.

The strategy: a message is passed on once it is complete. Its length is known by then,
so it goes on without a transfer coding. That is what makes the framing of one side
harmless to the other (RFC 9112 §11.2), gives an HTTP/1.0 client a response that came
chunked, and keeps a client connected when the device ends its response by closing.
The modules beside this one parse and serialise; this one decides what to send where.

What the gateway does on the way (sections of RFC 9110 unless another is named):

* Hop-by-hop fields stay behind (§7.6.1): Connection and what it names, Keep-Alive,
  Proxy-Connection, TE, Transfer-Encoding, Upgrade and its HTTP2-Settings. So do Trailer
  and trailer fields (§6.5.1: the device was never told that anybody wants them) and
  Expect, which is answered here. Host and the framing stay, whatever Connection names.
  Whether a client's connection persists is between that client and us.
* Via is added, both ways (§7.6.3).
* An absolute-form target becomes origin-form and its authority the Host (RFC 9112
  §3.2.2); otherwise Host passes unchanged. An HTTP/1.0 request may lack Host, what we
  send may not (RFC 9112 §3.2): it gets the device's own address.
* Max-Forwards of OPTIONS and TRACE counts down; at 0 the answer is ours (§7.6.2).
* 100 (Continue) is ours to send and is dropped when the device sends it; other interim
  responses precede the final one, but not to HTTP/1.0 clients (§15.2).
"""

from __future__ import annotations

from http import HTTPStatus
import re
from typing import override

from ..base import (
    Answer,
    Close,
    DownstreamCodec,
    DownstreamEvent,
    Failed,
    Failure,
    Progress,
    Protocol,
    Reply,
    Request,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from ..options import Framing, ProtocolOptions
from .known_heads import KnownHeads
from .message import Asker, HttpResponse, own_response
from .reader import Reader
from .request_head import PLAIN_GET, KnownGet, RequestHead, read_request_head
from .response_head import ResponseHead, read_response_head
from .syntax import MessageError

_PING = b"OPTIONS * "
_NO_OPTIONS = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_IMPLEMENTED,
    )
)
"""Statuses of a device to which `OPTIONS *` means nothing."""
_REQUEST_LINES = 128
_RESPONSE_LINES = 1024
"""The most lines of a head: an event of a client's is to cost it no more than 0.3 ms,
while devices are few. Servers and proxies take 100 fields, curl 5,000."""
_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]|\r?\Z")
"""Of a method; or there is nothing yet, or half an empty line."""
_CONTENT_LENGTH = re.compile(
    rb"^content-length: ([0-9]+)", re.MULTILINE | re.IGNORECASE
)

_LOOK_FIRST = "It may have carried the request out: look before you repeat it."
_REFUSALS = {
    Failure.NO_CONNECTION: (
        HTTPStatus.BAD_GATEWAY,
        "The device cannot be reached. Is it on? Does another program hold its connection?",
    ),
    Failure.CONNECTION_LOST: (
        HTTPStatus.BAD_GATEWAY,
        f"The device closed the connection before its response was complete. {_LOOK_FIRST}",
    ),
    Failure.INVALID_RESPONSE: (
        HTTPStatus.BAD_GATEWAY,
        f"The device's response is not valid HTTP, or too long. {_LOOK_FIRST}",
    ),
    Failure.NO_RESPONSE: (
        HTTPStatus.GATEWAY_TIMEOUT,
        f"The device did not answer in time. {_LOOK_FIRST}",
    ),
    Failure.SILENT: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The device has not answered lately. Ask again later.",
    ),
    Failure.BUSY: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The device is slower than its clients. Ask again in a moment, or less often.",
    ),
    Failure.PAUSED: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Sharing this device is paused. Ask again once it is resumed.",
    ),
    Failure.REFUSED: (
        HTTPStatus.FORBIDDEN,
        "The owner's settings do not let this request pass.",
    ),
    Failure.TOO_LARGE: (
        HTTPStatus.CONTENT_TOO_LARGE,
        "The owner's settings do not let a request of this size pass.",
    ),
}


class HttpDownstream(DownstreamCodec[HttpResponse]):
    """Faces one client."""

    __slots__ = (
        "_authority",
        "_finished",
        "_head",
        "_known",
        "_reader",
        "_to_head",
        "must_close",
    )

    def __init__(
        self, max_body: int, authority: bytes, known: KnownHeads[KnownGet]
    ) -> None:
        self.must_close = False
        self._authority = authority
        self._known = known
        self._reader = Reader(max_body, _REQUEST_LINES, tolerant=False)
        self._head: RequestHead | None = None
        """Of the request whose body is awaited."""
        self._to_head = False
        """The request at hand is a HEAD, whose response has no body."""
        self._finished = False
        """The client's last request has been read; what follows is ignored."""

    @property
    @override
    def buffered(self) -> int:
        return self._reader.buffered

    @override
    def receive_data(self, data: bytes) -> None:
        if not self._finished:
            self._reader.receive(data)

    @override
    def fast_request(self, data: bytes) -> Request | None:
        line = PLAIN_GET.match(data)
        if line is None or self._finished or self._reader.buffered:
            return None
        known = self._known.get(data[line.end() :])
        if known is None:
            return None
        asker = known.asker
        self._finished = not asker.keep_alive
        return Request(line[0] + known.rest, asker, retry_safe=True)

    @override
    def next_event(self) -> DownstreamEvent | None:
        if self._finished:
            self._reader.drop()
            return None
        try:
            return self._next_event()
        except MessageError as err:
            self._finished = True
            self._reader.drop()
            method = b"HEAD" if self._to_head else b""
            asker = Asker(method, http_1_0=False, keep_alive=False)
            text = f"The request cannot be passed on: {err.reason}.\n"
            last_words = own_response(asker, err.status, text.encode())
            return Close(f"{err.status} {err.reason}", last_words)

    def _next_event(self) -> DownstreamEvent | None:
        if self._head is None:
            self._head = self._take_head()
            if self._head is None:
                return None
            if self._head.must_continue:
                return Reply(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        body = self._reader.take_body(head.length, chunked=head.chunked)
        if body is None:
            return Progress() if self._reader.has_more else None
        self._head = None
        asker = head.asker
        self._finished = not asker.keep_alive
        if head.answer is None:
            return Request(head.payload(body), asker, retry_safe=head.retry_safe)
        if asker.keep_alive:
            return Reply(head.answer)
        return Close("answered here, as the request was not to go further", head.answer)

    def _take_head(self) -> RequestHead | None:
        """Return the next head, once it is there.

        Raises:
            MessageError: the request is refused.

        """
        reader = self._reader
        reader.skip_blank_lines()
        beginning = reader.peek(5)
        self._to_head = beginning == b"HEAD "
        if not _BEGINNING.match(beginning):
            # TLS, for one; it would wait for our answer.
            raise MessageError(HTTPStatus.BAD_REQUEST, "this is not HTTP")
        raw = reader.take_head()
        if raw is None:
            return None
        head = read_request_head(raw, self._authority)
        if head.plain:
            start = raw.index(b"\n") + 1
            self._known.keep(raw[start:], head.known(start))
        reader.check_length(head.length)
        return head

    @override
    def reply(self, request: Request, response: HttpResponse) -> bytes:
        asker: Asker = request.context
        self.must_close = not asker.keep_alive
        final = response.serialise(asker.connection)
        return final if asker.http_1_0 else response.interim + final

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes:
        asker: Asker = request.context
        self.must_close = not asker.keep_alive
        status, text = _REFUSALS[failure]
        again = [(b"Retry-After", b"1")] if failure is Failure.BUSY else []
        return own_response(asker, status, f"{text}\n".encode(), *again)


class _Upstream(UpstreamCodec[HttpResponse]):
    """Faces one upstream connection: one request, then exactly one final response.

    A byte beyond it ends the connection, because the next client would take it for the
    beginning of its own response.
    """

    __slots__ = (
        "_begun",
        "_head",
        "_interim",
        "_known",
        "_ping",
        "_protocol",
        "_reader",
        "_request",
        "_to_head",
        "reusable",
    )

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol
        self._known = protocol.known_responses
        max_body = protocol.options.max_body
        self._reader = Reader(max_body, _RESPONSE_LINES, tolerant=True)
        self.reusable = True
        self._request: Request | None = None
        """The one awaited."""
        self._to_head = False
        """It is a HEAD."""
        self._ping = False
        """It asks whether the device lives."""
        self._begun = False
        """At least a byte came after it."""
        self._interim = b""
        """The interim responses to it, ready for the client."""
        self._head: ResponseHead | None = None
        """Of its final response, whose body is awaited."""

    @property
    @override
    def buffered(self) -> int:
        return self._reader.buffered

    @override
    def send(self, request: Request) -> bytes:
        payload = request.payload
        self._request = request
        self._to_head = payload.startswith(b"HEAD ")
        self._begun = False
        self._interim = b""
        self._ping = payload.startswith(_PING)
        if self._ping:
            self._protocol.ping_works = False  # until it is answered
        return payload

    @override
    def begun(self, request: Request) -> bool:
        return request is self._request and self._begun

    @override
    def expire(self, request: Request) -> bool:
        """Give up: the late response would look like the next request's."""
        self._request = None
        self.reusable = False
        return False

    @override
    def fast_answer(self, data: bytes) -> tuple[Request, HttpResponse] | None:
        request = self._request
        if request is None or self._to_head or self._ping or self._reader.buffered:
            return None
        end = data.find(b"\r\n\r\n") + 4
        head = self._known.get(data[:end])
        if (
            head is None
            or not head.reusable
            or head.chunked
            or len(data) != end + head.length
        ):
            return None
        self._request = None
        response = HttpResponse(head.status, head.outgoing.lines, data[end:], b"")
        return request, response

    @override
    def feed(self, data: bytes) -> list[UpstreamEvent[HttpResponse]]:
        events: list[UpstreamEvent[HttpResponse]] = []
        self._reader.receive(data)
        request = self._request
        if request is not None:
            self._begun = True
            try:
                answer = self._read_answer(request)
            except MessageError as err:
                self._request = None
                self.reusable = False
                failed = Failed(request, Failure.INVALID_RESPONSE, err.reason)
                return [failed, Close(err.reason)]
            if answer is None:
                return []
            events.append(answer)
        if unasked := self._reader.take_all():
            self.reusable = False
            reason = "data that nobody asked for"
            events += (Unsolicited(reason, unasked), Close(reason))
        return events

    @override
    def eof(self) -> list[UpstreamEvent[HttpResponse]]:
        self.reusable = False
        request, head = self._request, self._head
        if request is None or head is None or not head.until_close:
            return []
        return [self._answer(request, head, self._reader.take_all())]

    def _read_answer(self, request: Request) -> Answer[HttpResponse] | None:
        """Return the answer, once all of it is there.

        Raises:
            MessageError: it cannot be passed on.

        """
        while self._head is None:
            if not b"HTTP/".startswith(self._reader.peek(5).upper()):
                raise MessageError(HTTPStatus.BAD_GATEWAY, "this is not HTTP")
            raw = self._reader.take_head()
            if raw is None:
                return None
            head = self._read_head(raw)
            if isinstance(head, bytes):
                self._interim += head
            else:
                self._head = head
        head = self._head
        if head.until_close:
            self._reader.check_pending()
            return None
        body = self._reader.take_body(head.length, chunked=head.chunked)
        while body is None and self._reader.has_more:
            body = self._reader.take_body(head.length, chunked=head.chunked)
        return None if body is None else self._answer(request, head, body)

    def _read_head(self, raw: bytes) -> ResponseHead | bytes:
        """Return what a head says; of an interim one, what the client should see.

        Raises:
            MessageError: it cannot be passed on.

        """
        # what a head says depends on its request only where that is a HEAD
        known = None if self._to_head else self._known.get(raw)
        if known is not None:
            return known
        head = read_response_head(raw, to_head=self._to_head)
        if not isinstance(head, bytes):
            self._reader.check_length(head.length)
            if not (self._to_head or head.personal):
                self._known.keep(raw, head)
        return head

    def _answer(
        self, request: Request, head: ResponseHead, body: bytes
    ) -> Answer[HttpResponse]:
        """Answer the request: its response is complete."""
        self._head = self._request = None
        self.reusable = head.reusable
        if self._ping:
            self._protocol.ping_works = head.status not in _NO_OPTIONS
        return Answer(request, head.response(self._interim, body))


class HttpProtocol(Protocol[HttpResponse]):
    """HTTP/1.1 and HTTP/1.0, for any device that speaks either."""

    name = "http"
    title = "HTTP/1.1"
    settings = frozenset(("max_body",))
    retry_needs_served = True
    messages_at_once = 8  # each costs some 0.2 ms
    is_http = True
    usual_port = 80

    def __init__(self, options: ProtocolOptions) -> None:
        super().__init__(options)
        self.ping_works = True
        """The device answers `OPTIONS *` (RFC 9110 §9.3.7), as far as is known."""
        host = options.host.partition("%")[0]
        host = f"[{host}]" if ":" in host else host
        authority = host if options.port == 80 else f"{host}:{options.port}"
        authority = authority if authority.isascii() else ""
        self._authority = authority.encode()
        self.known_requests = KnownHeads[KnownGet]()
        self.known_responses = KnownHeads[ResponseHead]()

    @override
    def downstream(
        self, framing: Framing = Framing.TCP
    ) -> DownstreamCodec[HttpResponse]:
        max_body = self.options.max_body
        return HttpDownstream(max_body, self._authority, self.known_requests)

    @override
    def upstream(self) -> UpstreamCodec[HttpResponse]:
        return _Upstream(self)

    @override
    def request(self, payload: bytes) -> Request:
        codec = self.downstream()
        codec.receive_data(payload)
        event = codec.next_event()
        if isinstance(event, Reply):  # 100 (Continue), for a body that is here already
            event = codec.next_event()
        while isinstance(event, Progress):
            event = codec.next_event()
        if isinstance(event, Request) and not codec.buffered:
            return event
        reason = event.reason if isinstance(event, Close) else "incomplete, or too much"
        raise ValueError(f"not exactly one HTTP request: {reason}")

    @override
    def is_exception(self, response: HttpResponse) -> bool:
        return response.status >= HTTPStatus.BAD_REQUEST

    @override
    def probe(self, last_good: Request | None) -> Request | None:
        """Ask `OPTIONS *`, meant as a ping, or HEAD of a device that it upsets.

        Any response shows that the device lives. `OPTIONS *` is given up for good when
        it stays without one or meets with 400, 405 or 501.
        """
        what = _PING if self.ping_works else b"HEAD / "
        return self.request(b"%sHTTP/1.1\r\nHost: %s\r\n\r\n" % (what, self._authority))

    @override
    def describe(self, payload: bytes, response: bytes | None) -> str:
        """Say `GET /path -> 200, 123 bytes`, of messages that may have been cut."""
        asked = b" ".join(payload.split(b" ", 2)[:2]).decode("ascii", "replace")
        if len(asked) > 80:
            asked = asked[:79] + "…"
        if response is None:
            return asked
        status = response[9:12].decode("ascii", "replace")
        length = _CONTENT_LENGTH.search(response.partition(b"\r\n\r\n")[0])
        if length is None or payload.startswith(b"HEAD "):
            return f"{asked} -> {status}"
        return f"{asked} -> {status}, {length[1].decode()} bytes"
