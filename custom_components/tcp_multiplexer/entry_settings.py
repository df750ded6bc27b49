"""From a config entry to the `Settings` of its multiplexer.

An entry stores JSON values under the names of the fields of `Settings`; only networks,
bytes and nested values look different there. What an entry does not name keeps the
engine's default, so that no default is written down twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from ipaddress import ip_network
from typing import Any, Final

from homeassistant.config_entries import ConfigEntry

from .const import (
    CONF_PROFILE,
    CONF_TLS,
    CONF_UPSTREAM,
    UPSTREAM_HOME_ASSISTANT,
    UPSTREAM_RTU,
    UPSTREAM_TCP,
)
from .multiplexer import PROFILES, ListenerSettings, Settings, TlsListener, TlsUpstream

GENERIC: Final = "generic"

_BY_UPSTREAM: Final[dict[str, dict[str, Any]]] = {
    UPSTREAM_TCP: {},
    UPSTREAM_RTU: {"framing": "rtu", "max_in_flight": 1, "max_connections": 1},
    # Its connection and all of its timing are Home Assistant's.
    UPSTREAM_HOME_ASSISTANT: {
        "framing": "tcp",
        "matching": "strict",
        "max_connections": 1,
        "max_in_flight": 1,
        "connect_delay": 0.0,
        "request_delay": 0.0,
        "idle_timeout": 0.0,
        "max_lifetime": 0.0,
        CONF_TLS: None,
    },
}
"""What follows from how the device is reached, whatever else was chosen."""

_FIELDS: Final = frozenset(field.name for field in fields(Settings))
_DECODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "allowed_networks": lambda texts: tuple(ip_network(text) for text in texts),
    "write_networks": lambda texts: tuple(ip_network(text) for text in texts),
    "allowed_functions": tuple,
    "allowed_units": tuple,
    "unit_map": lambda pairs: tuple((asked, device) for asked, device in pairs),
    "probe": bytes.fromhex,
    "tls": lambda stored: stored and TlsUpstream(**stored),
    "more_listeners": lambda listeners: tuple(map(_listener, listeners)),
}


def _listener(stored: Mapping[str, Any]) -> ListenerSettings:
    tls = stored["tls"]
    return ListenerSettings(**{**stored, "tls": tls and TlsListener(**tls)})


def profile_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the device profile of an entry with this data sets.

    A profile that this version does not know (any more) sets nothing.
    """
    profile = PROFILES.get(data.get(CONF_PROFILE, GENERIC), PROFILES[GENERIC])
    return profile.settings


def settings_from(data: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
    """Return the settings of an entry with this data and these options.

    Raises:
        SettingsError: a value is out of its bounds.

    """
    return Settings(
        **{
            key: _DECODERS[key](value) if key in _DECODERS else value
            for key, value in {
                **profile_settings(data),
                **options,
                **data,
                **_BY_UPSTREAM[data.get(CONF_UPSTREAM, UPSTREAM_TCP)],
            }.items()
            if key in _FIELDS
        }
    )


def settings_from_entry(entry: ConfigEntry[Any]) -> Settings:
    """Return the settings of `entry`.

    Raises:
        SettingsError: a value is out of its bounds.

    """
    return settings_from(entry.data, entry.options)
