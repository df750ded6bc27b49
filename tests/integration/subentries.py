"""Named clients and further local ports, added without their dialogs."""

from types import MappingProxyType
from typing import Any

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.core import HomeAssistant

from custom_components.tcp_multiplexer.const import (
    CONF_ADDRESSES,
    SUBENTRY_CLIENT,
    SUBENTRY_LOCAL_PORT,
)
from custom_components.tcp_multiplexer.further_ports import describe_listener

LOCAL_PORT: dict[str, Any] = {"host": "127.0.0.1", "framing": "tcp", "tls": None}


def add_client(
    hass: HomeAssistant, entry: ConfigEntry, name: str, *addresses: str, **data: Any
) -> str:
    """Give the clients at these addresses a name; returns the subentry's ID."""
    data = {CONF_ADDRESSES: list(addresses), **data}
    return _add(hass, entry, SUBENTRY_CLIENT, name, data)


def add_local_port(
    hass: HomeAssistant, entry: ConfigEntry, port: int, **data: Any
) -> str:
    """Add a further local port; returns the subentry's ID."""
    data = LOCAL_PORT | {"port": port} | data
    title = describe_listener(entry.data["protocol"], data)
    return _add(hass, entry, SUBENTRY_LOCAL_PORT, title, data)


def _add(
    hass: HomeAssistant, entry: ConfigEntry, kind: str, title: str, data: dict[str, Any]
) -> str:
    subentry = ConfigSubentry(
        data=MappingProxyType(data), subentry_type=kind, title=title, unique_id=None
    )
    assert hass.config_entries.async_add_subentry(entry, subentry)
    return subentry.subentry_id
