"""Limits of the engine that are not settings; tests may lower them."""

from dataclasses import dataclass


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
    """Limit over all clients for large requests (complete or not), and again for unread
    responses. The oldest incomplete request may exceed it, so that one can always
    complete."""


LIMITS = Limits()
