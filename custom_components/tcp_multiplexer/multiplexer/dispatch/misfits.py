"""Notices a device that does not echo transaction identifiers, or units.

Strict matching discards what it sends, so that every request times out although it was
answered. A single response that fits by accident proves nothing: the owner is told
after several requests in a row.
"""

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


class Misfits:
    """Counts requests that lenient matching would have seen answered."""

    def __init__(self, statistics: Statistics, events: Events, name: str) -> None:
        self._statistics = statistics
        self._events = events
        self._name = name
        self._in_a_row = 0
        self._sent = 0.0
        """When the last of these was sent."""

    def timed_out(
        self,
        exchange: Exchange,
        last_response: float | None,
        mismatch: Mismatch | None,
    ) -> None:
        """Count one; what the device answered in between ends the row."""
        self._statistics.would_match_leniently += 1
        if last_response is not None and last_response > self._sent:
            self._in_a_row = 0
        self._in_a_row += 1
        self._sent = exchange.sent
        if self._in_a_row == _MISFITS_TO_REPORT:
            LOGGER.warning(
                "%s responds, but with another %s than it is asked with; lenient "
                "matching would pass its responses on",
                self._name,
                "unit" if mismatch is Mismatch.UNIT else "transaction identifier",
            )
            self._events.tell(Event(EventType.LENIENT_WOULD_HELP, reason=mismatch))
