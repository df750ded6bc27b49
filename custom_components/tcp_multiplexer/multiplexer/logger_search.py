"""Finds the serial number of a logger stick, which it tells whoever broadcasts.

Sticks with modules of Hi-Flying listen on UDP port 48899, and answer a search with
`address,MAC address,serial number`. Not every one does.
"""

from __future__ import annotations

import asyncio
from socket import AF_INET, SOCK_DGRAM
from typing import Final, override

SEARCH_PORT: Final = 48899
BROADCAST: Final = "255.255.255.255"
SEARCH_SECONDS: Final = 2.0
_QUESTIONS: Final = (b"WIFIKIT-214028-READ", b"HF-A11ASSISTHREAD")
_LARGEST: Final = 0xFFFFFFFF


async def find_logger_serial(
    host: str,
    *,
    broadcast: str = BROADCAST,
    port: int = SEARCH_PORT,
    seconds: float = SEARCH_SECONDS,
) -> int:
    """Return the serial number of the logger stick at `host`; 0: it does not tell.

    The stick itself is asked, and everybody by `broadcast`, once more after half of
    `seconds`. They count from the start: a name that nobody resolves takes no longer.
    """
    loop = asyncio.get_running_loop()
    transport: asyncio.DatagramTransport | None = None
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(host, port, family=AF_INET, type=SOCK_DGRAM)
            address = str(found[0][4][0])
            transport, search = await loop.create_datagram_endpoint(
                lambda: _Search(address), family=AF_INET, allow_broadcast=True
            )
            targets = [address, broadcast]
            return await search.ask(transport, targets, port, seconds / 2)
    except (OSError, UnicodeError):  # it told nothing, or has no IPv4 address
        return 0
    finally:
        if transport is not None:
            transport.close()


class _Search(asyncio.DatagramProtocol):
    """Awaits the answer of one stick."""

    def __init__(self, address: str) -> None:
        self._serial: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._address = address

    async def ask(
        self,
        transport: asyncio.DatagramTransport,
        targets: list[str],
        port: int,
        interval: float,
    ) -> int:
        """Ask all `targets` twice, and wait `interval` seconds for an answer each."""
        for _ in range(2):
            for question in _QUESTIONS:
                for target in targets:
                    transport.sendto(question, (target, port))
            await asyncio.wait((self._serial,), timeout=interval)
            if self._serial.done():
                return self._serial.result()
        return 0

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        address, _, rest = (
            data.decode("ascii", "replace").strip("\0\r\n ").partition(",")
        )
        digits = rest.rpartition(",")[2]
        if self._address not in (address, addr[0]) or self._serial.done():
            return
        if digits.isascii() and digits.isdigit() and 0 < int(digits) <= _LARGEST:
            self._serial.set_result(int(digits))

    @override
    def error_received(self, exc: Exception) -> None:
        """Nothing listens there, or there is no route: then nobody answers."""
