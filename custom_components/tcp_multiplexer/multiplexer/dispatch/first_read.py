"""A read of the multiplexer's own before anything else goes out on a new connection.

Some devices answer the first request on a connection wrongly, or not at all. So this
one is asked for nobody: whatever becomes of it, or nothing, says nothing.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, override

from .exchange import Exchange, Requester

if TYPE_CHECKING:
    from ..protocols.base import Failure, Request
    from .exchange import Upstream


class FirstRead(Requester):
    """Asks for it on one connection, which carries nothing else meanwhile."""

    __slots__ = ("_carrier",)

    counted = False
    tells = False

    def __init__(self, carrier: Upstream) -> None:
        super().__init__("first read")
        self._carrier = carrier

    def exchange(self, request: Request, now: float, patience: float) -> Exchange:
        """Begin to ask at `now` (loop time); wait for `patience` seconds."""
        self._carrier.alone = True
        request = copy(request)
        request.share_key = None  # nobody may get its response, not even later
        request.retry_safe = False
        return Exchange(request, self, now, now + patience)

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        self._carrier.alone = False

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        self._carrier.alone = False
