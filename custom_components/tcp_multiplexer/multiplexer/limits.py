"""Limits of the engine that are not settings; tests may lower them."""

from __future__ import annotations

from dataclasses import dataclass

ECHO_SECONDS = 1.0
"""At most one keepalive is echoed on a connection within this time."""

ADDRESS_SHARE = 4
"""One address gets at most `max_clients` divided by this ..."""
ADDRESS_LEAST = 16
"""... but always at least this many clients."""
REFUSAL_DELAY = 0.1
"""Seconds by which further refusals to a client that keeps asking are delayed."""
MOST_FREE_DESCRIPTORS = 64
"""File descriptors kept free of clients, or a quarter of a low limit: for connections
to the device, for the resolver, and for whatever else the process does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    connect: float = 5.0
    """How long one attempt to connect may take, including the TLS handshake."""
    trial: float = 2.0
    """If an older connection drops this soon after a newer one was opened, the device
    dropped it for that one; if a connection ends this soon after opening, the device
    had no slot for it."""
    linger: float = 2.0
    """How long a client may go on sending after the last bytes were sent to it."""
    buffer: int = 64 << 20
    """Limit over all clients for large requests (complete or not) and responses that
    are received, and again for unread responses. The oldest incomplete request and the
    oldest incomplete response may exceed it, so that they can always complete."""
    settled: int = 64
    """Replies of a client that are ready but wait for an earlier one; above this, no
    more is read from the client."""
    own_replies: int = 64 << 10
    """Bytes of those replies that did not need the device; likewise."""


LIMITS = Limits()
