"""Which writes may be confirmed without being sent, as the `Watch` expects it.

Said again from the contract alone: only what repeats the last write to its unit, for a
while after that was confirmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .dialects import CONFIRMED, Verdict

if TYPE_CHECKING:
    from custom_components.tcp_multiplexer.multiplexer import Settings

    from .questions import Question

_UNSEEN = 10.0
"""Seconds after a write was sent by which it was confirmed, where nobody sees that."""


class _Last(NamedTuple):
    """The last write to a unit that went upstream."""

    question: Question
    sent: float


class LastWrites:
    """The last write to each unit, and whether the same may be confirmed by it."""

    def __init__(self, settings: Settings) -> None:
        """Begin with what the multiplexer is started with."""
        self._ttl = settings.repeated_write_ttl
        self._last: dict[int, _Last] = {}
        self.count = 0
        """Writes that were confirmed without being sent."""

    def applied(self, settings: Settings) -> None:
        """Note that other settings are in force; the most lenient ones count."""
        self._ttl = max(self._ttl, settings.repeated_write_ttl)

    def sent(self, question: Question, now: float) -> None:
        """Note that a write goes upstream."""
        assert question.ask.writes is not None
        self._last[question.ask.writes] = _Last(question, now)

    def lost(self, since: float) -> None:
        """Note that a connection to the device has ended, not before `since`."""
        for unit, last in tuple(self._last.items()):
            ended = last.question.ended
            if ended is not None and ended < since:  # else its answer may still come
                del self._last[unit]

    def may_confirm(self, question: Question) -> bool:
        """Tell whether a write that arrives now may be confirmed without being sent."""
        unit, body = question.ask.writes, question.ask.body
        if not self._ttl or unit not in self._last or body[1] not in CONFIRMED:
            return False
        last, sent = self._last[unit]
        if last.ask.body != body or question.arrived is None:
            return False
        if last.verdict is Verdict.RIGHT and last.ended is not None:
            return question.arrived <= last.ended + self._ttl
        # Another that asks the very same may have been sent instead, or its client has
        # left, or is the host, whose task learns of the answer later.
        hidden = last.alike or last.gone_turn is not None or last.asker.host
        return hidden and question.arrived <= sent + _UNSEEN + self._ttl
