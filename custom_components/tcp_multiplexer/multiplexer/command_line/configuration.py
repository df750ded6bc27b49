"""The file of `tcp-multiplexer run`: several devices, as TOML.

    [defaults]                  # for every device that does not say otherwise
    timeout = 3

    [devices.inverter]          # a table for each device; its name stands in the log
    host = "192.168.1.22"
    listen_port = 5020

Keys are the names of the settings, and `profile`. Where both name a setting, what
stands with the device wins over its profile, and that over `[defaults]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
import enum
from pathlib import Path
import tomllib
from typing import Any, override

from ..checks import check_bounds, chosen
from ..networks import format_address
from ..profiles import PROFILES
from ..protocols import PROTOCOLS, protocols_with
from ..protocols.options import Framing
from ..settings import ROWS, Settings, SettingsError, make_protocol
from ..tls import TlsError, TlsListener, TlsUpstream
from .file_values import READERS, reason, text
from .places import places
from .toml_lines import KeyPath, line_of, lines_of_keys
from .toml_text import toml_key
from .values import usual_port

DEVICES = "devices"
DEFAULTS = "defaults"
PROFILE = "profile"
WAYS = ("host", "serial", "dial_in")
"""The settings of which one says how the device is reached."""
OF_ONE_DEVICE = (*WAYS, "listen_port", "more_listeners", "logger_serial")
"""Settings that cannot be the same for several devices."""
_DEFAULT_PROTOCOL = {each.name: each.default for each in fields(Settings)}["protocol"]
_CHOICES = {
    each.name: type(each.default)
    for each in fields(Settings)
    if isinstance(each.default, enum.StrEnum)
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something that is wrong in the file."""

    path: KeyPath
    """The keys from the top."""
    message: str
    line: int | None = None

    @override
    def __str__(self) -> str:
        place = f"{self.line}: " if self.line else " "
        if len(self.path) >= 2 and self.path[0] == DEVICES:
            table, keys = self.path[:2], self.path[2:]
        else:
            table, keys = self.path[:1], self.path[1:]
        header = f"[{'.'.join(toml_key(str(key)) for key in table)}] " if table else ""
        return f"{place}{header}{_dotted(keys)}{self.message}"


def _dotted(keys: KeyPath) -> str:
    """Return keys as TOML writes them, positions in an array counted from 1."""
    words = "".join(
        f"[{key + 1}]" if isinstance(key, int) else f".{toml_key(key)}" for key in keys
    )
    return f"{words[1:]}: " if words else ""


class ConfigurationError(ValueError):
    """The file cannot be used; `mistakes` has every reason."""

    def __init__(self, file: Path, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(f"{file}:{mistake}" for mistake in mistakes))
        self.mistakes = mistakes


def read_configuration(file: Path) -> dict[str, Settings]:
    """Return the settings of each device, by its name.

    Reads the files of certificates too. Must not be called in an event loop.

    Raises:
        ConfigurationError: the file cannot be read, or something in it is wrong.

    """
    try:
        content = file.read_bytes().decode()
    except OSError as err:
        message = f"cannot be read: {err.strerror or err}"
        raise ConfigurationError(file, [Mistake((), message)]) from err
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        mistake = Mistake((), "is not UTF-8", line)
        raise ConfigurationError(file, [mistake]) from err
    try:
        parsed = tomllib.loads(content)
    except tomllib.TOMLDecodeError as err:
        mistake = Mistake((), f"is not TOML: {err}")
        raise ConfigurationError(file, [mistake]) from err
    reading = _Reading(file.parent)
    settings = reading.devices(parsed)
    if reading.mistakes:
        lines = lines_of_keys(content)
        found = [
            Mistake(path, message, line_of(lines, path))
            for path, message in reading.mistakes
        ]
        found.sort(key=lambda mistake: mistake.line or 0)
        raise ConfigurationError(file, found)
    return settings


class _Reading:
    """Reads a parsed file, and gathers what is wrong in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mistakes: list[tuple[KeyPath, str]] = []

    def _wrong(self, path: KeyPath, message: str) -> None:
        self.mistakes.append((path, message))

    def devices(self, parsed: dict[str, Any]) -> dict[str, Settings]:
        """Return the settings of those devices that are right."""
        for key in parsed.keys() - {DEFAULTS, DEVICES}:
            hint = f"a device is a table [{DEVICES}.NAME]"
            self._wrong((key,), f"is unknown; {hint}")
        defaults = self._values((DEFAULTS,), parsed.get(DEFAULTS, {}))
        for key in OF_ONE_DEVICE:
            if key in defaults:
                self._wrong((DEFAULTS, key), "belongs to one device")
        tables = parsed.get(DEVICES, {})
        if not isinstance(tables, dict) or not tables:
            self._wrong((DEVICES,), f"name a device: [{DEVICES}.NAME]")
            return {}
        done = {}
        for name, table in tables.items():
            settings = self._device(name, table, defaults)
            if settings is not None:
                done[name] = settings
        self._check_places(done)
        return done

    def _values(self, path: KeyPath, table: Any) -> dict[str, Any]:
        """Return the values of a table, each checked for itself."""
        if not isinstance(table, dict):
            self._wrong(path, "must be a table")
            return {}
        values = {}
        for key, value in table.items():
            try:
                values[key] = self._value(key, value)
            except (ValueError, argparse.ArgumentTypeError) as err:
                self._wrong((*path, key, *getattr(err, "path", ())), reason(err))
        return values

    def _value(self, key: str, value: Any) -> Any:
        if key == PROFILE:
            if text(value, self._folder) not in PROFILES:
                raise ValueError(f"is none of {', '.join(PROFILES)}")
            return value
        if key not in READERS:
            close = get_close_matches(key, (*READERS, PROFILE), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"is no setting{hint}")
        value = READERS[key](value, self._folder)
        if key == "protocol" and value not in PROTOCOLS:
            raise ValueError(f"is none of {', '.join(PROTOCOLS)}")
        if key in _CHOICES:
            return chosen(key, _CHOICES[key], value)
        if key in ROWS:
            check_bounds(key, ROWS[key].bounds, value)
        return value

    def _device(
        self, name: str, table: Any, defaults: dict[str, Any]
    ) -> Settings | None:
        """Return the settings of a device, unless something in them is wrong."""
        path = (DEVICES, name)
        before = len(self.mistakes)
        if not name.isprintable() or not name.strip():
            self._wrong(path, "is no name: use characters that can be printed")
        own = self._values(path, table)
        if len(self.mistakes) > before:
            return None
        values = _merged(defaults, own)
        self._add_implied(path, own, values)
        protocol = values.get("protocol", _DEFAULT_PROTOCOL)
        if PROFILE in own and protocol != PROFILES[own[PROFILE]].protocol:
            message = f"is only for {PROFILES[own[PROFILE]].protocol}"
            self._wrong((*path, PROFILE), message)
        for key in [*values]:
            if protocol not in protocols_with(key):
                if key in own:
                    others = ", ".join(protocols_with(key))
                    self._wrong(
                        (*path, key),
                        f"has no effect with {protocol}; use it with {others}",
                    )
                del values[key]
        if len(self.mistakes) > before:
            return None
        try:
            settings = Settings(**values)
            make_protocol(settings)
        except SettingsError as err:
            self._wrong((*path, err.field), err.message)
            return None
        self._check_certificates(path, settings)
        return settings

    def _check_certificates(self, path: KeyPath, settings: Settings) -> None:
        certificates: list[tuple[KeyPath, TlsUpstream | TlsListener | None]] = [
            (("tls",), settings.tls),
            *(
                (("more_listeners", position, "tls"), listener.tls)
                for position, listener in enumerate(settings.more_listeners)
            ),
        ]
        for keys, tls in certificates:
            try:
                if tls is not None:
                    tls.context()
            except TlsError as err:
                self._wrong((*path, *keys), str(err))

    def _add_implied(
        self, path: KeyPath, own: dict[str, Any], values: dict[str, Any]
    ) -> None:
        """Add what follows from the way to the device; check that there is one."""
        ways = [key for key in WAYS if key in own]
        if len(ways) != 1:
            rule = f"give one of {', '.join(WAYS)}"
            self._wrong(path, f"{rule}, not {' and '.join(ways) or 'none'}")
        if "serial" in own:
            # [defaults] are about other devices, which are not on a serial line.
            values["protocol"] = own.get("protocol", "modbus")
            values["framing"] = own.get("framing", Framing.RTU)
        elif "host" in own and "port" not in values:
            protocol = values.get("protocol", _DEFAULT_PROTOCOL)
            usual = usual_port(protocol, values.get("framing"))
            if usual is None:
                self._wrong(path, f"give the port too; {protocol} has no usual one")
            else:
                values["port"] = usual

    def _check_places(self, devices: Mapping[str, Settings]) -> None:
        """Check that no two devices use the same port, local or serial."""
        taken: list[tuple[str | None, int, str]] = []
        lines: dict[str, str] = {}
        for name, settings in devices.items():
            for key, host, port in places(settings):
                for other_host, other, owner in taken:
                    if port == other != 0 and _overlap(host, other_host):
                        place = format_address(host or "", port)
                        self._wrong(
                            (DEVICES, name, *key),
                            f"{place} is taken by [{DEVICES}.{toml_key(owner)}]",
                        )
                        break
                taken.append((host, port, name))
            if settings.serial is not None:
                owner = lines.setdefault(settings.serial.device, name)
                if owner != name:
                    self._wrong(
                        (DEVICES, name, "serial", "device"),
                        f"is taken by [{DEVICES}.{toml_key(owner)}]",
                    )


_ANY = (None, "0.0.0.0", "::", "*")  # noqa: S104 - it is compared, not bound


def _overlap(host: str | None, other: str | None) -> bool:
    """Return whether two local addresses, None for all, cannot share a port."""
    return host == other or host in _ANY or other in _ANY


def _merged(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a device: its own, its profile's, and the defaults."""
    values: dict[str, Any] = {}
    for layer in (defaults, own):
        if PROFILE in layer:
            profile = PROFILES[layer[PROFILE]]
            if own.get("protocol", profile.protocol) == profile.protocol:
                values |= {"protocol": profile.protocol, **profile.settings}
        values |= layer
    values.pop(PROFILE, None)
    return values
