"""Connections over a serial port of this machine, or one that serialx reaches.

serialx is imported when the first port is opened: nothing else needs it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib import import_module
import logging
from typing import TYPE_CHECKING, Any, cast, override

from .route import Route
from .socket_upstream import StreamUpstream

if TYPE_CHECKING:
    from ..dispatch.exchange import Exchange, Upstream, UpstreamOwner
    from ..limits import Limits
    from ..protocols.base import Protocol, UpstreamCodec
    from ..protocols.options import SerialLine

LOGGER = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0
"""How long a stop waits for the port; the system may still be sending."""


class SerialPort:
    """A serial port, which is open at most once at a time."""

    def __init__(self, line: SerialLine) -> None:
        self.line = line
        self.free = asyncio.Event()
        """It is closed. Transports close in the background, and lock it until then."""
        self.free.set()

    async def open(self, protocol: asyncio.Protocol) -> None:
        """Open the port for `protocol`, once it is free.

        Raises:
            OSError: it cannot be opened; the text says why.

        """
        await self.free.wait()
        loop = asyncio.get_running_loop()
        line = self.line
        try:
            serialx = await loop.run_in_executor(None, import_module, "serialx")
            await serialx.create_serial_connection(
                loop,
                lambda: protocol,
                line.device,
                baudrate=line.baudrate,
                parity=serialx.Parity[line.parity.name],
                stopbits=serialx.StopBits(line.stopbits),
            )
        except OSError:
            raise
        except Exception as err:
            # Each kind of port has errors of its own, Home Assistant's among them.
            raise OSError(str(err) or type(err).__name__) from err


class _Sender(asyncio.WriteTransport):
    """What a connection writes to: each frame waits for the silence before it."""

    def __init__(self, transport: asyncio.WriteTransport, silence: float) -> None:
        super().__init__()
        self._transport = transport
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._silent_at = 0.0
        """When the line has been silent for long enough."""
        self.written_at = 0.0
        """When the last frame went out (loop time)."""
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """Note that something has just arrived."""
        self._silent_at = self._loop.time() + self._silence

    @override
    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.forget()
        if self._loop.time() < self._silent_at:
            self._timer = self._loop.call_at(self._silent_at, self.write, data)
        elif not self._transport.is_closing():
            self.written_at = self._loop.time()
            try:
                self._transport.write(data)
            except Exception:  # serialx's own; `connection_lost` is about to follow
                LOGGER.debug("A serial port broke", exc_info=True)

    def forget(self) -> None:
        """Do not write what still waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @override
    def abort(self) -> None:
        self.forget()
        self._transport.abort()


class SerialUpstream(StreamUpstream):
    """A protocol's codec on a serial port."""

    def __init__(
        self,
        owner: UpstreamOwner,
        codec: UpstreamCodec[Any],
        port: SerialPort,
        *,
        connect_seconds: float,
    ) -> None:
        """Open `port` within `connect_seconds`."""
        super().__init__(owner, codec, batch=False, connect_seconds=connect_seconds)
        self._port = port
        self._sender: _Sender | None = None
        self._sent_at = 0.0
        """When the last request was to go out (loop time)."""

    @property
    @override
    def quiet(self) -> float:
        """Counted from when the request went out; 0 if it never did.

        It waits for silence on the line, or until it is known whether there is an echo.
        """
        quiet = super().quiet
        if not quiet or self._sender is None:
            return quiet
        later = self._sender.written_at - self._sent_at
        return quiet + later if later >= 0 else 0.0

    @override
    async def _connect(self) -> None:
        await self._port.open(self.as_protocol)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._port.free.clear()
        transport = cast("asyncio.WriteTransport", transport)
        self._sender = _Sender(transport, self._port.line.silence)
        super().connection_made(self._sender)

    @override
    def send(self, exchange: Exchange) -> None:
        self._sent_at = self._loop.time()
        super().send(exchange)

    @override
    def data_received(self, data: bytes) -> None:
        if self._sender is not None:
            self._sender.heard()
        super().data_received(data)

    @override
    def expire(self, exchange: Exchange) -> bool:
        if self._sender is not None:
            self._sender.forget()
        return super().expire(exchange)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._port.free.set()
        super().connection_lost(exc)


class SerialRoute(Route):
    """Connections over one serial port."""

    def __init__(
        self, line: SerialLine, protocol: Protocol[Any], limits: Limits
    ) -> None:
        self._port = SerialPort(line)
        self._protocol = protocol
        self._limits = limits

    @override
    def make(self, owner: UpstreamOwner) -> Upstream:
        return SerialUpstream(
            owner,
            self._protocol.upstream(),
            self._port,
            connect_seconds=self._limits.connect,
        )

    @override
    async def stop(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._port.free.wait()
