"""Records exchanges: counts and traces them, and reports those that failed.

The dispatcher decides; this module only records the outcome of each exchange, in one
place so that no counter is missed or incremented twice.
"""

from __future__ import annotations

from collections import deque
import enum
import logging
from typing import TYPE_CHECKING, Any, Final

from ..observe.events import Event, EventType
from ..observe.snapshot import TraceOutcome
from ..observe.statistics import PAYLOAD_KEPT
from ..protocols.base import Failure
from .known_reads import KnownReads

if TYPE_CHECKING:
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol, Unsolicited
    from .exchange import Exchange

LOGGER = logging.getLogger(__name__)

_ANSWERED: Final = TraceOutcome.ANSWERED


class Recorder:
    """Records the outcome of exchanges in statistics, trace, log and events."""

    def __init__(
        self, protocol: Protocol[Any], statistics: Statistics, events: Events
    ) -> None:
        """Record in `statistics` and `events`, as `protocol` describes exchanges."""
        self._protocol = protocol
        self._counted_by = protocol.counted_by
        self._statistics = statistics
        self._events = events
        self._debug = LOGGER.isEnabledFor(logging.DEBUG)
        self._traces = statistics.trace.maxlen != 0 or self._debug
        self.known = KnownReads()
        self._known = self.known.last

    def keep(self, trace_size: int) -> None:
        """Keep so many exchanges from now on, of those that are kept the latest."""
        trace = self._statistics.trace
        if trace_size != trace.maxlen:
            self._statistics.trace = deque(trace, trace_size)
            self._traces = trace_size != 0 or self._debug

    def answered(
        self, exchange: Exchange, response: Any, now: float, *, asked: bool = True
    ) -> None:
        """Count a response that a requester gets; the device was `asked`, or not."""
        statistics = self._statistics
        request = exchange.request
        kind = None
        if self._counted_by is not None:
            kind = request.payload[: self._counted_by]
            statistics.units.answered[kind] += 1
        if self._protocol.is_exception(response):
            statistics.exceptions += 1
        elif request.retry_safe and asked:
            self._known[kind] = exchange.asked
        times = statistics.times
        times.count += 1
        # (Any: where this is compiled, it is to be made once, and not for each use.)
        moments: Any = (exchange.arrived, exchange.sent, now)
        times.exchanges.append(moments)
        if self._traces:  # as `_trace` does: the call would cost 2 % of a request
            payload = request.payload
            data = response if type(response) is bytes else bytes(response)
            # (A compiled slice of the whole is a copy.)
            if len(payload) > PAYLOAD_KEPT or len(data) > PAYLOAD_KEPT:
                payload, data = payload[:PAYLOAD_KEPT], data[:PAYLOAD_KEPT]
            name = exchange.requester.name
            statistics.trace.append((name, payload, data, _ANSWERED, moments))
            if self._debug:
                self._log(exchange, _ANSWERED, bytes(response), now)

    def coalesced(self, exchange: Exchange, response: Any, now: float) -> None:
        """Count a request that the response to another one answers."""
        if exchange.request.writes is None:
            self._statistics.reads_shared += 1
        exchange.sent, exchange.attempts = exchange.arrived, 1
        self.answered(exchange, response, now, asked=False)

    def served_from_cache(self, exchange: Exchange, response: Any, now: float) -> None:
        """Count a read that a remembered response answers."""
        self._statistics.reads_cached += 1
        exchange.sent, exchange.attempts = now, 1
        self.answered(exchange, response, now, asked=False)

    def write_repeated(self, exchange: Exchange, response: Any, now: float) -> None:
        """Count a write that the confirmation of the same one before it answers."""
        self._statistics.writes_repeated += 1
        exchange.sent, exchange.attempts = now, 1
        self.answered(exchange, response, now)

    def failed(self, exchange: Exchange, failure: Failure, now: float) -> None:
        """Count a request that gets no response."""
        statistics = self._statistics
        statistics.failures[failure] += 1
        if failure is Failure.NO_RESPONSE:
            statistics.timeouts += 1
        if self._counted_by is not None:
            statistics.units.failed[exchange.request.payload[: self._counted_by]] += 1
        self._trace(exchange, failure, None, now)
        self._report(EventType.REQUEST_REFUSED, exchange, failure)

    def refused(self, exchange: Exchange, failure: Failure) -> None:
        """Count a request that the owner's rules refuse."""
        statistics = self._statistics
        statistics.failures[failure] += 1
        if self._counted_by is not None:
            statistics.units.refused[exchange.request.payload[: self._counted_by]] += 1
        self._trace(exchange, failure, None, exchange.arrived)
        if exchange.request.writes is None:
            self._report(EventType.REQUEST_REFUSED, exchange, failure)
        else:
            statistics.writes_refused += 1
            self._report_write(EventType.WRITE_REFUSED, exchange, failure)

    def acknowledged(self, exchange: Exchange, response: Any) -> None:
        """Count a write that is answered as if it had been carried out."""
        statistics = self._statistics
        statistics.writes_acknowledged += 1
        if self._counted_by is not None:
            statistics.units.acknowledged[
                exchange.request.payload[: self._counted_by]
            ] += 1
        self._trace(exchange, TraceOutcome.ACKNOWLEDGED, response, exchange.arrived)
        self._report_write(
            EventType.WRITE_ACKNOWLEDGED, exchange, TraceOutcome.ACKNOWLEDGED
        )

    def unsolicited(self, event: Unsolicited, now: float) -> None:
        """Count bytes that belong to no request."""
        statistics = self._statistics
        if event.late:
            statistics.late_responses += 1
        else:
            statistics.unsolicited_responses += 1
        data = event.data[:PAYLOAD_KEPT]
        if self._debug:
            LOGGER.debug("Discarded: %s; %s", event.reason, data.hex(" "))
        statistics.trace.append(
            ("device", b"", data, TraceOutcome.UNSOLICITED, (now, None, now))
        )

    def _report(
        self, kind: EventType, exchange: Exchange, reason: enum.StrEnum
    ) -> None:
        description = self._protocol.describe(exchange.request.payload, None)
        address = exchange.requester.address
        self._events.emit_merged(Event(kind, address, reason, description))

    def _report_write(
        self, kind: EventType, exchange: Exchange, reason: enum.StrEnum
    ) -> None:
        description = self._protocol.describe(exchange.request.payload, None)
        writes = (self._protocol.explain_write(exchange.request),)
        address = exchange.requester.address
        self._events.emit_merged(
            Event(kind, address, reason, description, writes=writes)
        )

    def _trace(
        self, exchange: Exchange, outcome: enum.StrEnum, response: Any, now: float
    ) -> None:
        if response is not None:
            response = bytes(response)[:PAYLOAD_KEPT]
        self._statistics.trace.append(
            (
                exchange.requester.name,
                exchange.request.payload[:PAYLOAD_KEPT],
                response,
                outcome,
                (exchange.arrived, exchange.sent if exchange.attempts else None, now),
            )
        )
        if self._debug:
            self._log(exchange, outcome, response, now)

    def _log(
        self,
        exchange: Exchange,
        outcome: enum.StrEnum,
        response: bytes | None,
        now: float,
    ) -> None:
        request = exchange.request.payload
        sent = exchange.sent if exchange.attempts else now
        data = request[:PAYLOAD_KEPT].hex(" ")
        if response is not None:
            data += f" -> {response.hex(' ')}"
        LOGGER.debug(
            "%s: %s, %s, waited %.1f ms, took %.1f ms; %s",
            exchange.requester.name,
            self._protocol.describe(request, response),
            outcome,
            (sent - exchange.arrived) * 1e3,
            (now - sent) * 1e3,
            data,
        )
