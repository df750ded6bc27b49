"""Opens upstream connections: what `StreamUpstream` has to wait for.

It stands apart because coroutines are not compiled (see `setup.py`).
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any, cast

from aiohappyeyeballs import start_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .resolver import Resolver

_NEXT_ADDRESS_SECONDS = 0.25
"""When to try a name's next address beside one that does not answer (RFC 8305, 5)."""


async def open_within(
    seconds: float | None,
    connect: Callable[[], Coroutine[Any, Any, None]],
    opened: Callable[[], None],
    abandon: Callable[[], None],
) -> None:
    """Wait for `connect` to do it; `abandon` it after so many seconds.

    Raises:
        OSError: there is no connection; the text says why.

    """
    try:
        async with asyncio.timeout(seconds):
            await connect()
    except TimeoutError:
        abandon()
        message = f"no answer to the connection attempt within {seconds:g} s"
        raise TimeoutError(message) from None
    except BaseException:
        abandon()
        raise
    opened()


async def connect_socket(
    protocol: asyncio.Protocol, resolver: Resolver, tls: dict[str, Any]
) -> None:
    """Connect to an address that `resolver` gives, with these arguments for TLS.

    Raises:
        OSError: there is no connection; the text says why.

    """
    sock = await start_connection(
        await resolver.addresses(), happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS
    )
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: protocol, sock=sock, **tls)
    if _meets_itself(transport):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")


def _meets_itself(transport: asyncio.Transport) -> bool:
    """Return whether the connection is one to itself (RFC 9293, 3.5).

    It can be where nobody listens at an address of this machine, and the system chose
    the device's port for our end.
    """
    own = cast("object", transport.get_extra_info("sockname"))
    return own is not None and own == transport.get_extra_info("peername")
