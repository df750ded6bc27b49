"""When an open connection is due to be renewed, closed or probed.

Pure functions of the connection, the settings and the moment (loop time). A connection
is `busy` while something is in flight on it, or while any request waits.
"""

import enum
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..dispatch.exchange import Upstream
    from ..settings import Settings


class Duty(enum.Enum):
    """What is to be done about a connection."""

    RENEW = enum.auto()
    """It has reached its maximum age, `max_lifetime`."""
    CLOSE = enum.auto()
    """It has been unused for `idle_timeout`."""
    PROBE = enum.auto()
    """It has been silent for `health_check_interval`."""


def due(
    upstream: Upstream, settings: Settings, now: float, *, busy: bool
) -> Duty | None:
    """Return what is due now, or None."""
    if settings.max_lifetime and now >= upstream.opened_at + settings.max_lifetime:
        return Duty.RENEW
    if busy:
        return None
    if settings.idle_timeout and now >= upstream.last_used + settings.idle_timeout:
        return Duty.CLOSE
    interval = settings.health_check_interval
    if interval and now >= _last_heard(upstream) + interval:
        return Duty.PROBE
    return None


def next_due(
    upstream: Upstream, settings: Settings, now: float, *, busy: bool
) -> float:
    """Return the earliest moment at which something may be due (loop time)."""
    moment = inf
    if settings.max_lifetime:
        moment = upstream.opened_at + settings.max_lifetime
    if settings.idle_timeout:
        idle = upstream.last_used + settings.idle_timeout
        # if it is due and busy, look again later
        moment = min(
            moment, now + settings.idle_timeout if busy and idle <= now else idle
        )
    if settings.health_check_interval:
        silent_since = now if busy else _last_heard(upstream)
        moment = min(moment, silent_since + settings.health_check_interval)
    return moment


def _last_heard(upstream: Upstream) -> float:
    """Return when something last arrived, or was asked for that purpose (loop time)."""
    return max(upstream.last_received, upstream.probed_at)
