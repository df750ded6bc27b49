"""One client: a downstream codec on an accepted socket.

What it reads becomes exchanges. It never waits for one: it is called. Where the codec
is `ordered`, what it has to say waits in line until all that came before it is said;
elsewhere, until all is said that came before it with the same identifier.

A client may not fill memory. One that asks more than the queue takes, or does not
read its responses, is read no further: TCP tells its sender to wait. Where the
protocol asks for that, a little is read all the same, so that its close is seen.
Of responses it gets at most two that it does not read: the one that was in flight when
the first did not fit.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast, override

from ..dispatch.exchange import Exchange, Repetition, Result
from ..memory import SMALL
from ..protocols.base import Close, Failure, Ignored, Progress, Reply, Request
from .arrivals import Arrivals
from .connection import ClientConnection
from .ordered_replies import OrderedReplies, Then
from .overlapping import Overlapping
from .refusals import Refusals
from .web_page import begins_http

if TYPE_CHECKING:
    import ssl

    from ..protocols.base import DownstreamCodec, DownstreamEvent
    from ..settings import Settings
    from .owner import ClientOwner

LOGGER = logging.getLogger(__name__)


class Client(ClientConnection):
    """One accepted connection, with what it asks and is answered."""

    __slots__ = (
        "_arrivals",
        "_beginning",
        "_codec",
        "_dispatcher",
        "_in_turn",
        "_latest",
        "_line",
        "_ordered",
        "_overlapping",
        "_queue",
        "_refusals",
        "_stalled",
        "_time",
    )

    def __init__(
        self,
        listener: ClientOwner,
        codec: DownstreamCodec[Any],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(listener, tls)
        self._queue = listener.queue
        self._dispatcher = listener.dispatcher
        self._time = listener.clock
        self._codec = codec
        self._ordered = self._in_turn = codec.ordered
        """Whether replies must leave in order: always, and now."""
        # What most never need is made once they do: there may be a thousand clients.
        self._latest: Exchange | None = None
        """Where replies need no order: what it asked while owed nothing."""
        self._overlapping: Overlapping | None = None
        self._beginning = None if listener.protocol.is_http else b""
        """What it sent first, until that is known to be no web page's request."""
        self._line: OrderedReplies | None = None
        self._stalled = False
        """There may be messages received that are not taken yet, room or not."""
        self._refusals: Refusals | None = None
        self._arrivals: Arrivals | None = None

    @override
    def __repr__(self) -> str:
        return (
            f"<Client {self.name}: {len(self.pending)} pending, "
            f"{self.in_flight} in flight>"
        )

    # ---- coming and going -------------------------------------------------------

    @override
    def apply(self, settings: Settings) -> None:
        self._codec.apply(settings)

    @override
    def ended(self) -> None:
        self._leave()
        occupied, self.occupied = self.occupied, 0
        self._memory.occupy(-occupied, incomplete=True)
        self._latest = None
        if self._line is not None:
            self._line.clear()
        if self._refusals is not None:
            self._refusals.cancel()

    def _leave(self) -> None:
        """Ask nothing more for a client that is gone."""
        if not self.gone:
            self.gone = True
            dropped = self._dispatcher.unanswered.leave(self, self._time())
            for exchange in dropped:
                self._release(exchange)
            if self._line is not None:
                self._line.abandon(dropped, self.pending)
            if self._overlapping is not None:
                self._overlapping.clear()
            self._in_turn = self._ordered

    @override
    def _close(self) -> None:
        if not self._closed:
            # What it does not read keeps the connection, but it asks nothing more.
            self._loop.call_soon(self._leave)
        super()._close()

    @property
    @override
    def idle_since(self) -> float | None:
        """When it last asked something, or came; None while it is owed an answer."""
        if self.pending or self.joined or self.in_flight or self._has_to_say():
            return None
        return self.since if self.last_request is None else self.last_request

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
                self._ask(request, now, now)
                self._dispatcher.dispatch(now)
                return
        self._codec.receive_data(data)
        if self._beginning is not None and not self._may_begin(data):
            return
        if self.blocked or self.held or self._stalled:
            self._wait(self._time())
        else:
            self._read()

    def _may_begin(self, data: bytes) -> bool:
        """Return whether what came first may be taken for the protocol's messages."""
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
        left = self._listener.protocol.messages_at_once
        self._stalled = False
        buffered = codec.buffered
        while buffered:
            if (self.pending or self.joined) and not self._queue.has_room(self):
                self._queue.block(self)
                self._wait(now)
                break
            if not left or self._must_wait():
                self._stall(now)
                break
            left -= 1
            event = codec.next_event()
            if event is None:
                buffered = codec.buffered
                break
            if isinstance(event, Request):
                if len(event.payload) > SMALL:
                    self._memory.occupy(len(event.payload))
                self._ask(event, now, self._completed(now))
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
        """Return whether what it has been answered must be on its way first."""
        limits = self._listener.limits
        settled = 0
        if self._overlapping is not None:
            settled += self._overlapping.waiting
        if self._refusals is not None:
            settled += len(self._refusals)
        if self.held or settled >= limits.settled:
            return True
        line = self._line
        if line is None:
            return False
        unsettled = len(self.pending) + len(self.joined) + self.in_flight
        return line.own >= limits.own_replies or len(line) - unsettled >= limits.settled

    def _stall(self, now: float) -> None:
        """Take no more messages for now; `_go_on` does, in another turn."""
        self._stalled = True
        self._wait(now)
        if not self._must_wait():
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._stalled and not self._must_wait():
            self.read_on()

    def _completed(self, now: float) -> float:
        """Return when the message had come that was just taken from the codec."""
        if self._arrivals is None:
            return now
        return self._arrivals.when(self.bytes_in - self._codec.buffered, now)

    def _ask(self, request: Request, now: float, completed: float) -> None:
        before = self.requests
        if not before:
            self._log_coming(request)
        self.requests = before + 1
        self.last_request = now
        deadline = completed + self._listener.settings.timeout
        exchange = Exchange(request, self, now, deadline)
        if self._ordered:
            self._put_in_line(exchange)
        elif before != self.told:
            self._ask_beside(exchange)
            return
        else:
            self._latest = exchange
        self._dispatcher.submit(exchange)

    def _ask_beside(self, exchange: Exchange) -> None:
        """Ask something while other requests are unanswered."""
        if self._overlapping is None:
            self._overlapping = Overlapping(self._codec)
        overlapping = self._overlapping
        if not self._in_turn:
            self._in_turn = True
            overlapping.add(cast("Exchange", self._latest))
        request = exchange.request
        first = overlapping.repeated_by(request)
        refusals = self._refusals
        if first is None or (refusals is not None and first in refusals):
            alone = overlapping.add(exchange)
            self._dispatcher.submit(exchange, alone=alone)
        else:
            again = Repetition(request, self, exchange.arrived, exchange.deadline)
            overlapping.add(again)
            self._dispatcher.repeat(again, first)

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
        self._put_in_line(cast("Reply | Close", event))
        self._say()
        return not isinstance(event, Close)

    def _wait(self, now: float) -> None:
        """Take nothing of what has come by `now`; read on only if there is room."""
        received = self.bytes_in
        if self._arrivals is None:
            self._arrivals = Arrivals()
        self._arrivals.note(received, received - self._codec.buffered, now)
        self._pause_if_full()

    def _pause_if_full(self) -> None:
        room = self._listener.protocol.read_while_held - self._codec.buffered
        if room < self._read_at_once:
            self._stop_reading()

    @override
    def read_on(self) -> None:
        if self.blocked or self.held or self._closed:
            return
        self._resume_reading()
        self._read()
        if self._eof:
            self._close_if_done()

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
                now = self._time()
                self._ask(event, now, self._completed(now))

    def _close_if_done(self) -> None:
        """Close after a half-close, once nothing is left to be said."""
        waits = self.blocked or self._stalled or self._has_to_say()
        if not (self.pending or self.in_flight or waits):
            self._memory.begun(self, incomplete=False)
            self._close()

    # ---- writing ----------------------------------------------------------------

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        self.told += 1
        self._latest = None
        if self._memory.occupied:
            self._release(exchange)
        if self._in_turn:
            self._settle(exchange, Result(response))
        else:
            self._write(self._codec.reply(exchange.request, response))
        if self._eof:
            self._close_if_done()

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        if failure.is_rule:
            self.refused += 1
        if self._memory.occupied:
            self._release(exchange)
        if self._provokes(exchange):
            refusals = cast("Refusals", self._refusals)
            refusals.delay(exchange, failure, self._refuse_delayed)
            self._stalled = self._stalled or self._must_wait()
        else:
            self._refuse(exchange, failure)
            if self._eof:
                self._close_if_done()

    def _provokes(self, exchange: Exchange) -> bool:
        """Return whether it asked for a refusal again as soon as it had got one."""
        if exchange.attempts or self._closed:
            return False
        if self._refusals is None:
            self._refusals = Refusals(self._loop)
        return self._refusals.repeats(exchange, self._time(), self.responses)

    def _refuse_delayed(self, exchanges: list[tuple[Exchange, Failure]]) -> None:
        for exchange, failure in exchanges:
            self._refuse(exchange, failure)
        self._go_on()
        if self._eof:
            self._close_if_done()

    def _refuse(self, exchange: Exchange, failure: Failure) -> None:
        self.told += 1
        self._latest = None
        self.failures += 1
        if self._in_turn:
            self._settle(exchange, Result(failure=failure))
        else:
            self._write_or_close(self._codec.refuse(exchange.request, failure))

    def _settle(self, exchange: Exchange, result: Result) -> None:
        """Say how a request has ended, when it is its turn."""
        exchange.result = result
        if not self._ordered:
            overlapping = cast("Overlapping", self._overlapping)
            for told in overlapping.settle(exchange):
                self._put_in_line(told)
            self._in_turn = len(overlapping) > 0
            self._stalled = self._stalled or self._must_wait()
        self._say()

    def _has_to_say(self) -> bool:
        """Return whether there is something that the client is to be told."""
        line, refusals = self._line, self._refusals
        return (line is not None and len(line) > 0) or (
            refusals is not None and len(refusals) > 0
        )

    def _put_in_line(self, item: Exchange | Reply | Close) -> None:
        """Have something said when all before it has been."""
        if self._line is None:
            self._line = OrderedReplies(self._codec)
        self._line.append(item)

    def _say(self) -> None:
        """Say what stands first in the line, as far as it is known."""
        line = self._line
        while (
            line is not None and not self._closed and (said := line.pop()) is not None
        ):
            self._write(said.data)
            if said.then is Then.CLOSE:
                self._close()
            elif said.then is Then.LINGER:
                self._close_after_last_words()
        if self._stalled and not self._must_wait():
            self._loop.call_soon(self._go_on)

    @override
    def pause_writing(self) -> None:
        self.held = True
        self._memory.begun(self, incomplete=False)  # it may be complete, but unread
        self._pause_if_full()
        self._dispatcher.unanswered.held(self, self._time())

    @override
    def resume_writing(self) -> None:
        self.held = False
        self._memory.unread(self, 0)
        self._queue.offer(self)
        self.read_on()
        self._dispatcher.dispatch(self._loop.time())
