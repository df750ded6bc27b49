"""When the bytes came that are received of a client and not taken from its codec yet.

The timeout of a request runs from the moment when it was complete, also while there is
no room for it in the queue.
"""

from __future__ import annotations

_LEAST = 4
"""Bytes of the shortest request that can come while others wait (Modbus RTU)."""


class Arrivals:
    """Up to where the stream of one client had come, and when."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: list[tuple[int, float]] = []
        """Each is a count of bytes, and the loop time by which these had come."""

    def __len__(self) -> int:
        """Return how many moments are kept; none while nothing has to wait."""
        return len(self._marks)

    def note(self, received: int, taken: int, now: float) -> None:
        """Note that `received` bytes have come by `now`, of which `taken` are taken.

        Pieces of one request count as come with the first of them, while they are fewer
        bytes than any request has. So moments do not fill memory.
        """
        marks = self._marks
        while marks and marks[0][0] <= taken:
            del marks[0]
        if not marks:
            marks.append((received, now))
        elif received > marks[-1][0]:
            before = marks[-2][0] if len(marks) > 1 else taken
            if received - before < _LEAST:
                now = marks.pop()[1]
            marks.append((received, now))

    def when(self, taken: int, now: float) -> float:
        """Return when the first `taken` bytes had come: by `now`, at the latest."""
        marks = self._marks
        while marks and marks[0][0] < taken:
            del marks[0]
        return marks[0][1] if marks else now
