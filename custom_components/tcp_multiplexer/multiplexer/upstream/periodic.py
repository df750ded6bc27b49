"""The owner's own request, which the device needs now and then, such as a heartbeat.

It goes the way of a client's: through the rules, the queue and the statistics. But it
shares no other's response, opens no connection and keeps none open.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Any, override

from ..dispatch.exchange import Exchange, Requester
from ..protocols.base import Failure

if TYPE_CHECKING:
    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.queue import RequestQueue
    from ..dispatch.timer import Timer
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol
    from ..settings import Settings

LOGGER = logging.getLogger(__name__)


class PeriodicRequester(Requester):
    """Asks what `periodic_request` says, every `periodic_interval`."""

    __slots__ = (
        "_dispatcher",
        "_due",
        "_fails",
        "_label",
        "_loop",
        "_protocol",
        "_queue",
        "_statistics",
        "_timer",
    )

    keeps_open = False

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        protocol: Protocol[Any],
        queue: RequestQueue,
        dispatcher: Dispatcher,
        statistics: Statistics,
        timer: Timer,
        label: str,
    ) -> None:
        """Ask through `queue` and `dispatcher` when `timer` wakes whoever calls `ask`.

        `label` is the device for logs.
        """
        super().__init__("periodic request")
        self._protocol = protocol
        self._queue = queue
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._timer = timer
        self._label = label
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        """When the next one is due (loop time)."""
        self._fails = False
        """The last one did not succeed."""

    def next_moment(self, settings: Settings) -> float:
        """Return when to ask (loop time), or infinity: never, or not yet."""
        if not settings.periodic_request or self.pending or self.in_flight:
            return inf
        return self._due

    def ask(self, settings: Settings, now: float) -> None:
        """Ask if it is due: behind all that wait, with the timeout of all."""
        if now < self.next_moment(settings):
            return
        request = self._protocol.worded(settings.periodic_request)
        self._due = now + settings.periodic_interval
        self._queue.join(self)
        self._statistics.gone.requests += 1
        exchange = Exchange(request, self, now, now + settings.timeout)
        self._dispatcher.submit(exchange, alone=True)
        self._dispatcher.dispatch(now)

    def disconnected(self) -> None:
        """Drop what waits: there is no connection, and it is not to open one."""
        if self.pending:
            now = self._loop.time()
            self._due = now
            exchange = self.pending[0]
            sent = exchange.attempts > 0
            failure = Failure.CONNECTION_LOST if sent else Failure.NO_CONNECTION
            self._dispatcher.unanswered.drop(exchange, failure, now)

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        self._timer.set(self._due)
        description = self._protocol.describe(exchange.request.payload, response)
        if self._protocol.is_exception(response):
            self._failed(description)
        elif self._fails:
            self._fails = False
            text = "%s answers the periodic request again: %s"
            LOGGER.info(text, self._label, description)

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        self._timer.set(self._due)
        if failure not in {Failure.NO_CONNECTION, Failure.PAUSED}:
            description = self._protocol.describe(exchange.request.payload, None)
            self._failed(f"{description}: {failure.value.replace('_', ' ')}")

    def _failed(self, detail: str) -> None:
        """Log the first failure in a row."""
        if not self._fails:
            self._fails = True
            text = "%s does not carry out the periodic request: %s"
            LOGGER.info(text, self._label, detail)
