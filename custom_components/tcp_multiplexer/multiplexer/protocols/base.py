"""What a protocol is: two codecs, one for each face, and the messages they share.

The rules of this floor: bytes in, messages out. Nothing here reads a socket, a
clock or a setting; time, where framing needs it, is handed in. A codec belongs to
exactly one connection and is thrown away with it.

The way of a request:

    client bytes ─ DownstreamCodec.receive_data / next_event ─▶ Request
    Request      ─ UpstreamCodec.send ─▶ bytes for the device
    device bytes ─ UpstreamCodec.feed ─▶ Answer(request, response)
    response     ─ DownstreamCodec.reply ─▶ bytes for the client

`ResponseT` is the protocol's own idea of a response (plain `bytes` for all but
HTTP); the engine carries it from one codec to the other without looking inside,
except that `bytes(response)` must work, for traces.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
import enum
from types import MappingProxyType
from typing import Any, NamedTuple

from .options import Framing, ProtocolOptions, SettingsError


class Failure(enum.StrEnum):
    """Why a request gets no response from the device."""

    NO_CONNECTION = "no_connection"
    """No upstream connection before the deadline."""
    CONNECTION_LOST = "connection_lost"
    """The connection ended after the request was sent, and it may not be resent."""
    NO_RESPONSE = "no_response"
    """Sent, but the device did not answer before the deadline."""
    INVALID_RESPONSE = "invalid_response"
    """The device answered with something that cannot be passed on."""
    BUSY = "busy"
    """Still queued at the deadline: the device is slower than its clients."""
    PAUSED = "paused"
    """The multiplexer was told to leave the device alone."""
    REFUSED = "refused"
    """A rule of the owner's does not let this request pass."""
    TOO_LARGE = "too_large"
    """It asks for more at once than the owner lets the device be asked, or for a
    quantity that the protocol does not know."""

    @property
    def is_rule(self) -> bool:
        """A rule decided it, so the client is told whatever `on_failure` says."""
        return self in {Failure.REFUSED, Failure.TOO_LARGE}


type ShareKey = bytes
"""What a request reads; its first byte is the scope, as in `Request.writes`."""


class Request:
    """One complete request, in the form that does not depend on who asked."""

    __slots__ = (
        "context",
        "expects_reply",
        "payload",
        "retry_safe",
        "share_key",
        "writes",
    )

    def __init__(
        self,
        payload: bytes,
        context: Any = None,
        retry_safe: bool = False,
        share_key: ShareKey | None = None,
        writes: Hashable | None = None,
        *,
        expects_reply: bool = True,
    ) -> None:
        """Keep what a codec read; nothing is checked here."""
        self.payload = payload
        """What the device has to see, without a connection's own numbering."""
        self.context = context
        """The downstream codec's own memory: how to address the reply."""
        self.retry_safe = retry_safe
        """May be sent twice without changing anything at the device."""
        self.share_key = share_key
        """Requests of equal key may be answered by one response. None: never."""
        self.writes = writes
        """The scope that it changes (Modbus: the unit), or None for a read."""
        self.expects_reply = expects_reply
        """False where devices on a serial line stay silent (a broadcast)."""

    flaw: Failure | None = None
    """Why it must not be sent, whatever the owner's rules. What has one neither reads
    nor writes: `share_key` and `writes` are None."""

    @property
    def unit(self) -> Hashable | None:
        """The part of the device that is asked, where a protocol has parts."""
        return None


class Reply(NamedTuple):
    """Downstream: bytes for the client that need no upstream, in their turn."""

    data: bytes


class Ignored(NamedTuple):
    """Downstream: something that was discarded as the specification asks.

    `reply` is what its sender is told at once, if anything.
    """

    reason: str
    reply: bytes = b""


class Close(NamedTuple):
    """Either face: the connection cannot go on. `data` are the last words."""

    reason: str
    data: bytes = b""


class Answer[ResponseT](NamedTuple):
    """Upstream: the response to `request`, complete."""

    request: Request
    response: ResponseT


class Failed(NamedTuple):
    """Upstream: `request` was answered, but with nothing that can be passed on."""

    request: Request
    failure: Failure
    reason: str


class Mismatch(enum.StrEnum):
    """What does not fit in a response that would fit otherwise."""

    IDENTIFIER = "identifier"
    UNIT = "unit"


class Unsolicited(NamedTuple):
    """Upstream: bytes that belong to nobody: late, doubled or never asked for.

    `late` marks the response of a request that had timed out. `lenient` says what does
    not fit in one that lenient matching would have taken for the answer to the oldest
    request in flight.
    """

    reason: str
    data: bytes
    late: bool = False
    lenient: Mismatch | None = None


class SendBack(NamedTuple):
    """Upstream: bytes that the device is owed at once (a keepalive's echo)."""

    data: bytes


type DownstreamEvent = Request | Reply | Ignored | Close
type UpstreamEvent[ResponseT] = (
    Answer[ResponseT] | Failed | Unsolicited | SendBack | Close
)


class DownstreamCodec[ResponseT](ABC):
    """Faces one client: its bytes to requests, responses to its bytes.

    Call `receive_data` with what arrived, then `next_event` until it gives None.
    The engine may stop asking in between (back-pressure): what was received stays
    in the codec and the next `next_event` goes on where it stopped. After a `Close`
    nothing more may be asked.
    """

    __slots__ = ()

    ordered: bool = True
    """The client must get its replies in the order of its requests."""
    must_close: bool = False
    """True when the connection has to be closed after the reply just written."""

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes received that are not yet part of a complete message."""

    @abstractmethod
    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client; never raises, whatever they are."""

    @abstractmethod
    def next_event(self) -> DownstreamEvent | None:
        """Give the next message, or None when more bytes are needed."""

    def fast_request(self, data: bytes) -> Request | None:  # noqa: ARG002
        """Give the request that `data` is, whole and alone, as it is as a rule.

        The short way past `receive_data` and `next_event`, where a codec has one. None
        says that nothing was taken: `data` must go the long way.
        """
        return None

    @abstractmethod
    def reply(self, request: Request, response: ResponseT) -> bytes:
        """Give the bytes that answer `request`.

        Called in the order of requests where the codec is `ordered`.
        """

    @abstractmethod
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        """Give the bytes that tell the client why not; None: close instead."""

    def eof(self) -> Ignored | None:
        """Note that the client sends no more; tell of an unfinished message."""
        if self.buffered:
            return Ignored("unfinished message at end of stream")
        return None


class UpstreamCodec[ResponseT](ABC):
    """Faces one upstream connection: requests to its bytes, its bytes to answers."""

    __slots__ = ()

    framed_by_silence: bool = False
    """`deadline` and `tick` matter."""
    names_unit: bool = False
    """A response names its unit: `quiet` then concerns that unit alone."""
    quiet: float = 0.0
    """After a timeout, send nothing for so many seconds: a late response must not
    be taken for the next one's. What arrives meanwhile is discarded."""

    reusable: bool = True
    """False once this connection must not carry another request."""

    @abstractmethod
    def send(self, request: Request) -> bytes:
        """Give the bytes that ask `request` on this connection and await its answer."""

    @abstractmethod
    def feed(self, data: bytes) -> list[UpstreamEvent[ResponseT]]:
        """Take bytes from the device, give what they mean; never raises."""

    def fast_answer(
        self,
        data: bytes,  # noqa: ARG002
    ) -> tuple[Request, ResponseT] | None:
        """Give the answer that `data` is, whole and alone, as it is as a rule.

        The short way past `feed`, where a codec has one. None says that nothing was
        taken: `data` must go the long way.
        """
        return None

    @abstractmethod
    def begun(self, request: Request) -> bool:
        """Tell whether a byte of the response to `request` may have arrived."""

    @abstractmethod
    def expire(self, request: Request) -> bool:
        """Await `request` no longer; tell whether the connection may be kept."""

    def eof(self) -> list[UpstreamEvent[ResponseT]]:
        """Note that the device sends no more; give what that completes."""
        return []

    def deadline(self, now: float) -> float | None:  # noqa: ARG002
        """When `tick` wants to be called if nothing arrives (framing by silence).

        Asked after each `send`, `feed` and `tick`, at that moment.
        """
        return None

    def tick(self, now: float) -> list[UpstreamEvent[ResponseT]]:  # noqa: ARG002
        """Note that it is `now` and nothing arrived; give what that completes."""
        return []


class Outline(NamedTuple):
    """An exchange without the values in it, for those whose business these are not."""

    asked: Mapping[str, int]
    answered: Mapping[str, int]


class Rules(ABC):
    """The owner's rules for requests, as far as a protocol's own words go in them."""

    @abstractmethod
    def judge(self, payload: bytes) -> Failure | None:
        """Say why a request does not pass; None: it does."""


class Protocol[ResponseT](ABC):
    """One application protocol: how to make its codecs, and its manners."""

    name: str
    """What entries and command lines call it."""
    title: str
    """What people call it, in every language."""
    settings: frozenset[str] = frozenset()
    """Names of `Settings` that mean something to it, and nothing to some others."""
    framings: Mapping[Framing, str] = MappingProxyType({})
    """The framings that it knows on either side, with what people call them. None:
    there is but one, and nobody needs to name it."""
    correlated: bool = False
    """Responses name their request: several may be in flight on a connection."""
    drop_reads_at_eof: bool = False
    """A client that closes its side has left, rather than finished asking."""
    retry_needs_served: bool = False
    """Resend only what was lost on a connection that had served an exchange before."""
    read_while_held: int = 0
    """Bytes to go on reading from a client held back, so that its close is seen."""

    has_units: bool = False
    """A payload is a unit identifier and a Modbus PDU."""
    counted_by: slice | None = None
    """Where the two bytes of a payload are that requests are counted by: unit and
    function. None: they are not worth counting apart."""

    @classmethod
    def check(cls, options: ProtocolOptions) -> None:
        """Check that settings go together.

        Raises:
            SettingsError: they do not.

        """
        if not cls.correlated:
            check_one_in_flight(options, cls.name)

    def __init__(self, options: ProtocolOptions) -> None:
        """Keep the options; a protocol belongs to one multiplexer."""
        self.options = options

    @abstractmethod
    def downstream(self, framing: Framing = Framing.TCP) -> DownstreamCodec[ResponseT]:
        """Make the codec for a newly accepted client, one of `framings`."""

    @abstractmethod
    def upstream(self) -> UpstreamCodec[ResponseT]:
        """Make the codec for a newly opened upstream connection."""

    @abstractmethod
    def request(self, payload: bytes) -> Request:
        """Make a request of the host program's own.

        Raises:
            ValueError: `payload` is not exactly one valid request.

        """

    def rules(self, options: ProtocolOptions) -> Rules | None:  # noqa: ARG002
        """Make what judges requests by these options; None: nothing needs judging."""
        return None

    def is_exception(self, response: ResponseT) -> bool:  # noqa: ARG002
        """Tell whether the device said no, in the protocol's own way."""
        return False

    def acknowledge(self, request: Request) -> ResponseT | None:  # noqa: ARG002
        """Make up the response to a write that will not be carried out, if it can."""
        return None

    def explain_write(self, request: Request) -> dict[str, object]:  # noqa: ARG002
        """Give what a write would have changed, by names, for an event."""
        return {}

    def probe(self, last_good: Request | None) -> Request | None:  # noqa: ARG002
        """Give a harmless request that shows whether the device lives, if any."""
        return None

    def outline(
        self,
        payload: bytes,  # noqa: ARG002
        response: bytes | None,  # noqa: ARG002
    ) -> Outline:
        """Give what was asked for and how it ended, by names and without values."""
        return Outline({}, {})

    def explain(
        self,
        payload: bytes,  # noqa: ARG002
        response: bytes | None,  # noqa: ARG002
    ) -> dict[str, object]:
        """Give what was asked and answered, by names."""
        return {}

    def on_wire(self, payload: bytes, number: int) -> bytes:  # noqa: ARG002
        """Give a traced payload as it looks on the wire, for a capture."""
        return payload

    def describe(self, payload: bytes, response: bytes | None) -> str:
        """Say in one line what was asked and answered, for people."""
        asked = f"{len(payload)} bytes {payload[:32].hex(' ')}"
        if response is None:
            return asked
        return f"{asked} -> {len(response)} bytes {response[:32].hex(' ')}"


def check_one_in_flight(options: ProtocolOptions, manner: str) -> None:
    """Check that no more is in flight than responses can be told apart.

    Raises:
        SettingsError: there may be more; `manner` says what tells nothing apart.

    """
    if options.max_in_flight > 1:
        message = f"{manner} can have only 1 request in flight at a time"
        raise SettingsError("max_in_flight", message)
