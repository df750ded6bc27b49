"""Reads that are asked in parts: the next one follows the response to the one before.

To the queue they are one exchange. Between its parts it stands ahead of all others, for
the connection that carried the part before; only writes may go first. A response to a
part is cached as the read that it is, so that it may answer others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol as Interface

from ..protocols.base import Failure

if TYPE_CHECKING:
    from ..protocols.base import Protocol, Request
    from .coalescing import Coalescer
    from .connections import Connections
    from .exchange import Exchange, Upstream
    from .supply import Supply
    from .unanswered import Unanswered


class PartSender(Interface):
    """What it needs of the dispatcher, which it does not import."""

    unanswered: Unanswered
    connections: Connections
    supply: Supply
    last_response: float | None

    def taken_off(self, exchange: Exchange) -> None:
        """Note that an exchange is no longer on a connection."""

    def watch_answer(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        """Learn from a response that may have been slow (`now` is loop time)."""

    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        """Note that the response to an exchange cannot be passed on."""

    def dispatch(self, now: float) -> None:
        """Send what can be sent (`now` is loop time)."""


class Splitting:
    """Asks parts, and puts their responses together."""

    def __init__(
        self, dispatcher: PartSender, protocol: Protocol[Any], coalescer: Coalescer
    ) -> None:
        self._dispatcher = dispatcher
        self._is_exception = protocol.is_exception
        self._coalescer = coalescer

    def answered(
        self, upstream: Upstream, exchange: Exchange, response: Any
    ) -> Any | None:
        """Take the response to a part; return that to the whole read.

        The first exception is that. None: the next part is asked, or the read failed.
        """
        split, part = exchange.split, exchange.asked.extent
        whole = exchange.request.extent
        if split is None or self._is_exception(response):
            return response
        if part is None or whole is None or not part.is_whole(response):
            failure = Failure.INVALID_RESPONSE
            self._dispatcher.unanswerable(upstream, exchange, failure)
            return None
        now = upstream.last_received
        self._coalescer.part_answered(exchange, response, now)
        split.answered(response, exchange.sent)
        if split.left is None:
            return split.joined(whole)
        self._ask(upstream, exchange, split.left, now)
        return None

    def _ask(
        self, upstream: Upstream, exchange: Exchange, part: Request, now: float
    ) -> None:
        """Ask the next part, once the connection has taken in the response before."""
        dispatcher, requester = self._dispatcher, exchange.requester
        dispatcher.last_response = now
        dispatcher.taken_off(exchange)
        upstream.on_trial = False
        if requester.keeps_open:
            upstream.last_used = now
        dispatcher.watch_answer(upstream, exchange, now)
        exchange.asked = part
        if requester.gone:
            lost = Failure.CONNECTION_LOST
            dispatcher.unanswered.fail(exchange, lost, now, blame_device=False)
        else:
            dispatcher.unanswered.put_back(exchange, now)
            requester.upstream = upstream
        dispatcher.connections.freed(upstream, now)
        dispatcher.connections.limit(upstream, now)
        dispatcher.dispatch(now)
        if not dispatcher.supply.well:
            dispatcher.supply.answered(now)
