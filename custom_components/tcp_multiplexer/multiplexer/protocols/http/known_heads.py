"""Heads that have been read, for when they come again byte for byte.

Pollers send the same fields again and again, and those of a device differ in little but
their Date. What a head says depends on its bytes alone, so what was read once need not
be read again. h11 stays the only judge: a head that differs in one byte is another.

What is kept is little, and the latest, and has no credentials: these would stay in
memory when those who sent them have left.
"""

from __future__ import annotations

HEADS = 64
"""How many are kept of one direction: those that come within a second, for a device
with a clock and a few dozen clients that ask for something different each."""
LONGEST = 2 << 10
"""Bytes of the longest that is kept."""


class KnownHeads[HeadT]:
    """What was read from heads of one direction, by their bytes.

    All connections of that direction share it, so what is kept must not change.
    """

    __slots__ = ("_heads", "get")

    def __init__(self) -> None:
        self._heads: dict[bytes, HeadT] = {}
        self.get = self._heads.get
        """Returns what was read from a head; None if it is not known."""

    def __len__(self) -> int:
        return len(self._heads)

    def keep(self, raw: bytes, head: HeadT) -> None:
        """Keep what was read from `raw`, unless that is long."""
        if len(raw) > LONGEST:
            return
        if len(self._heads) == HEADS and raw not in self._heads:
            del self._heads[next(iter(self._heads))]
        self._heads[raw] = head
