"""Values and settings as the text of a configuration file (TOML 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Network, IPv6Network
import json
import re
from typing import Any

from ..settings import Settings
from .values import usual_port

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_key(key: str) -> str:
    """Return a key, in quotes if it needs some."""
    return key if _BARE_KEY.fullmatch(key) else _quoted(key)


def toml_value(value: Any) -> str:
    """Return a value as one that `file_values` reads."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return str(int(value)) if value.is_integer() else repr(value)
        case int():
            return str(value)
        case bytes():
            return _quoted(value.hex())
        case IPv4Network() | IPv6Network():
            return _quoted(str(value))
        case tuple() | list():
            return f"[{', '.join(map(toml_value, value))}]"
        case Mapping():
            items = (f"{toml_key(key)} = {toml_value(value[key])}" for key in value)
            return f"{{ {', '.join(items)} }}" if value else "{}"
    if is_dataclass(value):
        return toml_value(_changed(value))
    return _quoted(str(value))


def toml_setting(name: str, value: Any) -> str:
    """Return the line that gives a setting its value."""
    if name == "unit_map":
        value = {str(unit): device for unit, device in value}
    return f"{name} = {toml_value(value)}"


def toml_device(name: str, settings: Settings) -> str:
    """Return the table of a device, with all that differs from the defaults."""
    lines = [f"[devices.{toml_key(name)}]"]
    given = _changed(settings)
    given.pop("port", None)
    if settings.host and settings.port != usual_port(
        settings.protocol, settings.framing
    ):
        given["port"] = settings.port
    lines += [toml_setting(*item) for item in given.items()]
    return "".join(f"{line}\n" for line in lines)


def _changed(value: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    given = {each.name: getattr(value, each.name) for each in fields(value)}
    return {
        each.name: given[each.name]
        for each in fields(value)
        if given[each.name] != each.default
    }


def _quoted(text: str) -> str:
    """Return a basic string; the few escapes of JSON are all that TOML needs."""
    if text.startswith("-----BEGIN"):  # certificates and keys stay readable
        return f"'''\n{text}'''"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
