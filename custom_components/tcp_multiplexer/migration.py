"""Brings entries of older versions up to date.

What is replaced stays in the entry, so that the older version can be installed again.
"""

from collections.abc import Mapping
from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant

from .const import CONF_WRITE_RULES
from .multiplexer import WriteAction


async def async_migrate(hass: HomeAssistant, entry: ConfigEntry[Any]) -> bool:
    """Bring an entry up to date; return whether that is possible."""
    if entry.version > 1:
        return False
    if entry.minor_version < 2:
        options = dict(entry.options)
        if rules := _rules_of_policy(options):
            options[CONF_WRITE_RULES] = rules
        hass.config_entries.async_update_entry(entry, options=options, minor_version=2)
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
