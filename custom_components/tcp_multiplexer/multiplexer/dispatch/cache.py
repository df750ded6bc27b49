"""Responses that are kept for a while, to answer identical reads and parts of them.

Since all are kept equally long, the oldest is the first to expire. What nobody asks for
again is swept out; one moment of the engine's timer serves all entries, and none while
there are none.
"""

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from .coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..protocols.base import ShareKey
    from ..protocols.extent import Extent
    from .timer import Timer

_MOST = 4096
"""Responses kept; Modbus, which alone shares reads, has 253 bytes in one at most."""
_SWEEP_SECONDS = 1.0
"""The least time between two sweeps."""


class Entry(NamedTuple):
    """A response that is kept."""

    key: ShareKey
    extent: Extent | None
    """What may be cut from it."""
    response: Any
    until: float
    """When it expires (loop time)."""


class Scope:
    """The responses of one scope."""

    def __init__(self) -> None:
        self.keys: set[ShareKey] = set()
        self.coverage: Coverage[Entry] = Coverage()


class Cache:
    """The cached responses of all scopes."""

    def __init__(self, timer: Timer, ttl: float) -> None:
        """Keep responses for `ttl` seconds; 0: keep none."""
        self.ttl = ttl
        self.sweep_at = inf
        """When `sweep` has something to do (loop time)."""
        self._timer = timer
        self._entries: OrderedDict[ShareKey, Entry] = OrderedDict()
        """The oldest first."""
        self._scopes: dict[Hashable, Scope] = {}
        """Whose responses these are."""

    def __len__(self) -> int:
        """Return how many responses are kept."""
        return len(self._entries)

    def apply(self, ttl: float) -> None:
        """Keep responses for another time; those kept until now are forgotten."""
        if ttl != self.ttl:
            self.ttl = ttl
            self.clear()

    def get(self, key: ShareKey, now: float) -> Any | None:
        """Return a response that is still fresh, or None."""
        entry = self._entries.get(key)
        return entry.response if entry is not None and now < entry.until else None

    def cut(self, key: ShareKey, extent: Extent, now: float) -> Any | None:
        """Return the part of a fresh response that covers a read, or None."""
        scope = self._scopes.get(key[0])
        wider = None if scope is None else self._wider(scope, extent, now)
        if wider is None or wider.extent is None:
            return None
        return wider.extent.cut(wider.response, extent)

    @staticmethod
    def _wider(scope: Scope, extent: Extent, now: float) -> Entry | None:
        """Return a fresh response from which one may be cut, or None."""
        while found := scope.coverage.find(extent):
            if now < found[1].until:
                return found[1]
            scope.coverage.remove(*found)
        return None

    def put(
        self, key: ShareKey, response: Any, now: float, extent: Extent | None = None
    ) -> None:
        """Keep a response; if it covers an `extent`, others may be cut from it."""
        if extent is not None and not extent.is_whole(response):
            extent = None
        entry = Entry(key, extent, response, now + self.ttl)
        if key in self._entries:
            self._drop(key)
        self._entries[key] = entry
        scope = self._scopes.get(key[0])
        if scope is None:
            scope = self._scopes[key[0]] = Scope()
        scope.keys.add(key)
        if extent is not None:
            self._wider(scope, extent, now)  # what has expired is not wider
            scope.coverage.add(extent, entry)
        if len(self._entries) > _MOST:
            self._drop(next(iter(self._entries)))
        if self.sweep_at == inf:
            self._sweep_after(now)

    def _sweep_after(self, now: float) -> None:
        self.sweep_at = now + max(self.ttl, _SWEEP_SECONDS)
        self._timer.set(self.sweep_at)

    def sweep(self, now: float) -> None:
        """Forget what has expired, if it is time for that."""
        if now < self.sweep_at:
            return
        while self._entries and next(iter(self._entries.values())).until <= now:
            self._drop(next(iter(self._entries)))
        self.sweep_at = inf
        if self._entries:
            self._sweep_after(now)

    def _drop(self, key: ShareKey) -> None:
        entry = self._entries.pop(key)
        scope = self._scopes[key[0]]
        scope.keys.discard(key)
        if entry.extent is not None:
            scope.coverage.remove(entry.extent, entry)
        if not scope.keys:
            del self._scopes[key[0]]

    def clear_scope(self, scope: Hashable) -> None:
        """Forget the responses of one scope."""
        cleared = self._scopes.pop(scope, None)
        if cleared is not None:
            for key in cleared.keys:
                del self._entries[key]

    def clear(self) -> None:
        """Forget all responses."""
        self._entries.clear()
        self._scopes.clear()
