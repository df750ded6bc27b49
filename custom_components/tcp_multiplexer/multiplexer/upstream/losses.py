"""What the end of a connection says about the device."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ..dispatch.exchange import BY_DEVICE, CloseReason

if TYPE_CHECKING:
    from ..dispatch.connections import Connections
    from ..dispatch.exchange import Upstream

_OWN_REASONS = frozenset(
    (
        CloseReason.IDLE,
        CloseReason.LIFETIME,
        CloseReason.RECONNECT,
        CloseReason.PAUSED,
        CloseReason.STOPPED,
        CloseReason.SPENT,
    )
)
"""Reasons for which the multiplexer itself closes a connection of a healthy device."""
_AT_ONCE = 0.05
"""Seconds within which a device turns a connection away that it does not serve, as one
that somebody else holds does, ..."""
_TIMES = 3
"""... so many times in a row, and has never answered."""
_HANG_UPS = 2
"""At so many requests in a row a device may hang up because of these requests ..."""
_LATELY = 60.0
"""... and where it has answered another one within so many seconds ..."""
_HANG_UPS_LATELY = 5
"""... at so many."""


class Loss(enum.Enum):
    """What the end of a connection means."""

    NOTHING = enum.auto()
    """The device is there: the next connection may be opened at once."""
    ON_PURPOSE = enum.auto()
    """None is needed until something is asked."""
    UNASKED = enum.auto()
    """The device closed it before anything was asked."""
    TOO_MANY = enum.auto()
    """The device cannot serve so many."""
    FAILED = enum.auto()
    """It was a failed attempt to reach the device."""


class LossJudge:
    """Tells ends that are an outage from those that are not."""

    def __init__(
        self, connections: Connections, trial_seconds: float, *, has_units: bool
    ) -> None:
        """Judge by the other connections; `has_units` as of the protocol."""
        self._connections = connections
        self._trial_seconds = trial_seconds
        self._has_units = has_units
        self._turned_away = 0
        """Connections in a row that were."""
        self._hang_ups = 0
        """Connections in a row at whose first request the device has hung up."""
        self._answered_before = 0.0
        """When the device had last answered then (loop time)."""

    def judge(
        self, upstream: Upstream, reason: CloseReason, now: float, answered: float
    ) -> Loss:
        """Judge the end of a connection that is no longer among the open ones.

        The device last answered at `answered` (loop time; 0: never).
        """
        others = self._connections.open
        if reason in _OWN_REASONS:
            idle = reason is CloseReason.IDLE and not others
            return Loss.ON_PURPOSE if idle else Loss.NOTHING
        if reason in BY_DEVICE:
            self._connections.closed_by_device(upstream, now - answered)
        if others:
            newest = max(other.opened_at for other in others)
            dropped = upstream.opened_at < newest > now - self._trial_seconds
            return Loss.TOO_MANY if dropped or upstream.on_trial else Loss.NOTHING
        if upstream.responses:
            return Loss.NOTHING
        if reason is CloseReason.NO_RESPONSE and self._has_units:
            return Loss.NOTHING  # it was renewed: the units are judged one by one
        if not upstream.sent:
            at_once = now - upstream.opened_at < _AT_ONCE and not answered
            self._turned_away = self._turned_away + 1 if at_once else 0
            return Loss.FAILED if self._turned_away >= _TIMES else Loss.UNASKED
        hung_up = reason in BY_DEVICE and upstream.reaches_device
        if hung_up and self._due_to_request(now, answered):
            return Loss.NOTHING
        return Loss.FAILED

    def _due_to_request(self, now: float, answered: float) -> bool:
        """Return whether the device may have hung up because of what was asked."""
        if answered != self._answered_before:
            self._answered_before = answered
            self._hang_ups = 0
        self._hang_ups += 1
        lately = answered > 0 and now - answered <= _LATELY
        return self._hang_ups <= (_HANG_UPS_LATELY if lately else _HANG_UPS)
