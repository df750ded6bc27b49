"""Repair issues: created when a problem appears, deleted when it is gone.

Five things are watched:

* the local port cannot be bound: Home Assistant retries, the issue says what to change;
* another integration of this Home Assistant connects to the same device: two that want
  its only slot take it from each other;
* the device closes each connection at once and without a byte, again and again: that
  is how a device behaves whose slot is taken;
* the device answers, but with other transaction identifiers or units than those in the
  requests: lenient matching would accept its answers;
* a logger stick refuses the serial number that it is asked with.

Clients that are turned away are watched in `refused_clients.py`; `repairs.py` has the
fix flows.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
import errno
import os
from typing import Final

from homeassistant.config_entries import (
    SIGNAL_CONFIG_ENTRY_CHANGED,
    ConfigEntry,
    ConfigEntryChange,
    ConfigEntryState,
)
from homeassistant.const import EVENT_COMPONENT_LOADED
from homeassistant.core import Event as BusEvent, HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.setup import EventComponentLoaded
from homeassistant.util import dt as dt_util

from .addresses import host_for_home_assistant
from .const import DOMAIN, MODBUS_DOMAIN
from .coordinator import TcpMultiplexerConfigEntry
from .multiplexer import (
    PROTOCOLS,
    CloseReason,
    Event,
    EventType,
    Framing,
    Health,
    Mismatch,
)
from .neighbours import Neighbour, async_who_dials

CANNOT_LISTEN: Final = "cannot_listen"
DIRECT_CONNECTION: Final = "direct_connection"
DIRECT_CONNECTION_SHARED: Final = "direct_connection_shared"
LENIENT_MATCHING: Final = "lenient_matching"
LENIENT_MATCHING_UNIT: Final = "lenient_matching_unit"
SLOT_TAKEN: Final = "slot_taken"
WRONG_SERIAL: Final = "wrong_serial"

ATTR_ENTRY_ID: Final = "entry_id"
ATTR_NEIGHBOUR_ID: Final = "neighbour_id"
ATTR_SHARED: Final = "shared"
ATTR_SUBENTRY_ID: Final = "subentry_id"
"""Keys of the data of an issue, for its fix flow."""

SILENT_CONNECTIONS: Final = 10
SILENT_PERIOD: Final = timedelta(minutes=10)
SILENT_LIFETIME: Final = timedelta(seconds=2)
"""As many connections, over such a period, of which none lived longer than
`SILENT_LIFETIME` or carried a byte from the device: its slot is taken."""

_ENDED_BY_DEVICE: Final = {
    CloseReason.CLOSED_BY_DEVICE.value,
    CloseReason.RESET.value,
}


# The port


@callback
def async_listen_port_taken(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry,
    err: OSError,
    port: int,
    subentry_id: str | None,
) -> None:
    """Create an issue: `entry` cannot listen on `port`. It goes when that is settled.

    `subentry_id` is that of a further local port; None: it is the main one.
    """
    issue_id = f"{CANNOT_LISTEN}_{entry.entry_id}"
    issue = ir.async_get(hass).async_get_issue(DOMAIN, issue_id)
    if issue is None or not issue.active:
        _async_delete_when_settled(hass, entry, issue_id)
    ir.async_create_issue(
        hass,
        DOMAIN,
        issue_id,
        data={ATTR_ENTRY_ID: entry.entry_id, ATTR_SUBENTRY_ID: subentry_id},
        is_fixable=True,
        severity=ir.IssueSeverity.ERROR,
        translation_key=(
            "port_taken" if err.errno == errno.EADDRINUSE else CANNOT_LISTEN
        ),
        translation_placeholders={
            "title": entry.title,
            "port": str(port),
            "error": describe_error(err),
        },
    )


def describe_error(err: OSError) -> str:
    """Return the operating system's message for why a port cannot be bound.

    asyncio wraps it in a message of its own, and hides EADDRNOTAVAIL.
    """
    return os.strerror(err.errno or errno.EADDRNOTAVAIL)


@callback
def _async_delete_when_settled(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry, issue_id: str
) -> None:
    """Delete the issue when `entry` is loaded, disabled or removed.

    `entry.async_on_unload` would not do: it also runs when the setup fails.
    """

    @callback
    def changed(_: ConfigEntryChange, changed_entry: ConfigEntry) -> None:
        settled = (ConfigEntryState.LOADED, ConfigEntryState.NOT_LOADED)
        if changed_entry is entry and entry.state in settled:
            disconnect()
            ir.async_delete_issue(hass, DOMAIN, issue_id)

    disconnect = async_dispatcher_connect(hass, SIGNAL_CONFIG_ENTRY_CHANGED, changed)


# The device


@callback
def async_track(hass: HomeAssistant, entry: TcpMultiplexerConfigEntry) -> None:
    """Watch the running multiplexer of `entry` for problems, until it is unloaded."""

    @callback
    def unloaded() -> None:
        """Delete the issues that are no longer watched.

        Ignored ones stay: otherwise the next load would show them again.
        """
        for kind in (DIRECT_CONNECTION, LENIENT_MATCHING, SLOT_TAKEN, WRONG_SERIAL):
            for issue in _issues(hass, f"{kind}_{entry.entry_id}"):
                if issue.dismissed_version is None:
                    ir.async_delete_issue(hass, DOMAIN, issue.issue_id)

    entry.async_on_unload(unloaded)
    _NeighbourWatch(hass, entry)
    _DeviceWatch(hass, entry)


def _issues(hass: HomeAssistant, prefix: str) -> Iterator[ir.IssueEntry]:
    for (domain, issue_id), issue in tuple(ir.async_get(hass).issues.items()):
        if domain == DOMAIN and issue_id.startswith(prefix):
            yield issue


class _NeighbourWatch:
    """Looks for others that connect to our device, whenever a config entry changes."""

    def __init__(self, hass: HomeAssistant, entry: TcpMultiplexerConfigEntry) -> None:
        self._hass = hass
        self._entry = entry
        self._multiplexer = entry.runtime_data.multiplexer
        self._shares = not entry.runtime_data.owns_connection
        """Our upstream is the connection that the neighbours share."""
        self._prefix = f"{DIRECT_CONNECTION}_{entry.entry_id}"
        entry.async_on_unload(
            async_dispatcher_connect(hass, SIGNAL_CONFIG_ENTRY_CHANGED, self._check)
        )
        entry.async_on_unload(
            hass.bus.async_listen(EVENT_COMPONENT_LOADED, self._component_loaded)
        )
        entry.async_on_unload(self._multiplexer.subscribe(self._handle_event))
        self._check()

    # Hubs in YAML are not entries. They come with their component; and one that was
    # changed to go through the multiplexer, and reloaded, connects to it next.

    @callback
    def _component_loaded(self, event: BusEvent[EventComponentLoaded]) -> None:
        if event.data["component"] == MODBUS_DOMAIN:
            self._check()

    @callback
    def _handle_event(self, event: Event) -> None:
        if event.type is EventType.CLIENT_CONNECTED:
            self._check()

    @callback
    def _check(self, *_: object) -> None:
        settings = self._multiplexer.settings
        found = {
            f"{self._prefix}_{neighbour.entry_id or neighbour.name}": neighbour
            for neighbour in async_who_dials(self._hass, settings.host, settings.port)
            if self._is_in_the_way(neighbour)
        }
        for issue in _issues(self._hass, self._prefix):
            if issue.issue_id not in found:
                ir.async_delete_issue(self._hass, DOMAIN, issue.issue_id)
        for issue_id, neighbour in found.items():
            self._raise(issue_id, neighbour)

    def _is_in_the_way(self, neighbour: Neighbour) -> bool:
        """Return whether its connection is another than the one that we share."""
        if not self._shares or neighbour.entry_id is None:
            return True
        if neighbour.shared:
            return False
        # Until it is loaded, it may turn out to share the connection.
        other = self._hass.config_entries.async_get_known_entry(neighbour.entry_id)
        return other.state is ConfigEntryState.LOADED

    def _could_share(self) -> bool:
        """Return whether Home Assistant's connection could carry our requests."""
        settings = self._multiplexer.settings
        return (
            PROTOCOLS[settings.protocol].has_units
            and settings.framing is not Framing.SOLARMAN
            and settings.tls is None
        )

    def _raise(self, issue_id: str, neighbour: Neighbour) -> None:
        if neighbour.entry_id is None:
            kind, fixable = "direct_connection_yaml", False
        elif neighbour.shared and self._could_share():
            kind, fixable = DIRECT_CONNECTION_SHARED, True
        elif self._hass.config_entries.async_get_known_entry(
            neighbour.entry_id
        ).supports_reconfigure:
            kind, fixable = DIRECT_CONNECTION, True
        else:
            kind, fixable = "direct_connection_manual", False
        settings = self._multiplexer.settings
        ir.async_create_issue(
            self._hass,
            DOMAIN,
            issue_id,
            data={
                ATTR_ENTRY_ID: self._entry.entry_id,
                ATTR_NEIGHBOUR_ID: neighbour.entry_id,
                ATTR_SHARED: kind == DIRECT_CONNECTION_SHARED,
            },
            is_fixable=fixable,
            severity=ir.IssueSeverity.WARNING,
            translation_key=kind,
            translation_placeholders={
                "title": self._entry.title,
                "neighbour": neighbour.name,
                "host": settings.host,
                "port": str(settings.port),
                "local_host": host_for_home_assistant(settings.listen_host),
                "local_port": str(settings.listen_port),
            },
        )


class _DeviceWatch:
    """Draws conclusions from how the device treats its connections."""

    def __init__(self, hass: HomeAssistant, entry: TcpMultiplexerConfigEntry) -> None:
        self._hass = hass
        self._entry = entry
        self._multiplexer = entry.runtime_data.multiplexer
        self._opened: datetime = dt_util.utcnow()
        self._bytes_before = 0
        self._silent = 0
        """Connections in a row that the device closed at once and without a byte."""
        self._silent_since = self._opened
        entry.async_on_unload(self._multiplexer.subscribe(self._handle_event))

    @callback
    def _handle_event(self, event: Event) -> None:
        match event.type:
            case EventType.CONNECTION_OPENED:
                self._opened = dt_util.utcnow()
                self._bytes_before = self._multiplexer.snapshot().bytes_from_upstream
            case EventType.CONNECTION_CLOSED if event.reason in _ENDED_BY_DEVICE:
                self._count_ended()
            case EventType.UPSTREAM_BACK:
                self._silent = 0
                self._delete(SLOT_TAKEN)
            case EventType.LENIENT_WOULD_HELP if event.reason is Mismatch.SERIAL:
                self._raise(WRONG_SERIAL, fixable=True)
            case EventType.LENIENT_WOULD_HELP:
                units = event.reason is Mismatch.UNIT
                key = LENIENT_MATCHING_UNIT if units else LENIENT_MATCHING
                self._raise(LENIENT_MATCHING, fixable=True, translation_key=key)
            case EventType.HEALTH_CHANGED if event.reason == Health.HEALTHY.value:
                self._delete(LENIENT_MATCHING)
                self._delete(WRONG_SERIAL)
            case EventType.HEALTH_CHANGED if event.reason == Health.PAUSED.value:
                self._silent = 0
                self._delete(SLOT_TAKEN)  # the user released it

    def _count_ended(self) -> None:
        if not self._multiplexer.settings.host:
            return  # no server whose slot somebody else could hold
        now = dt_util.utcnow()
        if self._multiplexer.snapshot().bytes_from_upstream != self._bytes_before:
            self._silent = 0
            return
        if now - self._opened > SILENT_LIFETIME:
            return
        if not self._silent:
            self._silent_since = self._opened
        self._silent += 1
        if (
            self._silent >= SILENT_CONNECTIONS
            and now - self._silent_since >= SILENT_PERIOD
        ):
            self._raise(SLOT_TAKEN, fixable=False)

    def _raise(
        self, kind: str, *, fixable: bool, translation_key: str | None = None
    ) -> None:
        settings = self._multiplexer.settings
        ir.async_create_issue(
            self._hass,
            DOMAIN,
            f"{kind}_{self._entry.entry_id}",
            data={ATTR_ENTRY_ID: self._entry.entry_id},
            is_fixable=fixable,
            severity=ir.IssueSeverity.WARNING,
            translation_key=translation_key or kind,
            translation_placeholders={
                "title": self._entry.title,
                "host": settings.host,
                "port": str(settings.port),
            },
        )

    def _delete(self, kind: str) -> None:
        ir.async_delete_issue(self._hass, DOMAIN, f"{kind}_{self._entry.entry_id}")
