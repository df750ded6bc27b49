"""Modbus/TCP, byte by byte: what design.md says of it under "Matching (Modbus)"."""

from __future__ import annotations

from collections.abc import Callable
import gc
import struct
from typing import Any

from hypothesis import example, given, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
import pytest

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    Failure,
    Ignored,
    Mismatch,
    Request,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    describe,
    is_retry_safe,
    is_write,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.protocol import (
    ModbusProtocol,
)
from tests.wire import Frame, exception, read, values, write

from .streams import fed, options, payloads, pieces, received

units = st.integers(0, 255)
functions = st.integers(1, 127)
transactions = st.integers(0, 0xFFFF)
pdus = st.builds(
    lambda function, data: bytes((function,)) + data, functions, st.binary(max_size=252)
)
frames = st.builds(Frame, transactions, units, pdus)


def modbus(**settings: Any) -> ModbusProtocol:
    """Make the protocol with some settings."""
    return ModbusProtocol(options(**settings))


def request(payload: bytes) -> Request:
    """Make a request of a unit and a PDU."""
    return modbus().request(payload)


def transaction_of(frame: bytes) -> int:
    """Give the transaction identifier that a frame carries."""
    return int.from_bytes(frame[:2])


def bytes_held(codec: UpstreamCodec[bytes]) -> list[bytes]:
    """Give the bytes that a codec keeps between two pieces of a stream."""
    return [held for held in gc.get_referents(codec) if isinstance(held, bytes)]


def answers(events: list[UpstreamEvent[bytes]]) -> list[tuple[Request, bytes]]:
    """Give what was answered, and with what."""
    return [(e.request, e.response) for e in events if isinstance(e, Answer)]


# ---- facing a client ------------------------------------------------------------


def test_frame_becomes_unit_and_pdu_and_the_reply_its_own_transaction() -> None:
    codec = modbus().downstream()
    (asked,) = received(codec, bytes.fromhex("ABCD 0000 0006 11 03 006B 0003"))
    assert isinstance(asked, Request)
    assert asked.payload == bytes.fromhex("11 03 006B 0003")
    response = bytes.fromhex("11 03 06 022B 0000 0064")
    assert codec.reply(asked, response) == bytes.fromhex("ABCD 0000 0009") + response


@given(data=st.data(), stream=st.lists(frames, max_size=8), tail=st.integers(0, 7))
def test_pieces_do_not_matter_to_requests(
    data: st.DataObject, stream: list[Frame], tail: int
) -> None:
    codec = modbus().downstream()
    unfinished = Frame(1, 1, b"\3" + bytes(4)).encoded()[:tail]
    whole = b"".join(frame.encoded() for frame in stream) + unfinished
    events = [
        event for piece in data.draw(pieces(whole)) for event in received(codec, piece)
    ]
    assert payloads(events) == [bytes((frame.unit,)) + frame.pdu for frame in stream]
    assert codec.buffered == tail
    # Each keeps its own transaction, in whatever order they are answered.
    for event, frame in data.draw(
        st.permutations(list(zip(events, stream, strict=True)))
    ):
        assert isinstance(event, Request)
        assert codec.reply(event, event.payload) == frame.encoded()


@given(data=st.data(), stream=st.binary(max_size=2000))
@example(data=None, stream=bytes(2000))
@example(data=None, stream=b"\1\0\0\0\0\2" * 300)
def test_any_bytes_from_a_client_are_messages_or_the_end(
    data: st.DataObject | None, stream: bytes
) -> None:
    codec = modbus().downstream()
    consumed = 0
    for piece in data.draw(pieces(stream)) if data else [stream]:
        events = received(codec, piece)
        consumed += len(piece)
        assert all(isinstance(event, Request | Ignored | Close) for event in events)
        if events and isinstance(events[-1], Close):
            return
        assert codec.buffered < 260  # never more than one unfinished frame


@given(protocol=st.integers(1, 0xFFFF), frame=frames)
def test_frame_of_another_protocol_is_discarded(protocol: int, frame: Frame) -> None:
    foreign = bytearray(frame.encoded())
    foreign[2:4] = protocol.to_bytes(2)
    codec = modbus().downstream()
    ignored, asked = received(codec, bytes(foreign) + frame.encoded())
    assert isinstance(ignored, Ignored)
    assert "protocol identifier" in ignored.reason
    assert payloads([asked]) == [bytes((frame.unit,)) + frame.pdu]
    assert codec.buffered == 0


@pytest.mark.parametrize("length", [0, 1, 255, 256, 258, 0x0600, 0xFFFF])
def test_impossible_length_closes_before_anything_else_comes(length: int) -> None:
    (closed,) = received(modbus().downstream(), struct.pack(">HHH", 7, 0, length))
    assert isinstance(closed, Close)
    assert closed.data == b""


def test_shortest_and_longest_frame_pass() -> None:
    shortest, longest = Frame(1, 1, b"\7"), Frame(2, 1, b"\x10" + bytes(252))
    assert [len(frame.encoded()) for frame in (shortest, longest)] == [8, 260]
    codec = modbus().downstream()
    events = received(codec, shortest.encoded() + longest.encoded())
    assert payloads(events) == [b"\1" + shortest.pdu, b"\1" + longest.pdu]
    assert codec.reply(events[1], b"\1" + longest.pdu) == longest.encoded()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure.NO_CONNECTION, 0x0A),
        (Failure.CONNECTION_LOST, 0x0B),
        (Failure.NO_RESPONSE, 0x0B),
        (Failure.INVALID_RESPONSE, 0x0B),
        (Failure.BUSY, 0x06),
        (Failure.PAUSED, 0x0A),
        (Failure.REFUSED, 0x01),
        (Failure.TOO_LARGE, 0x03),
    ],
)
def test_refusal_is_the_exception_for_its_cause(failure: Failure, code: int) -> None:
    asked = Frame(0xBEEF, 9, read())
    for on_failure in ("exception", "close"):
        codec = modbus(on_failure=on_failure).downstream()
        (event,) = received(codec, asked.encoded())
        assert isinstance(event, Request)
        if on_failure == "close" and not failure.is_rule:
            assert codec.refuse(event, failure) is None
        else:
            told = Frame(0xBEEF, 9, exception(3, code)).encoded()
            assert codec.refuse(event, failure) == told


# ---- what requests do to the device ---------------------------------------------

RETRY_SAFE = {1, 2, 3, 4, 7, 0x11, 0x14}
READS = RETRY_SAFE | {0x0B, 0x0C, 0x18}
BODIES = {
    0x0F: "FFFF 0001 01 01",
    0x10: "FFFF 0001 02 0001",
    0x14: "07 06 0001 0000 0001",
    0x15: "09 06 0001 0000 0001 0001",
    0x17: "FFFF 0001 FFFF 0001 02 0001",
}
"""Of functions whose quantities are looked at."""


@pytest.mark.parametrize("function", range(256))
def test_every_function_passes_and_unknown_ones_are_writes(function: int) -> None:
    pdu = bytes((function,)) + bytes.fromhex(BODIES.get(function, "FFFF 0001"))
    (event,) = received(modbus().downstream(), Frame(1, 5, pdu).encoded())
    assert isinstance(event, Request)
    assert event.payload == b"\5" + pdu
    assert event.retry_safe == (function in RETRY_SAFE)
    assert event.writes == (None if function in READS else 5)
    assert event.share_key == (b"\5" + pdu if event.retry_safe else None)


@pytest.mark.parametrize("sub_function", range(24))
def test_diagnostics_write_unless_they_only_return_something(sub_function: int) -> None:
    payload = b"\1\x08" + sub_function.to_bytes(2) + b"\0\0"
    assert is_write(payload) == (sub_function not in {0, 2, *range(11, 19)})
    assert not is_retry_safe(payload)
    assert is_write(b"\1\x08\1\0")  # the sub-function has two bytes


@pytest.mark.parametrize(("kind", "reads"), [(0x0E, True), (0x0D, False), (0, False)])
def test_encapsulated_interface_writes_unless_it_identifies(
    kind: int, reads: bool
) -> None:
    payload = bytes((1, 0x2B, kind, 1, 0))
    assert is_retry_safe(payload) is reads
    assert is_write(payload) is not reads


def test_bare_function_is_judged_too() -> None:
    assert is_write(b"\1\x2b")
    assert not is_retry_safe(b"\1\x2b")
    assert not is_write(b"\1\x08")


@given(function=functions)
def test_only_broadcast_writes_expect_no_reply(function: int) -> None:
    payload = bytes((0, function, 0, 1, 0, 1))
    assert request(payload).expects_reply is not is_write(payload)
    assert request(b"\1" + payload[1:]).expects_reply


@given(payload=st.binary(max_size=300))
def test_own_request_is_a_unit_and_a_pdu(payload: bytes) -> None:
    if 2 <= len(payload) <= 254:
        assert request(payload).payload == payload
    else:
        with pytest.raises(ValueError, match="PDU"):
            request(payload)


# ---- transaction identifiers ----------------------------------------------------


def test_transactions_count_on_across_connections_and_skip_0() -> None:
    protocol = modbus()
    protocol.transactions.last = 0xFFFE
    first, second = protocol.upstream(), protocol.upstream()
    numbers = [
        transaction_of(codec.send(request(b"\1" + read())))
        for codec in (first, second, first, second)
    ]
    assert numbers == [0xFFFF, 1, 2, 3]


def test_transaction_in_flight_or_timed_out_is_not_used_again() -> None:
    protocol = modbus()
    codec, fresh = protocol.upstream(), protocol.upstream()
    lost, held = request(b"\1" + read(1)), request(b"\1" + read(2))
    assert [transaction_of(codec.send(r)) for r in (lost, held)] == [1, 2]
    assert codec.expire(lost)
    protocol.transactions.last = 0xFFFF
    assert transaction_of(codec.send(request(b"\1" + read(3)))) == 3
    # Another connection has nothing to do with that.
    protocol.transactions.last = 0xFFFF
    assert transaction_of(fresh.send(request(b"\1" + read(4)))) == 1


def test_connection_that_lost_too_many_transactions_is_spent() -> None:
    protocol = modbus()
    codec = protocol.upstream()
    for _ in range(4096):
        assert codec.reusable
        lost = request(b"\1" + read())
        codec.send(lost)
        codec.expire(lost)
    assert not codec.reusable
    assert protocol.upstream().reusable


# ---- matching -------------------------------------------------------------------


def asked(*payloads: bytes) -> tuple[UpstreamCodec[bytes], list[Request], list[Frame]]:
    """Have requests in flight; give codec, requests and what they were sent as."""
    codec = modbus().upstream()
    requests = [request(payload) for payload in payloads]
    sent = [codec.send(r) for r in requests]
    return (
        codec,
        requests,
        [Frame(transaction_of(data), data[6], data[7:]) for data in sent],
    )


def test_request_is_framed_with_a_header() -> None:
    codec = modbus().upstream()
    data = codec.send(request(bytes.fromhex("11 03 006B 0003")))
    assert data == bytes.fromhex("0001 0000 0006 11 03 006B 0003")
    longest = b"\1" + bytes(253)
    assert codec.send(request(longest)) == bytes.fromhex("0002 0000 00FE") + longest


@pytest.mark.parametrize(
    "body",
    [
        "",  # nothing at all
        "03 0102",  # not what the byte count says
        "04 0001",  # another count than was asked for
        "FF" * 252,
    ],
)
def test_matching_response_is_passed_on_byte_for_byte(body: str) -> None:
    codec, (mine,), (sent,) = asked(b"\1" + read())
    pdu = b"\3" + bytes.fromhex(body)
    assert fed(codec, sent._replace(pdu=pdu).encoded()) == [Answer(mine, b"\1" + pdu)]


@pytest.mark.parametrize("body", ["", "02", "02 0102"])
def test_exception_is_a_response(body: str) -> None:
    protocol = modbus()
    codec, (mine,), (sent,) = asked(b"\1" + read())
    pdu = b"\x83" + bytes.fromhex(body)
    events = fed(codec, sent._replace(pdu=pdu).encoded())
    if not body:  # it may have said a length that is too short
        assert not events
        events = codec.tick(0.0)
    ((answered, response),) = answers(events)
    assert answered is mine
    # what stands behind the code may be the response to another request
    assert response == b"\1" + pdu[:2]
    assert protocol.is_exception(response)
    assert not protocol.is_exception(b"\1" + values())


@pytest.mark.parametrize("cut", range(1, 9))
def test_exception_in_pieces_is_the_answer(cut: int) -> None:
    """Which the short way for whole responses does not see."""
    codec, (mine,), (sent,) = asked(b"\1" + read())
    frame = sent._replace(pdu=exception(3, 2)).encoded()
    assert fed(codec, frame[:cut]) == []
    assert fed(codec, frame[cut:]) == [Answer(mine, b"\1" + exception(3, 2))]


@pytest.mark.parametrize(
    ("change", "lenient"),
    [
        ({"transaction": 0}, Mismatch.IDENTIFIER),
        ({"transaction": 2}, Mismatch.IDENTIFIER),
        ({"unit": 2}, Mismatch.UNIT),
        ({"unit": 2, "pdu": values(0, 1)}, None),
        ({"pdu": b"\4\4\0\0\0\0"}, None),
        ({"pdu": exception(4, 2)}, None),
    ],
)
def test_response_that_does_not_match_is_stray_and_the_right_one_still_counts(
    change: dict[str, Any], lenient: Mismatch | None
) -> None:
    codec, (mine,), (sent,) = asked(b"\1" + read())
    right = sent._replace(pdu=values())
    wrong = right._replace(**change).encoded()
    stray, answered = fed(codec, wrong + right.encoded())
    assert isinstance(stray, Unsolicited)
    assert stray[1:4] == (wrong, False, lenient)
    assert answered == Answer(mine, b"\1" + right.pdu)
    # A second response is one too many.
    (stray,) = fed(codec, right.encoded())
    assert isinstance(stray, Unsolicited)
    assert not stray.late


CONFIRMED = {
    5: ("05 0001 FF00", ["05 0002 FF00", "05 0001 0000", "05 0002"]),
    6: ("06 0001 0007", ["06 0002 0007", "06 0001 0008"]),
    0x0F: ("0F 0001 0009 02 FF01", ["0F 0002 0009", "0F 0001 0008"]),
    0x10: ("10 0001 0002 04 00010002", ["10 0002 0002", "10 0001 0001"]),
    0x15: ("15 09 06 0001 0002 0001 0003", ["15 09 06 0001 0003 0001 0003"]),
    0x16: ("16 0001 00F2 0025", ["16 0002 00F2 0025", "16 0001 00F2 0026"]),
}
"""Writes by their function, and confirmations of others."""


@pytest.mark.parametrize(
    ("asked_pdu", "other"),
    [(mine, other) for mine, others in CONFIRMED.values() for other in others],
)
@pytest.mark.parametrize("pieces_", [1, 2])
def test_confirmation_of_another_write_is_stray(
    asked_pdu: str, other: str, pieces_: int
) -> None:
    pdu = bytes.fromhex(asked_pdu)
    codec, (mine,), (sent,) = asked(b"\1" + pdu)
    wrong = sent._replace(pdu=bytes.fromhex(other)).encoded()
    cut = len(wrong) // pieces_
    events = fed(codec, wrong[:cut])
    if cut < len(wrong):
        events += fed(codec, wrong[cut:])
    assert events == [Unsolicited("it confirms another write", wrong)]
    confirmed = pdu[:5] if pdu[0] in {0x0F, 0x10} else pdu
    right = sent._replace(pdu=confirmed).encoded()
    assert fed(codec, right) == [Answer(mine, b"\1" + confirmed)]


@pytest.mark.parametrize("function", CONFIRMED)
def test_confirmation_that_names_nothing_or_refuses_is_the_response(
    function: int,
) -> None:
    pdu = bytes.fromhex(CONFIRMED[function][0])
    for said in (pdu[:1], pdu[:3], exception(function, 2)):
        codec, (mine,), (sent,) = asked(b"\1" + pdu)
        response = sent._replace(pdu=said).encoded()
        assert fed(codec, response) == [Answer(mine, b"\1" + said)]


def test_response_after_its_deadline_is_late() -> None:
    codec, (lost, _), (sent, _) = asked(b"\1" + read(1), b"\1" + read(2))
    assert codec.expire(lost)
    frame = sent._replace(pdu=values(1)).encoded()
    (stray,) = fed(codec, frame)
    assert isinstance(stray, Unsolicited)
    assert stray.data == frame
    assert stray.late


@given(data=st.data(), asking=st.lists(st.tuples(units, pdus), min_size=1, max_size=6))
def test_pieces_and_order_do_not_matter_to_answers(
    data: st.DataObject, asking: list[tuple[int, bytes]]
) -> None:
    codec, requests, sent = asked(*(bytes((unit,)) + pdu for unit, pdu in asking))
    bodies = data.draw(
        st.lists(st.binary(max_size=20), min_size=len(sent), max_size=len(sent))
    )
    told = {
        mine: frame._replace(
            pdu=frame.pdu
            if frame.pdu[0] in CONFIRMED
            else frame.pdu[:1] + b"\xff" + body
        )
        for mine, frame, body in zip(requests, sent, bodies, strict=True)
    }
    order = data.draw(st.permutations(requests))
    stream = b"".join(told[mine].encoded() for mine in order)
    events = [e for piece in data.draw(pieces(stream)) for e in fed(codec, piece)]
    assert answers(events) == [
        (mine, bytes((told[mine].unit,)) + told[mine].pdu) for mine in order
    ]
    assert len(events) == len(order)


@given(data=st.data(), stream=st.binary(max_size=2000), begin=st.booleans())
def test_any_bytes_from_a_device_are_events_and_at_most_one_close(
    data: st.DataObject, stream: bytes, begin: bool
) -> None:
    codec, requests, sent = asked(b"\1" + read(), b"\1" + write(1, 2))
    if begin:
        stream = sent[0].encoded()[:7] + stream
    open_requests = set(requests)
    for piece in data.draw(pieces(stream)):
        events = fed(codec, piece)
        for event in events:
            assert isinstance(event, Answer | Unsolicited | Close)
            if isinstance(event, Answer):
                open_requests.remove(event.request)
        assert not any(isinstance(event, Close) for event in events[:-1])
        if events and isinstance(events[-1], Close):
            return
        assert all(len(held) < 260 for held in bytes_held(codec))


# ---- frames that are not whole --------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        "0001 0001",  # another protocol
        "0001 0000 0100",  # too long
        "0001 0000 0001",  # too short
        "0001 0000 0000",
        "485454502F312E31",
        "0001 0000 00FF",
    ],
)
def test_bytes_that_are_no_frame_are_passed_over(garbage: str) -> None:
    codec, (mine, other), (sent, next_sent) = asked(b"\1" + read(1), b"\1" + read(2))
    noise = bytes.fromhex(garbage)
    first = sent._replace(pdu=values(1)).encoded()
    second = next_sent._replace(pdu=values(2)).encoded()
    assert answers(fed(codec, first)) == [(mine, b"\1" + values(1))]
    assert not answers(fed(codec, noise))
    assert answers(fed(codec, noise + second)) == [(other, b"\1" + values(2))]
    assert not answers(fed(codec, noise))


@given(kept=st.integers(1, 12), behind=st.sampled_from(["other", "late", "unknown"]))
def test_frame_cut_short_and_followed_by_another_closes(kept: int, behind: str) -> None:
    codec, (mine, other), (sent, next_sent) = asked(b"\1" + read(1), b"\1" + read(2))
    if behind == "late":
        codec.expire(other)
    elif behind == "unknown":
        next_sent = next_sent._replace(transaction=999)
    cut = sent._replace(pdu=values(1)).encoded()[:kept]
    events = fed(codec, cut)
    whole = next_sent._replace(pdu=values(2)).encoded()
    events += fed(codec, whole)
    if kept >= 6 or behind != "other":
        assert not answers(events)
    if kept >= 8:
        assert isinstance(events[-1], Close)
    elif behind == "other" and kept < 4:  # whose header is there
        assert answers(events) == [(other, b"\1" + values(2))]
    if kept in {2, 3} or kept >= 8:
        assert codec.begun(mine)


# What a device may answer, and how often two in a row begin with the same bytes.
small = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 6, 255])
bodies = st.one_of(
    st.lists(small, max_size=24).map(bytes),
    st.lists(st.integers(0, 9), max_size=12).map(
        lambda words: b"".join(word.to_bytes(2) for word in words)
    ),
)


@given(
    answering=st.lists(st.tuples(st.integers(1, 4), bodies), min_size=2, max_size=5),
    which=st.integers(0, 3),
    kept=st.integers(0, 40),
    start=st.sampled_from([0, 1, 255, 256, 258, 0x0103, 0x0303]),
    expired=st.sets(st.integers(0, 4)),
    apart=st.booleans(),
)
@example(
    answering=[(1, bytes(6)), (1, b"")],
    which=0,
    kept=8,
    start=0,
    expired=set(),
    apart=True,
)
def test_no_answer_is_made_of_two(
    answering: list[tuple[int, bytes]],
    *,
    which: int,
    kept: int,
    start: int,
    expired: set[int],
    apart: bool,
) -> None:
    """Whatever a device cuts short, no request gets another's bytes.

    (As far as that can be known: a frame that was cut counts if nothing is behind it.)
    """
    protocol = modbus()
    protocol.transactions.last = start
    codec = protocol.upstream()
    requests, told, stream = [], {}, []
    for number, (function, body) in enumerate(answering):
        mine = request(bytes((1 + number % 2, function, 0)))
        sent = codec.send(mine)
        frame = Frame(transaction_of(sent), sent[6], sent[7:8] + body)
        requests.append(mine)
        told[mine] = bytes((frame.unit,)) + frame.pdu
        stream.append(frame.encoded())
    which %= len(stream) - 1  # something follows
    stream[which] = stream[which][: min(kept, len(stream[which]) - 1)]
    for number in expired:
        if number < len(requests):
            codec.expire(requests[number])
    events = []
    for piece in stream if apart else [b"".join(stream)]:
        events += fed(codec, piece)
        if events and isinstance(events[-1], Close):
            break
    for mine, response in answers(events):
        assert response == told[mine]


def test_response_in_flight_swallowed_by_one_cut_short_closes() -> None:
    """The next frame fills the gap to the byte, so that nothing is left behind."""
    codec, (mine, other), (sent, next_sent) = asked(b"\1" + read(1, 9), b"\1" + read(2))
    swallowed = next_sent._replace(pdu=values(2)).encoded()
    whole = sent._replace(pdu=values(1, 9)).encoded()
    events = fed(codec, whole[: -len(swallowed)] + swallowed)
    assert [type(event) for event in events] == [Close]
    assert mine not in dict(answers(events))
    assert other not in dict(answers(events))
    assert codec.begun(mine)
    assert codec.begun(other)


@pytest.mark.parametrize("zeros", range(1, 4))
def test_response_swallowed_behind_zeros_of_the_other_closes(zeros: int) -> None:
    """Any pair of zeros may be the middle of a header: here a later one is."""
    codec, (mine, other), (sent, next_sent) = asked(b"\1" + read(1, 9), b"\1" + read(2))
    swallowed = next_sent._replace(pdu=values(2)).encoded()
    pdu = b"\3\x12" + b"\0\0\x55\x55" * zeros
    whole = sent._replace(pdu=pdu.ljust(20, b"\x55")).encoded()
    (closed,) = fed(codec, whole[: -len(swallowed)] + swallowed)
    assert isinstance(closed, Close)
    assert codec.begun(mine)
    assert codec.begun(other)


def test_exception_swallowed_by_a_response_cut_short_closes() -> None:
    codec, _, (sent, next_sent) = asked(b"\1" + read(1, 9), b"\1" + read(2))
    swallowed = next_sent._replace(pdu=b"\x83\2").encoded()
    whole = sent._replace(pdu=values(1, 9)).encoded()
    events = fed(codec, whole[: -len(swallowed)] + swallowed)
    assert [type(event) for event in events] == [Close]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("come", range(4, 9))
@pytest.mark.parametrize("within", range(1, 9))
def test_frame_cut_short_is_not_completed_by_the_beginning_of_another(
    within: int, come: int, late: bool
) -> None:
    """Of whose header no more may have come yet than its first four bytes."""
    codec, (_, other), (sent, next_sent) = asked(b"\1" + read(1, 9), b"\1" + read(2))
    if late:
        codec.expire(other)
    whole = sent._replace(pdu=values(1, 9)).encoded()
    behind = next_sent._replace(pdu=values(2)).encoded()[: max(within, come)]
    events = fed(codec, whole[:-within] + behind)
    assert isinstance(events[-1], Close)
    assert not answers(events)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("function", [5, 6])
def test_confirmation_may_look_as_if_another_response_began_in_it(
    function: int, number: int, late: bool
) -> None:
    """Coil or register `number` is written 0, and that transaction is in flight."""
    write = bytes((function, 0, number, 0, 0))
    codec, (mine, other), (sent, _) = asked(b"\1" + write, b"\1" + read(2))
    if late:
        codec.expire(other)
    confirmation = sent._replace(pdu=write).encoded()
    assert fed(codec, confirmation) == [Answer(mine, b"\1" + write)]


@pytest.mark.parametrize("function", [5, 6])
def test_confirmation_cut_short_is_not_completed_by_another_header(
    function: int,
) -> None:
    codec, (mine, _), (sent, _) = asked(
        bytes((1, function, 0, 7, 0, 0)), b"\1" + read(2)
    )
    confirmation = sent._replace(pdu=bytes((function, 0, 2, 0, 0))).encoded()
    events = fed(codec, confirmation)
    assert [type(event) for event in events] == [Close]
    assert codec.begun(mine)


def test_value_that_looks_like_a_transaction_in_flight_passes() -> None:
    codec, (mine, _), (sent, _) = asked(b"\1" + read(1, 6), b"\1" + read(2))
    # 2 is in flight; what follows it here is no header of its response.
    unlike = "0002 0000 0000 0100", "0002 0000 0003 0100", "0002 0000 0005 0104"
    for words in (*unlike, "0002 0000 0103 0103", "0002 0000 0001 0103"):
        pdu = b"\3\x0c" + bytes.fromhex(words) + bytes(4)
        codec, (mine, _), (sent, _) = asked(b"\1" + read(1, 6), b"\1" + read(2))
        assert fed(codec, sent._replace(pdu=pdu).encoded()) == [
            Answer(mine, b"\1" + pdu)
        ]


# ---- when a connection may be kept ----------------------------------------------


def test_timeout_within_a_frame_gives_the_connection_up() -> None:
    codec, (mine,), (sent,) = asked(b"\1" + read())
    fed(codec, sent._replace(pdu=values()).encoded()[:-1])
    assert codec.expire(mine) is False


def test_timeout_between_frames_keeps_the_connection() -> None:
    codec, (mine, other), (_, sent) = asked(b"\1" + read(1), b"\1" + read(2))
    assert fed(codec, sent._replace(pdu=values(2)).encoded()) == [
        Answer(other, b"\1" + values(2))
    ]
    assert codec.expire(mine) is True


@pytest.mark.parametrize("size", range(1, 12))
def test_first_byte_of_a_response_is_noticed(size: int) -> None:
    codec, (mine, other), (sent, _) = asked(b"\1" + read(1), b"\1" + read(2))
    assert not codec.begun(mine)
    fed(codec, sent._replace(pdu=values(1)).encoded()[:size])
    assert codec.begun(mine)
    assert codec.begun(other) is (size == 1)  # both have the same first byte


def test_response_that_broke_off_in_its_header_had_begun() -> None:
    codec, requests, sent = asked(b"\1" + read(1), b"\1" + read(2), b"\1" + read(3))
    noise = b"\xa8\x19\x77" + sent[1].encoded()[:2] + b"\xff" * 9
    assert fed(codec, noise) == [Unsolicited("not a Modbus/TCP frame", noise)]
    assert [codec.begun(mine) for mine in requests] == [False, True, False]
    assert answers(fed(codec, noise + sent[0]._replace(pdu=values(1)).encoded()))
    assert [codec.begun(mine) for mine in requests] == [False, True, False]


@pytest.mark.parametrize("apart", [False, True])
def test_response_that_was_cut_short_had_begun(apart: bool) -> None:
    """Nor may what came behind it be asked again, however the bytes arrived."""
    codec, (mine, other, third), (sent, next_sent, _) = asked(
        b"\1" + read(1), b"\1" + read(2), b"\1" + read(3)
    )
    cut = sent._replace(pdu=values(1)).encoded()[:-1]
    behind = next_sent._replace(pdu=values(2)).encoded()
    events = []
    for piece in [cut, behind] if apart else [cut + behind]:
        events += fed(codec, piece)
    assert [type(event) for event in events] == [Close]
    assert codec.begun(mine)
    assert codec.begun(other)
    assert not codec.begun(third)


# ---- the short way --------------------------------------------------------------


def test_short_way_is_for_one_whole_request_alone() -> None:
    codec = modbus().downstream()
    frame = Frame(7, 1, read()).encoded()
    mine = codec.fast_request(frame)
    assert mine is not None
    assert codec.reply(mine, b"\1" + values()) == Frame(7, 1, values()).encoded()
    for other in (b"", frame[:1], frame[:-1], frame + b"\0", frame * 2):
        assert codec.fast_request(other) is None
    assert codec.fast_request(frame[:2] + b"\0\1" + frame[4:]) is None
    assert codec.fast_request(frame[:4] + b"\0\1" + frame[6:7]) is None
    assert codec.buffered == 0  # nothing was taken
    codec.receive_data(frame[:1])
    assert codec.fast_request(frame) is None


def test_short_way_is_for_the_one_answer_that_is_awaited() -> None:
    codec = modbus().upstream()
    mine = request(b"\1" + read())
    number = transaction_of(codec.send(mine))
    right = Frame(number, 1, values())
    frame = right.encoded()
    for other in (b"", frame[:1], frame[:-1], frame + b"\0", frame * 2):
        assert codec.fast_answer(other) is None
    for wrong in (
        right._replace(transaction=number + 1),
        right._replace(unit=2),
        right._replace(pdu=b"\4" + values()[1:]),
    ):
        assert codec.fast_answer(wrong.encoded()) is None
    assert codec.fast_answer(frame) == (mine, b"\1" + values())
    assert codec.fast_answer(frame) is None  # it is not awaited any more
    assert isinstance(codec.feed(frame)[0], Unsolicited)
    second = transaction_of(codec.send(mine))
    assert codec.feed(frame[:1]) == []
    assert codec.fast_answer(right._replace(transaction=second).encoded()) is None


# ---- against a naive model ------------------------------------------------------


class Matching(RuleBasedStateMachine):
    """Sends, answers, confuses and gives up; the model knows whose answer is whose."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol = modbus()
        self.codec = self.protocol.upstream()
        self.in_flight: dict[int, Request] = {}
        self.lost: set[int] = set()
        self.closed = False

    def feed(self, frame: Frame, cut: int) -> list[UpstreamEvent[bytes]]:
        data = frame.encoded()
        cut %= len(data)
        if cut:
            return fed(self.codec, data[:cut]) + fed(self.codec, data[cut:])
        return fed(self.codec, data)

    @rule(unit=st.integers(1, 3), pdu=st.sampled_from([read(), write(1, 2), b"\7"]))
    def send(self, unit: int, pdu: bytes) -> None:
        mine = request(bytes((unit,)) + pdu)
        number = transaction_of(self.codec.send(mine))
        assert number not in {0, *self.in_flight, *self.lost}
        self.in_flight[number] = mine

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), cut=st.integers(1, 300), body=st.binary(max_size=9))
    def answer(self, data: st.DataObject, cut: int, body: bytes) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        mine = self.in_flight.pop(number)
        pdu = mine.payload[1:2] + b"\1" + body.replace(b"\0", b"\1")
        if pdu[0] in CONFIRMED:
            pdu = mine.payload[1:]
        events = self.feed(Frame(number, mine.payload[0], pdu), cut)
        assert events == [Answer(mine, mine.payload[:1] + pdu)]

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), cut=st.integers(1, 300))
    def confuse(self, data: st.DataObject, cut: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        unit, function = self.in_flight[number].payload[:2]
        frame = data.draw(
            st.sampled_from(
                [
                    Frame(number, unit + 1, bytes((function, 1))),
                    Frame(number, unit, bytes((function + 1, 1))),
                    Frame(0, unit, bytes((function, 1))),
                ]
            )
        )
        (event,) = self.feed(frame, cut)
        assert isinstance(event, Unsolicited)
        assert event.data == frame.encoded()
        assert not event.late

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        assert self.codec.expire(self.in_flight.pop(number))
        self.lost.add(number)

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), cut=st.integers(1, 300))
    def answer_late(self, data: st.DataObject, cut: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.lost)))
        (event,) = self.feed(Frame(number, 1, b"\3\1\1"), cut)
        assert isinstance(event, Unsolicited)
        assert event.late

    @rule()
    def wrap_around(self) -> None:
        self.protocol.transactions.last = 0

    @invariant()
    def nothing_has_begun(self) -> None:
        assert not any(self.codec.begun(mine) for mine in self.in_flight.values())


def test_matching_is_what_a_naive_model_says() -> None:
    run_state_machine_as_test(Matching)


# ---- words for people -----------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answered", "words"),
    [
        (read(107, 3), "03 06 022B 0000 0064", "unit 1 read holding registers 107 count 3 -> values 555 0 100"),
        (b"\1\0\x13\0\x25", "01 01 CD", "unit 1 read coils 19 count 37 -> 01 cd"),
        (write(1, 3), "06 0001 0003", "unit 1 write single register 1 value 3 -> 00 01 00 03"),
        (b"\x10\0\1\0\2\4" + bytes(4), "90 02", "unit 1 write multiple registers 1 count 2 -> exception 0x02 illegal data address"),
        (b"\x16\0\4\0\xf2\0\x25", "16 0004", "unit 1 mask write register 00 04 00 f2 00 25 -> 00 04"),
        (b"\x07", "07 6D", "unit 1 read exception status -> 6d"),
        (b"\x65\1", "E5 7F", "unit 1 function 0x65 01 -> exception 0x7f"),
        (b"\3\0", "83", "unit 1 read holding registers 00 -> exception 0x00"),
        (read(), "03", "unit 1 read holding registers 0 count 2 -> "),
        (read(), "03 05 0001", "unit 1 read holding registers 0 count 2 -> 05 00 01"),
        (read(), "03 03 000102", "unit 1 read holding registers 0 count 2 -> 03 00 01 02"),
    ],
)  # fmt: skip
def test_description_says_what_was_asked_and_answered(
    asked: bytes, answered: str, words: str
) -> None:
    response = b"\1" + bytes.fromhex(answered)
    assert describe(b"\1" + asked, response) == words
    assert describe(b"\1" + asked, None) == words.partition(" ->")[0]
    assert modbus().describe(b"\1" + asked, response) == words


@given(payload=st.binary(min_size=2, max_size=254), response=st.binary(min_size=2))
@pytest.mark.parametrize(
    "narrow", [lambda data: data, lambda data: data[:1] + b"\3" + data[2:]]
)
def test_anything_can_be_described(
    narrow: Callable[[bytes], bytes], payload: bytes, response: bytes
) -> None:
    assert describe(narrow(payload), narrow(response)).startswith("unit ")


# ---- the health check -----------------------------------------------------------


def test_probe_repeats_what_went_well_or_reads_a_register_of_the_unit() -> None:
    good = request(b"\5" + read(40_000, 10))
    assert modbus().probe(good) is good
    assert modbus(unit_id=7).probe(None).payload == bytes.fromhex("07 03 0000 0001")
    assert not is_write(modbus().probe(None).payload)
