"""Looks at requests before they are queued, where rules or circuit breakers may apply.

What these stop is answered, and recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocols.base import Failure
from .policy import Policy, Verdict
from .split import Split

if TYPE_CHECKING:
    from ..protocols.base import Protocol, Request
    from ..settings import Settings
    from .breakers import Breakers
    from .exchange import Exchange
    from .recorder import Recorder


class Guard:
    """Knows whether anything could be stopped, and stops it."""

    def __init__(
        self,
        settings: Settings,
        protocol: Protocol[Any],
        breakers: Breakers,
        recorder: Recorder,
    ) -> None:
        self._protocol = protocol
        self._breakers = breakers
        self._recorder = recorder
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Go by the rules in these settings."""
        self.policy = Policy(settings, self._protocol)
        self.update()

    def update(self) -> None:
        """Note that a breaker may have opened, or closed."""
        self.active = self.policy.active or self._breakers.any_open
        """Whether any request could be stopped, or has to be asked in parts."""

    def probe(self, witness: Request | None) -> Request | None:
        """Return something harmless to ask the device, if the rules permit any.

        That is the `witness`, if there is one.
        """
        for last_good in (witness, None):
            request = self._protocol.probe(last_good)
            if request is not None and self.policy.permits(request):
                return request
        return None

    def stops(self, exchange: Exchange) -> bool:
        """Turn a request down if a rule or a breaker stops it; return whether so.

        If not, it is split here if it is longer than the device takes.
        """
        verdict = self.policy.judge(exchange.request, exchange.requester.peer)
        if verdict is not Verdict.PASS:
            self.turn_down(exchange, verdict)
            return True
        if self._breakers.blocks(exchange, exchange.arrived):
            self._recorder.failed(exchange, Failure.SILENT, exchange.arrived)
            exchange.requester.failed(exchange, Failure.SILENT)
            return True
        parts = self.policy.parts(exchange.request)
        if parts:
            exchange.split = Split(parts)
            exchange.asked = parts[0]
        return False

    def turn_down(self, exchange: Exchange, verdict: Verdict) -> None:
        """Acknowledge or refuse a request that is not to be sent."""
        requester = exchange.requester
        if verdict is Verdict.ACKNOWLEDGE:
            response = self._protocol.acknowledge(exchange.request)
            if response is not None:
                self._recorder.acknowledged(exchange, response)
                requester.answered(exchange, response)
                return
        large = verdict is Verdict.REFUSE_SIZE
        failure = Failure.TOO_LARGE if large else Failure.REFUSED
        self._recorder.refused(exchange, failure)
        requester.failed(exchange, failure)
