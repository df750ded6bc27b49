"""Share one upstream connection among many clients, from within Home Assistant.

Each config entry runs one multiplexer in Home Assistant's own event loop. An entry
loads as soon as it listens, whether the device is there or not: an inverter that
sleeps at night is a state (the health), not a failure. Everything that runs belongs
to the coordinator, and stops with the entry or with Home Assistant.
"""

from homeassistant.const import EVENT_HOMEASSISTANT_CLOSE, Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import (
    ConfigEntryError,
    ConfigEntryNotReady,
    HomeAssistantError,
)
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.typing import ConfigType
from homeassistant.requirements import RequirementsNotFound

from . import issues
from .addresses import host_for_home_assistant
from .client_entities import async_update_client_devices
from .const import CONF_UPSTREAM, DOMAIN, SHARED_UPSTREAMS, SUBENTRY_LOCAL_PORT
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .entry_settings import settings_from_entry
from .local_sockets import which_failed
from .migration import async_forget_replaced, async_migrate
from .multiplexer import PROTOCOLS, SettingsError, TlsError
from .named_clients import async_keep_rules
from .refused_clients import RefusedClientsWatch
from .services import async_setup_services

# Home Assistant imports this package beside its event loop, which must import nothing.
PROTOCOLS.import_all()

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)

PLATFORMS = [
    Platform.BINARY_SENSOR,
    Platform.BUTTON,
    Platform.EVENT,
    Platform.SENSOR,
    Platform.SWITCH,
]


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:
    """Register the actions."""
    async_setup_services(hass)
    return True


async def async_migrate_entry(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry
) -> bool:
    """Bring an entry of an older version up to date."""
    return await async_migrate(hass, entry)


async def async_setup_entry(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry
) -> bool:
    """Start the multiplexer of an entry."""
    try:
        coordinator = TcpMultiplexerCoordinator(hass, entry)
    except SettingsError as err:
        raise ConfigEntryError(
            translation_domain=DOMAIN,
            translation_key="invalid_settings",
            translation_placeholders={"field": err.field, "message": err.message},
        ) from err
    try:
        await coordinator.async_start()
    except TlsError as err:
        raise ConfigEntryError(
            translation_domain=DOMAIN,
            translation_key="invalid_tls",
            translation_placeholders={"message": str(err)},
        ) from err
    except OSError as err:
        port, further = await which_failed(coordinator.multiplexer.settings)
        subentry_id = _local_port(entry, port) if further else None
        issues.async_listen_port_taken(hass, entry, err, port, subentry_id)
        raise ConfigEntryNotReady(
            translation_domain=DOMAIN,
            translation_key="cannot_listen",
            translation_placeholders={
                "port": str(port),
                "error": issues.describe_error(err),
            },
        ) from err
    except HomeAssistantError as err:
        missing = isinstance(err, RequirementsNotFound)
        raise ConfigEntryNotReady(
            translation_domain=DOMAIN,
            translation_key=(
                "modbus_not_installed" if missing else "shared_connection_in_use"
            ),
            translation_placeholders={"error": str(err)},
        ) from err
    entry.runtime_data = coordinator
    entry.async_on_unload(
        hass.bus.async_listen_once(
            EVENT_HOMEASSISTANT_CLOSE, coordinator.async_handle_close
        )
    )
    entry.async_on_unload(entry.add_update_listener(_async_update))
    coordinator.async_update_device()
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    issues.async_track(hass, entry)
    RefusedClientsWatch(hass, entry)
    return True


async def async_unload_entry(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry
) -> bool:
    """Unload the platforms; the coordinator then shuts down with the entry."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)


async def _async_update(hass: HomeAssistant, entry: TcpMultiplexerConfigEntry) -> None:
    """Apply a change of the entry, without dropping clients where possible."""
    coordinator = entry.runtime_data
    async_keep_rules(hass, entry, coordinator.clients.clients)
    settings = settings_from_entry(entry)
    ports = settings.more_listeners
    ports_changed = ports != coordinator.multiplexer.settings.more_listeners
    coordinator.async_options_changed()
    coordinator.async_update_device()
    if coordinator.clients.async_changed() or ports_changed:
        async_update_client_devices(hass, coordinator)
        async_forget_replaced(hass, entry)
    shares = entry.data.get(CONF_UPSTREAM) in SHARED_UPSTREAMS
    try:
        applied = (
            shares != coordinator.owns_connection
            and await coordinator.multiplexer.apply(settings)
        )
    except OSError, TlsError:
        applied = False  # setting it up anew finds out why, and says so
    if not applied:
        hass.config_entries.async_schedule_reload(entry.entry_id)
    elif ports_changed:
        await coordinator.async_update_addresses()


def _local_port(entry: TcpMultiplexerConfigEntry, port: int) -> str:
    """Return the ID of the subentry that describes a further local port."""
    return next(
        subentry.subentry_id
        for subentry in entry.get_subentries_of_type(SUBENTRY_LOCAL_PORT)
        if subentry.data["port"] == port
    )


@callback
def async_get_endpoint(
    hass: HomeAssistant, host: str, port: int
) -> tuple[str, int] | None:
    """Return the local address and port at which a device is shared, if it is.

    For other integrations: ask with the host and port that your user configured, and
    connect to the result instead if there is one. The entry must be loaded, so name
    this integration in your `after_dependencies`; the result is valid until the entry
    is unloaded. TLS listeners are never returned.
    """
    entry: TcpMultiplexerConfigEntry
    for entry in hass.config_entries.async_loaded_entries(DOMAIN):
        multiplexer = entry.runtime_data.multiplexer
        settings = multiplexer.settings
        if (settings.host.lower(), settings.port) == (host.lower(), port):
            for _, listen_port in multiplexer.snapshot().listen_addresses:
                return host_for_home_assistant(settings.listen_host), listen_port
    return None
