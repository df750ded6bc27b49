"""TLS on either face, with real certificates and real handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
import socket
import ssl
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    ClientRefusal,
    Event,
    EventType,
    Health,
    ListenerSettings,
    Multiplexer,
    TlsError,
    TlsListener,
    TlsUpstream,
)
from custom_components.tcp_multiplexer.multiplexer.downstream.server_tls import RECORD
from tests.waiting import settled, until
from tests.wire import Frame, exception, read, values, write

from .certificates import Authority, Pair, locked
from .conftest import Connect, Multiplex
from .devices import Client, Device, open_sockets, taken_of_flood


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return a certificate authority."""
    return Authority()


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    """Have a certificate for this machine."""
    return authority.issue("127.0.0.1")


@pytest.fixture(scope="module")
def member(authority: Authority) -> Pair:
    """Have a certificate for a client."""
    return authority.issue("client.example")


def trusting(authority: Authority) -> ssl.SSLContext:
    """Make the context of a client that trusts an authority."""
    return ssl.create_default_context(cadata=authority.certificate)


# ---- clients that come by TLS ---------------------------------------------------


def tls_port(multiplexer: Multiplexer) -> int:
    """Give the port of the second listener."""
    return multiplexer.snapshot().listen_addresses[1][1]


def listening(server: Pair, **more: Any) -> dict[str, Any]:
    """Give the settings of a second listener, which speaks TLS."""
    tls = TlsListener(certificate=server.certificate, key=server.key, **more)
    listener = ListenerSettings(host="127.0.0.1", port=0, tls=tls)
    return {"more_listeners": (listener,)}


async def test_clients_may_come_by_tls_and_others_as_before(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    authority: Authority,
    server: Pair,
) -> None:
    multiplexer = await multiplex(**listening(server))
    plain = await connect(multiplexer)
    secure = await Client.connect(tls_port(multiplexer), tls=trusting(authority))
    assert await secure.ask(read(1)) == values(1)
    assert await plain.ask(read(2)) == values(2)
    secure.send(*(read(i) for i in range(100)))
    assert [(await secure.receive()).pdu for _ in range(100)] == [
        values(i) for i in range(100)
    ]
    assert len(multiplexer.snapshot().clients) == 2
    secure.close()
    await until(lambda: len(multiplexer.snapshot().clients) == 1)


async def test_client_that_leaves_tls_left_its_writes(
    device: Device, multiplex: Multiplex, authority: Authority, server: Pair
) -> None:
    multiplexer = await multiplex(**listening(server))
    client = await Client.connect(tls_port(multiplexer), tls=trusting(authority))
    device.hold()
    client.send(write(1, 2), read(3), write(4, 5))
    await device.holds(1)
    client.close()
    await until(lambda: not multiplexer.snapshot().clients)
    device.release()
    await device.has_been_asked(2)
    assert device.asked == [write(1, 2), write(4, 5)]


async def test_client_that_does_not_speak_tls_is_closed(
    device: Device, multiplex: Multiplex, server: Pair
) -> None:
    multiplexer = await multiplex(**listening(server))
    client = await Client.connect(tls_port(multiplexer))
    client.send(read())
    client.writer.write(bytes(300))
    assert await closed_without_a_frame(client)
    assert not device.requests
    assert not multiplexer.snapshot().clients


async def closed_without_a_frame(client: Client) -> bool:
    """Tell whether a connection ends with no more than an alert."""
    try:
        data = await client.reader.read()
    except ConnectionError:
        data = b""
    client.close()
    return len(data) < 20


async def test_clients_may_have_to_show_a_certificate(  # noqa: PLR0917
    device: Device,
    multiplex: Multiplex,
    authority: Authority,
    server: Pair,
    member: Pair,
    tmp_path: Any,
) -> None:
    multiplexer = await multiplex(**listening(server, client_ca=authority.certificate))
    stranger = await Client.connect(tls_port(multiplexer), tls=trusting(authority))
    stranger.send(read())
    with pytest.raises((EOFError, ssl.SSLError)):
        await stranger.receive()
    stranger.close()
    context = trusting(authority)
    path = tmp_path / "member.pem"
    path.write_text(member.certificate + member.key)
    context.load_cert_chain(path)
    client = await Client.connect(tls_port(multiplexer), tls=context)
    assert await client.ask(read()) == values()
    client.close()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"allowed_networks": ()}, ClientRefusal.NOT_ALLOWED),
        ({"max_clients": 1}, ClientRefusal.TOO_MANY_CLIENTS),
    ],
)
async def test_clients_are_judged_and_counted_before_their_handshake(
    multiplex: Multiplex,
    server: Pair,
    settings: dict[str, Any],
    reason: ClientRefusal,
) -> None:
    multiplexer = await multiplex(**listening(server), **settings)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    if "max_clients" in settings:
        silent = await Client.connect(tls_port(multiplexer))
        await until(lambda: len(multiplexer.snapshot().clients) == 1)
    client = await Client.connect(tls_port(multiplexer))
    assert await client.closed()
    client.close()
    assert Event(EventType.CLIENT_REFUSED, "127.0.0.1", reason) in events
    if "max_clients" in settings:
        silent.close()
        await until(lambda: not multiplexer.snapshot().clients)


async def test_client_within_tls_is_read_little_at_a_time(
    device: Device, multiplex: Multiplex, authority: Authority, server: Pair
) -> None:
    multiplexer = await multiplex(**listening(server))
    client = await Client.connect(tls_port(multiplexer), tls=trusting(authority))
    device.hold()
    request = Frame(1, 1, read()).encoded()
    client.writer.write(request * ((1 << 20) // len(request)))
    received = await settled(lambda: multiplexer.snapshot().bytes_from_clients)
    assert received <= 3 * RECORD
    client.close()


async def test_stop_does_not_wait_for_a_handshake(
    device: Device, multiplex: Multiplex, authority: Authority, server: Pair
) -> None:
    multiplexer = await multiplex(**listening(server))
    loop = asyncio.get_running_loop()
    client = await Client.connect(tls_port(multiplexer), tls=trusting(authority))
    with socket.socket() as silent:
        silent.setblocking(False)
        await loop.sock_connect(silent, ("127.0.0.1", tls_port(multiplexer)))
        await asyncio.sleep(0.01)  # so that it is accepted, which nobody tells
        async with asyncio.timeout(2):
            await multiplexer.stop()
            assert await loop.sock_recv(silent, 1) == b""
    assert await client.closed()
    client.close()


# ---- a device that speaks TLS ---------------------------------------------------


@pytest.fixture
async def secure_device(server: Pair, authority: Authority) -> AsyncGenerator[Device]:
    """Have a device that speaks nothing else."""
    device = Device()
    await device.start(
        TlsListener(certificate=server.certificate, key=server.key).context()
    )
    yield device
    await device.stop()


@pytest.mark.parametrize("way", ["own CA", "any certificate", "another name"])
async def test_device_is_known_by_its_certificate(
    secure_device: Device,
    multiplex: Multiplex,
    connect: Connect,
    authority: Authority,
    way: str,
) -> None:
    tls = {
        "own CA": TlsUpstream(ca=authority.certificate),
        "any certificate": TlsUpstream(verify=False),
        "another name": TlsUpstream(ca=authority.certificate, server_name="127.0.0.1"),
    }[way]
    multiplexer = await multiplex(port=secure_device.port, tls=tls, max_in_flight=4)
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    assert await client.ask(write(1, 2)) == write(1, 2)
    await multiplexer.pause()
    await until(lambda: not secure_device.open_links)


async def test_flood_within_tls_is_read_slowly_until_it_ends(
    secure_device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """What has been decrypted already waits, too."""
    multiplexer = await multiplex(
        port=secure_device.port, tls=TlsUpstream(verify=False)
    )
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    at_a_time = await taken_of_flood(secure_device, multiplexer, 4000)
    assert at_a_time[0] < 2000
    assert max(at_a_time[1:]) < 64
    assert await client.ask(read()) == values()
    assert len(secure_device.links) == 1


@pytest.mark.parametrize("way", ["system CAs", "other name"])
async def test_device_that_cannot_be_known_gets_no_request(
    secure_device: Device,
    multiplex: Multiplex,
    connect: Connect,
    authority: Authority,
    way: str,
) -> None:
    tls = {
        "system CAs": TlsUpstream(),
        "other name": TlsUpstream(
            ca=authority.certificate, server_name="inverter.example"
        ),
    }[way]
    multiplexer = await multiplex(port=secure_device.port, tls=tls)
    client = await connect(multiplexer)
    await until(lambda: multiplexer.health is Health.UNREACHABLE)
    assert "certificate verify failed" in str(multiplexer.snapshot().health_reason)
    assert not secure_device.requests
    await multiplexer.pause()
    assert await client.ask(read()) == exception(3, 0x0A)


async def test_device_may_ask_for_a_certificate(
    multiplex: Multiplex,
    connect: Connect,
    authority: Authority,
    server: Pair,
    member: Pair,
) -> None:
    device = Device()
    await device.start(
        TlsListener(
            certificate=server.certificate + server.key,
            client_ca=authority.certificate,
        ).context()
    )
    tls = TlsUpstream(
        ca=authority.certificate, certificate=member.certificate, key=member.key
    )
    multiplexer = await multiplex(port=device.port, tls=tls)
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    await multiplexer.stop()
    await device.stop()


async def test_device_without_tls_is_not_waited_for_in_vain(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(tls=TlsUpstream(verify=False))
    # It takes the hello for a request and says nothing, or something else.
    await until(lambda: device.links)
    device.links[0].transport.write(b"\0\1\0\0\0\3\1\x83\1")
    await until(lambda: multiplexer.health is Health.UNREACHABLE)


# ---- what cannot be used --------------------------------------------------------


@pytest.mark.parametrize("text", ["no certificate", "caf\u00e9", "\0"])
async def test_what_is_no_certificate_is_told(
    multiplex: Multiplex, server: Pair, text: str
) -> None:
    for context in (
        TlsUpstream(ca=text),
        TlsUpstream(certificate=text, key=server.key),
        TlsListener(certificate=text),
        TlsListener(certificate=server.certificate, key=text),
        TlsListener(certificate=server.certificate, key=server.key, client_ca=text),
    ):
        with pytest.raises(TlsError, match="cannot be used"):
            context.context()
    before = open_sockets()
    with pytest.raises(TlsError):
        await multiplex(tls=TlsUpstream(ca=text))
    with pytest.raises(TlsError):
        await multiplex(**listening(Pair(text, "")))
    assert open_sockets() == before


def test_key_must_be_the_certificate_s_and_without_password(
    server: Pair, member: Pair
) -> None:
    with pytest.raises(TlsError, match="cannot be used"):
        TlsListener(certificate=server.certificate, key=member.key).context()
    with pytest.raises(TlsError, match="without a password"):
        TlsListener(certificate=server.certificate, key=locked(server.key)).context()
