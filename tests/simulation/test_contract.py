"""The behaviour contract, sentence by sentence, with its moments to the microsecond.

Each test quotes what it holds the engine to (see `contract.py`). Its scene is the
least in which that can be seen. The device answers after `SERVICE` seconds; bytes
travel in no time (see `stage.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
import inspect
from ipaddress import ip_network
import sys
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import EventType, ListenerSettings
from custom_components.tcp_multiplexer.multiplexer.protocols.framed import (
    FramedDownstream,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.gateway import (
    HttpDownstream,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.rtu import (
    RtuDownstream,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import Framing
from tests.engine.serial_line import with_crc
from tests.rules import ACKNOWLEDGED, DENIED, rule
from tests.solarman import SERIAL, asking, heartbeat, telling

from .contract import contract, unquoted
from .device import PORT
from .dialects import read
from .network import Endpoint, Refusal
from .stage import (
    SERVICE,
    Hand,
    Line,
    Reaction,
    Stage,
    answers,
    asks,
    at,
    begins,
    begins_and_resets,
    excuse,
    hangs_up,
    resets,
    says_before,
    says_nothing,
    sets,
    stage,
)

BUSY, NO_PATH, NO_ANSWER = 0x06, 0x0A, 0x0B
PLAIN = ("echo", "iso8583", "mpu")
HOUR = 3600.0
TRACE = b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"


def answer(scene: Stage, body: bytes) -> bytes:
    """Give what the device answers."""
    return scene.dialect.execute(body, 0.0)


def test_every_test_quotes_the_contract() -> None:
    assert not unquoted(globals())


# ---- store and forward, order ---------------------------------------------------


@contract("A request goes upstream only once it is complete")
def test_a_request_goes_upstream_only_once_it_is_complete() -> None:
    with stage() as scene:
        client = scene.hand()
        frame = scene.pack(1, asks(1))
        scene.at(0.2, client.send, frame[:-1])
        scene.at(0.5, client.send, frame[-1:])
        scene.run_to(1)
        assert scene.puppet.asked == [(at(0.5), 1, asks(1))]


@contract("a response goes to the client only once it is complete")
def test_a_response_goes_to_the_client_only_once_it_is_complete() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.puppet.script.append(begins)
        scene.at(0, client.ask, asks(1))
        scene.run_to(0.5)
        assert not client.heard
        (line,) = scene.puppet.lines
        scene.at(0.7, line.say, answer(scene, asks(1))[-1:])
        scene.run_to(1)
        assert client.heard == [(at(0.7), 1, answer(scene, asks(1)))]


@contract(
    "Writes to one unit go upstream one at a time, in the order in which they came "
    "over all clients.",
)
def test_writes_to_one_unit_go_upstream_one_at_a_time() -> None:
    with stage(max_in_flight=8) as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, sets(1), sets(2))
        scene.at(0.01, second.ask, sets(3), sets(4, unit=2))
        scene.run_to(1)
        assert scene.puppet.asked == [
            (at(0), 1, sets(1)),
            (at(0.1), 1, sets(2)),
            (at(0.2), 1, sets(3)),
            (at(0.2), 1, sets(4, unit=2)),  # behind its client's own
        ]


@contract("Writes to different units may go side by side.")
def test_writes_to_different_units_go_side_by_side() -> None:
    with stage(max_in_flight=8) as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, sets(1, unit=1))
        scene.at(0, second.ask, sets(1, unit=2))
        scene.run_to(1)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(0)]


@contract("A Modbus/TCP client that pipelines gets each response as it comes")
def test_a_client_that_pipelines_gets_each_answer_as_it_comes() -> None:
    with stage(max_in_flight=8) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(0.5), answers(0.1), answers(0.3)]
        scene.at(0, client.ask, asks(1), asks(2), asks(3))
        scene.run_to(1)
        told = [(heard.at, heard.tid) for heard in client.heard]
        assert told == [(at(0.1), 2), (at(0.3), 3), (at(0.5), 1)]


# ---- fairness -------------------------------------------------------------------


@contract(
    "A client with 1,000 pending requests delays another client's next request by "
    "one exchange.",
)
def test_a_thousand_pending_requests_delay_another_client_by_one_exchange() -> None:
    with stage(queue_size=1000, timeout=HOUR) as scene:
        greedy, modest = scene.hand(), scene.hand()
        scene.at(0, greedy.ask, *(asks(n) for n in range(1000)))
        scene.at(1.05, modest.ask, asks(2000))
        scene.run_to(2)
        assert modest.heard == [(at(1.2), 1, answer(scene, asks(2000)))]


@contract("Among clients with a pending request, the one served longest ago goes next")
def test_the_client_served_longest_ago_goes_next() -> None:
    with stage() as scene:
        clients = [scene.hand() for _ in range(3)]
        for number, client in enumerate(clients):
            scene.at(0.2 * number, client.ask, asks(number))
        for number in (2, 1, 0):
            scene.at(1, clients[number].ask, asks(10 + number))
        scene.run_to(2)
        bodies = [asked.body for asked in scene.puppet.asked[3:6]]
        # The device is free for the one that comes first.
        assert bodies == [asks(12), asks(10), asks(11)]


@contract("a client not yet served counts from when it was accepted.")
def test_a_client_not_yet_served_counts_from_when_it_was_accepted() -> None:
    with stage() as scene:
        early, busy = scene.hand(), scene.hand()
        scene.at(0, busy.ask, asks(1))
        scene.run_to(0.05)
        late = scene.hand()  # accepted after the busy one was served
        scene.at(0.06, late.ask, asks(4))
        scene.at(0.07, busy.ask, asks(3))
        scene.at(0.08, early.ask, asks(2))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), asks(2), asks(3), asks(4)]


@contract(
    "A client whose next request is a write goes before clients whose next request "
    "is a read, but at most four times in a row while a read waits",
)
def test_at_most_four_writes_in_a_row_go_before_a_read_that_waits() -> None:
    with stage(queue_size=100, timeout=HOUR) as scene:
        first, writer, reader = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, asks(99))
        scene.at(0.01, reader.ask, asks(1), asks(2))
        scene.at(0.02, writer.ask, *(sets(n) for n in range(10)))
        scene.run_to(3)
        order = "".join("rw"[asked.body[1] == 6] for asked in scene.puppet.asked)
        assert order == "rwwwwrwwwwrww"


# ---- bounds ---------------------------------------------------------------------


@contract(
    "A client over the bound is read no further, so that TCP makes it wait, and "
    "nothing is dropped.",
    "A Modbus client over the bound is read into at most 4 KiB",
)
def test_a_client_over_the_bound_is_read_no_further_and_nothing_is_dropped() -> None:
    with stage(queue_size=4, timeout=HOUR) as scene:
        client = scene.hand()
        scene.at(0, client.ask, *(asks(n) for n in range(900)))
        scene.run_to(0.05)
        snapshot = scene.mux.snapshot()
        assert snapshot.queue_depth == 4
        assert snapshot.clients[0].bytes_in <= 5 * 12 + 4096
        scene.run_to(100)
        assert [heard.tid for heard in client.heard] == list(range(1, 901))
        assert client.heard[-1].at == at(900 * SERVICE)


@contract("A client with nothing pending may always place one request")
def test_a_client_with_nothing_pending_may_always_place_one_request() -> None:
    with stage(queue_size=1) as scene:
        greedy, modest = scene.hand(), scene.hand()
        scene.at(0, greedy.ask, *(asks(n) for n in range(5)))
        scene.at(0.05, modest.ask, asks(10), asks(11))
        scene.run_to(0.06)
        assert scene.mux.snapshot().queue_depth == 2
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked[:3]]
        assert bodies == [asks(0), asks(10), asks(1)]
        assert len(scene.puppet.asked) == 7


@contract(
    "When there is room again, all clients that waited for it continue immediately.",
)
def test_all_who_found_no_room_go_on_at_once_and_not_from_within_each_other() -> None:
    with stage(settled=0, queue_size=1, max_in_flight=64, connect_delay=1) as scene:
        clients = [scene.hand() for _ in range(32)]
        for number, client in enumerate(clients):
            scene.at(0.5, client.ask, asks(2 * number), asks(2 * number + 1))
        deep, limit = len(inspect.stack(0)), sys.getrecursionlimit()
        sys.setrecursionlimit(deep + 100)
        try:
            scene.run_to(1.2)
        finally:
            sys.setrecursionlimit(limit)
        assert [asked.at for asked in scene.puppet.asked] == [at(1)] * 64
        assert [len(client.heard) for client in clients] == [2] * 32


@contract(
    "A client that does not read its responses gets no more of them and delays no "
    "other client.",
    "the socket's write buffer (64 KiB) and what was in flight when that was full",
)
def test_a_client_that_does_not_read_gets_no_more_and_holds_up_nobody() -> None:
    with stage(queue_size=1000, timeout=HOUR) as scene:
        slow, other = scene.hand(), scene.hand()
        slow.link.narrow(1000)
        slow.link.dialled.pause_reading()
        long_reads = [read(1, 3, n, 100).body for n in range(900)]
        scene.at(0, slow.ask, *long_reads)
        scene.run_to(80)
        responses = scene.mux.snapshot().responses
        assert responses < 400  # 64 KiB, and what was in flight when that was full
        scene.at(80, other.ask, asks(1))
        scene.run_to(85)
        assert scene.mux.snapshot().responses == responses + 1
        assert [heard.at for heard in other.heard] == [at(80.1)]
        slow.link.dialled.resume_reading()
        scene.run_to(200)
        assert [heard.tid for heard in slow.heard] == list(range(1, 901))


# ---- deadlines ------------------------------------------------------------------


@contract(
    "The timeout runs from the moment when a request has been received complete",
    "sent, and no response before the deadline | exception 0x0B",
)
def test_the_timeout_runs_from_the_moment_when_a_request_is_complete() -> None:
    with stage(timeout=2) as scene:
        client = scene.hand()
        frame = scene.pack(7, asks(1))
        scene.puppet.script.append(says_nothing)
        scene.at(0, client.send, frame[:5])
        scene.at(0.75, client.send, frame[5:])
        scene.run_to(5)
        assert client.heard == [(at(2.75), 7, excuse(asks(1), NO_ANSWER))]


@contract(
    "It covers waiting for a connection",
    "no upstream connection before the deadline | exception 0x0A",
)
def test_the_timeout_covers_waiting_for_a_connection() -> None:
    """No upstream connection before the deadline: 0x0A."""
    with stage(timeout=2, connect_on_demand=True, manner=Refusal.IGNORED) as scene:
        client = scene.hand()
        scene.at(0.5, client.ask, asks(1))
        scene.run_to(3)
        assert scene.puppet.dials == [at(0.5)]
        assert client.heard == [(at(2.5), 1, excuse(asks(1), NO_PATH))]


@contract(
    "It covers waiting for a connection, the queue and the device.",
    "still pending at the deadline | exception 0x06",
)
def test_the_timeout_covers_the_queue() -> None:
    """Sent and no response: 0x0B; still queued: 0x06; each at its own deadline."""
    with stage(timeout=2, request_delay=1.5) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1))
        scene.at(0.5, second.ask, asks(2))
        scene.at(1.8, third.ask, asks(3))
        scene.run_to(10)
        assert first.heard == [(at(2), 1, excuse(asks(1), NO_ANSWER))]
        assert second.heard == [(at(2.5), 1, excuse(asks(2), BUSY))]
        assert third.heard == [(at(3.6), 1, answer(scene, asks(3)))]


@contract(
    "The timeout runs from the moment when a request has been received complete, "
    "whether the queue has room for it or not.",
    "still pending at the deadline | exception 0x06",
)
@pytest.mark.parametrize("clients", [1, 5])
def test_the_timeout_covers_what_has_no_room_in_the_queue(clients: int) -> None:
    with stage(queue_size=10, timeout=1.05) as scene:
        hands = [scene.hand() for _ in range(clients)]
        each = 100 // clients
        for first, hand in enumerate(hands):
            scene.at(0, hand.ask, *(asks(first * each + n) for n in range(each)))
        scene.run_to(5)
        heard = sorted(heard for hand in hands for heard in hand.heard)
        assert [told.at for told in heard[:10]] == [
            at(SERVICE * (1 + n)) for n in range(10)
        ]
        assert [told.at for told in heard[10:]] == [at(1.05)] * 90
        codes = Counter(told.body[-1] for told in heard[10:])
        assert codes == {BUSY: 89, NO_ANSWER: 1}
        assert len(scene.puppet.asked) == 11


@contract(
    "The timeout runs from the moment when a request has been received complete, "
    "whether the queue has room for it or not.",
)
def test_each_request_without_room_has_a_deadline_of_its_own() -> None:
    with stage(queue_size=1, timeout=2) as scene:
        scene.puppet.manners = says_nothing
        client = scene.hand()
        frames = [scene.pack(n, sets(n)) for n in range(1, 5)]
        scene.at(0, client.send, frames[0] + frames[1] + frames[2][:5])
        scene.at(0.5, client.send, frames[2][5:])
        scene.at(0.75, client.send, frames[3])
        scene.run_to(5)
        assert sorted((told.tid, told.at) for told in client.heard) == [
            (1, at(2)),
            (2, at(2)),
            (3, at(2.5)),
            (4, at(2.75)),
        ]


@contract("What TCP makes wait has not been received.")
def test_the_timeout_of_what_tcp_makes_wait_has_not_begun() -> None:
    with stage(queue_size=1, timeout=1.05) as scene:
        client = scene.hand()
        scene.at(0, client.ask, *(asks(n) for n in range(900)))
        scene.run_to(60)
        told = [told.at for told in client.heard]
        assert len(told) == 900
        received = 5 * 12 + 4096
        assert told[received // 12] > 1.06
        assert len(scene.puppet.asked) > 11


@contract(
    "The timeout runs from the moment when a request has been received complete, "
    "whether the queue has room for it or not.",
    "still pending at the deadline | exception 0x06, server device busy | 503",
)
def test_http_requests_without_room_are_refused_in_order() -> None:
    with stage(protocol="http", queue_size=1, timeout=1.05) as scene:
        client = scene.hand()
        scene.at(0, client.ask, *(b"GET /%d\n" % n for n in range(20)))
        scene.run_to(5)
        assert [told.at for told in client.heard] == [
            *(at(SERVICE * (1 + n)) for n in range(10)),
            *[at(1.05)] * 10,
        ]
        assert [told.body for told in client.heard] == [
            *(b"told GET /%d\n" % n for n in range(10)),
            b"\x00504",
            *[b"\x00503"] * 9,
        ]


@contract(
    "Its requests keep their deadlines: none is carried out later.",
)
def test_what_waits_for_a_client_that_does_not_read_is_not_carried_out_later() -> None:
    with stage(queue_size=1000, timeout=50) as scene:
        slow = scene.hand()
        slow.link.narrow(1000)
        slow.link.dialled.pause_reading()
        reads = [read(1, 3, n, 100).body for n in range(400)]
        scene.at(0, slow.ask, *reads)
        scene.run_to(45)
        scene.at(45, slow.ask, sets(1))
        scene.run_to(100)
        slow.link.dialled.resume_reading()
        scene.run_to(200)
        assert len(slow.heard) == 401
        assert slow.heard[-1].body == excuse(sets(1), BUSY)
        assert sets(1) not in [asked.body for asked in scene.puppet.asked]


@contract(
    "A request that cannot be served before its deadline, because the next "
    "connection attempt lies later, is refused immediately.",
)
def test_a_request_that_cannot_be_served_before_its_deadline_is_refused_at_once() -> (
    None
):
    with stage(
        settled=0, timeout=5, reconnect_backoff=10, manner=Refusal.REFUSED
    ) as scene:
        client = scene.hand()
        attempt = 10 * (1 - 0.2 * scene.rng("engine").random())
        scene.at(attempt - 5.01, client.ask, asks(1))
        scene.at(attempt - 4.99, client.ask, asks(2))  # may be served, so it waits
        scene.run_to(20)
        assert client.heard == [
            (at(attempt - 5.01), 1, excuse(asks(1), NO_PATH)),
            (at(attempt), 2, excuse(asks(2), NO_PATH)),  # the next one comes too late
        ]


@contract("A message begun but incomplete after the timeout closes its client.")
def test_a_message_begun_but_incomplete_after_the_timeout_closes_its_client() -> None:
    with stage(timeout=2) as scene:
        slow, quick = scene.hand(), scene.hand()
        frame = scene.pack(1, asks(1))
        scene.at(0, slow.send, frame[:5])
        scene.at(1.9, slow.send, frame[5:7])  # that is no new beginning
        scene.at(0.5, quick.send, frame[:5])
        scene.at(2.4, quick.send, frame[5:])
        scene.run_to(5)
        assert slow.closed == at(2)
        assert quick.closed is None
        assert [heard.at for heard in quick.heard] == [at(2.5)]


@contract(
    "An idle client is closed only after `client_idle_timeout` without a request",
)
@pytest.mark.parametrize("live", [False, True], ids=["from the start", "applied"])
def test_an_idle_client_is_closed_after_client_idle_timeout(*, live: bool) -> None:
    limit: dict[str, Any] = {"client_idle_timeout": 10.0}
    with stage(timeout=60, **({} if live else limit)) as scene:
        silent, asking, waiting = (scene.hand() for _ in range(3))
        beginning = scene.now
        if live:
            assert scene.run(scene.mux.apply(replace(scene.settings, **limit)))
        scene.at(5, asking.ask, asks(1))
        scene.at(6, waiting.ask, asks(2))
        scene.puppet.script += [answers(), answers(20)]
        scene.run_to(40)
        assert silent.closed == pytest.approx(beginning + 10, abs=1.1)
        assert asking.closed == pytest.approx(15, abs=1.1)
        assert [heard.at for heard in waiting.heard] == [at(26)]
        assert waiting.closed == pytest.approx(26, abs=1.1)
        assert not scene.mux.snapshot().clients


@contract("which is off by default")
def test_an_idle_client_is_never_closed_for_being_idle() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1))
        scene.at(24 * HOUR, client.ask, asks(2))
        scene.run_to(25 * HOUR)
        assert [heard.at for heard in client.heard] == [at(0.1), at(24 * HOUR + 0.1)]


# ---- what a client gets ---------------------------------------------------------


@contract(
    "connection lost after sending, and the request not sent again | exception 0x0B "
    "immediately",
)
def test_a_connection_lost_after_sending_is_0b_at_once() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.puppet.script.append(resets(0.05))
        scene.at(0, client.ask, sets(1))
        scene.run_to(1)
        assert client.heard == [(at(0.05), 1, excuse(sets(1), NO_ANSWER))]


@contract("paused | exception 0x0A immediately, for pending requests and new ones")
def test_paused_is_0a_at_once_for_what_waits_and_for_what_comes() -> None:
    with stage() as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(answers(2))
        scene.at(0, first.ask, asks(1))
        scene.at(0.1, second.ask, asks(2))
        scene.at(1.5, third.ask, asks(3))
        scene.run_to(1)
        scene.run(scene.mux.pause())
        assert scene.now == at(2)  # the exchange in flight may finish
        assert first.heard == [(at(2), 1, answer(scene, asks(1)))]
        assert second.heard == [(at(1), 1, excuse(asks(2), NO_PATH))]
        assert third.heard == [(at(1.5), 1, excuse(asks(3), NO_PATH))]


@contract(
    "With `on_failure: close`, a Modbus client is closed instead of getting an "
    "exception",
)
def test_with_on_failure_close_the_client_is_closed_at_the_deadline_instead() -> None:
    with stage(timeout=2, on_failure="close") as scene:
        client = scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0.5, client.ask, asks(1))
        scene.run_to(5)
        assert (client.heard, client.closed) == ([], at(2.5))


@contract(
    "So are those of a client that was closed and has not read yet what it was told.",
)
def test_nothing_is_asked_for_a_client_that_was_closed_and_does_not_read() -> None:
    with stage(timeout=2, on_failure="close") as scene:
        client = scene.hand()
        client.link.narrow(100)
        scene.at(0.1, client.link.dialled.pause_reading)
        scene.puppet.script += [answers(), resets(0.5)]
        reading = read(1, 3, 0, 100).body
        scene.at(0.2, client.ask, reading, sets(2), asks(3))
        scene.run_to(6)
        assert len(scene.puppet.asked) == 2


@contract(
    "sent, and no response before the deadline | exception 0x0B, gateway target "
    "device failed to respond | 504 | connection closed",
)
@pytest.mark.parametrize("protocol", PLAIN)
def test_other_protocols_have_no_words_for_it_and_close_at_the_deadline(
    protocol: str,
) -> None:
    with stage(timeout=2, protocol=protocol) as scene:
        client = scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0.5, client.ask, b"ask 1")
        scene.run_to(5)
        assert (client.heard, client.closed) == ([], at(2.5))


# ---- matching -------------------------------------------------------------------


@contract(
    "A response counts only if transaction identifier, unit identifier and function "
    "code (its exception bit aside) match",
    "it is counted, traced and discarded, and the connection stays.",
)
@pytest.mark.parametrize("place", [1, 6, 7], ids=["transaction", "unit", "function"])
def test_a_response_counts_only_if_transaction_unit_and_function_match(
    place: int,
) -> None:
    """Anything else is a stray, counted and discarded, and the connection stays."""

    def change(frame: bytes) -> bytes:
        return frame[:place] + bytes((frame[place] ^ 0x40,)) + frame[place + 1 :]

    with stage() as scene:
        client = scene.hand()
        scene.puppet.script.append(says_before(change, 0.5))
        scene.at(0, client.ask, asks(1))
        scene.run_to(1)
        assert client.heard == [(at(0.5), 1, answer(scene, asks(1)))]
        assert scene.mux.snapshot().unsolicited_responses == 1
        assert not scene.puppet.ended


@contract(
    "A device that sends more than 64 messages at once is not read for 0.2 ms for each "
    "of them, and then 1 KiB at a time while that goes on",
)
@pytest.mark.parametrize(
    ("first", "then", "heard"),
    [(64, 0, 0.002), (100, 0, 0.02), (100, 200, 0.02 + 2 * (1024 // 11) * 0.0002)],
)
def test_a_device_that_floods_is_read_slowly(
    first: int, then: int, heard: float
) -> None:
    def floods(line: Line, tid: int, body: bytes) -> None:
        frame = scene.pack(tid ^ 0x4000, answer(scene, body))
        line.say(frame * first)
        line.later(0.001, line.say, frame * then)
        answers(0.002)(line, tid, body)

    with stage() as scene:
        client = scene.hand()
        scene.puppet.script.append(floods)
        scene.at(0, client.ask, asks(1))
        scene.at(1, client.ask, asks(2))
        scene.run_to(2)
        assert client.heard == [
            (at(heard), 1, answer(scene, asks(1))),
            (at(1 + SERVICE), 2, answer(scene, asks(2))),
        ]
        assert scene.mux.snapshot().unsolicited_responses == first + then


@contract("Identifiers count on across connections")
def test_transaction_identifiers_count_on_across_connections() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), resets(0.1), resets(0.1), answers()]
        scene.at(0, client.ask, asks(1), asks(2), asks(3))
        scene.run_to(5)
        tids = scene.puppet.tids
        assert len(tids) == 4
        assert tids == list(range(tids[0], tids[0] + 4))


@contract(
    "Then a read that is known to be answered, of a unit that is not silent, is asked "
    "first, ahead of all that wait. If that gets no response either",
    "the connection is renewed: closed, and reopened immediately",
)
def test_two_successive_timeouts_without_a_byte_between_renew_the_connection() -> None:
    with stage(timeout=2) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), says_nothing, says_nothing, says_nothing]
        for moment in (0, 1, 2, 7):
            scene.at(moment, client.ask, asks(moment))
        scene.run_to(10)
        assert scene.puppet.asked[3] == (at(4), 1, asks(0))
        assert scene.puppet.ended == [(at(6), 1)]
        assert scene.puppet.dials == [at(6)]
        told = [(heard.at, heard.body[1]) for heard in client.heard]
        assert told == [(at(0.1), 3), (at(3), 0x83), (at(4), 0x83), (at(7.1), 3)]


@contract("A byte received meanwhile keeps it.")
def test_a_byte_between_two_timeouts_keeps_the_connection() -> None:
    with stage(timeout=2) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(2.5), says_nothing, answers()]
        for moment in range(3):
            scene.at(moment, client.ask, asks(moment))
        scene.run_to(10)
        assert not scene.puppet.ended
        assert [heard.at for heard in client.heard] == [at(2), at(3), at(3.1)]


@contract("It is also closed when a deadline passes with part of a response received.")
def test_a_deadline_that_passes_within_a_response_closes_the_connection() -> None:
    with stage(timeout=2) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), begins]
        scene.at(0, client.ask, asks(1))
        scene.at(1, client.ask, asks(2))
        scene.run_to(10)
        assert scene.puppet.ended == [(at(3), 1)]
        assert scene.puppet.dials == [at(3)]


@contract(
    "one that names something else belongs to another write, with lenient matching and "
    "RTU too.",
)
@pytest.mark.parametrize(
    "manner", [{}, {"matching": "lenient"}, {"framing": "rtu"}], ids=str
)
@pytest.mark.parametrize("place", ["address", "value"])
def test_a_confirmation_names_what_was_written(
    place: str, manner: dict[str, Any]
) -> None:
    wrong = sets(2) if place == "address" else sets(1)[:-1] + b"\x23"

    def confirms_another(line: Line, tid: int, body: bytes) -> None:
        line.say(line.stage.pack(tid, wrong))
        answers(0.5)(line, tid, body)

    with stage(**manner) as scene:
        client = scene.hand()
        scene.puppet.script.append(confirms_another)
        scene.at(0, client.ask, sets(1))
        scene.run_to(1)
        assert client.heard == [(at(0.5), 1, answer(scene, sets(1)))]
        assert scene.mux.snapshot().unsolicited_responses == 1
        assert not scene.puppet.ended


@contract(
    "Bytes that can begin no header are discarded, up to the header of a response that "
    "is awaited: its identifier, protocol identifier, unit and function.",
)
@pytest.mark.parametrize("manner", [{}, {"matching": "lenient"}], ids=str)
def test_bytes_between_frames_cost_nothing(manner: dict[str, Any]) -> None:
    with stage(**manner) as scene:
        client = scene.hand()
        scene.puppet.script += [says_before(lambda _: b"USR-TCP232\r\n", 0.5)]
        scene.at(0, client.ask, asks(1))
        scene.run_to(1)
        assert client.heard == [(at(0.5), 1, answer(scene, asks(1)))]
        assert not scene.puppet.ended


@contract(
    "So are bytes that could begin the frame of nobody's response, once 50 ms have "
    "passed without any more.",
)
def test_bytes_that_nothing_follows_keep_the_connection() -> None:
    """Whatever times out, and what they announced swallows no response."""

    def announces(line: Line, tid: int, body: bytes) -> None:
        line.say(b"\x77\x77\0\0\0\x50\1\3")

    with stage(timeout=2) as scene:
        client = scene.hand()
        scene.puppet.script += [announces, says_before(lambda _: b"\xff", 0.5)]
        scene.at(0, client.ask, asks(1))
        scene.at(2, client.ask, asks(2))
        scene.run_to(3)
        assert client.heard[-1] == (at(2.5), 2, answer(scene, asks(2)))
        assert not scene.puppet.ended


@contract(
    "One whose header says another length is taken for what it is, if its code is one "
    "of the specification's, as soon as the next response begins behind it, or once "
    "50 ms have passed without any more.",
)
@pytest.mark.parametrize("manner", [{}, {"matching": "lenient"}], ids=str)
@pytest.mark.parametrize("length", [b"\0\2", b"\0\4", b"\0\6", b"\3\0"], ids=bytes.hex)
def test_an_exception_of_wrong_length_is_taken_after_a_silence(
    length: bytes, manner: dict[str, Any]
) -> None:
    def refuses(line: Line, tid: int, body: bytes) -> None:
        line.say(tid.to_bytes(2) + b"\0\0" + length + excuse(body, 2))

    with stage(**manner) as scene:
        client = scene.hand()
        scene.puppet.script.append(refuses)
        scene.at(0, client.ask, asks(1))
        scene.at(1, client.ask, asks(2))
        scene.run_to(2)
        assert client.heard[0] == (at(0.05), 1, excuse(asks(1), 2))
        assert client.heard[1].body == answer(scene, asks(2))
        assert not scene.puppet.ended


# ---- no correlation -------------------------------------------------------------


@contract(
    "after a request was given up nothing is sent, with RTU to its unit, until `quiet` "
    "after the latest moment at which its response is expected: a timeout after it was "
    "sent. What arrives meanwhile is discarded.",
)
@pytest.mark.parametrize("manner", [{"matching": "lenient"}, {"framing": "rtu"}])
def test_after_a_timeout_nothing_is_sent_until_quiet_has_passed(
    manner: dict[str, Any],
) -> None:
    with stage(timeout=3, quiet=1.5, **manner) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(answers(4))  # meanwhile: discarded
        scene.at(0, first.ask, asks(1))
        scene.at(2, second.ask, asks(2))
        scene.run_to(10)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(4.5)]
        assert first.heard == [(at(3), 1, excuse(asks(1), NO_ANSWER))]
        (heard,) = second.heard
        assert heard.body == answer(scene, asks(2))
        assert scene.mux.snapshot().late_responses == 1


@contract(
    "Once a device has echoed an identifier, a response with an older one of ours is "
    "late, or a copy: some devices respond twice.",
)
def test_a_copy_is_known_once_the_device_has_echoed_an_identifier() -> None:
    with stage(matching="lenient") as scene:
        client, puppet = scene.hand(), scene.puppet

        def repeats_the_last(line: Line, tid: int, body: bytes) -> None:
            line.say(scene.pack(puppet.tids[-2], answer(scene, puppet.asked[-2].body)))
            answers()(line, tid, body)

        puppet.script += [answers(), answers(), repeats_the_last]
        numbers = (1, 2, 3)
        for number in numbers:
            scene.at(number, client.ask, asks(number))
        scene.run_to(5)
        right = [answer(scene, asks(number)) for number in numbers]
        assert [heard.body for heard in client.heard] == right
        assert scene.mux.snapshot().late_responses == 1


@pytest.mark.parametrize("manner", [{"matching": "lenient"}, {"framing": "rtu"}])
@contract("a timeout after it was sent.")
def test_what_was_sent_late_is_awaited_as_long_as_what_was_sent_at_once(
    manner: dict[str, Any],
) -> None:
    """It had to wait, and had little time left when it was sent."""
    with stage(timeout=3, quiet=1, **manner) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script += [answers(1), answers(3.4)]
        scene.at(0, first.ask, asks(1))
        scene.at(0.2, second.ask, asks(2))  # sent at 1, given up at 3.2
        scene.at(4.1, third.ask, asks(3))  # the second's response comes at 4.4
        scene.run_to(10)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(1), at(5)]
        assert second.heard == [(at(3.2), 1, excuse(asks(2), NO_ANSWER))]
        assert third.heard == [(at(5.1), 1, answer(scene, asks(3)))]


@contract("nothing is sent, with RTU to its unit")
def test_on_a_line_other_units_are_asked_meanwhile() -> None:
    with stage(framing="rtu", timeout=3, quiet=1) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(3.5), answers(1)]
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(1, second.ask, asks(2, unit=1))  # hears unit 2 while it waits
        scene.run_to(10)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(3)]
        assert second.heard == [(at(4), 1, answer(scene, asks(2, unit=1)))]
        assert scene.mux.snapshot().unsolicited_responses == 1


@contract("A request that cannot be served before its deadline")
def test_what_could_not_go_to_its_unit_in_time_is_refused_at_once() -> None:
    with stage(framing="rtu", timeout=3, quiet=1) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1))
        scene.at(0.5, second.ask, asks(2))  # its deadline is 3.5; held until 4
        scene.run_to(10)
        assert len(scene.puppet.asked) == 1
        assert second.heard == [(at(3), 1, excuse(asks(2), BUSY))]


@contract("No request goes out with less time left than a response takes")
def test_what_has_too_little_time_left_is_not_sent() -> None:
    with stage(timeout=3, framing="rtu") as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(1.2), answers(2.5)]
        scene.at(0, first.ask, asks(1))
        scene.at(2, first.ask, asks(2))
        scene.at(2.1, second.ask, asks(3))  # it could go at 4.5, for 0.6 s
        scene.run_to(10)
        assert len(scene.puppet.asked) == 2
        assert second.heard == [(at(4.5), 1, excuse(asks(3), BUSY))]


@contract("Where a silence follows a timeout (below), none goes out with less than")
@pytest.mark.parametrize(
    ("way", "pause", "sent"),
    [
        ({"framing": "rtu"}, 2.8, False),
        ({"framing": "rtu"}, 2.6, True),
        ({"matching": "lenient"}, 2.8, False),
        ({"matching": "lenient"}, 2.6, True),
        ({}, 2.8, True),
    ],
)
def test_what_may_soon_time_out_is_not_sent_where_that_silences_others(
    way: dict[str, Any], pause: float, *, sent: bool
) -> None:
    with stage(timeout=3, request_delay=pause, **way) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(0.1), answers(0.1)]
        scene.at(0, first.ask, asks(1))
        scene.at(0.05, second.ask, asks(2))  # until 3.05; its turn is 0.1 + pause
        scene.run_to(10)
        assert len(scene.puppet.asked) == 1 + sent
        if not sent:
            assert second.heard == [(at(0.1 + pause), 1, excuse(asks(2), BUSY))]


@contract(
    "The silence outlives the connection: a line behind a new one may still answer "
    "what the old one was asked.",
)
def test_quiet_outlives_the_connection() -> None:
    """A line behind a new connection may still answer what the old one was asked."""
    with stage(timeout=3, quiet=1.5, matching="lenient") as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), resets(0.2)]
        scene.at(0, client.ask, asks(1), asks(2))
        scene.run_to(10)
        assert scene.puppet.dials == [at(0.3)]
        assert scene.puppet.asked[2:] == [(at(1.8), 2, asks(2))]


@contract(
    "With HTTP, ISO 8583, MPU and echo, a timed-out or broken exchange closes its "
    "connection before anything else is sent",
)
@pytest.mark.parametrize("protocol", PLAIN)
def test_without_correlation_a_timeout_closes_before_anything_else_is_sent(
    protocol: str,
) -> None:
    with stage(protocol=protocol, timeout=2) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(), says_nothing]
        scene.at(0, first.ask, b"ask 1")
        scene.at(1, first.ask, b"ask 2")
        scene.at(2, second.ask, b"ask 3")
        scene.run_to(10)
        assert scene.puppet.ended == [(at(3), 1)]
        assert scene.puppet.asked[2:] == [(at(3), 2, b"ask 3")]
        assert second.heard == [(at(3.1), 0, b"told 3")]


@contract("So does any byte that no request asked for.")
@pytest.mark.parametrize("protocol", PLAIN)
def test_without_correlation_any_byte_that_nobody_asked_for_closes(
    protocol: str,
) -> None:
    with stage(protocol=protocol) as scene:
        client = scene.hand()
        scene.at(0, client.ask, b"ask 1")
        said = scene.pack(0, b"told nobody")[:5]
        scene.at(1, scene.puppet.lines[0].say, said)
        scene.run_to(2)
        assert scene.puppet.ended == [(at(1), 1)]


# ---- retry ----------------------------------------------------------------------


@contract("A request not yet sent survives a lost connection, whatever it is.")
def test_what_was_not_sent_survives_a_lost_connection_whatever_it_is() -> None:
    with stage() as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(), hangs_up(0.05)]
        scene.at(0, first.ask, asks(1), sets(2))
        scene.at(0.12, second.ask, sets(3))
        scene.run_to(1)
        assert scene.puppet.asked[1:] == [(at(0.1), 1, sets(2)), (at(0.15), 2, sets(3))]
        assert second.heard == [(at(0.25), 1, answer(scene, sets(3)))]


@contract(
    "A retry-safe request whose connection was lost before the first byte of its "
    "response is sent once more",
)
def test_what_is_retry_safe_is_sent_once_more_and_not_again() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), resets(0.05), resets(0.05)]
        scene.at(0, client.ask, asks(1), asks(2))
        scene.run_to(10)
        assert scene.puppet.asked[1:] == [(at(0.1), 1, asks(2)), (at(0.15), 2, asks(2))]
        assert client.heard[1:] == [(at(0.2), 2, excuse(asks(2), NO_ANSWER))]


@contract("whose connection was lost before the first byte of its response")
def test_what_is_retry_safe_is_not_sent_again_once_its_response_has_begun() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), begins_and_resets]
        scene.at(0, client.ask, asks(1), asks(2))
        scene.run_to(10)
        assert len(scene.puppet.asked) == 2
        assert client.heard[1:] == [(at(0.2), 2, excuse(asks(2), NO_ANSWER))]


@contract("not for a client that has left")
def test_what_is_retry_safe_is_not_sent_again_for_a_client_that_has_left() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), resets(0.05)]
        scene.at(0, client.ask, asks(1), asks(2))
        scene.at(0.12, client.leave)
        scene.run_to(10)
        assert len(scene.puppet.asked) == 2


@contract("before what waited meanwhile")
def test_what_is_sent_once_more_goes_before_what_waited_meanwhile() -> None:
    with stage(max_in_flight=2) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script += [answers(), resets(0.3), says_nothing]
        scene.at(0, first.ask, asks(0))
        scene.at(1, first.ask, asks(1))
        scene.at(1.1, second.ask, asks(2))
        scene.at(1.2, third.ask, asks(3))
        scene.run_to(3)
        bodies = [asked.body for asked in scene.puppet.asked[3:]]
        assert bodies == [asks(1), asks(2), asks(3)]
        assert scene.puppet.asked[3].at == at(1.3)


# ---- client gone ----------------------------------------------------------------


@contract(
    "When a Modbus client closes, its pending reads are dropped immediately.",
    "Its writes are still forwarded, because a command once accepted is carried "
    "out, and an exchange in flight ends normally.",
)
def test_an_exchange_in_flight_ends_normally_when_its_client_leaves() -> None:
    with stage() as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, asks(1), asks(2), sets(3))
        scene.at(0.02, second.ask, asks(4))
        scene.at(0.05, first.leave)
        scene.run_to(1)
        told = [(asked.at, asked.body) for asked in scene.puppet.asked]
        assert told == [(at(0), asks(1)), (at(0.1), sets(3)), (at(0.2), asks(4))]


RTU_TOO: dict[str, Any] = {
    "more_listeners": (
        ListenerSettings(host="192.168.1.250", port=502, framing=Framing.RTU),
    )
}
"""A second listener, for clients that speak RTU."""


@contract("its place and its connection are free once nothing is left to say to it")
def test_an_rtu_client_that_leaves_is_let_go_of_once_it_is_owed_nothing() -> None:
    with stage(**RTU_TOO) as scene:
        first = scene.hand()
        queued, followed, writing = (scene.hand(1) for _ in range(3))
        scene.at(0, first.ask, asks(1))
        scene.at(0.01, queued.send, with_crc(asks(2)))
        scene.at(0.01, followed.send, with_crc(asks(1)))
        scene.at(0.01, writing.send, with_crc(asks(3)) + with_crc(sets(4)))
        for hand in (queued, followed, writing):
            scene.at(0.05, hand.leave)
        scene.run_to(0.06)
        assert len(scene.mux.snapshot().clients) == 2
        scene.run_to(1)
        assert [client.port for client in scene.mux.snapshot().clients] == [
            first.link.dialled.get_extra_info("sockname")[1]
        ]
        assert [asked.body for asked in scene.puppet.asked] == [asks(1), sets(4)]


# ---- what one client may cost ---------------------------------------------------


@contract(
    "replies that need no device and wait behind an unanswered request | 64 a client, "
    "or 64 KiB",
)
def test_a_client_whose_refusals_wait_in_line_is_read_no_further() -> None:
    with stage(timeout=60, write_rules=DENIED, **RTU_TOO) as scene:
        client = scene.hand(1)
        scene.puppet.script.append(answers(10))
        scene.at(0, client.send, with_crc(asks(1)))
        flood = with_crc(sets(1)) * 2000
        scene.at(0.1, client.send, flood)
        scene.run_to(9)
        [seen] = scene.mux.snapshot().clients
        assert (seen.refused, client.heard) == (64, [])
        assert seen.bytes_in < 6000
        scene.run_to(100)
        [seen] = scene.mux.snapshot().clients
        assert seen.refused == 2000


@contract(
    "A client that asks again within 100 ms of being refused at once, and is refused "
    "again, is told so 100 ms later",
)
@pytest.mark.parametrize("listener", [0, 1], ids=["tcp", "rtu"])
def test_refusals_that_a_client_asks_for_again_are_delayed(
    listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage(write_rules=DENIED, **RTU_TOO) as scene:
        stubborn, other = scene.hand(listener), scene.hand()
        told: list[float] = []

        def again(data: bytes) -> None:
            told.append(scene.now)
            scene.loop.post(scene.loop.time() + 0.001, write)

        def write() -> None:
            stubborn.send(with_crc(sets(1)) if listener else framed)

        framed = scene.dialect.pack(1, sets(1))
        monkeypatch.setattr(stubborn, "data_received", again)
        scene.at(0, write)
        scene.at(0.12, other.ask, sets(2), asks(3))
        scene.run_to(0.35)
        assert told == [at(0), at(0.101), at(0.202), at(0.303)]
        assert [heard.at for heard in other.heard] == [at(0.12), at(0.22)]


@contract("is told so 100 ms later, unless its deadline comes earlier")
def test_a_refusal_is_not_delayed_beyond_the_deadline() -> None:
    with stage(queue_size=1, timeout=1) as scene:
        scene.puppet.manners = says_nothing
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, asks(1), asks(2), asks(3))
        scene.at(0.01, other.ask, asks(6))
        scene.at(0.05, client.ask, asks(4), asks(5))
        scene.run_to(5)
        assert [told.at for told in client.heard] == [at(1)] * 3 + [at(1.05)] * 2


@contract("while 64 refusals wait, it is read no further.")
def test_a_client_that_asks_for_many_refusals_is_read_no_further() -> None:
    with stage(write_rules=DENIED) as scene:
        client = scene.hand()
        scene.at(0, client.ask, sets(1))
        for number in range(1000):
            scene.at(0.01 + number * 1e-5, client.ask, sets(1))
        scene.run_to(0.1)
        [seen] = scene.mux.snapshot().clients
        assert seen.refused == 65
        scene.run_to(3)
        assert len(client.heard) == 1001


@contract(
    "At most 64 messages of one client are taken in one turn of the loop (HTTP, where "
    "they cost more: 8)",
)
@pytest.mark.parametrize(
    ("settings", "codec", "message", "most"),
    [
        ({"protocol": "iso8583"}, FramedDownstream, b"\0\0", 64),
        ({"write_rules": DENIED, **RTU_TOO}, RtuDownstream, with_crc(sets(1)), 64),
        ({"protocol": "http"}, HttpDownstream, TRACE, 8),
    ],
    ids=["keepalives", "refused writes", "HTTP requests"],
)
def test_a_client_that_floods_leaves_others_their_turns(
    settings: dict[str, Any],
    codec: Any,
    message: bytes,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: Counter[int] = Counter()
    with stage(**settings) as scene:
        next_event = codec.next_event

        def counting(self: Any) -> Any:
            taken[scene.loop.turns] += 1
            return next_event(self)

        monkeypatch.setattr(codec, "next_event", counting)
        client = scene.hand(-1)
        scene.at(0, client.send, message * 1000)  # what is read at once
        scene.run_to(10)
        assert taken.total() >= 1000
        assert max(taken.values()) <= most


@contract("it is echoed to its sender, at most once a second on a connection")
def test_keepalives_that_both_sides_echo_do_not_circulate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stage(protocol="iso8583") as scene:
        client = scene.hand()
        [line] = scene.puppet.lines
        echoes: dict[str, list[float]] = {"client": [], "device": []}

        def echo(peer: str, end: Endpoint, after: float) -> Callable[[bytes], None]:
            def received(data: bytes) -> None:
                assert data == b"\0\0"
                echoes[peer].append(scene.now)
                scene.loop.post(scene.loop.time() + after, end.write, data)

            return received

        monkeypatch.setattr(
            line, "data_received", echo("device", line.link.accepted, 0.01)
        )
        monkeypatch.setattr(
            client, "data_received", echo("client", client.link.dialled, 1.5)
        )
        scene.at(0, line.say, b"\0\0")
        scene.at(0, client.send, b"\0\0" * 3)
        scene.run_to(5)
        assert echoes == {"client": [at(0), at(1.5), at(3), at(4.5)], "device": [at(0)]}


# ---- who may connect ------------------------------------------------------------


@contract("One address gets at most a quarter of `max_clients`, but at least 16.")
@pytest.mark.parametrize(("most", "share"), [(100, 25), (40, 16), (10, 10)])
def test_one_address_cannot_take_all_places(most: int, share: int) -> None:
    with stage(max_clients=most) as scene:
        greedy = [scene.hand(source="192.168.2.1") for _ in range(share + 5)]
        other = scene.hand() if share < most else None
        scene.run_to(1)
        assert sum(hand.closed is None for hand in greedy) == share
        assert len(scene.mux.snapshot().clients) == share + (other is not None)
        greedy[0].leave()
        scene.run_to(2)
        again = scene.hand(source="192.168.2.1")
        scene.run_to(3)
        assert again.closed is None


@contract(
    "A change of the allowed networks immediately closes those that it no longer allows; a "
    "smaller `max_clients` closes none.",
)
def test_a_client_that_may_no_longer_connect_is_closed_at_once() -> None:
    with stage() as scene:
        first, second = scene.hand(), scene.hand()
        narrower = replace(
            scene.settings,
            allowed_networks=(ip_network("192.168.1.2/32"),),
            max_clients=1,
        )
        scene.run_to(1)
        assert scene.run(scene.mux.apply(narrower))
        first.ask(asks(1))
        second.ask(asks(2))
        scene.run_to(2)
        assert (first.closed, second.closed) == (at(1), None)
        assert [asked.body for asked in scene.puppet.asked] == [asks(2)]
        assert scene.told(EventType.CLIENT_REFUSED) == [at(1)]


@contract(
    "Further local ports come and go while it runs: the clients of a port that is "
    "removed, or changed, are closed immediately; all others stay.",
)
@pytest.mark.parametrize("changed", [False, True])
def test_only_the_clients_of_a_further_port_notice_that_it_goes(changed: bool) -> None:
    kept, port = (
        ListenerSettings(host="192.168.1.250", port=number) for number in (5021, 5022)
    )
    after = (replace(port, framing=Framing.RTU), kept) if changed else (kept,)
    with stage() as scene:
        settings = scene.settings
        main = scene.hand()
        main.ask(asks(1))
        for further in ((kept,), (kept, port)):
            settings = replace(settings, more_listeners=further)
            assert scene.run(scene.mux.apply(settings))
        stays, goes = scene.hand(1), scene.hand(2)
        scene.run_to(1)
        stays.ask(asks(2))
        goes.ask(asks(3))
        scene.run_to(1.05)
        assert scene.run(scene.mux.apply(replace(settings, more_listeners=after)))
        scene.run_to(2)
        assert (main.closed, stays.closed, goes.closed) == (None, None, at(1.05))
        assert [len(hand.heard) for hand in (main, stays, goes)] == [1, 1, 0]
        assert [asked.body for asked in scene.puppet.asked] == [asks(1), asks(2)]
        scene.hand(1).ask(asks(4))
        scene.run_to(3)
        assert len(scene.puppet.asked) == 3


POST = (
    b"POST /%s HTTP/1.1\r\nHost: 192.168.1.250:502\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 65536\r\n\r\n"
)


def body_of_a_web_page(protocol: str) -> bytes:
    """Give what a page would POST to have this protocol's device do something."""
    match protocol:
        case "modbus":
            return with_crc(sets(1)) * 1000
        case "iso8583":  # the length that "PO" is, and then messages
            rest = int.from_bytes(b"PO") + 2
            return bytes(rest - len(POST % b"")) + b"\0\4take" * 100
        case "mpu":
            return b"0004take" * 100
        case _:
            return b"take\n" * 100


@contract(
    "Where the protocol is not HTTP, a client whose first bytes are an HTTP request line "
    "is closed, and nothing that it sent reaches the device",
)
@pytest.mark.parametrize("pieces", [1, 2, 3, 16, 100, 1000])
@pytest.mark.parametrize("target", [b"", b"a" * 2000], ids=["short", "long"])
@pytest.mark.parametrize("protocol", ["modbus", *PLAIN])
def test_a_web_page_s_request_reaches_no_device(
    protocol: str, target: bytes, pieces: int
) -> None:
    settings = RTU_TOO if protocol == "modbus" else {}
    with stage(protocol=protocol, **settings) as scene:
        page = scene.hand(-1)
        data = POST % target + body_of_a_web_page(protocol)
        step = -(-len(data) // pieces)
        for number in range(pieces):
            piece = data[number * step :][:step]
            scene.at(number * 0.001, page.send, piece)
        scene.run_to(2)
        assert page.closed is not None
        assert page.closed < 1
        assert (scene.puppet.asked, page.heard) == ([], [])


# ---- the upstream connection ----------------------------------------------------


@contract("The connection is opened at start")
def test_the_connection_is_opened_at_start() -> None:
    with stage(settled=0) as scene:
        scene.run_to(1)
        assert scene.puppet.dials == [at(0)]


@contract("with *connect on demand* at the first request.")
def test_on_demand_it_is_opened_with_the_first_request() -> None:
    with stage(settled=0, connect_on_demand=True) as scene:
        client = scene.hand()
        scene.at(60, client.ask, asks(1))
        scene.run_to(100)
        assert scene.puppet.dials == [at(60)]
        assert client.heard == [(at(60.1), 1, answer(scene, asks(1)))]


@contract("One attempt lasts at most 5 s.")
def test_one_attempt_lasts_five_seconds() -> None:
    with stage(settled=0, reconnect_backoff=1, manner=Refusal.IGNORED) as scene:
        scene.run_to(7)
        pause = 1 - 0.2 * scene.rng("engine").random()
        assert scene.told(EventType.CONNECTION_FAILED) == [at(5)]
        assert scene.puppet.dials == [at(0), at(5 + pause)]


@contract("`connect_delay` passes after opening before the first request")
def test_connect_delay_passes_after_opening_before_the_first_request() -> None:
    with stage(settled=0, connect_delay=2) as scene:
        client = scene.hand()
        scene.at(0.5, client.ask, asks(1), asks(2))
        scene.run_to(5)
        assert [asked.at for asked in scene.puppet.asked] == [at(2), at(2.1)]


@contract("`request_delay` between the end of one exchange and the start of the next.")
def test_request_delay_passes_between_the_end_of_one_exchange_and_the_next() -> None:
    with stage(request_delay=0.3, max_in_flight=1) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(answers(0.2))
        scene.at(0, first.ask, asks(1), asks(2))
        scene.at(0.1, second.ask, asks(3))
        scene.at(2, second.ask, asks(4))
        scene.run_to(5)
        moments = [asked.at for asked in scene.puppet.asked]
        assert moments == [at(0), at(0.5), at(0.9), at(2)]


@contract("The connection is closed after `idle_timeout` without requests")
def test_an_idle_connection_is_closed_after_idle_timeout_without_requests() -> None:
    with stage(settled=0, idle_timeout=3) as scene:
        client = scene.hand()
        scene.at(1, client.ask, asks(1))
        scene.at(3, client.ask, asks(2))
        scene.at(60, client.ask, asks(3))
        scene.run_to(100)
        assert scene.puppet.ended == [(at(6.1), 1), (at(63.1), 2)]
        assert scene.puppet.dials == [at(0), at(60)]
        assert client.heard[-1].at == at(60.1)


@contract("renewed between two exchanges once it is `max_lifetime` old")
def test_a_connection_is_renewed_between_two_exchanges_after_max_lifetime() -> None:
    with stage(settled=0, max_lifetime=10) as scene:
        client = scene.hand()
        scene.puppet.script.append(answers(2))
        scene.at(9, client.ask, asks(1), asks(2))
        scene.run_to(15)
        assert scene.puppet.ended == [(at(11), 1)]
        assert scene.puppet.dials == [at(0), at(11)]
        assert scene.puppet.asked == [(at(9), 1, asks(1)), (at(11), 2, asks(2))]


@contract(
    "A connection that had carried a response is reopened immediately, however it "
    "ended.",
)
def test_a_connection_that_had_carried_a_response_is_reopened_at_once() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1))
        scene.at(50, scene.puppet.hang_up, 1)
        scene.at(51, client.ask, asks(2))
        scene.at(52, scene.puppet.reset, 2)
        scene.run_to(52.5)
        assert scene.puppet.dials == [at(50), at(52)]
        assert not scene.healths


@contract(
    "One that the device closed before anything was asked is reopened with the next "
    "request, or once a backoff has passed; that is no failed attempt",
)
@pytest.mark.parametrize("after", [0.3, 50])
def test_one_on_which_nothing_was_asked_is_no_failed_attempt(after: float) -> None:
    with stage(settled=0) as scene:
        client = scene.hand()
        backoff = 1 - 0.2 * scene.rng("engine").random()
        scene.at(after, scene.puppet.hang_up, 1)
        scene.at(100, scene.puppet.hang_up, 2)
        scene.at(100.5, client.ask, asks(1))
        scene.run_to(110)
        assert scene.puppet.dials == [at(0), at(after + backoff), at(100.5)]
        assert client.heard == [(at(100.6), 1, answer(scene, asks(1)))]
        assert scene.healths == [(at(0), "healthy")]
        assert not scene.told(EventType.UPSTREAM_LOST)


@contract("once a backoff has passed")
def test_a_device_that_closes_unused_connections_is_not_stormed() -> None:
    with stage(settled=0) as scene:

        def hang_up() -> None:
            if scene.now - scene.puppet.dials[-1] >= 0.1:
                scene.puppet.hang_up(len(scene.puppet.lines))

        for moment in range(1, 36000):
            scene.at(moment / 10, hang_up)
        scene.run_to(HOUR)
        assert 100 < len(scene.puppet.dials) < 180
        assert not scene.told(EventType.UPSTREAM_LOST)


@contract("or if it was the third in a row that a device which has never answered")
def test_a_device_that_turns_away_every_connection_is_unreachable() -> None:
    with stage(settled=0) as scene:

        def turn_away() -> None:
            for line in range(len(scene.puppet.lines)):
                scene.puppet.hang_up(line + 1)

        for moment in range(1, 1000):
            scene.at(moment / 100, turn_away)
        scene.run_to(10)
        assert len(scene.told(EventType.UPSTREAM_LOST)) == 1
        assert scene.mux.snapshot().health.value == "unreachable"


@contract("unless a request waited for it")
def test_one_that_is_closed_while_a_request_waits_is_a_failed_attempt() -> None:
    with stage(settled=0, connect_delay=1) as scene:
        client = scene.hand()
        scene.at(0.5, client.ask, asks(1))
        scene.at(0.6, scene.puppet.hang_up, 1)
        scene.run_to(1)
        assert scene.told(EventType.UPSTREAM_LOST) == [at(0.6)]
        assert scene.puppet.dials == [at(0)]


@contract(
    "nor an end where the device hangs up at a request",
    "at two requests in a row, or at five if it has answered others within the last "
    "60 s, the connection is reopened immediately.",
    "Any other end without a response, unless we closed it on purpose, is a failed "
    "attempt.",
)
@pytest.mark.parametrize("ends", [hangs_up, resets])
@pytest.mark.parametrize(("answered", "times"), [(None, 2), (0, 2), (50, 5)])
def test_a_request_at_which_the_device_hangs_up_is_no_outage(
    ends: Callable[[float], Any], answered: float | None, times: int
) -> None:
    with stage() as scene:
        client = scene.hand()
        if answered is not None:
            scene.at(answered, client.ask, asks(1))
            scene.at(answered + 1, scene.puppet.hang_up, 1)
        scene.run_to(99)
        scene.puppet.script += [ends(0.03)] * (times + 1)
        for number in range(times):
            scene.at(100 + number / 10, client.ask, sets(number))
        scene.run_to(101)
        ends_at = [at(100.03 + number / 10) for number in range(times)]
        assert scene.puppet.dials[-times:] == ends_at
        assert not scene.told(EventType.UPSTREAM_LOST)
        assert not {"unreachable", "idle"} & {health for _, health in scene.healths}
        scene.at(101, client.ask, sets(9))
        scene.run_to(101.1)
        assert scene.told(EventType.UPSTREAM_LOST) == [at(101.03)]


@contract(
    "A device that closes the connection within 0.25 s after the first response, "
    "three times in a row, gets a new connection for each request from then on",
    "After every 64 exchanges the closing is left to the device once, with a pause of "
    "0.5 s; if it then answers a second request, it has lost that habit.",
)
@pytest.mark.parametrize("after", [0.0, 0.05])
@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_a_device_that_closes_after_each_response_is_learned(
    after: float, max_in_flight: int
) -> None:
    spent = set()

    def closes(line: Line, tid: int, body: bytes) -> None:
        if line.number not in spent:
            answers()(line, tid, body)
            line.later(SERVICE + after, line.link.accepted.close)
        spent.add(line.number)

    with stage(timeout=HOUR, queue_size=500, max_in_flight=max_in_flight) as scene:
        writer, reader = scene.hand(), scene.hand()
        scene.puppet.script += [closes] * 400
        for moment in range(3):
            scene.at(moment, reader.ask, asks(moment))
        scene.at(10, writer.ask, *(sets(n) for n in range(100)))
        scene.at(10, reader.ask, *(asks(n) for n in range(100)))
        scene.run_to(100)
        assert [heard.body for heard in writer.heard] == [sets(n) for n in range(100)]
        assert len(reader.heard) == 103
        assert not scene.told(EventType.UPSTREAM_LOST)
        # It is mended.
        scene.puppet.script.clear()
        dials = len(scene.puppet.dials)
        scene.at(100, reader.ask, *(asks(n) for n in range(200)))
        scene.run_to(200)
        assert len(reader.heard) == 303
        assert len(scene.puppet.dials) - dials <= 64


@contract(
    "the next one comes after a fifth of the time that the device has been away, "
    "but at least `reconnect_backoff` and at most `reconnect_backoff_max`, "
    "shortened by a jitter of up to 20 %.",
)
def test_the_next_attempt_comes_after_a_fifth_of_the_time_away_within_bounds() -> None:
    """With a jitter that shortens it by up to a fifth."""
    with stage(
        settled=0,
        manner=Refusal.REFUSED,
        reconnect_backoff=1,
        reconnect_backoff_max=30,
    ) as scene:
        scene.run_to(HOUR)
        dice = scene.rng("engine")
        expected = [0.0]
        while expected[-1] < HOUR:
            delay = min(max(expected[-1] / 5, 1), 30)
            expected.append(expected[-1] + delay * (1 - 0.2 * dice.random()))
        assert scene.puppet.dials == pytest.approx(expected[:-1], abs=1e-3)
        assert len(scene.puppet.dials) < 180
        assert len(scene.told(EventType.UPSTREAM_LOST)) == 1


@contract("The outage ends with the first response, not with the mere connect.")
def test_an_outage_ends_with_the_first_good_response_not_with_the_connect() -> None:
    with stage(settled=0, timeout=1, manner=Refusal.REFUSED) as scene:
        scene.at(60, scene.puppet.come_back)
        scene.puppet.script += [says_nothing, says_nothing]
        scene.loop.run_until(
            lambda: len(scene.told(EventType.CONNECTION_OPENED)) > 0, 100
        )
        opened = scene.now
        scene.run_to(opened + 2.05)
        # Two probes in a row had no response: it was renewed.
        assert scene.puppet.ended == [(at(opened + 2), 1)]
        assert scene.puppet.dials[-1] == at(opened + 2)
        assert scene.mux.health == "unreachable"
        assert not scene.told(EventType.UPSTREAM_BACK)
        scene.run_to(100)
        assert scene.told(EventType.UPSTREAM_BACK) == [at(opened + 2.1)]


@contract(
    "Attempts go on as long as an outage lasts, whether anything is asked or not. A "
    "connection that is opened in an outage is probed at once",
    "Where nothing can be asked, a connection that stays open for 2 s ends the outage.",
)
@pytest.mark.parametrize("protocol", ["modbus", "echo"])
@pytest.mark.parametrize("lasts", [0.5, 20, 300])
@pytest.mark.parametrize("idle_timeout", [0, 1])
def test_an_outage_of_any_shape_ends_though_nobody_asks(
    protocol: str, lasts: float, idle_timeout: float
) -> None:
    with stage(
        settled=0, protocol=protocol, idle_timeout=idle_timeout, reconnect_backoff=1
    ) as scene:

        def off() -> None:
            scene.puppet.go_away()
            for line in scene.puppet.lines:
                line.link.reset()

        scene.at(5, off)
        if idle_timeout:
            scene.at(10, scene.hand().ask, asks(1) if protocol == "modbus" else b"")
        scene.at(30, scene.puppet.come_back)
        scene.at(30 + lasts, off)
        back = 60 + lasts
        scene.at(back, scene.puppet.come_back)
        scene.run_to(back - 0.1)
        assert not scene.mux.snapshot().connections
        scene.run_to(back + 2 + max(1, (back - 5) / 5))
        assert scene.mux.health in ("healthy", "idle" if idle_timeout else "")
        lost, again = EventType.UPSTREAM_LOST, EventType.UPSTREAM_BACK
        assert len(scene.told(lost)) == len(scene.told(again)) > 0


@contract(
    "and again after each probe without a response, unless a request waits. A probe "
    "in an outage times out after a fifth of the time that the device has been away, "
    "but after 2 s at the earliest.",
)
def test_a_silent_device_is_probed_again_and_again_in_an_outage() -> None:
    with stage(settled=0, timeout=60, manner=Refusal.REFUSED) as scene:
        client = scene.hand()
        scene.at(0.5, scene.puppet.come_back)
        scene.puppet.script += [says_nothing] * 2
        scene.run_to(1.5)
        ((asked, _, probe),) = scene.puppet.asked
        scene.run_to(asked + 2.5)
        assert scene.puppet.asked[1:] == [(at(asked + 2), 1, probe)]
        scene.at(asked + 3, client.ask, asks(1))
        scene.run_to(20)
        assert [asked.body for asked in scene.puppet.asked[2:]] == [asks(1)]
        assert len(scene.told(EventType.UPSTREAM_BACK)) == 1


@contract(
    "With *connect on demand*, attempts are made only while a request waits; health is "
    "*idle* once the backoff has passed and none does.",
)
def test_an_outage_on_demand_ends_as_idle() -> None:
    with stage(
        settled=0,
        connect_on_demand=True,
        manner=Refusal.REFUSED,
        reconnect_backoff=1,
        timeout=3,
    ) as scene:
        client = scene.hand()
        scene.at(1, client.ask, asks(1))
        scene.at(100, client.ask, asks(2))
        scene.at(150, scene.puppet.come_back)
        scene.at(200, client.ask, asks(3))
        scene.run_to(50)
        attempts = len(scene.puppet.dials)
        assert 3 <= attempts <= 5
        assert max(scene.puppet.dials) < 4
        assert [health for _, health in scene.healths] == ["unreachable", "idle"]
        scene.run_to(300)
        assert client.heard[-1] == (at(200.1), 3, answer(scene, asks(3)))
        assert len(scene.told(EventType.UPSTREAM_LOST)) == 1
        assert scene.told(EventType.UPSTREAM_BACK) == [at(200.1)]


@contract("behind all requests that wait")
def test_a_probe_goes_behind_all_requests_that_wait() -> None:
    with stage(health_check_interval=3, request_delay=5, timeout=60) as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1))
        scene.at(4, client.ask, asks(2), asks(3))
        scene.run_to(3.5)
        assert scene.mux.snapshot().queue_depth == 1
        scene.run_to(16)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), asks(2), asks(3), asks(1)]


@contract(
    "If it is resumed while exchanges finish, nothing is sent beside them that would "
    "not be sent otherwise.",
)
@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_resumed_while_it_drains_it_sends_nothing_beside(max_in_flight: int) -> None:
    with stage(max_in_flight=max_in_flight) as scene:
        clients = [scene.hand() for _ in range(3)]
        scene.puppet.script += [answers(0.9)]
        scene.at(0, clients[0].ask, asks(0))
        scene.run_to(0.5)
        pausing = scene.loop.create_task(scene.mux.pause())
        scene.at(0.6, scene.mux.resume)
        for number in (1, 2):
            scene.at(0.7, clients[number].ask, asks(number))
        scene.run_to(3)
        assert pausing.done()
        assert scene.puppet.ended == []
        assert [asked.at for asked in scene.puppet.asked] == (
            [at(0), at(0.9), at(1)] if max_in_flight == 1 else [at(0), at(0.7), at(0.8)]
        )


@contract(
    "Where the device's name has several addresses, the next one is tried beside one "
    "that has not answered after 0.25 s (RFC 8305), and only one connection remains.",
)
@pytest.mark.parametrize("manner", [Refusal.IGNORED, Refusal.REFUSED])
def test_the_next_address_is_tried_beside_one_that_does_not_answer(
    manner: Refusal,
) -> None:
    with stage(settled=0) as scene:
        dead = "fe80::1"
        scene.network.names["device"].insert(0, dead)
        scene.network.hosts[dead, PORT] = lambda _: manner
        scene.run_to(3)
        assert scene.puppet.dials == [at(0.25 if manner is Refusal.IGNORED else 0)]
        assert scene.mux.snapshot().connections == 1


@contract(
    "A device that does not read what it is sent is disconnected once 64 KiB wait for "
    "it, unless these are of one request.",
)
def test_a_device_that_does_not_read_is_disconnected() -> None:
    with stage(timeout=1) as scene:
        client = scene.hand()
        (line,) = scene.puppet.lines
        line.link.dialled.narrow(1000)
        line.link.accepted.pause_reading()
        for second in range(300):
            sets_many = bytes((1, 16, second >> 8, second & 255, 0, 123, 246))
            scene.at(second, client.ask, sets_many + bytes(246))
            # What nobody asked for shows that the connection is there.
            scene.at(second + 0.5, line.say, scene.pack(9, answer(scene, asks(9))))
        scene.run_to(300)
        assert scene.puppet.dials == [pytest.approx((64 << 10) / 260 + 4, abs=1)]


# ---- the pool -------------------------------------------------------------------


@contract(
    "another connection is opened as load asks for it, and exchanges on different "
    "connections run side by side.",
)
def test_another_connection_is_opened_as_load_asks_for_it_and_runs_beside() -> None:
    with stage(max_connections=3) as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, asks(1))
        scene.at(1, first.ask, asks(2))
        scene.at(1.02, second.ask, asks(3))
        scene.run_to(2)
        assert scene.puppet.dials == [at(1.02)]
        assert [heard.at for heard in second.heard] == [at(1.12)]
        assert scene.puppet.asked[1:] == [(at(1), 1, asks(2)), (at(1.02), 2, asks(3))]


@contract("A client stays with its connection while it has a request in flight.")
def test_a_client_stays_with_its_connection_while_it_has_one_in_flight() -> None:
    with stage(max_connections=2, max_in_flight=2) as scene:
        clients = [scene.hand() for _ in range(3)]
        for number, client in enumerate(clients):
            scene.at(0, client.ask, asks(number))
        scene.run_to(1)
        assert {asked.line for asked in scene.puppet.asked} == {1, 2}
        scene.puppet.script.append(answers(0.5))
        for moment in (1, 1.1):  # at the second, the other one has less to do
            scene.at(moment, clients[0].ask, asks(9 + round(moment * 10)))
        scene.run_to(2)
        one, other = scene.puppet.asked[3:]
        assert (one.line, one.at, other.at) == (other.line, at(1), at(1.1))


@contract("its first exchange is a retry-safe read")
def test_an_extra_connection_s_first_exchange_is_a_retry_safe_read() -> None:
    with stage(max_connections=2) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(answers(1))
        scene.at(0, first.ask, asks(1))
        scene.at(0.1, second.ask, sets(2))
        scene.at(0.3, third.ask, asks(3))
        scene.run_to(2)
        # The write waits until the second connection has proved itself.
        assert scene.puppet.asked == [
            (at(0), 1, asks(1)),
            (at(0.3), 2, asks(3)),
            (at(0.4), 2, sets(2)),
        ]


@contract(
    "the response must have begun by half of the time that is left until the deadline.",
    "the pool shrinks to what is left, and the read runs again within its deadline.",
)
def test_a_read_that_an_extra_connection_fails_runs_again_within_its_deadline() -> None:
    with stage(max_connections=2, timeout=4) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(0.5), says_nothing, answers()]
        scene.at(0, first.ask, asks(1))
        scene.at(0.2, second.ask, asks(2))
        scene.run_to(5)
        # Half of its time is left for doing it right.
        assert scene.puppet.asked[1:] == [(at(0.2), 2, asks(2)), (at(2.2), 1, asks(2))]
        assert second.heard == [(at(2.3), 1, answer(scene, asks(2)))]
        # And the pool has shrunk.
        scene.at(6, first.ask, asks(3))
        scene.at(6, second.ask, asks(4))
        scene.run_to(7)
        assert [asked.at for asked in scene.puppet.asked[3:]] == [at(6), at(6.1)]


@contract("the read runs again within its deadline.")
def test_a_read_that_runs_again_is_not_overtaken_by_what_its_client_asked_since() -> (
    None
):
    with stage(max_connections=2, timeout=4) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(0.5), says_nothing, answers()]
        scene.at(0, first.ask, asks(1))
        scene.at(0.2, second.ask, asks(2), sets(3))
        scene.run_to(5)
        assert scene.puppet.asked[1:] == [
            (at(0.2), 2, asks(2)),
            (at(2.2), 1, asks(2)),
            (at(2.3), 1, sets(3)),
        ]


@contract("It does not run again if its response had begun.")
def test_a_read_that_an_extra_connection_began_to_answer_is_not_asked_again() -> None:
    with stage(max_connections=2, timeout=4) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(0.5), begins]
        scene.at(0, first.ask, asks(1))
        scene.at(0.2, second.ask, asks(2))
        scene.run_to(5)
        assert scene.puppet.asked[1:] == [(at(0.2), 2, asks(2))]
        assert second.heard == [(at(4.2), 1, excuse(asks(2), NO_ANSWER))]
        assert scene.puppet.ended == [(at(4.2), 2)]


@contract("an older connection drops within 2 s of the opening, the pool shrinks")
@pytest.mark.parametrize(("after", "lines"), [(1.9, {2}), (2.1, {2, 3})])
def test_an_older_connection_that_drops_within_two_seconds_shrinks_the_pool(
    after: float, lines: set[int]
) -> None:
    with stage(max_connections=2) as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, asks(1))
        scene.at(0.05, second.ask, asks(2))
        scene.at(0.05 + after, scene.puppet.hang_up, 1)
        scene.at(10, first.ask, asks(3))
        scene.at(10, second.ask, asks(4))
        scene.run_to(11)
        assert {asked.line for asked in scene.puppet.asked[2:]} == lines


@contract(
    "So it does where the device closes an older connection while the extra one is "
    "being opened. That says nothing of the unit.",
)
def test_an_older_connection_that_is_closed_for_an_extra_one_shrinks_the_pool() -> None:
    with stage(max_connections=2) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [says_nothing]
        scene.at(0, first.ask, asks(1))
        scene.at(0.05, second.ask, asks(2))
        scene.at(0.05, scene.puppet.hang_up, 1)
        scene.run_to(1)
        assert sorted(asked.line for asked in scene.puppet.asked) == [1, 2, 2]
        assert not scene.mux.snapshot().silent_units
        assert [len(hand.heard) for hand in (first, second)] == [1, 1]
        assert first.heard[0][2] == answer(scene, asks(1))
        scene.at(10, first.ask, asks(3))
        scene.at(10, second.ask, asks(4))
        scene.run_to(11)
        assert {asked.line for asked in scene.puppet.asked[3:]} == {2}


@contract("`max_in_flight` above 1 pipelines requests on one connection")
def test_max_in_flight_pipelines_on_one_connection() -> None:
    with stage(max_in_flight=2) as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1), asks(2), asks(3))
        scene.run_to(1)
        told = [(asked.at, asked.line) for asked in scene.puppet.asked]
        assert told == [(at(0), 1), (at(0), 1), (at(0.1), 1)]


# ---- health ---------------------------------------------------------------------


@contract(
    "*degraded* when at least two of the last twenty exchanges got no response; "
    "*unreachable* from a failed attempt to the next response",
)
def test_health_follows_the_traffic() -> None:
    with stage(settled=0, timeout=1, reconnect_backoff=10) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), says_nothing, answers(), says_nothing]
        for moment in (1, 2, 4, 5, 7):
            scene.at(moment, client.ask, asks(moment))
        scene.at(8, scene.puppet.go_away)
        scene.at(9, scene.puppet.reset, 1)
        scene.run_to(10)
        assert scene.healths == [
            (at(0), "healthy"),
            (at(6), "degraded"),  # two of the last twenty
            (at(9), "unreachable"),
        ]
        scene.run(scene.mux.pause())
        assert scene.healths[-1] == (at(10), "paused")


@contract("*idle* while the connection is closed on purpose")
def test_a_connection_closed_on_purpose_is_idle() -> None:
    with stage(settled=0, idle_timeout=3) as scene:
        client = scene.hand()
        scene.at(1, client.ask, asks(1))
        scene.at(10, client.ask, asks(2))
        scene.run_to(10.5)
        assert scene.healths == [
            (at(0), "healthy"),
            (at(4.1), "idle"),
            (at(10), "healthy"),
        ]


@contract(
    "An open upstream connection that was silent for `health_check_interval` is "
    "probed. Modbus repeats the last successful read; until there is one, it reads "
    "holding register 0 of the configured unit",
)
def test_an_upstream_that_was_silent_for_so_long_is_probed() -> None:
    """With the last successful read; until there is one, with register 0."""
    with stage(settled=0, health_check_interval=10, unit_id=7) as scene:
        client = scene.hand()
        scene.at(15, client.ask, asks(5))
        scene.run_to(40)
        first = bytes((7, 3, 0, 0, 0, 1))
        assert scene.puppet.asked == [
            (at(10), 1, first),
            (at(15), 1, asks(5)),
            (at(25.1), 1, asks(5)),
            (at(35.2), 1, asks(5)),
        ]


@contract("What the owner's rules forbid by now is not repeated.")
def test_a_probe_asks_nothing_that_the_rules_forbid_by_now() -> None:
    with stage(health_check_interval=10, unit_id=7) as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1, unit=9))
        scene.run_to(1)
        settings = scene.mux.settings
        scene.run(scene.mux.apply(replace(settings, allowed_units=(7,))))
        scene.run_to(12)
        assert [asked.body for asked in scene.puppet.asked] == [
            asks(1, unit=9),
            bytes((7, 3, 0, 0, 0, 1)),
        ]
        scene.run(scene.mux.apply(replace(settings, allowed_units=(8,))))
        scene.run_to(60)
        assert len(scene.puppet.asked) == 2


@contract("A broadcast clears those of every unit.")
def test_a_broadcast_clears_what_is_cached_of_every_unit() -> None:
    with stage(framing="rtu", cache_ttl=60) as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1, unit=5))
        scene.at(1, client.ask, asks(1, unit=5))  # cached
        scene.at(2, client.ask, sets(9, unit=0))
        scene.at(3, client.ask, asks(1, unit=5))
        scene.run_to(5)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(2), at(3)]


@contract("So does a change of settings.")
def test_a_change_of_settings_clears_what_is_cached() -> None:
    with stage(cache_ttl=60) as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1))
        scene.at(1, client.ask, asks(1))  # cached
        scene.run_to(2)
        scene.run(scene.mux.apply(replace(scene.mux.settings, max_read_registers=50)))
        scene.at(3, client.ask, asks(1))
        scene.run_to(5)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(3)]


@contract("do not count against `idle_timeout`")
def test_probes_do_not_count_against_idle_timeout() -> None:
    with stage(settled=0, health_check_interval=1, idle_timeout=4.5) as scene:
        client = scene.hand()
        scene.at(0.5, client.ask, asks(1))
        scene.run_to(20)
        assert len(scene.puppet.asked) > 3
        ((ended, _),) = scene.puppet.ended
        assert ended == at(5.1)


@contract("never open a connection.")
def test_probes_never_open_a_connection() -> None:
    with stage(health_check_interval=1, connect_on_demand=True) as scene:
        scene.run_to(HOUR)
        assert not scene.puppet.dials


@contract("never open a connection.")
def test_nor_does_a_probe_that_waits_when_its_connection_ends() -> None:
    with stage(
        health_check_interval=1, request_delay=60, connect_on_demand=True
    ) as scene:
        client = scene.hand()
        scene.at(0, client.ask, asks(1))
        scene.at(2, scene.puppet.hang_up, 1)
        scene.run_to(1.5)
        assert scene.mux.snapshot().queue_depth == 1
        scene.run_to(HOUR)
        assert scene.puppet.dials == [at(0)]


# ---- what the owner may ask -----------------------------------------------------


@contract("Reconnect lets exchanges in flight finish", "pending requests survive.")
def test_reconnect_lets_exchanges_in_flight_finish_and_pending_requests_survive() -> (
    None
):
    with stage() as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(answers(1))
        scene.at(0, first.ask, asks(1))
        scene.at(0.1, second.ask, sets(2))
        scene.run_to(0.5)
        scene.run(scene.mux.reconnect())
        assert scene.now == at(1)
        scene.run_to(2)
        assert scene.puppet.ended == [(at(1), 1)]
        assert scene.puppet.dials == [at(1)]
        assert scene.puppet.asked[1:] == [(at(1), 2, sets(2))]
        assert [heard.at for heard in first.heard] == [at(1)]


@contract("lets exchanges in flight finish, at most until their deadlines")
def test_reconnect_waits_for_them_up_to_the_timeout() -> None:
    with stage(timeout=3) as scene:
        client = scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, client.ask, asks(1))
        scene.run_to(1)
        scene.run(scene.mux.reconnect())
        assert scene.now == at(3)


@contract("One request is in flight on a connection")
def test_resumed_while_it_drains_it_sends_nothing_beside_what_is_in_flight() -> None:
    with stage(framing="rtu") as scene:
        one, other = scene.hand(), scene.hand()
        one.ask(asks(1))
        other.ask(asks(2))
        scene.at(0.02, lambda: scene.loop.create_task(scene.mux.pause()))
        scene.at(0.04, scene.mux.resume)
        scene.at(0.05, other.ask, asks(3))
        scene.run_to(1)
        moments = [asked.at for asked in scene.puppet.asked]
        assert moments == [at(0), at(SERVICE)]


@contract("leaves the device alone until it is resumed.")
def test_paused_it_leaves_the_device_alone_until_it_is_resumed() -> None:
    with stage(health_check_interval=1) as scene:
        client = scene.hand()
        scene.run_to(0.5)
        scene.run(scene.mux.pause())
        scene.run_to(1)
        assert scene.puppet.ended == [(at(0.5), 1)]
        scene.at(10, client.ask, asks(1))
        scene.at(HOUR, scene.mux.resume)
        scene.run_to(HOUR + 0.5)
        assert scene.puppet.dials == [at(HOUR)]


@contract("Where the timeout is made shorter, that holds for pending requests too.")
def test_a_shorter_timeout_holds_for_what_waits() -> None:
    with stage(timeout=60, framing="rtu") as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1))
        scene.at(1, second.ask, asks(2))
        scene.run_to(2)
        scene.run(scene.mux.apply(replace(scene.mux.settings, timeout=3)))
        scene.run_to(100)
        assert second.heard == [(at(5), 1, excuse(asks(2), BUSY))]
        assert first.heard == [(at(60), 1, excuse(asks(1), NO_ANSWER))]


# ---- shared and remembered ------------------------------------------------------


@contract("A read joins an identical one that is pending or in flight")
def test_a_read_joins_an_identical_one_that_is_pending_or_in_flight() -> None:
    with stage() as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, asks(1), asks(2))
        scene.at(0.05, second.ask, asks(1))
        scene.at(0.06, third.ask, asks(2))
        scene.run_to(1)
        assert [asked.body for asked in scene.puppet.asked] == [asks(1), asks(2)]
        assert second.heard == [(at(0.1), 1, answer(scene, asks(1)))]
        assert third.heard == [(at(0.2), 1, answer(scene, asks(2)))]


@contract(
    "unless a write to that unit is pending or in flight, was placed since the "
    "other was sent",
)
def test_a_read_joins_none_that_was_sent_before_a_write_to_its_unit_was_queued() -> (
    None
):
    with stage(writes_first=False) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, asks(1))
        scene.at(0.02, second.ask, sets(9))
        scene.at(0.04, third.ask, asks(1))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), sets(9), asks(1)]
        assert third.heard[0].at == at(0.3)


@contract("or ended since then.")
def test_a_read_joins_none_that_was_sent_before_a_write_to_its_unit_ended() -> None:
    """Whether the write was sent before it or after: its value may be the older."""
    for writes_at, reads_at in ((0.05, 0), (0, 0.05)):
        with stage(max_in_flight=4) as scene:
            reader, writer, third = (scene.hand() for _ in range(3))
            slow, quick = answers(0.5), answers(0.1)
            scene.puppet.script += [slow, quick] if writes_at else [quick, slow]
            scene.at(reads_at, reader.ask, asks(1))
            scene.at(writes_at, writer.ask, sets(9))
            scene.at(0.2, third.ask, asks(1))
            scene.run_to(1)
            assert scene.puppet.asked[2:] == [(at(0.2), 1, asks(1))]
            assert [heard.at for heard in third.heard] == [at(0.3)]


@contract("unless a write to that unit is pending or in flight")
def test_a_read_joins_none_while_a_write_to_its_unit_is_queued() -> None:
    with stage() as scene:
        first, second, writer, third = (scene.hand() for _ in range(4))
        scene.at(0, first.ask, asks(1))
        scene.at(0.02, second.ask, asks(2))
        scene.at(0.04, writer.ask, sets(9))
        scene.at(0.06, third.ask, asks(2))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), sets(9), asks(2), asks(2)]


@contract("A client with a write unanswered joins no other read, whatever its unit.")
def test_a_client_with_a_write_unanswered_joins_nobody() -> None:
    """Not even where it reads another unit: it may know that they are one device."""
    with stage(max_in_flight=4) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(0.4), answers(0.5), answers()]
        scene.at(0, first.ask, asks(1))
        scene.at(0.1, second.ask, sets(9, unit=2))
        scene.at(0.2, second.ask, asks(1))
        scene.run_to(1)
        assert scene.puppet.asked[2:] == [(at(0.2), 1, asks(1))]


@contract("it never waits behind requests that it did not need.")
def test_a_read_does_not_wait_behind_the_others_of_whom_it_could_join() -> None:
    with stage(queue_size=1000, timeout=HOUR) as scene:
        greedy, modest = scene.hand(), scene.hand()
        scene.at(0, greedy.ask, *(asks(n) for n in range(500)))
        scene.at(1.05, modest.ask, asks(499))
        scene.run_to(2)
        assert modest.heard == [(at(1.2), 1, answer(scene, asks(499)))]


@contract("a response that a write overtook is not cached.")
def test_a_response_that_a_write_overtook_is_not_remembered() -> None:
    with stage(max_in_flight=4, cache_ttl=60) as scene:
        reader, writer = scene.hand(), scene.hand()
        scene.puppet.script += [answers(0.5), answers(0.1)]
        scene.at(0, reader.ask, asks(1))
        scene.at(0.1, writer.ask, sets(9))
        scene.at(1, reader.ask, asks(1))
        scene.run_to(2)
        assert len(scene.puppet.asked) == 3


@contract(
    "A read that joined one which is overdue, gets no response, or whose client leaves",
    "is asked for itself.",
)
def test_a_read_that_follows_one_without_a_response_asks_itself() -> None:
    with stage(timeout=4) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1))
        scene.at(0.5, second.ask, asks(1))
        scene.run_to(5)
        assert first.heard == [(at(4), 1, excuse(asks(1), NO_ANSWER))]
        assert second.heard == [(at(1.13), 1, answer(scene, asks(1)))]


@contract(
    "A read that joined one which is overdue, gets no response, or whose client leaves",
    "is asked for itself.",
)
def test_a_read_that_follows_one_whose_client_left_is_asked_for_itself() -> None:
    with stage() as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, asks(1))
        scene.at(0.02, second.ask, asks(2))
        scene.at(0.04, third.ask, asks(2))
        scene.at(0.06, second.leave)
        scene.run_to(1)
        assert third.heard == [(at(0.2), 1, answer(scene, asks(2)))]
        assert len(scene.puppet.asked) == 2


@contract(
    "With `cache_ttl`, a response answers identical reads, and those that it covers, for "
    "that time after it was asked for."
)
def test_a_response_is_remembered_for_cache_ttl() -> None:
    with stage(cache_ttl=2) as scene:
        client = scene.hand()
        for moment in (0, 1.99, 2.01):
            scene.at(moment, client.ask, asks(1))
        scene.run_to(5)
        told = [heard.at for heard in client.heard]
        assert told == [at(0.1), at(1.99), at(2.11)]
        assert len(scene.puppet.asked) == 2


@contract("Any write through the multiplexer to the unit clears its cached responses")
def test_any_write_to_the_unit_empties_what_is_remembered() -> None:
    with stage(cache_ttl=60) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, asks(1), asks(1, unit=2))
        scene.at(1, other.ask, sets(9))
        scene.at(2, client.ask, asks(1), asks(1, unit=2))
        scene.run_to(5)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), asks(1, unit=2), sets(9), asks(1)]


@contract(
    "What writes to unit 0 is a broadcast, which no device answers: its success "
    "response is made up after 100 ms.",
)
def test_a_broadcast_on_a_line_is_answered_after_a_tenth_of_a_second() -> None:
    with stage(framing="rtu") as scene:
        client = scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(1, client.ask, sets(1, unit=0), asks(2))
        scene.run_to(3)
        assert client.heard[0] == (at(1.1), 1, sets(1, unit=0))
        assert scene.puppet.asked[1].at == at(1.1)


# ---- Solarman V5 ----------------------------------------------------------------

STICK: dict[str, Any] = {"framing": "solarman", "logger_serial": SERIAL, "timeout": 3}


def says(*parts: Callable[[int], bytes], after: float = SERVICE) -> Reaction:
    """Say what these make of the sequence byte."""

    def react(line: Line, tid: int, body: bytes) -> None:
        line.later(after, line.say, b"".join(part(tid) for part in parts))

    return react


@contract(
    "A response counts only if sequence byte, the stick's serial number, unit and "
    "function fit, the byte count of a read, and the CRC: some sticks send every "
    "response on every connection.",
    "A frame whose checksum is wrong counts if it has the stick's serial number and a "
    "right CRC. A CRC that is there twice is taken once.",
)
def test_a_stick_s_responses_to_others_are_passed_over() -> None:
    with stage(**STICK) as scene:
        client = scene.hand()
        body = asks(1)
        own = answer(scene, body)
        others = (b"\2" + own[1:], own[:1] + b"\4" + own[2:], b"\1\3\4\1\2\3\4")
        scene.puppet.script.append(
            says(
                lambda tid: telling(tid + 40, with_crc(own)),
                *(lambda tid, o=other: telling(tid, with_crc(o)) for other in others),
                lambda tid: telling(tid, with_crc(own), SERIAL + 1),
                lambda tid: telling(tid, with_crc(own) + b"\0\0", wrong=7),
            )
        )
        scene.at(0, client.ask, body)
        scene.run_to(1)
        assert client.heard == [(at(SERVICE), 1, own)]
        assert scene.mux.snapshot().unsolicited_responses == 5


@contract(
    "Where the checksum is right and the CRC is wrong, the client gets exception 0x0B "
    "immediately: nothing else will come.",
    "A response without an RTU frame says that the inverter did not answer: exception "
    "0x0B.",
)
def test_what_a_stick_could_not_get_is_told_at_once() -> None:
    with stage(**STICK) as scene:
        client = scene.hand()
        scene.puppet.script += [
            says(lambda tid: telling(tid, with_crc(b"\1\3\2\0\0")[:-1] + b"\0")),
            says(lambda tid: telling(tid, b"\5\0")),
        ]
        scene.at(0, client.ask, asks(1), asks(2))
        scene.run_to(1)
        assert client.heard == [
            (at(SERVICE), 1, excuse(asks(1), NO_ANSWER)),
            (at(2 * SERVICE), 2, excuse(asks(2), NO_ANSWER)),
        ]


@contract(
    "Sequence bytes count on across connections; those of the last 32 requests that "
    "were given up are not used, nor those that another client of the stick comes to "
    "next.",
)
def test_a_late_response_of_a_stick_delays_nobody_and_reaches_nobody() -> None:
    with stage(**STICK) as scene:
        client, other = scene.hand(), scene.hand()
        scene.puppet.script += [answers(3.05), answers(0.5)]
        scene.at(0, client.ask, asks(1))
        scene.at(2, other.ask, asks(2))
        scene.run_to(4)
        assert client.heard == [(at(3), 1, excuse(asks(1), NO_ANSWER))]
        assert other.heard == [(at(3.5), 1, answer(scene, asks(2)))]
        assert scene.puppet.asked[1].at == at(3)
        assert scene.mux.snapshot().late_responses == 1


@contract(
    "A stick that is asked with a wrong serial number is silent, or refuses. In the "
    "second case, the owner is notified after three requests in a row.",
)
def test_the_owner_is_told_of_a_stick_that_refuses_the_serial_number() -> None:
    with stage(**STICK | {"logger_serial": 7}) as scene:
        client = scene.hand()
        scene.puppet.script += [says(lambda tid: telling(tid, b"\6\0"))] * 3
        for number in range(3):
            scene.at(10 * number, client.ask, asks(number))
        scene.run_to(30)
        assert scene.told(EventType.LENIENT_WOULD_HELP) == [at(23)]
        assert [heard.at for heard in client.heard] == [at(3), at(13), at(23)]


@contract(
    "Without a serial number, that of the refusal is taken, and the request, which did "
    "not reach the inverter, is sent again.",
)
def test_a_stick_that_tells_its_serial_number_is_asked_with_it() -> None:
    with stage(**STICK | {"logger_serial": 0}) as scene:
        client = scene.hand()
        scene.puppet.script.append(says(lambda tid: telling(tid, b"\6\0")))
        scene.at(0, client.ask, sets(1), sets(2))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [sets(1), sets(1), sets(2)]
        assert [heard.at for heard in client.heard] == [at(0.2), at(0.3)]


@contract(
    "Handshakes, data, information, heartbeats and reports are acknowledged with the "
    "time of day.",
)
def test_a_heartbeat_is_acknowledged_at_once() -> None:
    with stage(**STICK) as scene:
        sent = scene.mux.snapshot().bytes_to_upstream
        scene.at(1, scene.puppet.lines[0].say, heartbeat())
        scene.run_to(1.001)
        assert scene.mux.snapshot().bytes_to_upstream == sent + 23
        assert scene.mux.snapshot().unsolicited_responses == 0


@contract(
    "A port for V5 clients repeats their sequence byte, and their serial number, "
    "whatever it is; with `check_logger_serial`, a request with another one than the "
    "stick's is ignored.",
    "Who sends the serial number 0 is told the stick's. A request whose CRC is wrong is "
    "answered as by a stick that got no answer.",
)
@pytest.mark.parametrize("checks", [False, True])
def test_v5_clients_hear_what_they_said(
    checks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = ListenerSettings(host="127.0.0.1", port=5021, framing=Framing.SOLARMAN)
    with stage(
        logger_serial=SERIAL, check_logger_serial=checks, more_listeners=(port,)
    ) as scene:
        client = scene.hand(1)
        heard = bytearray()
        monkeypatch.setattr(client, "data_received", heard.extend)
        rtu = with_crc(asks(1))
        for serial in (SERIAL, 9, 0):
            client.send(asking(serial & 0xFF, rtu, serial))
        client.send(asking(0x55, rtu[:-1] + b"\0"))
        scene.run_to(1)
        replies = []
        while heard:
            end = 13 + heard[1]
            serial = int.from_bytes(heard[7:11], "little")
            replies.append((heard[5], serial, bytes(heard[25 : end - 2])))
            del heard[:end]
        said = with_crc(answer(scene, asks(1)))
        own = [(SERIAL & 0xFF, SERIAL, said)]
        if not checks:
            own += [(9, 9, said), (0, SERIAL, said)]
        assert replies == [(0x55, SERIAL, b"\5\0"), *own]


# ---- one identifier -------------------------------------------------------------


def ask_as(tid: int, client: Hand, *bodies: bytes) -> None:
    """Ask several things with the same identifier."""
    client.send(b"".join(client.stage.pack(tid, body) for body in bodies))


@contract(
    "a reply goes to the client only after those to its earlier requests of the same "
    "identifier",
)
@pytest.mark.parametrize("unit_map", [(), ((5, 6),)])
def test_replies_to_requests_of_one_identifier_keep_their_order(unit_map: Any) -> None:
    with stage(max_in_flight=8, unit_map=unit_map) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(0.5), answers(0.1), answers(0.3)]
        scene.at(0, ask_as, 7, client, asks(1), asks(2))
        scene.at(0, ask_as, 8, client, asks(3))
        scene.at(1, ask_as, 7, client, asks(4))
        scene.run_to(2)
        assert client.heard == [
            (at(0.3), 8, answer(scene, asks(3))),
            (at(0.5), 7, answer(scene, asks(1))),
            (at(0.5), 7, answer(scene, asks(2))),
            (at(1.1), 7, answer(scene, asks(4))),
        ]


@contract("and such a request shares no response.")
def test_a_request_of_an_identifier_in_use_shares_no_response() -> None:
    with stage(cache_ttl=60) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, other.ask, asks(2))
        scene.at(1, ask_as, 7, client, asks(1), asks(2))
        scene.at(1.01, other.ask, asks(3))
        scene.at(1.02, ask_as, 7, client, asks(3))
        scene.run_to(2)
        bodies = [heard.body for heard in client.heard]
        assert bodies == [answer(scene, asks(n)) for n in (1, 2, 3)]
        assert Counter(asked.body for asked in scene.puppet.asked) == {
            asks(1): 1,
            asks(2): 2,
            asks(3): 2,
        }


@pytest.mark.parametrize("rules", [DENIED, ACKNOWLEDGED], ids=["deny", "acknowledge"])
@contract(
    "a reply goes to the client only after those to its earlier requests of the same "
    "identifier",
    "| replies that wait for an earlier one of the same identifier | 64 a client |",
)
def test_what_needs_no_device_waits_for_the_same_identifier(rules: Any) -> None:
    with stage(write_rules=rules) as scene:
        client = scene.hand()
        scene.puppet.script.append(answers(2))
        scene.at(0, ask_as, 7, client, asks(1))
        for number in range(100):
            scene.at(0.1 + number / 100, ask_as, 7, client, sets(number))
        scene.run_to(1.9)
        [seen] = scene.mux.snapshot().clients
        assert seen.requests == 1 + 64
        scene.run_to(4)
        said = sets if rules is ACKNOWLEDGED else lambda n: excuse(sets(n), 1)
        bodies = [heard.body for heard in client.heard]
        assert bodies == [answer(scene, asks(1)), *map(said, range(100))]


@contract(
    "A request that repeats an unanswered one of its client, identifier and bytes, is "
    "not sent: it ends as the first does, so a write that its client repeats is "
    "carried out once.",
    "Each of the two gets its reply.",
)
def test_a_repetition_of_an_unanswered_request_is_not_sent() -> None:
    for body in (sets(1), asks(1)):
        with stage(share_reads=False) as scene:
            busy, client = scene.hand(), scene.hand()
            scene.puppet.script += [answers(0.3), answers(0.5)]
            scene.at(0, busy.ask, asks(9))
            scene.at(0.1, ask_as, 7, client, body)
            scene.at(0.2, ask_as, 7, client, body)  # while it is queued
            scene.at(0.6, ask_as, 7, client, body)  # and while it is in flight
            scene.at(1, ask_as, 7, client, body)  # this one repeats nothing
            scene.run_to(2)
            assert [(a.at, a.body) for a in scene.puppet.asked[1:]] == [
                (at(0.3), body),
                (at(1), body),
            ]
            assert client.heard == [
                *[(at(0.8), 7, answer(scene, body))] * 3,
                (at(1.1), 7, answer(scene, body)),
            ]


@contract("it ends as the first does")
def test_a_repetition_fails_as_the_first_does() -> None:
    for body in (sets(1), asks(1)):
        with stage(timeout=1) as scene:
            client = scene.hand()
            scene.puppet.script.append(says_nothing)
            scene.at(0, ask_as, 7, client, body)
            scene.at(0.5, ask_as, 7, client, body)
            scene.run_to(3)
            assert [asked.body for asked in scene.puppet.asked] == [body]
            assert client.heard == [(at(1), 7, excuse(body, NO_ANSWER))] * 2


@contract("it ends as the first does", "Each of the two gets its reply.")
def test_a_client_has_room_again_when_its_repetition_has_failed() -> None:
    """What it asked behind that waits in its connection, and is not forgotten."""
    with stage(timeout=1, queue_size=1) as scene:
        client = scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, ask_as, 7, client, asks(1))
        scene.at(0.1, ask_as, 7, client, asks(1))
        scene.at(0.5, ask_as, 8, client, asks(2))
        scene.run_to(3)
        assert client.heard == [
            *[(at(1), 7, excuse(asks(1), NO_ANSWER))] * 2,
            (at(1.1), 8, answer(scene, asks(2))),
        ]


@contract("it ends as the first does")
def test_a_repetition_ends_as_one_did_that_waits_for_its_turn() -> None:
    with stage(max_in_flight=4) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(0.5), answers(0.1)]
        scene.at(0, ask_as, 7, client, asks(1), sets(1))
        scene.at(0.2, ask_as, 7, client, sets(1))
        scene.run_to(2)
        assert [asked.body for asked in scene.puppet.asked] == [asks(1), sets(1)]
        assert client.heard == [
            (at(0.5), 7, answer(scene, asks(1))),
            *[(at(0.5), 7, answer(scene, sets(1)))] * 2,
        ]


@contract("A request that repeats an unanswered one of its client, identifier and")
def test_what_differs_in_identifier_bytes_or_client_is_no_repetition() -> None:
    with stage(timeout=HOUR) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, ask_as, 7, client, sets(1), sets(2))
        scene.at(0, ask_as, 8, client, sets(1))
        scene.at(0, ask_as, 7, other, sets(1))
        scene.run_to(1)
        assert Counter(asked.body for asked in scene.puppet.asked) == {
            sets(1): 3,
            sets(2): 1,
        }


@contract("Each of the two gets its reply.")
def test_the_repetition_of_a_refused_request_is_refused() -> None:
    """Even while the refusal of the first is delayed: it is no longer under way."""
    with stage(write_rules=DENIED, unit_map=((5, 6),)) as scene:
        client = scene.hand()
        for moment in (0, 0.02, 0.04):
            scene.at(moment, ask_as, 7, client, sets(1))
        scene.run_to(1)
        assert [(heard.at, heard.body) for heard in client.heard] == [
            (at(0), excuse(sets(1), 1)),
            *[(at(0.12), excuse(sets(1), 1))] * 2,
        ]


@contract("it ends as the first does")
def test_the_repetition_of_a_read_that_joined_another_is_answered_with_it() -> None:
    with stage() as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(answers(0.5))
        scene.at(0, first.ask, asks(1))
        scene.at(0.1, ask_as, 7, second, asks(1))
        scene.at(0.2, ask_as, 7, second, asks(1))
        scene.run_to(1)
        assert [asked.body for asked in scene.puppet.asked] == [asks(1)]
        assert second.heard == [(at(0.5), 7, answer(scene, asks(1)))] * 2


@contract("it ends as the first does")
def test_repetitions_leave_with_their_client() -> None:
    """The write is still carried out, and others are not held up by what has left."""
    with stage(queue_size=2) as scene:
        busy, client, third = (scene.hand() for _ in range(3))
        scene.at(0, busy.ask, asks(9))
        scene.at(0.01, ask_as, 7, client, sets(1), sets(1), sets(1))
        scene.at(0.05, client.leave)
        scene.run_to(0.06)
        assert scene.mux.snapshot().queue_depth == 1
        scene.at(0.07, third.ask, asks(2))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(9), sets(1), asks(2)]


# ---- a login --------------------------------------------------------------------

LOGIN = b"\1\x41secret"


@contract(
    "a Modbus client that used a function outside the specification, and was not "
    "refused it, stays with its connection.",
)
def test_a_client_that_logged_in_stays_with_its_connection() -> None:
    with stage(max_connections=2) as scene:
        client, other, third = (scene.hand() for _ in range(3))
        scene.at(0, other.ask, asks(1))
        scene.at(0, third.ask, asks(2))  # opens the second connection
        scene.at(1, client.ask, LOGIN)
        scene.run_to(1.5)
        line = scene.puppet.asked[-1].line
        for number, slower in ((2, 0), (3, 1)):
            # Both are busy, and once the one, once the other is free sooner.
            scene.puppet.script += [
                answers(0.9 - 0.4 * abs(slower - n)) for n in (0, 1)
            ]
            scene.at(number, other.ask, asks(10 + number))
            scene.at(number, third.ask, asks(20 + number))
            scene.at(number + 0.1, client.ask, asks(30 + number))
            scene.run_to(number + 0.99)
            assert scene.puppet.asked[-1][1:] == (line, asks(30 + number))
            scene.run_to(number + 1)


@contract(
    "When that is lost, for whatever reason, what it waits for fails and the client is "
    "closed",
)
def test_a_client_that_logged_in_is_closed_with_its_connection() -> None:
    with stage() as scene:
        client, other, refused = (scene.hand() for _ in range(3))
        scene.at(0, client.ask, LOGIN)
        scene.at(0, refused.ask, b"\1\x42")  # the device does not know this one
        scene.puppet.script += [answers(), answers(), says_nothing]
        scene.at(1, client.ask, asks(1), sets(2))
        scene.at(1.1, other.ask, asks(3))
        scene.at(1.2, scene.puppet.hang_up, 1)
        scene.run_to(3)
        assert client.closed == at(1.2)
        assert [(heard.at, heard.body) for heard in client.heard] == [
            (at(0.1), LOGIN),
            (at(1.2), excuse(asks(1), NO_ANSWER)),
            (at(1.2), excuse(sets(2), NO_ANSWER)),  # which was never sent
        ]
        assert [(a.line, a.body) for a in scene.puppet.asked[3:]] == [(2, asks(3))]
        assert other.heard == [(at(1.3), 1, answer(scene, asks(3)))]
        assert refused.heard[0].body == b"\1\xc2\1"
        assert (other.closed, refused.closed) == (None, None)


@contract("When that is lost, for whatever reason")
def test_a_login_is_answered_by_a_connection_about_to_close() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.puppet.script.append(answers(0.5))
        scene.at(0, client.ask, LOGIN)
        scene.run_to(0.1)
        scene.run(scene.mux.reconnect())
        scene.run_to(1)
        assert client.heard == [(at(0.5), 1, LOGIN)]
        assert client.closed == at(0.5)


@contract("It shares no responses, since the device may answer others differently.")
def test_a_client_that_logged_in_shares_no_responses() -> None:
    with stage(cache_ttl=60) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, LOGIN)
        scene.at(1, other.ask, asks(1))
        scene.at(1.05, client.ask, asks(1))  # joins it not
        scene.at(2, client.ask, asks(1))
        scene.puppet.script += [answers(), answers(), answers(), answers(0.5)]
        scene.at(3, client.ask, asks(2))
        scene.at(3.1, other.ask, asks(2))  # nor is it joined
        scene.run_to(4)
        assert len(scene.puppet.asked) == 6


# ---- reads that joined others ---------------------------------------------------


@contract(
    "So is one whose own client writes something while it waits: it goes ahead of that "
    "write, and never sees the newer value.",
)
def test_a_read_that_joined_another_is_not_overtaken_by_its_client_s_write() -> None:
    with stage() as scene:
        busy, first, second = (scene.hand() for _ in range(3))
        scene.at(0, busy.ask, asks(9))
        scene.at(0.02, first.ask, asks(1))
        scene.at(0.04, second.ask, asks(1))
        scene.at(0.06, second.ask, sets(1, unit=2))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(9), asks(1), asks(1), sets(1, unit=2)]
        assert [heard.tid for heard in second.heard] == [1, 2]


@contract("it goes ahead of that write")
def test_a_read_whose_leader_fails_was_not_overtaken_by_its_client_s_write() -> None:
    with stage(timeout=1, max_in_flight=4) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1))
        scene.at(0.4, second.ask, asks(1))
        scene.at(0.45, second.ask, sets(1))
        scene.run_to(3)
        assert scene.puppet.asked == [
            (at(0), 1, asks(1)),
            (at(0.45), 1, asks(1)),
            (at(0.45), 1, sets(1)),
        ]


@contract("it goes ahead of that write")
def test_no_write_that_finds_room_then_overtakes_a_read_about_to_be_told() -> None:
    """The room is that of the request which goes out before the answer is told."""
    with stage(queue_size=2) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, asks(1))
        scene.at(0.02, second.ask, asks(1))
        scene.at(0.04, third.ask, asks(2))
        scene.at(0.06, second.ask, sets(1))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), asks(2), asks(1), sets(1)]
        assert [heard.tid for heard in second.heard] == [1, 2]
        assert not scene.puppet.ended


@contract("A read that joined another has a deadline of its own.")
def test_a_read_that_joined_another_has_a_deadline_of_its_own() -> None:
    with stage(timeout=8, framing="rtu") as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(answers(5))
        scene.at(0, first.ask, asks(1))
        scene.at(0.5, second.ask, asks(1))
        scene.run_to(1)
        scene.run(scene.mux.apply(replace(scene.settings, timeout=1)))
        scene.at(1.5, third.ask, asks(1))
        scene.run_to(6)
        late = excuse(asks(1), NO_ANSWER)
        assert second.heard == [(at(2), 1, late)]
        assert third.heard == [(at(2.5), 1, late)]
        assert first.heard == [(at(5), 1, answer(scene, asks(1)))]
        assert len(scene.puppet.asked) == 1


@contract("A read that joined another has a deadline of its own.")
def test_a_read_that_joined_one_still_queued_is_told_so_at_its_deadline() -> None:
    with stage(timeout=8, framing="rtu") as scene:
        busy, first, second = (scene.hand() for _ in range(3))
        scene.puppet.script.append(answers(5))
        scene.at(0, busy.ask, asks(9))
        scene.at(0.1, first.ask, asks(1))
        scene.at(0.2, second.ask, asks(1))
        scene.run_to(0.3)
        scene.run(scene.mux.apply(replace(scene.settings, timeout=1)))
        scene.run_to(6)
        for client in (first, second):
            assert client.heard == [(at(1.3), 1, excuse(asks(1), BUSY))]
        assert len(scene.puppet.asked) == 1


@contract(
    "A read that joined one which is overdue, gets no response, or whose client leaves "
    "or does not read its responses, is asked for itself.",
)
def test_a_read_does_not_wait_for_a_client_that_does_not_read() -> None:
    """Whether it ceases to while its read is queued, or before that is asked again."""
    for lost in (False, True):
        with stage(timeout=HOUR, max_in_flight=2 if lost else 1) as scene:
            slow, other, third = (scene.hand() for _ in range(3))
            scene.puppet.script += [answers(0.5), says_nothing if lost else answers()]
            scene.at(0, slow.ask, asks(1), asks(2))
            scene.at(0.1, other.ask, asks(2))
            scene.run_to(0.2)
            connection, *_ = scene.mux._listener.clients  # noqa: SLF001
            connection.pause_writing()  # as when its buffer is full
            scene.at(0.3, third.ask, asks(2))
            if lost:
                scene.at(0.4, scene.puppet.reset, 1)
            scene.run_to(5)
            for client in (other, third):
                assert [heard.body for heard in client.heard] == [
                    answer(scene, asks(2))
                ]


# ---- rules for writes -----------------------------------------------------------


@contract(
    "Of `write_rules`, the first that matches a write decides: `allow`, `deny` "
    "(exception 0x01) or `acknowledge`: the success response is made up and nothing is "
    "sent",
    "A write that matches none is allowed. Reads are not looked at.",
    "A rule matches by the client's network, the unit of the device, the function code "
    "and a range of registers or coils; what it does not name fits.",
)
def test_the_first_rule_that_matches_a_write_decides() -> None:
    rules = (
        rule("deny", units=(1,), functions=(6,), registers=(10, 19)),
        rule("allow", registers=(0, 20)),
        rule("acknowledge", "192.168.1.0/24", units=(1,)),
    )
    with stage(write_rules=rules) as scene:
        client = scene.hand()
        bodies = [sets(10), sets(9), sets(20), sets(21), sets(21, unit=2), asks(10)]
        for moment, body in enumerate(bodies):
            scene.at(moment, client.ask, body)
        scene.run_to(9)
        sent = [bodies[1], bodies[2], bodies[4], bodies[5]]
        assert [asked.body for asked in scene.puppet.asked] == sent
        assert client.heard == [
            (at(0), 1, excuse(sets(10), 1)),
            (at(1.1), 2, sets(9)),
            (at(2.1), 3, sets(20)),
            (at(3), 4, sets(21)),
            (at(4.1), 5, sets(21, unit=2)),
            (at(5.1), 6, answer(scene, asks(10))),
        ]


@contract(
    "Only the function codes 5, 6, 15, 16, 22 and 23 fit a range, by what they write.",
    "No write is cut in two: a rule that allows matches only what lies in its range as "
    "a whole, any other whatever touches it; what is to be acknowledged and lies partly "
    "outside gets 0x01.",
)
@pytest.mark.parametrize(
    ("action", "told"),
    [("allow", (0, 1, 1, 1)), ("deny", (1, 1, 0, 0)), ("acknowledge", (2, 1, 0, 0))],
)
def test_no_write_is_cut_in_two(action: str, told: tuple[int, ...]) -> None:
    """0: it reaches the device; 1: it is refused; 2: it is acknowledged."""
    rules = (rule(action, registers=(10, 19)), *(DENIED if action == "allow" else ()))
    with stage(write_rules=rules) as scene:
        client = scene.hand()
        two = b"\1\x10\0%c\0\2\4\1\2\3\4"
        file = b"\1\x15\7\6\0\1\0\x0a\0\0"
        for moment, body in enumerate((two % 18, two % 19, two % 20, file)):
            scene.at(moment, client.ask, body)
        scene.run_to(9)
        sent = {asked.body for asked in scene.puppet.asked}
        refused = {heard.tid for heard in client.heard if heard.body[1] & 0x80}
        for tid, (body, what) in enumerate(
            zip((two % 18, two % 19, two % 20, file), told, strict=True), start=1
        ):
            assert (body in sent) is (what == 0), tid
            assert (tid in refused) is (what == 1 or body == file), tid


# ---- repeated writes ------------------------------------------------------------


@contract(
    "With `repeated_write_ttl`, a write that repeats to the byte the last one to its "
    "unit gets the same success response and is not sent, until that time has passed "
    "since that response came.",
    "So one in that time reaches the device",
)
def test_a_repeated_write_is_confirmed_without_being_sent() -> None:
    with stage(repeated_write_ttl=2) as scene:
        client, other = scene.hand(), scene.hand()
        for moment in (0, 1, 2.09, 2.11, 4.2, 4.22):
            scene.at(moment, client.ask, sets(1))
        scene.at(1.5, other.ask, sets(1), sets(1, unit=2))
        scene.run_to(6)
        assert [(asked.at, asked.body) for asked in scene.puppet.asked] == [
            (at(0), sets(1)),
            (at(1.5), sets(1, unit=2)),
            (at(2.11), sets(1)),
            (at(4.22), sets(1)),
        ]
        heard = [0.1, 1, 2.09, 2.21, 4.2, 4.32]
        assert client.heard == [
            (at(moment), tid, sets(1)) for tid, moment in enumerate(heard, start=1)
        ]
        assert other.heard[0] == (at(1.5), 1, sets(1))
        snapshot = scene.mux.snapshot()
        assert (snapshot.writes_repeated, snapshot.responses) == (4, 8)


@contract("a write that repeats to the byte the last one to its unit")
def test_another_value_is_sent_every_time() -> None:
    first, second = sets(1), sets(1)[:-1] + b"\x33"
    with stage(repeated_write_ttl=60) as scene:
        client = scene.hand()
        for moment, body in enumerate((first, second, first, first)):
            scene.at(moment, client.ask, body)
        scene.run_to(9)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [first, second, first]
        assert [heard.body for heard in client.heard] == [first, second, first, first]


@contract("Off by default.")
def test_repeated_writes_are_sent_by_default() -> None:
    with stage() as scene:
        client = scene.hand()
        for moment in (0, 1):
            scene.at(moment, client.ask, sets(1))
        scene.run_to(2)
        assert len(scene.puppet.asked) == 2


@contract(
    "It is sent if anything else may have changed the unit since: another write to it "
    "or a broadcast came, a request to it got no response, or a connection to the "
    "device ended.",
)
@pytest.mark.parametrize(
    "between",
    [sets(2), sets(1, unit=0), b"\1\x65\1", b"\1\x17\0\7\0\2\x50\0\0\2\4abcd"],
    ids=["write", "broadcast", "unknown function", "read and write"],
)
def test_a_write_is_sent_again_after_another(between: bytes) -> None:
    """Even while that waits for its turn."""
    for pause in (1, 0.01):
        with stage(repeated_write_ttl=60) as scene:
            client, other, busy = (scene.hand() for _ in range(3))
            scene.at(0, client.ask, sets(1))
            scene.at(0.95, busy.ask, asks(9))
            scene.at(1, other.ask, between)
            scene.at(1 + pause, client.ask, sets(1))
            scene.run_to(4)
            bodies = [asked.body for asked in scene.puppet.asked]
            assert bodies == [sets(1), asks(9), between, sets(1)]


@contract("another write to it or a broadcast came")
def test_a_repeated_write_stays_behind_one_that_waits() -> None:
    with stage(repeated_write_ttl=60, request_delay=0.5) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, sets(1))
        scene.at(0.05, other.ask, sets(2))
        scene.at(0.3, client.ask, sets(1))
        scene.run_to(4)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [sets(1), sets(2), sets(1)]


@contract("It is sent if anything else may have changed the unit since")
def test_a_broadcast_is_never_confirmed_by_another() -> None:
    with stage(repeated_write_ttl=60, framing="rtu") as scene:
        client = scene.hand()
        for moment in (0, 1):
            scene.at(moment, client.ask, sets(1, unit=0))
        scene.run_to(4)
        assert len(scene.puppet.asked) == 2


@contract("It is sent if anything else may have changed the unit since")
def test_a_write_that_was_refused_or_acknowledged_is_no_other_write() -> None:
    rules = (rule("deny", registers=(2, 2)), rule("acknowledge", registers=(3, 3)))
    with stage(repeated_write_ttl=60, write_rules=rules) as scene:
        client = scene.hand()
        for moment, number in enumerate((1, 2, 3, 1)):
            scene.at(moment, client.ask, sets(number))
        scene.at(4, client.ask, sets(5, unit=2), asks(6))
        scene.at(5, client.ask, sets(1))
        scene.run_to(9)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [sets(1), sets(5, unit=2), asks(6)]


@contract("a request to it got no response, or a connection to the device ended.")
@pytest.mark.parametrize("reason", ["no response", "end", "reconnect", "exception"])
def test_a_write_is_sent_again_when_the_device_may_have_been_off(reason: str) -> None:

    def refuses(line: Line, tid: int, body: bytes) -> None:
        line.say(line.stage.pack(tid, excuse(body, 4)))

    with stage(repeated_write_ttl=60, timeout=1) as scene:
        client = scene.hand()
        if reason == "exception":
            scene.puppet.script.append(refuses)
        scene.at(0, client.ask, sets(1))
        if reason == "no response":
            scene.at(1, scene.puppet.script.append, says_nothing)
            scene.at(1, client.ask, asks(1))
        elif reason == "end":
            scene.at(1, scene.puppet.hang_up, 1)
        elif reason == "reconnect":
            scene.at(1, lambda: scene.loop.create_task(scene.mux.reconnect()))
        scene.at(3, client.ask, sets(1))
        scene.run_to(4)
        asked = [asked.body for asked in scene.puppet.asked]
        assert asked.count(sets(1)) == 2
        assert client.heard[-1] == (at(3.1), len(client.heard), sets(1))


@contract(
    "So is the write of a client with another one unanswered, or that stays with its "
    "connection.",
)
def test_a_repeated_write_keeps_its_place_behind_another() -> None:
    with stage(repeated_write_ttl=60) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, sets(1))
        scene.at(1, client.ask, sets(2, unit=2), sets(1))
        scene.at(1.01, other.ask, sets(1))
        scene.run_to(4)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [sets(1), sets(2, unit=2), sets(1), sets(1)]


@contract("So is the write of a client with another one unanswered, or that stays")
def test_the_writes_of_who_may_have_logged_in_are_sent() -> None:
    with stage(repeated_write_ttl=60) as scene:
        plain, logged_in = scene.hand(), scene.hand()
        scene.at(0, logged_in.ask, b"\1\x41\1\2")
        scene.at(1, logged_in.ask, sets(1))
        scene.at(2, logged_in.ask, sets(1))
        scene.at(3, plain.ask, sets(1))
        scene.at(4, logged_in.ask, sets(1))
        scene.at(5, plain.ask, sets(1))
        scene.run_to(9)
        asked = [asked.at for asked in scene.puppet.asked[1:]]
        assert asked == [at(1), at(2), at(3), at(4), at(5)]


@contract(
    "Only writes that `acknowledge` covers are kept, one for each unit.",
    "| confirmed writes that are kept | one for each unit |",
)
def test_only_writes_with_a_known_confirmation_are_kept() -> None:
    bodies = [
        b"\1\5\0\1\xff\0",
        b"\1\x0f\x30\0\0\x20\4abcd",
        b"\1\x10\x80\0\0\2\4abcd",
        b"\1\x16\0\1\1\1\1\1",
        b"\1\x17\0\7\0\2\x50\0\0\2\4abcd",
    ]
    with stage(repeated_write_ttl=60) as scene:
        client = scene.hand()
        for moment, body in enumerate(bodies):
            scene.at(moment, client.ask, body)
            scene.at(moment + 0.5, client.ask, body)
        scene.run_to(9)
        asked = Counter(asked.body for asked in scene.puppet.asked)
        assert asked == {**dict.fromkeys(bodies, 1), bodies[-1]: 2}
        assert client.heard[1].body == client.heard[0].body
        assert client.heard[5].body == bodies[2][:6]


@contract("and such a request shares no response.")
def test_a_write_of_an_identifier_in_use_is_sent() -> None:
    with stage(repeated_write_ttl=60) as scene:
        client = scene.hand()
        scene.at(0, ask_as, 7, client, sets(1))
        scene.at(1, ask_as, 7, client, asks(1), sets(1))
        scene.run_to(4)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [sets(1), asks(1), sets(1)]


@contract("Nothing is cleared from the cache.")
def test_a_repeated_write_clears_nothing_from_the_cache() -> None:
    with stage(repeated_write_ttl=60, cache_ttl=60) as scene:
        client = scene.hand()
        for moment, body in enumerate((sets(1), asks(1), sets(1), asks(1))):
            scene.at(moment, client.ask, body)
        scene.run_to(9)
        assert [asked.body for asked in scene.puppet.asked] == [sets(1), asks(1)]


@contract("With `repeated_write_ttl`, a write that repeats to the byte the last one")
def test_no_write_is_confirmed_while_paused_or_once_that_is_turned_off() -> None:
    with stage(repeated_write_ttl=60) as scene:
        client, slow = scene.hand(), scene.hand()
        scene.at(0, client.ask, sets(1))
        scene.at(1, slow.ask, asks(1))
        scene.at(1.01, lambda: scene.loop.create_task(scene.mux.pause()))
        scene.at(1.05, client.ask, sets(1))
        scene.run_to(2)
        assert client.heard[-1] == (at(1.05), 2, excuse(sets(1), NO_PATH))
    with stage(repeated_write_ttl=60) as scene:
        client = scene.hand()
        for moment in (0, 0.5, 2, 4):
            scene.at(moment, client.ask, sets(1))
        scene.run_to(0.2)
        assert scene.run(scene.mux.apply(replace(scene.settings, timeout=7)))
        scene.run_to(1)
        off = replace(scene.settings, repeated_write_ttl=0.0)
        assert scene.run(scene.mux.apply(off))
        scene.run_to(3)
        assert scene.run(scene.mux.apply(scene.settings))
        scene.run_to(5)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(2), at(4)]
