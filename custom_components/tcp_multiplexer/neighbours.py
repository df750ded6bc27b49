"""What else in this Home Assistant connects to which host and port: the neighbours.

A device with one slot serves only one of them. So the config flow suggests the devices
that others already use, and names the neighbours that are in the way; a repair says
which one to point at the multiplexer. All of it is best effort: three sources are read,
nothing in them but host and port, and nothing is logged.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import CONF_HOST, CONF_PORT
from homeassistant.core import HomeAssistant, callback
from yarl import URL

from .const import DOMAIN, MODBUS_DOMAIN
from .shared_connection import async_shared_connections


class Neighbour(NamedTuple):
    """A config entry or hub in this Home Assistant that connects to a host over TCP."""

    host: str
    """In lower case."""
    port: int
    name: str
    """The title of the entry, or the name of the hub in the YAML configuration."""
    domain: str
    entry_id: str | None
    """None: a hub of the YAML configuration."""
    shared: bool
    """It uses the connection that Home Assistant's integrations share."""


@callback
def async_neighbours(hass: HomeAssistant) -> list[Neighbour]:
    """Return all neighbours, each once per host and port."""
    found = {
        (neighbour.host, neighbour.port, neighbour.entry_id or neighbour.name): (
            neighbour
        )
        # Shared connections come last, and win: only they know that they are shared.
        for source in (_entries, _yaml_hubs, _shared_connections)
        for neighbour in source(hass)
    }
    return list(found.values())


@callback
def async_who_dials(hass: HomeAssistant, host: str, port: int) -> list[Neighbour]:
    """Return all neighbours that connect to this host and port."""
    return [
        neighbour
        for neighbour in async_neighbours(hass)
        if (neighbour.host, neighbour.port) == (host.lower(), port)
    ]


def _entries(hass: HomeAssistant) -> Iterator[Neighbour]:
    # Loaded or not does not matter: an entry that is being retried takes the slot with
    # its next attempt.
    for entry in hass.config_entries.async_entries(
        include_ignore=False, include_disabled=False
    ):
        if entry.domain == DOMAIN:
            continue
        settings = {**entry.data, **entry.options}
        host = settings.get(CONF_HOST)
        port = _port(settings.get(CONF_PORT))
        if isinstance(host, str) and host and port:
            yield _neighbour(host, port, entry)


def _port(value: Any) -> int | None:
    """Parse a port in whatever type another integration stored it."""
    try:
        return int(value)
    except TypeError, ValueError:
        return None


def _neighbour(
    host: str, port: int, entry: ConfigEntry[Any], *, shared: bool = False
) -> Neighbour:
    return Neighbour(
        host.lower(), port, entry.title, entry.domain, entry.entry_id, shared
    )


def _yaml_hubs(hass: HomeAssistant) -> Iterator[Neighbour]:
    """Yield the hubs of the YAML configuration; each has a connection of its own."""
    for name, hub in hass.data.get(MODBUS_DOMAIN, {}).items():
        if endpoint := _tcp(getattr(hub, "endpoint", None)):
            yield Neighbour(*endpoint, name, MODBUS_DOMAIN, None, shared=False)


def _shared_connections(hass: HomeAssistant) -> Iterator[Neighbour]:
    """Yield the entries that share a connection of the Modbus integration."""
    for connection in async_shared_connections(hass):
        endpoint = _tcp(connection.endpoint)
        for entry_id in connection.units if endpoint else ():
            entry = hass.config_entries.async_get_entry(entry_id)
            if endpoint and entry and entry.domain != DOMAIN:
                yield _neighbour(*endpoint, entry, shared=True)


def _tcp(endpoint: Any) -> tuple[str, int] | None:
    """Return host and port of a Modbus endpoint that is reached over TCP."""
    match endpoint:
        case ("tcp", str(host), int(port)):
            return host.lower(), port
        case ("serial", str(device)) if device.startswith("socket://"):
            url = URL(device)  # RTU over TCP
            if url.host and url.port:
                return url.host.lower(), url.port
    return None
