"""From a config entry to the `Settings` of its multiplexer.

An entry stores JSON values under the names of the fields of `Settings`; only networks,
bytes and nested values look different there. What an entry does not name keeps the
engine's default, so that no default is written down twice.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from ipaddress import ip_network
from typing import Any, Final

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.const import CONF_DEVICE

from .const import (
    CONF_BAUDRATE,
    CONF_DIAL_IN_DEVICE,
    CONF_DIAL_IN_PORT,
    CONF_LISTEN_HOST,
    CONF_PARITY,
    CONF_PROFILE,
    CONF_STOPBITS,
    CONF_TLS,
    CONF_UPSTREAM,
    CONF_WRITE_RULES,
    HOME_ASSISTANT,
    SERIAL_UPSTREAMS,
    SUBENTRY_LOCAL_PORT,
    UPSTREAM_DIAL_IN,
    UPSTREAM_DIAL_IN_RTU,
    UPSTREAM_HOME_ASSISTANT,
    UPSTREAM_HOME_ASSISTANT_RTU,
    UPSTREAM_HOME_ASSISTANT_SERIAL,
    UPSTREAM_RTU,
    UPSTREAM_SERIAL,
    UPSTREAM_SOLARMAN,
    UPSTREAM_TCP,
)
from .multiplexer import (
    PROFILES,
    DialIn,
    ListenerSettings,
    Network,
    SerialLine,
    Settings,
    SettingsError,
    TlsListener,
    TlsUpstream,
    WriteRule,
)
from .named_clients import NamedClient, by_narrowness, named_clients

GENERIC: Final = "generic"

_ONE_LINE: Final = {"max_in_flight": 1, "max_connections": 1}
_RTU: Final = {"framing": "rtu", **_ONE_LINE}
# The connection and all of its timing are Home Assistant's.
_SHARED: Final = {
    "matching": "strict",
    **_ONE_LINE,
    "connect_delay": 0.0,
    "discard_first_read": False,
    "request_delay": 0.0,
    "idle_timeout": 0.0,
    "max_lifetime": 0.0,
    CONF_TLS: None,
}
_BY_UPSTREAM: Final[dict[str, dict[str, Any]]] = {
    UPSTREAM_TCP: {},
    UPSTREAM_RTU: _RTU,
    UPSTREAM_SOLARMAN: {"framing": "solarman", **_ONE_LINE},
    UPSTREAM_SERIAL: _RTU,
    UPSTREAM_DIAL_IN: {"max_connections": 1},
    UPSTREAM_DIAL_IN_RTU: _RTU,
    UPSTREAM_HOME_ASSISTANT: {"framing": "tcp", **_SHARED},
    UPSTREAM_HOME_ASSISTANT_RTU: {"framing": "rtu", **_SHARED},
    UPSTREAM_HOME_ASSISTANT_SERIAL: {"framing": "rtu", **_SHARED},
}
"""What follows from how the device is reached, whatever else was chosen."""

_THIS_MACHINE: Final = (ip_network("127.0.0.0/8"), ip_network("::1"))

_DECODERS_BY_TYPE: Final[dict[Any, Callable[[Any], Any]]] = {
    bytes: bytes.fromhex,
    tuple[Network, ...]: lambda texts: tuple(ip_network(text) for text in texts),
    tuple[int, ...]: tuple,
    tuple[tuple[int, int], ...]: lambda pairs: tuple(map(tuple, pairs)),
    TlsUpstream | None: lambda stored: stored and TlsUpstream(**stored),
}
_DECODERS: Final = {
    field.name: _DECODERS_BY_TYPE.get(field.type, lambda value: value)
    for field in fields(Settings)
    if field.name not in {"more_listeners", "write_rules"}
}
"""From what JSON can hold to each setting that has one value, by its type."""


def _listener(stored: Mapping[str, Any]) -> ListenerSettings:
    tls = stored["tls"]
    return ListenerSettings(**{**stored, "tls": tls and TlsListener(**tls)})


def profile_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the device profile of an entry with this data sets.

    A profile that this version does not know (any more) sets nothing.
    """
    profile = PROFILES.get(data.get(CONF_PROFILE, GENERIC), PROFILES[GENERIC])
    return profile.settings


def settings_from(
    data: Mapping[str, Any],
    options: Mapping[str, Any],
    subentries: Iterable[ConfigSubentry] = (),
) -> Settings:
    """Return the settings of an entry with this data, these options and subentries.

    Raises:
        SettingsError: a value is out of its bounds.

    """
    subentries = tuple(subentries)
    return Settings(
        serial=_serial_line(data),
        dial_in=_dial_in(data),
        more_listeners=tuple(
            _listener(subentry.data)
            for subentry in subentries
            if subentry.subentry_type == SUBENTRY_LOCAL_PORT
        ),
        write_rules=_write_rules(options, named_clients(subentries)),
        **{
            key: _DECODERS[key](value)
            for key, value in {
                **profile_settings(data),
                **options,
                **data,
                **_BY_UPSTREAM[data.get(CONF_UPSTREAM, UPSTREAM_TCP)],
            }.items()
            if key in _DECODERS
        },
    )


def _write_rules(
    options: Mapping[str, Any], clients: list[NamedClient]
) -> tuple[WriteRule, ...]:
    """Return the rules for writes: those of named clients, then those for all.

    A client's own come in the order of its addresses, the narrowest first: those of a
    single address before those of a network that contains it.
    """
    own = [
        _write_rule(row, networks)
        for client, networks in by_narrowness(clients)
        for row in client.write_rules
    ]
    names = {client.name: client.networks for client in clients}
    for row in options.get(CONF_WRITE_RULES, ()):
        who = row.get("clients", ())
        networks = tuple(each for one in who for each in networks_of(one, names))
        own.append(_write_rule(row, networks))
    return tuple(own)


def _write_rule(row: Mapping[str, Any], networks: tuple[Network, ...]) -> WriteRule:
    return WriteRule(
        action=row["action"],
        networks=networks,
        units=tuple(row.get("units", ())),
        functions=tuple(row.get("functions", ())),
        registers=tuple(row["registers"]) if "registers" in row else None,
    )


def networks_of(
    client: str, names: Mapping[str, tuple[Network, ...]]
) -> tuple[Network, ...]:
    """Return where a client is: by its name in `names`, or as a network.

    Raises:
        SettingsError: it is neither.

    """
    if client in names:
        return names[client]
    if client == HOME_ASSISTANT:
        return _THIS_MACHINE
    try:
        return (ip_network(client),)
    except ValueError:
        message = f"{client!r} is neither a network nor the name of a client"
        raise SettingsError(CONF_WRITE_RULES, message) from None


def _serial_line(data: Mapping[str, Any]) -> SerialLine | None:
    if data.get(CONF_UPSTREAM) not in SERIAL_UPSTREAMS:
        return None
    return SerialLine(
        device=data[CONF_DEVICE],
        baudrate=data[CONF_BAUDRATE],
        parity=data[CONF_PARITY],
        stopbits=data[CONF_STOPBITS],
    )


def _dial_in(data: Mapping[str, Any]) -> DialIn | None:
    if CONF_DIAL_IN_PORT not in data:
        return None
    return DialIn(
        host=data[CONF_LISTEN_HOST],
        port=data[CONF_DIAL_IN_PORT],
        device=data[CONF_DIAL_IN_DEVICE],
    )


def settings_from_entry(entry: ConfigEntry[Any]) -> Settings:
    """Return the settings of `entry`.

    Raises:
        SettingsError: a value is out of its bounds.

    """
    return settings_from(entry.data, entry.options, entry.subentries.values())
