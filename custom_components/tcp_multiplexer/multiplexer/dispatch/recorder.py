"""Keeps the record of exchanges: counts them, traces them, tells of those refused.

The pool decides; this room only writes down what became of each exchange, in one place
so that no counter is forgotten and none is added to twice.
"""

import logging
from typing import TYPE_CHECKING, Any

from ..observe.events import Event, EventType
from ..observe.statistics import PAYLOAD_KEPT
from ..protocols.base import Failure

if TYPE_CHECKING:
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol, Request, Stray
    from .exchange import Exchange

LOGGER = logging.getLogger(__name__)


class Recorder:
    """Writes into statistics, trace, log and events what became of exchanges."""

    def __init__(
        self, protocol: Protocol[Any], statistics: Statistics, events: Events
    ) -> None:
        """Write into `statistics` and `events`, in the words of `protocol`."""
        self._protocol = protocol
        self._has_units = protocol.has_units
        self._statistics = statistics
        self._events = events
        self._is_exception = protocol.is_exception
        self._traces = statistics.trace.maxlen != 0 or LOGGER.isEnabledFor(
            logging.DEBUG
        )
        self._debug = LOGGER.isEnabledFor(logging.DEBUG)
        self.last_good: Request | None = None
        """The last request that the device answered and that may be repeated."""

    def answered(self, exchange: Exchange, response: Any, now: float) -> None:
        """Count a response that a requester gets."""
        statistics = self._statistics
        request = exchange.request
        if self._has_units:
            statistics.units.answered[request.payload[:2]] += 1
        if self._is_exception(response):
            statistics.exceptions += 1
        elif request.retry_safe:
            self.last_good = request
        statistics.times.add(exchange.arrived, exchange.sent, now)
        if self._traces:
            self._trace(exchange, "answered", response, now)

    def failed(self, exchange: Exchange, failure: Failure, now: float) -> None:
        """Count a request that gets no response."""
        statistics = self._statistics
        statistics.failures[failure] += 1
        if failure is Failure.NO_RESPONSE:
            statistics.timeouts += 1
        if self._has_units:
            statistics.units.failed[exchange.request.payload[:2]] += 1
        self._trace(exchange, failure.value, None, now)
        self._tell(EventType.REQUEST_REFUSED, exchange, failure.value)

    def refused(self, exchange: Exchange, failure: Failure) -> None:
        """Count a request that the owner's rules do not let pass."""
        statistics = self._statistics
        statistics.failures[failure] += 1
        if self._has_units:
            statistics.units.refused[exchange.request.payload[:2]] += 1
        self._trace(exchange, failure.value, None, exchange.arrived)
        if exchange.request.writes is None:
            self._tell(EventType.REQUEST_REFUSED, exchange, failure.value)
        else:
            statistics.writes_refused += 1
            self._tell_write(EventType.WRITE_REFUSED, exchange, failure.value)

    def acknowledged(self, exchange: Exchange, response: Any) -> None:
        """Count a write that is answered as if it had been carried out."""
        statistics = self._statistics
        statistics.writes_acknowledged += 1
        if self._has_units:
            statistics.units.acknowledged[exchange.request.payload[:2]] += 1
        self._trace(exchange, "acknowledged", response, exchange.arrived)
        self._tell_write(EventType.WRITE_ACKNOWLEDGED, exchange, "acknowledged")

    def stray(self, event: Stray, now: float) -> None:
        """Count bytes that belong to nobody."""
        statistics = self._statistics
        if event.late:
            statistics.late_responses += 1
        else:
            statistics.stray_responses += 1
        data = event.data[:PAYLOAD_KEPT]
        if self._debug:
            LOGGER.debug("Discarded: %s; %s", event.reason, data.hex(" "))
        statistics.trace.append((now, "device", b"", data, "stray", now, None))

    def _tell(self, kind: EventType, exchange: Exchange, reason: str) -> None:
        words = self._protocol.describe(exchange.request.payload, None)
        address = exchange.requester.address
        self._events.tell_merged(Event(kind, address, reason, words))

    def _tell_write(self, kind: EventType, exchange: Exchange, reason: str) -> None:
        words = self._protocol.describe(exchange.request.payload, None)
        writes = (self._protocol.explain_write(exchange.request),)
        address = exchange.requester.address
        self._events.tell_merged(Event(kind, address, reason, words, writes=writes))

    def _trace(
        self, exchange: Exchange, outcome: str, response: Any, now: float
    ) -> None:
        if response is not None:
            response = bytes(response)[:PAYLOAD_KEPT]
        self._statistics.trace.append(
            (
                now,
                exchange.requester.name,
                exchange.request.payload[:PAYLOAD_KEPT],
                response,
                outcome,
                exchange.arrived,
                exchange.sent if exchange.attempts else None,
            )
        )
        if self._debug:
            self._log(exchange, outcome, response, now)

    def _log(
        self, exchange: Exchange, outcome: str, response: bytes | None, now: float
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
