"""A serial server: a port of this machine that is offered on the network.

It speaks RFC 2217 with pyserial's `PortManager`, so that its client sets speed and
parity; or it passes bytes as they are, which serialx calls `socket://`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast, override

from serial import Serial
from serial.rfc2217 import (
    SERVER_SET_LINESTATE_MASK,
    SERVER_SET_MODEMSTATE_MASK,
    SET_LINESTATE_MASK,
    SET_MODEMSTATE_MASK,
    PortManager,
)


class _Port(Serial):  # type: ignore[misc] # pyserial has no types
    """A pseudo terminal, with the modem lines that it lacks."""

    cts = dsr = ri = cd = False

    def _update_dtr_state(self) -> None:
        """Set no line."""

    def _update_rts_state(self) -> None:
        """Set no line."""


class _Negotiator(PortManager):  # type: ignore[misc]
    """Acknowledges all that is set, as the standard demands; pyserial forgets two."""

    _FORGOTTEN: Final = {
        SET_LINESTATE_MASK: SERVER_SET_LINESTATE_MASK,
        SET_MODEMSTATE_MASK: SERVER_SET_MODEMSTATE_MASK,
    }

    def _telnet_process_subnegotiation(self, suboption: bytes) -> None:
        super()._telnet_process_subnegotiation(suboption)
        if answer := self._FORGOTTEN.get(bytes(suboption[1:2])):
            self.rfc2217_send_subnegotiation(answer, bytes(suboption[2:3]))


class _Client(asyncio.Protocol):
    """A connection to the server; it has the port for itself."""

    def __init__(self, port: Serial, *, negotiates: bool) -> None:
        self._port = port
        self._negotiates = negotiates
        self._loop = asyncio.get_running_loop()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._manager = (
            _Negotiator(self._port, self._transport) if self._negotiates else None
        )
        self._loop.add_reader(self._port.fileno(), self._from_line)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.remove_reader(self._port.fileno())

    @override
    def data_received(self, data: bytes) -> None:
        if self._manager is not None:
            data = b"".join(self._manager.filter(data))
        self._port.write(data)

    def _from_line(self) -> None:
        data = self._port.read(self._port.in_waiting)
        if self._manager is not None:
            data = b"".join(self._manager.escape(data))
        self._transport.write(data)


@asynccontextmanager
async def serial_server(
    path: Path, *, negotiates: bool
) -> AsyncGenerator[tuple[int, Serial]]:
    """Offer the port at `path`; gives the port on the network, and that of the line."""
    loop = asyncio.get_running_loop()
    with _Port(str(path), timeout=0) as port:
        server = await loop.create_server(
            lambda: _Client(port, negotiates=negotiates), "127.0.0.1", 0
        )
        try:
            yield server.sockets[0].getsockname()[1], port
        finally:
            server.close()
            server.close_clients()
            await server.wait_closed()
            await asyncio.sleep(0)  # the clients let go of the port
