"""The health check as a requester."""

from __future__ import annotations

from custom_components.tcp_multiplexer.multiplexer.dispatch.queue import RequestQueue
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Failure,
    Request,
)
from custom_components.tcp_multiplexer.multiplexer.upstream.prober import Prober

from .connections import Unused

PROBE = Request(b"are you there?", retry_safe=True)


def connection() -> Unused:
    """Return an open connection."""
    return Unused(ready=True)


def test_one_probe_at_a_time_whichever_connection_is_silent() -> None:
    queue = RequestQueue(8)
    prober = Prober(queue)
    first, second = connection(), connection()
    prober.probe(first, PROBE, now=0.0, timeout=5.0)
    prober.probe(second, PROBE, now=1.0, timeout=5.0)
    (exchange,) = prober.pending
    assert (exchange.arrived, exchange.deadline) == (0.0, 5.0)
    assert queue.take() is exchange
    prober.in_flight = 1
    prober.probe(second, PROBE, now=2.0, timeout=5.0)
    assert not prober.pending
    assert prober.upstream is first


def test_probe_of_a_lost_connection_is_withdrawn_and_no_other() -> None:
    queue = RequestQueue(8)
    prober = Prober(queue)
    here = connection()
    prober.probe(here, PROBE, now=0.0, timeout=5.0)
    prober.lost(connection())
    assert queue.depth == 1
    prober.lost(here)
    assert queue.depth == 0
    assert prober.upstream is None


def test_whatever_comes_of_a_probe_is_left_to_the_pool() -> None:
    queue = RequestQueue(8)
    prober = Prober(queue)
    prober.probe(connection(), PROBE, now=0.0, timeout=5.0)
    exchange = queue.take()
    assert exchange is not None
    prober.answered(exchange, b"yes")
    prober.failed(exchange, Failure.NO_RESPONSE)
    assert not prober.counted
