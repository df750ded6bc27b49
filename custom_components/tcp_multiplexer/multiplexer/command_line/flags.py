"""The flags of `tcp-multiplexer server`, generated from the rows of `Settings`.

A flag that is not given is absent from the parsed arguments, so defaults stay in
`Settings`. `GO_DEFAULTS` lists only those defaults that differ in the Go program whose
flags these are. A flag is named after its field, and its value is parsed by the field's
type; only addresses, listeners, TLS and the names in `_NAMES` are special.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import dataclasses
import enum
import os
import sys
from typing import Any, NoReturn, override

from ..checks import chosen
from ..networks import Network
from ..profiles import PROFILES
from ..protocols import PROTOCOLS, protocols_with
from ..protocols.options import Framing
from ..settings import (
    ROWS,
    DialIn,
    ListenerSettings,
    Row,
    Section,
    SerialLine,
    Settings,
    SettingsError,
    WriteAction,
    WriteRule,
)
from ..tls import TlsListener, TlsUpstream
from .values import (
    duration,
    file_text,
    hex_bytes,
    listen_address,
    networks,
    numbers,
    target,
    unit_pairs,
    usual_port,
    write_rule,
)

GO_DEFAULTS: dict[str, Any] = {
    "protocol": "echo",
    "host": "127.0.0.1",
    "port": 1234,
    "listen_port": 8000,
    "timeout": 60.0,
}
"""Defaults of the Go program that differ from those of `Settings`."""

# ---- the flags -------------------------------------------------------------------


def _columns() -> int:
    """Return how wide the terminal is, as `shutil` does.

    To import that would take a twentieth of a start.
    """
    columns = 0
    with contextlib.suppress(KeyError, ValueError):
        columns = int(os.environ["COLUMNS"])
    if columns <= 0:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            terminal = os.get_terminal_size(sys.__stdout__.fileno())  # type: ignore[union-attr]
            columns = terminal.columns
    return columns if columns > 0 else 80


class _Formatter(argparse.HelpFormatter):
    """Writes the help, as wide as the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports invalid usage in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Formatter, allow_abbrev=False)
        self.suggest_on_error = True  # from Python 3.14 on

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(Settings)
} | GO_DEFAULTS


class _Once(argparse.Action):
    """Stores a value, and refuses a second one, which would silently win."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self.dest in namespace:
            message = "is given twice; the command run shares several devices"
            raise argparse.ArgumentError(self, message)
        setattr(namespace, self.dest, values)


class _Group:
    """Flags under a heading; the help of each ends with its default."""

    def __init__(
        self, parser: argparse.ArgumentParser, title: str, text: str | None = None
    ) -> None:
        self._group = parser.add_argument_group(title, text)

    def add(self, *flags: str, help: str, **options: Any) -> None:  # noqa: A002
        action = self._group.add_argument(
            *flags, default=argparse.SUPPRESS, help=help, **options
        )
        default = _DEFAULTS.get(action.dest)
        if isinstance(default, bool):
            action.help = f"{help} (default: {'on' if default else 'off'})"
        elif isinstance(default, float):
            action.help = f"{help} (default {default:g})"
        elif isinstance(default, (int, str)):
            action.help = f"{help} (default {default})"


_LISTEN_FLAG: dict[str, Any] = {"type": listen_address, "metavar": "[HOST:]PORT"}
_FILE_FLAG: dict[str, Any] = {"type": file_text, "metavar": "FILE"}

_FLAGS_BY_TYPE: dict[Any, dict[str, Any]] = {
    bool: {"action": argparse.BooleanOptionalAction},
    bytes: {"type": hex_bytes, "metavar": "HEX"},
    float: {"type": duration, "metavar": "DURATION"},
    int: {"type": int, "metavar": "N"},
    str: {"metavar": "REQUEST"},
    tuple[Network, ...]: {"type": networks, "metavar": "NETWORK,..."},
    tuple[WriteRule, ...]: {
        "type": write_rule,
        "action": "append",
        "metavar": "RULE",
    },
    tuple[int, ...]: {"type": numbers, "metavar": "N,..."},
    tuple[tuple[int, int], ...]: {"type": unit_pairs, "metavar": "CLIENT:DEVICE,..."},
}
"""How to parse a setting of each type; a choice is given by its name."""

_NAMES: dict[str, tuple[str, ...]] = {
    "connect_delay": ("--delay", "--connect-delay"),
    "quiet": ("--quiet-time",),
    "write_rules": ("--write-rule",),
}
"""Flags that are not named after their fields."""

_HEADINGS = {
    Section.CONNECTION: "connection to the device",
    Section.RECOVERY: "health and reconnecting",
    Section.POOL: "pool and queue",
    Section.MODBUS: "Modbus",
    Section.ACCESS: "access",
    Section.RECORD: "trace",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag to `parser` for everything that can be set."""
    _add_addresses(parser)
    groups = {section: _Group(parser, _HEADINGS[section]) for section in Section}
    groups[Section.MODBUS].add(
        "--profile",
        choices=PROFILES,
        metavar="NAME",
        help="settings known to work with a device, unless other flags override them; "
        f"implies -p modbus; the list command describes them: {', '.join(PROFILES)}",
    )
    for field in dataclasses.fields(Settings):
        row = ROWS.get(field.name)
        if row is not None and row.section is not None:
            _add_setting(groups[row.section], field, row)
    _add_short_rules(groups[Section.MODBUS])
    _add_tls(parser)
    add_program_flags(parser)


def add_program_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that are about the program, not about a device."""
    group = _Group(parser, "logging and monitoring")
    group.add(
        *("-v", "--verbose"),
        action="store_true",
        help="log connections and changes of health",
    )
    group.add(*("-d", "--debug"), action="store_true", help="log every exchange too")
    group.add(
        "--metrics",
        **_LISTEN_FLAG,
        help="where Prometheus reads /metrics, and others /health, by HTTP; only "
        "loopback and private networks may",
    )


def _add_setting(group: _Group, field: dataclasses.Field[Any], row: Row) -> None:
    """Add the flag of a setting, from its row and its type."""
    if isinstance(field.default, enum.StrEnum):
        options: dict[str, Any] = {"metavar": "|".join(type(field.default))}
    else:
        options = _FLAGS_BY_TYPE[field.type]
    if row.unit == "B":
        options = {**options, "metavar": "BYTES"}
    names = _NAMES.get(field.name) or (_flag(field.name),)
    group.add(*names, dest=field.name, help=row.help, **options)


_SHORT_RULES = ("write_networks", "write_policy")
"""Flags that stand for rules for writes, behind all others."""


def _add_short_rules(group: _Group) -> None:
    group.add(
        "--write-networks",
        type=networks,
        metavar="NETWORK,...",
        help="the same as --write-rule 'allow NETWORK,...', before --write-policy",
    )
    group.add(
        "--write-policy",
        metavar="|".join(WriteAction),
        help="the same as --write-rule with this action alone, behind all other rules "
        "(default allow)",
    )


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    group = _Group(
        parser,
        "what to share, and where",
        "DURATION, here and below, is a number of seconds, or in Go's notation: 500ms, "
        "1s, 1m30s. Zero turns the feature off.",
    )
    group.add(
        *("-p", "--protocol", "--applicationProtocol"),
        metavar="NAME",
        help=f"the application protocol: {', '.join(PROTOCOLS)}",
    )
    group.add(
        *("-t", "--target", "--targetServer"),
        action=_Once,
        type=target,
        metavar="HOST:PORT",
        help="the device; or its serial port, with Modbus RTU, as serial:PORT"
        "?baudrate=9600&parity=none&stopbits=1, where PORT is a path or a URL of the "
        "library serialx; or dial-in:[HOST:]PORT?from=ADDRESS, the local port to which "
        "the device connects by itself (default 127.0.0.1:1234)",
    )
    group.add(
        "--logger-serial",
        type=int,
        metavar="N",
        help="the serial number of a logger stick; 0: ask for it by a broadcast",
    )
    group.add(
        *("-l", "--listen"),
        action=_Once,
        **_LISTEN_FLAG,
        help="where clients connect (default 8000, on all addresses)",
    )
    group.add(
        "--also-listen",
        action="append",
        **_LISTEN_FLAG,
        help="an additional address where clients connect; may be repeated",
    )
    group.add(
        "--also-listen-rtu",
        action="append",
        **_LISTEN_FLAG,
        help="the same for clients that use Modbus RTU over TCP",
    )
    group.add(
        "--also-listen-solarman",
        action="append",
        **_LISTEN_FLAG,
        help="the same for clients that only speak Solarman V5",
    )
    group.add(
        "--also-listen-tls",
        action="append",
        **_LISTEN_FLAG,
        help="the same for clients that use TLS",
    )


def _add_tls(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "TLS", "Certificates and keys are PEM files.")
    group.add("--tls", action="store_true", help="use TLS with the device")
    group.add(
        "--tls-verify",
        action=argparse.BooleanOptionalAction,
        help="verify the device's certificate (default: on)",
    )
    group.add(
        "--tls-ca",
        **_FILE_FLAG,
        help="CA certificates to verify the device with (default: the system's)",
    )
    group.add(
        "--tls-server-name",
        metavar="NAME",
        help="the name expected in the device's certificate (default: the target's)",
    )
    group.add(
        "--tls-certificate",
        **_FILE_FLAG,
        help="our certificate, for a device that requires one",
    )
    group.add("--tls-key", **_FILE_FLAG, help="its key")
    group.add(
        "--listen-tls-certificate",
        **_FILE_FLAG,
        help="our certificate for --also-listen-tls",
    )
    group.add("--listen-tls-key", **_FILE_FLAG, help="its key")
    group.add(
        "--listen-tls-client-ca",
        **_FILE_FLAG,
        help="CA certificates to verify clients with (default: they need none)",
    )


# ---- what was given --------------------------------------------------------------


_FLAGS_BY_FIELD = {
    "protocol": "-p",
    "host": "-t",
    "port": "-t",
    "serial": "-t",
    "dial_in": "-t",
    "listen_host": "-l",
    "listen_port": "-l",
    "more_listeners": "--also-listen",
}


def flag_of(field: str) -> str:
    """Return the flag that sets a field of `Settings`."""
    if field in _NAMES:
        return _NAMES[field][0]
    return _FLAGS_BY_FIELD.get(field) or _flag(field)


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def make_settings(given: argparse.Namespace) -> Settings:
    """Return the settings for the flags given.

    Raises:
        ValueError: flags are incompatible, or a value is out of its bounds; the text
            begins with the flag.

    """
    implied = _implied_by_target(given)
    values = GO_DEFAULTS | implied | vars(given)
    if "profile" in given:
        profile = PROFILES[given.profile]
        advised = {"protocol": profile.protocol, **profile.settings}
        values = GO_DEFAULTS | advised | implied | vars(given)
        if values["protocol"] != profile.protocol:
            raise ValueError(f"--profile is only for -p {profile.protocol}")
    for name in ("command", "profile", "verbose", "debug", "metrics"):
        values.pop(name, None)
    _check_meaning(given, values["protocol"])
    _set_target(values)
    if "listen" in values:
        values["listen_host"], values["listen_port"] = values.pop("listen")
    values["tls"] = _tls_upstream(values)
    values["more_listeners"] = _more_listeners(values)
    try:
        values["write_rules"] = _write_rules(values)
        return Settings(**values)
    except SettingsError as err:
        message = f"{flag_of(err.field)}: {err.message}"
        raise ValueError(message) from err


def _implied_by_target(given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that follow from the kind of target."""
    if isinstance(vars(given).get("target"), SerialLine):
        return {"protocol": "modbus", "framing": Framing.RTU}
    return {}


def _set_target(values: dict[str, Any]) -> None:
    """Replace the target that was given by the settings that it stands for."""
    target = values.pop("target", None)
    if isinstance(target, SerialLine):
        del values["host"], values["port"]
        values["serial"] = target
    elif isinstance(target, DialIn):
        del values["host"], values["port"]
        values["dial_in"] = target
    elif target is not None:
        host, port = target
        protocol, framing = values["protocol"], values.get("framing")
        port = usual_port(protocol, framing) if port is None else port
        if port is None:
            raise ValueError(f"-t: give the port too; {protocol} has no usual one")
        values["host"], values["port"] = host, port


def _check_meaning(given: argparse.Namespace, protocol: str) -> None:
    """Check that no flag is without effect.

    Raises:
        ValueError: the protocol does not use a flag; the text begins with it.

    """
    for field in vars(given):
        named = "write_rules" if field in _SHORT_RULES else field
        if protocol not in PROTOCOLS or named in PROTOCOLS[protocol].settings:
            continue  # (To ask about all would import all.)
        protocols = protocols_with(named)
        if protocol not in protocols:
            others = ", ".join(protocols)
            message = f"has no effect with {protocol}; use it with {others}"
            raise ValueError(f"{flag_of(field)}: {message}")


def _take(values: dict[str, Any], prefix: str, names: Sequence[str]) -> dict[str, Any]:
    """Remove the values named `prefix` plus one of `names`; return them by name."""
    return {
        name: values.pop(prefix + name) for name in names if prefix + name in values
    }


def _write_rules(values: dict[str, Any]) -> tuple[WriteRule, ...]:
    """Return the rules for writes, with those that the short forms stand for.

    Raises:
        SettingsError: there is no such policy.

    """
    rules: list[WriteRule] = values.pop("write_rules", [])
    if allowed := values.pop("write_networks", ()):
        rules = [*rules, WriteRule(action=WriteAction.ALLOW, networks=allowed)]
    if policy := values.pop("write_policy", ""):
        action = chosen("write_policy", WriteAction, policy)
        rules = [*rules, WriteRule(action=action)]
    return tuple(rules)


def _tls_upstream(values: dict[str, Any]) -> TlsUpstream | None:
    names = ("verify", "ca", "server_name", "certificate", "key")
    given = _take(values, "tls_", names)
    if values.get("tls"):
        return TlsUpstream(**given)
    if given:
        message = f"--tls-{next(iter(given)).replace('_', '-')} needs --tls"
        raise ValueError(message)
    return None


_LISTEN_FLAGS = {
    Framing.TCP: "also_listen",
    Framing.RTU: "also_listen_rtu",
    Framing.SOLARMAN: "also_listen_solarman",
}


def _more_listeners(values: dict[str, Any]) -> tuple[ListenerSettings, ...]:
    tls = _take(values, "listen_tls_", ("certificate", "key", "client_ca"))
    secure = values.pop("also_listen_tls", ())
    if secure and "certificate" not in tls:
        raise ValueError("--also-listen-tls needs --listen-tls-certificate")
    if tls and not secure:
        raise ValueError("--listen-tls-... needs --also-listen-tls")
    return (
        *(
            ListenerSettings(host=host, port=port, framing=framing)
            for framing in Framing
            for host, port in values.pop(_LISTEN_FLAGS[framing], ())
        ),
        *(
            ListenerSettings(host=host, port=port, tls=TlsListener(**tls))
            for host, port in secure
        ),
    )
