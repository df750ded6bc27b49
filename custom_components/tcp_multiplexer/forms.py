"""The forms that people fill in: which field stands where, and what may be typed.

One table holds all fields; a form is a list of sections, and a section a list of
names. A new setting is one row here, its name in a section, and its words in the
translations. Bounds and defaults are those of `Settings`; an entry keeps only what
differs from the default, so that a better default reaches those who never chose.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any, Final, Literal

from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    ObjectSelector,
    ObjectSelectorConfig,
    ObjectSelectorField,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
    TextSelectorConfig,
)
import voluptuous as vol

from .const import (
    CONF_ALLOW_SEND_REQUEST,
    CONF_CLIENT_NAMES,
    CONF_LISTEN_HOST,
    CONF_UPDATE_INTERVAL,
    DEFAULT_UPDATE_INTERVAL,
)
from .entry_settings import settings_from
from .multiplexer.protocols import PROTOCOLS
from .multiplexer.settings import RANGES, Settings, SettingsError
from .probe import make_protocol

_ADDRESS: Final = "address"
_NAME: Final = "name"


class FieldError(Exception):
    """What was typed cannot be used; `key` names the words that say why."""

    def __init__(self, field: str, key: str, /, **placeholders: str) -> None:
        """Name the field that caused it."""
        super().__init__(field, key)
        self.field = field
        self.key = key
        self.placeholders = placeholders


# The table of fields


def whole(low: float, high: float, unit: str = "") -> vol.All:
    """Give a field for a whole number."""
    return vol.All(_number(low, high, unit, 1), vol.Coerce(int))


def _number(
    low: float, high: float, unit: str, step: float | Literal["any"]
) -> NumberSelector:
    config = NumberSelectorConfig(
        min=low, max=high, step=step, mode=NumberSelectorMode.BOX
    )
    if unit:
        config["unit_of_measurement"] = unit
    return NumberSelector(config)


def _seconds(field: str) -> NumberSelector:
    return _number(*RANGES[field], "s", "any")


def _count(field: str, unit: str = "") -> vol.All:
    return whole(*RANGES[field], unit)


PORT: Final = whole(1, 65535)
PROTOCOL: Final = SelectSelector(
    SelectSelectorConfig(
        options=list(PROTOCOLS),
        mode=SelectSelectorMode.DROPDOWN,
        translation_key="protocol",
    )
)

_FIELDS: Final[dict[str, Any]] = {
    "timeout": _seconds("timeout"),
    "connect_delay": _seconds("connect_delay"),
    "request_delay": _seconds("request_delay"),
    "connect_on_demand": BooleanSelector(),
    "idle_timeout": _seconds("idle_timeout"),
    "max_lifetime": _seconds("max_lifetime"),
    "unit_id": _count("unit_id"),
    "max_connections": _count("max_connections"),
    "max_in_flight": _count("max_in_flight"),
    "queue_size": _count("queue_size"),
    "on_failure": SelectSelector(
        SelectSelectorConfig(
            options=["exception", "close"],
            mode=SelectSelectorMode.DROPDOWN,
            translation_key="on_failure",
        )
    ),
    "max_body": _count("max_body", "B"),
    "share_reads": BooleanSelector(),
    "cache_ttl": _seconds("cache_ttl"),
    "writes_first": BooleanSelector(),
    "write_policy": SelectSelector(
        SelectSelectorConfig(
            options=["allow", "deny", "acknowledge"],
            mode=SelectSelectorMode.DROPDOWN,
            translation_key="write_policy",
        )
    ),
    "write_networks": TextSelector(TextSelectorConfig(multiple=True)),
    "allowed_functions": TextSelector(),
    "allowed_units": TextSelector(),
    "max_read_registers": _count("max_read_registers"),
    "unit_map": TextSelector(),
    "matching": SelectSelector(
        SelectSelectorConfig(
            options=["strict", "lenient"],
            mode=SelectSelectorMode.DROPDOWN,
            translation_key="matching",
        )
    ),
    "quiet": _seconds("quiet"),
    "reconnect_backoff": _seconds("reconnect_backoff"),
    "reconnect_backoff_max": _seconds("reconnect_backoff_max"),
    "health_check_interval": _seconds("health_check_interval"),
    "probe": TextSelector(),
    CONF_LISTEN_HOST: TextSelector(),
    "allowed_networks": TextSelector(TextSelectorConfig(multiple=True)),
    "max_clients": _count("max_clients"),
    CONF_UPDATE_INTERVAL: whole(1, 3600, "s"),
    CONF_CLIENT_NAMES: ObjectSelector(
        ObjectSelectorConfig(
            multiple=True,
            label_field=_NAME,
            description_field=_ADDRESS,
            translation_key=CONF_CLIENT_NAMES,
            fields={
                _ADDRESS: ObjectSelectorField(selector={"text": {}}, required=True),
                _NAME: ObjectSelectorField(selector={"text": {}}, required=True),
            },
        )
    ),
    CONF_ALLOW_SEND_REQUEST: BooleanSelector(),
    "trace_size": _count("trace_size"),
}

_ONLY_FOR: Final[dict[str, tuple[str, ...]]] = {
    "unit_id": ("modbus",),
    "max_in_flight": ("modbus",),
    "on_failure": ("modbus",),
    "share_reads": ("modbus",),
    "cache_ttl": ("modbus",),
    "writes_first": ("modbus",),
    "write_policy": ("modbus",),
    "write_networks": ("modbus",),
    "allowed_functions": ("modbus",),
    "allowed_units": ("modbus",),
    "max_read_registers": ("modbus",),
    "unit_map": ("modbus",),
    "matching": ("modbus",),
    "quiet": ("modbus",),
    "max_body": ("http",),
    "probe": ("iso8583", "mpu", "echo"),
}
"""Fields that mean something to some protocols only."""


def _names_from_rows(rows: list[dict[str, str]]) -> dict[str, str]:
    names = {str(ip_address(row[_ADDRESS].strip())): row[_NAME].strip() for row in rows}
    if len(names) < len(rows) or not all(names.values()):
        raise ValueError(rows)
    return names


def _networks(texts: list[str]) -> list[str]:
    if not texts:  # nobody at all could connect
        raise ValueError(texts)
    return _any_networks(texts)


def _any_networks(texts: list[str]) -> list[str]:
    return [str(ip_network(text.strip(), strict=False)) for text in texts or ()]


def _numbers(text: str) -> list[int]:
    """Read "3, 4, 0x10"."""
    return [int(part, 0) for part in text.replace(",", " ").split()]


def _pairs(text: str) -> list[list[int]]:
    """Read "1=10, 2=11"."""
    pairs = [
        [int(number, 0) for number in part.split("=")]
        for part in text.replace(",", " ").split()
    ]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(text)
    return pairs


_TO_STORE: Final[dict[str, Callable[[Any], Any]]] = {
    "allowed_networks": _networks,
    "write_networks": _any_networks,
    "allowed_functions": _numbers,
    "allowed_units": _numbers,
    "unit_map": _pairs,
    "probe": lambda text: bytes.fromhex(text).hex(),
    CONF_LISTEN_HOST: lambda text: str(ip_address(text.strip())) if text else None,
    CONF_CLIENT_NAMES: _names_from_rows,
}
"""From what is typed to what is stored; a ValueError is the user's."""

_TO_SHOW: Final[dict[str, Callable[[Any], Any]]] = {
    CONF_LISTEN_HOST: lambda host: host or "",
    "allowed_functions": lambda numbers: ", ".join(map(str, numbers)),
    "allowed_units": lambda numbers: ", ".join(map(str, numbers)),
    "unit_map": lambda pairs: ", ".join(f"{ask}={device}" for ask, device in pairs),
    CONF_CLIENT_NAMES: lambda names: [
        {_ADDRESS: address, _NAME: name} for address, name in names.items()
    ],
}
"""The way back."""


def _defaults() -> dict[str, Any]:
    settings = Settings(host="-")
    names = ("protocol", "port", "listen_port", *_FIELDS)
    values = {
        name: getattr(settings, name) for name in names if hasattr(settings, name)
    }
    return values | {
        "allowed_networks": [str(network) for network in settings.allowed_networks],
        "write_networks": [],
        "allowed_functions": [],
        "allowed_units": [],
        "unit_map": [],
        "probe": settings.probe.hex(),
        CONF_UPDATE_INTERVAL: DEFAULT_UPDATE_INTERVAL,
        CONF_CLIENT_NAMES: {},
        CONF_ALLOW_SEND_REQUEST: False,
    }


DEFAULTS: Final = _defaults()
"""As stored; those of the engine's settings are the engine's."""

_OWN_WORDS: Final = (
    "max_in_flight",
    "reconnect_backoff_max",
    "allowed_functions",
    "allowed_units",
    "unit_map",
)
"""Fields that can be wrong although each value is within its bounds."""


def _marker(field: str) -> vol.Marker:
    """Let an empty text field be left out; all others have a value."""
    default = DEFAULTS[field]
    if default in (None, "", []) and field != "allowed_networks":
        return vol.Optional(field)
    return vol.Required(field, default=_show(field, default))


def _show(field: str, stored: Any) -> Any:
    convert = _TO_SHOW.get(field)
    return convert(stored) if convert else stored


def worth_storing(
    values: Mapping[str, Any], profile: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Give those values that differ from what an entry means without them.

    That is the default, or what the entry's device profile sets.
    """
    defaults = {**DEFAULTS, **profile}
    return {name: value for name, value in values.items() if value != defaults[name]}


def checked_settings(data: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
    """Give the settings of such an entry.

    Raises:
        FieldError: a setting is out of its bounds, or two do not fit together.

    """
    try:
        settings = settings_from(data, options)
    except SettingsError as err:
        key = f"invalid_{err.field}" if err.field in _OWN_WORDS else "invalid_value"
        raise FieldError(err.field, key, field=err.field, message=err.message) from None
    try:
        make_protocol(settings)
    except ValueError:
        raise FieldError("probe", "invalid_probe") from None
    return settings


# The sections


class Sections:
    """The collapsed part of a form: fields by section."""

    def __init__(self, protocol: str | None = None, **names: tuple[str, ...]) -> None:
        """Keep those fields that mean something to `protocol`; None: all."""
        names_of_protocol = {
            title: tuple(
                field
                for field in fields
                if protocol is None or protocol in _ONLY_FOR.get(field, (protocol,))
            )
            for title, fields in names.items()
        }
        self._names = {k: fields for k, fields in names_of_protocol.items() if fields}

    def schema(self, opened: str = "") -> dict[vol.Marker, section]:
        """Give what to put at the end of a form; the section `opened` is open."""
        return {
            vol.Required(title): section(
                vol.Schema({_marker(field): _FIELDS[field] for field in fields}),
                {"collapsed": title != opened},
            )
            for title, fields in self._names.items()
        }

    def place(self, field: str) -> str:
        """Say where a form shows the error of a field.

        Home Assistant's frontend shows none within a section, but above it.
        """
        for title, fields in self._names.items():
            if field in fields:
                return title
        return field

    def to_store(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Give what was typed as it is stored, all fields of these sections.

        Raises:
            FieldError: something cannot be used.

        """
        values: dict[str, Any] = {}
        for title, fields in self._names.items():
            for field in fields:
                value = typed[title].get(field, "")
                try:
                    convert = _TO_STORE.get(field)
                    values[field] = convert(value) if convert else value
                except ValueError:
                    raise FieldError(field, f"invalid_{field}") from None
        return values

    def to_show(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Give what is stored as the form shows it."""
        return {
            title: {
                field: _show(field, stored.get(field, DEFAULTS[field]))
                for field in fields
            }
            for title, fields in self._names.items()
        }
