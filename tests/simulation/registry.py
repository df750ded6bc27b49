"""Which dialect speaks to which of the engine's protocols."""

from __future__ import annotations

from collections.abc import Callable

from .dialects import Dialect, LengthDialect, LineDialect, ModbusDialect
from .http_dialect import HttpDialect

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "modbus": ModbusDialect,
    "http": HttpDialect,
    "echo": LineDialect,
    "iso8583": lambda: LengthDialect("iso8583"),
    "mpu": lambda: LengthDialect("mpu"),
}
"""What makes the dialect that speaks to the engine's protocol of a name."""


def dialect(name: str) -> Dialect:
    """Make the dialect that speaks to the engine's protocol of this name."""
    return DIALECTS[name]()
