"""Parsers for the values of flags: durations, addresses, lists and files.

Each raises `argparse.ArgumentTypeError` for a text that it cannot parse, and says what
to write instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
import re
from typing import Any

from ..networks import Network
from ..protocols import PROTOCOLS
from ..protocols.options import Framing
from ..settings import DialIn, SerialLine, SettingsError, WriteRule
from ..typed import numbers_from, pairs_from, place_in, range_from

_SERIAL = "serial:"
_DIAL_IN = "dial-in:"
_RULE_EXAMPLE = (
    "write allow, deny or acknowledge, then what it is about: networks, unit=1,2, "
    "function=6,16, registers=100-200"
)
_LINE_EXAMPLE = "write serial:/dev/ttyUSB0?baudrate=9600&parity=even&stopbits=1"

_LOGGER_PORT = 8899
"""Where logger sticks with Solarman V5 listen."""

type _Address = tuple[str | None, int]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_DURATION = re.compile(rf"(?:(?:{_NUMBER})(?:ns|us|µs|ms|s|m|h))+", re.ASCII)
_DURATION_PART = re.compile(rf"({_NUMBER})(ns|us|µs|ms|s|m|h)", re.ASCII)


def duration(text: str) -> float:
    """Return seconds from `5`, `0.5`, or Go's notation: `500ms`, `1m30s`."""
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return float(text)
    if _DURATION.fullmatch(text):
        parts = _DURATION_PART.findall(text)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    message = f"{text!r} is not a duration; write 5, 500ms, 1s or 1m30s"
    raise argparse.ArgumentTypeError(message)


def _split(text: str) -> tuple[str, str]:
    """Split `host:port`; the brackets around an IPv6 address are removed."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if ":" in host or "[" in host or "]" in host:
        message = f"put brackets around the IPv6 address of {text!r}: [::1]:502"
        raise argparse.ArgumentTypeError(message)
    return host, port


def _port(text: str, whole: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or int(text) > 65535:
        message = f"{whole!r} has no port from 0 to 65535"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def target(text: str) -> tuple[str, int | None] | SerialLine | DialIn:
    """Return host and port from `host:port`, or what `serial:…` or `dial-in:…` says.

    A pasted URL is understood too; it may be without a port (None).
    """
    if text.startswith(_SERIAL):
        return _serial_line(text.removeprefix(_SERIAL))
    if text.startswith(_DIAL_IN):
        return _dial_in(text.removeprefix(_DIAL_IN))
    place = place_in(text)
    if place != text and re.fullmatch(r"[^:\[\]]+|\[.+\]", place):
        return place.strip("[]"), None
    host, port = _split(place)
    if not host or not port:
        message = f"{text!r} is not host:port; write 192.168.1.22:502 or [fd00::22]:502"
        raise argparse.ArgumentTypeError(message)
    return host, _port(port, text)


def usual_port(protocol: str, framing: str | None) -> int | None:
    """Return the port of a device that is given without one; None: there is no usual.

    Logger sticks have one of their own.
    """
    if framing == Framing.SOLARMAN:
        return _LOGGER_PORT
    return PROTOCOLS[protocol].usual_port


def _serial_line(text: str) -> SerialLine:
    """Return a line from its port and a query; what is not ours stays in a URL."""
    port, _, query = text.partition("?")
    given: dict[str, Any] = {}
    others = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in {"baudrate", "stopbits"}:
            given[name] = int(value) if value.isdecimal() else 0
        elif name == "parity":
            given[name] = value
        else:
            others.append(part)
    if others and "://" not in port:
        message = f"{others[0]!r} is not a setting of a serial line; {_LINE_EXAMPLE}"
        raise argparse.ArgumentTypeError(message)
    device = "?".join(filter(None, (port, "&".join(others))))
    try:
        return SerialLine(device=device, **given)
    except SettingsError as err:
        message = f"{err.message}; {_LINE_EXAMPLE}"
        raise argparse.ArgumentTypeError(message) from err


def _dial_in(text: str) -> DialIn:
    """Return where a device dials in from a local port and the device's address."""
    where, _, device = text.partition("?from=")
    host, port = listen_address(where)
    try:
        return DialIn(host=host, port=port, device=device)
    except SettingsError as err:
        message = f"{err.message}; write dial-in:5502?from=192.168.1.22"
        raise argparse.ArgumentTypeError(message) from err


def listen_address(text: str) -> _Address:
    """Return host and port from a port or `host:port`; None: all local addresses."""
    host, port = _split(text)
    return host or None, _port(port, text)


def networks(text: str) -> tuple[Network, ...]:
    """Return networks from networks or addresses, separated by commas."""
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))
    except ValueError as err:
        message = f"{err}; write 192.168.1.0/24,fd00::/8"
        raise argparse.ArgumentTypeError(message) from err


def numbers(text: str) -> tuple[int, ...]:
    """Return numbers and ranges from text, separated by commas."""
    try:
        return tuple(numbers_from(text))
    except ValueError as err:
        message = f"{text!r} is not a list of numbers; write 3,4 or 3-6"
        raise argparse.ArgumentTypeError(message) from err


def unit_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """Return pairs from `client unit:device unit`, separated by commas."""
    try:
        return tuple(pairs_from(text))
    except ValueError as err:
        message = f"{text!r} maps no units; write 1:11,2:12"
        raise argparse.ArgumentTypeError(message) from err


def write_rule(text: str) -> WriteRule:
    """Return a rule from an action, networks, and conditions such as `unit=1`."""
    action, *others = text.split() or [""]
    given: dict[str, Any] = {"action": action}
    for word in others:
        name, separator, value = word.partition("=")
        try:
            if separator:
                field, parse = _CONDITIONS[name.removesuffix("s")]
                given[field] = (*given.get(field, ()), *parse(value))
            else:
                given["networks"] = (*given.get("networks", ()), *networks(word))
        except (KeyError, ValueError, argparse.ArgumentTypeError) as err:
            message = f"{word!r} is no condition; {_RULE_EXAMPLE}"
            raise argparse.ArgumentTypeError(message) from err
    try:
        return WriteRule(**given)
    except SettingsError as err:
        message = f"{text!r}: {err.message}; {_RULE_EXAMPLE}"
        raise argparse.ArgumentTypeError(message) from err


_CONDITIONS: dict[str, tuple[str, Callable[[str], tuple[int, ...]]]] = {
    "unit": ("units", numbers),
    "function": ("functions", numbers),
    "register": ("registers", range_from),
}
"""By their names, which may also be in the plural: what they set."""


def hex_bytes(text: str) -> bytes:
    """Return bytes from hexadecimal digits."""
    try:
        return bytes.fromhex(text)
    except ValueError as err:
        message = f"{text!r} is not hexadecimal; write 70696e670a"
        raise argparse.ArgumentTypeError(message) from err


def file_text(text: str) -> str:
    """Return the text of the file at a path."""
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or err
        message = f"{text} cannot be read: {reason}"
        raise argparse.ArgumentTypeError(message) from err
