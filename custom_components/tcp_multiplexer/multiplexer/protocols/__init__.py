"""The application protocols, by name."""

from __future__ import annotations

from typing import Any

from .base import Protocol
from .echo import EchoProtocol
from .http.gateway import HttpProtocol
from .length_prefixed import Iso8583Protocol, MpuProtocol
from .modbus.protocol import ModbusProtocol

__all__ = ["PROTOCOLS", "Protocol", "protocols_with"]

PROTOCOLS: dict[str, type[Protocol[Any]]] = {
    cls.name: cls
    for cls in (
        ModbusProtocol,
        HttpProtocol,
        Iso8583Protocol,
        MpuProtocol,
        EchoProtocol,
    )
}
"""The registry; forms and the command line offer what is registered here."""


def protocols_with(field: str) -> tuple[str, ...]:
    """Return the names of the protocols that use a setting, which may be all."""
    named = tuple(name for name, cls in PROTOCOLS.items() if field in cls.settings)
    return named or tuple(PROTOCOLS)
