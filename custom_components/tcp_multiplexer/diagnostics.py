"""Diagnostics: what helps to help, without what is nobody's business.

Redacted are the entry's title, hosts and all addresses, also where they stand in the
middle of a sentence. A client is a number, the same one throughout, with the name
that its owner gave it. Of requests and responses only what was asked for and how it
ended is told: no register values, no payloads.
"""

from collections.abc import Mapping
from dataclasses import asdict
import re
from typing import Any, Final

from homeassistant.components.diagnostics import REDACTED, async_redact_data
from homeassistant.const import CONF_HOST
from homeassistant.core import HomeAssistant

from .const import CONF_CLIENT_NAMES, CONF_LISTEN_HOST
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .multiplexer import ClientSnapshot, TraceRecord

# Whole values, by their keys: of the entry, and of a snapshot.
_TO_REDACT: Final = {
    "title",
    "unique_id",
    "listen_addresses",
    "allowed_networks",
    "write_networks",
    "tls",
    "probe",
    "serial",
    CONF_HOST,
    CONF_LISTEN_HOST,
}
# Anything that looks like an address, in a text for people. Rather too much.
_ADDRESS: Final = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{0,4}:){2,}[0-9a-f:.]*(?:%\w+)?", re.IGNORECASE
)

# Modbus functions whose request says where and how much, or only where.
_WITH_COUNT: Final = {1, 2, 3, 4, 0x0F, 0x10}
_WITH_ADDRESS: Final = _WITH_COUNT | {5, 6, 0x16, 0x17}
_EXCEPTION_BIT: Final = 0x80


class _Clients:
    """Numbers the clients as they are met."""

    def __init__(self, coordinator: TcpMultiplexerCoordinator) -> None:
        self._coordinator = coordinator
        self._numbers: dict[str, int] = {}

    def describe(self, address: str) -> dict[str, Any]:
        """Give the number of the client at `address`, and its name."""
        number = self._numbers.setdefault(address, len(self._numbers) + 1)
        return {"client": number, "name": self._coordinator.client_name(address)}


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry
) -> dict[str, Any]:
    """Give the entry, its multiplexer as it is now, and the recent exchanges."""
    coordinator = entry.runtime_data
    multiplexer = coordinator.multiplexer
    snapshot = multiplexer.snapshot()
    clients = _Clients(coordinator)
    is_modbus = multiplexer.settings.protocol == "modbus"
    options = {
        **entry.options,
        CONF_CLIENT_NAMES: [
            clients.describe(address)
            for address in entry.options.get(CONF_CLIENT_NAMES, {})
        ],
    }
    return async_redact_data(
        {
            "entry": {**entry.as_dict(), "options": options},
            "snapshot": {
                **asdict(snapshot),
                "health": snapshot.health.value,
                "health_reason": _scrub(snapshot.health_reason, entry),
                "clients": [_client(clients, client) for client in snapshot.clients],
            },
            "trace": [
                _record(clients, record, is_modbus=is_modbus)
                for record in multiplexer.trace()
            ],
        },
        _TO_REDACT,
    )


def _client(clients: _Clients, client: ClientSnapshot) -> dict[str, Any]:
    values = asdict(client)
    return {**clients.describe(values.pop("address")), **values}


def _record(
    clients: _Clients, record: TraceRecord, *, is_modbus: bool
) -> dict[str, Any]:
    """Tell of one exchange who asked for what, and how it ended."""
    address, separator, _port = record.client.rpartition(":")
    return {
        "time": record.time,
        # Without a port it is no address but the part of the program that asked.
        **(
            clients.describe(address.strip("[]"))
            if separator
            else {"client": None, "name": record.client}
        ),
        "request": _request(record.request, is_modbus=is_modbus),
        "response": _response(record.response, is_modbus=is_modbus),
        "outcome": record.outcome,
        "wait_seconds": record.wait_seconds,
        "response_seconds": record.response_seconds,
    }


def _request(payload: bytes, *, is_modbus: bool) -> Mapping[str, int]:
    told = {"bytes": len(payload)}
    if not is_modbus or len(payload) < 2:
        return told
    unit, function = payload[:2]
    told |= {"unit": unit, "function": function}
    if function in _WITH_ADDRESS:
        told["address"] = int.from_bytes(payload[2:4])
    if function in _WITH_COUNT:
        told["count"] = int.from_bytes(payload[4:6])
    return told


def _response(payload: bytes | None, *, is_modbus: bool) -> Mapping[str, int] | None:
    if payload is None:
        return None
    told = {"bytes": len(payload)}
    if is_modbus and len(payload) > 2 and payload[1] & _EXCEPTION_BIT:
        told["exception"] = payload[2]
    return told


def _scrub(text: str | None, entry: TcpMultiplexerConfigEntry) -> str | None:
    """Take the device's name and all addresses out of a sentence."""
    if text is None:
        return None
    host = re.compile(re.escape(entry.data[CONF_HOST]), re.IGNORECASE)
    return _ADDRESS.sub(REDACTED, host.sub(REDACTED, text))
