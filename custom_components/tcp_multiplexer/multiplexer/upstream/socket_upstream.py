"""The usual kind of upstream connection: a protocol's upstream codec on a transport.

That is a TCP socket, unless a subclass connects in another way. It decides nothing:
retries and timeouts are up to the dispatcher, reopening to the pool.
"""

from __future__ import annotations

from abc import abstractmethod
import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast, override

from ..clock import clock_of
from ..dispatch.exchange import CloseReason, Upstream
from ..limits import ECHO_SECONDS, LIMITS
from ..memory import SMALL
from ..protocols.base import Answer, Close, Failed, SendBack, Unsolicited
from ..protocols.compiled import mypyc_attr
from ..sockets import limit_reads, set_keepalive
from ..tls import SHUTDOWN_SECONDS
from .opening import connect_socket, open_within

if TYPE_CHECKING:
    from collections.abc import Coroutine
    import ssl

    from ..dispatch.exchange import Exchange, UpstreamOwner
    from ..memory import Memory
    from ..protocols.base import Request, UpstreamCodec, UpstreamEvent
    from .resolver import Resolver

_WRITE_BUFFER = 64 << 10
"""Bytes that a device may leave unread, beyond what the system holds for it."""
_READ_AT_ONCE: Final = 64 << 10
"""Bytes read at a time: to allocate asyncio's 256 KiB may cost more than a request."""

_FLOOD: Final = 64
"""Messages in one read beyond which they cannot all be responses."""
_READ_OF_FLOOD: Final = 1 << 10
"""Bytes read at a time in a flood: the messages in them take about 1 ms."""
_PAUSE_SECONDS: Final = 200e-6
"""Pause for each message of a flood, some twenty times what it takes."""


class Segments:
    """What is known of a device that gets several requests in one segment.

    Some take one read of their socket for one request, and overlook the others.
    """

    _LOST_TO_KNOW = 3

    def __init__(self) -> None:
        self.proven = False
        """It takes them all."""
        self._lost = 0

    @property
    def overlooked(self) -> bool:
        """It takes the first only."""
        return not self.proven and self._lost >= self._LOST_TO_KNOW

    def lost(self) -> None:
        """Note that one got no response, and the first of its segment did."""
        self._lost += 1


def prepare_socket(transport: asyncio.BaseTransport) -> None:
    """Set what every TCP connection to a device needs."""
    cast("asyncio.Transport", transport).set_write_buffer_limits(high=_WRITE_BUFFER)
    set_keepalive(transport)


@mypyc_attr(allow_interpreted_subclasses=True)
class StreamUpstream(Upstream):
    """A protocol's codec on a transport.

    It is an `asyncio.Protocol` without being derived from it, since compiled classes
    have one base.
    """

    def __init__(
        self,
        owner: UpstreamOwner,
        codec: UpstreamCodec[Any],
        *,
        batch: bool,
        segments: Segments | None = None,
        connect_seconds: float | None = LIMITS.connect,
        memory: Memory | None = None,
    ) -> None:
        """Connect within `connect_seconds`; None: whenever the device does.

        `batch` joins what is sent in one iteration of the loop into one write. Large
        responses are received as far as there is `memory`, or without limit.
        """
        super().__init__(owner)
        self._statistics = owner.statistics
        self._codec = codec
        self._connect_seconds = connect_seconds
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._time = clock_of(self._loop)
        self._batch = batch
        self._segments = segments or Segments()
        self._behind: dict[Any, Any] = {}
        """Requests that went behind another in its segment, with that one."""
        self._tick: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._echoed = -inf
        """When a keepalive of the device was last echoed (loop time)."""
        self._open = False
        self._memory = memory
        self.occupied = 0
        """Bytes of a large response that is still to be completed."""
        self._starved = False
        """It is not read, for want of memory."""
        self._slowly: asyncio.TimerHandle | None = None
        """Reads on after a pause that was made because of a flood."""
        self._flooded = False
        """The last read brought more messages than can be responses."""
        self._rest = b""
        """What came beyond what is read at a time: some transports know no limit."""
        self._ended = False
        """It is of no more use: nothing that arrives later counts."""

    @property
    def as_protocol(self) -> asyncio.Protocol:
        """This, for what takes an asyncio protocol."""
        return cast("asyncio.Protocol", self)

    @property
    @override
    def identifies(self) -> bool:
        return self._codec.identifies

    @property
    @override
    def names_unit(self) -> bool:
        return self._codec.names_unit

    @property
    @override
    def quiet(self) -> float:
        return self._codec.quiet

    @override
    def open(self) -> Coroutine[Any, Any, None]:
        return open_within(
            self._connect_seconds, self._connect, self.opened, self.abandon
        )

    def opened(self) -> None:
        """Begin: there is a connection.

        Raises:
            ConnectionAbortedError: it is closed already.

        """
        if self._ended:
            message = "the device closed the connection as soon as it was open"
            raise ConnectionAbortedError(message)
        self._open = True
        self.opened_at = self.last_used = self.last_received = self._loop.time()

    @abstractmethod
    def _connect(self) -> Coroutine[Any, Any, None]:
        """Make a transport call `connection_made`; to be awaited.

        Raises:
            OSError: there is no connection; the text says why.

        """

    def abandon(self) -> None:
        """End: there is to be no connection."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to use a transport."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def pause_writing(self) -> None:
        """Close if the device reads nothing."""
        if not self.in_flight or self.sent > self.responses + 1:
            # not one long request, but those before it, or keepalives, are left unread
            self._loop.call_soon(
                self.close, CloseReason.NO_RESPONSE, "the device does not read"
            )

    def resume_writing(self) -> None:
        """Go on: the device reads again."""

    @override
    def send(self, exchange: Exchange) -> None:
        request = exchange.asked
        data = self._codec.send(request)
        self.in_flight[request] = exchange
        self.sent += 1
        self._statistics.bytes_to_upstream += len(data)
        if self._codec.framed_by_silence:
            self._set_tick()
        if not self._batch:
            self._transport.write(data)  # type: ignore[union-attr]
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None and not self._ended:
            self._transport.write(b"".join(self._out))
            if len(self._out) > 1 and not self._segments.proven:
                self._note_segment()
        self._out.clear()

    def _note_segment(self) -> None:
        """Remember which requests went in one segment, until one is answered."""
        if self._takes_all():
            return
        first, *others = list(self.in_flight)[-len(self._out) :]
        self._behind.update(dict.fromkeys(others, first))

    def data_received(self, data: bytes) -> None:
        """Take what has been read."""
        if self._ended:
            return
        self.received = True
        self.timeouts_in_a_row = 0
        self.last_received = self._time()
        self._statistics.bytes_from_upstream += len(data)
        answer = self._codec.fast_answer(data)
        if answer is not None:
            request, response = answer
            self.responses += 1
            self.owner.answered(self, self.in_flight.pop(request), response)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Take what has been read, as far as it is not too much for one turn."""
        at_once = _READ_OF_FLOOD if self._flooded else _READ_AT_ONCE
        if len(data) > at_once:
            data, self._rest = data[:at_once], data[at_once:]
        events = self._codec.feed(data)
        self._handle(events)
        if len(events) > _FLOOD or self._flooded or self._rest:
            self._read_slowly(len(events), len(data))
        if self._codec.framed_by_silence or self._tick is not None:
            self._set_tick()
        size = self._codec.buffered
        if (size > SMALL or self.occupied) and not self._ended:
            self._count_received(size if size > SMALL else 0)

    def _count_received(self, size: int) -> None:
        """Keep account of a response's memory while it is incomplete."""
        if self._memory is not None and not self._memory.receiving(self, size):
            self._starved = True
            cast("asyncio.Transport", self._transport).pause_reading()

    def read_on(self) -> None:
        """Read on: there is memory again."""
        self._starved = False
        if self._slowly is None:
            self._resume()

    def _read_slowly(self, events: int, size: int) -> None:
        """Leave the loop to others while the device sends more than anybody asked for.

        TCP makes it wait. A serial line brings no such numbers.
        """
        transport = cast("asyncio.Transport", self._transport)
        # Not by its class: transports of other loops are none of asyncio's.
        if self._ended or not hasattr(transport, "pause_reading"):
            self._take_rest()
            return
        # It goes on as long as there is more than what is read at a time.
        goes_on = self._flooded and events > 0 and size >= _READ_OF_FLOOD
        self._flooded = goes_on or events > _FLOOD
        limit_reads(transport, _READ_OF_FLOOD if self._flooded else _READ_AT_ONCE)
        if self._flooded or self._rest:
            transport.pause_reading()
            pause = events * _PAUSE_SECONDS if self._flooded else 0
            self._slowly = self._loop.call_later(pause, self._go_on)

    def _go_on(self) -> None:
        """Read on after the pause, as far as there is memory."""
        self._slowly = None
        if not self._starved:
            self._resume()
        if self._codec.framed_by_silence:
            self._set_tick()

    def _resume(self) -> None:
        """Take more of what has been read, and read on when there is no more of it."""
        self._take_rest()
        if self._slowly is None and not (self._starved or self._ended):
            cast("asyncio.Transport", self._transport).resume_reading()

    def _take_rest(self) -> None:
        rest, self._rest = self._rest, b""
        if rest and not self._ended:
            self._take(rest)

    def _set_tick(self) -> None:
        """Call the codec again when silence may have ended a frame."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        at = self._codec.deadline(self._loop.time())
        silent = self._slowly is None  # else it is not heard, because it is not read
        if at is not None and silent and not self._ended:
            self._tick = self._loop.call_at(at, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        self.last_received = now = self._loop.time()
        self._handle(self._codec.tick(now))
        self._set_tick()

    def _handle(self, events: list[UpstreamEvent[Any]]) -> None:
        if not self._codec.reusable or (events and type(events[-1]) is Close):
            # before an answer below could make it ready for another request
            self.reusable = False
        for event in events:
            kind = type(event)
            if kind is Answer:
                answer = cast("Answer[Any]", event)
                exchange = self.in_flight.pop(answer.request)
                self.responses += 1
                self.owner.answered(self, exchange, answer.response)
            elif isinstance(event, Failed):
                exchange = self.in_flight.pop(event.request)
                self.owner.unanswerable(self, exchange, event.failure)
            elif isinstance(event, Unsolicited):
                self.owner.unsolicited(self, event)
            elif isinstance(event, SendBack):
                self._send_back(event)
            elif isinstance(event, Close):
                self.close(CloseReason.INVALID_DATA, event.reason)
            if self._ended:
                return

    def _send_back(self, event: SendBack) -> None:
        if event.keepalive:
            if self.last_received - self._echoed < ECHO_SECONDS:
                return
            self._echoed = self.last_received
        if self._transport is not None:
            self._statistics.bytes_to_upstream += len(event.data)
            self._transport.write(event.data)

    def eof_received(self) -> bool:
        """Note that the device sends no more, and close."""
        if not self._ended:
            self.reusable = False
            self.last_received = self._loop.time()
            rest, self._rest = self._rest, b""
            if rest:
                self._handle(self._codec.feed(rest))
            self._handle(self._codec.eof())
            self.close(CloseReason.CLOSED_BY_DEVICE)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        if exc is None:
            self._end(CloseReason.CLOSED_BY_DEVICE, "")
        else:
            self._end(CloseReason.RESET, str(exc))

    @override
    def begun(self, exchange: Exchange) -> bool:
        # It may be in what is still to be taken.
        return self._codec.begun(exchange.asked) or bool(self._rest)

    @override
    def expire(self, exchange: Exchange) -> bool:
        request = exchange.asked
        del self.in_flight[request]
        self._note_lost(request)
        keep = self._codec.expire(exchange.asked)
        self.reusable = self.reusable and self._codec.reusable
        return keep

    def _takes_all(self) -> bool:
        """Return whether a request was answered that went behind another."""
        if any(request not in self.in_flight for request in self._behind):
            self._segments.proven = True
            self._behind.clear()
        return self._segments.proven

    def _note_lost(self, request: Request) -> None:
        """See whether the device has overlooked what got no response."""
        first = self._behind.pop(request, None)
        if first is None:
            # of its segment, nothing is known if the first got no response either
            for other in [o for o, f in self._behind.items() if f is request]:
                del self._behind[other]
        elif first not in self.in_flight and not self._takes_all():
            self._segments.lost()
            self.one_at_a_time = self._segments.overlooked

    @override
    def close(self, reason: CloseReason, detail: str = "") -> None:
        if self._transport is not None:
            # abort, not close: a request still unsent must not reach the device after
            # its requester has been told that it failed
            self._transport.abort()
        self._end(reason, detail)

    def _end(self, reason: CloseReason, detail: str) -> None:
        """Report the end to the owner, once, as soon as the connection is unusable."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._slowly is not None:
            self._slowly.cancel()
            self._slowly = None
        if not self._ended:
            self._ended = True
            if self._open:
                self.owner.lost(self, reason, detail)
            if self.occupied:
                self._count_received(0)


class SocketUpstream(StreamUpstream):
    """A protocol's codec on a TCP connection."""

    def __init__(
        self,
        owner: UpstreamOwner,
        codec: UpstreamCodec[Any],
        resolver: Resolver,
        *,
        batch: bool,
        segments: Segments | None = None,
        connect_seconds: float = LIMITS.connect,
        memory: Memory | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """Connect to an address that `resolver` gives, within `connect_seconds`.

        `server_name` is what its certificate must name.
        """
        super().__init__(
            owner,
            codec,
            batch=batch,
            segments=segments,
            connect_seconds=connect_seconds,
            memory=memory,
        )
        self._resolver = resolver
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls,
                "server_hostname": server_name,
                "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
            }

    @override
    def _connect(self) -> Coroutine[Any, Any, None]:
        return connect_socket(self.as_protocol, self._resolver, self._tls)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        prepare_socket(transport)
        limit_reads(transport, _READ_AT_ONCE)
