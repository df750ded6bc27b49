"""The health check: sends the device a harmless request when no client has sent one.

A probe is a request like any other, but for its turn, which is after all others'. Its
outcome counts like any other's towards health. It never opens a connection.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, override

from ..dispatch.exchange import Exchange, Requester

if TYPE_CHECKING:
    from ..dispatch.exchange import Upstream
    from ..dispatch.queue import RequestQueue
    from ..protocols.base import Failure, Request


class Prober(Requester):
    """Makes probes, and ignores their responses."""

    __slots__ = ("_queue",)

    counted = False

    def __init__(self, queue: RequestQueue) -> None:
        super().__init__("health check")
        self._queue = queue
        queue.join(self)

    def probe(
        self,
        upstream: Upstream,
        request: Request,
        now: float,
        timeout: float,
        *,
        ahead: bool = False,
    ) -> None:
        """Queue `request` for `upstream`, unless an earlier probe is unanswered.

        It goes `ahead` of all clients that wait, or behind them, and times out
        `timeout` seconds after `now` (loop time).
        """
        if self.pending or self.in_flight:
            return
        self.upstream = upstream
        self.turn = 0 if ahead else sys.maxsize
        self._queue.put(Exchange(request, self, now, now + timeout))

    def lost(self, upstream: Upstream) -> None:
        """Drop a probe that waits for a connection that is gone."""
        if self.upstream is upstream and self.pending:
            self._queue.drop(self.pending[0])
            self.upstream = None

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        pass

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        pass
