"""The application protocols, by name."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, override

from .base import Protocol

__all__ = ["PROTOCOLS", "Protocol", "protocols_with"]


class _Registry(MutableMapping[str, type[Protocol[Any]]]):
    """Protocols by name, each imported when it is first looked up.

    Nearly always there is one in a process, and HTTP alone takes as long to import as
    a tenth of all else that a start takes.
    """

    def __init__(self, **classes: str) -> None:
        """Register classes, each as a module of this package and a name in it."""
        self._classes: dict[str, str | type[Protocol[Any]]] = {**classes}

    @override
    def __getitem__(self, name: str) -> type[Protocol[Any]]:
        cls = self._classes[name]
        if isinstance(cls, str):
            module, _, attribute = cls.rpartition(".")
            cls = getattr(import_module(f"{__name__}.{module}"), attribute)
            self._classes[name] = cls
        return cls

    def import_all(self) -> None:
        """Import them all now, where imports must not hold up what comes later."""
        for name in self:
            self[name]

    @override
    def __setitem__(self, name: str, cls: type[Protocol[Any]]) -> None:
        self._classes[name] = cls

    @override
    def __delitem__(self, name: str) -> None:
        del self._classes[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    @override
    def __len__(self) -> int:
        return len(self._classes)


PROTOCOLS = _Registry(
    modbus="modbus.protocol.ModbusProtocol",
    http="http.gateway.HttpProtocol",
    iso8583="length_prefixed.Iso8583Protocol",
    mpu="length_prefixed.MpuProtocol",
    echo="echo.EchoProtocol",
)
"""The registry; forms and the command line offer what is registered here."""


OF_SOME = frozenset(
    (
        "allowed_functions",
        "allowed_units",
        "cache_ttl",
        "check_logger_serial",
        "discard_first_read",
        "framing",
        "logger_serial",
        "matching",
        "max_body",
        "max_read_registers",
        "on_failure",
        "periodic_interval",
        "periodic_request",
        "probe",
        "quiet",
        "repeated_write_ttl",
        "serial",
        "share_reads",
        "unit_id",
        "unit_map",
        "write_rules",
        "writes_first",
    )
)
"""The settings that not every protocol uses, so that none has to be imported to learn
of any other that they all do."""


def protocols_with(field: str) -> tuple[str, ...]:
    """Return the names of the protocols that use a setting, which may be all."""
    if field not in OF_SOME:
        return tuple(PROTOCOLS)
    named = tuple(name for name, cls in PROTOCOLS.items() if field in cls.settings)
    return named or tuple(PROTOCOLS)
