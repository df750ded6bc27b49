"""What clients share: memory for large messages, and the time to complete one.

Small messages are not counted. Where large requests reach the limit, clients wait for
one another: one is read no further until there is memory again. Where unread responses
do, the client that leaves most unread is closed. And a client gets only so long to
complete a message that it began.
"""

import asyncio
import logging
from typing import Protocol as Interface

LOGGER = logging.getLogger(__name__)

SMALL = 64 << 10
"""Messages of up to so many bytes are not counted."""


class Holder(Interface):
    """What the memory needs of a client."""

    name: str
    occupied: int
    """Bytes of its large message that is still to be completed."""

    def read_on(self) -> None:
        """Read on: there is memory again."""

    def fail(self, reason: str) -> None:
        """Close the connection because of what the client sent."""

    def abort(self) -> None:
        """Close the connection at once."""


class Memory:
    """Counts what large messages occupy, and how long incomplete ones have taken."""

    def __init__(self, timeout: float, limit: int) -> None:
        self.timeout = timeout
        """Seconds in which a message that was begun must be complete."""
        self.occupied = 0
        """Bytes that large messages occupy, over all clients."""
        self._limit = limit
        """Bytes of large requests, and as many again of unread responses."""
        self._incomplete = 0
        """Of these, those of messages that are still to be completed."""
        self._starved: dict[Holder, None] = {}
        """Clients read no further until there is memory again."""
        self._unread: dict[Holder, int] = {}
        """Bytes of responses that clients do not take."""
        self._begun: dict[Holder, float] = {}
        """When each incomplete message began, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def occupy(self, size: int, *, incomplete: bool = False) -> None:
        """Count bytes of large messages, or with a negative size their end."""
        self.occupied += size
        if incomplete:
            self._incomplete += size
        for client in tuple(self._starved):
            if self.has_room(client):
                self._starved.pop(client, None)
                client.read_on()

    def has_room(self, client: Holder) -> bool:
        """Return whether a large message of the client's may grow.

        Where all memory is in messages that are incomplete, the oldest must grow, or
        none would ever be complete.
        """
        if self.occupied <= self._limit:
            return True
        if self.occupied > self._incomplete:
            return False
        return client is next((other for other in self._begun if other.occupied), None)

    def starve(self, client: Holder) -> None:
        """Read a client on when there is memory again."""
        self._starved[client] = None

    def unread(self, client: Holder, size: int) -> None:
        """Note the bytes that a client does not take, or with 0 that it took them."""
        if not size:
            self._unread.pop(client, None)
            return
        self._unread[client] = size
        while len(self._unread) > 1 and sum(self._unread.values()) > self._limit:
            worst = max(self._unread, key=self._unread.__getitem__)
            LOGGER.warning("Client %s is closed: it reads no responses", worst.name)
            del self._unread[worst]
            worst.abort()

    def begun(self, client: Holder, *, incomplete: bool) -> None:
        """Note whether a message of the client's has begun and is not complete."""
        if not incomplete:
            self._begun.pop(client, None)
            if self._starved:
                self.occupy(0)  # another message is the oldest now
        elif client not in self._begun:
            now = self._begun[client] = self._loop.time()
            if self._timer is None:
                self._arm(now + self.timeout)

    def _arm(self, at: float) -> None:
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        begun_before = self._loop.time() - self.timeout + 1e-3
        for client, since in tuple(self._begun.items()):
            if since > begun_before:
                self._arm(since + self.timeout)
                return
            del self._begun[client]
            client.fail("a message was begun and not completed in time")

    def forget(self, client: Holder) -> None:
        """Count a client out that is gone."""
        self._starved.pop(client, None)
        self._begun.pop(client, None)
        self._unread.pop(client, None)

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
