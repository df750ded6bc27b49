"""The state of a multiplexer at one moment: what entities, logs and diagnostics show.

Counters count from the start, or from the last `reset_statistics`. `*_seconds` are
seconds; `bytes_*` are bytes of the application protocol. Times of day are seconds
since the epoch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
import enum
from typing import NamedTuple, Protocol as Interface

BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 10.0, 30.0),
)
"""Upper bounds of the histogram, in seconds."""


class Health(enum.StrEnum):
    """The health of the upstream, judged by the traffic itself."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """At least two of the last twenty exchanges got no answer."""
    UNREACHABLE = "unreachable"
    """Connecting fails, or connections end without a response."""
    IDLE = "idle"
    """Not connected, because nothing is requested."""
    WAITING = "waiting"
    """Not connected, because the device is expected to dial in and has not yet."""
    PAUSED = "paused"


class TraceOutcome(enum.StrEnum):
    """How an exchange ended if it did not fail."""

    ANSWERED = "answered"
    ACKNOWLEDGED = "acknowledged"
    """Answered as if carried out, by the owner's rules."""
    UNSOLICITED = "unsolicited"
    """A response that belongs to no request."""


class TraceRecord(NamedTuple):
    """One exchange that has ended; its payloads are cut to a readable length."""

    time: float
    """When it ended (time of day)."""
    client: str
    """Address and port, or the name of the part of the program that asked."""
    request: bytes
    response: bytes | None
    outcome: str
    """The value of a `TraceOutcome` or of a `Failure`, as plain text."""
    wait_seconds: float
    """From the request's last byte to its sending, or to the end if never sent."""
    response_seconds: float | None
    """From sending to the end; None if never sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSnapshot:
    """One connected client."""

    address: str
    port: int
    since: float
    """When it connected (time of day)."""
    requests: int
    responses: int
    failures: int
    refused: int
    pending: int
    """Requests that wait to be sent."""
    last_request: float | None
    """When its last request arrived (time of day)."""
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSnapshot:
    """All clients of one group, those that have left included."""

    connected: int
    """How many of them are connected."""
    requests: int
    failures: int
    last_request: float | None
    """When the last request of any of them arrived (time of day)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeSnapshot:
    """The finished requests to one scope (Modbus: a unit), over all clients."""

    requests: int
    responses: int
    failures: int
    refused: int
    functions: Mapping[int, int]
    """Requests by function code; where very many are used, those used most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The complete state at one moment."""

    health: Health
    health_reason: str | None
    """The last error while the upstream is degraded or unreachable, for people."""
    connections: int
    """Open upstream connections."""
    connected_since: float | None
    """When the oldest open upstream connection was opened (time of day)."""
    last_response: float | None
    """When the device last answered (time of day)."""
    listen_addresses: tuple[tuple[str, int], ...]

    clients: tuple[ClientSnapshot, ...]
    clients_peak: int
    queue_depth: int
    queue_peak: int
    in_flight: int

    requests: int
    responses: int
    exceptions: int
    """How many of the responses are exceptions."""
    failures: Mapping[str, int]
    """Unanswered requests by `Failure` value."""
    timeouts: int
    reads_shared: int
    """Reads answered by the response to another one, identical or of more."""
    reads_cached: int
    """Reads answered from the cache."""
    writes_refused: int
    """Writes refused by the owner's rules."""
    writes_acknowledged: int
    """Writes answered as if carried out, but not sent, by the owner's rules."""
    writes_repeated: int
    """Writes confirmed without being sent, since they repeated the last one."""
    late_responses: int
    unsolicited_responses: int
    would_match_leniently: int
    """Timed-out requests for which a response was discarded that lenient matching
    would have passed on."""
    invalid_requests: int
    """Invalid data from clients: discarded, or the connection was closed."""
    clients_refused: int
    connection_attempts: int
    reconnects: int
    """Upstream connections opened after the first one."""
    bytes_from_clients: int
    bytes_to_clients: int
    bytes_from_upstream: int
    bytes_to_upstream: int

    response_seconds_median: float | None
    """From sending to the response, over the last ten minutes, but at most the last
    1,000 exchanges. None if there were none."""
    response_seconds_p95: float | None
    wait_seconds_median: float | None
    """From the request's last byte to its sending, over the same exchanges."""
    wait_seconds_p95: float | None

    units: Mapping[int, ScopeSnapshot]
    silent_units: tuple[Hashable, ...]
    """Units that do not answer, and are only tried now and then."""
    since: float
    """When counting began (time of day)."""


class Countable(Interface):
    """What is counted of a client apart from others."""

    requests: int
    failures: int
    refused: int
    bytes_in: int
    bytes_out: int


@dataclass(kw_only=True, slots=True)
class ClientCounts:
    """What all clients at one address have asked so far, those included that left."""

    connections: int = 0
    """How many of them are connected."""
    requests: int = 0
    failures: int = 0
    """Without those that rules refused."""
    refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, counts: Countable, sign: int = 1) -> None:
        """Add what a client has counted, or subtract it with a `sign` of -1."""
        self.requests += sign * counts.requests
        self.failures += sign * counts.failures
        self.refused += sign * counts.refused
        self.bytes_in += sign * counts.bytes_in
        self.bytes_out += sign * counts.bytes_out


@dataclass(frozen=True, kw_only=True, slots=True)
class Detail:
    """What was counted in detail, at one moment."""

    buckets: tuple[int, ...]
    """Responses by time, from the request's last byte on: as many as took at most each
    of `BUCKETS` and longer than the one before, and last those that took longer."""
    seconds: float
    """The sum of these times."""
    clients: Mapping[str | None, ClientCounts]
    """By address; None: all others together."""
