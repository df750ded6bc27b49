"""How further local ports are named: where they are, and what is spoken there.

The words are the same in every language.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from homeassistant.core import HomeAssistant

from .addresses import async_hosts_for_clients, format_endpoint
from .multiplexer import PROTOCOLS, Framing, ListenerSettings


def describe_listener(protocol: str, stored: Mapping[str, Any]) -> str:
    """Describe a further local port, as an entry stores it."""
    host, port = stored["host"], stored["port"]
    place = format_endpoint(host, port) if host else str(port)
    secure = stored["tls"] is not None
    return _with_kind(place, protocol, Framing(stored["framing"]), secure=secure)


async def async_further_addresses(
    hass: HomeAssistant, protocol: str, listeners: Iterable[ListenerSettings]
) -> list[str]:
    """Return where clients reach further local ports, and what they speak there."""
    return [
        _with_kind(
            format_endpoint(host, listener.port),
            protocol,
            listener.framing,
            secure=listener.tls is not None,
        )
        for listener in listeners
        for host in await async_hosts_for_clients(hass, listener.host)
    ]


def _with_kind(place: str, protocol: str, framing: Framing, *, secure: bool) -> str:
    framings = PROTOCOLS[protocol].framings
    # A framing that the protocol does not have (any more) is refused elsewhere.
    kind = [framings[framing]] if framing in framings else []
    if secure:
        kind.append("TLS")
    return f"{place} ({', '.join(kind)})" if kind else place
