"""Counters, response times, and the trace of the last exchanges.

The counters are plain attributes, because the hot path increments several of them for
each request. Moments are loop time; `Multiplexer.snapshot` converts them to times of
day.
"""

from __future__ import annotations

from collections import Counter, deque
import enum
from heapq import nsmallest
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol as Interface

from ..protocols.base import Failure
from .snapshot import Detail, ScopeSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WINDOW_SECONDS = 600.0
"""The age up to which exchanges count in waits and response times."""
WINDOW_EXCHANGES = 1000
"""Maximum number of exchanges in that window; the last ones count."""
PAYLOAD_KEPT: Final = 512
"""Bytes of a payload that the trace keeps."""
PAIRS_COUNTED = 256
"""Pairs of unit and function that are counted apart, for each outcome."""


class UnitCounter(dict[bytes, int]):
    """Counts requests by unit and function, the two bytes at which each begins.

    So that nobody who tries them all fills memory, only the pairs that are asked most
    are kept apart, at most `PAIRS_COUNTED`; the others are counted by unit alone.
    """

    def __init__(self) -> None:
        self.others: Counter[int] = Counter()

    def __missing__(self, pair: bytes) -> int:
        """Make room for another pair."""
        if len(self) >= PAIRS_COUNTED:
            for rare in nsmallest(PAIRS_COUNTED // 2, self, key=self.__getitem__):
                self.others[rare[0]] += self.pop(rare)
        return 0

    def by_unit(self) -> Counter[int]:
        """Return the sums of all functions."""
        sums = self.others.copy()
        for (unit, _), count in self.items():
            sums[unit] += count
        return sums


class UnitCounters:
    """Counts the requests to each unit by their outcome."""

    __slots__ = ("acknowledged", "answered", "failed", "refused")

    def __init__(self) -> None:
        self.answered = UnitCounter()
        self.acknowledged = UnitCounter()
        self.failed = UnitCounter()
        self.refused = UnitCounter()

    def snapshot(self) -> dict[int, ScopeSnapshot]:
        """Return the counters of each unit."""
        tables = (self.answered, self.acknowledged, self.failed, self.refused)
        answered, acknowledged, failed, refused = (table.by_unit() for table in tables)
        functions: dict[int, dict[int, int]] = {
            unit: {} for unit in (*answered, *acknowledged, *failed, *refused)
        }
        for table in tables:
            for (unit, function), count in table.items():
                asked = functions[unit]
                asked[function] = asked.get(function, 0) + count
        return {
            unit: ScopeSnapshot(
                requests=answered[unit]
                + acknowledged[unit]
                + failed[unit]
                + refused[unit],
                responses=answered[unit],
                failures=failed[unit],
                refused=refused[unit],
                functions=asked,
            )
            for unit, asked in functions.items()
        }


type TraceEntry = tuple[
    str, bytes, bytes | None, enum.StrEnum, tuple[float, float | None, float]
]
"""The requester's name, request, response, outcome, and when it arrived, was sent and
ended: a plain tuple, because one is made for each request."""


class Exchanges(Interface):
    """What keeps the last exchanges: a deque, as a rule."""

    def append(self, times: tuple[float, float, float], /) -> None:
        """Add when one arrived, was sent and was answered."""

    def __iter__(self) -> Iterator[tuple[float, float, float]]:
        """Iterate over the last ones."""


class Times:
    """When the last exchanges arrived, were sent and were answered (loop time)."""

    __slots__ = ("count", "exchanges")

    def __init__(self, exchanges: Exchanges | None = None) -> None:
        """Keep the exchanges in a deque, or in what does more with them."""
        self.count = 0
        """Total number; incremented with each entry in `exchanges`."""
        self.exchanges: Exchanges = (
            deque(maxlen=WINDOW_EXCHANGES) if exchanges is None else exchanges
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

    address: str | None
    requests: int
    failures: int
    refused: int
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
        total.requests = self.requests
        total.bytes_in = self.bytes_in
        total.bytes_out = self.bytes_out
        for client in clients:
            total.add(client)
        return total


class Statistics:
    """The counters of one multiplexer, since the start or the last reset."""

    def detail(self, clients: Iterable[Counts]) -> Detail | None:  # noqa: ARG002
        """Return what is counted in detail, if it is; `clients` are connected."""
        return None

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
        self.writes_repeated = 0
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
