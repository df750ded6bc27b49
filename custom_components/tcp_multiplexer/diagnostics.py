"""Diagnostics: what a bug report needs, without what is private.

The entry's title, hosts and all addresses are redacted, also in the middle of a
sentence. A client is a number, the same one throughout, without the name that the user
gave it. Of requests and responses only what was asked for and how it ended is
included: no register values, no payloads.
"""

from dataclasses import asdict
import re
from typing import Any, Final

from homeassistant.components.diagnostics import REDACTED, async_redact_data
from homeassistant.const import CONF_DEVICE, CONF_HOST
from homeassistant.core import HomeAssistant

from .const import (
    CONF_CLIENT_NAMES,
    CONF_DIAL_IN_DEVICE,
    CONF_LEFT_OUT,
    CONF_LISTEN_HOST,
    CONF_LOGGER_SERIAL,
    CONF_WRITE_RULES,
)
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .multiplexer import ClientSnapshot, Outline, TraceRecord

# Values that are redacted as a whole, by their keys in the entry and in a snapshot
_TO_REDACT: Final = {
    "title",
    "unique_id",
    "listen_addresses",
    "allowed_networks",
    "write_networks",
    "tls",
    "probe",
    "serial",
    CONF_DEVICE,
    CONF_DIAL_IN_DEVICE,
    CONF_LEFT_OUT,
    CONF_LOGGER_SERIAL,
    CONF_HOST,
    CONF_LISTEN_HOST,
}
# Anything that looks like an address in a text; better too much than too little
_ADDRESS: Final = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{0,4}:){2,}[0-9a-f:.]*(?:%\w+)?", re.IGNORECASE
)


class _Clients:
    """Numbers the clients in the order in which they appear."""

    def __init__(self, coordinator: TcpMultiplexerCoordinator) -> None:
        self._coordinator = coordinator
        self._numbers: dict[str, int] = {}

    def describe(self, address: str) -> dict[str, Any]:
        """Return the number of the client at `address`, and whether it has a name."""
        number = self._numbers.setdefault(address, len(self._numbers) + 1)
        named = self._coordinator.client_name(address) is not None
        return {"client": number, "named": named}


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry
) -> dict[str, Any]:
    """Return the entry, a snapshot of its multiplexer, and the recent exchanges."""
    coordinator = entry.runtime_data
    multiplexer = coordinator.multiplexer
    snapshot = multiplexer.snapshot()
    clients = _Clients(coordinator)
    units = coordinator.units
    options = {
        **entry.options,
        CONF_CLIENT_NAMES: [
            clients.describe(address)
            for address in entry.options.get(CONF_CLIENT_NAMES, {})
        ],
        CONF_WRITE_RULES: [
            {
                condition: [REDACTED] * len(value) if condition == "clients" else value
                for condition, value in rule.items()
            }
            for rule in entry.options.get(CONF_WRITE_RULES, ())
        ],
    }
    shared: dict[str, Any] = {}
    if units:
        shared["shared_connection"] = units.diagnostics
    return async_redact_data(
        {
            **shared,
            "entry": {**entry.as_dict(), "options": options},
            "snapshot": {
                **asdict(snapshot),
                "health": snapshot.health.value,
                "health_reason": _scrub(snapshot.health_reason, entry),
                "clients": [_client(clients, client) for client in snapshot.clients],
            },
            "trace": [
                _record(clients, record, multiplexer.outline(record))
                for record in multiplexer.trace()
            ],
        },
        _TO_REDACT,
    )


def _client(clients: _Clients, client: ClientSnapshot) -> dict[str, Any]:
    values = asdict(client)
    return {**clients.describe(values.pop("address")), **values}


def _record(clients: _Clients, record: TraceRecord, outline: Outline) -> dict[str, Any]:
    """Describe one exchange: which client asked for what, and how it ended."""
    address, separator, _port = record.client.rpartition(":")
    request, response = record.request, record.response
    return {
        "time": record.time,
        # Without a port, it is not an address but the part of the program that asked.
        **(
            clients.describe(address.strip("[]"))
            if separator
            else {"client": None, "part": record.client}
        ),
        "request": {"bytes": len(request), **outline.asked},
        "response": None
        if response is None
        else {"bytes": len(response), **outline.answered},
        "outcome": record.outcome,
        "wait_seconds": record.wait_seconds,
        "response_seconds": record.response_seconds,
    }


def _scrub(text: str | None, entry: TcpMultiplexerConfigEntry) -> str | None:
    """Redact the device's host or port and all addresses in a sentence."""
    if text is None:
        return None
    for key in (CONF_DEVICE, CONF_HOST):
        if place := entry.data.get(key):
            hidden = re.compile(re.escape(place), re.IGNORECASE)
            text = hidden.sub(REDACTED, text)
    return _ADDRESS.sub(REDACTED, text)
