"""Further ports that come and go while everything else goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
import socket

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    ListenerSettings,
    Multiplexer,
    TlsError,
    TlsListener,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import Framing
from tests.integration.ports import free_port
from tests.waiting import until
from tests.wire import read, values

from .certificates import Authority
from .conftest import Connect, Multiplex
from .devices import Client, Device
from .serial_line import with_crc

HERE = "127.0.0.1"


@pytest.fixture
def authority() -> Authority:
    """Return a certificate authority."""
    return Authority()


async def apply(multiplexer: Multiplexer, *listeners: ListenerSettings) -> None:
    """Have these further ports from now on."""
    settings = replace(multiplexer.settings, more_listeners=listeners)
    assert await multiplexer.apply(settings)


def ports(multiplexer: Multiplexer) -> list[int]:
    """Return the further ports, in their order."""
    return [port for _, port in multiplexer.snapshot().listen_addresses[1:]]


async def test_a_port_comes_and_goes_and_only_its_clients_notice(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    main = await connect(multiplexer)
    first, second = (
        ListenerSettings(host=HERE, port=free_port(), framing=framing)
        for framing in (Framing.TCP, Framing.RTU)
    )
    await apply(multiplexer, first)
    await apply(multiplexer, first, second)
    assert ports(multiplexer) == [first.port, second.port]
    tcp, rtu = [await Client.connect(port) for port in ports(multiplexer)]
    assert await tcp.ask(read(2)) == values(2)
    rtu.writer.write(with_crc(bytes((1,)) + read(3)))
    reply = with_crc(bytes((1,)) + values(3))
    assert await rtu.reader.readexactly(len(reply)) == reply
    # What a removed port had been asked is dropped with its client.
    await apply(multiplexer, second)
    assert ports(multiplexer) == [second.port]
    assert await tcp.reader.read() == b""
    await until(lambda: len(multiplexer.snapshot().clients) == 2)
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(first.port)
    # The same port with another framing has other clients.
    await apply(multiplexer, replace(second, framing=Framing.TCP))
    assert await rtu.reader.read() == b""
    again = await Client.connect(second.port)
    assert await again.ask(read(4)) == values(4)
    assert await main.ask(read(1)) == values(1)
    assert len(device.links) == 1
    for client in (tcp, rtu, again):
        client.close()


async def test_ports_can_change_places(multiplex: Multiplex) -> None:
    multiplexer = await multiplex()
    one, other = (ListenerSettings(host=HERE, port=free_port()) for _ in range(2))
    await apply(multiplexer, one, other)
    rtu = Framing.RTU
    await apply(multiplexer, replace(other, framing=rtu), replace(one, framing=rtu))
    assert ports(multiplexer) == [other.port, one.port]


async def test_changes_follow_one_another_and_the_last_holds(
    multiplex: Multiplex,
) -> None:
    multiplexer = await multiplex()
    one, other = (ListenerSettings(host=HERE, port=free_port()) for _ in range(2))
    await asyncio.gather(
        apply(multiplexer, one),
        apply(multiplexer, one, other),
        apply(multiplexer, other),
    )
    assert ports(multiplexer) == [other.port]


async def test_a_port_that_cannot_be_opened_is_told(
    multiplex: Multiplex, authority: Authority
) -> None:
    multiplexer = await multiplex()
    port = free_port()
    taken = pytest.raises(OSError, match="in use")
    with socket.create_server((HERE, port)), taken:
        await apply(multiplexer, ListenerSettings(host=HERE, port=port))
    assert ports(multiplexer) == []
    tls = TlsListener(certificate="none", key="none")
    with pytest.raises(TlsError):
        await apply(multiplexer, ListenerSettings(host=HERE, port=port, tls=tls))
    await apply(multiplexer, ListenerSettings(host=HERE, port=port))
    assert ports(multiplexer) == [port]


async def test_a_port_that_opens_during_the_stop_is_closed_again(
    multiplex: Multiplex, authority: Authority
) -> None:
    multiplexer = await multiplex()
    pair = authority.issue(HERE)
    tls = TlsListener(certificate=pair.certificate, key=pair.key)
    port = free_port()
    # The certificate is loaded in a thread, and the stop waits for less.
    opening = asyncio.create_task(
        apply(multiplexer, ListenerSettings(host=HERE, port=port, tls=tls))
    )
    await asyncio.sleep(0)
    await multiplexer.stop()
    await opening
    assert multiplexer.snapshot().listen_addresses == ()
    with socket.create_server((HERE, port)):
        pass
