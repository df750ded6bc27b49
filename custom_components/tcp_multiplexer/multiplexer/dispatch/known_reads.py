"""Reads that the device has answered: what it can be asked to see whether it lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from ..protocols.base import Request


class KnownReads:
    """The last read of each kind that was answered without an exception."""

    def __init__(self) -> None:
        self.last: dict[Hashable, Request] = {}
        """By what requests are counted by (`Protocol.counted_by`), or all by None."""

    def __iter__(self) -> Iterator[Request]:
        """Iterate over them."""
        return iter(self.last.values())

    def after(self, count: int) -> Request | None:
        """Return one of them, the next one for each next `count`; None without any."""
        reads = list(self)
        return reads[count % len(reads)] if reads else None

    def of(self, unit: Hashable) -> list[Request]:
        """Return those of a unit; none if it has not answered any."""
        return [request for request in self if request.unit == unit]
