"""The values of a configuration file: from what TOML has to what settings hold.

Each reader raises `ValueError` or `argparse.ArgumentTypeError` for a value that it
cannot use. A text is understood as the flag of the same setting understands it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
import enum
from pathlib import Path
from typing import Any

from ..networks import Network
from ..settings import DialIn, ListenerSettings, SerialLine, Settings, WriteRule
from ..tls import TlsListener, TlsUpstream
from .values import (
    duration,
    file_text,
    hex_bytes,
    networks,
    numbers,
    unit_pairs,
    write_rule,
)

type Reader = Callable[[Any, Path], Any]
"""Reads a value; paths in it are relative to the folder."""

_PEM = "-----BEGIN"


class UnreadableError(ValueError):
    """A value cannot be used; `path` says where within it."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


def _is(kind: type, words: str) -> Reader:
    def read(value: Any, _: Path) -> Any:
        if type(value) is not kind:
            raise UnreadableError(f"must be {words}, is {shown(value)}")
        return value

    return read


boolean = _is(bool, "true or false")
whole = _is(int, "a whole number")
text = _is(str, "a text in quotes")


def shown(value: Any) -> str:
    """Return a value as TOML has it, in short."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return repr(value)
        case dict():
            return "a table"
        case list():
            return "an array"
    return str(value)


def _seconds(value: Any, _: Path) -> float:
    if isinstance(value, str):
        return duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        message = f"must be a number of seconds, or '500ms', is {shown(value)}"
        raise UnreadableError(message)
    return float(value)


def _hexadecimal(value: Any, folder: Path) -> bytes:
    return hex_bytes(text(value, folder))


def _pem(value: Any, folder: Path) -> str:
    """Return the text of a PEM file, or the text itself."""
    value = text(value, folder)
    return value if value.startswith(_PEM) else file_text(str(folder / value))


def _parts(value: Any, words: str) -> list[Any]:
    if not isinstance(value, list):
        raise UnreadableError(f"must be an array of {words}, is {shown(value)}")
    return value


def _each(value: list[Any], folder: Path, read: Reader) -> list[Any]:
    """Read every part of an array; a mistake is placed by its position."""
    done = []
    for position, part in enumerate(value):
        with _within(position):
            done.append(read(part, folder))
    return done


class _within:  # noqa: N801 - a context manager that reads like a function
    """Places the mistakes made within a part of a value."""

    def __init__(self, part: str | int) -> None:
        self._part = part

    def __enter__(self) -> None:
        """Begin with the part."""

    def __exit__(self, kind: object, err: BaseException | None, _: object) -> None:
        """Say where it is."""
        if isinstance(err, (ValueError, argparse.ArgumentTypeError)):
            path = getattr(err, "path", ())
            raise UnreadableError(reason(err), (self._part, *path)) from None


def reason(err: Exception) -> str:
    """Return what is wrong, without the field that an error of settings begins with."""
    return str(getattr(err, "message", None) or err)


def _networks(value: Any, folder: Path) -> tuple[Network, ...]:
    if isinstance(value, str):
        return networks(value)

    def one(part: Any, folder: Path) -> tuple[Network, ...]:
        return networks(text(part, folder))

    parts = _each(_parts(value, "networks"), folder, one)
    return tuple(network for found in parts for network in found)


def _numbers(value: Any, folder: Path) -> tuple[int, ...]:
    if isinstance(value, str):
        return numbers(value)

    def one(part: Any, folder: Path) -> tuple[int, ...]:
        return numbers(part) if isinstance(part, str) else (whole(part, folder),)

    parts = _each(_parts(value, "numbers"), folder, one)
    return tuple(number for found in parts for number in found)


def _unit_pairs(value: Any, folder: Path) -> tuple[tuple[int, int], ...]:
    if isinstance(value, str):
        return unit_pairs(value)
    if not isinstance(value, dict):
        raise UnreadableError(
            f"must be a table such as {{ 1 = 11 }}, is {shown(value)}"
        )
    pairs = []
    for unit, device in value.items():
        with _within(unit):
            if not unit.isdecimal():
                raise UnreadableError("is no unit of clients")
            pairs.append((int(unit), whole(device, folder)))
    return tuple(pairs)


def _range(value: Any, folder: Path) -> tuple[int, ...]:
    return tuple(_each(_parts(value, "two numbers"), folder, whole))


def _table(cls: type, readers: Mapping[str, Reader]) -> Reader:
    """Return a reader of a table that makes one of `cls` from its keys."""
    required = [each.name for each in fields(cls) if each.default is MISSING]

    def read(value: Any, folder: Path) -> Any:
        if not isinstance(value, dict):
            raise UnreadableError(f"must be a table, is {shown(value)}")
        given = {}
        for key, part in value.items():
            with _within(key):
                if key not in readers:
                    raise UnreadableError(f"is unknown; there are {', '.join(readers)}")
                given[key] = readers[key](part, folder)
        for key in required:
            if key not in given:
                raise UnreadableError(f"needs {key}")
        return cls(**given)

    return read


def _write_rule(value: Any, folder: Path) -> WriteRule:
    if isinstance(value, str):
        return write_rule(value)
    rule: WriteRule = _WRITE_RULE(value, folder)
    return rule


def _write_rules(value: Any, folder: Path) -> tuple[WriteRule, ...]:
    return tuple(_each(_parts(value, "rules"), folder, _write_rule))


def _listeners(value: Any, folder: Path) -> tuple[ListenerSettings, ...]:
    return tuple(_each(_parts(value, "tables"), folder, _LISTENER))


_WRITE_RULE = _table(
    WriteRule,
    {
        "action": text,
        "networks": _networks,
        "units": _numbers,
        "functions": _numbers,
        "registers": _range,
    },
)
_LISTENER = _table(
    ListenerSettings,
    {
        "host": text,
        "port": whole,
        "framing": text,
        "tls": _table(
            TlsListener, {"certificate": _pem, "key": _pem, "client_ca": _pem}
        ),
    },
)

_READERS_BY_TYPE: dict[Any, Reader] = {
    bool: boolean,
    bytes: _hexadecimal,
    float: _seconds,
    int: whole,
    str: text,
    str | None: text,
    tuple[Network, ...]: _networks,
    tuple[WriteRule, ...]: _write_rules,
    tuple[int, ...]: _numbers,
    tuple[tuple[int, int], ...]: _unit_pairs,
    tuple[ListenerSettings, ...]: _listeners,
    TlsUpstream | None: _table(
        TlsUpstream,
        {
            "verify": boolean,
            "ca": _pem,
            "server_name": text,
            "certificate": _pem,
            "key": _pem,
        },
    ),
    SerialLine | None: _table(
        SerialLine,
        {"device": text, "baudrate": whole, "parity": text, "stopbits": whole},
    ),
    DialIn | None: _table(DialIn, {"host": text, "port": whole, "device": text}),
}

READERS: dict[str, Reader] = {
    each.name: text
    if isinstance(each.default, enum.StrEnum)
    else _READERS_BY_TYPE[each.type]
    for each in fields(Settings)
}
"""How to read each setting."""
