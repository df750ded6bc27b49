"""Answers requests that the owner's rules do not let through, and records that."""

from typing import TYPE_CHECKING, Any

from ..protocols.base import Failure
from .policy import Verdict

if TYPE_CHECKING:
    from ..protocols.base import Protocol
    from .exchange import Exchange
    from .recorder import Recorder


def turn_down(
    exchange: Exchange, verdict: Verdict, protocol: Protocol[Any], recorder: Recorder
) -> None:
    """Acknowledge or refuse a request that is not to be sent."""
    requester = exchange.requester
    if verdict is Verdict.ACKNOWLEDGE:
        response = protocol.acknowledge(exchange.request)
        if response is not None:
            recorder.acknowledged(exchange, response)
            requester.answered(exchange, response)
            return
    large = verdict is Verdict.REFUSE_SIZE
    failure = Failure.TOO_LARGE if large else Failure.REFUSED
    recorder.refused(exchange, failure)
    requester.failed(exchange, failure)
