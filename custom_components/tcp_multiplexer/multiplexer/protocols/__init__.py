"""The application protocols, by the names that users give them."""

from typing import Any

from .base import Protocol, ProtocolOptions
from .echo import EchoProtocol
from .http.gateway import HttpProtocol
from .length_prefixed import Iso8583Protocol, MpuProtocol
from .modbus.tcp import ModbusProtocol

__all__ = ["PROTOCOLS", "Protocol", "ProtocolOptions"]

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
