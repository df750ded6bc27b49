"""Counters, response times, and the trace of the last exchanges.

The counters are plain attributes, because the hot path increments several of them for
each request. Moments are loop time; `Multiplexer.snapshot` converts them to times of
day.
"""

from collections import Counter, defaultdict, deque
import enum
from math import ceil
from typing import TYPE_CHECKING, Protocol as Interface

from ..protocols.base import Failure
from .snapshot import ScopeSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW_SECONDS = 600.0
"""The age up to which exchanges count in waits and response times."""
WINDOW_EXCHANGES = 1000
"""Maximum number of exchanges in that window; the last ones count."""
PAYLOAD_KEPT = 512
"""Bytes of a payload that the trace keeps."""


class UnitCounters:
    """Counts the requests to each unit by their outcome.

    The keys are unit and function as the two bytes in a request, so that one look-up
    counts both.
    """

    __slots__ = ("acknowledged", "answered", "failed", "refused")

    def __init__(self) -> None:
        self.answered: defaultdict[bytes, int] = defaultdict(int)
        self.acknowledged: defaultdict[bytes, int] = defaultdict(int)
        self.failed: defaultdict[bytes, int] = defaultdict(int)
        self.refused: defaultdict[bytes, int] = defaultdict(int)

    def snapshot(self) -> dict[int, ScopeSnapshot]:
        """Return the counters of each unit."""
        functions: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for table in (self.answered, self.acknowledged, self.failed, self.refused):
            for (unit, function), count in table.items():
                functions[unit][function] += count
        answered, failed, refused = map(
            _by_unit, (self.answered, self.failed, self.refused)
        )
        return {
            unit: ScopeSnapshot(
                requests=asked.total(),
                responses=answered[unit],
                failures=failed[unit],
                refused=refused[unit],
                functions=dict(asked),
            )
            for unit, asked in functions.items()
        }


def _by_unit(table: dict[bytes, int]) -> Counter[int]:
    sums: Counter[int] = Counter()
    for (unit, _), count in table.items():
        sums[unit] += count
    return sums


type TraceEntry = tuple[
    float, str, bytes, bytes | None, enum.StrEnum, float, float | None
]
"""When it ended, the requester's name, request, response, outcome, when it arrived, and
when it was sent: a plain tuple, because one is made for each request."""


class Times:
    """When the last exchanges arrived, were sent and were answered (loop time)."""

    __slots__ = ("count", "exchanges")

    def __init__(self) -> None:
        self.count = 0
        """Total number; incremented with each entry in `exchanges`."""
        self.exchanges: deque[tuple[float, float, float]] = deque(
            maxlen=WINDOW_EXCHANGES
        )
        """When each arrived, was sent and was answered. Plain tuples: keeping one costs
        the hot path less than computing with it."""

    def recent(self, now: float) -> tuple[list[float], list[float]]:
        """Return the waits and the response times, in seconds, each sorted.

        They are those of the last `WINDOW_EXCHANGES` exchanges, as far as they were
        answered within `WINDOW_SECONDS` before `now`.
        """
        begin = now - WINDOW_SECONDS
        recent = [times for times in self.exchanges if times[2] >= begin]
        waits = sorted(sent - arrived for arrived, sent, _ in recent)
        took = sorted(answered - sent for _, sent, answered in recent)
        return waits, took


class Counts(Interface):
    """What statistics needs of a client that counts its own traffic."""

    requests: int
    bytes_in: int
    bytes_out: int


class Traffic:
    """Sums of what clients count themselves."""

    __slots__ = ("bytes_in", "bytes_out", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def add(self, client: Counts, sign: int = 1) -> None:
        """Add what a client has counted, or subtract it with a `sign` of -1."""
        self.requests += sign * client.requests
        self.bytes_in += sign * client.bytes_in
        self.bytes_out += sign * client.bytes_out

    def including(self, clients: Iterable[Counts]) -> Traffic:
        """Return the sum of this and of clients that are still connected."""
        total = Traffic()
        total.add(self)
        for client in clients:
            total.add(client)
        return total


class Statistics:
    """The counters of one multiplexer, since the start or the last reset."""

    def __init__(self, trace_size: int, now: float) -> None:
        """Start counting at `now`, and keep the last `trace_size` exchanges."""
        self.trace: deque[TraceEntry] = deque(maxlen=trace_size)
        self.reset(now)

    def reset(self, now: float) -> None:
        """Start counting again at `now`; the trace is kept."""
        self.since = now
        self.gone = Traffic()
        """Of clients that left, minus what those here had counted before a reset."""
        self.exceptions = 0
        self.failures: dict[Failure, int] = dict.fromkeys(Failure, 0)
        self.timeouts = 0
        self.reads_shared = 0
        self.reads_cached = 0
        self.writes_refused = 0
        self.writes_acknowledged = 0
        self.late_responses = 0
        self.unsolicited_responses = 0
        self.would_match_leniently = 0
        self.invalid_requests = 0
        self.clients_refused = 0
        self.clients_peak = 0
        self.connection_attempts = 0
        self.reconnects = 0
        self.bytes_from_upstream = 0
        self.bytes_to_upstream = 0
        self.times = Times()
        self.units = UnitCounters()


def percentile(values: list[float], share: float) -> float | None:
    """Return the nearest-rank percentile of sorted `values`, or None without any."""
    if not values:
        return None
    return values[max(0, ceil(share * len(values)) - 1)]
