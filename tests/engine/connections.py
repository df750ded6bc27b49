"""Connections that carry nothing, for parts that are tested without a device.

They are of the class of all others, for a compiled engine takes no other.
"""

from __future__ import annotations

from typing import Any, override

from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import (
    CloseReason,
    Exchange,
    Upstream,
)


class Unused(Upstream):
    """An open connection that nothing is done with."""

    def __init__(
        self, *, ready: bool = False, sent: int = 0, responses: int = 0
    ) -> None:
        owner: Any = None  # it reports nothing
        super().__init__(owner)
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
