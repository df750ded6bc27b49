"""The entry that a form describes, and what must be tried before it is saved.

What already runs is not tried again: when an entry is reconfigured, only what changes
or does not run is tried.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from homeassistant.config_entries import ConfigEntryState, ConfigSubentry
from homeassistant.const import (
    CONF_DEVICE,
    CONF_HOST,
    CONF_NAME,
    CONF_PORT,
    CONF_PROTOCOL,
)
from homeassistant.core import HomeAssistant, callback

from ..addresses import parse_endpoint
from ..const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_LOGGER_SERIAL,
    CONF_PROFILE,
    CONF_TLS,
    CONF_UPSTREAM,
    SERIAL_UPSTREAMS,
    SHARED_UPSTREAMS,
    UPSTREAM_DIAL_IN,
    UPSTREAM_DIAL_IN_RTU,
    UPSTREAM_HOME_ASSISTANT_RTU,
    UPSTREAM_HOME_ASSISTANT_SERIAL,
    UPSTREAM_RTU,
    UPSTREAM_SERIAL,
    UPSTREAM_SOLARMAN,
    UPSTREAM_TCP,
)
from ..coordinator import TcpMultiplexerConfigEntry
from ..entry_settings import settings_from
from ..multiplexer import (
    PROTOCOLS,
    Framing,
    Settings,
    SettingsError,
    make_protocol,
)
from ..shared_connection import async_name_in_use
from .certificates import Uploads
from .fields import DEFAULTS, TLS, FieldError, worth_storing
from .forms import DIAL_IN, SERIAL_LINE, UPSTREAM_TLS, Sections
from .local_ports import ListenAddress

DEVICE: Final = frozenset(
    {
        CONF_PROTOCOL,
        CONF_HOST,
        CONF_PORT,
        *SERIAL_LINE,
        *DIAL_IN,
        CONF_UPSTREAM,
        CONF_LOGGER_SERIAL,
        CONF_TLS,
    }
)
"""The data that says which device an entry shares, and how it is reached."""
_LISTENING: Final = {CONF_LISTEN_HOST, CONF_LISTEN_PORT}
_UNNAMED: Final = {CONF_UPSTREAM: UPSTREAM_TCP, CONF_LOGGER_SERIAL: 0, CONF_TLS: None}
"""What it means that an entry lacks one of these."""

_USUAL_PORTS: Final = {UPSTREAM_SOLARMAN: 8899}
"""Where devices listen that do not listen where others do."""
_FRAMINGS: Final = {
    UPSTREAM_RTU: Framing.RTU,
    UPSTREAM_SOLARMAN: Framing.SOLARMAN,
    UPSTREAM_SERIAL: Framing.RTU,
    UPSTREAM_DIAL_IN_RTU: Framing.RTU,
    UPSTREAM_HOME_ASSISTANT_RTU: Framing.RTU,
    UPSTREAM_HOME_ASSISTANT_SERIAL: Framing.RTU,
}
"""What a protocol must know in order to be spoken in these ways."""

# An entry that is being retried counts: the next attempt might come in between.
_RELEASABLE: Final = (
    ConfigEntryState.LOADED,
    ConfigEntryState.SETUP_RETRY,
    ConfigEntryState.SETUP_ERROR,
)

_OWN_WORDS: Final = (
    "max_in_flight",
    "reconnect_backoff_max",
    "allowed_functions",
    "allowed_units",
    "unit_map",
    "periodic_request",
    "more_listeners",
)
"""Fields with an error of their own: values within bounds can still be invalid."""


@dataclass(frozen=True, kw_only=True)
class ToTry:
    """What must be tried before an entry is saved."""

    dial: bool
    """Whether the device answers."""
    bind: bool
    """Whether the local port is free."""
    release: bool
    """Whether the running entry holds what has to be tried."""
    ask: bool
    """Whether the running entry can be used to identify its device."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The entry that a form describes, and what must be tried before it is saved."""

    title: str
    data: dict[str, Any]
    options: Mapping[str, Any]
    subentries: tuple[ConfigSubentry, ...]
    settings: Settings
    to_try: ToTry

    @property
    def named(self) -> bool:
        """Whether the user gave the device a name."""
        return self.title != _usual_title(self.settings)

    @property
    def listen_address(self) -> ListenAddress:
        """Where clients will connect."""
        return ListenAddress(self.settings.listen_host, self.settings.listen_port)

    @property
    def dial_in_address(self) -> ListenAddress | None:
        """Where the device will dial in."""
        if (dial_in := self.settings.dial_in) is None:
            return None
        return ListenAddress(dial_in.host, dial_in.port)


def _can_be_reached(protocol: str, upstream: str) -> bool:
    """Return whether a protocol can be spoken with a device in this way."""
    if (framing := _FRAMINGS.get(upstream)) is not None:
        return framing in PROTOCOLS[protocol].framings
    return upstream in {UPSTREAM_TCP, UPSTREAM_DIAL_IN} or PROTOCOLS[protocol].has_units


async def async_plan(
    hass: HomeAssistant,
    typed: Mapping[str, Any],
    sections: Sections,
    uploads: Uploads,
    entry: TcpMultiplexerConfigEntry | None,
) -> Plan:
    """Read the form that reconfigures `entry`, or adds one if that is None.

    Raises:
        FieldError: something in it is invalid.

    """
    values = sections.to_store(typed)
    tls_fields = {field: values.pop(field) for field in UPSTREAM_TLS}
    data: dict[str, Any] = {
        CONF_PROTOCOL: typed[CONF_PROTOCOL],
        **_place(typed, values),
        CONF_LISTEN_HOST: values.pop(CONF_LISTEN_HOST),
        CONF_LISTEN_PORT: typed[CONF_LISTEN_PORT],
        CONF_PROFILE: typed[CONF_PROFILE],
        CONF_UPSTREAM: typed[CONF_UPSTREAM],
    }
    if data[CONF_UPSTREAM] == UPSTREAM_HOME_ASSISTANT_SERIAL:
        data[CONF_DEVICE] = await async_name_in_use(hass, data[CONF_DEVICE])
    if not _can_be_reached(data[CONF_PROTOCOL], data[CONF_UPSTREAM]):
        raise FieldError(CONF_UPSTREAM, "only_modbus")
    tls = await uploads.async_upstream(
        tls_fields, entry.data.get(CONF_TLS) if entry else None
    )
    if tls is not None:
        if data[CONF_UPSTREAM] in SHARED_UPSTREAMS:
            raise FieldError(TLS, "tls_not_shared")
        if CONF_HOST not in data:
            raise FieldError(TLS, "tls_not_available")
        data[CONF_TLS] = tls
    options = entry.options if entry else worth_storing(values)
    subentries = tuple(entry.subentries.values()) if entry else ()
    settings = checked_settings(data, options, subentries)
    named = typed.get(CONF_NAME, "").strip()
    return Plan(
        title=entry.title if entry else named or _usual_title(settings),
        data=data,
        options=options,
        subentries=subentries,
        settings=settings,
        to_try=_to_try(data, entry),
    )


def _place(typed: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return where the device is; take the fields about that out of `values`."""
    line = {field: values.pop(field) for field in SERIAL_LINE}
    dial_in = {field: values.pop(field) for field in DIAL_IN}
    upstream = typed[CONF_UPSTREAM]
    if upstream in SERIAL_UPSTREAMS:
        if not line[CONF_DEVICE]:
            raise FieldError(CONF_DEVICE, "serial_port_missing")
        return line
    if upstream in {UPSTREAM_DIAL_IN, UPSTREAM_DIAL_IN_RTU}:
        return dial_in
    try:
        host, port = parse_endpoint(typed.get(CONF_HOST, ""))
    except ValueError:
        raise FieldError(CONF_HOST, "invalid_host") from None
    usual = _USUAL_PORTS.get(upstream, DEFAULTS[CONF_PORT])
    place = {CONF_HOST: host, CONF_PORT: port or typed.get(CONF_PORT, usual)}
    if serial := typed.get(CONF_LOGGER_SERIAL):
        place[CONF_LOGGER_SERIAL] = serial
    return place


def _usual_title(settings: Settings) -> str:
    """Return the title of an entry that its user has not named."""
    if (dial_in := settings.dial_in) is not None:
        return dial_in.device or f"Port {dial_in.port}"
    return settings.host or settings.target.rpartition("/")[2] or settings.target


@callback
def _to_try(data: dict[str, Any], entry: TcpMultiplexerConfigEntry | None) -> ToTry:
    """Compare new data with the entry that is reconfigured."""
    if entry is None:
        return ToTry(dial=True, bind=True, release=False, ask=False)
    running = entry.state is ConfigEntryState.LOADED
    before = _UNNAMED | entry.data
    changed = {
        key for key, value in (_UNNAMED | data).items() if before.get(key) != value
    }
    dial = not changed.isdisjoint(DEVICE)
    bind = not (running and changed.isdisjoint(_LISTENING))
    needs_own_port = bind and not (running and CONF_LISTEN_PORT in changed)
    release = entry.state in _RELEASABLE and (dial or needs_own_port)
    can_identify = PROTOCOLS[data[CONF_PROTOCOL]].has_units
    return ToTry(
        dial=dial,
        bind=bind,
        release=release,
        ask=running and can_identify and not release,
    )


def checked_settings(
    data: Mapping[str, Any],
    options: Mapping[str, Any],
    subentries: Iterable[ConfigSubentry],
) -> Settings:
    """Return the settings of an entry with this data, these options and subentries.

    Raises:
        FieldError: a setting is out of its bounds, or two do not fit together.

    """
    try:
        settings = settings_from(data, options, subentries)
    except SettingsError as err:
        key = f"invalid_{err.field}" if err.field in _OWN_WORDS else "invalid_value"
        raise FieldError(err.field, key, field=err.field, message=err.message) from None
    try:
        make_protocol(settings)
    except ValueError:
        raise FieldError("probe", "invalid_probe") from None
    return settings
