"""Counts that only monitoring needs: a histogram, and clients one by one.

They replace the plain counters of `Statistics` only where they are asked for, so that
nobody else pays for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import TYPE_CHECKING, override

from .snapshot import BUCKETS, ClientCounts, Detail
from .statistics import WINDOW_EXCHANGES, Counts, Statistics, Times, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLIENTS_NAMED = 50
"""Addresses of clients that are counted apart; the others are counted together."""


class TimedExchanges:
    """The last exchanges, as in `Times`, and a histogram of all of them.

    It has a deque, and is none: compiled by mypyc, one of those would crash.
    """

    __slots__ = ("_last", "buckets", "seconds")

    def __init__(self) -> None:
        self._last: deque[tuple[float, float, float]] = deque(maxlen=WINDOW_EXCHANGES)
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def append(self, times: tuple[float, float, float], /) -> None:
        """Add an exchange: when it arrived, was sent and was answered."""
        self._last.append(times)
        took = times[2] - times[0]
        self.buckets[bisect_left(BUCKETS, took)] += 1
        self.seconds += took

    def __iter__(self) -> Iterator[tuple[float, float, float]]:
        """Iterate over the last ones."""
        return iter(self._last)


class TrafficByAddress(Traffic):
    """Sums of what clients that left have counted, and by their addresses too."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[str | None, ClientCounts] = {}

    @override
    def add(self, client: Counts, sign: int = 1) -> None:
        super().add(client, sign)
        self._counts(client.address).add(client, sign)

    def _counts(self, address: str | None) -> ClientCounts:
        """Return the counts of an address; only the first ones have some of their own.

        So each keeps its name for good, as those who draw curves need it.
        """
        if address not in self._left and len(self._left) >= CLIENTS_NAMED:
            address = None
        return self._left.setdefault(address, ClientCounts())

    def by_address(self, clients: Iterable[Counts]) -> dict[str | None, ClientCounts]:
        """Return the sums of those that left, and of `clients` that are connected."""
        connected: Counter[int] = Counter()
        here: dict[int, ClientCounts] = {}
        for client in clients:
            key = id(self._counts(client.address))
            connected[key] += 1
            here.setdefault(key, ClientCounts()).add(client)
        done = {}
        for address, left in self._left.items():
            done[address] = counts = ClientCounts(connections=connected[id(left)])
            counts.add(left)
            if id(left) in here:
                counts.add(here[id(left)])
        return done


class DetailedStatistics(Statistics):
    """Statistics that count in detail, too."""

    @override
    def reset(self, now: float) -> None:
        super().reset(now)
        self._exchanges = TimedExchanges()
        self.times = Times(self._exchanges)
        self.gone = self._traffic = TrafficByAddress()

    @override
    def detail(self, clients: Iterable[Counts]) -> Detail:
        return Detail(
            buckets=tuple(self._exchanges.buckets),
            seconds=self._exchanges.seconds,
            clients=self._traffic.by_address(clients),
        )
