"""What every codec promises, whatever it speaks.

Any split of a valid stream gives the same messages. Any bytes at all give messages,
things discarded, or one close at the end, and never an exception. What is kept of a
message that does not end is bounded. A response goes to its request.

A protocol is held to that by an entry in `SPEAKERS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
import re
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer import PROTOCOLS
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    DownstreamCodec,
    DownstreamEvent,
    Failed,
    Failure,
    Ignored,
    Protocol,
    Reply,
    Request,
    SendBack,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.http.reader import (
    HEAD_LIMIT,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import (
    Framing,
    Matching,
)
from tests.fixtures.sixth_protocol import MAX_FRAME, StxProtocol, framed
from tests.solarman import SERIAL, asking, telling
from tests.wire import Frame

from .serial_line import with_crc
from .streams import fed, options, pieces, received

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT = 0x11
BODY = 4096
"""The longest HTTP body here."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One way of speaking: what a client writes, and what a device answers."""

    protocol: type[Protocol[Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    ask: Callable[[int], bytes]
    """A request, its number being in it, as a client writes it."""
    answer: Callable[[bytes], bytes]
    """The response to a request as it reached the device."""
    heard: Callable[[int], bytes]
    """The response that the client gets, or what nobody else gets of it."""
    begins: tuple[bytes, bytes] = (b"", b"")
    """How a message of a client, and one of a device, begins that never ends."""
    endless: bytes
    """Goes on for ever without becoming a message."""
    limit: int
    """Bytes that a codec may keep of it."""

    def made(self) -> Protocol[Any]:
        """Make the protocol."""
        return self.protocol(options(**self.settings))

    def downstream(self) -> DownstreamCodec[Any]:
        """Make the codec that faces a client, which frames as the device does."""
        return self.made().downstream(self.settings.get("framing", Framing.TCP))


def pdu(number: int) -> bytes:
    """Read two registers from an address on that is the request's number."""
    return bytes((3, 0, number, 0, 2))


def values(number: int) -> bytes:
    """Return the two registers, the number being in them."""
    return bytes((3, 4, 0x5A, 0x5A, 0x5A, number))


def modbus_frame(number: int) -> bytes:
    """Return a request as it stands on TCP."""
    return Frame(number + 1, UNIT, pdu(number)).encoded()


def modbus_answer(sent: bytes) -> bytes:
    """Answer on TCP."""
    return Frame(int.from_bytes(sent[:2]), sent[6], values(sent[9])).encoded()


def http_answer(sent: bytes) -> bytes:
    """Answer with the number as the body."""
    found = re.match(rb"GET /(\d+) ", sent)
    assert found is not None
    body = b"answer %03d" % int(found[1])
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def text(number: int) -> bytes:
    """Return a request of a protocol whose messages are anything."""
    return b"ask %03d" % number


def answer_text(asked: bytes) -> bytes:
    """Return the response to it."""
    return asked.replace(b"ask", b"answer")


def length_framed(size: int, digits: bool) -> tuple[Any, Any]:
    """Return what frames, and what answers, behind a length header."""

    def frame(body: bytes) -> bytes:
        head = b"%0*d" % (size, len(body)) if digits else len(body).to_bytes(size)
        return head + body

    return frame, lambda sent: frame(answer_text(sent[size:]))


iso8583, answer_iso8583 = length_framed(2, digits=False)
mpu, answer_mpu = length_framed(4, digits=True)

MODBUS: dict[str, Any] = {
    "protocol": PROTOCOLS["modbus"],
    "ask": modbus_frame,
    "answer": modbus_answer,
    "heard": lambda number: Frame(number + 1, UNIT, values(number)).encoded(),
    "endless": b"\0\1\0\0\0\xfe\x11\3" + b"\1" * 20,
    "limit": 260,
}
SPEAKERS: dict[str, Speaker] = {
    "modbus": Speaker(**MODBUS),
    "modbus, units mapped": Speaker(
        **MODBUS | {"settings": {"unit_map": ((UNIT, 2), (2, UNIT))}}
    ),
    "modbus, lenient": Speaker(**MODBUS | {"settings": {"matching": Matching.LENIENT}}),
    "modbus rtu": Speaker(
        protocol=PROTOCOLS["modbus"],
        settings={"framing": Framing.RTU},
        ask=lambda number: with_crc(bytes((UNIT,)) + pdu(number)),
        answer=lambda sent: with_crc(bytes((UNIT,)) + values(sent[3])),
        heard=lambda number: with_crc(bytes((UNIT,)) + values(number)),
        endless=b"\x11\3" + b"\1" * 20,
        limit=1024,
    ),
    "modbus solarman": Speaker(
        protocol=PROTOCOLS["modbus"],
        settings={"framing": Framing.SOLARMAN, "logger_serial": SERIAL},
        ask=lambda number: asking(number, with_crc(bytes((UNIT,)) + pdu(number))),
        answer=lambda sent: telling(
            sent[5], with_crc(bytes((UNIT,)) + values(sent[29])), count=0
        ),
        heard=lambda number: with_crc(bytes((UNIT,)) + values(number)),
        endless=b"\xa5\xff\x03\x10\x45" + b"\1" * 20,
        limit=13 + 1024,
    ),
    "http": Speaker(
        protocol=PROTOCOLS["http"],
        settings={"max_body": BODY},
        ask=lambda number: b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number,
        answer=http_answer,
        heard=lambda number: b"\r\n\r\nanswer %03d" % number,
        begins=(b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n"),
        endless=b"X-Header: value\r\n",
        limit=HEAD_LIMIT,
    ),
    "iso8583": Speaker(
        protocol=PROTOCOLS["iso8583"],
        ask=lambda number: iso8583(text(number)),
        answer=answer_iso8583,
        heard=lambda number: iso8583(answer_text(text(number))),
        endless=b"\xff\xff" + b"\1" * 20,
        limit=2 + 65_535,
    ),
    "mpu": Speaker(
        protocol=PROTOCOLS["mpu"],
        ask=lambda number: mpu(text(number)),
        answer=answer_mpu,
        heard=lambda number: mpu(answer_text(text(number))),
        endless=b"9999" + b"\1" * 20,
        limit=4 + 9_999,
    ),
    "echo": Speaker(
        protocol=PROTOCOLS["echo"],
        ask=lambda number: text(number) + b"\n",
        answer=answer_text,
        heard=lambda number: answer_text(text(number)) + b"\n",
        endless=b"a line without an end ",
        limit=64 << 10,
    ),
    "stx": Speaker(
        protocol=StxProtocol,
        ask=lambda number: framed(text(number)),
        answer=lambda sent: framed(answer_text(sent[1:-2])),
        heard=lambda number: framed(answer_text(text(number))),
        endless=b"\x02 a frame without an end ",
        limit=MAX_FRAME,
    ),
}

every_speaker = pytest.mark.parametrize("speaker", SPEAKERS.values(), ids=SPEAKERS)
few = settings(max_examples=40)
NUMBERS = st.lists(st.integers(0, 255), max_size=6)


def asked(codec: DownstreamCodec[Any], parts: list[bytes]) -> list[Request]:
    """Return the requests in a valid stream that comes in pieces."""
    events: list[DownstreamEvent] = []
    for part in parts:
        events += received(codec, part)
    requests = [event for event in events if isinstance(event, Request)]
    assert len(requests) == len(events)
    return requests


def test_every_protocol_and_framing_is_held_to_it() -> None:
    known: tuple[type[Protocol[Any]], ...] = (*PROTOCOLS.values(), StxProtocol)
    spoken = {
        (speaker.protocol, speaker.settings.get("framing", Framing.TCP))
        for speaker in SPEAKERS.values()
    }
    assert spoken >= {
        (protocol, framing)
        for protocol in known
        for framing in protocol.framings or (Framing.TCP,)
    }


@every_speaker
@few
@given(data=st.data(), numbers=NUMBERS)
def test_any_split_gives_the_same_requests(
    speaker: Speaker, data: st.DataObject, numbers: list[int]
) -> None:
    stream = b"".join(map(speaker.ask, numbers))
    whole = [asked(speaker.downstream(), [speaker.ask(number)]) for number in numbers]
    codec = speaker.downstream()
    requests = asked(codec, data.draw(pieces(stream)))
    assert [each.payload for each in requests] == [one.payload for (one,) in whole]
    assert codec.buffered == 0
    assert codec.eof() is None


@every_speaker
@few
@given(data=st.data(), numbers=NUMBERS)
def test_any_split_gives_each_request_its_response(
    speaker: Speaker, data: st.DataObject, numbers: list[int]
) -> None:
    """One after the other, on the connections of one client and one device."""
    downstream = speaker.downstream()
    upstream = speaker.made().upstream()
    for number in numbers:
        (request,) = asked(downstream, [speaker.ask(number)])
        said = speaker.answer(upstream.send(request))
        *begin, end = data.draw(pieces(said))
        for part in begin:
            assert fed(upstream, part) == []
            assert upstream.begun(request)
        (answer,) = fed(upstream, end)
        assert isinstance(answer, Answer)
        assert answer.request is request
        assert speaker.heard(number) in downstream.reply(request, answer.response)
        if not upstream.reusable:
            upstream = speaker.made().upstream()


@pytest.mark.parametrize(
    "speaker",
    [
        each
        for each in SPEAKERS.values()
        if each.protocol.correlated and not each.settings
    ],
)
@few
@given(data=st.data(), numbers=st.lists(st.integers(0, 255), min_size=2, unique=True))
def test_responses_out_of_order_go_to_their_requests(
    speaker: Speaker, data: st.DataObject, numbers: list[int]
) -> None:
    downstream, upstream = speaker.downstream(), speaker.made().upstream()
    requests = asked(downstream, [b"".join(map(speaker.ask, numbers))])
    numbered = dict(zip(requests, numbers, strict=True))
    said = [speaker.answer(upstream.send(request)) for request in requests]
    stream = b"".join(data.draw(st.permutations(said)))
    answers = [
        event for part in data.draw(pieces(stream)) for event in fed(upstream, part)
    ]
    assert len(answers) == len(numbers)
    for answer in answers:
        assert isinstance(answer, Answer)
        reply = downstream.reply(answer.request, answer.response)
        assert reply == speaker.heard(numbered[answer.request])


def wild(speaker: Speaker, *more: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Draw a stream of anything: noise, messages, and pieces of messages."""
    message = st.integers(0, 255).map(speaker.ask)
    cut = st.tuples(message, st.integers(0, 40)).map(lambda both: both[0][: both[1]])
    part = st.one_of(st.binary(max_size=60), message, cut, *more)
    return st.lists(part, max_size=6).map(b"".join)


@every_speaker
@few
@given(data=st.data())
def test_any_bytes_of_a_client_are_messages_or_a_clean_close(
    speaker: Speaker, data: st.DataObject
) -> None:
    codec = speaker.downstream()
    for part in data.draw(pieces(data.draw(wild(speaker)))):
        events = received(codec, part)
        assert all(isinstance(each, (Request, Reply, Ignored)) for each in events[:-1])
        if events and isinstance(events[-1], Close):
            return
        for event in events:
            if isinstance(event, Request):
                refusal = codec.refuse(event, Failure.BUSY)
                assert refusal is None or isinstance(refusal, bytes)
        assert 0 <= codec.buffered <= speaker.limit
    assert isinstance(codec.eof(), Ignored | None)


@every_speaker
@few
@given(data=st.data())
def test_any_bytes_of_a_device_are_one_answer_each_or_a_clean_close(
    speaker: Speaker, data: st.DataObject
) -> None:
    said = st.integers(0, 255).map(
        lambda number: speaker.answer(
            speaker.made()
            .upstream()
            .send(*asked(speaker.downstream(), [speaker.ask(number)]))
        )
    )
    codec = speaker.made().upstream()
    waiting: Request | None = None
    for part in data.draw(pieces(data.draw(wild(speaker, said)))):
        if waiting is None and codec.reusable and data.draw(st.booleans()):
            (waiting,) = asked(speaker.downstream(), [speaker.ask(7)])
            codec.send(waiting)
        events = [*fed(codec, part)]
        if not (events and isinstance(events[-1], Close)):
            events += silence(codec)
        assert all(isinstance(each, UPSTREAM) for each in events)
        assert not any(isinstance(each, Close) for each in events[:-1])
        for event in events:
            if isinstance(event, (Answer, Failed)):
                assert event.request is waiting
                waiting = None
        if events and isinstance(events[-1], Close):
            return
    codec.eof()


UPSTREAM = (Answer, Failed, Unsolicited, SendBack, Close)


def silence(codec: UpstreamCodec[Any]) -> list[UpstreamEvent[Any]]:
    """Return what a silence ends, where silence frames."""
    at = codec.deadline(1.0)
    return [] if at is None else codec.tick(at)


@every_speaker
def test_what_is_kept_of_a_client_is_bounded(speaker: Speaker) -> None:
    codec = speaker.downstream()
    codec.receive_data(speaker.begins[0])
    for _ in range(3 * speaker.limit // len(speaker.endless)):
        codec.receive_data(speaker.endless)
        while (event := codec.next_event()) is not None:
            if isinstance(event, Close):
                return
        assert codec.buffered <= speaker.limit


@every_speaker
def test_what_is_kept_of_a_device_is_bounded(speaker: Speaker) -> None:
    """It is passed on, discarded in sight of everybody, or the end."""
    codec = speaker.made().upstream()
    (request,) = asked(speaker.downstream(), [speaker.ask(1)])
    codec.send(request)
    codec.feed(speaker.begins[1])
    kept = len(speaker.begins[1])
    for _ in range(3 * speaker.limit // len(speaker.endless)):
        kept += len(speaker.endless)
        for event in codec.feed(speaker.endless):
            if isinstance(event, Close):
                return
            if isinstance(event, Unsolicited):
                kept -= len(event.data)
            elif isinstance(event, Answer):
                kept -= len(bytes(event.response))
        assert kept <= speaker.limit
