"""Events: what the engine reports as it happens, without a call per request.

Changes of the upstream are reported one by one: backoff keeps them rare. Clients can
cause thousands of events a second. The first of a kind about a client is delivered at
once; later ones are merged into at most one a second, with a count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
import enum
import logging

LOGGER = logging.getLogger(__name__)

MERGE_SECONDS = 1.0
"""How long events of a kind are held back and merged after one was delivered."""
_WRITES_KEPT = 16
"""Writes that a merged event lists, at most."""
_MERGED_KINDS = 1024
"""Kinds merged at a time, at most; beyond that, events are merged over all clients."""


class EventType(enum.Enum):
    """What can happen; says what the other fields of an `Event` mean."""

    UPSTREAM_LOST = "upstream_lost"
    """An outage begins: the device cannot be reached, or does not answer."""
    UPSTREAM_BACK = "upstream_back"
    """The first good response after an outage."""
    CONNECTION_OPENED = "connection_opened"
    CONNECTION_CLOSED = "connection_closed"
    """`reason` is a `CloseReason`; `detail` is "no data" if no byte ever arrived."""
    CONNECTION_FAILED = "connection_failed"
    """An attempt to connect failed; `detail` says why."""
    LENIENT_WOULD_HELP = "lenient_would_help"
    """Three requests in a row timed out although something came that would have been
    the response but for one thing, the `Mismatch` in `reason`."""
    UNIT_SILENT = "unit_silent"
    """Requests to a unit, which `detail` names, fail at once: it does not answer, but
    others do. It is tried now and then."""
    UNIT_BACK = "unit_back"
    """Such a unit has answered."""
    HEALTH_CHANGED = "health_changed"
    """`reason` is the new `Health`; `detail` is the last error, if not healthy."""
    DEVICE_LEARNED = "device_learned"
    """The device has dialled in and answered; `detail` is its address, the only one
    that may dial in from now on."""
    CLIENT_CONNECTED = "client_connected"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_REFUSED = "client_refused"
    """`reason` is a `ClientRefusal`."""
    WRITE_REFUSED = "write_refused"
    """The owner's rules refused a write; `reason` is a `Failure`, `writes` says which
    writes."""
    WRITE_ACKNOWLEDGED = "write_acknowledged"
    """A write was answered as if carried out, but not sent; `writes` says which."""
    REQUEST_REFUSED = "request_refused"
    """The request got no response; `reason` is a `Failure`."""


class ClientRefusal(enum.StrEnum):
    """Why a client was refused."""

    NOT_ALLOWED = "not_allowed"
    TOO_MANY_CLIENTS = "too_many_clients"
    TOO_MANY_FROM_ADDRESS = "too_many_from_address"
    TOO_MANY_OPEN_FILES = "too_many_open_files"
    """The process is about to run out of file descriptors."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, or several of a kind within a second."""

    type: EventType
    client: str | None = None
    """The client's address, without its port."""
    reason: enum.StrEnum | None = None
    """Of the enumeration that `type` names; `TraceOutcome` for WRITE_ACKNOWLEDGED."""
    detail: str | None = None
    """For people; the last one's if several are merged."""
    count: int = 1
    """How many events this one stands for."""
    writes: tuple[Mapping[str, object], ...] = ()
    """What the writes would have changed, by names; the first ones if merged."""


type EventListener = Callable[[Event], None]
type _Kind = tuple[EventType, str | None, enum.StrEnum | None]


class Events:
    """Delivers events to the subscribed listeners."""

    def __init__(self) -> None:
        self._listeners: list[EventListener] = []
        self._merging: dict[_Kind, tuple[float, Event | None]] = {}
        """By kind: until when its events are held back (loop time), and the merged one,
        the earliest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def subscribe(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` for each event; return a function that unsubscribes it."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Deliver an event now; errors of listeners are logged."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                # A faulty listener must not stop the traffic.
                LOGGER.exception("A listener failed on %s", event)

    def emit_merged(self, event: Event) -> None:
        """Deliver an event now, or merge it if one of its kind was a moment ago."""
        if self._closed:
            return
        kind = (event.type, event.client, event.reason)
        if kind not in self._merging and len(self._merging) >= _MERGED_KINDS:
            event = replace(event, client=None)
            kind = (event.type, None, event.reason)
        if kind in self._merging:
            until, earlier = self._merging[kind]
            if earlier is not None:
                event = replace(
                    event,
                    count=earlier.count + event.count,
                    writes=(earlier.writes + event.writes)[:_WRITES_KEPT],
                )
            self._merging[kind] = (until, event)
            return
        loop = asyncio.get_running_loop()
        self._merging[kind] = (loop.time() + MERGE_SECONDS, None)
        self._arm()
        self.emit(event)

    def _arm(self) -> None:
        if self._timer is None and self._merging:
            until, _ = next(iter(self._merging.values()))
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(until, self._flush, until)

    def _flush(self, at: float) -> None:
        """Deliver the events that are due, and hold their kind back again."""
        now = max(at, asyncio.get_running_loop().time())  # loops may call early
        self._timer = None
        due = []
        while self._merging:
            kind, (until, event) = next(iter(self._merging.items()))
            if until > now:
                break
            del self._merging[kind]
            if event is not None:
                self._merging[kind] = (now + MERGE_SECONDS, None)
                due.append(event)
        self._arm()
        for event in due:
            self.emit(event)

    def close(self) -> None:
        """Deliver what was held back, and merge nothing from now on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._merging = self._merging, {}
        for _, event in waiting.values():
            if event is not None:
                self.emit(event)
