"""The health check: asks the device something harmless when nobody else has.

A probe is a request like any other: it waits its turn in the queue, and its response
says what every response says. It never opens a connection.
"""

from typing import TYPE_CHECKING, Any, override

from ..dispatch.exchange import Exchange, Requester

if TYPE_CHECKING:
    from ..dispatch.exchange import Upstream
    from ..dispatch.queue import RequestQueue
    from ..protocols.base import Failure, Request


class Prober(Requester):
    """Places probes, and wants no response."""

    __slots__ = ("_queue",)

    counted = False

    def __init__(self, queue: RequestQueue) -> None:
        super().__init__("health check")
        self._queue = queue
        queue.join(self)

    def probe(
        self, upstream: Upstream, request: Request, now: float, timeout: float
    ) -> None:
        """Ask `request` on `upstream`, unless an earlier probe is unanswered."""
        if self.pending or self.in_flight:
            return
        self.upstream = upstream
        self._queue.put(Exchange(request, self, now, now + timeout))

    def lost(self, upstream: Upstream) -> None:
        """Withdraw a probe that waits for a connection which is gone."""
        if self.upstream is upstream and self.pending:
            self._queue.drop(self.pending[0])
            self.upstream = None

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        pass

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        pass
