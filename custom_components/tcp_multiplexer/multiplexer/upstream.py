"""One connection to the device, as the pool sees it, and the usual kind of it.

`Upstream` is what the pool needs of a connection: open it, send an exchange, close
it, and be told what came of that. `SocketUpstream` is a protocol's upstream codec on a
TCP socket. It decides nothing: whether to retry, to reopen or to give up is the pool's.
"""

from abc import ABC, abstractmethod
import asyncio
import contextlib
import enum
import socket
from typing import TYPE_CHECKING, Any, Protocol as Interface, cast, override

from .protocols.base import Answer, Close, Failed, SendBack, Stray
from .tls import SHUTDOWN_SECONDS

if TYPE_CHECKING:
    import ssl

    from .exchange import Exchange, Requester
    from .protocols.base import Failure, Request, UpstreamCodec, UpstreamEvent
    from .statistics import Statistics

CONNECT_SECONDS = 5.0
"""One attempt lasts at most so long."""
_KEEPALIVE_IDLE = 30
_KEEPALIVE_INTERVAL = 10
_KEEPALIVE_COUNT = 3
_USER_TIMEOUT_MS = 30_000


class CloseReason(enum.Enum):
    """Why an upstream connection ended."""

    CLOSED_BY_DEVICE = "closed_by_device"
    RESET = "reset"
    """The device or the network broke it off."""
    NO_RESPONSE = "no_response"
    """We closed it: a response is missing and could still come."""
    INVALID_DATA = "invalid_data"
    """We closed it: what the device sent cannot be trusted."""
    IDLE = "idle"
    LIFETIME = "lifetime"
    RECONNECT = "reconnect"
    PAUSED = "paused"
    STOPPED = "stopped"
    SPENT = "spent"
    """The protocol allows no further request on it."""


class UpstreamOwner(Interface):
    """What a connection tells the pool."""

    statistics: Statistics
    """Where bytes on the wire are counted."""

    def answered(self, upstream: Upstream, exchange: Exchange, response: Any) -> None:
        """Hear the response to an exchange."""

    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        """Hear that an exchange got something that cannot be passed on."""

    def stray(self, upstream: Upstream, event: Stray) -> None:
        """Hear of bytes that nobody asked for."""

    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        """Hear that the connection is gone, whoever closed it. Told once."""


class Upstream(ABC):
    """One way to the device, open from the end of `open` until `lost`."""

    def __init__(self, owner: UpstreamOwner) -> None:
        """Belong to a pool; nothing is opened yet."""
        self.owner = owner
        self.in_flight: dict[Request, Exchange] = {}
        """Sent and neither answered nor given up, the oldest first."""
        self.waiting: list[Requester] = []
        """Requesters whose next request must go here, when there is place."""
        self.ready = False
        """A request may be sent now; the pool keeps this true."""
        self.opened_at = 0.0
        self.not_before = 0.0
        """No request may be sent earlier."""
        self.last_used = 0.0
        """When the last exchange but a probe ended here."""
        self.last_received = 0.0
        self.received = False
        """At least one byte came."""
        self.responses = 0
        self.sent = 0
        """Requests sent."""
        self.timeouts_in_a_row = 0
        """Requests given up since the last byte came."""
        self.discarded_for: Exchange | None = None
        """Whose response lenient matching would have seen in the last stray."""
        self.on_trial = False
        """An extra connection that has not answered yet."""
        self.trial_until = 0.0
        """When the response to the request in flight on trial must have begun."""
        self.retiring: CloseReason | None = None
        """It gets no further request and closes, for this reason, when empty."""
        self.reusable = True
        """False once it must not carry another request."""

    @property
    def quiet(self) -> float:
        """Seconds for which nothing may be sent after a timeout."""
        return 0.0

    @abstractmethod
    async def open(self) -> None:
        """Connect.

        Raises:
            OSError: no connection; the text says why.

        """

    @abstractmethod
    def send(self, exchange: Exchange) -> None:
        """Send a request."""

    @abstractmethod
    def begun(self, exchange: Exchange) -> bool:
        """Tell whether a byte of its response may have come."""

    @abstractmethod
    def expire(self, exchange: Exchange) -> bool:
        """Give up waiting for a response; tell whether the connection may be kept."""

    @abstractmethod
    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Close; `lost` follows at once."""


class SocketUpstream(Upstream, asyncio.Protocol):
    """A protocol's codec on a TCP connection."""

    def __init__(
        self,
        owner: UpstreamOwner,
        codec: UpstreamCodec[Any],
        address: tuple[str, int],
        *,
        batch: bool,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """Speak `codec` to `address`; `batch` joins what one turn of the loop sends."""
        super().__init__(owner)
        self._statistics = owner.statistics
        self._codec = codec
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._batch = batch
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls,
                "server_hostname": server_name or address[0],
                "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
            }
        self._framed_by_silence = codec.framed_by_silence
        self._tick: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._open = False
        self._told = False

    @property
    @override
    def quiet(self) -> float:
        return self._codec.quiet

    @override
    async def open(self) -> None:
        host, port = self._address
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._loop.create_connection(
                    lambda: self, host, port, **self._tls
                )
        except TimeoutError:
            self._abandon()
            message = (
                f"no answer to the connection attempt within {CONNECT_SECONDS:g} s"
            )
            raise TimeoutError(message) from None
        except BaseException:
            self._abandon()
            raise
        if self._told:
            message = "the device closed the connection as soon as it was open"
            raise ConnectionAbortedError(message)
        self._open = True
        self.opened_at = self.last_used = self.last_received = self._loop.time()

    def _abandon(self) -> None:
        self._told = True
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        set_keepalive(transport)

    @override
    def send(self, exchange: Exchange) -> None:
        request = exchange.request
        data = self._codec.send(request)
        self.in_flight[request] = exchange
        self.sent += 1
        self._statistics.bytes_to_upstream += len(data)
        if self._framed_by_silence:
            self._set_tick()
        if not self._batch:
            self._transport.write(data)  # type: ignore[union-attr]
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None and not self._told:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    @override
    def data_received(self, data: bytes) -> None:
        if self._told:
            return
        self.received = True
        self.timeouts_in_a_row = 0
        self.last_received = self._loop.time()
        self._statistics.bytes_from_upstream += len(data)
        answer = self._codec.whole_answer(data)
        if answer is not None:
            request, response = answer
            self.responses += 1
            self.owner.answered(self, self.in_flight.pop(request), response)
            return
        self._handle(self._codec.feed(data))
        if self._framed_by_silence:
            self._set_tick()

    def _set_tick(self) -> None:
        """Ask the codec again when silence may have ended a frame."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        at = self._codec.deadline(self._loop.time())
        if at is not None and not self._told:
            self._tick = self._loop.call_at(at, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        self.last_received = now = self._loop.time()
        self._handle(self._codec.tick(now))
        self._set_tick()

    def _handle(self, events: list[UpstreamEvent[Any]]) -> None:
        if not self._codec.reusable or (events and type(events[-1]) is Close):
            self.reusable = False  # what is answered first must free nothing for others
        for event in events:
            kind = type(event)
            if kind is Answer:
                exchange = self.in_flight.pop(event.request)  # type: ignore[union-attr]
                self.responses += 1
                self.owner.answered(self, exchange, event.response)  # type: ignore[union-attr]
            elif isinstance(event, Failed):
                exchange = self.in_flight.pop(event.request)
                self.owner.unanswerable(self, exchange, event.failure)
            elif isinstance(event, Stray):
                self.owner.stray(self, event)
            elif isinstance(event, SendBack):
                self._write_back(event.data)
            elif isinstance(event, Close):
                self.close(CloseReason.INVALID_DATA, event.reason)
            if self._told:
                return

    def _write_back(self, data: bytes) -> None:
        if self._transport is not None:
            self._statistics.bytes_to_upstream += len(data)
            self._transport.write(data)

    @override
    def eof_received(self) -> bool:
        if not self._told:
            self.reusable = False
            self.last_received = self._loop.time()
            self._handle(self._codec.eof())
            self.close(CloseReason.CLOSED_BY_DEVICE)
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._end(CloseReason.CLOSED_BY_DEVICE, "")
        else:
            self._end(CloseReason.RESET, str(exc))

    @override
    def begun(self, exchange: Exchange) -> bool:
        return self._codec.begun(exchange.request)

    @override
    def expire(self, exchange: Exchange) -> bool:
        del self.in_flight[exchange.request]
        self.timeouts_in_a_row += 1
        keep = self._codec.expire(exchange.request)
        self.reusable = self.reusable and self._codec.reusable
        return keep

    @override
    def close(self, reason: CloseReason, detail: str = "") -> None:
        if self._transport is not None:
            # abort, not close: nothing that is still unsent may reach the device
            # after its requester has been told that it failed
            self._transport.abort()
        self._end(reason, detail)

    def _end(self, reason: CloseReason, detail: str) -> None:
        """Tell the owner, once, at the moment when the connection is of no more use."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if not self._told:
            self._told = True
            if self._open:
                self.owner.lost(self, reason, detail)


def set_keepalive(transport: asyncio.BaseTransport) -> None:
    """Make the system find a dead peer within about a minute.

    Options that this system does not know are left out.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    options = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", _KEEPALIVE_IDLE),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", _KEEPALIVE_COUNT),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", _USER_TIMEOUT_MS),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    )
    for level, name, value in options:
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)
