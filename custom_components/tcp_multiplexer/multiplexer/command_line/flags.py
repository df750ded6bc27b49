"""The flags of `tcp-multiplexer server`, and what may stand behind them.

A flag that is not given leaves no trace in what is parsed, so that the defaults stay
where they belong: in `Settings`. Only where the Go program that had this command line
before knew another one does `GO_DEFAULTS` name it. A flag sets the field of `Settings`
that it is called after, but for those in `_FLAGS`, and for TLS and more listeners,
where several make up one field.
"""

import argparse
from collections.abc import Sequence
import dataclasses
from ipaddress import ip_network
from pathlib import Path
import re
from typing import Any, NoReturn, override

from ..networks import Network
from ..profiles import PROFILES
from ..protocols import PROTOCOLS
from ..settings import ListenerSettings, Settings, SettingsError
from ..tls import TlsListener, TlsUpstream

GO_DEFAULTS: dict[str, Any] = {
    "protocol": "echo",
    "host": "127.0.0.1",
    "port": 1234,
    "listen_port": 8000,
    "timeout": 60.0,
}

type _Address = tuple[str | None, int]

# ---- what may stand behind a flag ------------------------------------------------

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_DURATION = re.compile(rf"(?:(?:{_NUMBER})(?:ns|us|µs|ms|s|m|h))+", re.ASCII)
_DURATION_PART = re.compile(rf"({_NUMBER})(ns|us|µs|ms|s|m|h)", re.ASCII)


def duration(text: str) -> float:
    """Read seconds from `5`, `0.5` or what Go writes: `500ms`, `1m30s`."""
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return float(text)
    if _DURATION.fullmatch(text):
        parts = _DURATION_PART.findall(text)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    message = f"{text!r} is no duration; write 5, 500ms, 1s or 1m30s"
    raise argparse.ArgumentTypeError(message)


def _split(text: str) -> tuple[str, str]:
    """Part `host:port`; brackets go round an IPv6 address and are removed."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if ":" in host or "[" in host or "]" in host:
        message = f"put brackets round the IPv6 address of {text!r}: [::1]:502"
        raise argparse.ArgumentTypeError(message)
    return host, port


def _port(text: str, whole: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or int(text) > 65535:
        message = f"{whole!r} has no port from 0 to 65535"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def target(text: str) -> _Address:
    """Read `host:port`."""
    host, port = _split(text)
    if not host or not port:
        message = f"{text!r} is no host:port; write 192.168.1.22:502 or [fd00::22]:502"
        raise argparse.ArgumentTypeError(message)
    return host, _port(port, text)


def listen_address(text: str) -> _Address:
    """Read a port, or `host:port`; no host: all addresses of this machine."""
    host, port = _split(text)
    return host or None, _port(port, text)


def networks(text: str) -> tuple[Network, ...]:
    """Read networks or addresses, separated by commas."""
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))
    except ValueError as err:
        message = f"{err}; write 192.168.1.0/24,fd00::/8"
        raise argparse.ArgumentTypeError(message) from err


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(int(part, 0) for part in text.split(","))
    except ValueError as err:
        message = f"{text!r} is no list of numbers; write 3,4"
        raise argparse.ArgumentTypeError(message) from err


def unit_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """Read `client unit:device unit`, separated by commas."""
    pairs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+):(\d+)\s*", part, re.ASCII)
        if match is None:
            message = f"{text!r} maps no units; write 1:11,2:12"
            raise argparse.ArgumentTypeError(message)
        pairs.append((int(match[1]), int(match[2])))
    return tuple(pairs)


def hex_bytes(text: str) -> bytes:
    """Read bytes as hexadecimal digits."""
    try:
        return bytes.fromhex(text)
    except ValueError as err:
        message = f"{text!r} is no row of hexadecimal digits; write 70696e670a"
        raise argparse.ArgumentTypeError(message) from err


def file_text(text: str) -> str:
    """Read the text of a file."""
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or err
        message = f"{text} cannot be read: {reason}"
        raise argparse.ArgumentTypeError(message) from err


# ---- the flags -------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Tells of bad usage in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False, suggest_on_error=True)

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(Settings)
} | GO_DEFAULTS


class _Group:
    """Flags under a heading; each tells its default."""

    def __init__(
        self, parser: argparse.ArgumentParser, title: str, text: str | None = None
    ) -> None:
        self._group = parser.add_argument_group(title, text)

    def add(self, *flags: str, help: str, **options: Any) -> None:  # noqa: A002
        action = self._group.add_argument(
            *flags, default=argparse.SUPPRESS, help=help, **options
        )
        default = _DEFAULTS.get(action.dest)
        if type(default) in (int, float, str):
            text = f"{default:g}" if type(default) is float else default
            action.help = f"{help} (default {text})"


_DURATION_FLAG: dict[str, Any] = {"type": duration, "metavar": "DURATION"}
_COUNT_FLAG: dict[str, Any] = {"type": int, "metavar": "N"}
_FILE_FLAG: dict[str, Any] = {"type": file_text, "metavar": "FILE"}
_NETWORKS_FLAG: dict[str, Any] = {"type": networks, "metavar": "NETWORK,..."}
_LISTEN_FLAG: dict[str, Any] = {"type": listen_address, "metavar": "[HOST:]PORT"}
_SWITCH_FLAG: dict[str, Any] = {"action": argparse.BooleanOptionalAction}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` a flag for everything that can be set."""
    _add_places(parser)
    _add_times(parser)
    _add_upstream(parser)
    _add_clients(parser)
    _add_modbus(parser)
    _add_tls(parser)
    group = _Group(parser, "log")
    group.add(
        *("-v", "--verbose"),
        action="store_true",
        help="log connections and changes of health",
    )
    group.add(*("-d", "--debug"), action="store_true", help="log every exchange too")


def _add_places(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "what to share, and where")
    group.add(
        *("-p", "--protocol", "--applicationProtocol"),
        metavar="NAME",
        help=f"the application protocol: {', '.join(PROTOCOLS)}",
    )
    group.add(
        *("-t", "--target", "--targetServer"),
        type=target,
        metavar="HOST:PORT",
        help="the device (default 127.0.0.1:1234)",
    )
    group.add(
        *("-l", "--listen"),
        **_LISTEN_FLAG,
        help="where clients connect (default 8000, on all addresses)",
    )
    group.add(
        "--also-listen",
        action="append",
        **_LISTEN_FLAG,
        help="one more place where clients connect; may be repeated",
    )
    group.add(
        "--also-listen-rtu",
        action="append",
        **_LISTEN_FLAG,
        help="the same for clients that speak Modbus RTU over TCP",
    )
    group.add(
        "--also-listen-tls",
        action="append",
        **_LISTEN_FLAG,
        help="the same for clients that speak TLS",
    )


def _add_times(parser: argparse.ArgumentParser) -> None:
    group = _Group(
        parser,
        "times",
        "DURATION is a number of seconds, or what Go writes: 500ms, 1s, 1m30s. Zero "
        "turns off what it belongs to.",
    )
    group.add(
        "--timeout",
        **_DURATION_FLAG,
        help="from a request to its response, waiting included",
    )
    group.add(
        *("--delay", "--connect-delay"),
        dest="connect_delay",
        **_DURATION_FLAG,
        help="wait after connecting to the device before the first request",
    )
    group.add(
        "--request-delay",
        **_DURATION_FLAG,
        help="wait between one exchange with the device and the next",
    )
    group.add(
        "--idle-timeout",
        **_DURATION_FLAG,
        help="disconnect from a device that had no request for so long",
    )
    group.add(
        "--max-lifetime",
        **_DURATION_FLAG,
        help="renew a connection to the device of this age",
    )
    group.add(
        "--reconnect-backoff",
        **_DURATION_FLAG,
        help="first wait between attempts to connect; grows while they fail",
    )
    group.add("--reconnect-backoff-max", **_DURATION_FLAG, help="longest such wait")
    group.add(
        "--health-check-interval",
        **_DURATION_FLAG,
        help="probe a connected device that was silent for so long",
    )


def _add_upstream(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "connections to the device")
    group.add("--max-connections", **_COUNT_FLAG, help="most connections at a time")
    group.add(
        "--max-in-flight",
        **_COUNT_FLAG,
        help="Modbus: most requests under way at a time on one connection",
    )
    group.add(
        "--connect-on-demand",
        **_SWITCH_FLAG,
        help="connect with the first request, not at once (default: off)",
    )
    group.add(
        "--probe",
        type=hex_bytes,
        metavar="HEX",
        help="iso8583, mpu, echo: a whole message to probe the device with, in "
        "hexadecimal (default: no probing)",
    )
    group.add(
        "--max-body", type=int, metavar="BYTES", help="HTTP: longest body, either way"
    )


def _add_clients(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "clients")
    group.add(
        "--allowed-networks",
        **_NETWORKS_FLAG,
        help="who may connect (default: loopback, private, link-local and unique "
        "local addresses)",
    )
    group.add("--max-clients", **_COUNT_FLAG, help="most clients at a time")
    group.add(
        "--queue-size", **_COUNT_FLAG, help="most requests that wait, over all clients"
    )
    group.add("--trace-size", **_COUNT_FLAG, help="exchanges to remember")


def _add_modbus(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "Modbus")
    group.add(
        "--profile",
        choices=PROFILES,
        metavar="NAME",
        help="what is known to work with a kind of device, where no other flag says "
        f"otherwise; implies -p modbus: {', '.join(PROFILES)}",
    )
    group.add(
        "--framing",
        metavar="tcp|rtu",
        help="how the device frames; rtu is RTU over TCP",
    )
    group.add(
        "--matching",
        metavar="strict|lenient",
        help="lenient serves devices that do not echo the transaction identifier",
    )
    group.add(
        "--quiet-time",
        dest="quiet",
        **_DURATION_FLAG,
        help="silence after a timeout, where nothing tells a late response from the "
        "next one's: rtu and lenient",
    )
    group.add(
        "--unit-id", **_COUNT_FLAG, help="the unit to probe until a client asked one"
    )
    group.add(
        "--unit-map",
        type=unit_pairs,
        metavar="CLIENT:DEVICE,...",
        help="units that the device knows by other numbers (default: none)",
    )
    group.add(
        "--allowed-units",
        type=numbers,
        metavar="N,...",
        help="units of the device that may be asked (default: all)",
    )
    group.add(
        "--allowed-functions",
        type=numbers,
        metavar="N,...",
        help="function codes that may pass (default: all)",
    )
    group.add(
        "--max-read-registers",
        **_COUNT_FLAG,
        help="refuse longer reads of registers without asking the device",
    )
    group.add(
        "--write-policy",
        metavar="allow|deny|acknowledge",
        help="what becomes of writes; acknowledge answers them unsent",
    )
    group.add(
        "--write-networks",
        **_NETWORKS_FLAG,
        help="clients that may write whatever the policy (default: none)",
    )
    group.add(
        "--writes-first",
        **_SWITCH_FLAG,
        help="serve writes before reads, within bounds (default: on)",
    )
    group.add(
        "--share-reads",
        **_SWITCH_FLAG,
        help="answer identical reads with one response (default: on)",
    )
    group.add(
        "--cache-ttl",
        **_DURATION_FLAG,
        help="answer a read with a response not older than this",
    )
    group.add(
        "--on-failure",
        metavar="exception|close",
        help="what a client gets when its request has no response",
    )


def _add_tls(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "TLS", "Certificates and keys are PEM files.")
    group.add("--tls", action="store_true", help="speak TLS with the device")
    group.add(
        "--tls-verify",
        **_SWITCH_FLAG,
        help="check the device's certificate (default: on)",
    )
    group.add(
        "--tls-ca",
        **_FILE_FLAG,
        help="certificates of who vouches for the device (default: the system's)",
    )
    group.add(
        "--tls-server-name",
        metavar="NAME",
        help="the name in the device's certificate (default: the target's)",
    )
    group.add(
        "--tls-certificate",
        **_FILE_FLAG,
        help="our certificate, for a device that asks for one",
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
        help="certificates of who vouches for clients (default: they need none)",
    )


# ---- what was given --------------------------------------------------------------


_FLAGS = {
    "protocol": "-p",
    "host": "-t",
    "port": "-t",
    "listen_host": "-l",
    "listen_port": "-l",
    "more_listeners": "--also-listen",
    "connect_delay": "--delay",
    "quiet": "--quiet-time",
}

_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "probe": ("iso8583", "mpu", "echo"),
    "max_body": ("http",),
    **dict.fromkeys(
        (
            "framing",
            "matching",
            "quiet",
            "unit_id",
            "unit_map",
            "allowed_units",
            "allowed_functions",
            "max_read_registers",
            "write_policy",
            "write_networks",
            "writes_first",
            "share_reads",
            "cache_ttl",
            "on_failure",
        ),
        ("modbus",),
    ),
}
"""Fields that mean something to some protocols only."""


def flag_of(field: str) -> str:
    """Name the flag that sets a field of `Settings`."""
    return _FLAGS.get(field, f"--{field.replace('_', '-')}")


def make_settings(given: argparse.Namespace) -> Settings:
    """Make the settings that the flags ask for.

    Raises:
        ValueError: flags that do not go together, or a value out of its bounds; the
            text begins with the flag.

    """
    values = GO_DEFAULTS | vars(given)
    if "profile" in given:
        profile = {"protocol": "modbus", **PROFILES[given.profile].settings}
        values = GO_DEFAULTS | profile | vars(given)
        if values["protocol"] != "modbus":
            raise ValueError("--profile is for -p modbus alone")
    for name in ("command", "profile", "verbose", "debug"):
        values.pop(name, None)
    _check_meaning(given, values["protocol"])
    if "target" in values:
        values["host"], values["port"] = values.pop("target")
    if "listen" in values:
        values["listen_host"], values["listen_port"] = values.pop("listen")
    values["tls"] = _tls_upstream(values)
    values["more_listeners"] = _more_listeners(values)
    try:
        return Settings(**values)
    except SettingsError as err:
        message = f"{flag_of(err.field)}: {err.message}"
        raise ValueError(message) from err


def _check_meaning(given: argparse.Namespace, protocol: str) -> None:
    """Refuse flags that would do nothing.

    Raises:
        ValueError: a flag means nothing to the protocol; the text begins with it.

    """
    for field, protocols in _ONLY_FOR.items():
        if field in given and protocol in PROTOCOLS and protocol not in protocols:
            message = f"means nothing to {protocol}; use it with {', '.join(protocols)}"
            raise ValueError(f"{flag_of(field)}: {message}")


def _take(values: dict[str, Any], prefix: str, names: Sequence[str]) -> dict[str, Any]:
    """Remove the values whose names begin with `prefix`, and give them without it."""
    return {
        name: values.pop(prefix + name) for name in names if prefix + name in values
    }


def _tls_upstream(values: dict[str, Any]) -> TlsUpstream | None:
    names = ("verify", "ca", "server_name", "certificate", "key")
    given = _take(values, "tls_", names)
    if values.get("tls"):
        return TlsUpstream(**given)
    if given:
        message = f"--tls-{next(iter(given)).replace('_', '-')} needs --tls"
        raise ValueError(message)
    return None


def _more_listeners(values: dict[str, Any]) -> tuple[ListenerSettings, ...]:
    tls = _take(values, "listen_tls_", ("certificate", "key", "client_ca"))
    plain, rtu, secure = (
        values.pop(f"also_listen{kind}", ()) for kind in ("", "_rtu", "_tls")
    )
    if secure and "certificate" not in tls:
        raise ValueError("--also-listen-tls needs --listen-tls-certificate")
    if tls and not secure:
        raise ValueError("--listen-tls-... needs --also-listen-tls")
    return (
        *(ListenerSettings(host=host, port=port) for host, port in plain),
        *(ListenerSettings(host=host, port=port, framing="rtu") for host, port in rtu),
        *(
            ListenerSettings(host=host, port=port, tls=TlsListener(**tls))
            for host, port in secure
        ),
    )
