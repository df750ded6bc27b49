"""How often requests are reported that an outage refuses.

Clients keep asking while their device is away for the night, or paused, or a unit of
it silent. The outage is an event and a state; that requests are refused because of it
is reported at once, and then, for each client, less and less often: what was held back
is one event with a count. Otherwise a night would leave an entry a second in the
recorder's database.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from .multiplexer import Event, EventType, Failure

FIRST_SECONDS: Final = 1.0
FORGET_SECONDS: Final = 60.0
MOST_SECONDS: Final = 900.0
_REASONS: Final = {
    Failure.NO_CONNECTION.value,
    Failure.PAUSED.value,
    Failure.SILENT.value,
}

type _Kind = tuple[str | None, str | None]


@dataclass
class _Held:
    """What is held back for one client and reason."""

    timer: asyncio.TimerHandle
    seconds: float
    """How long it is held back this time, in seconds."""
    event: Event | None = None


class Refusals:
    """Holds back events about requests that were refused because of an outage.

    All other events, and those that are due, go to `deliver`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Event], None]
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self._held: dict[_Kind, _Held] = {}

    def take(self, event: Event) -> None:
        """Deliver an event at once, or hold it back."""
        match event.type, event.reason:
            case (EventType.UPSTREAM_BACK, _) | (EventType.HEALTH_CHANGED, "healthy"):
                self.end()
            case EventType.REQUEST_REFUSED, reason if reason in _REASONS:
                self._take_refusal(event)
                return
        self._deliver(event)

    def _take_refusal(self, event: Event) -> None:
        kind = (event.client, event.reason)
        if (held := self._held.get(kind)) is None:
            self._hold(kind, FIRST_SECONDS)
            self._deliver(event)
        elif held.event is None:
            held.event = event
        else:
            held.event = replace(event, count=held.event.count + event.count)

    def end(self) -> None:
        """Deliver what is held back, and start over."""
        held_back, self._held = self._held, {}
        for held in held_back.values():
            held.timer.cancel()
            if held.event is not None:
                self._deliver(held.event)

    def _hold(self, kind: _Kind, seconds: float) -> None:
        timer = self._loop.call_at(self._loop.time() + seconds, self._release, kind)
        self._held[kind] = _Held(timer, seconds)

    def _release(self, kind: _Kind) -> None:
        """Deliver what was held back, and hold the like back for twice as long.

        Many clients ask only a few times a minute: one is forgotten only after it was
        silent for longer than that.
        """
        held = self._held.pop(kind)
        if held.event is not None or held.seconds < FORGET_SECONDS:
            self._hold(kind, min(2 * held.seconds, MOST_SECONDS))
        if held.event is not None:
            self._deliver(held.event)
