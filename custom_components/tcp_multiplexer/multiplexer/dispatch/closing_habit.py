"""Devices that close the connection after each response.

They do not announce it, and may take some milliseconds for it. A request sent meanwhile
is lost, and a write among these must not be sent again. So the habit is learned, and
then each request gets a connection of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .exchange import Upstream

SECONDS = 0.25
"""How soon after the response a device with this habit closes."""
_TIMES = 3
"""Connections in a row that ended so, until it is taken for a habit."""
_EXCHANGES_TO_CHECK = 64
"""After so many exchanges it is seen whether the device still has the habit."""


class ClosingHabit:
    """Learns whether the device closes each connection after its first response."""

    def __init__(self) -> None:
        self.known = False
        self._in_a_row = 0
        self._until_check = _EXCHANGES_TO_CHECK

    def closed_by_device(self, upstream: Upstream, after: float) -> None:
        """Learn from a connection that the device closed `after` seconds of silence."""
        if self.known and not upstream.responses:
            return
        shows_it = upstream.responses == 1 and after <= SECONDS
        self._in_a_row = self._in_a_row + 1 if shows_it else 0
        self.known = self._in_a_row >= _TIMES

    def forget(self) -> None:
        """Learn that the device has answered two requests on one connection."""
        self.known = False
        self._in_a_row = 0

    def is_to_be_checked(self) -> bool:
        """Count an exchange; return whether to leave the closing to the device now."""
        self._until_check -= 1
        if self._until_check:
            return False
        self._until_check = _EXCHANGES_TO_CHECK
        return True
