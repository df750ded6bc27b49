"""What the owner of a multiplexer can do with it, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
import logging
import socket
import time
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    CloseReason,
    Event,
    EventType,
    Failure,
    Framing,
    Health,
    Multiplexer,
    RequestError,
    Settings,
    SettingsError,
    make_protocol,
)
from custom_components.tcp_multiplexer.multiplexer.limits import LIMITS, Limits
from custom_components.tcp_multiplexer.multiplexer.upstream import opening
from tests.rules import DENIED, rule
from tests.waiting import PATIENCE, until
from tests.wire import Frame, exception, read, values, write

from .conftest import Connect, Multiplex
from .devices import (
    Client,
    Device,
    answer,
    hang_up,
    ignore,
    open_sockets,
    port_of,
    reset,
    silent_port,
    spread,
)


def timers() -> list[asyncio.TimerHandle]:
    """Give what the loop is still to call."""
    loop: Any = asyncio.get_running_loop()
    return [handle for handle in loop._scheduled if not handle.cancelled()]  # noqa: SLF001


def types(events: list[Event]) -> list[EventType]:
    """Give the kinds of events."""
    return [event.type for event in events]


# ---- start and stop -------------------------------------------------------------


async def test_it_listens_although_the_device_is_away(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    await device.stop()
    multiplexer = await multiplex(reconnect_backoff=0.1)
    client = await connect(multiplexer)
    await until(lambda: multiplexer.health is Health.UNREACHABLE)
    await device.start()
    await until(lambda: device.open_links)
    assert await client.ask(read(1)) == values(1)
    assert multiplexer.health is Health.HEALTHY


@pytest.mark.parametrize(
    ("error", "reason", "logged"),
    [
        (socket.gaierror(-2, "Name not known"), "[Errno -2] Name not known", 0),
        (UnicodeError("label too long"), "label too long", 0),
        (OSError(), "OSError", 0),
        (RuntimeError("after shutdown"), "RuntimeError", 1),  # nobody's plan
    ],
)
async def test_name_that_means_nothing_is_a_device_that_is_away(  # noqa: PLR0917
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
    logged: int,
) -> None:
    asked = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if host == "inverter":  # uvloop also looks up where to listen
            asked.append(host)
            if len(asked) == 1:
                raise error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    multiplexer = await multiplex(host="inverter", reconnect_backoff=0.1)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    # It is asked for anew at every attempt.
    assert await (await connect(multiplexer)).ask(read()) == values()
    assert asked == ["inverter"] * 2
    failed = Event(EventType.CONNECTION_FAILED, detail=reason)
    assert [e for e in events if e.type is failed.type] == [failed]
    assert sum(record.levelno >= logging.ERROR for record in caplog.records) == logged


@pytest.mark.parametrize("pause", [False, True])
async def test_stop_frees_the_port_and_may_be_called_again(
    device: Device, multiplex: Multiplex, connect: Connect, pause: bool
) -> None:
    first = await multiplex(paused=pause)
    port = port_of(first)
    client = await connect(first)
    await asyncio.gather(first.stop(), first.stop())
    assert await client.closed()
    await first.stop()
    assert first.snapshot().listen_addresses == ()
    second = await multiplex(listen_port=port)
    assert await (await connect(second)).ask(read()) == values()


@pytest.mark.parametrize(
    ("protocol", "probe"), [("echo", b"ping"), ("mpu", b"0009ping"), ("iso8583", b"x")]
)
async def test_probe_that_is_no_message_is_an_error_of_that_setting(
    protocol: str, probe: bytes
) -> None:
    settings = Settings(host="127.0.0.1", protocol=protocol, probe=probe)
    with pytest.raises(SettingsError, match="incomplete") as error:
        Multiplexer(settings)
    assert error.value.field == "probe"


async def test_stop_before_start_is_nothing(device: Device) -> None:
    before = asyncio.all_tasks(), open_sockets(), timers()
    multiplexer = Multiplexer(
        Settings(host="127.0.0.1", port=device.port, listen_port=0)
    )
    await multiplexer.stop()
    assert (asyncio.all_tasks(), open_sockets(), timers()) == before
    snapshot = multiplexer.snapshot()
    assert (snapshot.listen_addresses, snapshot.connection_attempts) == ((), 0)
    with pytest.raises(RequestError):
        await multiplexer.request(b"\1" + read())
    assert not device.links


@pytest.mark.parametrize(
    ("listen", "error"),
    [
        ({}, "address already in use"),
        ({"listen_host": "192.0.2.1"}, "could not bind on any|cannot assign"),
    ],
)
async def test_port_that_cannot_be_had_is_an_error_and_leaves_nothing(
    device: Device, multiplex: Multiplex, listen: dict[str, Any], error: str
) -> None:
    multiplexer = await multiplex()
    await until(lambda: multiplexer.snapshot().connections)
    port = port_of(multiplexer)
    before = open_sockets()
    with pytest.raises(OSError, match=rf"{port}.*({error})|({error}).*{port}"):
        await multiplex(**{"listen_port": port, **listen})
    assert open_sockets() == before


async def test_stop_under_traffic_leaves_no_task_socket_or_timer(
    device: Device, connect: Connect
) -> None:
    """Whatever is under way: writes, reads, followers, requests of its own, knocks."""
    before = asyncio.all_tasks(), open_sockets(), timers()
    settings = Settings(
        host="127.0.0.1",
        port=device.port,
        listen_host="127.0.0.1",
        listen_port=0,
        max_connections=3,
        queue_size=4,
        request_delay=0.01,
        cache_ttl=1,
        idle_timeout=10,
        max_lifetime=10,
    )
    device.slots = 3
    for turns in range(8):
        multiplexer = Multiplexer(settings)
        await multiplexer.start()
        clients = [await Client.connect(port_of(multiplexer)) for _ in range(6)]
        assert await clients[0].ask(read()) == values()
        device.hold()
        for number, client in enumerate(clients):
            client.send(*(read(i % 7) for i in range(50)), write(number, 1))
            client.writer.write(b"\0\1")  # begun, and never completed
        asking = [
            asyncio.create_task(multiplexer.request(b"\1" + read(i))) for i in (1, 99)
        ]
        seen = len(device.requests)
        await device.has_been_asked(seen + 1)
        knocking = socket.socket()
        knocking.setblocking(False)
        knocking.connect_ex(("127.0.0.1", port_of(multiplexer)))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await multiplexer.stop()
        assert not multiplexer.snapshot().clients
        assert multiplexer.snapshot().connections == 0
        for result in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(result, RequestError)
        for client in clients:
            client.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()
        knocking.close()
        device.release()
        await until(lambda: not device.open_links)
        assert (asyncio.all_tasks(), open_sockets(), timers()) == before


async def test_stop_gives_up_connecting(multiplex: Multiplex) -> None:
    with silent_port() as port:
        multiplexer = await multiplex(port=port)
        await until(lambda: multiplexer.snapshot().connection_attempts)
        before = time.monotonic()
        await multiplexer.stop()
        assert time.monotonic() - before < 2


async def test_next_address_is_tried_beside_one_that_does_not_answer(
    device: Device, multiplex: Multiplex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a name has a dead IPv6 address beside a good IPv4 one."""
    loop = asyncio.get_running_loop()

    async def getaddrinfo(host: str, port: Any, **how: Any) -> Any:
        known = ("127.0.0.2", "127.0.0.1", "127.0.0.3")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in (known if host == "two.addresses" else (host,))
        ]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    before = open_sockets()
    with silent_port("127.0.0.2", device.port):
        multiplexer = await multiplex(
            host="two.addresses", limits=Limits(connect=PATIENCE)
        )
        began = time.monotonic()
        await until(lambda: multiplexer.snapshot().connections)
        assert time.monotonic() - began < PATIENCE / 4
        assert len(device.open_links) == 1
        await multiplexer.stop()
    await until(lambda: not device.open_links)
    assert open_sockets() <= before


async def test_connection_to_itself_is_a_refusal(
    multiplex: Multiplex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may choose the very port that is asked for, if nobody listens."""

    async def start_connection(*_: Any, **__: Any) -> socket.socket:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        sock.setblocking(False)
        return sock

    monkeypatch.setattr(opening, "start_connection", start_connection)
    multiplexer = await multiplex()
    await until(lambda: multiplexer.health is Health.UNREACHABLE)
    assert "nobody listens there" in (multiplexer.snapshot().health_reason or "")
    assert not multiplexer.snapshot().connections


async def test_attempt_to_connect_has_an_end(
    multiplex: Multiplex,
) -> None:
    assert LIMITS.connect == 5
    with silent_port() as port:
        multiplexer = await multiplex(port=port, limits=Limits(connect=0.05))
        await until(lambda: multiplexer.health is Health.UNREACHABLE)
        assert multiplexer.snapshot().health_reason == (
            "no answer to the connection attempt within 0.05 s"
        )


@pytest.mark.parametrize("host", [None, "::1", "127.0.0.2"])
async def test_it_listens_where_it_is_told(
    device: Device, multiplex: Multiplex, host: str | None
) -> None:
    multiplexer = await multiplex(listen_host=host)
    addresses = multiplexer.snapshot().listen_addresses
    if host is None:
        assert {address for address, _ in addresses} == {"0.0.0.0", "::"}  # noqa: S104
    else:
        assert [address for address, _ in addresses] == [host]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    for address, port in addresses:
        client = await Client.connect(port, reachable.get(address, address))
        assert await client.ask(read()) == values()
        (told,) = multiplexer.snapshot().clients
        assert (told.address, told.port) == client.address
        client.close()
        await until(lambda: not multiplexer.snapshot().clients)


# ---- pause and reconnect --------------------------------------------------------


async def test_paused_from_the_start_it_leaves_the_device_alone(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(paused=True)
    told = [(multiplexer.paused, multiplexer.health)]
    client = await connect(multiplexer)
    assert await client.ask(read()) == exception(3, 0x0A)
    assert multiplexer.snapshot().connection_attempts == 0
    multiplexer.resume()
    assert await client.ask(read()) == values()
    told.append((multiplexer.paused, multiplexer.health))
    assert told == [(True, Health.PAUSED), (False, Health.HEALTHY)]


async def test_pause_lets_the_device_finish_and_then_go(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    first, second = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    first.send(write(1, 2))
    await device.has_been_asked(1)
    second.send(write(3, 4))
    await until(lambda: multiplexer.snapshot().queue_depth)
    pausing = asyncio.create_task(multiplexer.pause())
    # What waits and what comes is refused at once, what is in flight is answered.
    assert (await second.receive()).pdu == exception(6, 0x0A)
    assert await second.ask(read()) == exception(3, 0x0A)
    assert not pausing.done()
    device.release()
    assert (await first.receive()).pdu == write(1, 2)
    await pausing
    await until(lambda: not device.open_links)
    assert multiplexer.snapshot().connections == 0
    # The one slot is free for somebody else, and left alone.
    app = await Client.connect(device.port)
    assert await app.ask(read(1)) == b"\3\4\0\2" + values(2, 1)[2:]
    await multiplexer.pause()
    app.close()
    await until(lambda: not device.open_links)
    multiplexer.resume()
    multiplexer.resume()
    assert await second.ask(write(3, 4)) == write(3, 4)
    assert len(device.links) == 3


async def test_pause_that_is_undone_ends_at_once_and_keeps_the_connection(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.hold()
    client.send(read())
    await device.has_been_asked(1)
    pausing = asyncio.create_task(multiplexer.pause())
    await until(lambda: multiplexer.paused)
    multiplexer.resume()
    async with asyncio.timeout(PATIENCE):
        await pausing
    device.release()
    assert (await client.receive()).pdu == values()
    assert await client.ask(read(1)) == values(1)
    assert len(device.links) == 1


async def test_pause_waits_for_a_connection_that_was_to_be_renewed_anyway(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.hold()
    client.send(read())
    await device.has_been_asked(1)
    renewing = asyncio.create_task(multiplexer.reconnect())
    pausing = asyncio.create_task(multiplexer.pause())
    await until(lambda: multiplexer.paused)
    done, _ = await asyncio.wait((renewing, pausing), timeout=0.05)
    assert not done
    device.release()
    await asyncio.gather(renewing, pausing)
    await until(lambda: not device.open_links)
    assert (await client.receive()).pdu == values()
    assert multiplexer.snapshot().connections == 0


async def test_pause_gives_up_connecting(multiplex: Multiplex, device: Device) -> None:
    with silent_port() as port:
        multiplexer = await multiplex(port=port)
        await until(lambda: multiplexer.snapshot().connection_attempts)
        async with asyncio.timeout(2):
            await multiplexer.pause()
        assert multiplexer.health is Health.PAUSED


async def test_reconnect_lets_the_device_finish_and_keeps_what_waits(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    first, second = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    first.send(write(1, 2))
    await device.has_been_asked(1)
    second.send(write(3, 4))
    await until(lambda: multiplexer.snapshot().queue_depth)
    reconnecting = asyncio.create_task(multiplexer.reconnect())
    done, _ = await asyncio.wait((reconnecting,), timeout=0.05)
    assert not done
    device.release()
    await reconnecting
    assert (await first.receive()).pdu == write(1, 2)
    assert (await second.receive()).pdu == write(3, 4)
    assert [asked.link for asked in device.requests] == device.links
    # The old connection was gone before the new one knocked.
    assert len(device.links) == 2
    assert (device.refused, device.most_open) == (0, 1)
    assert multiplexer.snapshot().reconnects == 1


async def test_what_waits_for_a_reconnect_may_time_out_meanwhile(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=3600)
    first, second = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    first.send(write(1, 2))
    await device.holds(1)
    await multiplexer.apply(replace(multiplexer.settings, timeout=0.1))
    reconnecting = asyncio.create_task(multiplexer.reconnect())
    assert await second.ask(write(3, 4)) == exception(6, 0x06)
    assert not reconnecting.done()
    device.release()
    await reconnecting
    assert (await first.receive()).pdu == write(1, 2)
    await until(lambda: len(device.open_links) == 1 < len(device.links))


async def test_resume_does_not_undo_a_reconnect(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.hold()
    client.send(read())
    await device.holds(1)
    reconnecting = asyncio.create_task(multiplexer.reconnect())
    await asyncio.sleep(0)
    pausing = asyncio.create_task(multiplexer.pause())
    await until(lambda: multiplexer.paused)
    multiplexer.resume()
    device.release()
    await asyncio.gather(reconnecting, pausing)
    assert (await client.receive()).pdu == values()
    assert await client.ask(read()) == values()
    assert [asked.link for asked in device.requests] == device.links


async def test_reconnect_at_once_asks_again_only_what_may_be_asked_again(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_in_flight=2)
    reader, writer = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    reader.send(read())
    writer.send(write(1, 2))
    await device.has_been_asked(2)
    device.respond = answer
    await multiplexer.reconnect(drain=False)
    assert (await writer.receive()).pdu == exception(6, 0x0B)
    assert (await reader.receive()).pdu == values()
    assert device.asked.count(write(1, 2)) == 1
    assert device.asked.count(read()) == 2


async def test_reconnect_does_not_wait_for_the_backoff(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    await device.stop()
    multiplexer = await multiplex(reconnect_backoff=300, reconnect_backoff_max=300)
    client = await connect(multiplexer)
    await until(lambda: multiplexer.health is Health.UNREACHABLE)
    assert await client.ask(read()) == exception(3, 0x0A)
    await device.start()
    await multiplexer.reconnect()
    assert await client.ask(read()) == values()


async def test_reconnect_does_nothing_while_paused(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(paused=True)
    await multiplexer.reconnect()
    assert multiplexer.snapshot().connection_attempts == 0


async def test_stop_ends_a_pause_that_waits(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.respond = ignore
    client.send(read())
    await device.has_been_asked(1)
    pausing = asyncio.create_task(multiplexer.pause())
    await until(lambda: multiplexer.paused)
    await multiplexer.stop()
    async with asyncio.timeout(PATIENCE):
        await pausing


# ---- requests of its own --------------------------------------------------------


async def test_own_request_goes_the_way_of_all_others(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex()
    assert await multiplexer.request(b"\7" + read(3)) == b"\7" + values(3, unit=7)
    assert await multiplexer.request(b"\7\x2b") == b"\7" + exception(0x2B, 1)
    assert [(asked.unit, asked.pdu) for asked in device.requests] == [
        (7, read(3)),
        (7, b"\x2b"),
    ]
    snapshot = multiplexer.snapshot()
    assert (snapshot.requests, snapshot.responses, snapshot.exceptions) == (2, 2, 1)
    assert [record.client for record in multiplexer.trace()] == ["host", "host"]


@pytest.mark.parametrize("payload", [b"", b"\1", b"\1" + bytes(254)])
async def test_what_is_no_request_is_a_value_error(
    device: Device, multiplex: Multiplex, payload: bytes
) -> None:
    multiplexer = await multiplex()
    with pytest.raises(ValueError, match="PDU"):
        await multiplexer.request(payload)
    assert multiplexer.snapshot().requests == 0


async def failure_of(multiplexer: Multiplexer, payload: bytes) -> Failure:
    """Give the reason for which a request of its own gets no response."""
    with pytest.raises(RequestError) as error:
        await multiplexer.request(payload)
    assert str(error.value) == error.value.failure.value.replace("_", " ")
    return error.value.failure


async def test_own_request_fails_for_a_reason(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(timeout=0.1, allowed_functions=(3, 6))
    assert await failure_of(multiplexer, b"\1\4") is Failure.REFUSED
    device.script.append(ignore)
    assert await failure_of(multiplexer, b"\1" + read()) is Failure.NO_RESPONSE
    device.script.append(hang_up)
    lost = await failure_of(multiplexer, b"\1" + write(1, 2))
    assert lost is Failure.CONNECTION_LOST
    await multiplexer.pause()
    assert await failure_of(multiplexer, b"\1" + read()) is Failure.PAUSED
    await device.stop()
    multiplexer.resume()
    assert await failure_of(multiplexer, b"\1" + read()) is Failure.NO_CONNECTION
    assert multiplexer.snapshot().failures == {
        failure.value: 0 for failure in Failure
    } | dict.fromkeys(
        ("refused", "no_response", "connection_lost", "paused", "no_connection"), 1
    )
    await multiplexer.stop()
    assert await failure_of(multiplexer, b"\1" + read()) is Failure.NO_CONNECTION


async def test_own_request_that_follows_another_s_ends_with_stop(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.hold()
    client.send(read())
    await device.has_been_asked(1)
    failing = asyncio.create_task(failure_of(multiplexer, b"\1" + read()))
    await until(lambda: multiplexer.snapshot().requests == 2)
    await multiplexer.stop()
    async with asyncio.timeout(PATIENCE):
        assert await failing is Failure.NO_CONNECTION


@pytest.mark.parametrize(
    ("pdu", "asked"), [(read(9), False), (write(9, 9), True)], ids=["read", "write"]
)
async def test_own_request_given_up_is_dropped_unless_it_writes(
    device: Device, multiplex: Multiplex, connect: Connect, pdu: bytes, asked: bool
) -> None:
    multiplexer = await multiplex(share_reads=False)
    client = await connect(multiplexer)
    device.hold()
    client.send(read(1))
    await device.has_been_asked(1)
    asking = asyncio.create_task(multiplexer.request(b"\1" + pdu))
    await until(lambda: multiplexer.snapshot().queue_depth)
    asking.cancel()
    await asyncio.wait((asking,))
    device.release()
    assert (await client.receive()).pdu == values(1)
    assert await client.ask(read(2)) == values(2)
    assert (pdu in device.asked) is asked


async def test_own_request_is_not_held_up_by_a_full_queue(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=1, share_reads=False)
    client = await connect(multiplexer)
    device.hold()
    client.send(*(read(i) for i in range(20)))
    await device.has_been_asked(1)
    asking = [
        asyncio.create_task(multiplexer.request(b"\1" + read(100 + i)))
        for i in range(5)
    ]
    await until(lambda: multiplexer.snapshot().requests >= 7)
    device.release()
    assert await asyncio.gather(*asking) == [b"\1" + values(100 + i) for i in range(5)]
    assert [(await client.receive()).pdu for _ in range(20)] == [
        values(i) for i in range(20)
    ]


# ---- clients and counters -------------------------------------------------------


async def test_clients_can_be_disconnected_by_address_by_name_or_all(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(listen_host=None)
    ports = dict(multiplexer.snapshot().listen_addresses)
    clients = [await Client.connect(ports["0.0.0.0"]) for _ in range(3)]  # noqa: S104
    six = await Client.connect(ports["::"], "::1")
    await until(lambda: len(multiplexer.snapshot().clients) == 4)
    assert multiplexer.disconnect_client("192.0.2.1") == 0
    assert multiplexer.disconnect_client("::1") == 1
    assert await six.closed()
    host, port = clients[1].address
    assert multiplexer.disconnect_client(f"{host}:{port}") == 1
    assert await clients[1].closed()
    assert await clients[0].ask(read()) == values()
    assert multiplexer.disconnect_client("127.0.0.1") == 2
    assert await clients[0].closed()
    assert await clients[2].closed()
    await until(lambda: not multiplexer.snapshot().clients)
    again = await Client.connect(ports["0.0.0.0"])  # noqa: S104
    await until(lambda: multiplexer.snapshot().clients)
    assert multiplexer.disconnect_client() == 1
    assert await again.closed()
    for client in (*clients, again, six):
        client.close()


async def test_snapshot_tells_all_that_happened(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    began = time.time()
    multiplexer = await multiplex(queue_size=8, share_reads=False)
    empty = multiplexer.snapshot()
    assert (empty.health, empty.health_reason) == (Health.IDLE, None)
    assert (empty.last_response, empty.connected_since) == (None, None)
    assert (empty.response_seconds_median, empty.wait_seconds_p95) == (None, None)
    first = await connect(multiplexer)
    await first.ask(read(1))
    second = await connect(multiplexer)
    device.hold()
    first.send(read(2), write(3, 4), unit=2)
    await device.has_been_asked(2)
    second.send(b"\7")
    second.writer.write(b"\0\0\0\1\0\2\1\3")  # another protocol's
    await until(lambda: multiplexer.snapshot().invalid_requests)
    busy = multiplexer.snapshot()
    assert (busy.in_flight, busy.queue_depth, busy.connections) == (1, 2, 1)
    assert [client.pending for client in busy.clients] == [1, 1]
    device.release()
    for client in (first, first, second):
        await client.receive()
    second.close()
    await until(lambda: len(multiplexer.snapshot().clients) == 1)
    told = multiplexer.snapshot()
    assert (told.requests, told.responses, told.exceptions) == (4, 4, 1)
    assert (told.health, told.health_reason) == (Health.HEALTHY, None)
    assert (told.queue_depth, told.queue_peak, told.in_flight) == (0, 2, 0)
    assert (told.clients_peak, told.clients_refused) == (2, 0)
    assert (told.connection_attempts, told.reconnects) == (1, 0)
    assert set(told.failures.values()) == {0}
    assert (told.timeouts, told.late_responses, told.unsolicited_responses) == (0, 0, 0)
    assert told.bytes_from_clients == 3 * 12 + 8 + 8
    assert told.bytes_to_upstream == 3 * 12 + 8
    assert told.bytes_to_clients == told.bytes_from_upstream == 2 * 13 + 12 + 9
    assert began <= told.since <= told.connected_since <= told.last_response  # type: ignore[operator]
    assert told.last_response <= time.time()  # type: ignore[operator]
    assert 0 <= told.response_seconds_median <= told.response_seconds_p95 < PATIENCE  # type: ignore[operator]
    assert 0 <= told.wait_seconds_median <= told.wait_seconds_p95 < PATIENCE  # type: ignore[operator]
    assert sorted(told.units) == [1, 2]
    assert told.units[1].functions == {3: 1, 7: 1}
    assert told.units[2].functions == {3: 1, 6: 1}
    (one,) = told.clients
    assert (one.address, one.port) == first.address
    assert (one.requests, one.responses, one.failures) == (3, 3, 0)
    assert (one.bytes_in, one.bytes_out) == (3 * 12, 2 * 13 + 12)
    assert began <= one.since <= one.last_request <= time.time()  # type: ignore[operator]
    # A picture of that moment: it does not change any more.
    await first.ask(read(5))
    assert told.requests == 4
    assert told.units[1].functions == {3: 1, 7: 1}


async def test_counting_can_begin_again(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    gone = await connect(multiplexer)
    await client.ask(read())
    gone.close()
    await until(lambda: len(multiplexer.snapshot().clients) == 1)
    device.hold()
    client.send(read(1), read(2))
    await device.has_been_asked(2)
    before = multiplexer.snapshot()
    multiplexer.reset_statistics()
    told = multiplexer.snapshot()
    assert told.since > before.since
    assert (told.requests, told.responses, told.bytes_from_clients) == (0, 0, 0)
    assert told.units == {}
    assert (told.clients_peak, told.queue_peak) == (1, 1)
    assert told.connected_since == pytest.approx(before.connected_since, abs=0.1)
    device.release()
    for _ in range(2):
        await client.receive()
    assert multiplexer.snapshot().responses == 2
    assert len(multiplexer.trace()) == 3


async def test_trace_keeps_the_last_exchanges(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(trace_size=4, timeout=1)
    client = await connect(multiplexer)
    host, port = client.address
    began = time.time()
    await client.ask(read(1))
    await client.ask(read(2))
    stray = Frame(9999, 1, values()).encoded()
    device.links[0].transport.write(stray)
    await until(lambda: multiplexer.snapshot().unsolicited_responses)
    await client.ask(write(3, 4))
    device.script.append(reset)
    await client.ask(write(5, 6))
    first, noise, second, failed = multiplexer.trace()
    assert first[1:5] == (
        f"{host}:{port}",
        b"\1" + read(2),
        b"\1" + values(2),
        "answered",
    )
    assert noise[1:5] == ("device", b"", stray, "unsolicited")
    assert second[2:5] == (b"\1" + write(3, 4), b"\1" + write(3, 4), "answered")
    assert failed[2:5] == (b"\1" + write(5, 6), None, "connection_lost")
    assert failed.response_seconds is not None
    assert {type(record.outcome) for record in multiplexer.trace()} == {str}
    times = [record.time for record in multiplexer.trace()]
    assert times == sorted(times)
    assert began - 0.01 < times[0]
    assert times[-1] < time.time() + 0.01
    assert 0 <= first.wait_seconds <= first.wait_seconds + first.response_seconds < 5  # type: ignore[operator]
    # What was never sent has only waited.
    await multiplexer.pause()
    await client.ask(read(7))
    refused = multiplexer.trace()[-1]
    assert (refused.outcome, refused.response_seconds) == ("paused", None)
    assert 0 <= refused.wait_seconds < PATIENCE


async def test_trace_can_be_off_and_long_payloads_are_cut(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(trace_size=0)
    await multiplexer.request(b"\1" + read())
    assert multiplexer.trace() == ()
    echo = await multiplex(protocol="echo", timeout=0.1)
    with pytest.raises(RequestError):
        await echo.request(b"x" * 1000 + b"\n")
    assert [len(record.request) for record in echo.trace()] == [512]


# ---- settings that change while it runs -----------------------------------------


async def test_what_cannot_change_while_it_runs_is_left_alone(
    device: Device, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex()
    settings = multiplexer.settings
    assert await multiplexer.apply(settings)
    for changes in (
        {"port": 1},
        {"host": "localhost"},
        {"protocol": "echo"},
        {"listen_port": 1},
        {"listen_host": None},
        {"matching": "lenient"},
        {"timeout": 1.0, "quiet": 9.0},
    ):
        assert not await multiplexer.apply(replace(settings, **changes))
        assert multiplexer.settings is settings


async def test_each_of_these_can_change_while_it_runs(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    changes: dict[str, Any] = {
        "timeout": 4.0,
        "connect_delay": 0.001,
        "request_delay": 0.001,
        "connect_on_demand": True,
        "idle_timeout": 60.0,
        "max_lifetime": 3600.0,
        "reconnect_backoff": 2.0,
        "reconnect_backoff_max": 20.0,
        "max_connections": 2,
        "queue_size": 5,
        "health_check_interval": 60.0,
        "allowed_networks": (ip_network("127.0.0.0/8"),),
        "share_reads": False,
        "cache_ttl": 0.001,
        "writes_first": False,
        "write_rules": (rule("allow", "127.0.0.2/32"), *DENIED),
        "repeated_write_ttl": 5.0,
        "allowed_functions": (3,),
        "allowed_units": (1,),
        "max_read_registers": 10,
        "max_clients": 10,
        "unit_id": 9,
        "on_failure": "close",
        "trace_size": 1,
        "max_in_flight": 2,
    }
    for name, value in changes.items():
        settings = replace(multiplexer.settings, **{name: value})
        assert settings != multiplexer.settings, name
        assert await multiplexer.apply(settings), name
        assert multiplexer.settings == settings
    assert await client.ask(read()) == values()
    assert len(device.links) == 1


async def test_as_many_go_out_at_once_as_the_settings_say_by_now(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(share_reads=False)
    client = await connect(multiplexer)
    for number, in_flight in ((0, 1), (10, 3), (20, 1)):
        settings = replace(multiplexer.settings, max_in_flight=in_flight)
        assert await multiplexer.apply(settings)
        device.hold()
        client.send(*(read(number + i) for i in range(5)))
        await device.holds(in_flight)
        assert multiplexer.snapshot().in_flight == in_flight
        device.release()
        for _ in range(5):
            await client.receive()
    assert len(device.links) == 1


@pytest.mark.parametrize("unit_map", [(), ((1, 1),)], ids=["plain", "mapped"])
async def test_clients_get_of_failures_what_the_settings_say_by_now(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    unit_map: tuple[tuple[int, int], ...],
) -> None:
    multiplexer = await multiplex(unit_map=unit_map, on_failure="close")
    client = await connect(multiplexer)
    changes: Any
    for changes in ({"on_failure": "exception"}, {"on_failure": "close"}):
        settings = replace(multiplexer.settings, **changes)
        assert await multiplexer.apply(settings)
        device.script.append(hang_up)
        client.send(write(1, 2))
        if changes["on_failure"] == "exception":
            assert (await client.receive()).pdu == exception(6, 0x0B)
        else:
            assert await client.closed()


def test_clients_of_other_framings_get_that_too() -> None:
    for framing in (Framing.RTU, Framing.SOLARMAN):
        settings = Settings(host="x", logger_serial=1)
        codec = make_protocol(settings).downstream(framing)
        request = make_protocol(settings).request(b"\1" + read())
        close: Any = "close"
        codec.apply(replace(settings, on_failure=close))
        assert codec.refuse(request, Failure.NO_RESPONSE) is None


async def test_trace_keeps_as_many_as_the_settings_say_by_now(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(trace_size=3)
    client = await connect(multiplexer)
    kept = []
    for size in (3, 1, 0, 2):
        await multiplexer.apply(replace(multiplexer.settings, trace_size=size))
        kept.append(len(multiplexer.trace()))
        for _ in range(3):
            await client.ask(read())
        kept.append(len(multiplexer.trace()))
    assert kept == [0, 3, 1, 1, 0, 0, 0, 2]


async def test_health_check_asks_the_unit_that_the_settings_say_by_now(
    device: Device, multiplex: Multiplex
) -> None:
    device.respond = ignore
    multiplexer = await multiplex(health_check_interval=0.05, timeout=0.1)
    await device.has_been_asked(1)
    await multiplexer.apply(replace(multiplexer.settings, unit_id=9))
    await until(lambda: any(asked.unit == 9 for asked in device.requests))


async def test_shorter_timeout_holds_for_what_waits(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=3600, matching="lenient")
    client = await connect(multiplexer)
    device.hold()
    client.send(read(1), read(2))
    await device.has_been_asked(1)
    assert await multiplexer.apply(replace(multiplexer.settings, timeout=0.1))
    assert (await client.receive()).pdu == exception(3, 0x06)
    device.release()
    assert (await client.receive()).pdu == values(1)


async def test_larger_queue_lets_those_in_who_wait(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=1)
    client = await connect(multiplexer)
    device.hold()
    client.send(*(read(i) for i in range(20)))
    await until(lambda: multiplexer.snapshot().queue_depth == 1)
    await multiplexer.apply(replace(multiplexer.settings, queue_size=10))
    assert multiplexer.snapshot().queue_depth == 10


async def test_a_smaller_number_of_clients_holds_for_the_next(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    first = await connect(multiplexer)
    await first.ask(read())
    await multiplexer.apply(replace(multiplexer.settings, max_clients=1))
    assert await (await connect(multiplexer)).closed()
    assert await first.ask(read(1)) == values(1)
    assert multiplexer.snapshot().clients_refused == 1


async def test_connect_on_demand_holds_for_the_connection_that_is_open(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    await client.ask(read())
    settings = multiplexer.settings
    await multiplexer.apply(replace(settings, connect_on_demand=True))
    device.open_links[0].transport.close()
    await until(lambda: multiplexer.health is Health.IDLE)
    assert multiplexer.snapshot().connection_attempts == 1
    assert await client.ask(read()) == values()
    device.open_links[0].transport.close()
    await until(lambda: multiplexer.health is Health.IDLE)
    await multiplexer.apply(settings)
    await until(lambda: device.open_links)


async def test_fewer_connections_are_kept_if_fewer_are_wanted(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = 3
    multiplexer = await multiplex(max_connections=3)
    clients = [await connect(multiplexer) for _ in range(3)]
    await spread(device, clients)
    device.hold()
    for number, client in enumerate(clients):
        client.send(read(number))
    await until(lambda: len(device.held) == 3)
    await multiplexer.apply(replace(multiplexer.settings, max_connections=1))
    assert len(device.open_links) == 3  # each has an exchange to finish
    device.release()
    for number, client in enumerate(clients):
        assert (await client.receive()).pdu == values(number)
    await until(lambda: len(device.open_links) == 1)
    for client in clients:
        assert await client.ask(read(7)) == values(7)
    assert len(device.links) == 3


# ---- events ---------------------------------------------------------------------


async def test_events_tell_a_life_in_its_order(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(paused=True, reconnect_backoff=0.1)
    events: list[Event] = []
    ended: list[Event] = []
    unsubscribe = multiplexer.subscribe(ended.append)
    multiplexer.subscribe(events.append)
    unsubscribe()

    def told(*expected: Event | EventType) -> Callable[[], bool]:
        """Tell whether exactly this was told; what is merged aside."""
        return lambda: (
            [
                event if isinstance(expect, Event) else event.type
                for event, expect in zip(events, expected, strict=False)
            ]
            == list(expected)
            and len(events) == len(expected)
        )

    multiplexer.resume()
    await until(
        told(
            Event(EventType.HEALTH_CHANGED, reason=Health.IDLE),
            EventType.CONNECTION_OPENED,
            Event(EventType.HEALTH_CHANGED, reason=Health.HEALTHY),
        )
    )
    events.clear()
    client = await connect(multiplexer)
    await client.ask(read())
    assert events == [Event(EventType.CLIENT_CONNECTED, "127.0.0.1")]
    events.clear()
    await device.stop()
    await until(lambda: EventType.UPSTREAM_LOST in types(events))
    await until(lambda: multiplexer.health is Health.UNREACHABLE)
    closed, failed, lost, health = events[:4]
    assert closed.type is EventType.CONNECTION_CLOSED
    assert closed.reason in {"reset", "closed_by_device"}
    assert failed.type is EventType.CONNECTION_FAILED
    assert "Connect call failed" in str(failed.detail)
    assert lost == Event(EventType.UPSTREAM_LOST, detail=failed.detail)
    assert health == Event(
        EventType.HEALTH_CHANGED, None, Health.UNREACHABLE, failed.detail
    )
    assert set(types(events[4:])) <= {EventType.CONNECTION_FAILED}
    events.clear()
    device.hold()
    await device.start()
    await device.holds(1)  # the health check
    assert EventType.CONNECTION_OPENED in types(events)
    assert EventType.UPSTREAM_BACK not in types(events)  # a connect is no response
    device.release()
    await until(lambda: EventType.UPSTREAM_BACK in types(events))
    assert events[-2:] == [
        Event(EventType.UPSTREAM_BACK),
        Event(EventType.HEALTH_CHANGED, reason=Health.HEALTHY),
    ]
    events.clear()
    client.close()
    await until(told(Event(EventType.CLIENT_DISCONNECTED, "127.0.0.1")))
    assert ended == []


async def test_pause_and_refusals_are_told(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    await client.ask(read())
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    await multiplexer.pause()
    client.send(*[read(7)] * 5)
    for _ in range(5):
        await client.receive()
    refused = Event(
        EventType.REQUEST_REFUSED,
        "127.0.0.1",
        Failure.PAUSED,
        "unit 1 read holding registers 7 count 2",
    )
    assert events == [
        Event(EventType.HEALTH_CHANGED, reason=Health.PAUSED),
        Event(EventType.CONNECTION_CLOSED, None, CloseReason.PAUSED, ""),
        refused,
    ]
    await multiplexer.stop()  # what was held back is told
    assert replace(refused, count=4) in events


async def test_at_rest_no_error_of_the_past_is_told(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """Neither when it is stopped nor when it is paused."""
    for rest in (Health.IDLE, Health.PAUSED):
        multiplexer = await multiplex(timeout=0.2)
        client = await connect(multiplexer)
        device.script.append(ignore)
        await client.ask(read())
        events: list[Event] = []
        multiplexer.subscribe(events.append)
        await (multiplexer.pause() if rest is Health.PAUSED else multiplexer.stop())
        assert Event(EventType.HEALTH_CHANGED, reason=rest) in events


async def test_listener_s_fault_does_not_stop_the_traffic(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()

    def fail(event: Event) -> None:
        raise RuntimeError

    multiplexer.subscribe(fail)
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
