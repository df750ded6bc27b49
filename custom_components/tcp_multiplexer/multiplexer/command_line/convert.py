"""Configurations of other programs, as one of `tcp-multiplexer run`.

modbus-proxy 0.8.0 has a file, in YAML, TOML or JSON, as its package description says;
the Go program tcp-multiplexer has a command line, whose flags `server` has too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import re
import tomllib
from typing import Any
from urllib.parse import urlsplit

from ..networks import format_address
from ..settings import Settings, SettingsError
from .file_values import shown
from .flags import Parser, add_flags, make_settings
from .toml_text import toml_device

_MODBUS_PROXY_TIMEOUT = 10.0
_MODBUS_PORT = 502
_ALL_OF_IPV4 = "0.0.0.0"  # noqa: S104 - what it said, too
_NOTE = """\
# Only clients from private networks may connect; allowed_networks admits others.
"""


def convert(words: Sequence[str]) -> str:
    """Return the configuration that does what a file or a command line does.

    Raises:
        ValueError: it is neither, or something in it cannot be understood.

    """
    if "server" in words:
        return _from_command_line(words[words.index("server") + 1 :])
    if len(words) == 1:
        return _from_modbus_proxy(_load(Path(words[0])))
    raise ValueError("give the file of modbus-proxy, or a command line with server")


# ---- a command line --------------------------------------------------------------


def _from_command_line(words: Sequence[str]) -> str:
    parser = Parser(prog="server", exit_on_error=False)
    add_flags(parser)
    try:
        given, unknown = parser.parse_known_args(words)
    except argparse.ArgumentError as err:
        raise ValueError(str(err)) from err
    if unknown:
        raise ValueError(f"unknown: {' '.join(unknown)}")
    settings = make_settings(given)
    flags = "".join(f" --{name}" for name in ("verbose", "debug") if name in given)
    if "metrics" in given:
        host, port = given.metrics
        flags += f" --metrics {format_address(host, port) if host else port}"
    text = f"# tcp-multiplexer run FILE{flags}\n{_NOTE}\n"
    return text + toml_device(_names([settings])[0], settings)


# ---- modbus-proxy ----------------------------------------------------------------


def _load(path: Path) -> Any:
    try:
        text = path.read_bytes().decode()
        match path.suffix:
            case ".toml":
                return tomllib.loads(text)
            case ".json":
                return json.loads(text)
        return _load_yaml(text)
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise ValueError(f"{path} cannot be read: {reason}") from err


def _load_yaml(text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError as err:
        message = "YAML needs one more library: pip install 'tcp-multiplexer[yaml]'"
        raise ValueError(message) from err
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ValueError(" ".join(str(err).split())) from err


def _from_modbus_proxy(file: Any) -> str:
    devices = file.get("devices") if isinstance(file, Mapping) else None
    if not isinstance(devices, list) or not devices:
        raise ValueError("devices: there are none; is it a file of modbus-proxy?")
    settings = [
        _device(f"devices[{position}]", device)
        for position, device in enumerate(devices, 1)
    ]
    text = _NOTE
    if file.keys() - {"devices"}:
        others = ", ".join(sorted(file.keys() - {"devices"}))
        text += f"# Not taken over: {others}. What is logged, -v and -d say.\n"
    for name, each in zip(_names(settings), settings, strict=True):
        text += f"\n{toml_device(name, each)}"
    return text


def _device(place: str, device: Any) -> Settings:
    """Return what a device of modbus-proxy is here."""
    known = _Table(place, device, ("modbus", "listen", "unit_id_remapping"))
    modbus = _Table(
        f"{place}.modbus",
        known.get("modbus"),
        ("url", "timeout", "connection_time"),
    )
    listen = _Table(f"{place}.listen", known.get("listen"), ("bind",))
    units = _Table(
        f"{place}.unit_id_remapping", known.get("unit_id_remapping") or {}, None
    )
    host, port = modbus.address("url")
    listen_host, listen_port = listen.address("bind")
    try:
        return Settings(
            host=host,
            port=port,
            listen_host=listen_host,
            listen_port=listen_port,
            timeout=modbus.number("timeout", _MODBUS_PROXY_TIMEOUT),
            connect_delay=modbus.number("connection_time", 0.0),
            unit_map=units.pairs(),
        )
    except SettingsError as err:
        raise ValueError(f"{place}: {err}") from err


class _Table:
    """A table of the other program's file, and where it stands."""

    def __init__(self, place: str, table: Any, known: Sequence[str] | None) -> None:
        if not isinstance(table, Mapping):
            message = f"{place}: must be a table, is {shown(table)}"
            raise ValueError(message)  # noqa: TRY004 - the file is wrong, not the code
        for key in table:
            if known is not None and key not in known:
                raise ValueError(f"{place}.{key}: is unknown to modbus-proxy")
        self._place = place
        self._table = table

    def get(self, key: str) -> Any:
        """Return a value, or None."""
        return self._table.get(key)

    def number(self, key: str, default: float) -> float:
        """Return a number of seconds."""
        value = self._table.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            message = f"{self._place}.{key}: must be a number, is {shown(value)}"
            raise ValueError(message)  # noqa: TRY004 - likewise
        return float(value)

    def address(self, key: str) -> tuple[str, int]:
        """Return host and port of a URL; without a host, or with 0, all of IPv4."""
        value = self._table.get(key)
        url = str(value) if value is not None else ""
        parts = urlsplit(url if "://" in url else f"tcp://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if not url or port == -1:
            message = f"{self._place}.{key}: {shown(value)} is no host:port"
            raise ValueError(message)
        host = parts.hostname or "0"
        return (
            _ALL_OF_IPV4 if host == "0" else host,
            _MODBUS_PORT if port is None else port,
        )

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return numbers by numbers."""
        for pair in self._table.items():
            if not all(str(number).isdecimal() for number in pair):
                raise ValueError(f"{self._place}: {pair[0]} is no unit, or {pair[1]}")
        return tuple(
            (int(unit), int(device))
            for unit, device in self._table.items()
            if int(unit) != int(device)
        )


def _names(devices: Sequence[Settings]) -> list[str]:
    """Return a name for each device, after its host."""
    names: list[str] = []
    for settings in devices:
        target = settings.host or settings.target
        name = stem = re.sub(r"[^A-Za-z0-9_]+", "-", target).strip("-") or "device"
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names
