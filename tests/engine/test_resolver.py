"""The addresses of a device's name."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, override

from aiohappyeyeballs import start_connection
import pytest

from custom_components.tcp_multiplexer.multiplexer.upstream.resolver import (
    AddressInfo,
    Resolver,
)

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 502))]


class Lookups:
    """The system's resolver, which answers when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pending: list[asyncio.Future[Any]] = []
        self.asked = 0
        monkeypatch.setattr(
            asyncio.get_running_loop(), "getaddrinfo", self._getaddrinfo
        )

    async def _getaddrinfo(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        self.pending.append(asyncio.get_running_loop().create_future())
        return await self.pending[-1]


async def test_a_lookup_that_hangs_is_left_to_the_next_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups = Lookups(monkeypatch)
    resolver = Resolver("inverter", 502)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver.addresses()
    assert lookups.asked == 1
    attempt = asyncio.ensure_future(resolver.addresses())
    lookups.pending[0].set_result(FOUND)
    assert await attempt == FOUND
    # What it found is not kept: the address of a name may change.
    attempt = asyncio.ensure_future(resolver.addresses())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert lookups.asked == 2
    await resolver.stop()
    with pytest.raises(asyncio.CancelledError):
        await attempt


async def test_a_failure_that_nobody_waits_for_is_no_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    lookups = Lookups(monkeypatch)
    resolver = Resolver("inverter", 502)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolver.addresses()
    lookups.pending.pop().set_exception(socket.gaierror("unknown"))
    while lookups.asked == 1:
        again = asyncio.ensure_future(resolver.addresses())
        await asyncio.sleep(0)
        again.cancel()
        await asyncio.wait((again,))
    await resolver.stop()
    assert not told


@pytest.mark.parametrize(
    ("host", "family", "address"),
    [
        ("192.168.1.5", socket.AF_INET, ("192.168.1.5", 502)),
        ("fd00::5", socket.AF_INET6, ("fd00::5", 502, 0, 0)),
    ],
)
async def test_a_written_address_needs_no_lookup(
    monkeypatch: pytest.MonkeyPatch, host: str, family: int, address: tuple[Any, ...]
) -> None:
    lookups = Lookups(monkeypatch)
    (found,) = await Resolver(host, 502).addresses()
    assert (found[0], found[4]) == (family, address)
    assert not lookups.asked


async def test_the_interface_of_a_local_address_is_not_lost() -> None:
    (found, *_) = await Resolver("fe80::1%lo", 502).addresses()
    assert found[4] == ("fe80::1", 502, 0, socket.if_nametoindex("lo"))


async def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(OSError, match="no network interface nosuch"):
        await Resolver("fe80::1%nosuch", 502).addresses()
    (found,) = await Resolver("fe80::1%7", 502).addresses()
    assert found[4] == ("fe80::1", 502, 0, 7)


class Recorded(socket.socket):
    """A socket that knows what it was told to connect to."""

    asked: Any = None

    @override
    def connect(self, address: Any) -> None:
        self.asked = address
        super().connect(address)

    @override
    def connect_ex(self, address: Any) -> int:
        self.asked = address
        return super().connect_ex(address)


async def test_a_device_is_reached_at_its_interface() -> None:
    where = socket.if_nametoindex("lo")
    made: list[Recorded] = []

    def make(info: AddressInfo) -> socket.socket:
        made.append(Recorded(*info[:3]))
        return made[-1]

    with socket.socket(socket.AF_INET6) as device:
        device.bind(("::1", 0))
        _, port, *_ = device.getsockname()
        addresses = await Resolver("::1%lo", port).addresses()
        with pytest.raises(ConnectionRefusedError):
            await start_connection(addresses, socket_factory=make)
        device.listen()
        with await start_connection(addresses, socket_factory=make) as ours:
            assert ours.getpeername() == device.getsockname()
    assert [sock.asked for sock in made] == [("::1", port, 0, where)] * 2
