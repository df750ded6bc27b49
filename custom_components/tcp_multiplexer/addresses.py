"""How hosts and ports are written: parsed from what users type, formatted for them.

An IPv6 address stands in brackets before a port (RFC 3986, 3.2.2) and bare without
one. A host is kept in lower case, so that one device has one spelling.
"""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
import re
from typing import Final

from homeassistant.components import network
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir

ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 - to recognise it
ANY_IPV6: Final = "::"

_ENDPOINT = re.compile(r"(?:\[([^\]]+)\]|([\w.-]{1,253}))(?::(\d{1,5}))?")


def parse_endpoint(text: str) -> tuple[str, int | None]:
    """Parse a host, optionally followed by a port.

    Raises:
        ValueError: it is neither an address nor a name.

    """
    text = text.strip().lower()
    with suppress(ValueError):
        return str(ip_address(text)), None
    if (match := _ENDPOINT.fullmatch(text)) is None:
        raise ValueError(text)
    bracketed, host, port = match.groups()
    if port and not 1 <= int(port) <= 65535:
        raise ValueError(text)
    return (
        str(IPv6Address(bracketed)) if bracketed else host,
        int(port) if port else None,
    )


def format_endpoint(host: str, port: int) -> str:
    """Format host and port the way users type them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_for_home_assistant(listen_host: str | None) -> str:
    """Return the host at which this Home Assistant itself reaches a listener."""
    match listen_host:
        case None | "0.0.0.0":  # noqa: S104 - recognised, not listened on
            return "127.0.0.1"
        case "::":
            return "::1"
    return listen_host


async def async_hosts_for_clients(
    hass: HomeAssistant, listen_host: str | None
) -> list[str]:
    """Return the hosts at which other machines reach a listener, the usual one first.

    They are those that Home Assistant announces. Link-local IPv6 addresses are left
    out: what they mean depends on the machine that uses them.
    """
    if listen_host not in (None, ANY_IPV4, ANY_IPV6):
        return [listen_host]
    hosts = [
        str(address)
        for address in map(ip_address, await network.async_get_announce_addresses(hass))
        if not (isinstance(address, IPv6Address) and address.is_link_local)
        and not (isinstance(address, IPv6Address) and listen_host == ANY_IPV4)
        and not (isinstance(address, IPv4Address) and listen_host == ANY_IPV6)
    ]
    return hosts or [host_for_home_assistant(listen_host)]


@callback
def async_must_publish(hass: HomeAssistant) -> bool:
    """Return whether other machines reach only the ports that a container publishes.

    The network integration finds out at start, and says so by raising this issue.
    """
    registry = ir.async_get(hass)
    return registry.async_get_issue("network", "docker_host_network") is not None
