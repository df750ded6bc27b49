"""Protocols that are nothing but framing: which bytes make one message.

Their messages carry no identifier that a multiplexer could match, so order is all
there is: one request in flight on a connection, and the first message that arrives
after it is its response. From that follows the strictness of `FramedUpstream`: a byte
that arrived before it was asked for would be handed to the next client as its
response, so nothing is sent on a connection that has said too much.

A `Framer` cuts the stream; the codecs and the protocol around it are common.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, override

from .base import (
    Answer,
    Close,
    DownstreamCodec,
    DownstreamEvent,
    Failed,
    Failure,
    Ignored,
    Protocol,
    Reply,
    Request,
    SendBack,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from .compiled import mypyc_attr
from .options import Framing, ProtocolOptions


class FramingError(ValueError):
    """The stream cannot be cut into messages from here on; the text says why."""


class BadFrame(NamedTuple):
    """Bytes that are no message, where it is known at which byte the stream goes on."""

    reason: str
    data: bytes
    reply: bytes = b""
    """What their sender is told at once (a NAK)."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Framer(ABC):
    """Cuts one stream into messages, whatever pieces it comes in.

    A message is given as it stands on the wire, frame and all. The usual piece is one
    whole message: it passes without being copied. A longer stretch is collected in a
    `bytearray` and an offset, so that a message in many pieces costs its length.
    """

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._start = 0

    @property
    def buffered(self) -> int:
        """Bytes received and not yet given as part of a message."""
        return len(self._buffer) - self._start

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        if not self._buffer:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            del self._buffer[: self._start]
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer[self._start :])
            self._buffer += data
        self._start = 0

    @abstractmethod
    def next_message(self) -> bytes | BadFrame | None:
        """Return the next message, or None when more bytes are needed.

        Raises:
            FramingError: what comes next cannot be a message, and nobody knows where
                the next one begins.

        """

    def is_keepalive(self, message: bytes) -> bool:  # noqa: ARG002
        """Return whether `message` says nothing and only wants to be echoed."""
        return False

    @property
    def may_be_keepalive(self) -> bool:
        """Whether what is buffered may turn out to be a keepalive."""
        return False

    def take(self, length: int) -> bytes:
        """Remove the first `length` bytes, all of them there, and give them."""
        end = self._start + length
        message = bytes(self._buffer[self._start : end])
        if end == len(self._buffer):
            self._buffer, self._start = b"", 0
        else:
            self._start = end
        return message

    def take_all(self) -> bytes:
        """Remove everything that is buffered and give it."""
        return self.take(self.buffered)


class FramedDownstream(DownstreamCodec[bytes]):
    """Faces one client: a message is a request, a keepalive comes back."""

    __slots__ = ("_framer",)

    def __init__(self, framer: Framer) -> None:
        self._framer = framer

    @property
    @override
    def buffered(self) -> int:
        return self._framer.buffered

    @override
    def receive_data(self, data: bytes) -> None:
        self._framer.receive(data)

    @override
    def next_event(self) -> DownstreamEvent | None:
        try:
            message = self._framer.next_message()
        except FramingError as err:
            return Close(str(err))
        if message is None:
            return None
        if isinstance(message, BadFrame):
            return Ignored(message.reason, message.reply)
        if self._framer.is_keepalive(message):
            return Reply(message, keepalive=True)
        return Request(message)

    @override
    def reply(self, request: Request, response: bytes) -> bytes:
        return response

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        """Close: these protocols have no words for a refusal of a gateway's own."""
        return None


class FramedUpstream(UpstreamCodec[bytes]):
    """Faces one upstream connection: one request, then exactly one message."""

    __slots__ = ("_early", "_framer", "_pending")

    def __init__(self, framer: Framer) -> None:
        self._framer = framer
        self._pending: Request | None = None
        self._early = False
        """The message that is coming began before the request was sent."""

    @override
    def send(self, request: Request) -> bytes:
        self._pending = request
        self._early = self._framer.buffered > 0
        return request.payload

    @override
    def feed(self, data: bytes) -> list[UpstreamEvent[bytes]]:
        framer = self._framer
        framer.receive(data)
        events: list[UpstreamEvent[bytes]] = []
        try:
            while (message := framer.next_message()) is not None:
                if isinstance(message, BadFrame):
                    events += _discarded(message)
                elif framer.is_keepalive(message):
                    events.append(SendBack(message, keepalive=True))
                elif self._pending is None or self._early:
                    events += self._unasked(message)
                    return events
                else:
                    events.append(Answer(self._pending, message))
                    self._pending = None
                self._early = False
        except FramingError as err:
            if self._pending is not None:
                failure = Failure.INVALID_RESPONSE
                events.append(Failed(self._pending, failure, str(err)))
                self._pending = None
            events.append(Close(str(err)))
            return events
        unasked = self._pending is None or self._early
        if unasked and framer.buffered and not framer.may_be_keepalive:
            events += self._unasked(b"")
        return events

    def _unasked(self, message: bytes) -> tuple[Unsolicited, Close]:
        """Tell of a message, or the beginning of one, that nobody asked for."""
        reason = "data that nobody asked for"
        return Unsolicited(reason, message + self._framer.take_all()), Close(reason)

    @override
    def begun(self, request: Request) -> bool:
        return request is self._pending and self._framer.buffered > 0

    @override
    def expire(self, request: Request) -> bool:
        """Give up: the late response would look like the next request's."""
        self._pending = None
        return False


def _discarded(frame: BadFrame) -> list[UpstreamEvent[bytes]]:
    """Tell of a bad frame; the response, if one is awaited, may still come."""
    discarded = Unsolicited(frame.reason, frame.data)
    return [discarded, SendBack(frame.reply)] if frame.reply else [discarded]


@mypyc_attr(allow_interpreted_subclasses=True)
class FramedProtocol(Protocol[bytes]):
    """A protocol that is its framer.

    Raises:
        ValueError: the options' probe is not exactly one message.

    """

    settings = frozenset(("probe",))

    def __init__(self, options: ProtocolOptions) -> None:
        super().__init__(options)
        self._probe = self.request(options.probe) if options.probe else None

    @abstractmethod
    def framer(self) -> Framer:
        """Make the framer for one direction of a new connection."""

    @override
    def downstream(self, framing: Framing = Framing.TCP) -> FramedDownstream:
        return FramedDownstream(self.framer())

    @override
    def upstream(self) -> FramedUpstream:
        return FramedUpstream(self.framer())

    @override
    def request(self, payload: bytes) -> Request:
        """Make a request of one whole message as it stands on the wire.

        Raises:
            ValueError: `payload` is not exactly one message, or is a keepalive, which
                gets no response.

        """
        framer = self.framer()
        framer.receive(payload)
        message = framer.next_message()
        if message is None:
            raise ValueError(f"the {self.name} message is incomplete")
        if isinstance(message, BadFrame):
            raise ValueError(message.reason)  # noqa: TRY004 - the value is what is bad
        if framer.buffered:
            left = framer.buffered
            raise ValueError(f"{left} bytes follow the {self.name} message")
        if framer.is_keepalive(message):
            raise ValueError(f"an empty {self.name} message gets no response")
        return Request(message)

    @override
    def probe(self, last_good: Request | None) -> Request | None:
        """Ask what the user chose; no message is harmless by itself here."""
        return self._probe
