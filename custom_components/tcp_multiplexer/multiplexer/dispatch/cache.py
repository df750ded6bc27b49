"""Responses that are kept for a while, to answer identical reads and parts of them.

A value's age counts from when it was asked for. What has expired is kept as long again,
which tells what is asked again and again, and then swept out; one moment of the
engine's timer serves all entries, and none while there are none.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..protocols.base import ShareKey
    from .timer import Timer

_MOST = 4096
"""Responses kept; Modbus, which alone shares reads, has 253 bytes in one at most."""
_SWEEP_SECONDS = 1.0
"""The least time between two sweeps."""


class Cache:
    """The cached responses of all scopes."""

    def __init__(self, timer: Timer, ttl: float) -> None:
        """Keep responses for `ttl` seconds; 0: keep none."""
        self.ttl = ttl
        self.sweep_at = inf
        """When `sweep` has something to do (loop time)."""
        self._timer = timer
        self._entries: OrderedDict[ShareKey, tuple[float, Any]] = OrderedDict()
        """When each expires (loop time), and the response; in the order they came."""
        self._scopes: dict[Hashable, set[ShareKey]] = {}
        """Whose responses these are."""

    def __len__(self) -> int:
        """Return how many responses are kept."""
        return len(self._entries)

    def get(self, key: ShareKey, now: float) -> Any | None:
        """Return a response that is still fresh, or None."""
        until, response = self._entries.get(key, (0.0, None))
        return response if now < until else None

    def last(self, key: ShareKey) -> Any | None:
        """Return the last response, fresh or not, or None if it is not kept."""
        return self._entries.get(key, (0.0, None))[1]

    def put(self, key: ShareKey, response: Any, sent: float, now: float) -> None:
        """Keep a response that came at `now` to a request `sent` then (loop time)."""
        self._entries[key] = (sent + self.ttl, response)
        self._entries.move_to_end(key)
        self._scopes.setdefault(key[0], set()).add(key)
        if len(self._entries) > _MOST:
            self._drop_oldest()
        if self.sweep_at == inf:
            self._sweep_after(now)

    def _sweep_after(self, now: float) -> None:
        self.sweep_at = now + max(self.ttl, _SWEEP_SECONDS)
        self._timer.set(self.sweep_at)

    def sweep(self, now: float) -> None:
        """Forget what has long expired, if it is time for that."""
        if now < self.sweep_at:
            return
        kept_since = now - self.ttl
        while self._entries and next(iter(self._entries.values()))[0] <= kept_since:
            self._drop_oldest()
        self.sweep_at = inf
        if self._entries:
            self._sweep_after(now)

    def _drop_oldest(self) -> None:
        key, _ = self._entries.popitem(last=False)
        keys = self._scopes[key[0]]
        keys.discard(key)
        if not keys:
            del self._scopes[key[0]]

    def clear_scope(self, scope: Hashable) -> None:
        """Forget the responses of one scope."""
        for key in self._scopes.pop(scope, ()):
            del self._entries[key]

    def clear(self) -> None:
        """Forget all responses."""
        self._entries.clear()
        self._scopes.clear()
