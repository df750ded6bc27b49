"""One client: a downstream codec on an accepted socket.

What it reads becomes exchanges; it never waits for one, it is told. Where the codec
is `ordered`, what it has to say waits in line until all that came before it is said.

A client may not fill memory. One that asks more than the queue takes, or does not
read its responses, is read no further: TCP tells its sender to wait. Where the
protocol asks for that, a little is read all the same, so that its close is seen.
Of responses it gets at most two that it does not read: the one that was in flight when
the first did not fit.
"""

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Any, Protocol as Interface, cast, override

from ..dispatch.exchange import Exchange, Result
from ..limits import ECHO_SECONDS, REFUSAL_DELAY
from ..protocols.base import Close, Failure, Ignored, Progress, Reply, Request
from ..sockets import set_keepalive
from .memory import SMALL
from .ordered_replies import OrderedReplies, Then
from .peer import Peer
from .server_tls import ServerTls
from .web_page import begins_http

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    import ssl

    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.queue import RequestQueue
    from ..limits import Limits
    from ..protocols.base import DownstreamCodec, DownstreamEvent, Protocol
    from ..settings import Settings
    from .memory import Memory

LOGGER = logging.getLogger(__name__)

_READ_AT_ONCE = 64 << 10
"""Less than asyncio would read: what is read of a client held back must be kept."""


class ClientOwner(Interface):
    """What a client needs of its listener."""

    settings: Settings
    limits: Limits
    protocol: Protocol[Any]
    queue: RequestQueue
    dispatcher: Dispatcher
    memory: Memory

    def admit(self, client: Client, sock: TransportSocket | None) -> bool:
        """Count a client in that came by `sock`, or tell that it may not come."""

    def forget(self, client: Client) -> None:
        """Count a client out: its connection is gone."""

    def complain(self, client: Client, reason: str) -> None:
        """Note bytes of a client's that are no request."""


class Client(asyncio.Protocol, Peer):
    """One accepted connection."""

    __slots__ = (
        "_accepted",
        "_beginning",
        "_closed",
        "_codec",
        "_delay_timer",
        "_delayed",
        "_dispatcher",
        "_echoed",
        "_eof",
        "_incomplete",
        "_line",
        "_linger",
        "_listener",
        "_loop",
        "_memory",
        "_ordered",
        "_queue",
        "_read_at_once",
        "_reading",
        "_refused_at",
        "_served",
        "_stalled",
        "_time",
        "_tls",
        "_tls_context",
        "_transport",
        "occupied",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        listener: ClientOwner,
        codec: DownstreamCodec[Any],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        Peer.__init__(self)
        self._listener = listener
        self._queue = listener.queue
        self._dispatcher = listener.dispatcher
        self._memory = listener.memory
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._codec = codec
        self._ordered = codec.ordered
        self._read_at_once = listener.protocol.read_while_held // 2 or _READ_AT_ONCE
        self._beginning = None if listener.protocol.is_http else b""
        """What it sent first, until that is known to be no web page's request."""
        self._line = OrderedReplies(codec)
        self._echoed = -inf
        """When a keepalive of its was echoed last."""
        self._eof = False
        self._reading = True
        self._accepted = False
        self._closed = False
        """Nothing more is read from it, nor written to it."""
        self._incomplete = False
        self._stalled = False
        """There may be messages received that are not taken yet, room or not."""
        self._refused_at = -inf
        """When it was told last that a request of its was refused at once."""
        self._served = 0
        """Responses that it had got by then."""
        self._delayed: list[tuple[Exchange, Failure]] = []
        """Refusals that it will be told a little later."""
        self._delay_timer: asyncio.TimerHandle | None = None
        self._tls_context = tls
        self._tls: ServerTls | None = None
        self.occupied = 0
        """Bytes of its large message that is still to be completed."""
        self._linger: asyncio.TimerHandle | None = None
        """Set once it has been told our last words; closes it at the latest."""

    @override
    def __repr__(self) -> str:
        return (
            f"<Client {self.name}: {len(self.pending)} pending, "
            f"{self.in_flight} in flight>"
        )

    # ---- the connection ---------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._tls is not None:
            self._tls.introduced(transport)
            return
        listener = self._listener
        peer = transport.get_extra_info("peername")
        if not peer:
            # It is gone before it was accepted.
            self.abort()
            return
        self.came_from(peer[0], peer[1], self._loop.time())
        if not listener.admit(self, transport.get_extra_info("socket")):
            self.abort()
            return
        self._accepted = True
        set_keepalive(transport)
        if self._tls_context is not None:
            self._tls = ServerTls(self, self._tls_context)
            self._tls.begin(self._transport)
        else:
            transport.max_size = self._read_at_once  # type: ignore[attr-defined]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if not self._accepted:
            return
        if self._linger is not None:
            self._linger.cancel()
        self._leave()
        occupied, self.occupied = self.occupied, 0
        self._memory.occupy(-occupied, incomplete=True)
        self._line.clear()
        self._delayed.clear()
        if self._delay_timer is not None:
            self._delay_timer.cancel()
        LOGGER.info("Client %s disconnected%s", self.name, f": {exc}" if exc else "")
        self._listener.forget(self)

    def _leave(self) -> None:
        """Ask nothing more on behalf of somebody who is not there."""
        if not self.gone:
            self.gone = True
            dropped = self._dispatcher.leave(self)
            for exchange in dropped:
                self._release(exchange)
            if self._line:
                self._line.abandon(dropped, self.pending)

    def abort(self) -> None:
        """Close the connection at once."""
        self._closed = True
        self._transport.abort()

    @property
    def idle_since(self) -> float | None:
        """When it last asked something, or came; None while it is owed an answer."""
        if self.pending or self.joined or self.in_flight or self._line:
            return None
        return self.since if self.last_request is None else self.last_request

    def close_idle(self) -> None:
        """Close the connection of a client that has asked nothing for long."""
        LOGGER.info("Client %s is closed: it has asked nothing for long", self.name)
        self._close()

    def fail(self, reason: str) -> None:
        """Close the connection because of what the client sent."""
        self._listener.complain(self, reason)
        self._close()

    def _close(self) -> None:
        """Close the connection once what was written is sent."""
        self._closed = True
        self._transport.close()

    def _close_after_last_words(self) -> None:
        """Close in stages: say no more, and close once the client does the same.

        A client whose connection is closed while it sends is reset by the system, and
        never reads what it was told (RFC 9112 §9.6).
        """
        transport = self._transport
        if self._eof or not transport.can_write_eof():
            self._close()
            return
        self._closed = True
        transport.write_eof()
        self._linger = self._loop.call_later(self._listener.limits.linger, self.abort)
        if not self._reading:
            self._reading = True
            transport.resume_reading()

    # ---- reading ----------------------------------------------------------------

    @override
    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        self.bytes_in += len(data)
        if not (self.pending or self.joined or self._stalled or self.held):
            # what is blocked has something in the codec, which then takes nothing fast
            request = self._codec.fast_request(data)
            if request is not None:
                now = self._time()
                self._ask(request, now)
                self._dispatcher.dispatch(now)
                return
        self._codec.receive_data(data)
        if self._beginning is not None and not self._may_begin(data):
            return
        if self.blocked or self.held or self._stalled:
            self._pause_if_full()
        else:
            self._read()

    def _may_begin(self, data: bytes) -> bool:
        """Tell whether what came first may be taken for the protocol's messages."""
        self._beginning = begun = (self._beginning or b"") + data
        is_http = begins_http(begun)
        if is_http is None:
            self._count_incomplete(self._codec.buffered)
            return False
        self._beginning = None
        if is_http:
            self.fail("it sends an HTTP request, as a web page may")
        return not is_http

    def _read(self) -> None:
        """Take requests from what was received, as far as there is room for them."""
        codec = self._codec
        now = self._loop.time()
        asked = False
        left = self._listener.limits.messages
        self._stalled = False
        buffered = codec.buffered
        while buffered:
            if (self.pending or self.joined) and not self._queue.has_room(self):
                self._queue.block(self)
                self._pause_if_full()
                break
            if not left or self._must_wait():
                self._stall()
                break
            left -= 1
            event = codec.next_event()
            if event is None:
                buffered = codec.buffered
                break
            if isinstance(event, Request):
                if len(event.payload) > SMALL:
                    self._memory.occupy(len(event.payload))
                self._ask(event, now)
                asked = True
            elif not self._take(event):
                break
            buffered = codec.buffered
        if asked and self._incomplete:  # what has begun now is another message
            self._memory.begun(self, incomplete=False)
        if buffered or self._incomplete:
            waits = self.blocked or self._stalled
            self._count_incomplete(0 if waits else buffered)
        if asked:
            self._dispatcher.dispatch(now)

    def _must_wait(self) -> bool:
        """Tell whether what it has been answered must be on its way first."""
        limits = self._listener.limits
        if self.held or len(self._delayed) >= limits.settled:
            return True
        line = self._line
        if not line:
            return False
        unsettled = len(self.pending) + self.joined + self.in_flight
        return line.own >= limits.own_replies or len(line) - unsettled >= limits.settled

    def _stall(self) -> None:
        """Take no more messages for now; `_go_on` does, in another turn."""
        self._stalled = True
        self._pause_if_full()
        if not self._must_wait():
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._stalled:
            self.read_on()

    def _ask(self, request: Request, now: float) -> None:
        self.requests += 1
        self.last_request = now
        timeout = self._listener.settings.timeout
        exchange = Exchange(request, self, now, now + timeout)
        if self._ordered:
            self._line.append(exchange)
        self._dispatcher.submit(exchange)

    def _take(self, event: DownstreamEvent) -> bool:
        """Take what is not a request; tell whether reading goes on."""
        if isinstance(event, Progress):
            return True
        if isinstance(event, Ignored):
            self._listener.complain(self, event.reason)
            if not event.reply:
                return True
            event = Reply(event.reply)
        if isinstance(event, Close):
            self._listener.complain(self, event.reason)
        elif cast("Reply", event).keepalive and not self._may_echo():
            return True
        self._line.append(cast("Reply | Close", event))
        self._say()
        return not isinstance(event, Close)

    def _may_echo(self) -> bool:
        now = self._time()
        if now - self._echoed < ECHO_SECONDS:
            return False
        self._echoed = now
        return True

    def _count_incomplete(self, buffered: int) -> None:
        """Keep account of a message's time and memory while it is incomplete."""
        self._incomplete = buffered > 0
        self._memory.begun(self, incomplete=self._incomplete)
        size = buffered if buffered > SMALL else 0
        if size != self.occupied:
            grown = size - self.occupied
            self.occupied = size
            self._memory.occupy(grown, incomplete=True)
        if size and not self._memory.has_room(self):
            self._stop_reading()
            self._memory.starve(self)

    def _pause_if_full(self) -> None:
        room = self._listener.protocol.read_while_held - self._codec.buffered
        if room < self._read_at_once:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def read_on(self) -> None:
        """Read on: nothing stands in the way that did."""
        if self.blocked or self.held or self._closed:
            return
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        self._read()
        if self._eof:
            self._close_if_done()

    @override
    def unblock(self) -> None:
        self.read_on()

    @override
    def eof_received(self) -> bool:
        if self._closed:
            return False
        self._eof = True
        if self._listener.protocol.drop_reads_at_eof:
            if not self._beginning:
                self._take_last()
            self._stalled = False
            self._leave()
            self._say()
        elif not (self.blocked or self._stalled):
            unfinished = self._codec.eof()
            if unfinished is not None:
                self._listener.complain(self, unfinished.reason)
        self._close_if_done()
        return self._tls is None  # within TLS there is no half-close

    def _take_last(self) -> None:
        """Take the writes that were received and had no room in the queue yet."""
        while (event := self._codec.next_event()) is not None:
            if isinstance(event, Close):
                break
            if isinstance(event, Request) and event.writes is not None:
                self._ask(event, self._loop.time())

    def _close_if_done(self) -> None:
        """Close after a half-close, once nothing is left to be said."""
        waits = self.blocked or self._stalled or self._delayed
        if not (self.pending or self.in_flight or self._line or waits):
            self._memory.begun(self, incomplete=False)
            self._close()

    # ---- writing ----------------------------------------------------------------

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        self.responses += 1
        if self._memory.occupied:
            self._release(exchange)
        if self._ordered:
            exchange.result = Result(response)
            self._say()
        else:
            self._write(self._codec.reply(exchange.request, response))
        if self._eof:
            self._close_if_done()

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        self.failures += 1
        if failure.is_rule:
            self.refused += 1
        if self._memory.occupied:
            self._release(exchange)
        if not exchange.attempts and self._asks_again(exchange):
            self._delay(exchange, failure)
        else:
            self._refuse(exchange, failure)
            if self._eof:
                self._close_if_done()

    def _asks_again(self, exchange: Exchange) -> bool:
        """Tell whether a request was refused at once that follows such a refusal."""
        now = self._time()
        if now - exchange.arrived >= REFUSAL_DELAY:
            return False
        if self._delayed:
            return True
        again = self._served == self.responses and (
            0 < exchange.arrived - self._refused_at < REFUSAL_DELAY
        )
        self._refused_at = now
        self._served = self.responses
        return again

    def _delay(self, exchange: Exchange, failure: Failure) -> None:
        """Refuse a request a little later; one timer serves all that wait."""
        if not self._delayed:
            self._delay_timer = self._loop.call_later(
                REFUSAL_DELAY, self._refuse_delayed
            )
        self._delayed.append((exchange, failure))
        if len(self._delayed) >= self._listener.limits.settled:
            self._stalled = True

    def _refuse_delayed(self) -> None:
        delayed, self._delayed = self._delayed, []
        self._refused_at = self._time()
        for exchange, failure in delayed:
            self._refuse(exchange, failure)
        self._go_on()
        if self._eof:
            self._close_if_done()

    def _refuse(self, exchange: Exchange, failure: Failure) -> None:
        if self._ordered:
            exchange.result = Result(failure=failure)
            self._say()
        else:
            self._write_or_close(self._codec.refuse(exchange.request, failure))

    def _release(self, exchange: Exchange) -> None:
        """Give back the memory of a large request that has ended."""
        size = len(exchange.request.payload)
        if size > SMALL:
            self._memory.occupy(-size)

    def _say(self) -> None:
        """Say what stands first in the line, as far as it is known."""
        while not self._closed and (said := self._line.pop()) is not None:
            self._write(said.data)
            if said.then is Then.CLOSE:
                self._close()
            elif said.then is Then.LINGER:
                self._close_after_last_words()
        if self._stalled and not self._must_wait():
            self._loop.call_soon(self._go_on)

    def _write_or_close(self, data: bytes | None) -> None:
        if data is None:
            self._close()
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if self._closed or transport.is_closing() or not data:
            return
        self.bytes_out += len(data)
        transport.write(data)
        if self.held:
            self._memory.unread(self, transport.get_write_buffer_size())

    @override
    def pause_writing(self) -> None:
        self.held = True
        self._memory.begun(self, incomplete=False)  # it may be complete, but unread
        self._pause_if_full()

    @override
    def resume_writing(self) -> None:
        self.held = False
        self._memory.unread(self, 0)
        self._queue.offer(self)
        self.read_on()
        self._dispatcher.dispatch(self._loop.time())
