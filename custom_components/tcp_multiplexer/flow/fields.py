"""The fields of all forms: what may be typed, and how it is stored.

The field of a setting is made from its row in `Settings` by its type: a new setting
needs no more than that row and its words in the translations. Bounds and defaults are
those of `Settings`; an entry keeps only what differs from the default, so that a
better default reaches users who never chose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
import enum
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any, Final, Literal, override

from homeassistant.const import CONF_DEVICE, CONF_PROTOCOL
from homeassistant.helpers.selector import (
    BooleanSelector,
    FileSelector,
    FileSelectorConfig,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    SerialPortSelector,
    TextSelector,
    TextSelectorConfig,
)
import voluptuous as vol

from ..const import (
    CONF_ALLOW_SEND_REQUEST,
    CONF_BAUDRATE,
    CONF_DIAL_IN_DEVICE,
    CONF_DIAL_IN_PORT,
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_LOGGER_SERIAL,
    CONF_PARITY,
    CONF_STOPBITS,
    CONF_UPDATE_INTERVAL,
    CONF_WRITE_RULES,
    DEFAULT_UPDATE_INTERVAL,
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
from ..multiplexer import (
    PROFILES,
    PROTOCOLS,
    ROWS,
    Framing,
    Network,
    Parity,
    Row,
    Section,
    SerialLine,
    Settings,
    protocols_with,
)
from ..named_clients import NamedClient
from .numbers import numbers_from, numbers_to_text
from .write_rules import (
    WRITE_RULES,
    RowError,
    check_clients,
    rules_to_show,
    rules_to_store,
)

# Types of settings that are typed as text
_NETWORKS: Final = tuple[Network, ...]
_NUMBERS: Final = tuple[int, ...]
_PAIRS: Final = tuple[tuple[int, int], ...]


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


class _Upload(FileSelector):
    """An optional file; the frontend sends one that was removed as ""."""

    @override
    def __call__(self, data: Any) -> str:
        return super().__call__(data) if data else ""


def _choice(name: str, *options: str) -> SelectSelector:
    return SelectSelector(
        SelectSelectorConfig(
            options=[str(option) for option in options],
            mode=SelectSelectorMode.DROPDOWN,
            translation_key=name,
        )
    )


PORT: Final = whole(1, 65535)
PROFILE: Final = _choice("profile", *PROFILES)
UPSTREAM: Final = _choice(
    "upstream",
    UPSTREAM_TCP,
    UPSTREAM_RTU,
    UPSTREAM_SOLARMAN,
    UPSTREAM_SERIAL,
    UPSTREAM_DIAL_IN,
    UPSTREAM_DIAL_IN_RTU,
    UPSTREAM_HOME_ASSISTANT,
    UPSTREAM_HOME_ASSISTANT_RTU,
    UPSTREAM_HOME_ASSISTANT_SERIAL,
)

LOGGER_SERIAL: Final = whole(*(ROWS[CONF_LOGGER_SERIAL].bounds or (0, 0)))

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


def protocol_field() -> SelectSelector:
    """Return the field for one of the protocols that are registered now."""
    return _choice("protocol", *PROTOCOLS)


_SETTINGS: Final = {each.name: each for each in fields(Settings) if each.name in ROWS}
_CHOSEN_BY_UPSTREAM: Final = frozenset({"framing"})
"""Settings without a field: they follow from how the device is reached."""


def _setting(field: Field[Any], row: Row) -> Any:
    """Make the field of a setting, from its row and its type."""
    low, high = row.bounds or (0, 0)
    if isinstance(field.default, enum.StrEnum):
        return _choice(field.name, *type(field.default))
    if field.type is bool:
        return BooleanSelector()
    if field.type is float:
        return _number(low, high, row.unit or "s", "any")
    if field.type is int:
        return whole(low, high, row.unit)
    return TextSelector(TextSelectorConfig(multiple=field.type == _NETWORKS))


def settings_in(wanted: Section) -> tuple[str, ...]:
    """Return the settings of a section that have a field, in their order."""
    return tuple(
        name
        for name, row in ROWS.items()
        if row.section is wanted and name not in _CHOSEN_BY_UPSTREAM
    )


FIELDS: Final[dict[str, Any]] = {
    **{
        each.name: _setting(each, ROWS[each.name])
        for each in _SETTINGS.values()
        if ROWS[each.name].section is not None
    },
    TLS: _choice(TLS, "off", "system_ca", "own_ca", "unverified"),
    TLS_CA: CERTIFICATE_FILE,
    TLS_SERVER_NAME: TextSelector(),
    TLS_CERTIFICATE: CERTIFICATE_FILE,
    TLS_KEY: KEY_FILE,
    CLIENT_TLS: _choice(CLIENT_TLS, "off", "any_client", "client_certificates"),
    TLS_CLIENT_CA: CERTIFICATE_FILE,
    CONF_DEVICE: SerialPortSelector(),
    CONF_BAUDRATE: whole(300, 4_000_000),
    CONF_PARITY: _choice(CONF_PARITY, *Parity),
    CONF_STOPBITS: whole(1, 2),
    CONF_DIAL_IN_PORT: PORT,
    CONF_DIAL_IN_DEVICE: TextSelector(),
    CONF_LISTEN_PORT: PORT,
    CONF_LISTEN_HOST: TextSelector(),
    CLIENT_FRAMING: _choice(CLIENT_FRAMING, *Framing),
    CONF_UPDATE_INTERVAL: whole(1, 3600, "s"),
    CONF_ALLOW_SEND_REQUEST: BooleanSelector(),
    CONF_WRITE_RULES: WRITE_RULES,
}


def applies_to(protocol: str, field: str) -> bool:
    """Return whether a field applies to a protocol."""
    if field == CLIENT_FRAMING:
        return bool(PROTOCOLS[protocol].framings)
    if field == "max_in_flight":
        return PROTOCOLS[protocol].correlated
    return protocol in protocols_with(field)


def _networks(texts: list[str]) -> list[str]:
    if not texts:  # no client could connect
        raise ValueError(texts)
    return _any_networks(texts)


def _any_networks(texts: list[str]) -> list[str]:
    return [str(ip_network(text.strip(), strict=False)) for text in texts or ()]


def _pairs(text: str) -> list[list[int]]:
    """Parse "1=10, 2=11"."""
    pairs = [
        [int(number, 0) for number in part.split("=")]
        for part in text.replace(",", " ").split()
    ]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(text)
    return pairs


_STORED_BY_TYPE: Final[dict[Any, Callable[[Any], Any]]] = {
    str: str.strip,
    bytes: lambda text: bytes.fromhex(text).hex(),
    _NETWORKS: _any_networks,
    _NUMBERS: numbers_from,
    _PAIRS: _pairs,
}
_TO_STORE: Final[dict[str, Callable[[Any], Any]]] = {
    **{
        name: _STORED_BY_TYPE[each.type]
        for name, each in _SETTINGS.items()
        if each.type in _STORED_BY_TYPE
    },
    "allowed_networks": _networks,
    CONF_LISTEN_HOST: lambda text: str(ip_address(text.strip())) if text else None,
    CONF_DIAL_IN_DEVICE: lambda text: str(ip_address(text.strip())) if text else "",
    CONF_DEVICE: str.strip,
    TLS_SERVER_NAME: str.strip,
    CONF_WRITE_RULES: lambda rows: rules_to_store(rows or ()),
}
"""From what is typed to what is stored; a ValueError means that it is invalid."""

_SHOWN_BY_TYPE: Final[dict[Any, Callable[[Any], Any]]] = {
    _NUMBERS: numbers_to_text,
    _PAIRS: lambda pairs: ", ".join(f"{ask}={device}" for ask, device in pairs),
}
_TO_SHOW: Final[dict[str, Callable[[Any], Any]]] = {
    **{
        name: _SHOWN_BY_TYPE[each.type]
        for name, each in _SETTINGS.items()
        if each.type in _SHOWN_BY_TYPE
    },
    CONF_LISTEN_HOST: lambda host: host or "",
    CONF_WRITE_RULES: rules_to_show,
}
"""From what is stored to what a form shows."""


def _stored(default: Any) -> Any:
    """Convert the default of a setting to what an entry would store."""
    if isinstance(default, enum.Enum):
        return default.value
    if isinstance(default, bytes):
        return default.hex()
    if isinstance(default, tuple):
        return [str(network) for network in default]
    return default


_LINE: Final = SerialLine(device="-")

DEFAULTS: Final[dict[str, Any]] = {
    **{name: _stored(each.default) for name, each in _SETTINGS.items()},
    CONF_PROTOCOL: Settings(host="-").protocol,
    CONF_DEVICE: "",
    CONF_BAUDRATE: _LINE.baudrate,
    CONF_PARITY: _LINE.parity.value,
    CONF_STOPBITS: _LINE.stopbits,
    CONF_DIAL_IN_PORT: 5502,
    CONF_DIAL_IN_DEVICE: "",
    CONF_LISTEN_HOST: None,
    CONF_UPDATE_INTERVAL: DEFAULT_UPDATE_INTERVAL,
    CONF_ALLOW_SEND_REQUEST: False,
    TLS: "off",
    TLS_CA: "",
    TLS_SERVER_NAME: "",
    TLS_CERTIFICATE: "",
    TLS_KEY: "",
    CLIENT_TLS: "off",
    TLS_CLIENT_CA: "",
    CLIENT_FRAMING: Framing.TCP.value,
}
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
    except RowError as err:
        raise FieldError(field, err.key, **err.placeholders) from None
    except ValueError:
        raise FieldError(field, f"invalid_{field}") from None


def check_rules(values: Mapping[str, Any], clients: Sequence[NamedClient]) -> None:
    """Check that the rules for writes name only clients that there are.

    Raises:
        FieldError: one is unknown.

    """
    try:
        check_clients(values.get(CONF_WRITE_RULES, ()), clients)
    except RowError as err:
        raise FieldError(CONF_WRITE_RULES, err.key, **err.placeholders) from None
