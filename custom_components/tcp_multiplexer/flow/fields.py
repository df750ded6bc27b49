"""The fields of all forms: what may be typed, and how it is stored.

One table holds all fields. A new setting is one row here, its name in a section of a
form, and its words in the translations. Bounds and defaults are those of `Settings`;
an entry keeps only what differs from the default, so that a better default reaches
users who never chose.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any, Final, Literal, override

from homeassistant.helpers.selector import (
    BooleanSelector,
    FileSelector,
    FileSelectorConfig,
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

from ..const import (
    CONF_ALLOW_SEND_REQUEST,
    CONF_CLIENT_NAMES,
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_UPDATE_INTERVAL,
    DEFAULT_UPDATE_INTERVAL,
    UPSTREAM_HOME_ASSISTANT,
    UPSTREAM_RTU,
    UPSTREAM_TCP,
)
from ..multiplexer import PROFILES, PROTOCOLS, RANGES, Settings

_ADDRESS: Final = "address"
_NAME: Final = "name"


class FieldError(Exception):
    """What was typed in `field` cannot be used; `key` names the translated reason."""

    def __init__(self, field: str, key: str, /, **placeholders: str) -> None:
        super().__init__(field, key)
        self.field = field
        self.key = key
        self.placeholders = placeholders


# The table of fields


def whole(low: float, high: float, unit: str = "") -> vol.All:
    """Return a field for a whole number."""
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


class _Upload(FileSelector):
    """An optional file; the frontend sends one that was removed as ""."""

    @override
    def __call__(self, data: Any) -> str:
        return super().__call__(data) if data else ""


def _choice(name: str, *options: str) -> SelectSelector:
    return SelectSelector(
        SelectSelectorConfig(
            options=list(options),
            mode=SelectSelectorMode.DROPDOWN,
            translation_key=name,
        )
    )


PORT: Final = whole(1, 65535)
PROTOCOL: Final = _choice("protocol", *PROTOCOLS)
PROFILE: Final = _choice("profile", *PROFILES)
UPSTREAM: Final = _choice(
    "upstream", UPSTREAM_TCP, UPSTREAM_RTU, UPSTREAM_HOME_ASSISTANT
)

TLS: Final = "tls_upstream"
"""Whether TLS is used to the device, and how its certificate is verified."""
TLS_CA: Final = "tls_ca"
TLS_SERVER_NAME: Final = "tls_server_name"
TLS_CERTIFICATE: Final = "tls_certificate"
TLS_KEY: Final = "tls_key"
CLIENT_TLS: Final = "tls_clients"
"""Whether TLS is used to clients, and whether they must have a certificate."""
TLS_CLIENT_CA: Final = "tls_client_ca"
CLIENT_FRAMING: Final = "client_framing"
"""The Modbus framing of an additional listener."""

CERTIFICATE_FILE: Final = _Upload(
    FileSelectorConfig(accept=".pem,.crt,.cer,application/x-x509-ca-cert")
)
KEY_FILE: Final = _Upload(FileSelectorConfig(accept=".pem,.key,application/pkcs8"))

FIELDS: Final[dict[str, Any]] = {
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
    "on_failure": _choice("on_failure", "exception", "close"),
    "max_body": _count("max_body", "B"),
    "share_reads": BooleanSelector(),
    "cache_ttl": _seconds("cache_ttl"),
    "writes_first": BooleanSelector(),
    "write_policy": _choice("write_policy", "allow", "deny", "acknowledge"),
    "write_networks": TextSelector(TextSelectorConfig(multiple=True)),
    "allowed_functions": TextSelector(),
    "allowed_units": TextSelector(),
    "max_read_registers": _count("max_read_registers"),
    "unit_map": TextSelector(),
    "matching": _choice("matching", "strict", "lenient"),
    "quiet": _seconds("quiet"),
    "reconnect_backoff": _seconds("reconnect_backoff"),
    "reconnect_backoff_max": _seconds("reconnect_backoff_max"),
    "health_check_interval": _seconds("health_check_interval"),
    "probe": TextSelector(),
    TLS: _choice(TLS, "off", "system_ca", "own_ca", "unverified"),
    TLS_CA: CERTIFICATE_FILE,
    TLS_SERVER_NAME: TextSelector(),
    TLS_CERTIFICATE: CERTIFICATE_FILE,
    TLS_KEY: KEY_FILE,
    CLIENT_TLS: _choice(CLIENT_TLS, "off", "any_client", "client_certificates"),
    TLS_CLIENT_CA: CERTIFICATE_FILE,
    CONF_LISTEN_PORT: PORT,
    CONF_LISTEN_HOST: TextSelector(),
    CLIENT_FRAMING: _choice(CLIENT_FRAMING, "tcp", "rtu"),
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
    CLIENT_FRAMING: ("modbus",),
    "max_body": ("http",),
    "probe": ("iso8583", "mpu", "echo"),
}
"""Fields that apply to some protocols only."""


def applies_to(protocol: str, field: str) -> bool:
    """Return whether a field applies to a protocol."""
    return protocol in _ONLY_FOR.get(field, (protocol,))


def _names_from_rows(rows: list[dict[str, str]]) -> dict[str, str]:
    names = {str(ip_address(row[_ADDRESS].strip())): row[_NAME].strip() for row in rows}
    if len(names) < len(rows) or not all(names.values()):
        raise ValueError(rows)
    return names


def _networks(texts: list[str]) -> list[str]:
    if not texts:  # no client could connect
        raise ValueError(texts)
    return _any_networks(texts)


def _any_networks(texts: list[str]) -> list[str]:
    return [str(ip_network(text.strip(), strict=False)) for text in texts or ()]


def _numbers(text: str) -> list[int]:
    """Parse "3, 4, 0x10"."""
    return [int(part, 0) for part in text.replace(",", " ").split()]


def _pairs(text: str) -> list[list[int]]:
    """Parse "1=10, 2=11"."""
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
    TLS_SERVER_NAME: str.strip,
    CONF_CLIENT_NAMES: _names_from_rows,
}
"""From what is typed to what is stored; a ValueError means that it is invalid."""

_TO_SHOW: Final[dict[str, Callable[[Any], Any]]] = {
    CONF_LISTEN_HOST: lambda host: host or "",
    "allowed_functions": lambda numbers: ", ".join(map(str, numbers)),
    "allowed_units": lambda numbers: ", ".join(map(str, numbers)),
    "unit_map": lambda pairs: ", ".join(f"{ask}={device}" for ask, device in pairs),
    CONF_CLIENT_NAMES: lambda names: [
        {_ADDRESS: address, _NAME: name} for address, name in names.items()
    ],
}
"""From what is stored to what a form shows."""


def _defaults() -> dict[str, Any]:
    settings = Settings(host="-")
    names = ("protocol", "port", "listen_port", *FIELDS)
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
        TLS: "off",
        TLS_CA: "",
        TLS_SERVER_NAME: "",
        TLS_CERTIFICATE: "",
        TLS_KEY: "",
        CLIENT_TLS: "off",
        TLS_CLIENT_CA: "",
        CLIENT_FRAMING: "tcp",
    }


DEFAULTS: Final = _defaults()
"""As stored. Those of the engine's settings come from the engine."""


def marker(field: str) -> vol.Marker:
    """Return the schema key of a field: only an empty text may be left out."""
    default = DEFAULTS[field]
    if default in (None, "", []) and field != "allowed_networks":
        return vol.Optional(field)
    return vol.Required(field, default=to_show(field, default))


def to_show(field: str, stored: Any) -> Any:
    """Convert a stored value to what a form shows."""
    convert = _TO_SHOW.get(field)
    return convert(stored) if convert else stored


def worth_storing(
    values: Mapping[str, Any], profile: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Return those values that differ from what an entry has without them.

    That is the default, or what its device profile sets.
    """
    defaults = {**DEFAULTS, **profile}
    return {name: value for name, value in values.items() if value != defaults[name]}


def tls_to_show(stored: Mapping[str, Any] | None) -> dict[str, str]:
    """Convert the stored TLS of the device to what a form shows: never files."""
    if stored is None:
        return {}
    way = "own_ca" if stored["ca"] else "system_ca"
    return {
        TLS: way if stored["verify"] else "unverified",
        TLS_SERVER_NAME: stored["server_name"],
    }


def client_tls_to_show(stored: Mapping[str, Any] | None) -> dict[str, str]:
    """Convert the stored TLS of a listener to what a form shows: never files."""
    if stored is None:
        return {}
    return {CLIENT_TLS: "client_certificates" if stored["client_ca"] else "any_client"}


def to_store(field: str, typed: Any) -> Any:
    """Convert what was typed to what is stored.

    Raises:
        FieldError: it is invalid.

    """
    convert = _TO_STORE.get(field)
    try:
        return convert(typed) if convert else typed
    except ValueError:
        raise FieldError(field, f"invalid_{field}") from None
