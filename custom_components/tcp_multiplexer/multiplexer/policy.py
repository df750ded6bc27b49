"""What may pass: which clients may connect.

The rules are the owner's; this room only applies them. Whoever calls counts and tells.
"""

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address

    from .settings import Network


def parse_peer(host: str) -> IPv4Address | IPv6Address:
    """Give a peer's address, IPv4-mapped ones as IPv4, without its scope.

    Raises:
        ValueError: `host` is no address.

    """
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_in(address: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
    """Tell whether `address` lies in one of `networks`."""
    return any(address in network for network in networks)
