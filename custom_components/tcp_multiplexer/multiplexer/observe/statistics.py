"""Counting: what passed, what failed, how long it took, and the last exchanges.

The counters are plain attributes, because the hot path adds to several of them for
each request. Times within are loop time; `Multiplexer.snapshot` turns them into times
of day.
"""

from collections import Counter, defaultdict, deque
from math import ceil
from typing import TYPE_CHECKING, Protocol as Interface

from ..protocols.base import Failure
from .snapshot import ScopeSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW_SECONDS = 600.0
"""How far back waits and response times are judged: a device that sleeps has none."""
WINDOW_EXCHANGES = 1000
"""Most exchanges in that window: of a busy device, the last ones."""
PAYLOAD_KEPT = 512
"""Bytes of a payload that a trace keeps."""


class UnitCounters:
    """What was asked of each unit, by what came of it.

    By unit and function, as they stand in a request, so that one look-up counts both.
    """

    __slots__ = ("acknowledged", "answered", "failed", "refused")

    def __init__(self) -> None:
        """Start at nothing."""
        self.answered: defaultdict[bytes, int] = defaultdict(int)
        self.acknowledged: defaultdict[bytes, int] = defaultdict(int)
        self.failed: defaultdict[bytes, int] = defaultdict(int)
        self.refused: defaultdict[bytes, int] = defaultdict(int)

    def snapshot(self) -> dict[int, ScopeSnapshot]:
        """Give the counters of each unit as they are now."""
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


type TraceEntry = tuple[float, str, bytes, bytes | None, str, float, float | None]
"""When it ended, who asked, request, response, outcome, when it came, when it was
sent: a bare tuple, because one is made for each request."""


class Times:
    """When the last exchanges arrived, were sent and were answered (loop time)."""

    __slots__ = ("_exchanges", "count")

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        """How many there ever were."""
        # Bare tuples: to keep one costs the hot path less than to compute with it.
        self._exchanges: deque[tuple[float, float, float]] = deque(
            maxlen=WINDOW_EXCHANGES
        )

    def add(self, arrived: float, sent: float, answered: float) -> None:
        """Add an exchange that was answered."""
        self._exchanges.append((arrived, sent, answered))
        self.count += 1

    def recent(self, now: float) -> tuple[list[float], list[float]]:
        """Return waits and response times, in seconds and sorted.

        They are those of the last `WINDOW_EXCHANGES` exchanges that were answered
        within `WINDOW_SECONDS` before `now`.
        """
        begin = now - WINDOW_SECONDS
        recent = [times for times in self._exchanges if times[2] >= begin]
        waits = sorted(sent - arrived for arrived, sent, _ in recent)
        took = sorted(answered - sent for _, sent, answered in recent)
        return waits, took


class Counts(Interface):
    """What something that counts its own traffic shows."""

    requests: int
    bytes_in: int
    bytes_out: int


class Traffic:
    """What clients count themselves, summed up over all that ever came."""

    __slots__ = ("bytes_in", "bytes_out", "requests")

    def __init__(self) -> None:
        """Start at nothing."""
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def add(self, client: Counts, sign: int = 1) -> None:
        """Add what a client that is gone has counted; -1: leave out what it has."""
        self.requests += sign * client.requests
        self.bytes_in += sign * client.bytes_in
        self.bytes_out += sign * client.bytes_out

    def with_those_here(self, clients: Iterable[Counts]) -> Traffic:
        """Give the sum with clients that are still counting."""
        total = Traffic()
        total.add(self)
        for client in clients:
            total.add(client)
        return total


class Statistics:
    """The counters of one multiplexer, since the start or the last reset."""

    def __init__(self, trace_size: int, now: float) -> None:
        """Start counting at `now` (loop time)."""
        self.trace: deque[TraceEntry] = deque(maxlen=trace_size)
        self.reset(now)

    def reset(self, now: float) -> None:
        """Begin again; the trace and what is connected stay."""
        self.since = now
        self.gone = Traffic()
        """Of clients that are gone, less what others had counted before a reset."""
        self.exceptions = 0
        self.failures: dict[Failure, int] = dict.fromkeys(Failure, 0)
        self.timeouts = 0
        self.reads_shared = 0
        self.reads_cached = 0
        self.writes_refused = 0
        self.writes_acknowledged = 0
        self.late_responses = 0
        self.stray_responses = 0
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
    """Give the nearest-rank percentile of sorted `values`; None of nothing."""
    if not values:
        return None
    return values[max(0, ceil(share * len(values)) - 1)]
