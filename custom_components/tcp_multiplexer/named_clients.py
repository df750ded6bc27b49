"""The clients that have a name: who they are, where, and what they may write."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import groupby
from typing import Any

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.core import HomeAssistant, callback

from .const import (
    CONF_ADDRESSES,
    CONF_SILENT_MINUTES,
    CONF_WRITE_RULES,
    DEFAULT_SILENT_MINUTES,
    SUBENTRY_CLIENT,
)

type Network = IPv4Network | IPv6Network


@dataclass(frozen=True, kw_only=True)
class NamedClient:
    """A client as its subentry describes it."""

    subentry_id: str
    name: str
    networks: tuple[Network, ...]
    write_rules: Sequence[Mapping[str, Any]]
    """Rows of the rules for writes, for this client alone."""
    silent_seconds: float
    """How long after its last request it counts as asking."""


def named_clients(subentries: Iterable[ConfigSubentry]) -> list[NamedClient]:
    """Return the clients among the subentries of an entry."""
    return [
        NamedClient(
            subentry_id=subentry.subentry_id,
            name=subentry.title,
            networks=tuple(map(ip_network, subentry.data[CONF_ADDRESSES])),
            write_rules=subentry.data.get(CONF_WRITE_RULES, ()),
            silent_seconds=60
            * subentry.data.get(CONF_SILENT_MINUTES, DEFAULT_SILENT_MINUTES),
        )
        for subentry in subentries
        if subentry.subentry_type == SUBENTRY_CLIENT
    ]


def by_narrowness(
    clients: Iterable[NamedClient],
) -> Iterator[tuple[NamedClient, tuple[Network, ...]]]:
    """Give clients with some of their networks, the narrowest networks first."""
    pairs = sorted(
        ((client, network) for client in clients for network in client.networks),
        key=lambda pair: -pair[1].prefixlen,
    )
    for _, group in groupby(pairs, key=lambda pair: pair[0].subentry_id):
        several = tuple(group)
        yield several[0][0], tuple(network for _, network in several)


def client_at(clients: Iterable[NamedClient], address: str) -> NamedClient | None:
    """Return the client at an address, if that has a name: by the narrowest network."""
    try:
        place = ip_address(address)
    except ValueError:  # a part of this program
        return None
    for client, networks in by_narrowness(clients):
        if any(place in network for network in networks):
            return client
    return None


@callback
def async_keep_rules(
    hass: HomeAssistant, entry: ConfigEntry[Any], before: Iterable[NamedClient]
) -> None:
    """Let the rules in the options name the clients of an entry as they are called now.

    `before` are those that it had. In place of one that is gone, its addresses are
    named: that nobody has that name any more must not change who may write.
    """
    now = {each.subentry_id: each for each in named_clients(entry.subentries.values())}
    called = {
        client.name: [now[client.subentry_id].name]
        if client.subentry_id in now
        else list(map(str, client.networks))
        for client in before
    }
    rules = entry.options.get(CONF_WRITE_RULES, [])
    kept = [
        {**rule, "clients": [new for old in who for new in called.get(old, [old])]}
        if (who := rule.get("clients"))
        else rule
        for rule in rules
    ]
    if kept != rules:
        options = {**entry.options, CONF_WRITE_RULES: kept}
        hass.config_entries.async_update_entry(entry, options=options)
