"""Local ports: which entry has which, and whether another one is free.

An entry has one port, and any number of further ones. A port counts as taken if any
entry names it, running or not: the next start would need it.
"""

from typing import Final, NamedTuple

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant, callback

from ..addresses import ANY_IPV4, ANY_IPV6
from ..const import (
    CONF_DIAL_IN_PORT,
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    DOMAIN,
    SUBENTRY_LOCAL_PORT,
)
from ..coordinator import TcpMultiplexerConfigEntry
from ..local_sockets import ListenProblem, next_free_port, own_addresses, try_listen
from .fields import DEFAULTS, FieldError

_UNSPECIFIED: Final = {ANY_IPV4: "127.0.0.1", ANY_IPV6: "::1"}
_EVERYWHERE: Final = {None, ANY_IPV4, ANY_IPV6}


class ListenAddress(NamedTuple):
    """An address and port to listen on."""

    host: str | None
    port: int

    def conflicts_with(self, other: ListenAddress) -> bool:
        """Return whether only one of the two can be bound."""
        return self.port == other.port and (
            self.host == other.host or bool(_EVERYWHERE & {self.host, other.host})
        )


@callback
def listen_addresses(entry: TcpMultiplexerConfigEntry) -> list[ListenAddress]:
    """Return where an entry listens, or would: its main port, then further ones."""
    data = entry.data
    return [
        ListenAddress(data[CONF_LISTEN_HOST], data[CONF_LISTEN_PORT]),
        *(
            ListenAddress(subentry.data["host"], subentry.data["port"])
            for subentry in entry.get_subentries_of_type(SUBENTRY_LOCAL_PORT)
        ),
    ]


@callback
def _local_addresses(entry: TcpMultiplexerConfigEntry) -> list[ListenAddress]:
    """Return where an entry listens for clients, and for a device that dials in."""
    data = entry.data
    expected = data.get(CONF_DIAL_IN_PORT)
    dial_in = [ListenAddress(data[CONF_LISTEN_HOST], expected)] if expected else []
    return [*listen_addresses(entry), *dial_in]


@callback
def async_other_entries(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry | None
) -> list[TcpMultiplexerConfigEntry]:
    """Return all entries of this integration except `entry`."""
    return [
        other
        for other in hass.config_entries.async_entries(DOMAIN, include_ignore=False)
        if other is not entry
    ]


async def async_free_port(
    hass: HomeAssistant, port: int, host: str | None = None
) -> int:
    """Return the first port from `port` on that is free and that no entry names."""
    taken = {
        address.port
        for entry in async_other_entries(hass, None)
        for address in _local_addresses(entry)
    }
    return await next_free_port(host, port, taken)


async def async_port_to_propose(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry, address: ListenAddress
) -> int:
    """Return the port of an entry's own address, or a free one if others have that."""
    if (
        entry.state is ConfigEntryState.SETUP_RETRY
        and await try_listen(*address) is ListenProblem.IN_USE
    ):
        return await async_free_port(hass, address.port + 1, address.host)
    return address.port


async def async_check_others(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry | None,
    address: ListenAddress,
    siblings: list[ListenAddress],
    field: str = CONF_LISTEN_PORT,
) -> None:
    """Check an address against those of other entries, and of the same one (siblings).

    Raises:
        FieldError: one of them conflicts with it.

    """
    for other in async_other_entries(hass, entry):
        if any(address.conflicts_with(theirs) for theirs in _local_addresses(other)):
            key, title = "port_of_entry", other.title
            break
    else:
        if not any(address.conflicts_with(sibling) for sibling in siblings):
            return
        key, title = "port_of_listener", ""
    raise FieldError(
        field,
        key,
        title=title,
        suggestion=str(await async_free_port(hass, address.port + 1)),
    )


async def is_reached(host: str, port: int, listeners: list[ListenAddress]) -> bool:
    """Return whether a device's host and port are one of these listeners.

    Whoever connects to the unspecified address reaches this computer.
    """
    host = _UNSPECIFIED.get(host, host)
    hosts = {address.host for address in listeners if address.port == port}
    own = await own_addresses(host) if hosts else set()
    return bool(own and hosts & (_EVERYWHERE | own))


async def async_bind(
    hass: HomeAssistant, address: ListenAddress, field: str = CONF_LISTEN_PORT
) -> None:
    """Try to listen, and stop again.

    Raises:
        FieldError: the port cannot be bound.

    """
    host, port = address
    match problem := await try_listen(host, port):
        case None:
            return
        case ListenProblem.NOT_HERE:
            raise FieldError(CONF_LISTEN_HOST, problem)
        case ListenProblem.IN_USE:
            start = port + 1
        case _:
            start = DEFAULTS[field]
    free = await async_free_port(hass, start, host)
    raise FieldError(field, problem, suggestion=str(free))
