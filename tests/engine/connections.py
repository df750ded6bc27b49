"""Connections that carry nothing, for parts that are tested without a device.

They are of the class of all others, for a compiled engine takes no other.
"""

from __future__ import annotations

from typing import Any, override

from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import (
    CloseReason,
    Exchange,
    Upstream,
    UpstreamOwner,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Failure,
    Unsolicited,
)


class Nobody(UpstreamOwner):
    """Whom a connection reports to that has nothing to report."""

    @override
    def answered(self, upstream: Upstream, exchange: Exchange, response: Any) -> None:
        raise NotImplementedError

    @override
    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        raise NotImplementedError

    @override
    def unsolicited(self, upstream: Upstream, event: Unsolicited) -> None:
        raise NotImplementedError

    @override
    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        raise NotImplementedError


class Unused(Upstream):
    """An open connection that nothing is done with."""

    def __init__(
        self, *, ready: bool = False, sent: int = 0, responses: int = 0
    ) -> None:
        super().__init__(Nobody())
        self.ready = ready
        self.sent = sent
        self.responses = responses

    @override
    async def open(self) -> None:
        raise NotImplementedError

    @override
    def send(self, exchange: Exchange) -> None:
        raise NotImplementedError

    @override
    def begun(self, exchange: Exchange) -> bool:
        raise NotImplementedError

    @override
    def expire(self, exchange: Exchange) -> bool:
        raise NotImplementedError

    @override
    def close(self, reason: CloseReason, detail: str = "") -> None:
        raise NotImplementedError
