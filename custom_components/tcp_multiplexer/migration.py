"""Brings entries of older versions up to date.

What is replaced stays in the entry, so that the older version can be installed again,
for as long as it still says what holds.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.const import CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback

from .const import (
    CONF_ADDRESSES,
    CONF_WRITE_RULES,
    SUBENTRY_CLIENT,
    SUBENTRY_LOCAL_PORT,
)
from .further_ports import describe_listener
from .multiplexer import WriteAction

_CLIENT_NAMES: Final = "client_names"
"""Until 1.2: names by their addresses."""
_MORE_LISTENERS: Final = "more_listeners"
"""Until 1.2: what is stored of each further local port."""
NOW_SUBENTRIES: Final = frozenset({_CLIENT_NAMES, _MORE_LISTENERS})
"""Options that have become subentries."""


async def async_migrate(hass: HomeAssistant, entry: ConfigEntry[Any]) -> bool:
    """Bring an entry up to date; return whether that is possible."""
    if entry.version > 1:
        return False
    if entry.minor_version < 2:
        options = dict(entry.options)
        if rules := _rules_of_policy(options):
            options[CONF_WRITE_RULES] = rules
        hass.config_entries.async_update_entry(entry, options=options, minor_version=2)
    if entry.minor_version < 3:
        for subentry in _subentries_of_options(entry):
            hass.config_entries.async_add_subentry(entry, subentry)
        hass.config_entries.async_update_entry(entry, minor_version=3)
    return True


def _rules_of_policy(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rules that stand for a write policy, and who might write anyway."""
    rules: list[dict[str, Any]] = []
    if networks := options.get("write_networks"):
        rules.append({"action": WriteAction.ALLOW.value, "clients": networks})
    policy = options.get("write_policy", WriteAction.ALLOW)
    if policy != WriteAction.ALLOW:
        rules.append({"action": policy})
    return rules


def _subentries_of_options(entry: ConfigEntry[Any]) -> list[ConfigSubentry]:
    """Return named clients and further local ports; addresses of one name are one."""
    addresses: dict[str, list[str]] = {}
    for address, name in entry.options.get(_CLIENT_NAMES, {}).items():
        addresses.setdefault(name, []).append(address)
    clients = [
        _subentry(SUBENTRY_CLIENT, name, {CONF_ADDRESSES: several})
        for name, several in addresses.items()
    ]
    protocol = entry.data[CONF_PROTOCOL]
    ports = [
        _subentry(SUBENTRY_LOCAL_PORT, describe_listener(protocol, listener), listener)
        for listener in entry.options.get(_MORE_LISTENERS, ())
    ]
    return clients + ports


def _subentry(kind: str, title: str, data: Mapping[str, Any]) -> ConfigSubentry:
    return ConfigSubentry(
        data=MappingProxyType(dict(data)),
        subentry_type=kind,
        title=title,
        unique_id=None,
    )


@callback
def async_forget_replaced(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Forget options that have become subentries, now that those have changed."""
    if not NOW_SUBENTRIES.isdisjoint(entry.options):
        options = {
            key: value
            for key, value in entry.options.items()
            if key not in NOW_SUBENTRIES
        }
        hass.config_entries.async_update_entry(entry, options=options)
