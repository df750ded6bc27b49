"""A requester on the network: where it is, and what it has asked so far.

The counters are plain attributes, because the hot path adds to several of them for each
request.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from ..dispatch.exchange import Requester
from ..networks import parse_peer
from ..observe.snapshot import ClientSnapshot


class Peer(Requester):
    """What is known of a client, whatever its connection does."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "failures",
        "last_request",
        "port",
        "refused",
        "requests",
        "since",
        "told",
    )

    def __init__(self) -> None:
        super().__init__("?")
        self.port = 0
        self.since = 0.0
        """When it came; loop time."""
        self.requests = 0
        self.told = 0
        """How many of its requests have ended, by a response or by a failure."""
        self.failures = 0
        self.refused = 0
        self.last_request: float | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    @property
    def responses(self) -> int:
        """How many responses it got."""
        return self.told - self.failures

    def came_from(self, host: str, port: int, now: float) -> None:
        """Note the peer's address."""
        self.peer = parse_peer(host)
        self.address = str(self.peer)
        self.port = port
        self.since = now
        shown = f"[{self.peer}]" if isinstance(self.peer, IPv6Address) else self.address
        self.name = f"{shown}:{port}"

    def snapshot(self, clock: float) -> ClientSnapshot:
        """Return what is known now; `clock` turns loop time into time of day."""
        last = self.last_request
        return ClientSnapshot(
            address=self.address or "",
            port=self.port,
            since=self.since + clock,
            requests=self.requests,
            responses=self.responses,
            failures=self.failures,
            refused=self.refused,
            pending=len(self.pending),
            last_request=None if last is None else last + clock,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )
