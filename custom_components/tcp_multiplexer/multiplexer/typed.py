"""What people type, or paste, wherever they do: lists of numbers, pairs, addresses.

Command line and forms read it in the same way. Each raises `ValueError` for what it
cannot read.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
import re

_MOST = 0x10000
"""Numbers in one range; more are a mistake in any list."""
_URL = re.compile(
    r"(?:https?|tcp|modbus(?:[+-]?tcp)?)://(?:[^/?#@]*@)?([^/?#@]*)(?:[/?#].*)?",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?!.{254})[\w-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)


def place_in(text: str) -> str:
    """Return the host, and the port if there is one, of what may be a pasted URL."""
    text = text.strip().removesuffix("/")
    match = _URL.fullmatch(text)
    return match[1] if match else text


def server_name_from(text: str) -> str:
    """Return the name that a certificate must have: a host's, or an address; or none.

    A label has at most 63 characters, none is empty (RFC 1035, 2.3.4).
    """
    text = text.strip()
    with suppress(ValueError):
        return str(ip_address(text))
    if text and not _NAME.fullmatch(text.encode("idna").decode()):
        raise ValueError(text)
    return text


def range_from(text: str) -> tuple[int, int]:
    """Return the first and the last number of `100-200`, or of `100`."""
    first, dash, last = text.replace("\N{EN DASH}", "-").partition("-")
    return int(first, 0), int(last if dash else first, 0)


def numbers_from(text: str) -> list[int]:
    """Return the numbers in `3, 4, 0x10`, or in `1-5`."""
    numbers: list[int] = []
    dashed = re.sub(r"\s*[-\N{EN DASH}]\s*", "-", text)
    for part in dashed.replace(",", " ").split():
        first, last = range_from(part)
        if not first <= last < first + _MOST:
            raise ValueError(part)
        numbers += range(first, last + 1)
    return numbers


def numbers_to_text(numbers: Iterable[int]) -> str:
    """Return numbers as `numbers_from` reads them; of three in a row, the range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run))
        for run in runs
    )


def pairs_from(text: str) -> list[tuple[int, int]]:
    """Return the pairs in `1=10, 2=11`, or in `1:10,2:11`."""
    pairs = []
    joined = re.sub(r"\s*[:=]\s*", "=", text)
    for part in joined.replace(",", " ").split():
        first, last = part.split("=")
        pairs.append((int(first, 0), int(last, 0)))
    return pairs
