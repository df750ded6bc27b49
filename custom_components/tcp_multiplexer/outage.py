"""What an outage makes of every request: refused. How often that is told.

Clients go on asking while their device is away for a night, or paused. That it is away
is an event, and a state; that requests are refused because of it is told at once, and
then, client by client, ever more seldom: what was held back comes as one event with its
count. Otherwise a night would leave an entry a second in the recorder's database.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from .multiplexer import Event, EventType, Failure

FIRST_SECONDS: Final = 1.0
FORGET_SECONDS: Final = 60.0
MOST_SECONDS: Final = 900.0
_REASONS: Final = {Failure.NO_CONNECTION.value, Failure.PAUSED.value}

type _Kind = tuple[str | None, str | None]


@dataclass
class _Held:
    """What is held back of one client and reason."""

    timer: asyncio.TimerHandle
    seconds: float
    """How long it is held back this time."""
    event: Event | None = None


class Refusals:
    """Holds back events about requests that were refused because of an outage."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tell: Callable[[Event], None]
    ) -> None:
        """Hand to `tell` what is to be told."""
        self._loop = loop
        self._tell = tell
        self._held: dict[_Kind, _Held] = {}

    def take(self, event: Event) -> None:
        """Tell an event at once, or hold it back."""
        match event.type, event.reason:
            case (EventType.UPSTREAM_BACK, _) | (EventType.HEALTH_CHANGED, "healthy"):
                self.end()
            case EventType.REQUEST_REFUSED, reason if reason in _REASONS:
                self._take_refusal(event)
                return
        self._tell(event)

    def _take_refusal(self, event: Event) -> None:
        kind = (event.client, event.reason)
        if (held := self._held.get(kind)) is None:
            self._hold(kind, FIRST_SECONDS)
            self._tell(event)
        elif held.event is None:
            held.event = event
        else:
            held.event = replace(event, count=held.event.count + event.count)

    def end(self) -> None:
        """Tell what is held back, and be patient no more."""
        held_back, self._held = self._held, {}
        for held in held_back.values():
            held.timer.cancel()
            if held.event is not None:
                self._tell(held.event)

    def _hold(self, kind: _Kind, seconds: float) -> None:
        timer = self._loop.call_at(self._loop.time() + seconds, self._release, kind)
        self._held[kind] = _Held(timer, seconds)

    def _release(self, kind: _Kind) -> None:
        """Tell what was held back, and hold its like back for twice as long.

        Many clients ask but a few times a minute: only who is silent for longer is
        forgotten.
        """
        held = self._held.pop(kind)
        if held.event is not None or held.seconds < FORGET_SECONDS:
            self._hold(kind, min(2 * held.seconds, MOST_SECONDS))
        if held.event is not None:
            self._tell(held.event)
