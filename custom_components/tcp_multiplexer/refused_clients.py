"""Clients that are turned away because of their address: who they are, what is offered.

The commonest first failure: a client comes through a VPN, or by IPv6, from an address
that is not among the allowed networks. One issue an entry names those that try again
and again; `repairs.py` lets them in.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from typing import Final

from homeassistant.components import network
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir

from .const import CONF_LEFT_OUT, DOMAIN
from .coordinator import TcpMultiplexerConfigEntry
from .entry_settings import settings_from_entry
from .multiplexer import ClientRefusal, Event, EventType, Network

REFUSED_CLIENTS: Final = "refused_clients"
ATTR_CLIENTS: Final = "clients"

ATTEMPTS: Final = 3
"""Attempts after which a client is named."""
CLIENTS_NAMED: Final = 5
AWAY_SECONDS: Final = 3600.0
"""A client that has not tried for so long stays away."""
_CLIENTS_COUNTED: Final = 256

TAILSCALE: Final = (ip_network("100.64.0.0/10"), ip_network("fd7a:115c:a1e0::/48"))
_SUBNET: Final = 64
"""The length of an IPv6 subnet's prefix (RFC 4291, 2.5.4)."""
_SITE: Final = 48
"""The prefix of a site is not shorter (RFC 6177)."""


@dataclass(slots=True)
class _Attempts:
    """The attempts of one client."""

    count: int
    last: float
    """When it tried last (loop time)."""


class RefusedClientsWatch:
    """Counts the attempts of clients that are turned away, until the entry unloads."""

    def __init__(self, hass: HomeAssistant, entry: TcpMultiplexerConfigEntry) -> None:
        self._hass = hass
        self._entry = entry
        self._issue_id = f"{REFUSED_CLIENTS}_{entry.entry_id}"
        self._attempts: dict[str, _Attempts] = {}
        self._named: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        entry.async_on_unload(
            entry.runtime_data.multiplexer.subscribe(self._handle_event)
        )
        entry.async_on_unload(entry.add_update_listener(self._async_updated))
        entry.async_on_unload(self._unloaded)

    @callback
    def _unloaded(self) -> None:
        """Delete the issue, which is not watched any more.

        If it is ignored, it stays: otherwise the next load would show it again.
        """
        self._stop_timer()
        issue = ir.async_get(self._hass).async_get_issue(DOMAIN, self._issue_id)
        if issue is not None and issue.dismissed_version is None:
            ir.async_delete_issue(self._hass, DOMAIN, self._issue_id)

    @callback
    def _handle_event(self, event: Event) -> None:
        if event.client is None:
            return
        if event.reason is ClientRefusal.NOT_ALLOWED:
            self._count(event.client, event.count)
        elif (
            event.type is EventType.CLIENT_CONNECTED and event.client in self._attempts
        ):
            del self._attempts[event.client]
            self._check()

    def _count(self, client: str, count: int) -> None:
        now = self._hass.loop.time()
        if client in self._attempts:
            self._attempts[client].count += count
            self._attempts[client].last = now
        elif len(self._attempts) < _CLIENTS_COUNTED:
            self._attempts[client] = _Attempts(count, now)
        if client not in self._named:
            self._check()

    async def _async_updated(
        self, hass: HomeAssistant, _: TcpMultiplexerConfigEntry
    ) -> None:
        """Look who is let in now; not before the repair that did it has ended."""
        hass.loop.call_soon(self._check)

    @callback
    def _check(self) -> None:
        """Name who is to be named."""
        self._stop_timer()
        loop = self._hass.loop
        now = loop.time()
        allowed = settings_from_entry(self._entry).allowed_networks
        left_out = self._entry.data.get(CONF_LEFT_OUT, ())
        self._attempts = {
            client: attempts
            for client, attempts in self._attempts.items()
            if now - attempts.last < AWAY_SECONDS
            and client not in left_out
            and not any(ip_address(client) in each for each in allowed)
        }
        named = [
            client
            for client, attempts in self._attempts.items()
            if attempts.count >= ATTEMPTS
        ][:CLIENTS_NAMED]
        if self._attempts:
            first = min(attempts.last for attempts in self._attempts.values())
            self._timer = loop.call_at(first + AWAY_SECONDS, self._check)
        if named == self._named:
            return
        self._named = named
        if named:
            self._raise()
        else:
            ir.async_delete_issue(self._hass, DOMAIN, self._issue_id)

    def _raise(self) -> None:
        describe = self._entry.runtime_data.describe_client
        clients = "\n".join(f"* {describe(client)}" for client in self._named)
        ir.async_create_issue(
            self._hass,
            DOMAIN,
            self._issue_id,
            data={
                "entry_id": self._entry.entry_id,
                ATTR_CLIENTS: " ".join(self._named),
            },
            is_fixable=True,
            severity=ir.IssueSeverity.WARNING,
            translation_key=REFUSED_CLIENTS,
            translation_placeholders={
                "title": self._entry.title,
                "clients": clients,
            },
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


# What is offered


def own_networks(hass: HomeAssistant) -> Iterator[Network]:
    """Give the networks of this machine's public addresses.

    Of IPv6 it is the subnet, though the address may have been assigned alone.
    """
    for adapter in network.async_get_loaded_adapters(hass):
        for own in (*adapter["ipv4"], *adapter["ipv6"]):
            address = ip_address(own["address"])
            if not address.is_global:
                continue
            length = own["network_prefix"]
            if isinstance(address, IPv6Address):
                length = min(max(length, _SITE), _SUBNET)
            yield ip_interface(f"{address}/{length}").network


def offers(hass: HomeAssistant, clients: list[str]) -> dict[str, list[str]]:
    """Return what may be allowed for clients: the step of the repair, and networks.

    A public address is offered only if it is of this machine's own networks.
    """
    own = list(own_networks(hass))
    offered: dict[str, list[str]] = {}
    for number, client in enumerate(clients, 1):
        address = ip_address(client)
        homes = [home for home in own if address in home]
        if address.is_global and not homes:
            continue
        offered[f"allow_{number}"] = [str(ip_network(address))]
        if any(address in home for home in TAILSCALE):
            offered["allow_tailscale"] = [str(home) for home in TAILSCALE]
        for home in homes:
            if home.version == 6:
                offered["allow_own_network"] = [str(home)]
    return offered


def allow(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry, networks: list[str]
) -> None:
    """Let clients from `networks` in, with those that are allowed already."""
    allowed = [str(one) for one in settings_from_entry(entry).allowed_networks]
    hass.config_entries.async_update_entry(
        entry,
        options={
            **entry.options,
            "allowed_networks": [*dict.fromkeys((*allowed, *networks))],
        },
    )


def leave_out(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry, clients: list[str]
) -> None:
    """Name `clients` never again."""
    left_out = [*entry.data.get(CONF_LEFT_OUT, ()), *clients]
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_LEFT_OUT: left_out[-_CLIENTS_COUNTED:]}
    )
