"""From a config entry to the `Settings` of its multiplexer.

An entry stores what JSON can hold, under the names of the fields of `Settings`; only
networks and bytes look different there. What an entry does not name keeps the
engine's default, so that no default is written down twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from .multiplexer.settings import Settings

if TYPE_CHECKING:  # It reads settings itself.
    from .coordinator import TcpMultiplexerConfigEntry

_FIELDS: Final = frozenset(field.name for field in fields(Settings))
_DECODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "allowed_networks": lambda texts: tuple(ip_network(text) for text in texts),
    "probe": bytes.fromhex,
}


def settings_from(data: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
    """Give the settings that an entry with this data and these options has.

    Raises:
        SettingsError: a value is out of its bounds.

    """
    return Settings(
        **{
            key: _DECODERS[key](value) if key in _DECODERS else value
            for key, value in {**options, **data}.items()
            if key in _FIELDS
        }
    )


def settings_from_entry(entry: TcpMultiplexerConfigEntry) -> Settings:
    """Give the settings of `entry`.

    Raises:
        SettingsError: a value is out of its bounds.

    """
    return settings_from(entry.data, entry.options)
