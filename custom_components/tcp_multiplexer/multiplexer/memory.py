"""What connections share: memory for large messages, and the time to complete one.

Small messages are not counted. Where large requests, and responses that the device is
sending, reach the limit, connections wait for one another: one is read no further until
there is memory again. Where unread responses do, the client that leaves most unread is
closed. And a client gets only so long to complete a message that it began.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol as Interface

LOGGER = logging.getLogger(__name__)

SMALL: Final = 64 << 10
"""Messages of up to so many bytes are not counted."""


class Reader(Interface):
    """What the memory needs of a connection."""

    occupied: int
    """Bytes of its large message that is still to be completed."""

    def read_on(self) -> None:
        """Read on: there is memory again."""


class Holder(Reader, Interface):
    """What the memory needs of a client."""

    name: str

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
        """Bytes that large messages occupy, over all connections."""
        self._limit = limit
        """Bytes of large messages, and as many again of unread responses."""
        self._incomplete = 0
        """Of these, those of requests that are still to be completed."""
        self._responses: dict[Reader, None] = {}
        """Connections to the device that receive a large response, the oldest first."""
        self._starved: dict[Reader, None] = {}
        """Connections read no further until there is memory again."""
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
        for reader in tuple(self._starved):
            if self.has_room(reader):
                self._starved.pop(reader, None)
                reader.read_on()

    def has_room(self, reader: Reader) -> bool:
        """Return whether a large message on a connection may grow.

        The oldest response always may, or requests that wait for it would never end.
        Where all memory is in requests that are incomplete, the oldest may, or none
        would ever be complete.
        """
        if self.occupied <= self._limit:
            return True
        if reader in self._responses:
            return reader is next(iter(self._responses))
        if self.occupied > self._incomplete:
            return False
        return reader is next((other for other in self._begun if other.occupied), None)

    def starve(self, reader: Reader) -> None:
        """Read a connection on when there is memory again."""
        self._starved[reader] = None

    def receiving(self, reader: Reader, size: int) -> bool:
        """Count what has come of a large response; return whether it may grow.

        Else it is read on when it may. With a size of 0, it has ended.
        """
        grown = size - reader.occupied
        reader.occupied = size
        if size:
            self._responses[reader] = None
        else:
            self._responses.pop(reader, None)
            self._starved.pop(reader, None)
        self.occupy(grown)
        if not size or self.has_room(reader):
            return True
        self.starve(reader)
        return False

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
