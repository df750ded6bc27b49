"""Addresses of peers, and the networks from which they may connect."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

HOST_ADDRESS = IPv4Address("127.0.0.1")
"""The address that the host program's own requests count as coming from."""

DEFAULT_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "::1/128",  # loopback
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",  # private, RFC 1918
        "169.254.0.0/16",
        "fe80::/10",  # link-local
        "fc00::/7",  # unique local, RFC 4193
    )
)


@lru_cache(maxsize=256)  # several clients come from one address, and again and again
def parse_peer(host: str) -> Address:
    """Return a peer's address without its scope; IPv4-mapped ones as IPv4.

    Raises:
        ValueError: `host` is not an address.

    """
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether `address` is in one of `networks`."""
    return any(address in network for network in networks)


def format_address(host: str, port: int) -> str:
    """Return host and port as they are written (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
