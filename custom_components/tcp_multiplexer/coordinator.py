"""Between a multiplexer and its entities: what is shown, and how often.

The engine runs in the same event loop and may count a thousand exchanges a second;
states and the database behind them cannot follow that, and users need not. So there are
two snapshots of it. `data` is replaced as soon as health, connections or clients
change, `counters` every few seconds (an option). An entity reads from one of the two
and writes a state only when its own value has changed.

When changes come in a storm (a client that connects for every request, a device that
flaps, a port scan), a `Pace` bounds how often snapshots are made for them: a burst goes
through as it comes, then one a second, always the latest. How much of that reaches the
database is decided in `entity` and `telling`.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, override

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import Event as BusEvent, HomeAssistant, callback
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.device_registry import DeviceEntryType, DeviceInfo
from homeassistant.helpers.event import async_track_time_interval
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator

from .addresses import async_hosts_for_clients, format_endpoint
from .client_watch import ClientWatch
from .const import (
    CONF_DIAL_IN_DEVICE,
    CONF_IDENTITY,
    CONF_PAUSED,
    CONF_UPDATE_INTERVAL,
    CONF_UPSTREAM,
    DEFAULT_UPDATE_INTERVAL,
    DOMAIN,
    LOGGER,
    SHARED_UPSTREAMS,
)
from .entry_settings import settings_from_entry
from .further_ports import async_further_addresses
from .multiplexer import PROTOCOLS, Event, EventType, Multiplexer, Snapshot
from .pace import Pace
from .serial_ports import async_prepare_serial
from .shared_connection import Units, async_prepare, make_upstream
from .telling import Teller, Told

type TcpMultiplexerConfigEntry = ConfigEntry[TcpMultiplexerCoordinator]

# What changes a value that is shown at once.
_STATE_EVENTS: Final = frozenset(
    {
        EventType.UPSTREAM_LOST,
        EventType.UPSTREAM_BACK,
        EventType.CONNECTION_OPENED,
        EventType.CONNECTION_CLOSED,
        EventType.HEALTH_CHANGED,
        EventType.CLIENT_CONNECTED,
        EventType.CLIENT_DISCONNECTED,
    }
)


class TcpMultiplexerCoordinator(DataUpdateCoordinator[Snapshot]):
    """Owns the multiplexer of an entry and publishes its state and events."""

    config_entry: TcpMultiplexerConfigEntry
    device_id: str
    """The multiplexer's device in the registry, by which clients reach theirs."""

    def __init__(self, hass: HomeAssistant, entry: TcpMultiplexerConfigEntry) -> None:
        """Create the multiplexer that `entry` describes; nothing runs yet.

        Raises:
            SettingsError: the entry holds a value that is out of its bounds.

        """
        settings = settings_from_entry(entry)
        self.units: Units | None = None
        """Its units on Home Assistant's own connection, if that is the upstream."""
        if entry.data.get(CONF_UPSTREAM) in SHARED_UPSTREAMS:
            self.units = Units(hass, entry, settings)
        self.multiplexer = Multiplexer(
            settings,
            paused=self.owns_connection and entry.data.get(CONF_PAUSED, False),
            make_upstream=make_upstream(self.units) if self.units else None,
        )
        # From here on, whatever happens next, the entry calls `async_shutdown`.
        super().__init__(hass, LOGGER, config_entry=entry, name=entry.title)
        self.data = self.counters = self.multiplexer.snapshot()
        self.hosts: list[str] = []
        """The hosts at which other machines reach it, the usual one first."""
        self.clients = ClientWatch(hass, entry, self.multiplexer)
        self.async_add_listener(self.clients.async_look)
        self.further_addresses: list[str] = []
        """Where clients reach the further local ports, for people."""
        self._interval: float | None = None
        self._stop_interval: Callable[[], None] | None = None
        self._stop_looking: Callable[[], None] | None = None
        self._state_pace = Pace(1, burst=10)
        self._state_timer: Callable[[], None] | None = None
        self.shows_all = False
        """Whether all counters are shown now, however little they have moved."""
        self._told_listeners: list[Callable[[Told], None]] = []
        self._teller = Teller(hass.loop, self._async_tell)
        self._stop_events: Callable[[], None] | None = self.multiplexer.subscribe(
            self._async_handle_event
        )

    async def async_start(self) -> None:
        """Start listening, whether the device is there or not.

        Raises:
            OSError: the local port cannot be bound.
            RequirementsNotFound: Home Assistant's connection cannot be used here.
            HomeAssistantError: Home Assistant's connection to the device is already
                used with other link settings.

        """
        if self.multiplexer.settings.serial is not None:
            await async_prepare_serial(self.hass)
        if self.units is not None:
            await async_prepare(self.hass)
            self.units.get(self.multiplexer.settings.unit_id)
        await self.multiplexer.start()
        self.data = self.counters = self.multiplexer.snapshot()
        self.hosts = await async_hosts_for_clients(
            self.hass, self.multiplexer.settings.listen_host
        )
        self.async_options_changed()
        self._stop_looking = self.clients.async_start()
        await self.async_update_addresses()

    @property
    def owns_connection(self) -> bool:
        """Whether reconnecting and pausing do something: not to Home Assistant's."""
        return self.units is None

    @override
    async def async_shutdown(self) -> None:
        """Stop everything and free the port. Called when the entry is unloaded."""
        await super().async_shutdown()
        self._teller.end()
        for cancel in (
            self._stop_events,
            self._stop_interval,
            self._stop_looking,
            self._state_timer,
        ):
            if cancel is not None:
                cancel()
        self._stop_events = self._stop_interval = None
        self._stop_looking = self._state_timer = None
        await self.multiplexer.stop()

    async def async_handle_close(self, _event: BusEvent) -> None:
        """Stop with Home Assistant, which does not unload its entries.

        Not before everything else has: clients are served meanwhile.
        """
        await self.async_shutdown()

    @callback
    def async_options_changed(self) -> None:
        """Apply the options that are not the engine's: the update interval."""
        seconds = self.config_entry.options.get(
            CONF_UPDATE_INTERVAL, DEFAULT_UPDATE_INTERVAL
        )
        if seconds == self._interval:
            return
        if self._stop_interval is not None:
            self._stop_interval()
        self._interval = seconds
        self._stop_interval = async_track_time_interval(
            self.hass,
            self._async_publish_counters,
            timedelta(seconds=seconds),
            name=self.name,
        )

    @callback
    def async_update_device(self) -> None:
        """Have the multiplexer's device as it is described now."""
        registry, entry = dr.async_get(self.hass), self.config_entry
        device = registry.async_get_or_create(
            config_entry_id=entry.entry_id, **self.device_info
        )
        self.device_id = device.id

    async def async_update_addresses(self) -> None:
        """Find out where clients reach the further local ports now."""
        settings = self.multiplexer.settings
        self.further_addresses = await async_further_addresses(
            self.hass, settings.protocol, settings.more_listeners
        )
        self.async_update_listeners()

    async def async_set_paused(self, paused: bool) -> None:
        """Pause or resume, now and after the next restart.

        It is stored first: what the user asked for must hold even if Home Assistant
        stops while this waits for the exchanges in flight.
        """
        entry = self.config_entry
        self.hass.config_entries.async_update_entry(
            entry, data={**entry.data, CONF_PAUSED: paused}
        )
        if paused:
            await self.multiplexer.pause()
        else:
            self.multiplexer.resume()

    async def async_reconnect(self, *, drain: bool = True) -> None:
        """Close the upstream connection and open a new one.

        Raises:
            ServiceValidationError: the multiplexer is paused, or the connection is
                Home Assistant's.

        """
        if not self.owns_connection:
            raise ServiceValidationError(
                translation_domain=DOMAIN,
                translation_key="not_own_connection",
                translation_placeholders={"title": self.config_entry.title},
            )
        if self.multiplexer.paused:
            raise ServiceValidationError(
                translation_domain=DOMAIN,
                translation_key="paused",
                translation_placeholders={"title": self.config_entry.title},
            )
        await self.multiplexer.reconnect(drain=drain)

    @callback
    def async_reset_statistics(self) -> None:
        """Reset all counters to 0, and show that at once."""
        self.multiplexer.reset_statistics()
        self.shows_all = True
        self._async_publish_counters()

    @property
    def device_info(self) -> DeviceInfo:
        """What the device page shows."""
        entry = self.config_entry
        model = PROTOCOLS[self.multiplexer.settings.protocol].title
        said: dict[str, str] = entry.data.get(CONF_IDENTITY, {})
        if name := " ".join(
            filter(None, (said.get("manufacturer"), said.get("model")))
        ):
            model = f"{name} ({model})"
        firmware = said.get("version") or None
        return DeviceInfo(
            identifiers={(DOMAIN, entry.entry_id)},
            # of a service, Home Assistant would call it just the version
            entry_type=None if firmware else DeviceEntryType.SERVICE,
            name=entry.title,
            manufacturer="TCP Multiplexer",
            model=model,
            serial_number=said.get("serial") or None,
            hw_version=None,
            sw_version=firmware,
            configuration_url=self._web_page,
        )

    @property
    def _web_page(self) -> str | None:
        """The web page of an HTTP device, by way of us: that takes no connection."""
        settings = self.multiplexer.settings
        if not PROTOCOLS[settings.protocol].is_http:
            return None
        _, port = self.data.listen_addresses[0]
        return f"http://{format_endpoint(self.hosts[0], port)}"

    def client_name(self, address: str) -> str | None:
        """Return what the client at an address is called; None if it has no name."""
        return self.clients.name_of(address)

    def describe_client(self, address: str) -> str:
        """Return a client's name, if it has one, and its address."""
        name = self.client_name(address)
        return f"{name} ({address})" if name else address

    # What is shown

    @override
    async def _async_update_data(self) -> Snapshot:
        """Return all current values, for `homeassistant.update_entity`."""
        self.shows_all = True
        self.counters = self.multiplexer.snapshot()
        return self.counters

    @callback
    @override
    def async_update_listeners(self) -> None:
        """Let entities read what has been published."""
        super().async_update_listeners()
        self.shows_all = False

    @callback
    def _async_publish_counters(self, _now: datetime | None = None) -> None:
        """Publish all current values."""
        self.counters = self.multiplexer.snapshot()
        self.async_set_updated_data(self.counters)

    @callback
    def _async_state_changed(self) -> None:
        """Publish health, connections and clients as soon as their pace allows.

        Not right away: the engine may be in the middle of the change it reports.
        """
        if self._state_timer is None:
            loop = self.hass.loop
            due = self._state_pace.due(loop.time())
            self._state_timer = loop.call_at(due, self._async_publish_state).cancel

    @callback
    def _async_publish_state(self) -> None:
        """Publish what does not wait for the update interval."""
        self._state_timer = None
        self._state_pace.spend(self.hass.loop.time())
        self.async_set_updated_data(self.multiplexer.snapshot())

    # What happens

    @callback
    def async_add_told_listener(
        self, listener: Callable[[Told], None]
    ) -> Callable[[], None]:
        """Call `listener` for whatever is told; returns what ends that."""
        self._told_listeners.append(listener)
        return partial(self._told_listeners.remove, listener)

    @callback
    def _async_handle_event(self, event: Event) -> None:
        """Handle an event. The engine is in the middle of its work: be brief."""
        if event.type in _STATE_EVENTS:
            self._async_state_changed()
        elif event.type is EventType.DEVICE_LEARNED:
            self._async_store_device(event.detail)
        self._teller.take(event)

    @callback
    def _async_store_device(self, address: str | None) -> None:
        """Keep the address that has dialled in, so that no other one may ever."""
        entry = self.config_entry
        self.hass.config_entries.async_update_entry(
            entry, data={**entry.data, CONF_DIAL_IN_DEVICE: address}
        )

    @callback
    def _async_tell(self, told: Told) -> None:
        """Tell the listeners, once the engine has done what it is about."""
        for listener in self._told_listeners:
            self.hass.loop.call_soon(listener, told)
