"""The state of all devices as metrics for Prometheus.

The snapshots are taken in the event loop; only what becomes of them may run elsewhere,
for text of many devices takes its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, override

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from .. import __version__
from ..observe.snapshot import BUCKETS, Detail, Health, Snapshot

_OTHER = "other"
"""Stands for the clients that are not counted apart."""


class State(NamedTuple):
    """What is known of a device at one moment."""

    device: str
    snapshot: Snapshot
    detail: Detail


def render(states: Sequence[State], accept: str) -> tuple[bytes, str]:
    """Return the metrics, in a format that `accept` (a header) admits, and its name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_States(states))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _States(Collector):
    """Gives the metrics of devices."""

    def __init__(self, states: Sequence[State]) -> None:
        self._states = states

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield every metric, with all devices in each."""
        yield InfoMetricFamily(
            "tcp_multiplexer", "The program.", value={"version": __version__}
        )
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(
                f"tcp_multiplexer_{name}", text, labels=["device"]
            )
            for state in self._states:
                gauge.add_metric([state.device], value(state.snapshot))
            yield gauge
        yield self._health()
        for name, text, label, values in _COUNTERS:
            labels = ["device", label] if label else ["device"]
            counter = CounterMetricFamily(
                f"tcp_multiplexer_{name}", text, labels=labels
            )
            for state in self._states:
                for key, number in values(state.snapshot).items():
                    given = [state.device, key] if label else [state.device]
                    counter.add_metric(given, number)
            yield counter
        yield self._times()
        yield from self._clients()

    def _health(self) -> Metric:
        health = GaugeMetricFamily(
            "tcp_multiplexer_health",
            "1 for the health that the device has, 0 for the others.",
            labels=["device", "health"],
        )
        for state in self._states:
            for each in Health:
                value = float(state.snapshot.health is each)
                health.add_metric([state.device, each.value], value)
        return health

    def _times(self) -> Metric:
        times = HistogramMetricFamily(
            "tcp_multiplexer_response_seconds",
            "Time from a request's last byte to its response, the wait included.",
            labels=["device"],
        )
        bounds = [*map(str, BUCKETS), "+Inf"]
        for state in self._states:
            counts = accumulate(state.detail.buckets)
            buckets = list(zip(bounds, counts, strict=True))
            times.add_metric([state.device], buckets, state.detail.seconds)
        return times

    def _clients(self) -> Iterator[Metric]:
        labels = ["device", "client"]
        connections = GaugeMetricFamily(
            "tcp_multiplexer_client_connections",
            "Connections of the clients at an address.",
            labels=labels,
        )
        requests = CounterMetricFamily(
            "tcp_multiplexer_client_requests",
            "Requests of the clients at an address.",
            labels=labels,
        )
        unanswered = CounterMetricFamily(
            "tcp_multiplexer_client_unanswered",
            "Their requests that were refused by a rule, or failed otherwise.",
            labels=[*labels, "why"],
        )
        data = CounterMetricFamily(
            "tcp_multiplexer_client_bytes",
            "Bytes from and to these clients.",
            labels=[*labels, "direction"],
        )
        for state in self._states:
            for address, counts in state.detail.clients.items():
                where = [state.device, address or _OTHER]
                connections.add_metric(where, counts.connections)
                requests.add_metric(where, counts.requests)
                unanswered.add_metric([*where, "refused"], counts.refused)
                unanswered.add_metric([*where, "failed"], counts.failures)
                data.add_metric([*where, "in"], counts.bytes_in)
                data.add_metric([*where, "out"], counts.bytes_out)
        yield from (connections, requests, unanswered, data)


_GAUGES: tuple[tuple[str, str, Callable[[Snapshot], float]], ...] = (
    (
        "upstream_connections",
        "Open connections to the device.",
        lambda now: now.connections,
    ),
    ("clients", "Connected clients.", lambda now: len(now.clients)),
    ("queue_depth", "Requests that wait to be sent.", lambda now: now.queue_depth),
    (
        "in_flight",
        "Requests that were sent and have no response yet.",
        lambda now: now.in_flight,
    ),
    (
        "silent_units",
        "Units that do not answer though others do.",
        lambda now: len(now.silent_units),
    ),
)


def _outcomes(now: Snapshot) -> dict[str, int]:
    return {
        "answered": now.responses - now.exceptions,
        "exception": now.exceptions,
        "acknowledged": now.writes_acknowledged,
        **now.failures,
    }


_COUNTERS: tuple[
    tuple[str, str, str | None, Callable[[Snapshot], dict[str, int]]], ...
] = (
    ("requests", "Requests that have ended, by outcome.", "outcome", _outcomes),
    (
        "requests_received",
        "Requests of all clients.",
        None,
        lambda now: {"": now.requests},
    ),
    (
        "requests_not_sent",
        "Requests that were answered without asking the device.",
        "by",
        lambda now: {
            "sharing": now.reads_shared,
            "cache": now.reads_cached,
            "repetition": now.writes_repeated,
        },
    ),
    (
        "responses_discarded",
        "Responses that no request awaited.",
        "kind",
        lambda now: {
            "late": now.late_responses,
            "unsolicited": now.unsolicited_responses,
        },
    ),
    (
        "clients_refused",
        "Clients that were refused.",
        None,
        lambda now: {"": now.clients_refused},
    ),
    (
        "requests_invalid",
        "Data of clients that is no request.",
        None,
        lambda now: {"": now.invalid_requests},
    ),
    (
        "connection_attempts",
        "Attempts to connect to the device.",
        None,
        lambda now: {"": now.connection_attempts},
    ),
    (
        "reconnects",
        "Connections to the device after the first.",
        None,
        lambda now: {"": now.reconnects},
    ),
    (
        "bytes",
        "Bytes of the application protocol.",
        "direction",
        lambda now: {
            "from_clients": now.bytes_from_clients,
            "to_clients": now.bytes_to_clients,
            "from_device": now.bytes_from_upstream,
            "to_device": now.bytes_to_upstream,
        },
    ),
)
