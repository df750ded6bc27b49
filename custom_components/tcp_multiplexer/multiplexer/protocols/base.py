"""What a protocol is: a codec for each side, and the messages that they exchange.

Codecs do no I/O: bytes in, messages out. Nothing here reads a socket or a clock; where
framing needs the time, it is passed in. A codec belongs to exactly one connection and
is discarded with it.

The path of a request:

    client bytes ─ DownstreamCodec.receive_data / next_event ─▶ Request
    Request      ─ UpstreamCodec.send ─▶ bytes for the device
    device bytes ─ UpstreamCodec.feed ─▶ Answer(request, response)
    response     ─ DownstreamCodec.reply ─▶ bytes for the client

`ResponseT` is the protocol's type of a response (plain `bytes` for all but HTTP). The
engine passes it from one codec to the other without looking inside, but
`bytes(response)` must work, for traces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
import enum
from types import MappingProxyType
from typing import ClassVar, NamedTuple, override

from .compiled import mypyc_attr
from .options import Framing, ProtocolOptions, check_one_in_flight
from .outline import Outline
from .request import Failure, Request, ShareKey, Written

__all__ = [
    "Answer",
    "Close",
    "DownstreamCodec",
    "DownstreamEvent",
    "Failed",
    "Failure",
    "Ignored",
    "Mismatch",
    "Progress",
    "Protocol",
    "Reply",
    "Request",
    "Rules",
    "SendBack",
    "ShareKey",
    "Unsolicited",
    "UpstreamCodec",
    "UpstreamEvent",
    "Written",
]


class Reply(NamedTuple):
    """Downstream: a reply that needs no upstream, sent when it is its turn.

    `keepalive` marks the echo of one: at most one a second leaves on a connection, or
    it would circulate for ever with a peer that echoes it too.
    """

    data: bytes
    keepalive: bool = False


class Progress(NamedTuple):
    """Downstream: part of a message was read, and more of it is there to be read.

    It means nothing, but that others may have their turn first.
    """


class Ignored(NamedTuple):
    """Downstream: something that was discarded, as the specification requires.

    `reply` is sent to the client at once, if it is not empty.
    """

    reason: str
    reply: bytes = b""


class Close(NamedTuple):
    """Either side: the connection must be closed, after sending `data`."""

    reason: str
    data: bytes = b""


class Answer[ResponseT]:
    """Upstream: the complete response to `request`."""

    # No tuple: one is made for each response, and compiled these are made faster.
    __slots__ = ("request", "response")

    def __init__(self, request: Request, response: ResponseT) -> None:
        self.request = request
        self.response = response

    @override
    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Answer)
            and self.request == other.request
            and self.response == other.response
        )

    @override
    def __hash__(self) -> int:
        return hash((self.request, self.response))

    @override
    def __repr__(self) -> str:
        return f"Answer({self.request!r}, {self.response!r})"


class Failed(NamedTuple):
    """Upstream: the response to `request` cannot be passed on."""

    request: Request
    failure: Failure
    reason: str


class Mismatch(enum.StrEnum):
    """What does not fit in a response that would fit otherwise."""

    IDENTIFIER = "identifier"
    UNIT = "unit"
    SERIAL = "serial"
    """The serial number of a logger stick."""


class Unsolicited(NamedTuple):
    """Upstream: bytes that belong to no request: late, duplicate or unsolicited.

    `late` marks the response to a request that had timed out; `unit` says whose it is,
    and `answers` to which one, as far as that is certain. `lenient` says what does not
    fit in one that lenient matching would have taken for the response to the oldest
    request in flight.
    """

    reason: str
    data: bytes
    late: bool = False
    lenient: Mismatch | None = None
    unit: Hashable | None = None
    answers: Request | None = None


class SendBack(NamedTuple):
    """Upstream: bytes to send to the device at once; `keepalive` as in `Reply`."""

    data: bytes
    keepalive: bool = False


type DownstreamEvent = Request | Reply | Progress | Ignored | Close
type UpstreamEvent[ResponseT] = (
    Answer[ResponseT] | Failed | Unsolicited | SendBack | Close
)


@mypyc_attr(allow_interpreted_subclasses=True)
class DownstreamCodec[ResponseT](ABC):
    """The codec for one client: decodes its requests, encodes responses for it.

    Call `receive_data` with what arrived, then `next_event` until it returns None. The
    engine may stop in between (back-pressure): what was received stays in the codec,
    and the next `next_event` continues from there. After a `Close`, call nothing more.
    """

    __slots__ = ()

    ordered: bool = True
    """Whether the client must get its replies in the order of its requests."""
    must_close: bool = False
    """True once the connection must be closed after the last reply."""

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes received that are not yet part of a complete message."""

    @abstractmethod
    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client; never raises, whatever they contain."""

    @abstractmethod
    def next_event(self) -> DownstreamEvent | None:
        """Return the next message, or None if more bytes are needed."""

    def apply(self, options: ProtocolOptions) -> None:  # noqa: B027 - most need none
        """Go on with changed options: those that may change while clients stay."""

    def fast_request(self, data: bytes) -> Request | None:  # noqa: ARG002
        """Return the request if `data` is exactly one, which is the usual case.

        The fast path past `receive_data` and `next_event`, where a codec has one. None
        means that nothing was consumed: `data` must go through these.
        """
        return None

    def identifier(self, request: Request) -> Hashable:
        """Return by what the client knows the reply to `request`.

        Called only if the codec is not `ordered`.
        """
        identifier: Hashable = request.context
        return identifier

    @abstractmethod
    def reply(self, request: Request, response: ResponseT) -> bytes:
        """Return the bytes that answer `request`.

        Called in the order of the requests if the codec is `ordered`.
        """

    @abstractmethod
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        """Return the bytes that tell the client of a failure; None: close instead."""

    def eof(self) -> Ignored | None:
        """Note that the client sends no more; return an unfinished message, if any."""
        if self.buffered:
            return Ignored("unfinished message at end of stream")
        return None


@mypyc_attr(allow_interpreted_subclasses=True)
class UpstreamCodec[ResponseT](ABC):
    """The codec for one upstream connection: encodes requests, decodes responses."""

    __slots__ = ()

    framed_by_silence: bool = False
    """Whether silence delimits frames: `deadline` and `tick` must be called."""
    identifies: bool = False
    """Whether a response names the very request that it answers, so that others may go
    out beside one that gets none."""
    names_unit: bool = False
    """Whether a response names its unit; `quiet` then applies to that unit only."""
    quiet: float = 0.0
    """Seconds for which nothing may be sent after a timeout, because a late response
    could be taken for the next one. What arrives meanwhile is discarded."""

    reusable: bool = True
    """False once this connection must not carry another request."""

    @property
    def buffered(self) -> int:
        """Bytes received of a response that may become large, and is not complete."""
        return 0

    @abstractmethod
    def send(self, request: Request) -> bytes:
        """Return the bytes of `request` on this connection; expect its response."""

    @abstractmethod
    def feed(self, data: bytes) -> list[UpstreamEvent[ResponseT]]:
        """Take bytes from the device; return the events in them; never raises."""

    def fast_answer(
        self,
        data: bytes,  # noqa: ARG002
    ) -> tuple[Request, ResponseT] | None:
        """Return request and response if `data` is exactly one response, as usual.

        The fast path past `feed`, where a codec has one. None means that nothing was
        consumed: `data` must go through `feed`.
        """
        return None

    @abstractmethod
    def begun(self, request: Request) -> bool:
        """Return whether a byte of the response to `request` may have arrived."""

    @abstractmethod
    def expire(self, request: Request) -> bool:
        """Stop expecting a response; return whether the connection may be kept."""

    def eof(self) -> list[UpstreamEvent[ResponseT]]:
        """Note that the device sends no more; return what that completes."""
        return []

    def deadline(self, now: float) -> float | None:  # noqa: ARG002
        """Return when to call `tick` if nothing arrives by then; None: never.

        Called after each `send`, `feed` and `tick`. `now` and the result are loop time.
        """
        return None

    def tick(self, now: float) -> list[UpstreamEvent[ResponseT]]:  # noqa: ARG002
        """Note that nothing arrived until `now`; return what that completes."""
        return []


class Rules(ABC):
    """The owner's rules that refer to the content of a protocol's requests."""

    @abstractmethod
    def judge(self, payload: bytes) -> Failure | None:
        """Return why a request may not pass, or None if it may."""

    def parts(self, request: Request) -> list[Request]:  # noqa: ARG002
        """Return the requests in which a read is to be asked; none: as it is."""
        return []


@mypyc_attr(allow_interpreted_subclasses=True)
class Protocol[ResponseT](ABC):
    """One application protocol: makes its codecs, and states its properties."""

    name: ClassVar[str]
    """Its name in config entries and on the command line."""
    title: ClassVar[str]
    """Its name for people, the same in every language."""
    settings: ClassVar[frozenset[str]] = frozenset()
    """Names of those `Settings` that it uses and some other protocol does not."""
    framings: ClassVar[Mapping[Framing, str]] = MappingProxyType({})
    """The framings that it supports on either side, with their names for people. Empty:
    there is only one, which needs no name."""
    correlated: ClassVar[bool] = False
    """Whether responses name their request; several may then be in flight at once."""
    drop_reads_at_eof: bool = False
    """Whether a client that closes its side has left, rather than sent all requests."""
    retry_needs_served: bool = False
    """Whether to resend only what was lost on a connection that had responded."""
    read_while_held: int = 0
    """Bytes to go on reading from a held client, so that its close is noticed."""

    messages_at_once: int = 64
    """Messages taken from one client per iteration of the loop, so others get on."""

    is_http: bool = False
    """Whether clients speak HTTP; with other protocols, one that does is closed."""
    has_units: ClassVar[bool] = False
    """Whether a payload is a unit identifier and a Modbus PDU."""
    counted_by: ClassVar[int | None] = None
    """How many bytes of a payload, unit and function, requests are counted by. None:
    they are only counted in total."""

    usual_port: ClassVar[int | None] = None
    """Where devices listen as a rule; None: there is no such port. Captures show them
    there, so that readers know the protocol."""

    @classmethod
    def check(cls, options: ProtocolOptions) -> None:
        """Check that the settings are compatible with each other.

        Raises:
            SettingsError: they are not.

        """
        if not cls.correlated:
            check_one_in_flight(options, cls.name)

    def __init__(self, options: ProtocolOptions) -> None:
        """Store the options; a protocol belongs to one multiplexer."""
        self.options = options
        self.time_of_day: Callable[[], float] = float
        """Returns seconds since 1970; 0 until `make_protocol` has given it a clock."""

    @abstractmethod
    def downstream(self, framing: Framing = Framing.TCP) -> DownstreamCodec[ResponseT]:
        """Make the codec for a newly accepted client with one of `framings`."""

    @abstractmethod
    def upstream(self) -> UpstreamCodec[ResponseT]:
        """Make the codec for a newly opened upstream connection."""

    def greeting(self) -> Callable[[bytes], bytes] | None:
        """Return what strips the greeting of a device that has just dialled in."""
        return None

    @abstractmethod
    def request(self, payload: bytes) -> Request:
        """Make a request of the host program.

        Raises:
            ValueError: `payload` is not exactly one valid request.

        """

    def rules(self, options: ProtocolOptions) -> Rules | None:  # noqa: ARG002
        """Make the rules in these options; None: there are none."""
        return None

    def is_exception(self, response: ResponseT) -> bool:  # noqa: ARG002
        """Return whether a response is an error in the protocol's terms."""
        return False

    def acknowledge(self, request: Request) -> ResponseT | None:  # noqa: ARG002
        """Return the response to a write as if carried out; None: it cannot be made."""
        return None

    def explain_write(self, request: Request) -> dict[str, object]:  # noqa: ARG002
        """Return what a write would have changed, by names, for an event."""
        return {}

    def probe(self, last_good: Request | None) -> Request | None:  # noqa: ARG002
        """Return a harmless request that shows whether the device responds, or None."""
        return None

    def worded(self, words: str) -> Request:
        """Make a request of the owner's, as an option has it in words.

        Raises:
            ValueError: the protocol has no words for requests, or these say none.

        """
        raise ValueError(words)

    def outline(
        self,
        payload: bytes,  # noqa: ARG002
        response: bytes | None,  # noqa: ARG002
    ) -> Outline:
        """Return what was requested and how it ended, by names and without values."""
        return Outline({}, {})

    def explain(
        self,
        payload: bytes,  # noqa: ARG002
        response: bytes | None,  # noqa: ARG002
    ) -> dict[str, object]:
        """Return request and response decoded, by names."""
        return {}

    def on_wire(self, payload: bytes, number: int) -> bytes:  # noqa: ARG002
        """Return a traced payload as it is on the wire, for a capture."""
        return payload

    def describe(self, payload: bytes, response: bytes | None) -> str:
        """Return request and response as one line of text, for people."""
        asked = f"{len(payload)} bytes {payload[:32].hex(' ')}"
        if response is None:
            return asked
        return f"{asked} -> {len(response)} bytes {response[:32].hex(' ')}"
