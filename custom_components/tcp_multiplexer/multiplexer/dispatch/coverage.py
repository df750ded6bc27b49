"""Finds, of many reads, one that covers another.

Of each area only those reads are kept that no other one covers. Ordered by where they
begin, they are then ordered by where they end, too. So the last that does not begin
behind a read is the one that reaches farthest, and the only one to be looked at.
"""

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocols.extent import Extent


class Coverage[ItemT]:
    """Reads of one scope, each with what is known of it."""

    def __init__(self) -> None:
        self._areas: dict[bytes, list[tuple[int, int, Extent, ItemT]]] = {}
        """By area: first address, end, both once more, and the item; in order."""

    def find(self, extent: Extent) -> tuple[Extent, ItemT] | None:
        """Return a read that covers `extent`, which may be the same, or None."""
        line = self._areas.get(extent.area)
        if line is None:
            return None
        at = bisect_left(line, (extent.first + 1,)) - 1
        if at < 0 or line[at][1] < extent.end:
            return None
        return line[at][2:]

    def add(self, extent: Extent, item: ItemT) -> None:
        """Keep a read in place of those that it covers, unless a wider one is kept."""
        wider = self.find(extent)
        if wider is not None and not extent.covers(wider[0]):
            return
        line = self._areas.setdefault(extent.area, [])
        begin = end = bisect_left(line, (extent.first,))
        while end < len(line) and line[end][1] <= extent.end:
            end += 1
        line[begin:end] = [(extent.first, extent.end, extent, item)]

    def remove(self, extent: Extent, item: ItemT) -> None:
        """Keep a read no longer, if it is kept."""
        line = self._areas.get(extent.area, [])
        at = bisect_left(line, (extent.first,))
        if at < len(line) and line[at][3] == item:
            del line[at]
            if not line:
                del self._areas[extent.area]
