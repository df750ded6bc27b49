"""The downstream side: accepts or refuses clients, and serves each connection.

A `Client` is a downstream codec on an accepted socket. What it reads becomes
exchanges; it never waits for one, it is told. Where the protocol is `ordered`, what
it has to say waits in line until all that came before it is said.

A client may not fill memory. One that asks more than the queue takes, or does not
read its responses, is read no further: TCP tells its sender to wait. Where the
protocol asks for that, a little is read all the same, so that its close is seen.
Of responses it gets at most two that it does not read: the one that was in flight when
the first did not fit. Large messages of all clients together have a limit, too. Where
requests reach it, they wait for one another; where unread responses do, the client that
leaves most unread is closed.
"""

import asyncio
from collections import deque
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast, override

from .events import Event, EventType
from .exchange import Exchange, Requester
from .policy import is_in, parse_peer
from .protocols.base import Close, Failure, Ignored, Reply, Request
from .settings import ListenerSettings
from .snapshot import ClientSnapshot
from .tls import HANDSHAKE_SECONDS, SHUTDOWN_SECONDS
from .upstream import set_keepalive

if TYPE_CHECKING:
    from .events import Events
    from .pool import UpstreamPool
    from .protocols.base import DownstreamCodec, DownstreamEvent, Protocol
    from .queue import RequestQueue
    from .settings import Settings
    from .statistics import Statistics

LOGGER = logging.getLogger(__name__)

_BACKLOG = 1024
_ACCEPT_TURNS = 3
"""Turns of the loop between asyncio's accepting a connection and `connection_made`."""
_LINGER_SECONDS = 2.0
"""A refused client may go on sending for so long; nobody listens."""
BUFFER_LIMIT = 64 << 20
"""Bytes of large requests, complete or not, over all clients; and as many again of
responses that clients do not read. The oldest incomplete request may go beyond."""
_READ_AT_ONCE = 64 << 10
"""Less than asyncio would read: what is read of a client held back must be kept."""
_SMALL = 64 << 10
"""Messages up to here are too small to be counted against `BUFFER_LIMIT`."""


class Listener:
    """The listening socket and the clients that came in by it."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        pool: UpstreamPool,
        statistics: Statistics,
        events: Events,
    ) -> None:
        """Join the parts; `start` opens the port."""
        self.settings = settings
        self.protocol = protocol
        self.queue = queue
        self.pool = pool
        self.statistics = statistics
        self.events = events
        self.clients: dict[Client, None] = {}
        """In the order in which they came, so that a run can be repeated exactly."""
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
        protocol = self.protocol
        serial = listener.framing == "rtu"
        make_codec = protocol.downstream_rtu if serial else protocol.downstream
        ordered = protocol.ordered or serial
        options: dict[str, Any] = {}
        if listener.tls is not None:
            options = {
                "ssl": await self._loop.run_in_executor(None, listener.tls.context),
                "ssl_handshake_timeout": HANDSHAKE_SECONDS,
                "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
            }
        server = await self._loop.create_server(
            lambda: Client(self, make_codec(), ordered=ordered),
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
        self.clients.pop(client, None)
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


class Client(asyncio.Protocol, Requester):
    """One accepted connection."""

    def __init__(
        self, listener: Listener, codec: DownstreamCodec[Any], *, ordered: bool
    ) -> None:
        """Wait for `connection_made`."""
        Requester.__init__(self)
        self._listener = listener
        self._queue = listener.queue
        self._pool = listener.pool
        self._statistics = listener.statistics
        self._loop = asyncio.get_running_loop()
        self._codec = codec
        self._ordered = ordered
        self._transport: asyncio.Transport | None = None
        self._read_at_once = listener.protocol.read_while_held // 2 or _READ_AT_ONCE
        self._line: deque[Exchange | Reply | Close] = deque()
        """What an ordered client has yet to be told, in order."""
        self._eof = False
        self._reading = True
        self._accepted = False
        self._incomplete = False
        self._tls = False
        self.occupied = 0
        """Bytes of its large message that is still to be completed."""
        self._linger: asyncio.TimerHandle | None = None
        """Set once it has been told our last words; closes it at the latest."""
        self.name = "?"
        self.port = 0
        self.since = 0.0
        self.requests = 0
        self.responses = 0
        self.failures = 0
        self.refused = 0
        self.last_request: float | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    # ---- the connection ---------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        listener = self._listener
        peer = transport.get_extra_info("peername")
        if not peer:  # gone before it was accepted
            self.abort()
            return
        address = parse_peer(peer[0])
        self.peer = address
        self.address = str(address)
        self.port = peer[1]
        host = f"[{address}]" if address.version == 6 else self.address
        self.name = f"{host}:{self.port}"
        reason = None
        if not is_in(address, listener.settings.allowed_networks):
            reason = "not_allowed"
        elif len(listener.clients) >= listener.settings.max_clients:
            reason = "too_many_clients"
        if reason is not None:
            self._statistics.clients_refused += 1
            LOGGER.debug("Client %s refused: %s", self.name, reason)
            self.abort()
            listener.events.tell_merged(
                Event(EventType.CLIENT_REFUSED, self.address, reason)
            )
            return
        self._accepted = True
        self._tls = transport.get_extra_info("ssl_object") is not None
        set_keepalive(transport)
        transport.max_size = self._read_at_once  # type: ignore[attr-defined]
        self.since = self._loop.time()
        listener.clients[self] = None
        self._statistics.clients_peak = max(
            self._statistics.clients_peak, len(listener.clients)
        )
        self._queue.join(self)
        LOGGER.info("Client %s connected", self.name)
        listener.events.tell_merged(Event(EventType.CLIENT_CONNECTED, self.address))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self._accepted:
            return
        if self._linger is not None:
            self._linger.cancel()
        self._leave()
        occupied, self.occupied = self.occupied, 0
        self._listener.occupy(-occupied, incomplete=True)
        self._line.clear()
        self._listener.forget(self)
        LOGGER.info("Client %s disconnected%s", self.name, f": {exc}" if exc else "")
        self._listener.events.tell_merged(
            Event(EventType.CLIENT_DISCONNECTED, self.address)
        )

    def _leave(self) -> None:
        """Ask nothing more on behalf of somebody who is not there."""
        if not self.gone:
            self.gone = True
            for exchange in self._pool.leave(self):
                if len(exchange.request.payload) > _SMALL:
                    self._release(exchange)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def fail(self, reason: str) -> None:
        """Close the connection because of what the client sent."""
        self._listener.complain(self, reason)
        self._close()

    def _close(self) -> None:
        """Close the connection once what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def _close_after_last_words(self) -> None:
        """Close in stages: say no more, and close once the client does the same.

        A client whose connection is closed while it sends is reset by the system, and
        never reads what it was told (RFC 9112 §9.6).
        """
        transport = self._transport
        if transport is None or self._eof or not transport.can_write_eof():
            self._close()
            return
        transport.write_eof()
        self._linger = self._loop.call_later(_LINGER_SECONDS, self.abort)
        if not self._reading:
            self._reading = True
            transport.resume_reading()

    # ---- reading ----------------------------------------------------------------

    @override
    def data_received(self, data: bytes) -> None:
        if not self._accepted or self._closing:
            return
        self.bytes_in += len(data)
        self._statistics.bytes_from_clients += len(data)
        self._codec.receive_data(data)
        if self.blocked or self.held:
            self._pause_if_full()
        else:
            self._read()

    @property
    def _closing(self) -> bool:
        if self._transport is None or self._linger is not None:
            return True
        return self._transport.is_closing()

    def _read(self) -> None:
        """Take requests from what was received, as far as there is room for them."""
        codec = self._codec
        now = self._loop.time()
        asked = False
        buffered = codec.buffered
        while buffered:
            if (self.pending or self.joined) and not self._queue.has_room(self):
                self._queue.block(self)
                self._pause_if_full()
                break
            event = codec.next_event()
            if event is None:
                buffered = codec.buffered
                break
            if type(event) is Request:
                self._ask(event, now)
                asked = True
            elif not self._take(event):
                break
            buffered = codec.buffered
        if asked and self._incomplete:  # what has begun now is another message
            self._listener.begun(self, incomplete=False)
        if buffered or self._incomplete:
            self._count_incomplete(0 if self.blocked else buffered)
        if asked:
            self._pool.dispatch(now)

    def _ask(self, request: Request, now: float) -> None:
        self.requests += 1
        self._statistics.requests += 1
        self.last_request = now
        timeout = self._listener.settings.timeout
        exchange = Exchange(request, self, now, now + timeout)
        if self._ordered:
            self._line.append(exchange)
        if len(request.payload) > _SMALL:
            self._listener.occupy(len(request.payload))
        self._pool.submit(exchange)

    def _take(self, event: DownstreamEvent) -> bool:
        """Take what is not a request; tell whether reading goes on."""
        if isinstance(event, Ignored):
            self._listener.complain(self, event.reason)
            return True
        if isinstance(event, Close):
            self._listener.complain(self, event.reason)
        self._line.append(cast("Reply | Close", event))
        self._say()
        return not isinstance(event, Close)

    def _count_incomplete(self, buffered: int) -> None:
        """Keep account of a message's time and memory while it is incomplete."""
        self._incomplete = buffered > 0
        self._listener.begun(self, incomplete=self._incomplete)
        size = buffered if buffered > _SMALL else 0
        if size != self.occupied:
            grown = size - self.occupied
            self.occupied = size
            self._listener.occupy(grown, incomplete=True)
        if size and not self._listener.has_memory(self):
            self._stop_reading()
            self._listener.starve(self)

    def _pause_if_full(self) -> None:
        room = self._listener.protocol.read_while_held - self._codec.buffered
        if room < self._read_at_once:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def read_on(self) -> None:
        """Read on: nothing stands in the way that did."""
        if self.blocked or self.held or self._closing:
            return
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        self._read()
        if self._eof:
            self._close_if_done()

    @override
    def unblock(self) -> None:
        self.read_on()

    @override
    def eof_received(self) -> bool:
        if not self._accepted or self._closing:
            return False
        self._eof = True
        if self._listener.protocol.drop_reads_at_eof:
            self._take_last()
            self._leave()
        elif not self.blocked:
            unfinished = self._codec.eof()
            if unfinished is not None:
                self._listener.complain(self, unfinished.reason)
        self._close_if_done()
        return not self._tls  # within TLS there is no half-close

    def _take_last(self) -> None:
        """Take the writes that were received and had no room in the queue yet."""
        while (event := self._codec.next_event()) is not None:
            if isinstance(event, Close):
                break
            if isinstance(event, Request) and event.writes is not None:
                self._ask(event, self._loop.time())

    def _close_if_done(self) -> None:
        """Close after a half-close, once nothing is left to be said."""
        if not (self.pending or self.in_flight or self._line or self.blocked):
            self._listener.begun(self, incomplete=False)
            self._close()

    # ---- writing ----------------------------------------------------------------

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        self.responses += 1
        if len(exchange.request.payload) > _SMALL:
            self._release(exchange)
        if self._ordered:
            exchange.outcome = (response, None)
            self._say()
        else:
            self._write(self._codec.reply(exchange.request, response))
        if self._eof:
            self._close_if_done()

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        self.failures += 1
        if failure.is_rule:
            self.refused += 1
        if len(exchange.request.payload) > _SMALL:
            self._release(exchange)
        if self._ordered:
            exchange.outcome = (None, failure)
            self._say()
        else:
            self._write_or_close(self._codec.refuse(exchange.request, failure))
        if self._eof:
            self._close_if_done()

    def _release(self, exchange: Exchange) -> None:
        """Give back the memory of a large request that has ended."""
        self._listener.occupy(-len(exchange.request.payload))

    def _say(self) -> None:
        """Say what stands first in the line, as far as it is known."""
        line = self._line
        while line and not self._closing:
            item = line[0]
            if isinstance(item, Exchange):
                if item.outcome is None:
                    return
                response, failure = item.outcome
                if failure is None:
                    self._write(self._codec.reply(item.request, response))
                else:
                    self._write_or_close(self._codec.refuse(item.request, failure))
                if self._codec.must_close:
                    self._close()
            elif isinstance(item, Close):
                self._write(item.data)
                if item.data:
                    self._close_after_last_words()
                else:
                    self._close()
            else:
                self._write(item.data)
            line.popleft()

    def _write_or_close(self, data: bytes | None) -> None:
        if data is None:
            self._close()
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or self._closing or not data:
            return
        self.bytes_out += len(data)
        self._statistics.bytes_to_clients += len(data)
        transport.write(data)
        if self.held:
            self._listener.unread(self, transport.get_write_buffer_size())

    @override
    def pause_writing(self) -> None:
        self.held = True
        self._listener.begun(self, incomplete=False)  # it may be complete, but unread
        self._pause_if_full()

    @override
    def resume_writing(self) -> None:
        self.held = False
        self._listener.unread(self, 0)
        self._queue.offer(self)
        self.read_on()
        self._pool.dispatch(self._loop.time())

    def snapshot(self, clock: float) -> ClientSnapshot:
        """Give the client as it is now; `clock` turns loop time into time of day."""
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
