"""TLS between a client's socket and the client.

asyncio shows a server the clients that have completed their handshake, so nobody could
refuse one before that, or count it. Here TLS begins once the client is accepted, and
its socket is read no more at a time than others' are.
"""

from __future__ import annotations

import asyncio
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any, cast, override

from ..tls import HANDSHAKE_SECONDS, SHUTDOWN_SECONDS

if TYPE_CHECKING:
    import ssl

RECORD = 16 << 10
"""Bytes of the longest record, which is decrypted as a whole (RFC 8446, 5.1)."""
_WRITE_BUFFER = 64 << 10
"""As much as a socket's transport holds of what is not read; asyncio's default within
TLS is eight times that."""


class ServerTls(SSLProtocol):
    """The server's side of one TLS connection."""

    max_size = 4 << 10
    """Bytes read from the socket at a time, and kept to read into."""

    def __init__(self, client: asyncio.Protocol, context: ssl.SSLContext) -> None:
        """Introduce `client`, by `connection_made`, once the handshake is done."""
        super().__init__(
            asyncio.get_running_loop(),
            client,
            context,
            None,  # type: ignore[arg-type]  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )
        self._client: asyncio.Protocol | None = client
        """Until its handshake is done."""

    def begin(self, transport: asyncio.Transport) -> None:
        """Begin the handshake on an accepted socket."""
        transport.set_protocol(self)
        self.connection_made(transport)

    def introduced(self, transport: asyncio.BaseTransport) -> None:
        """Bound what its transport holds for a client whose handshake is done."""
        self._client = None
        limited = cast("Any", transport)
        limited.set_read_buffer_limits(high=RECORD)
        limited.set_write_buffer_limits(high=_WRITE_BUFFER)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._client is not None:  # asyncio tells it nothing
            self._client.connection_lost(cast("Exception | None", exc))
            self._client = None
