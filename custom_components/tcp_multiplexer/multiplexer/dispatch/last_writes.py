"""The last write to each unit, kept to confirm the same write again without sending it.

Some controllers set the same value several times a second, and the flash memory of some
inverters wears. What is kept of a unit counts only as long as nothing else can have
changed there: it is forgotten with the next write to the unit, with a broadcast, with a
request to the unit that got no response, and with the end of any connection, by which a
device shows that it starts again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..protocols.base import Request


class LastWrites:
    """Confirmed writes, at most one of each unit."""

    def __init__(self, ttl: float) -> None:
        """Keep each for `ttl` seconds; 0: keep none."""
        self.ttl = ttl
        self._kept: dict[Hashable, tuple[bytes, Any, float]] = {}
        """The write, its confirmation, and when that expires (loop time)."""

    def __len__(self) -> int:
        """Return how many are kept, expired ones too."""
        return len(self._kept)

    def apply(self, ttl: float) -> None:
        """Keep writes for another time; those kept until now are forgotten."""
        if ttl != self.ttl:
            self.ttl = ttl
            self.clear()

    def put(self, request: Request, response: Any, now: float) -> None:
        """Keep a write that the device has confirmed."""
        self._kept[request.writes] = (request.payload, response, now + self.ttl)

    def confirmation(self, request: Request, now: float) -> Any | None:
        """Return the confirmation of a write if the last one was the same, or None."""
        payload, response, until = self._kept.get(request.writes, (b"", None, 0.0))
        return response if payload == request.payload and now < until else None

    def forget(self, unit: Hashable) -> None:
        """Forget the last write to a unit."""
        self._kept.pop(unit, None)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
