"""What the engine tells the outside, as it happens, without a call per request.

Changes of the upstream are told one by one: backoff keeps them rare. What clients
cause may come a thousand times a second, so the same kind of event about the same
client is told at once and then merged, to one a second with a count.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
import enum
import logging

LOGGER = logging.getLogger(__name__)

MERGE_SECONDS = 1.0
_WRITES_TOLD = 20
_MERGED_KINDS = 1024
"""Kinds of events merged at a time; what exceeds them is merged without a client."""


class EventType(enum.Enum):
    """What may happen."""

    UPSTREAM_LOST = "upstream_lost"
    """An outage begins: the device cannot be reached, or does not answer."""
    UPSTREAM_BACK = "upstream_back"
    """The first good response after an outage."""
    CONNECTION_OPENED = "connection_opened"
    CONNECTION_CLOSED = "connection_closed"
    """`reason` is a `CloseReason`; `detail` "no data" if no byte ever came on it."""
    CONNECTION_FAILED = "connection_failed"
    """An attempt to connect came to nothing; `detail` says why."""
    LENIENT_WOULD_HELP = "lenient_would_help"
    """The device does not seem to echo transaction identifiers: three requests in a row
    timed out while lenient matching would have passed a response on."""
    HEALTH_CHANGED = "health_changed"
    """`reason` is the new `Health`; `detail` the last error."""
    CLIENT_CONNECTED = "client_connected"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_REFUSED = "client_refused"
    """`reason` is a `ClientRefusal`."""
    WRITE_REFUSED = "write_refused"
    """The owner's rules do not let a write pass; `reason` is a `Failure`, `writes` says
    which writes."""
    WRITE_ACKNOWLEDGED = "write_acknowledged"
    """A write was answered as if carried out, and not sent; `writes` tells which."""
    REQUEST_REFUSED = "request_refused"
    """The request got no response; `reason` is a `Failure`."""


class ClientRefusal(enum.StrEnum):
    """Why a client was turned away."""

    NOT_ALLOWED = "not_allowed"
    TOO_MANY_CLIENTS = "too_many_clients"
    TOO_MANY_FROM_ADDRESS = "too_many_from_address"
    TOO_MANY_OPEN_FILES = "too_many_open_files"
    """The process is about to run out of file descriptors."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, or several alike within a second."""

    type: EventType
    client: str | None = None
    """The client's address, without its port."""
    reason: enum.StrEnum | None = None
    """A member of what its type names; `TraceOutcome.ACKNOWLEDGED` of a write."""
    detail: str | None = None
    """For people; of several merged events, the last one's."""
    count: int = 1
    writes: tuple[Mapping[str, object], ...] = ()
    """What the writes in question would have changed; of many merged, the first."""


type EventListener = Callable[[Event], None]
type _Kind = tuple[EventType, str | None, enum.StrEnum | None]


class Events:
    """Tells events to those who subscribed."""

    def __init__(self) -> None:
        """Have no listeners yet."""
        self._listeners: list[EventListener] = []
        self._merging: dict[_Kind, tuple[float, Event | None]] = {}
        """Until when the like of what was told is held back, and what is; the earliest
        first."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def subscribe(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` for each event; give what ends that."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def tell(self, event: Event) -> None:
        """Tell an event now."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                # A listener's fault must not stop the traffic.
                LOGGER.exception("A listener failed on %s", event)

    def tell_merged(self, event: Event) -> None:
        """Tell an event now, unless one like it was told within the last second."""
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
                    writes=(earlier.writes + event.writes)[:_WRITES_TOLD],
                )
            self._merging[kind] = (until, event)
            return
        loop = asyncio.get_running_loop()
        self._merging[kind] = (loop.time() + MERGE_SECONDS, None)
        self._arm()
        self.tell(event)

    def _arm(self) -> None:
        if self._timer is None and self._merging:
            until, _ = next(iter(self._merging.values()))
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(until, self._flush, until)

    def _flush(self, at: float) -> None:
        """Tell what was held back for a second, and hold its like back for another."""
        now = max(at, asyncio.get_running_loop().time())  # loops may ring early
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
            self.tell(event)

    def close(self) -> None:
        """Tell what was held back, then nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._merging = self._merging, {}
        for _, event in waiting.values():
            if event is not None:
                self.tell(event)
