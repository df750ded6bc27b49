"""On which line of a TOML file each key stands, which tomllib does not tell.

A statement of TOML, a header or a key with its value, begins on a line of its own and
is complete as soon as it can be parsed alone.
"""

from __future__ import annotations

from collections import Counter
import tomllib
from typing import Any

type KeyPath = tuple[str | int, ...]
"""Keys from the top, and the position within an array, from 0."""


def lines_of_keys(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, on which each key and table of valid TOML begins."""
    lines: dict[KeyPath, int] = {}
    tables: Counter[KeyPath] = Counter()
    table: KeyPath = ()
    statement, begin = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            begin = number
        statement += f"{line}\n"
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # it goes on on the next line
        if statement.lstrip().startswith("["):
            table = _table(parsed, tables)
            lines.setdefault(table, begin)
        else:
            _keep(lines, table, parsed, begin)
        statement = ""
    return lines


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of a key, or else of what it is in."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _table(header: dict[str, Any], tables: Counter[KeyPath]) -> KeyPath:
    """Return the path of a header that was parsed alone; count arrays of tables."""
    path: KeyPath = ()
    value: Any = header
    while isinstance(value, dict) and value:
        ((key, value),) = value.items()
        path = (*path, key)
        if isinstance(value, list):  # the last part of [[header]]
            tables[path] += 1
        if path in tables:
            path = (*path, tables[path] - 1)
    return path


def _keep(lines: dict[KeyPath, int], path: KeyPath, value: Any, line: int) -> None:
    """Note the line of all keys within a value."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return
    for key, part in items:
        lines.setdefault((*path, key), line)
        _keep(lines, (*path, key), part, line)
