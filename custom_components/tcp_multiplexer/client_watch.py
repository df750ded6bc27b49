"""Follows the named clients of an entry: which there are, and whether they still ask.

What a client asks counts whichever connections it asks it on: many programs connect
anew for each request. Whether it is connected, and asks, is looked at whenever a
snapshot is published, and every few seconds. Numbers move with each request, so they
are taken once a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_address
import time
from typing import Any, Final

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.event import async_track_time_interval
from homeassistant.helpers.translation import async_get_cached_translations
from homeassistant.util import dt as dt_util

from .const import DOMAIN, HOME_ASSISTANT
from .multiplexer import GroupSnapshot, Multiplexer
from .named_clients import NamedClient, client_at, named_clients

LOOK_SECONDS: Final = 10.0
"""How often it is looked whether clients still ask, at least."""
MINUTE: Final = 60.0
"""How often numbers are taken, in seconds."""
_THIS_COMPUTER: Final = f"component.{DOMAIN}.common.this_computer"


@dataclass(frozen=True, kw_only=True)
class ClientStatus:
    """What is shown of a client."""

    asking: bool | None = None
    """None: it is too early to say."""
    connected: bool = False
    last_request: datetime | None = None
    requests_per_minute: float | None = None
    failed_requests: int = 0


class _Watched:
    """A named client, and what was seen of it."""

    def __init__(self, client: NamedClient, now: float) -> None:
        self.client = client
        self.since = now
        """When it was first looked at (loop time)."""
        self.taken: float | None = None
        """When its numbers were taken last."""
        self.requests = 0
        """How many requests it had made by then."""
        self.status = ClientStatus()

    def look(self, group: GroupSnapshot, now: float) -> None:
        """Update the status; `now` is loop time."""
        last = group.last_request
        if last is not None and time.time() - last < self.client.silent_seconds:
            asking: bool | None = True
        elif last is None and now - self.since < self.client.silent_seconds:
            asking = None
        else:
            asking = False
        self.status = replace(self.status, asking=asking, connected=group.connected > 0)
        if self.taken is None or now - self.taken >= MINUTE:
            self._take(group, now)

    def _take(self, group: GroupSnapshot, now: float) -> None:
        """Take the numbers."""
        rate: float | None = None
        # Counters that were reset say nothing about the minute in which they were.
        if self.taken is not None and group.requests >= self.requests:
            per_second = (group.requests - self.requests) / (now - self.taken)
            rate = round(60 * per_second, 1)
        last = group.last_request
        self.taken, self.requests = now, group.requests
        self.status = replace(
            self.status,
            last_request=None
            if last is None
            else dt_util.utc_from_timestamp(round(last)),
            requests_per_minute=rate,
            failed_requests=group.failures,
        )


class ClientWatch:
    """The named clients of an entry, by the IDs of their subentries."""

    def __init__(
        self, hass: HomeAssistant, entry: ConfigEntry[Any], multiplexer: Multiplexer
    ) -> None:
        self._hass = hass
        self._entry = entry
        self._multiplexer = multiplexer
        self._watched: dict[str, _Watched] = {}
        self._added_listeners: list[Callable[[str], None]] = []
        self._listeners: list[Callable[[], None]] = []
        self.async_changed()

    @callback
    def async_start(self) -> Callable[[], None]:
        """Look every few seconds; returns what ends that."""
        return async_track_time_interval(
            self._hass,
            self.async_look,
            timedelta(seconds=LOOK_SECONDS),
            name=f"{self._entry.title} clients",
        )

    # Who they are

    @property
    def clients(self) -> list[NamedClient]:
        """The clients that have names."""
        return [watched.client for watched in self._watched.values()]

    @callback
    def async_changed(self) -> bool:
        """Take over the clients that the entry has now; return whether they changed."""
        clients = named_clients(self._entry.subentries.values())
        if clients == self.clients:
            return False
        now = self._hass.loop.time()
        before, self._watched = self._watched, {}
        for client in clients:
            watched = before.get(client.subentry_id) or _Watched(client, now)
            watched.client = client
            self._watched[client.subentry_id] = watched
        self._multiplexer.group_clients(
            {client.subentry_id: client.networks for client in clients}
        )
        self.async_look()
        for client_id in self._watched.keys() - before.keys():
            for listener in tuple(self._added_listeners):
                listener(client_id)
        return True

    def name_of(self, address: str) -> str | None:
        """Return what the client at an address is called; None if it has no name.

        One on this machine is Home Assistant, unless it may as well be another: that
        one has a name.
        """
        clients = self.clients
        if (client := client_at(clients, address)) is not None:
            return client.name
        try:
            if not ip_address(address).is_loopback:
                return None
        except ValueError:
            return None
        if not any(each.is_loopback for one in clients for each in one.networks):
            return HOME_ASSISTANT
        hass = self._hass
        words = async_get_cached_translations(
            hass, hass.config.language, "common", DOMAIN
        )
        return words[_THIS_COMPUTER]

    # What they do

    def status(self, client_id: str) -> ClientStatus | None:
        """Return what is shown of a client; None if it has been removed."""
        watched = self._watched.get(client_id)
        return watched.status if watched else None

    @callback
    def async_look(self, _now: datetime | None = None) -> None:
        """Look at all clients, and tell the listeners."""
        now = self._hass.loop.time()
        groups = self._multiplexer.groups()
        for client_id, watched in self._watched.items():
            watched.look(groups[client_id], now)
        for listener in tuple(self._listeners):
            listener()

    @callback
    def async_add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each look; returns what ends that."""
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

    @callback
    def async_add_added_listener(
        self, listener: Callable[[str], None]
    ) -> Callable[[], None]:
        """Call `listener` with the ID of each client that is added."""
        self._added_listeners.append(listener)
        return partial(self._added_listeners.remove, listener)
