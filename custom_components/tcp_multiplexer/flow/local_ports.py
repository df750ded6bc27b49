"""Local ports: which are promised to whom, and whether one more can be had.

An entry has one port, and as many further ones as its owner wants. A port counts as
taken if any entry names it, running or not: at the next start it would want it.
"""

from typing import Final, NamedTuple

from homeassistant.core import HomeAssistant, callback

from ..addresses import ANY_IPV4, ANY_IPV6
from ..const import CONF_LISTEN_HOST, CONF_LISTEN_PORT, CONF_MORE_LISTENERS, DOMAIN
from ..coordinator import TcpMultiplexerConfigEntry
from ..local_sockets import ListenProblem, next_free_port, own_addresses, try_listen
from .fields import DEFAULTS, FieldError

_EVERYWHERE: Final = {None, ANY_IPV4, ANY_IPV6}


class ListenAddress(NamedTuple):
    """An address and port to listen on."""

    host: str | None
    port: int

    def conflicts_with(self, other: ListenAddress) -> bool:
        """Tell whether only one of the two can be had."""
        return self.port == other.port and (
            self.host == other.host or bool(_EVERYWHERE & {self.host, other.host})
        )


@callback
def listen_addresses(entry: TcpMultiplexerConfigEntry) -> list[ListenAddress]:
    """Give where an entry listens, or would, the port of its dialog first."""
    data = entry.data
    return [
        ListenAddress(data[CONF_LISTEN_HOST], data[CONF_LISTEN_PORT]),
        *(
            ListenAddress(listener["host"], listener["port"])
            for listener in entry.options.get(CONF_MORE_LISTENERS, ())
        ),
    ]


@callback
def async_other_entries(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry | None
) -> list[TcpMultiplexerConfigEntry]:
    """Give all entries of ours but one."""
    return [
        other
        for other in hass.config_entries.async_entries(DOMAIN, include_ignore=False)
        if other is not entry
    ]


async def async_free_port(
    hass: HomeAssistant, port: int, host: str | None = None
) -> int:
    """Give the first port from `port` on that nobody has, nor wants to have."""
    taken = {
        address.port
        for entry in async_other_entries(hass, None)
        for address in listen_addresses(entry)
    }
    return await next_free_port(host, port, taken)


async def async_check_others(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry | None,
    address: ListenAddress,
    siblings: list[ListenAddress],
) -> None:
    """Check that no entry wants this address, be it the same one at a sibling.

    Raises:
        FieldError: there is one.

    """
    for other in async_other_entries(hass, entry):
        if any(address.conflicts_with(theirs) for theirs in listen_addresses(other)):
            key, title = "port_of_entry", other.title
            break
    else:
        if not any(address.conflicts_with(sibling) for sibling in siblings):
            return
        key, title = "port_of_listener", ""
    raise FieldError(
        CONF_LISTEN_PORT,
        key,
        title=title,
        suggestion=str(await async_free_port(hass, address.port + 1)),
    )


async def is_reached(host: str, port: int, listeners: list[ListenAddress]) -> bool:
    """Tell whether a device's host and port are one of these places."""
    hosts = {address.host for address in listeners if address.port == port}
    own = await own_addresses(host) if hosts else set()
    return bool(own and hosts & (_EVERYWHERE | own))


async def async_bind(hass: HomeAssistant, address: ListenAddress) -> None:
    """Try to listen.

    Raises:
        FieldError: that is not possible.

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
            start = DEFAULTS[CONF_LISTEN_PORT]
    free = await async_free_port(hass, start, host)
    raise FieldError(CONF_LISTEN_PORT, problem, suggestion=str(free))
