"""Rules for writes, as tests write them down."""

from ipaddress import ip_network
from typing import Any

from custom_components.tcp_multiplexer.multiplexer import WriteAction, WriteRule


def rule(action: str, *networks: str, **conditions: Any) -> WriteRule:
    """Make a rule for the writes of clients in `networks`."""
    return WriteRule(
        action=WriteAction(action),
        networks=tuple(map(ip_network, networks)),
        **conditions,
    )


DENIED = (rule("deny"),)
"""Nobody may write."""
ACKNOWLEDGED = (rule("acknowledge"),)
"""Nobody may write, and nobody learns that."""
