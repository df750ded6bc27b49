"""The connection of one client: how it begins, is held back, and ends.

A client is judged and counted before anything is read from it, TLS included. What it
asks and is answered is the business of `client`.
"""

from __future__ import annotations

from abc import abstractmethod
import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, cast, override

from ..limits import ECHO_SECONDS
from ..memory import SMALL
from ..sockets import limit_reads, set_keepalive
from .peer import Peer
from .server_tls import ServerTls

if TYPE_CHECKING:
    import ssl

    from ..dispatch.exchange import Exchange
    from ..protocols.base import Request
    from ..settings import ListenerSettings, Settings
    from .owner import ClientOwner

LOGGER = logging.getLogger(__name__)


class ClientConnection(Peer):
    """One accepted connection, whatever is said on it.

    It is an `asyncio.Protocol` without being derived from it, since compiled classes
    have one base. Transports that cannot be told how much to read at a time (uvloop's)
    read into its buffer instead, as with an `asyncio.BufferedProtocol`.
    """

    __slots__ = (
        "_accepted",
        "_closed",
        "_echoed",
        "_eof",
        "_incomplete",
        "_linger",
        "_listener",
        "_loop",
        "_memory",
        "_read_at_once",
        "_reading",
        "_tls",
        "_tls_context",
        "_transport",
        "came_by",
        "occupied",
    )

    _transport: asyncio.Transport

    def __init__(self, listener: ClientOwner, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._listener = listener
        self._memory = listener.memory
        self._loop = asyncio.get_running_loop()
        self._read_at_once = len(listener.read_buffer)
        self.came_by: ListenerSettings | None = None
        """The port at which it was accepted."""
        self._eof = False
        self._reading = True
        self._accepted = False
        self._closed = False
        """Nothing more is read from it, nor written to it."""
        self.occupied = 0
        """Bytes of its large message that is still to be completed."""
        self._incomplete = False
        """Part of a message has come, and more of it is to come."""
        self._echoed = -inf
        """When a keepalive of its was echoed last (loop time)."""
        self._tls_context = tls
        self._tls: ServerTls | None = None
        self._linger: asyncio.TimerHandle | None = None
        """Set once our last words are written; closes the connection at the latest."""

    @abstractmethod
    def read_on(self) -> None:
        """Read on: nothing stands in the way that did."""

    @property
    @abstractmethod
    def idle_since(self) -> float | None:
        """When it last asked something, or came; None while it is owed an answer."""

    @abstractmethod
    def apply(self, settings: Settings) -> None:
        """Go on with other settings."""

    @abstractmethod
    def ended(self) -> None:
        """Ask nothing more, and answer nothing more: the connection is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Judge the client, and count it in."""
        self._transport = cast("asyncio.Transport", transport)
        if self._tls is not None:
            self._tls.introduced(transport)
            return
        listener = self._listener
        peer = transport.get_extra_info("peername")
        if not peer:
            # It is gone before it was accepted.
            self.abort()
            return
        self.came_from(peer[0], peer[1], self._loop.time())
        if not listener.admit(self, transport.get_extra_info("socket")):
            self.abort()
            return
        self._accepted = True
        set_keepalive(transport)
        if self._tls_context is not None:
            self._tls = ServerTls(cast("asyncio.Protocol", self), self._tls_context)
            self._tls.begin(self._transport)
        else:
            limit_reads(transport, self._read_at_once)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return what to read into."""
        return self._listener.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take so many bytes from the buffer."""
        self.data_received(self._listener.read_buffer[:nbytes].tobytes())

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """Take what has been read."""

    @abstractmethod
    def eof_received(self) -> bool:
        """Note that the client sends no more; return whether to stay open."""

    @abstractmethod
    def pause_writing(self) -> None:
        """Note that the client leaves much unread."""

    @abstractmethod
    def resume_writing(self) -> None:
        """Note that the client has read most of it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the client out: its connection is gone."""
        self._closed = True
        if not self._accepted:
            return
        if self._linger is not None:
            self._linger.cancel()
        self.ended()
        LOGGER.info(
            "Client %s disconnected%s%s",
            self.name,
            "" if self.requests else ", and has asked nothing",
            f": {exc}" if exc else "",
        )
        self._listener.forget(self)

    def _log_coming(self, request: Request) -> None:
        """Say who has come, now that it is known what for."""
        if LOGGER.isEnabledFor(logging.INFO):
            asked = self._listener.protocol.describe(request.payload, None)
            LOGGER.info("Client %s connected, and asks first: %s", self.name, asked)

    def abort(self) -> None:
        """Close the connection at once."""
        self._closed = True
        self._transport.abort()

    def fail(self, reason: str) -> None:
        """Close the connection because of what the client sent."""
        self._listener.complain(self, reason)
        self._close()

    def _close(self) -> None:
        """Close the connection once what was written is sent."""
        self._closed = True
        self._transport.close()

    def _close_after_last_words(self) -> None:
        """Close in stages: say no more, and close once the client does the same.

        A client whose connection is closed while it sends is reset by the system, and
        never reads what it was told (RFC 9112 §9.6).
        """
        transport = self._transport
        if self._eof or not transport.can_write_eof():
            self._close()
            return
        self._closed = True
        transport.write_eof()
        self._linger = self._loop.call_later(self._listener.limits.linger, self.abort)
        if not self._reading:
            self._reading = True
            transport.resume_reading()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def close_idle(self) -> None:
        """Close the connection of a client that has asked nothing for long."""
        LOGGER.info("Client %s is closed: it has asked nothing for long", self.name)
        self._close()

    @override
    def unblock(self) -> None:
        self.read_on()

    @override
    def dismiss(self) -> None:
        LOGGER.info("Client %s is closed: its upstream connection is gone", self.name)
        self.held = True  # it is served no more
        self._loop.call_soon(self._close)  # a response may just be on its way

    def _count_incomplete(self, buffered: int) -> None:
        """Keep account of a message's time and memory while it is incomplete."""
        self._incomplete = buffered > 0
        self._memory.begun(self, incomplete=self._incomplete)
        size = buffered if buffered > SMALL else 0
        if size != self.occupied:
            grown = size - self.occupied
            self.occupied = size
            self._memory.occupy(grown, incomplete=True)
        if size and not self._memory.has_room(self):
            self._stop_reading()
            self._memory.starve(self)

    def _release(self, exchange: Exchange) -> None:
        """Give back the memory of a large request that has ended."""
        size = len(exchange.request.payload)
        if size > SMALL:
            self._memory.occupy(-size)

    def _may_echo(self) -> bool:
        now = self._loop.time()
        if now - self._echoed < ECHO_SECONDS:
            return False
        self._echoed = now
        return True

    def _write_or_close(self, data: bytes | None) -> None:
        if data is None:
            self._close()
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if self._closed or transport.is_closing() or not data:
            return
        self.bytes_out += len(data)
        transport.write(data)
        if self.held:
            self._memory.unread(self, transport.get_write_buffer_size())
