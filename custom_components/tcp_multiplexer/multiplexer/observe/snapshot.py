"""One immutable picture of a multiplexer: what is shown, logged and diagnosed.

Counters run from the start, or from the last `reset_statistics`; `*_seconds` are
seconds, `bytes_*` are bytes on the wire. Times of day are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import enum
from typing import NamedTuple


class Health(enum.StrEnum):
    """How the upstream does, judged by the traffic itself."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """At least two of the last twenty exchanges got no answer."""
    UNREACHABLE = "unreachable"
    """Connecting fails, or connections end without a response."""
    IDLE = "idle"
    """No connection, on purpose: nobody asks."""
    PAUSED = "paused"


class TraceOutcome(enum.StrEnum):
    """How an exchange ended, where it did not fail."""

    ANSWERED = "answered"
    ACKNOWLEDGED = "acknowledged"
    """Answered as if it had been carried out, by the owner's rules."""
    UNSOLICITED = "unsolicited"
    """A response that nobody asked for."""


class TraceRecord(NamedTuple):
    """One exchange that has ended, payloads cut to what people can read."""

    time: float
    client: str
    """Address and port, or the name of the part of the program that asked."""
    request: bytes
    response: bytes | None
    outcome: str
    """The value of a `TraceOutcome` or of a `Failure`, as plain text."""
    wait_seconds: float
    response_seconds: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSnapshot:
    """One connected client."""

    address: str
    port: int
    since: float
    requests: int
    responses: int
    failures: int
    refused: int
    pending: int
    last_request: float | None
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeSnapshot:
    """What was asked of one scope (Modbus: a unit), over all clients, and has ended."""

    requests: int
    responses: int
    failures: int
    refused: int
    functions: Mapping[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    health: Health
    health_reason: str | None
    """For people: the last error of an upstream that is not healthy."""
    connections: int
    """Open upstream connections."""
    connected_since: float | None
    """When the oldest open upstream connection was opened."""
    last_response: float | None
    listen_addresses: tuple[tuple[str, int], ...]

    clients: tuple[ClientSnapshot, ...]
    clients_peak: int
    queue_depth: int
    queue_peak: int
    in_flight: int

    requests: int
    responses: int
    exceptions: int
    """Of the responses, those in which the device said no."""
    failures: Mapping[str, int]
    """Requests not answered, by `Failure` value."""
    timeouts: int
    reads_shared: int
    """Reads answered by the response to an identical one of another client."""
    reads_cached: int
    """Reads answered from the cache."""
    writes_refused: int
    """Writes refused by the owner's rules."""
    writes_acknowledged: int
    """Writes answered as if carried out, and not sent, by the owner's rules."""
    late_responses: int
    unsolicited_responses: int
    would_match_leniently: int
    """Requests timed out while a response was discarded that lenient matching would
    have passed on."""
    invalid_requests: int
    """Bytes from clients that were no request: discarded, or their client closed."""
    clients_refused: int
    connection_attempts: int
    reconnects: int
    """Upstream connections opened after the first."""
    bytes_from_clients: int
    bytes_to_clients: int
    bytes_from_upstream: int
    bytes_to_upstream: int

    response_seconds_median: float | None
    """From sending to the response, over the last ten minutes; of more than 1,000
    exchanges in that time, the last 1,000. None: there were none."""
    response_seconds_p95: float | None
    wait_seconds_median: float | None
    """From the request's last byte to its sending, over the same exchanges."""
    wait_seconds_p95: float | None

    units: Mapping[int, ScopeSnapshot]
    since: float
    """When counting began."""
