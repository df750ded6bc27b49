"""Reads that are asked again ahead of time, because they cover what is asked now.

With a cache, who reads pieces of what another client polls costs the device nothing as
long as that client's last response is fresh. Once it is not, each piece would be asked
by itself until the next poll. So the wider read is asked in their place, and the pieces
join it, as will that poll.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol as Interface, override

from .exchange import Exchange, Requester

if TYPE_CHECKING:
    from ..observe.statistics import Statistics
    from ..protocols.base import Failure, ShareKey
    from .coalescing import Coalescer
    from .coverage import Wider
    from .queue import RequestQueue


class Placing(Interface):
    """What it needs of the dispatcher, which it does not import."""

    statistics: Statistics

    def place(self, exchange: Exchange, key: ShareKey | None) -> None:
        """Queue a request, or fail it at once if it cannot be served in time."""


class Refresher(Requester):
    """Asks one wider read at a time; a piece whose turn that is not goes by itself."""

    __slots__ = ("_coalescer", "_dispatcher", "timeout")

    def __init__(
        self,
        dispatcher: Placing,
        queue: RequestQueue,
        coalescer: Coalescer,
        timeout: float,
    ) -> None:
        """Give up what is not answered after `timeout` seconds."""
        super().__init__("cache")
        self.timeout = timeout
        self._dispatcher = dispatcher
        self._coalescer = coalescer
        queue.join(self)

    def refresh(self, exchange: Exchange, wider: Wider) -> Exchange | None:
        """Ask one of the reads that are `wider` than this one; None if there is none.

        That is one that a client has asked, and the device has answered whole, so
        lately that the client may be expected to ask it again.
        """
        if self.pending or self.in_flight:
            return None
        now, coalescer = exchange.arrived, self._coalescer
        lately = now - 2 * coalescer.cache.ttl
        for key, extent in wider:
            request = coalescer.coverage.asked_since(key, lately)
            response = coalescer.cache.last(key)
            if request and response is not None and extent.is_whole(response):
                leader = Exchange(request, self, now, now + self.timeout)
                self._dispatcher.statistics.gone.requests += 1
                self._dispatcher.place(leader, key)
                return leader if self.pending else None
        return None

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        pass

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        pass
