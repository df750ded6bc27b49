"""The listening sockets: accepts or refuses clients, and keeps track of them."""

from __future__ import annotations

import asyncio
from collections import Counter
import contextlib
import logging
from math import inf
import sys
from typing import TYPE_CHECKING, Any, cast, override

from ..clock import clock_of
from ..limits import ADDRESS_LEAST, ADDRESS_SHARE, LIMITS, Limits
from ..networks import is_in
from ..observe.events import ClientRefusal, Event, EventType
from ..settings import ListenerSettings
from ..sockets import is_one_too_many, stop_accepting
from .client import Client
from .groups import Groups
from .owner import ClientOwner

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    import ssl

    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.queue import RequestQueue
    from ..memory import Memory
    from ..networks import Address
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol
    from ..settings import Settings
    from .connection import ClientConnection

LOGGER = logging.getLogger(__name__)

_BACKLOG = 1024
"""Connections that the system holds until they are accepted."""
_ACCEPT_ONE = 0 if sys.version_info >= (3, 14) else 1
"""The backlog with which asyncio accepts one connection in a turn of the loop.

It accepts one more than that (python/cpython#134392); Python 3.13.0 does not yet.
"""
_READ_AT_ONCE = 64 << 10
"""Less than asyncio would read: what is read of a client held back must be kept."""
_IDLE_STEP = 1.0
"""Seconds between two looks at all clients, at least."""
_WARN_SECONDS = 600


class Listener(ClientOwner):
    """The listening sockets and the clients that came in by them."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        dispatcher: Dispatcher,
        statistics: Statistics,
        events: Events,
        memory: Memory,
        limits: Limits = LIMITS,
    ) -> None:
        """Join the parts; `start` opens the ports."""
        self.settings = settings
        self.protocol = protocol
        self.queue = queue
        self.dispatcher = dispatcher
        self.limits = limits
        self.memory = memory
        self.read_buffer = memoryview(
            bytearray(protocol.read_while_held // 2 or _READ_AT_ONCE)
        )
        self.clients: dict[ClientConnection, None] = {}
        """In the order in which they came, so that a run can be repeated exactly."""
        self._addresses: Counter[Address] = Counter()
        """How many of them come from each address."""
        self.groups = Groups()
        self._statistics = statistics
        self._events = events
        self._stopping = False
        """Nobody is accepted any more."""
        self._open: list[tuple[ListenerSettings, asyncio.Server]] = []
        """Where it listens, the main port first."""
        self._changing = asyncio.Lock()
        """Held while ports are opened and closed."""
        self._loop = asyncio.get_running_loop()
        self.clock = clock_of(self._loop)
        self._gone: asyncio.Future[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._warned: set[str] = set()
        self._warn_again = 0.0
        """When to warn next that file descriptors run out."""

    def apply(self, settings: Settings) -> None:
        """Go on with other settings; clients that may still connect stay."""
        self.settings = settings
        self.memory.timeout = settings.timeout
        for client in tuple(self.clients):
            client.apply(settings)
            if not is_in(client.peer, settings.allowed_networks):
                self._refuse(client, ClientRefusal.NOT_ALLOWED)
                client.abort()
        self._close_idle()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken, not permitted, or not on this machine.

        """
        settings = self.settings
        first = ListenerSettings(host=settings.listen_host, port=settings.listen_port)
        try:
            for listener in (first, *settings.more_listeners):
                await self._listen(listener)
        except BaseException:
            self._close_servers()
            raise

    async def change_ports(self) -> None:
        """Open and close further ports as the settings have them by now.

        Clients of a port that is closed, or changed, are closed; all others stay.

        Raises:
            OSError: a port is taken, not permitted, or not on this machine.
            TlsError: a certificate or key cannot be used.

        """
        async with self._changing:
            wanted = list(self.settings.more_listeners)
            kept, gone = self._open[:1], []
            for door in self._open[1:]:
                if door[0] in wanted:
                    wanted.remove(door[0])
                    kept.append(door)
                else:
                    gone.append(door[1])
            await stop_accepting(*gone)
            for server in gone:
                server.close()
            closed = {listener for listener, _ in self._open} - {
                listener for listener, _ in kept
            }
            for client in tuple(self.clients):
                if client.came_by in closed:
                    client.abort()
            self._open = kept
            for listener in wanted:
                await self._listen(listener)

    async def _listen(self, listener: ListenerSettings) -> None:
        tls: ssl.SSLContext | None = None
        if listener.tls is not None:
            tls = await self._loop.run_in_executor(None, listener.tls.context)
        server = await self._loop.create_server(
            lambda: self._accept(listener, tls),
            listener.host,
            listener.port,
            backlog=_ACCEPT_ONE,
        )
        with contextlib.suppress(NotImplementedError):  # loops without sockets
            for sock in server.sockets:
                with sock.dup() as same:
                    same.listen(_BACKLOG)
        self._open.append((listener, server))
        if self._stopping:
            self._close_servers()

    def _accept(
        self, listener: ListenerSettings, tls: ssl.SSLContext | None
    ) -> asyncio.Protocol:
        """Make what is told of a connection that has come by a port."""
        client = Client(self, self.protocol.downstream(listener.framing), tls)
        client.came_by = listener
        return cast("asyncio.Protocol", client)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The addresses it listens on."""
        return tuple(
            sock.getsockname()[:2]
            for _, server in self._open
            for sock in server.sockets
        )

    def _close_servers(self) -> None:
        for _, server in self._open:
            server.close()
        self._open.clear()

    async def stop_accepting(self) -> None:
        """Complete the accepts that are under way, and begin no more."""
        await stop_accepting(*(server for _, server in self._open))

    async def stop(self) -> None:
        """Close the port and every client, whatever they do."""
        self._stopping = True
        self._close_servers()
        self.memory.stop()
        self._wait_for_idle(inf)
        for client in tuple(self.clients):
            client.abort()
        if self.clients:
            self._gone = self._loop.create_future()
            await self._gone

    # ---- clients that ask nothing ------------------------------------------------

    def _wait_for_idle(self, at: float) -> None:
        """Look at `at` which clients have been idle for too long; never if infinite."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if at < inf:
            self._idle_timer = self._loop.call_at(at, self._close_idle)

    def _close_idle(self) -> None:
        """Close the clients that have been idle for too long, and wait for the next."""
        now, limit = self._loop.time(), self.settings.client_idle_timeout
        due = inf
        for client in tuple(self.clients) if limit else ():
            since = client.idle_since
            at = now if since is None else since + limit
            if since is not None and at <= now:
                client.close_idle()
            else:
                due = min(due, at)
        self._wait_for_idle(max(due, now + _IDLE_STEP))

    # ---- clients come and go ----------------------------------------------------

    @override
    def admit(self, client: ClientConnection, sock: TransportSocket | None) -> bool:
        if self._stopping:
            return False
        reason = self._refuses(client, sock)
        if reason is not None:
            self._refuse(client, reason)
            return False
        self.clients[client] = None
        self._addresses[client.peer] += 1
        self._statistics.clients_peak = max(
            self._statistics.clients_peak, len(self.clients)
        )
        self.queue.join(client)
        if self._idle_timer is None and self.settings.client_idle_timeout:
            now = self._loop.time()
            self._wait_for_idle(now + self.settings.client_idle_timeout)
        LOGGER.debug("Client %s is accepted", client.name)
        self._tell(EventType.CLIENT_CONNECTED, client)
        return True

    def _refuses(
        self, client: ClientConnection, sock: TransportSocket | None
    ) -> ClientRefusal | None:
        if not is_in(client.peer, self.settings.allowed_networks):
            return ClientRefusal.NOT_ALLOWED
        most = self.settings.max_clients
        if len(self.clients) >= most:
            return ClientRefusal.TOO_MANY_CLIENTS
        share = max(most // ADDRESS_SHARE, ADDRESS_LEAST)
        if self._addresses[client.peer] >= share:
            return ClientRefusal.TOO_MANY_FROM_ADDRESS
        if sock is not None and is_one_too_many(sock):
            return ClientRefusal.TOO_MANY_OPEN_FILES
        return None

    def _refuse(self, client: ClientConnection, reason: ClientRefusal) -> None:
        self._statistics.clients_refused += 1
        level = logging.DEBUG
        now = self._loop.time()
        if reason is ClientRefusal.TOO_MANY_OPEN_FILES and now >= self._warn_again:
            self._warn_again = now + _WARN_SECONDS
            level = logging.WARNING
        LOGGER.log(level, "Client %s refused: %s", client.name, reason)
        self._tell(EventType.CLIENT_REFUSED, client, reason)

    @override
    def forget(self, client: ClientConnection) -> None:
        del self.clients[client]
        self._addresses[client.peer] -= 1
        if not self._addresses[client.peer]:
            del self._addresses[client.peer]
        self._statistics.gone.add(client)
        self.groups.left(client)
        self.memory.forget(client)
        if self._gone is not None and not self.clients and not self._gone.done():
            self._gone.set_result(None)
        self._tell(EventType.CLIENT_DISCONNECTED, client)

    def _tell(
        self,
        kind: EventType,
        client: ClientConnection,
        reason: ClientRefusal | None = None,
    ) -> None:
        self._events.emit_merged(Event(kind, client.address, reason))

    @override
    def complain(self, client: ClientConnection, reason: str) -> None:
        """Count bytes that are no request, and log that, loudly once per address."""
        self._statistics.invalid_requests += 1
        level = logging.DEBUG
        address = client.address or ""
        if address not in self._warned and len(self._warned) < 100:
            self._warned.add(address)
            level = logging.WARNING
        LOGGER.log(
            level,
            "Client %s does not speak %s as expected: %s",
            client.name,
            self.protocol.name,
            reason,
        )
