"""A small HTTP server that says how the program is: /metrics and /health.

Only loopback and private networks may ask, and one request is answered on a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from importlib.util import find_spec
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import h11

from ..networks import DEFAULT_NETWORKS, format_address, is_in, parse_peer
from ..observe.snapshot import Health

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .devices import Device, Devices

LOGGER = logging.getLogger(__name__)

_SECONDS = 10.0
"""How long a connection may last."""
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64 << 10
"""How long a connection may last beyond its answer, and what is read of it then."""
_CONNECTIONS = 32
"""At a time; more are closed."""
_HEAD = 16 << 10
"""Maximum size of a request, in bytes."""
_WELL = {Health.HEALTHY, Health.IDLE, Health.PAUSED}
"""Also while it is not connected on purpose."""
_TEXT = "text/plain; charset=utf-8"
_MISSING = "--metrics needs one more library: pip install 'tcp-multiplexer[metrics]'"


class Monitor:
    """Answers those who watch the program."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, host: str | None, port: int) -> None:
        """Listen.

        Raises:
            ValueError: the address cannot be opened, or a library is missing.

        """
        if find_spec("prometheus_client") is None:
            raise ValueError(_MISSING)
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, limit=_HEAD
            )
        except OSError as err:
            message = f"--metrics: cannot listen: {err.strerror or err}"
            raise ValueError(message) from err
        LOGGER.info(
            "Metrics on %s",
            ", ".join(
                format_address(*sock.getsockname()[:2]) for sock in self._server.sockets
            ),
        )

    def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:  # uvloop's servers do not know their connections
            writer.transport.abort()

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = writer.get_extra_info("peername")
        allowed = peer and is_in(parse_peer(peer[0]), DEFAULT_NETWORKS)
        self._open.add(writer)
        try:
            if allowed and len(self._open) <= _CONNECTIONS:
                # Whatever becomes of its connection is the client's business.
                with contextlib.suppress(OSError):
                    async with asyncio.timeout(_SECONDS):
                        await self._talk(reader, writer)
        finally:
            self._open.remove(writer)
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Read a request, and answer it."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
        event: Any = None
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(_HEAD))
            if not isinstance(event, h11.Request):
                return
            status, body, content_type = await self._answer(event)
        except h11.RemoteProtocolError as err:
            status, content_type = err.error_status_hint, _TEXT
            body = f"{err}\n".encode()
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        parts = [h11.Response(status_code=status, headers=headers), h11.EndOfMessage()]
        if not isinstance(event, h11.Request) or event.method != b"HEAD":
            parts.insert(1, h11.Data(data=body))
        if writer.transport.is_closing():
            return  # it was reset, or we stop
        for part in parts:
            writer.write(connection.send(part) or b"")
        await writer.drain()
        writer.write_eof()
        # What is left unread would make the system reset the connection, and that might
        # take the answer with it (RFC 9112 §9.6).
        left = _LINGER_BYTES
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0 and (data := await reader.read(left)):
                left -= len(data)

    async def _answer(self, request: Any) -> tuple[int, bytes, str]:
        """Return status, body and content type."""
        if request.method not in {b"GET", b"HEAD"}:
            return 405, b"Only GET is understood.\n", _TEXT
        path = unquote(urlsplit(request.target.decode("ascii", "replace")).path)
        if path == "/metrics":
            return await self._metrics(dict(request.headers).get(b"accept", b""))
        if path == "/health":
            return _health(self._devices)
        name = path.removeprefix("/health/")
        named = [device for device in self._devices if path == f"/health/{device.name}"]
        if named and name:
            return _health(named)
        return 404, b"There are /metrics, /health and /health/DEVICE.\n", _TEXT

    async def _metrics(self, accept: bytes) -> tuple[int, bytes, str]:
        from .metrics import State, render  # noqa: PLC0415 - an extra

        states = []
        for device in self._devices:
            detail = device.multiplexer.detail()
            if detail is not None:
                snapshot = device.multiplexer.snapshot()
                states.append(State(device.label, snapshot, detail))
        body, content_type = await asyncio.to_thread(
            render, states, accept.decode("ascii", "replace")
        )
        return 200, body, content_type


def _health(devices: Iterable[Device]) -> tuple[int, bytes, str]:
    """Return 200 if all is well with devices, else 503; and how each is."""
    status, lines = 200, []
    for device in devices:
        now = device.multiplexer.snapshot()
        if not now.listen_addresses or now.health not in _WELL:
            status = 503
        where = "listens" if now.listen_addresses else "does not listen"
        reason = f" ({now.health_reason})" if now.health_reason else ""
        lines.append(f"{device.label}: {where}; the device is {now.health}{reason}\n")
    if not lines:
        return 503, b"No device is shared.\n", _TEXT
    return status, "".join(lines).encode(), _TEXT
