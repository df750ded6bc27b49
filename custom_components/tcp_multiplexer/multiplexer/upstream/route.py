"""The way to the device: what makes the connections of one multiplexer to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
import asyncio
from typing import TYPE_CHECKING, Any, override

from .resolver import Resolver
from .socket_upstream import Segments, SocketUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    import ssl

    from ..dispatch.exchange import Upstream, UpstreamOwner
    from ..limits import Limits
    from ..memory import Memory
    from ..protocols.base import Protocol
    from ..settings import Settings


class Route(ABC):
    """Makes the connections to one device."""

    expects = False
    """The device connects to us: `open` waits for that, and never fails."""

    async def start(self) -> None:  # noqa: B027 - most need no preparation
        """Prepare what all connections need.

        Raises:
            OSError: a local port cannot be opened.
            TlsError: a certificate or key cannot be used.

        """

    @abstractmethod
    def make(self, owner: UpstreamOwner) -> Upstream:
        """Make a connection, to be opened."""

    async def stop(self) -> None:  # noqa: B027 - most leave nothing behind
        """Return once nothing is left of any connection; all of them are closed."""


class GivenRoute(Route):
    """Connections that the host program makes."""

    def __init__(self, make_upstream: Callable[[UpstreamOwner], Upstream]) -> None:
        self._make_upstream = make_upstream

    @override
    def make(self, owner: UpstreamOwner) -> Upstream:
        return self._make_upstream(owner)


class NetworkRoute(Route):
    """TCP connections to a host and port, with TLS or without."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        protocol: Protocol[Any],
        limits: Limits,
        memory: Memory,
    ) -> None:
        """Make connections by the `settings` that are in force when each is made."""
        self._settings = settings
        self._protocol = protocol
        self._limits = limits
        self._memory = memory
        self._resolver = Resolver(settings().host, settings().port)
        self._segments = Segments()
        self._tls: ssl.SSLContext | None = None

    @override
    async def start(self) -> None:
        if (tls := self._settings().tls) is not None:
            loop = asyncio.get_running_loop()
            self._tls = await loop.run_in_executor(None, tls.context)

    @override
    def make(self, owner: UpstreamOwner) -> Upstream:
        settings = self._settings()
        return SocketUpstream(
            owner,
            self._protocol.upstream(),
            self._resolver,
            batch=settings.max_in_flight > 1,
            segments=self._segments,
            memory=self._memory,
            connect_seconds=self._limits.connect,
            tls=self._tls,
            server_name=(settings.tls and settings.tls.server_name) or settings.host,
        )

    @override
    async def stop(self) -> None:
        await self._resolver.stop()
