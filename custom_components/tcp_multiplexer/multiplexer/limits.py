"""Bounds that are the engine's own: no owner sets them, but tests may shorten them."""

from dataclasses import dataclass

ECHO_SECONDS = 1.0
"""No keepalive is echoed so soon after another on the same connection."""

ADDRESS_SHARE = 4
"""One address gets at most this fraction of `max_clients` ..."""
ADDRESS_LEAST = 16
"""... but at least so many clients."""
REFUSAL_DELAY = 0.1
"""Seconds that a client waits for its next refusal, if it asks again so soon."""
MOST_FREE_DESCRIPTORS = 64
"""File descriptors kept free of clients, or a quarter of a low limit: for connections
to the device, for the resolver, and for whatever else the process does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    connect: float = 5.0
    """One attempt to connect lasts at most so long, a TLS handshake included."""
    trial: float = 2.0
    """An older connection that drops so soon after a newer was opened was dropped for
    it; one that ends so soon after its own opening had no place at the device."""
    linger: float = 2.0
    """A client that has been told our last words may go on sending for so long."""
    buffer: int = 64 << 20
    """Large requests (complete or not) over all clients, and again unread responses.
    The oldest incomplete request may exceed it, so that one can always complete."""
    messages: int = 64
    """What is taken of one client in a turn of the loop; then it is others' turn."""
    settled: int = 64
    """Outcomes that wait in a client's line behind one that is not known yet; then it
    is read no further."""
    own_replies: int = 64 << 10
    """Replies in that line that needed no device; likewise."""


LIMITS = Limits()
