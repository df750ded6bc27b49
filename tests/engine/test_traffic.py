"""What becomes of requests between clients and a device, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
import socket
import time
from typing import Any

from aiohappyeyeballs import start_connection
from pymodbus.framer.rtu import FramerRTU
import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    CloseReason,
    Event,
    EventType,
    Failure,
    Health,
    Mismatch,
    Multiplexer,
)
from custom_components.tcp_multiplexer.multiplexer.limits import Limits
from custom_components.tcp_multiplexer.multiplexer.upstream import (
    opening,
    socket_upstream,
)
from tests.rules import ACKNOWLEDGED, DENIED, rule
from tests.waiting import PATIENCE, until
from tests.wire import Frame, exception, read, values, write

from .conftest import Connect, Multiplex
from .devices import (
    Asked,
    Client,
    Device,
    answer,
    hang_up,
    ignore,
    port_of,
    reset,
    send,
    serving,
    silent_port,
    spread,
    taken_of_flood,
)


def begin_and_hang_up(asked: Asked) -> None:
    """Send some of the answer, then close."""
    asked.link.transport.write(asked.frame()[:9])
    asked.link.transport.close()


def whole(answered: bytes) -> Any:
    """Answer with another PDU than the right one."""
    return send(lambda asked: asked.frame(answered))


async def received(client: Client, count: int) -> list[bytes]:
    """Give the PDUs of the next frames."""
    return [(await client.receive()).pdu for _ in range(count)]


async def queued(multiplexer: Multiplexer, depth: int) -> None:
    """Wait until so many requests are pending."""
    await until(lambda: multiplexer.snapshot().queue_depth == depth)


# ---- responses ------------------------------------------------------------------


async def test_everybody_gets_his_own_answer_with_his_own_transaction(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    clients = [await connect(multiplexer) for _ in range(8)]
    for turn in range(20):
        for number, client in enumerate(clients):  # the same transactions in all
            client.send(read(100 * number + turn), unit=number)
        for number, client in enumerate(clients):
            frame = await client.receive()
            right = values(100 * number + turn, unit=number)
            assert frame == Frame(turn + 1, number, right)
    transactions = [asked.transaction for asked in device.requests]
    assert transactions == list(range(1, 161))
    assert len(device.links) == 1


@pytest.mark.parametrize(
    "body",
    ["03", "03 FF 0000", "03 02 0001", "83", "83 02", "03" + "00" * 252],
)
async def test_what_matches_is_passed_on_byte_for_byte(
    device: Device, multiplex: Multiplex, connect: Connect, body: str
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.script.append(whole(bytes.fromhex(body)))
    assert await client.ask(read()) == bytes.fromhex(body)


@pytest.mark.parametrize("function", [0, 0x2B, 0x41, 0x64, 0x7F, 0x80, 0xFF])
async def test_any_function_passes(
    device: Device, multiplex: Multiplex, connect: Connect, function: int
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    pdu = bytes((function,)) + bytes(252)
    device.script.append(whole(pdu))
    assert await client.ask(pdu) == pdu
    assert device.asked == [pdu]


@pytest.mark.parametrize("limited", [True, False])
async def test_flood_of_long_messages_is_read_slowly_until_it_ends(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    limited: bool,
) -> None:
    """Fewer of them are in the little that is read at a time than make it a flood.

    There are transports that do not let us say how much that is.
    """
    if not limited:
        monkeypatch.setattr(socket_upstream, "limit_reads", lambda *_: None)
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    at_a_time = await taken_of_flood(device, multiplexer, 4000)
    assert at_a_time[0] < 2000
    assert max(at_a_time[1:]) < 64
    assert await client.ask(read()) == values()


async def test_requests_of_one_client_keep_their_order(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=4)
    client = await connect(multiplexer)
    pdus = [write(i, i) if i % 3 == 0 else read(i) for i in range(100)]
    client.send(*pdus)
    assert [frame[0] for frame in [await client.receive() for _ in pdus]] == list(
        range(1, 101)
    )
    assert device.asked == pdus


async def test_others_need_not_wait_for_one_who_asks_much(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=1000)
    greedy, modest = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    greedy.send(*(read(i) for i in range(1000)))
    await queued(multiplexer, 999)
    modest.send(read(5000))
    await queued(multiplexer, 1000)
    device.release()
    await modest.receive()
    # One was under way, and none was taken in between.
    assert device.asked.index(read(5000)) == 1
    assert len(await received(greedy, 1000)) == 1000


# ---- what a client gets when there is no response -------------------------------


async def test_no_connection_before_the_deadline_is_0a(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    await device.stop()
    multiplexer = await multiplex(timeout=0.3, reconnect_backoff=0.1)
    client = await connect(multiplexer)
    before = time.monotonic()
    assert await client.ask(read()) == exception(3, 0x0A)
    assert time.monotonic() - before < 5
    with silent_port() as port:
        multiplexer = await multiplex(port=port, timeout=0.1)
        client = await connect(multiplexer)
        assert await client.ask(write(1, 2)) == exception(6, 0x0A)
        assert multiplexer.snapshot().failures["no_connection"] == 1


async def test_what_cannot_be_served_in_time_is_refused_at_once(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    await device.stop()
    multiplexer = await multiplex(
        timeout=60, reconnect_backoff=100, reconnect_backoff_max=100
    )
    early = await connect(multiplexer)
    early.send(read(), write(1, 2))
    assert await received(early, 2) == [exception(3, 0x0A), exception(6, 0x0A)]
    assert await early.ask(read()) == exception(3, 0x0A)
    assert multiplexer.snapshot().connection_attempts == 1


async def test_connection_lost_after_a_write_was_sent_is_0b_at_once(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=60)
    client = await connect(multiplexer)
    for fault in (reset, hang_up, begin_and_hang_up):
        device.script.append(fault)
        assert await client.ask(write(1, 2)) == exception(6, 0x0B)
        assert await client.ask(read(5)) == values(5)
    assert device.asked.count(write(1, 2)) == 3
    assert multiplexer.snapshot().failures["connection_lost"] == 3


async def test_no_response_before_the_deadline_is_0b_and_waiting_until_then_06(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.2)
    client = await connect(multiplexer)
    device.respond = ignore
    client.send(read(1), read(2), write(3, 4))
    told = {frame.transaction: frame.pdu for frame in await frames(client, 3)}
    assert told == {1: exception(3, 0x0B), 2: exception(3, 0x06), 3: exception(6, 6)}
    assert device.asked == [read(1)]
    snapshot = multiplexer.snapshot()
    assert (snapshot.timeouts, snapshot.failures["busy"]) == (1, 2)
    assert (snapshot.units[1].requests, snapshot.units[1].failures) == (3, 3)


async def frames(client: Client, count: int) -> list[Frame]:
    """Give the next frames."""
    return [await client.receive() for _ in range(count)]


async def test_clients_that_cannot_live_with_exceptions_are_closed_instead(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(
        on_failure="close", timeout=0.2, allowed_functions=(3, 6)
    )
    client = await connect(multiplexer)
    assert await client.ask(b"\4") == exception(4, 0x01)  # a rule is no failure
    device.script.append(ignore)
    client.send(read())
    assert await client.closed()
    client = await connect(multiplexer)
    device.script.append(hang_up)
    client.send(write(1, 2))
    assert await client.closed()
    client = await connect(multiplexer)
    await multiplexer.pause()
    client.send(read(1), read(2))
    assert await client.closed()


# ---- retry ----------------------------------------------------------------------


@pytest.mark.parametrize("fault", [reset, hang_up])
@pytest.mark.parametrize(
    "pdu", [read(1), b"\1\0\0\0\1", b"\4\0\0\0\1", b"\7", b"\x2b\x0e\1\0"]
)
async def test_harmless_request_is_asked_once_more_if_its_connection_is_lost(
    device: Device, multiplex: Multiplex, connect: Connect, fault: Any, pdu: bytes
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    await client.ask(read())
    device.script.append(fault)
    assert await client.ask(pdu) == device.answer(1, pdu)
    assert device.asked == [read(), pdu, pdu]
    assert set(multiplexer.snapshot().failures.values()) == {0}
    device.script.extend((fault, fault))
    assert await client.ask(pdu) == exception(pdu[0], 0x0B)
    assert device.asked[3:] == [pdu, pdu]


async def test_response_that_had_begun_is_not_asked_for_again(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.script.append(begin_and_hang_up)
    assert await client.ask(read()) == exception(3, 0x0B)
    assert device.asked == [read()]


async def test_what_was_not_sent_survives_a_lost_connection_whatever_it_is(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    first, second = [await connect(multiplexer) for _ in range(2)]
    await first.ask(read())
    device.hold()
    first.send(write(1, 2))
    await device.holds(1)
    second.send(write(3, 4), read(5))
    await queued(multiplexer, 2)
    device.respond = answer
    reset(device.held[0])
    assert await received(first, 1) == [exception(6, 0x0B)]
    assert await received(second, 2) == [write(3, 4), values(5)]


async def test_client_that_left_is_not_asked_for_again(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client, other = [await connect(multiplexer) for _ in range(2)]
    await client.ask(read())
    device.hold()
    client.send(read(1))
    await device.holds(1)
    client.reset()
    await until(lambda: len(multiplexer.snapshot().clients) == 1)
    device.respond = answer
    reset(device.held[0])
    assert await other.ask(read(2)) == values(2)
    assert device.asked == [read(), read(1), read(2)]


# ---- timeouts -------------------------------------------------------------------


async def test_late_response_reaches_nobody(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.2)
    first, second = [await connect(multiplexer) for _ in range(2)]
    device.script.append(device.keep)
    assert await first.ask(read(1)) == exception(3, 0x0B)
    late = device.held.pop()
    device.script.append(send(late.frame(), lambda asked: asked.frame()))
    assert await second.ask(read(2)) == values(2)
    snapshot = multiplexer.snapshot()
    assert (snapshot.late_responses, snapshot.unsolicited_responses) == (1, 0)
    assert len(device.links) == 1  # one timeout is no reason to renew it
    first.send(read(3))
    assert await received(first, 1) == [values(3)]


async def test_two_timeouts_without_a_byte_between_renew_the_connection(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.1)
    client = await connect(multiplexer)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    assert await client.ask(read()) == values()
    device.script.extend((ignore, ignore))
    for _ in range(2):
        assert await client.ask(read()) == exception(3, 0x0B)
    await until(lambda: len(device.links) == 2)
    closed = Event(EventType.CONNECTION_CLOSED, None, CloseReason.NO_RESPONSE, "")
    assert closed in events
    assert await client.ask(read()) == values()


async def test_a_byte_between_two_timeouts_shows_that_the_device_is_there(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.1)
    client = await connect(multiplexer)
    for _ in range(3):
        device.script.append(device.keep)
        assert await client.ask(read()) == exception(3, 0x0B)
        answer(device.held.pop())
    assert await client.ask(read(1)) == values(1)
    assert len(device.links) == 1
    assert multiplexer.snapshot().late_responses == 3


async def test_timeout_within_a_response_gives_the_connection_up(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.2)
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    device.script.append(send(lambda asked: asked.frame()[:-1]))
    assert await client.ask(read()) == exception(3, 0x0B)
    assert await client.ask(read(1)) == values(1)
    assert len(device.links) == 2


async def test_strays_are_counted_and_the_connection_stays(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.script.append(
        send(
            lambda asked: Frame(0, asked.unit, values(7)).encoded(),
            lambda asked: Frame(asked.transaction, 9, values(8)).encoded(),
            lambda asked: Frame(asked.transaction, asked.unit, b"\4\0").encoded(),
            lambda asked: asked.frame(),
            lambda asked: asked.frame(),
        )
    )
    assert await client.ask(read()) == values()
    assert await client.ask(read(1)) == values(1)
    assert multiplexer.snapshot().unsolicited_responses == 4
    assert len(device.links) == 1


@pytest.mark.parametrize("mismatch", [Mismatch.IDENTIFIER, Mismatch.UNIT])
async def test_device_that_never_echoes_is_found_out(
    device: Device, multiplex: Multiplex, connect: Connect, mismatch: Mismatch
) -> None:
    multiplexer = await multiplex(timeout=0.1)
    client = await connect(multiplexer)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    if mismatch is Mismatch.IDENTIFIER:
        device.respond = send(lambda asked: b"\0\0" + asked.frame()[2:])
    else:
        device.respond = send(lambda asked: asked.frame()[:6] + b"\xff" + values())
    for _ in range(5):
        assert await client.ask(read()) == exception(3, 0x0B)
    (event,) = [e for e in events if e.type is EventType.LENIENT_WOULD_HELP]
    assert event.reason is mismatch
    assert multiplexer.snapshot().would_match_leniently == 5


async def test_device_that_errs_now_and_then_is_not(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.1)
    client = await connect(multiplexer)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    for _ in range(4):
        device.script.append(send(lambda asked: b"\0\0" + asked.frame()[2:]))
        assert await client.ask(read()) == exception(3, 0x0B)
        assert await client.ask(read()) == values()
    assert EventType.LENIENT_WOULD_HELP not in [event.type for event in events]


# ---- writes ---------------------------------------------------------------------


async def test_writes_to_a_unit_reach_the_device_one_at_a_time_in_order(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_in_flight=8, writes_first=False)
    clients = [await connect(multiplexer) for _ in range(4)]
    device.hold()
    order = [3, 1, 0, 2]
    for place, number in enumerate(order):
        clients[number].send(write(number, number))
        await until(lambda at=place: multiplexer.snapshot().requests > at)  # type: ignore[misc]
    clients[0].send(write(9, 9), unit=2)  # behind its other one
    clients[3].send(read(7))
    await device.has_been_asked(2)
    assert device.asked == [write(3, 3), read(7)]
    for served in range(1, 4):
        answer(device.held.pop(0 if served == 1 else -1))
        await until(lambda at=served: len(device.requests) >= at + 2)  # type: ignore[misc]
    device.release()
    await device.has_been_asked(6)
    writes = [(asked.unit, asked.pdu) for asked in device.requests if asked.pdu[0] == 6]
    to_one = [pdu for unit, pdu in writes if unit == 1]
    assert to_one == [write(number, number) for number in order]
    assert writes.index((2, write(9, 9))) > writes.index((1, write(0, 0)))
    for client in clients:
        await client.receive()


async def test_write_goes_before_reads_of_others(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    readers = [await connect(multiplexer) for _ in range(8)]
    writer = await connect(multiplexer)
    device.hold()
    for number, reader in enumerate(readers):
        reader.send(read(number))
    await queued(multiplexer, 7)
    writer.send(write(1, 2))
    await queued(multiplexer, 8)
    device.release()
    assert await received(writer, 1) == [write(1, 2)]
    assert device.asked[1] == write(1, 2)
    for reader in readers:
        await reader.receive()


# ---- bounds ---------------------------------------------------------------------


async def test_queue_is_bounded_and_nothing_is_dropped(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=5, timeout=60)
    clients = [await connect(multiplexer) for _ in range(10)]
    device.hold()
    for number, client in enumerate(clients):
        client.send(*(read(100 * number + i) for i in range(100)))
    await queued(multiplexer, 5 + 9)  # of one client, and one of each other
    device.release()
    for number, client in enumerate(clients):
        right = [values(100 * number + i) for i in range(100)]
        assert await received(client, 100) == right
    assert multiplexer.snapshot().queue_peak <= 5 + 9


async def test_reads_that_follow_others_are_bounded_too(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(queue_size=5, timeout=60)
    clients = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    for client in clients:
        client.send(*[read(1)] * 200)
    # One more, if the first goes on reading before the other begins.
    await until(lambda: multiplexer.snapshot().queue_depth >= 5)
    device.release()
    for client in clients:
        assert await received(client, 200) == [values(1)] * 200
    assert multiplexer.snapshot().queue_peak <= 5 + 2


# ---- more than one connection ---------------------------------------------------


async def test_connections_of_a_pool_work_side_by_side(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = 4
    multiplexer = await multiplex(max_connections=4)
    clients = [await connect(multiplexer) for _ in range(4)]
    await spread(device, clients)
    for turn in range(3):
        device.hold()
        for number, client in enumerate(clients):
            client.send(read(10 * number + turn))
        await device.holds(4)  # all four are in service at this moment
        assert {asked.link for asked in device.held} == set(device.links)
        assert multiplexer.snapshot().in_flight == 4
        device.release()
        for number, client in enumerate(clients):
            assert (await client.receive()).pdu == values(10 * number + turn)
    assert multiplexer.snapshot().connections == 4


async def test_client_stays_with_its_connection_while_it_has_one_in_flight(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = 2
    multiplexer = await multiplex(max_connections=2)
    first, second = [await connect(multiplexer) for _ in range(2)]
    await spread(device, [first, second])
    device.hold()
    first.send(read(1), read(2))
    await device.holds(1)
    second.send(read(3))
    await device.holds(2)
    assert [asked.pdu for asked in device.held] == [read(1), read(3)]
    device.release()
    assert await received(first, 2) == [values(1), values(2)]
    links = {asked.pdu: asked.link for asked in device.requests}
    assert links[read(1)] is links[read(2)]


async def test_no_connection_is_opened_for_reads_that_follow_another(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = 2
    multiplexer = await multiplex(max_connections=2)
    clients = [await connect(multiplexer) for _ in range(5)]
    device.hold()
    for client in clients:
        client.send(read(1))
    await until(lambda: multiplexer.snapshot().requests == 5)
    device.release()
    for client in clients:
        assert await received(client, 1) == [values(1)]
    assert multiplexer.snapshot().connection_attempts == 1


async def busy_pool(
    device: Device, multiplexer: Multiplexer, clients: Sequence[Client]
) -> None:
    """Ask more at once than one connection carries, and check the answers."""
    device.script.append(device.keep)
    for number, client in enumerate(clients):
        client.send(read(number))
    await device.holds(1)
    await until(lambda: multiplexer.snapshot().connection_attempts > 1)
    await until(lambda: len(device.requests) > 1 or device.refused)
    if device.held[0].link.open:
        answer(device.held.pop())
    for number, client in enumerate(clients):
        assert (await client.receive()).pdu == values(number)


async def ask_much(clients: Sequence[Client]) -> None:
    """Ask more than fits into one connection, and check the answers."""
    for number, client in enumerate(clients):
        client.send(*(read(10 * number + i) for i in range(5)))
    for number, client in enumerate(clients):
        right = [values(10 * number + i) for i in range(5)]
        assert await received(client, 5) == right


async def test_device_that_refuses_more_connections_is_not_bothered_again(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_connections=4)
    clients = [await connect(multiplexer) for _ in range(3)]
    await busy_pool(device, multiplexer, clients)
    await ask_much(clients)
    assert device.refused == 1
    assert set(multiplexer.snapshot().failures.values()) == {0}
    # Asked for a fresh connection, it is tried anew.
    await multiplexer.reconnect()
    device.held.clear()
    await busy_pool(device, multiplexer, clients)
    await until(lambda: device.refused == 2)


async def test_device_that_does_not_even_accept_more_connections_loses_no_read(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_connections=3)
    clients = [await connect(multiplexer) for _ in range(3)]
    assert await clients[0].ask(read()) == values()
    device.refuse()
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    for number, client in enumerate(clients):
        client.send(read(number))
    for number, client in enumerate(clients):
        assert (await client.receive()).pdu == values(number)
    await ask_much(clients)
    assert multiplexer.snapshot().connection_attempts == 2
    # That is no outage: the device is there.
    assert [event.type for event in events] == [EventType.CONNECTION_FAILED]


async def test_older_connection_that_ends_later_says_nothing_of_the_newer(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
) -> None:
    device.slots = 2
    multiplexer = await multiplex(max_connections=2, limits=Limits(trial=0.05))
    clients = [await connect(multiplexer) for _ in range(2)]
    await spread(device, clients)
    later = time.monotonic() + 0.1
    await until(lambda: time.monotonic() > later)
    device.links[0].transport.close()
    await until(lambda: multiplexer.snapshot().connections == 1)
    await spread(device, clients)
    assert len(device.links) == 3


async def test_requests_that_wait_for_a_connection_survive_its_loss(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = 2
    multiplexer = await multiplex(max_connections=2)
    first, second = [await connect(multiplexer) for _ in range(2)]
    await spread(device, [first, second])
    device.hold()
    first.send(read(1), write(2, 2))  # waits where the other is
    await device.holds(1)
    await queued(multiplexer, 1)
    device.respond = answer
    device.held[0].link.transport.close()
    assert await received(first, 2) == [values(1), write(2, 2)]
    assert await second.ask(read(3)) == values(3)


async def test_device_that_is_silent_on_more_connections_loses_no_read(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = 2
    device.respond = lambda asked: (
        answer(asked) if asked.link is device.links[0] else None
    )
    multiplexer = await multiplex(max_connections=2, timeout=1)
    clients = [await connect(multiplexer) for _ in range(3)]
    await busy_pool(device, multiplexer, clients)
    await until(lambda: not device.links[1].open)
    assert set(multiplexer.snapshot().failures.values()) == {0}
    await ask_much(clients)
    assert len(device.links) == 2


async def test_device_that_drops_the_older_for_the_newer_loses_no_read(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = None
    device.newest_wins = True
    multiplexer = await multiplex(max_connections=2)
    clients = [await connect(multiplexer) for _ in range(3)]
    await busy_pool(device, multiplexer, clients)
    assert set(multiplexer.snapshot().failures.values()) == {0}
    links = len(device.links)
    await ask_much(clients)
    assert len(device.links) == links


async def test_device_that_drops_the_older_while_the_newer_is_opened_loses_no_read(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The read in flight is not blamed, and is not interrupted again."""
    device.slots = None
    device.newest_wins = True
    multiplexer = await multiplex(max_connections=2)
    clients = [await connect(multiplexer) for _ in range(3)]

    async def connect_late(*arguments: Any, **settings: Any) -> socket.socket:
        sock = await start_connection(*arguments, **settings)
        await until(lambda: not multiplexer.snapshot().connections)
        return sock

    monkeypatch.setattr(opening, "start_connection", connect_late)
    await busy_pool(device, multiplexer, clients)
    await ask_much(clients)
    assert set(multiplexer.snapshot().failures.values()) == {0}
    assert len(device.links) == 2
    assert not multiplexer.snapshot().silent_units


async def test_more_connections_prove_themselves_with_a_read(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    device.slots = 2
    multiplexer = await multiplex(max_connections=2)
    clients = [await connect(multiplexer) for _ in range(3)]
    device.hold()
    clients[0].send(write(1, 1), unit=1)
    await device.holds(1)
    clients[1].send(write(2, 2), unit=2)
    await until(lambda: multiplexer.snapshot().connections == 2)
    clients[2].send(read(3))
    await device.holds(2)
    assert device.asked == [write(1, 1), read(3)]
    assert device.held[1].link is device.links[1]
    answer(device.held.pop())
    await device.holds(2)  # now it may write there
    assert device.held[1].pdu == write(2, 2)
    device.release()
    for client in clients:
        await client.receive()


# ---- pipelining -----------------------------------------------------------------


async def test_pipelined_answers_may_come_in_any_order(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_in_flight=4)
    clients = [await connect(multiplexer) for _ in range(3)]
    device.hold()
    for number, client in enumerate(clients):
        client.send(*(read(100 * number + i) for i in range(4)))
    for served in range(0, 12, 4):
        await device.holds(4)
        await asyncio.sleep(0)
        assert len(device.requests) == served + 4  # no more than that
        held, device.held = device.held, []
        device.links[0].transport.write(b"".join(a.frame() for a in reversed(held)))
    for number, client in enumerate(clients):
        got = {frame.transaction: frame.pdu for frame in await frames(client, 4)}
        assert got == {i + 1: values(100 * number + i) for i in range(4)}
    assert len(device.links) == 1


async def test_pipelined_requests_share_the_fate_of_their_connection(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_in_flight=8)
    clients = [await connect(multiplexer) for _ in range(4)]
    await clients[0].ask(read())
    device.hold()
    for number, client in enumerate(clients):
        client.send(read(number) if number % 2 else write(number, 1), unit=number)
    await device.holds(4)
    device.respond = answer
    device.links[0].transport.close()
    for number, client in enumerate(clients):
        right = values(number, unit=number) if number % 2 else exception(6, 0x0B)
        assert await received(client, 1) == [right]


# ---- pace -----------------------------------------------------------------------


async def test_device_gets_its_time_between_two_exchanges(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(request_delay=0.1, max_in_flight=4)
    client = await connect(multiplexer)
    moments: list[tuple[float, float]] = []

    def note(asked: Asked) -> None:
        moments.append((time.monotonic(), time.monotonic()))
        answer(asked)

    device.respond = note
    client.send(*(read(i) for i in range(4)))
    assert await received(client, 4) == [values(i) for i in range(4)]
    gaps = [b[0] - a[1] for a, b in pairwise(moments)]
    assert len(gaps) == 3
    assert min(gaps) >= 0.1 - 0.001  # uvloop's timers know milliseconds


async def test_device_gets_its_time_after_a_connection_was_opened(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(connect_delay=0.2, connect_on_demand=True)
    opened: list[float] = []

    def note(event: Event) -> None:
        if event.type is EventType.CONNECTION_OPENED:
            opened.append(time.monotonic())

    multiplexer.subscribe(note)
    client = await connect(multiplexer)
    assert not device.links
    assert await client.ask(read()) == values()
    assert time.monotonic() - opened[0] >= 0.199
    before = len(device.requests)
    assert await client.ask(read()) == values()
    assert len(device.requests) == before + 1
    assert len(opened) == 1


async def test_idle_connection_is_closed_and_opened_again_when_it_is_needed(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(idle_timeout=0.2, health_check_interval=0.05)
    client = await connect(multiplexer)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    for links in (1, 2):
        assert await client.ask(read()) == values()
        assert len(device.links) == links
        # The health checks meanwhile do not keep it open.
        await until(lambda: not device.open_links)
        await until(lambda: multiplexer.health is Health.IDLE)
    assert Event(EventType.CONNECTION_CLOSED, None, CloseReason.IDLE, "") in events
    assert len(device.requests) > 2


async def test_connection_that_was_never_used_is_reopened_with_the_next_request(
    device: Device,
    multiplex: Multiplex,
    connect: Connect,
) -> None:
    """A device that hangs up when nothing is asked is not unreachable."""
    multiplexer = await multiplex(
        health_check_interval=0, reconnect_backoff=PATIENCE, reconnect_backoff_max=60
    )
    await until(lambda: device.open_links)
    device.links[0].transport.close()
    await until(lambda: not multiplexer.snapshot().connections)
    assert multiplexer.health is Health.HEALTHY
    assert multiplexer.snapshot().connection_attempts == 1
    assert await (await connect(multiplexer)).ask(read()) == values()
    assert len(device.links) == 2


async def test_connection_is_renewed_between_two_exchanges(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_lifetime=0.1)
    clients = [await connect(multiplexer) for _ in range(3)]
    turn = 0
    while len(device.links) < 4:
        turn += 1
        for number, client in enumerate(clients):
            client.send(write(number, turn), unit=number)
        for number, client in enumerate(clients):
            assert await received(client, 1) == [write(number, turn)]
    assert (device.most_open, device.refused) == (1, 0)
    assert len(device.requests) == 3 * turn


async def test_idle_device_that_hangs_up_is_connected_again_at_once(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(reconnect_backoff=60, reconnect_backoff_max=60)
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    device.links[0].transport.close()
    await until(lambda: len(device.open_links) == 1 and len(device.links) == 2)
    assert await client.ask(read()) == values()
    assert multiplexer.health is Health.HEALTHY


async def test_device_that_hangs_up_on_every_connection_is_given_time(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(reconnect_backoff=60, reconnect_backoff_max=60)
    device.respond = hang_up
    client = await connect(multiplexer)
    # At first it may be due to what was asked, twice.
    assert await client.ask(read()) == exception(3, 0x0B)
    for _ in range(2):
        assert await client.ask(read()) == exception(3, 0x0A)
        assert multiplexer.health is Health.UNREACHABLE
        assert multiplexer.snapshot().connection_attempts == 3


# ---- health ---------------------------------------------------------------------


async def test_silent_connection_is_probed_with_what_went_well_last(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(health_check_interval=0.05, unit_id=7)
    await device.has_been_asked(2)
    first = device.requests[0]
    assert (first.unit, first.pdu) == (7, read(0, 1))
    client = await connect(multiplexer)
    assert await client.ask(read(5), unit=2) == values(5, unit=2)
    assert await client.ask(write(1, 1)) == write(1, 1)
    seen = len(device.requests)
    await device.has_been_asked(seen + 2)
    assert {(asked.unit, asked.pdu) for asked in device.requests[seen:]} == {
        (2, read(5))
    }
    snapshot = multiplexer.snapshot()
    assert (snapshot.requests, snapshot.responses) == (2, 2)
    assert len(multiplexer.trace()) == 2
    assert multiplexer.health is Health.HEALTHY


async def test_exception_is_a_sign_of_life_and_silence_is_not(
    device: Device, multiplex: Multiplex
) -> None:
    device.respond = whole(exception(3, 2))
    multiplexer = await multiplex(health_check_interval=0.05, timeout=0.1)
    await device.has_been_asked(5)
    assert multiplexer.health is Health.HEALTHY
    device.respond = ignore
    await until(lambda: multiplexer.health is Health.DEGRADED)
    assert multiplexer.snapshot().health_reason == "no_response"
    # It is there: nothing is known of the unit but that it is silent.
    await until(lambda: multiplexer.snapshot().reconnects)
    assert multiplexer.snapshot().health is Health.DEGRADED


async def test_probe_never_opens_a_connection(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(connect_on_demand=True, health_check_interval=0.05)
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    device.respond = hang_up
    await device.has_been_asked(2)
    await until(lambda: multiplexer.health is Health.IDLE)
    assert multiplexer.snapshot().connection_attempts == 1


async def test_probe_that_waits_is_given_up_with_its_connection(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(
        connect_on_demand=True, health_check_interval=0.05, request_delay=60
    )
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    await queued(multiplexer, 1)  # not the client's
    assert multiplexer.snapshot().clients[0].pending == 0
    device.links[0].transport.close()
    await queued(multiplexer, 0)
    await until(lambda: multiplexer.health is Health.IDLE)
    assert multiplexer.snapshot().connection_attempts == 1


async def test_two_unanswered_of_twenty_make_it_degraded(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.1)
    client = await connect(multiplexer)
    assert await client.ask(read()) == values()
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    told = []
    for turn in range(30):
        if turn in {3, 5}:
            device.script.append(ignore)
        await client.ask(read(turn))
        told.append(multiplexer.health is Health.DEGRADED)
    assert told == [5 <= turn < 23 for turn in range(30)]
    assert [event for event in events if event.type is EventType.HEALTH_CHANGED] == [
        Event(EventType.HEALTH_CHANGED, None, Health.DEGRADED, "no_response"),
        Event(EventType.HEALTH_CHANGED, None, Health.HEALTHY),
    ]


# ---- reads that are shared or remembered ----------------------------------------


async def test_identical_reads_are_asked_once(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    clients = [await connect(multiplexer) for _ in range(5)]
    device.hold()
    clients[0].send(b"\7")  # its transactions are one ahead of the others'
    await device.holds(1)
    for client in clients:
        client.send(read(1))
    clients[1].send(read(1), unit=2)
    await until(lambda: multiplexer.snapshot().requests == 7)
    device.release()
    assert await frames(clients[0], 2) == [
        Frame(1, 1, exception(7, 1)),
        Frame(2, 1, values(1)),
    ]
    assert sorted(await frames(clients[1], 2)) == [
        Frame(1, 1, values(1)),
        Frame(2, 2, values(1, unit=2)),
    ]
    for client in clients[2:]:
        assert await frames(client, 1) == [Frame(1, 1, values(1))]
    assert device.asked == [b"\7", read(1), read(1)]
    snapshot = multiplexer.snapshot()
    assert (snapshot.reads_shared, snapshot.responses) == (4, 7)
    assert [client.responses for client in snapshot.clients] == [2, 2, 1, 1, 1]
    assert snapshot.queue_depth == 0


async def test_reads_are_not_shared_if_that_is_off(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(share_reads=False)
    clients = [await connect(multiplexer) for _ in range(3)]
    device.hold()
    for client in clients:
        client.send(read(1))
    await queued(multiplexer, 2)
    device.release()
    for client in clients:
        assert await received(client, 1) == [values(1)]
    assert device.asked == [read(1)] * 3


async def test_read_that_begins_after_a_write_sees_what_was_written(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_in_flight=4, cache_ttl=60)
    early, writer, late = [await connect(multiplexer) for _ in range(3)]
    assert await early.ask(read(1, 1)) == values(1, 1)  # remembered now
    device.hold()
    early.send(read(1, 2))
    await device.holds(1)
    old = device.held.pop().frame()  # read before the write
    device.respond = answer
    assert await writer.ask(write(1, 5)) == write(1, 5)
    assert await late.ask(read(1, 2)) == b"\3\4\0\5" + values(2, 1)[2:]
    assert await late.ask(read(1, 1)) == b"\3\2\0\5"
    device.links[0].transport.write(old)
    assert await received(early, 1) == [values(1, 2)]
    # What is remembered is not what came last, but what was read last.
    assert await late.ask(read(1, 2)) == b"\3\4\0\5" + values(2, 1)[2:]


async def test_own_write_keeps_a_client_s_reads_apart(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(max_in_flight=8)
    first, second = [await connect(multiplexer) for _ in range(2)]
    device.hold()
    first.send(read(1, 1))
    await device.holds(1)
    second.send(write(1, 5), read(1, 1))
    await device.holds(3)
    device.release()
    assert await received(first, 1) == [values(1, 1)]
    assert await received(second, 2) == [write(1, 5), b"\3\2\0\5"]


async def test_response_is_remembered_as_long_as_it_may_be(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(cache_ttl=0.2)
    first, second = [await connect(multiplexer) for _ in range(2)]
    began = time.monotonic()
    assert await first.ask(read(1)) == values(1)
    while len(device.requests) == 1:
        assert await second.ask(read(1)) == values(1)
    assert time.monotonic() - began >= 0.2
    snapshot = multiplexer.snapshot()
    assert snapshot.reads_cached == snapshot.responses - 2
    # An exception is not remembered, and a write forgets what was.
    for _ in range(2):
        device.script.append(whole(exception(3, 4)))
        assert await first.ask(read(2)) == exception(3, 4)
    await multiplexer.apply(replace(multiplexer.settings, cache_ttl=60))
    assert await first.ask(read(3), unit=2) == values(3, unit=2)
    assert await first.ask(read(3)) == values(3)
    await first.ask(write(9, 9))
    seen = len(device.requests)
    assert await second.ask(read(3)) == values(3)
    assert len(device.requests) == seen + 1
    assert await second.ask(read(3), unit=2) == values(3, unit=2)
    assert len(device.requests) == seen + 1  # another unit's is still known


@pytest.mark.parametrize("in_flight", [False, True])
async def test_those_who_followed_one_that_left_are_served(
    device: Device, multiplex: Multiplex, connect: Connect, in_flight: bool
) -> None:
    multiplexer = await multiplex()
    other, leader, follower = [await connect(multiplexer) for _ in range(3)]
    device.hold()
    if not in_flight:
        other.send(read(9))
        await device.holds(1)
    leader.send(read(1))
    await (device.holds(1) if in_flight else queued(multiplexer, 1))
    follower.send(read(1))
    await until(lambda: multiplexer.snapshot().queue_depth == (1 if in_flight else 2))
    leader.reset()
    await until(lambda: len(multiplexer.snapshot().clients) == 2)
    device.release()
    assert await received(follower, 1) == [values(1)]
    assert device.asked.count(read(1)) == 1


async def test_those_who_followed_one_without_response_ask_themselves(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=1, matching="lenient", quiet=0.05)
    leader, follower, third = [await connect(multiplexer) for _ in range(3)]
    device.script.append(ignore)
    leader.send(read(1))
    await device.has_been_asked(1)
    loop = asyncio.get_running_loop()
    later = loop.time() + 0.5  # so that their deadlines are that much later
    await until(lambda: loop.time() >= later)
    follower.send(read(1))
    third.send(read(1))
    await queued(multiplexer, 2)
    assert await received(leader, 1) == [exception(3, 0x0B)]
    assert await received(follower, 1) == [values(1)]
    assert await received(third, 1) == [values(1)]
    assert device.asked == [read(1)] * 2


async def test_follower_that_left_is_missed_by_nobody(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.3)
    leader, follower, third = [await connect(multiplexer) for _ in range(3)]
    device.hold()
    leader.send(read(1))
    await device.holds(1)
    for client in (follower, third):
        client.send(read(1))
    await queued(multiplexer, 2)
    follower.close()
    await until(lambda: len(multiplexer.snapshot().clients) == 2)
    device.release()
    for client in (leader, third):
        assert await received(client, 1) == [values(1)]
    device.script.append(ignore)
    fourth = await connect(multiplexer)
    leader.send(read(2))
    await device.has_been_asked(2)
    fourth.send(read(2))
    await queued(multiplexer, 1)
    fourth.close()
    assert await received(leader, 1) == [exception(3, 0x0B)]
    await queued(multiplexer, 0)
    assert device.asked == [read(1), read(2)]


async def test_reads_that_follow_are_refused_with_the_one_they_follow(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    other, *clients = [await connect(multiplexer) for _ in range(4)]
    device.hold()
    other.send(read(9))
    await device.holds(1)
    for client in clients:
        client.send(read(1))
    await queued(multiplexer, 3)
    pausing = asyncio.create_task(multiplexer.pause())
    for client in clients:
        assert await received(client, 1) == [exception(3, 0x0A)]
    device.release()
    await pausing


async def test_full_queue_goes_on_after_reads_that_followed(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """Whoever was read no further because of a read that follows is read again."""
    multiplexer = await multiplex(queue_size=1, timeout=60)
    other, leader, follower = [await connect(multiplexer) for _ in range(3)]
    device.hold()
    other.send(read(9), read(10))
    await device.holds(1)
    leader.send(read(1))
    follower.send(read(1), write(2, 5), read(2, 1))
    await queued(multiplexer, 3)
    device.release()
    assert await received(leader, 1) == [values(1)]
    assert await received(follower, 3) == [values(1), write(2, 5), b"\3\2\0\5"]
    assert await received(other, 2) == [values(9), values(10)]


# ---- rules ----------------------------------------------------------------------


async def test_refused_write_is_told_with_who_what_and_where(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(write_rules=DENIED)
    client = await connect(multiplexer)
    await until(lambda: multiplexer.health is Health.HEALTHY)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    assert await client.ask(write(40_001, 77), unit=3) == exception(6, 0x01)
    assert await client.ask(read(1)) == values(1)
    assert device.asked == [read(1)]
    assert events == [
        Event(
            EventType.WRITE_REFUSED,
            "127.0.0.1",
            Failure.REFUSED,
            "unit 3 write single register 40001 value 77",
            writes=({"unit": 3, "function": 6, "address": 40_001, "value": 77},),
        )
    ]
    snapshot = multiplexer.snapshot()
    assert (snapshot.writes_refused, snapshot.failures["refused"]) == (1, 1)
    assert snapshot.units[3].refused == 1
    assert snapshot.clients[0].refused == 1
    assert multiplexer.health is Health.HEALTHY


async def test_acknowledged_write_looks_carried_out_and_is_not(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(write_rules=ACKNOWLEDGED)
    client = await connect(multiplexer)
    await until(lambda: multiplexer.health is Health.HEALTHY)
    events: list[Event] = []
    multiplexer.subscribe(events.append)
    several = bytes.fromhex("10 0001 0002 04 0003 0004")
    assert await client.ask(write(1, 2)) == write(1, 2)
    assert await client.ask(several) == several[:5]
    assert await client.ask(b"\x65\1") == exception(0x65, 0x01)  # nobody knows how
    assert device.asked == []
    assert [(event.type, event.reason) for event in events] == [
        (EventType.WRITE_ACKNOWLEDGED, "acknowledged"),
        (EventType.WRITE_REFUSED, "refused"),
    ]
    snapshot = multiplexer.snapshot()
    assert (snapshot.writes_acknowledged, snapshot.writes_refused) == (2, 1)
    unit = snapshot.units[1]
    assert (unit.requests, unit.responses, unit.failures, unit.refused) == (3, 0, 0, 1)
    assert unit.functions == {6: 1, 0x10: 1, 0x65: 1}


async def test_rules_can_change_and_spare_who_may_write(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(write_rules=DENIED, max_read_registers=10)
    client = await connect(multiplexer)
    assert await client.ask(write(1, 2)) == exception(6, 0x01)
    assert await client.ask(read(0, 11)) == values(0, 11)
    assert len(device.requests) == 2
    settings = replace(
        multiplexer.settings,
        write_rules=(rule("allow", "127.0.0.0/8"), *DENIED),
        max_read_registers=11,
    )
    assert await multiplexer.apply(settings)
    assert await client.ask(write(1, 2)) == write(1, 2)
    assert await client.ask(read(3, 11)) == values(3, 11)
    assert len(device.requests) == 4


async def test_clients_may_know_units_by_other_numbers(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(unit_map=((1, 5), (5, 1)), timeout=0.2)
    client = await connect(multiplexer)
    assert await client.ask(read(1), unit=1) == values(1, unit=5)
    assert await client.ask(read(1), unit=5) == values(1, unit=1)
    assert await client.ask(read(1), unit=9) == values(1, unit=9)
    device.script.append(ignore)
    assert await client.ask(read(1), unit=1) == exception(3, 0x0B)
    assert [asked.unit for asked in device.requests] == [5, 1, 9, 5]


# ---- other protocols ------------------------------------------------------------


async def test_response_that_cannot_be_passed_on_closes_client_and_connection(
    multiplex: Multiplex,
) -> None:
    lines: list[bytes] = []

    async def babble(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines.append(await reader.readline())
        writer.write(b"x" * 70_000 if len(lines) == 1 else lines[-1])
        await reader.read()

    async with serving(babble) as port:
        multiplexer = await multiplex(protocol="echo", port=port)
        first = await Client.connect(port_of(multiplexer))
        first.writer.write(b"one\n")
        second = await Client.connect(port_of(multiplexer))
        await until(lambda: len(multiplexer.snapshot().clients) == 2)
        second.writer.write(b"two\n")
        assert await first.reader.read() == b""
        assert await second.reader.readline() == b"two\n"
        assert multiplexer.snapshot().failures["invalid_response"] == 1
        first.close()
        second.close()
        await multiplexer.stop()
    assert lines == [b"one\n", b"two\n"]


async def test_keepalive_of_the_device_gets_its_echo(multiplex: Multiplex) -> None:
    echoes = 0

    async def keep_alive(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal echoes
        writer.write(b"\0\0")
        while head := await reader.readexactly(2):
            if head == b"\0\0":
                echoes += 1
            else:
                message = await reader.readexactly(3)
                writer.write(b"\0\0" + head + message[::-1])

    async with serving(keep_alive) as port:
        multiplexer = await multiplex(protocol="iso8583", port=port)
        client = await Client.connect(port_of(multiplexer))
        for _ in range(3):
            client.writer.write(b"\0\3abc")
            assert await client.reader.readexactly(5) == b"\0\3cba"
        await until(lambda: echoes == 1)
        snapshot = multiplexer.snapshot()
        assert (snapshot.unsolicited_responses, snapshot.reconnects) == (0, 0)
        client.close()
        await multiplexer.stop()


async def test_line_of_the_device_is_listened_to_until_it_is_silent(
    multiplex: Multiplex, connect: Connect
) -> None:
    """RTU over TCP, a function of which nobody knows how long its response is."""
    body = b"\1\x41\7\7\7"
    crc = FramerRTU.compute_CRC(body).to_bytes(2)

    async def mumble(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for _ in range(2):
            await reader.readexactly(5)
            for part in (body[:2], body[2:4], body[4:] + crc):
                writer.write(part)
                await asyncio.sleep(0)
        await reader.read()

    async with serving(mumble) as port:
        multiplexer = await multiplex(framing="rtu", port=port, quiet=0.1)
        client = await connect(multiplexer)
        for _ in range(2):
            assert await client.ask(b"\x41\1") == body[1:]
        await multiplexer.stop()


# ---- a little of everything -----------------------------------------------------


async def test_many_clients_and_faults_give_no_wrong_answer(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    """The simulation does this at length."""
    multiplexer = await multiplex(timeout=1, reconnect_backoff=0.1, max_in_flight=3)
    clients = [await connect(multiplexer) for _ in range(8)]
    faults = [reset, hang_up, begin_and_hang_up, whole(exception(3, 4))]
    count = 0

    def sometimes(asked: Asked) -> None:
        nonlocal count
        count += 1
        (faults[count // 23 % 4] if count % 23 == 0 else answer)(asked)

    device.respond = sometimes

    async def poll(number: int, client: Client) -> int:
        right = 0
        for turn in range(60):
            address = 1000 * number + turn
            got = await client.ask(read(address))
            assert got == values(address) or got[0] == 0x83
            right += got[0] == 3
        return right

    async with asyncio.timeout(PATIENCE * 2):
        right = await asyncio.gather(*(poll(n, c) for n, c in enumerate(clients)))
    assert sum(right) > 8 * 60 / 2
    assert len(multiplexer.snapshot().clients) == 8
