"""Connections that the device opens: a local port, on which it is expected.

There is one connection at a time. A device that dials again while one is open has lost
it, or somebody took its address: the new one waits until the old one shows whether it
is alive, by a byte from the device, by an answer of its system, or by a missing
response.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
import logging
from typing import TYPE_CHECKING, Any, cast, override

from ..dispatch.exchange import CloseReason
from ..networks import is_in, parse_peer
from ..protocols.base import Unsolicited
from ..sockets import hasten_keepalive, set_keepalive, stop_accepting
from .route import Route
from .socket_upstream import StreamUpstream, prepare_socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..dispatch.exchange import Exchange, Upstream, UpstreamOwner
    from ..memory import Memory
    from ..networks import Address
    from ..protocols.base import Protocol, UpstreamCodec, UpstreamEvent
    from ..protocols.options import DialIn
    from ..settings import Settings

LOGGER = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
"""How long a new connection waits to be used; the old one's system answers in less."""
_NAMED = 100
"""Addresses of strangers that are logged."""


class _Dial(asyncio.Protocol):
    """A connection that was accepted and is not used yet: nothing is read from it."""

    def __init__(self, route: DialInRoute) -> None:
        self._route = route
        self.transport: asyncio.Transport
        self.peer: Address

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.pause_reading()
        self.peer = parse_peer(transport.get_extra_info("peername")[0])
        self._route.dialled(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._route.withdraw(self)


class DialInRoute(Route):
    """Connections that one device opens to a local port."""

    expects = True

    def __init__(
        self,
        dial_in: DialIn,
        settings: Callable[[], Settings],
        protocol: Protocol[Any],
        learned: Callable[[str], None],
        memory: Memory,
    ) -> None:
        """Call `learned` with the device's address, once it is known to be that."""
        self._dial_in = dial_in
        self._settings = settings
        self._protocol = protocol
        self._learned = learned
        self._memory = memory
        self._device = ip_address(dial_in.device) if dial_in.device else None
        self._server: asyncio.Server | None = None
        self._offer: _Dial | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._offered = asyncio.Event()
        self._strangers: set[Address] = set()
        self.current: DialInUpstream | None = None
        """The connection that is open."""

    @property
    def is_offered(self) -> bool:
        """Whether the device has dialled again, and waits."""
        return self._offer is not None

    @override
    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Dial(self), self._dial_in.host, self._dial_in.port
        )

    @override
    def make(self, owner: UpstreamOwner) -> Upstream:
        batch = self._settings().max_in_flight > 1
        return DialInUpstream(
            owner, self._protocol, self, batch=batch, memory=self._memory
        )

    @override
    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await stop_accepting(server)
            server.close()
        self.decline()

    # ---- who dials --------------------------------------------------------------

    def dialled(self, dial: _Dial) -> None:
        """Offer a connection to whoever waits for one, if it is the device's."""
        if self._server is None or not self._may_dial(dial.peer):
            dial.transport.abort()
            return
        self.decline()  # of a device's connections, the last is the one that it knows
        self._offer = dial
        self._offered.set()
        self._wait()
        if self.current is not None:
            self.current.prove_alive()

    def _may_dial(self, peer: Address) -> bool:
        if self._device is not None:
            known = peer == self._device
        else:
            known = is_in(peer, self._settings().allowed_networks)
        if not known and peer not in self._strangers and len(self._strangers) < _NAMED:
            self._strangers.add(peer)
            LOGGER.warning("%s dialled in, and is not the device", peer)
        return known

    def answers(self, peer: Address) -> None:
        """Note that a device answers from this address."""
        if self._device is None:
            self._device = peer
            self._learned(str(peer))

    # ---- a connection that waits ------------------------------------------------

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WAIT_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        if self.current is not None and self.current.in_flight:
            self._wait()  # a missing response will tell
        else:
            self.decline()

    def decline(self) -> None:
        """Close the connection that waits, if there is one."""
        dial = self._offer
        if dial is not None:
            self.withdraw(dial)
            dial.transport.abort()
            if self.current is not None:
                self.current.is_alive()

    def withdraw(self, dial: _Dial) -> None:
        """Forget a connection that waits no longer."""
        if dial is self._offer:
            self._offer = None
            self._offered.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    async def take(self) -> _Dial:
        """Return the next connection of the device."""
        while self._offer is None:
            await self._offered.wait()
        dial = self._offer
        self.withdraw(dial)
        return dial


class DialInUpstream(StreamUpstream):
    """A protocol's codec on a connection that the device opened."""

    def __init__(
        self,
        owner: UpstreamOwner,
        protocol: Protocol[Any],
        route: DialInRoute,
        *,
        batch: bool,
        memory: Memory,
    ) -> None:
        """Wait for the device to dial in."""
        codec: UpstreamCodec[Any] = protocol.upstream()
        super().__init__(owner, codec, batch=batch, connect_seconds=None, memory=memory)
        self._route = route
        self._strip_greeting = protocol.greeting()
        self._dial: _Dial | None = None

    @override
    async def _connect(self) -> None:
        dial = self._dial = await self._route.take()
        self._route.current = self
        prepare_socket(dial.transport)
        dial.transport.set_protocol(self.as_protocol)
        self.connection_made(dial.transport)
        dial.transport.resume_reading()

    @override
    def data_received(self, data: bytes) -> None:
        if self._route.is_offered:
            self._route.decline()
        if not self.responses and self._strip_greeting is not None:
            data = self._strip_greeting(data)
            if not data:
                return
        known = self.responses
        super().data_received(data)
        if not known and self.responses and self._dial is not None:
            self._route.answers(self._dial.peer)

    @override
    def _handle(self, events: list[UpstreamEvent[Any]]) -> None:
        if not self.responses:
            # What fits no request may be a greeting of another kind.
            events = [each for each in events if not _is_greeting(each)]
        super()._handle(events)

    @override
    def expire(self, exchange: Exchange) -> bool:
        return super().expire(exchange) and not self._route.is_offered

    def prove_alive(self) -> None:
        """Find out whether the device still knows this connection."""
        if self.timeouts_in_a_row and not self.in_flight:
            self.close(CloseReason.NO_RESPONSE, "the device has dialled again")
        elif self._dial is not None:
            hasten_keepalive(self._dial.transport)

    def is_alive(self) -> None:
        """Note that the device knows this connection."""
        if self._dial is not None:
            set_keepalive(self._dial.transport)

    @override
    def _end(self, reason: CloseReason, detail: str) -> None:
        if self._route.current is self:
            self._route.current = None
        super()._end(reason, detail)


def _is_greeting(event: UpstreamEvent[Any]) -> bool:
    return isinstance(event, Unsolicited) and not (event.late or event.lenient)
