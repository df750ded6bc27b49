"""The downstream side: accepts or refuses clients, and keeps what they share.

Clients share the memory for large messages. Where requests reach its limit, they wait
for one another; where unread responses do, the client that leaves most unread is
closed. And each gets only so long to complete a message that it began.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from ..settings import ListenerSettings
from ..tls import HANDSHAKE_SECONDS, SHUTDOWN_SECONDS
from .client import Client

if TYPE_CHECKING:
    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.queue import RequestQueue
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol
    from ..settings import Settings

LOGGER = logging.getLogger(__name__)

_BACKLOG = 1024
_ACCEPT_TURNS = 3
"""Turns of the loop between asyncio's accepting a connection and `connection_made`."""
BUFFER_LIMIT = 64 << 20
"""Bytes of large requests, complete or not, over all clients; and as many again of
responses that clients do not read. The oldest incomplete request may go beyond."""


class Listener:
    """The listening socket and the clients that came in by it."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        dispatcher: Dispatcher,
        statistics: Statistics,
        events: Events,
    ) -> None:
        """Join the parts; `start` opens the port."""
        self.settings = settings
        self.protocol = protocol
        self.queue = queue
        self.dispatcher = dispatcher
        self.statistics = statistics
        self.events = events
        self.clients: dict[Client, None] = {}
        """In the order in which they came, so that a run can be repeated exactly."""
        self.stopping = False
        """Nobody is accepted any more, though a handshake may yet come to its end."""
        self.buffered = 0
        """Bytes that large messages occupy, over all clients."""
        self._incomplete = 0
        """Of these, those of messages that are still to be completed."""
        self._starved: dict[Client, None] = {}
        """Clients read no further until there is memory again."""
        self._unread: dict[Client, int] = {}
        """Bytes of responses that clients do not take."""
        self._begun: dict[Client, float] = {}
        """When each incomplete message began, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] | None = None
        self._warned: set[str] = set()

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

    async def _listen(self, listener: ListenerSettings) -> None:
        options: dict[str, Any] = {}
        if listener.tls is not None:
            options = {
                "ssl": await self._loop.run_in_executor(None, listener.tls.context),
                "ssl_handshake_timeout": HANDSHAKE_SECONDS,
                "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
            }
        server = await self._loop.create_server(
            lambda: Client(self, self.protocol.downstream(listener.framing)),
            listener.host,
            listener.port,
            backlog=_BACKLOG,
            **options,
        )
        self._servers.append(server)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The addresses it listens on."""
        return tuple(
            sock.getsockname()[:2]
            for server in self._servers
            for sock in server.sockets
        )

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def stop_accepting(self) -> None:
        """Take in who is being accepted, and nobody else.

        asyncio accepts a connection in several turns of the loop, and loses it, open,
        if its server is closed meanwhile.
        """
        with contextlib.suppress(NotImplementedError):  # loops without readers
            for server in self._servers:
                for sock in server.sockets:
                    self._loop.remove_reader(sock)
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Close the port and every client, whatever they do."""
        self.stopping = True
        servers = tuple(self._servers)
        self._close_servers()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for client in tuple(self.clients):
            client.abort()
        if self.clients:
            self._gone = self._loop.create_future()
            await self._gone
        if any(listener.tls for listener in self.settings.more_listeners):
            for server in servers:
                server.abort_clients()  # those whose handshake is not done

    def forget(self, client: Client) -> None:
        """Note that a client's connection is gone."""
        del self.clients[client]
        self.statistics.gone.add(client)
        self._starved.pop(client, None)
        self._begun.pop(client, None)
        self._unread.pop(client, None)
        if self._gone is not None and not self.clients and not self._gone.done():
            self._gone.set_result(None)

    # ---- memory -----------------------------------------------------------------

    def occupy(self, size: int, *, incomplete: bool = False) -> None:
        """Count bytes of large messages, or with a negative size their end."""
        self.buffered += size
        if incomplete:
            self._incomplete += size
        for client in tuple(self._starved):
            if self.has_memory(client):
                self._starved.pop(client, None)
                client.read_on()

    def has_memory(self, client: Client) -> bool:
        """Tell whether a large message of the client's may grow.

        Where all memory is in messages that are incomplete, the oldest must grow, or
        none would ever be complete.
        """
        if self.buffered <= BUFFER_LIMIT:
            return True
        if self.buffered > self._incomplete:
            return False
        return client is next((other for other in self._begun if other.occupied), None)

    def starve(self, client: Client) -> None:
        """Read a client on when there is memory again."""
        self._starved[client] = None

    def unread(self, client: Client, size: int) -> None:
        """Note the bytes that a client does not take, or with 0 that it took them."""
        if not size:
            self._unread.pop(client, None)
            return
        self._unread[client] = size
        while len(self._unread) > 1 and sum(self._unread.values()) > BUFFER_LIMIT:
            worst = max(self._unread, key=self._unread.__getitem__)
            LOGGER.warning("Client %s is closed: it reads no responses", worst.name)
            del self._unread[worst]
            worst.abort()

    # ---- messages that never become complete ------------------------------------

    def begun(self, client: Client, *, incomplete: bool) -> None:
        """Note whether a message of the client's has begun and is not complete."""
        if not incomplete:
            self._begun.pop(client, None)
            if self._starved:
                self.occupy(0)  # another one is the oldest now
        elif client not in self._begun:
            self._begun[client] = self._loop.time()
            if self._timer is None:
                self._arm(self._loop.time() + self.settings.timeout)

    def _arm(self, at: float) -> None:
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        begun_before = self._loop.time() - self.settings.timeout + 1e-3
        for client, since in tuple(self._begun.items()):
            if since > begun_before:
                self._arm(since + self.settings.timeout)
                return
            del self._begun[client]
            client.fail("a message was begun and not completed in time")

    # ---- words about clients ----------------------------------------------------

    def complain(self, client: Client, reason: str) -> None:
        """Count bytes that are no request, and log that, loudly once per address."""
        self.statistics.invalid_requests += 1
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
