"""Counting: what passed, what failed, how long it took, and the last exchanges.

The counters are plain attributes, because the hot path adds to several of them for
each request. Times within are loop time; `Multiplexer.snapshot` turns them into times
of day.
"""

from array import array
from collections import defaultdict, deque
from math import ceil
from typing import TYPE_CHECKING

from .protocols.base import Failure
from .snapshot import ScopeSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .client import Client

WINDOW = 1000
"""Exchanges over which times are judged."""
PAYLOAD_KEPT = 512
"""Bytes of a payload that a trace keeps."""


class UnitCounters:
    """What was asked of each unit, and what came of it."""

    __slots__ = ("asked", "failed", "refused", "responses")

    def __init__(self) -> None:
        """Start at nothing."""
        self.asked: defaultdict[bytes, int] = defaultdict(int)
        """By unit and function, as they stand in a request: one look-up counts both."""
        self.responses: defaultdict[int, int] = defaultdict(int)
        self.failed: defaultdict[int, int] = defaultdict(int)
        self.refused: defaultdict[int, int] = defaultdict(int)

    def snapshot(self) -> dict[int, ScopeSnapshot]:
        """Give the counters of each unit as they are now."""
        functions: defaultdict[int, dict[int, int]] = defaultdict(dict)
        for (unit, function), count in self.asked.items():
            functions[unit][function] = count
        return {
            unit: ScopeSnapshot(
                requests=sum(asked.values()),
                responses=self.responses.get(unit, 0),
                failures=self.failed.get(unit, 0),
                refused=self.refused.get(unit, 0),
                functions=asked,
            )
            for unit, asked in functions.items()
        }


type TraceEntry = tuple[float, str, bytes, bytes | None, str, float, float | None]
"""When it ended, who asked, request, response, outcome, when it came, when it was
sent: a bare tuple, because one is made for each request."""


class Times:
    """Wait and response time of the last `WINDOW` exchanges answered, in seconds.

    Two rings of plain numbers: objects would be touched once more when they are
    thrown away, a thousand exchanges later, when they have left every cache.
    """

    __slots__ = ("_count", "_took", "_waits")

    def __init__(self) -> None:
        """Begin with none."""
        self._count = 0
        self._took = array("d", bytes(8 * WINDOW))
        self._waits = array("d", bytes(8 * WINDOW))

    def add(self, wait: float, took: float) -> None:
        """Add one exchange; the oldest goes."""
        at = self._count % WINDOW
        self._waits[at] = wait
        self._took[at] = took
        self._count += 1

    @property
    def waits(self) -> list[float]:
        """The waits, sorted."""
        return sorted(self._waits[: self._count])

    @property
    def took(self) -> list[float]:
        """The response times, sorted."""
        return sorted(self._took[: self._count])


class Traffic:
    """What clients count themselves, summed up over all that ever came."""

    __slots__ = ("bytes_in", "bytes_out", "requests")

    def __init__(self) -> None:
        """Start at nothing."""
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def add(self, client: Client | Traffic, sign: int = 1) -> None:
        """Add what a client that is gone has counted; -1: leave out what it has."""
        self.requests += sign * client.requests
        self.bytes_in += sign * client.bytes_in
        self.bytes_out += sign * client.bytes_out

    def with_those_here(self, clients: Iterable[Client]) -> Traffic:
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
        self.responses = 0
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
