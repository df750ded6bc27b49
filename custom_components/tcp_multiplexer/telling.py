"""Which events are told, under which type, and how often.

An event entity and its row in the logbook are for people, and each costs two rows in
the recorder's database. What happens for the first time is told at once. What happens
again and again is merged, with a count, and told less and less often: the night of an
inverter, a client that connects for every request, a port scan, a device that comes and
goes.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
import enum
from typing import Final

from .multiplexer import ClientRefusal, Event, EventType, Failure
from .pace import Damper, Pace

AGAIN_SECONDS: Final = 900.0
"""How often the same about the same client is told."""
AGAIN_BURST: Final = 2
"""How often it is told before that."""
DEVICE_SECONDS: Final = 1800.0
"""How often it is told what the device does to all clients, after once."""
TYPE_SECONDS: Final = 300.0
TYPE_BURST: Final = 8
"""The same bounds for one type, over all clients."""
HELD_SECONDS: Final = 2.0
"""What is held back is held at least so long, so that it is told together."""
CLIENTS_NAMED: Final = 5
"""Clients that a merged event names."""
WRITES_KEPT: Final = 16
"""Writes that a merged event lists."""
_KINDS: Final = 256
"""Clients of which it is remembered what was told; beyond that, all are one."""

_REFUSED_CLIENTS: Final[Mapping[enum.StrEnum, str]] = {
    ClientRefusal.NOT_ALLOWED: "address_not_allowed",
    ClientRefusal.TOO_MANY_CLIENTS: "too_many_clients",
    ClientRefusal.TOO_MANY_FROM_ADDRESS: "too_many_from_address",
    ClientRefusal.TOO_MANY_OPEN_FILES: "too_many_open_files",
}
_REFUSED_REQUESTS: Final[Mapping[enum.StrEnum, str]] = {
    Failure.NO_CONNECTION: "no_connection",
    Failure.CONNECTION_LOST: "connection_lost",
    Failure.NO_RESPONSE: "no_response",
    Failure.SILENT: "not_asked",
    Failure.INVALID_RESPONSE: "invalid_response",
    Failure.BUSY: "device_busy",
    Failure.PAUSED: "paused",
    Failure.REFUSED: "request_refused",
    Failure.TOO_LARGE: "too_large",
}
_REFUSED_WRITES: Final[Mapping[enum.StrEnum, str]] = {
    Failure.REFUSED: "write_refused",
    Failure.TOO_LARGE: "too_large",
}
_BY_TYPE: Final = {
    event_type: event_type.value
    for event_type in (
        EventType.UPSTREAM_LOST,
        EventType.UPSTREAM_BACK,
        EventType.UNIT_SILENT,
        EventType.UNIT_BACK,
        EventType.CLIENT_CONNECTED,
        EventType.CLIENT_DISCONNECTED,
        EventType.WRITE_ACKNOWLEDGED,
    )
}
_BY_REASON: Final = {
    EventType.CLIENT_REFUSED: _REFUSED_CLIENTS,
    EventType.REQUEST_REFUSED: _REFUSED_REQUESTS,
    EventType.WRITE_REFUSED: _REFUSED_WRITES,
}
SHOWN_TYPES: Final = tuple(
    dict.fromkeys(
        (
            *_BY_TYPE.values(),
            *(shown for reasons in _BY_REASON.values() for shown in reasons.values()),
        )
    )
)
"""What people and automations see: a type for each cause."""
_OF_THE_DEVICE: Final = frozenset(
    _REFUSED_REQUESTS[failure] for failure in Failure if not failure.is_rule
)
"""Not about one client: what it meets, all meet."""


def shown_type(event: Event) -> str | None:
    """Return the type under which an event is told; None: it is not."""
    if event.type in _BY_REASON and event.reason is not None:
        return _BY_REASON[event.type].get(event.reason)
    return _BY_TYPE.get(event.type)


@dataclass(frozen=True, slots=True)
class Told:
    """What is told: one event, or several of a type merged into the last of them."""

    type: str
    """One of `SHOWN_TYPES`."""
    event: Event
    clients: tuple[str, ...]
    """The addresses of the first clients that it is about."""
    more_clients: bool = False
    """Whether it is about others, too."""

    def merged_with(self, later: Told) -> Told:
        """Return one that stands for both."""
        clients = tuple(dict.fromkeys(self.clients + later.clients))
        return Told(
            self.type,
            replace(
                later.event,
                count=self.event.count + later.event.count,
                writes=(self.event.writes + later.event.writes)[:WRITES_KEPT],
            ),
            clients[:CLIENTS_NAMED],
            len(clients) > CLIENTS_NAMED or self.more_clients or later.more_clients,
        )


@dataclass(slots=True)
class _Held:
    """What is held back of a type."""

    told: Told
    timer: asyncio.TimerHandle


class Teller:
    """Hands events to `deliver`, as often as people can bear. Times are loop time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Told], None]
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self._types: dict[str, Pace] = {}
        self._kinds: dict[tuple[str, str | None], Pace] = {}
        self._held: dict[str, _Held] = {}
        self._outage = Damper()
        self._outages = 0
        """How often the device was lost since its loss was told."""
        self._back: asyncio.TimerHandle | None = None

    def take(self, event: Event) -> None:
        """Tell an event now, or later together with others of its type."""
        if (shown := shown_type(event)) is None:
            return
        told = Told(shown, event, (event.client,) if event.client else ())
        if event.type in {EventType.UPSTREAM_LOST, EventType.UPSTREAM_BACK}:
            self._take_outage(told)
            return
        now = self._loop.time()
        of_type, of_kind = self._type(shown), self._kind(told, now)
        if max(of_type.due(now), of_kind.due(now)) <= now:
            of_type.spend(now)
            of_kind.spend(now)
            self._deliver(told)
        elif held := self._held.get(shown):
            held.told = held.told.merged_with(told)
        else:
            due = max(
                of_type.due(now, more=1), of_kind.due(now, more=1), now + HELD_SECONDS
            )
            timer = self._loop.call_at(due, self._release, shown)
            self._held[shown] = _Held(told, timer)

    def end(self) -> None:
        """Tell nothing any more."""
        for held in self._held.values():
            held.timer.cancel()
        self._held.clear()
        if self._back is not None:
            self._back.cancel()
            self._back = None

    def _type(self, shown: str) -> Pace:
        if shown not in self._types:
            self._types[shown] = Pace(TYPE_SECONDS, TYPE_BURST)
        return self._types[shown]

    def _kind(self, told: Told, now: float) -> Pace:
        """Return the pace of what is about the same client, or the same unit."""
        about = told.event.client or told.event.detail
        of_the_device = told.type in _OF_THE_DEVICE
        kind = (told.type, None if of_the_device else about)
        if kind not in self._kinds and len(self._kinds) >= _KINDS:
            self._kinds = {
                kind: pace for kind, pace in self._kinds.items() if not pace.idle(now)
            }
            if len(self._kinds) >= _KINDS:
                kind = (told.type, None)
        if kind not in self._kinds:
            self._kinds[kind] = (
                Pace(DEVICE_SECONDS, 1)
                if of_the_device
                else Pace(AGAIN_SECONDS, AGAIN_BURST)
            )
        return self._kinds[kind]

    def _release(self, shown: str) -> None:
        told = self._held.pop(shown).told
        now = self._loop.time()
        self._type(shown).spend(now)
        self._kind(told, now).spend(now)
        self._deliver(told)

    # An outage is told as it is shown: see `Damper`.

    def _take_outage(self, told: Told) -> None:
        now = self._loop.time()
        lost = told.event.type is EventType.UPSTREAM_LOST
        was_lost = self._outage.shown == 1
        if self._back is not None:
            self._back.cancel()
            self._back = None
        due = self._outage.due(int(lost), now)
        if lost:
            self._outages += 1
            if not was_lost:
                self._deliver(told)
        elif due > now:
            self._back = self._loop.call_at(due, self._take_outage, told)
        else:
            count, self._outages = max(self._outages, 1), 0
            self._deliver(replace(told, event=replace(told.event, count=count)))
