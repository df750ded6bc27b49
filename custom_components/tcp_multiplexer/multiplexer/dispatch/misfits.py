"""Notices a device that does not echo identifiers, units or serial numbers.

Strict matching discards its responses, so every request times out although it was
answered. One response that would have matched may be a coincidence, so the owner is
told only after several requests in a row.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..observe.events import Event, EventType
from ..protocols.base import Mismatch

if TYPE_CHECKING:
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from .exchange import Exchange

LOGGER = logging.getLogger(__name__)

_MISFITS_TO_REPORT = 3
"""Such requests in a row after which the owner is told."""


class Misfits:
    """Counts timed-out requests that lenient matching would have answered."""

    def __init__(self, statistics: Statistics, events: Events, name: str) -> None:
        self._statistics = statistics
        self._events = events
        self._name = name
        self._in_a_row = 0
        self._sent = 0.0
        """When the last of these was sent; loop time."""

    def timed_out(
        self,
        exchange: Exchange,
        last_response: float | None,
        mismatch: Mismatch | None,
    ) -> None:
        """Count one; a matched response (loop time) since the last one ends the row."""
        self._statistics.would_match_leniently += 1
        if last_response is not None and last_response > self._sent:
            self._in_a_row = 0
        self._in_a_row += 1
        self._sent = exchange.sent
        if self._in_a_row == _MISFITS_TO_REPORT:
            if mismatch is Mismatch.SERIAL:
                LOGGER.warning(
                    "%s has another serial number than it is asked with", self._name
                )
            else:
                LOGGER.warning(
                    "%s responds, but does not echo the %s that it is asked with; "
                    "lenient matching would pass its responses on",
                    self._name,
                    "unit" if mismatch is Mismatch.UNIT else "transaction identifier",
                )
            self._events.emit(Event(EventType.LENIENT_WOULD_HELP, reason=mismatch))
