"""Diagnostics: what a bug report needs, without what is private.

The entry's title, hosts and all addresses are redacted, also in the middle of a
sentence. So are the names that people gave: a client is a number, the same one
throughout, and a named client another. Of requests and responses only what was asked
for and how it ended is included: no register values, no payloads.
"""

from dataclasses import asdict
import re
from typing import Any, Final

from homeassistant.components.diagnostics import REDACTED, async_redact_data
from homeassistant.const import CONF_DEVICE, CONF_HOST
from homeassistant.core import HomeAssistant

from .const import (
    CONF_ADDRESSES,
    CONF_DIAL_IN_DEVICE,
    CONF_LEFT_OUT,
    CONF_LISTEN_HOST,
    CONF_LOGGER_SERIAL,
    CONF_WRITE_RULES,
    HOME_ASSISTANT,
    SUBENTRY_CLIENT,
)
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .migration import NOW_SUBENTRIES
from .multiplexer import ClientSnapshot, Outline, TraceRecord
from .named_clients import client_at

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
    """Numbers the clients in the order in which they appear, and the named ones."""

    def __init__(self, coordinator: TcpMultiplexerCoordinator) -> None:
        self._coordinator = coordinator
        self._numbers: dict[str, int] = {}
        self._named = {
            client.subentry_id: number
            for number, client in enumerate(coordinator.clients.clients, 1)
        }

    def describe(self, address: str) -> dict[str, Any]:
        """Return the number of the client at `address`, and that of its name."""
        number = self._numbers.setdefault(address, len(self._numbers) + 1)
        named = client_at(self._coordinator.clients.clients, address)
        return {
            "client": number,
            "named_client": self._named[named.subentry_id] if named else None,
            "name": None if named else self._coordinator.client_name(address),
        }

    def subentry(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return a subentry, a named client with its number and without addresses."""
        if stored["subentry_type"] != SUBENTRY_CLIENT:
            return stored
        addresses = [_describe_network(text) for text in stored["data"][CONF_ADDRESSES]]
        return {
            **stored,
            "named_client": self._named[stored["subentry_id"]],
            "data": {**stored["data"], CONF_ADDRESSES: addresses},
        }

    def in_rule(self, client: str) -> str:
        """Return a client in a rule: a network, or the number of a named one."""
        for named in self._coordinator.clients.clients:
            if named.name == client:
                return f"named client {self._named[named.subentry_id]}"
        return client if client == HOME_ASSISTANT else _describe_network(client)


def _describe_network(text: str) -> str:
    """Return how wide a network is, and nothing else; a name is nothing at all."""
    _, slash, prefix = text.partition("/")
    return f"{REDACTED}/{prefix}" if slash and prefix.isdecimal() else REDACTED


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
        key: value for key, value in entry.options.items() if key not in NOW_SUBENTRIES
    }
    options[CONF_WRITE_RULES] = [
        {
            condition: list(map(clients.in_rule, value))
            if condition == "clients"
            else value
            for condition, value in rule.items()
        }
        for rule in options.get(CONF_WRITE_RULES, ())
    ]
    stored = entry.as_dict()
    shared: dict[str, Any] = {}
    if units:
        shared["shared_connection"] = units.diagnostics
    return async_redact_data(
        {
            **shared,
            "entry": {
                **stored,
                "options": options,
                "subentries": list(map(clients.subentry, stored["subentries"])),
            },
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
