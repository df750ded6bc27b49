"""ISO 8583, MPU and the length headers of other networks, byte by byte."""

from __future__ import annotations

import time

from hypothesis import given, strategies as st
import iso8583
from iso8583.specs import default, default_ascii
import pytest

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    Failed,
    Failure,
    Reply,
    Request,
    SendBack,
    Unsolicited,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.framed import FramingError
from custom_components.tcp_multiplexer.multiplexer.protocols.length_prefixed import (
    Iso8583Protocol,
    LengthEncoding,
    LengthHeader,
    LengthPrefixedProtocol,
    MpuProtocol,
)

from .streams import options, payloads, pieces, received

ISO8583 = Iso8583Protocol(options())
MPU = MpuProtocol(options())
BODY = b"0123456789"


def speaking(header: LengthHeader) -> LengthPrefixedProtocol:
    """Make a protocol of the same codec with another header."""

    class Variant(LengthPrefixedProtocol):
        name = "variant"

    Variant.header = header
    return Variant(options())


# What networks use: the header, how it says "ten bytes follow" and "none", and what
# it can never say.
BINARY_2 = LengthHeader(2)
BINARY_3 = LengthHeader(3)
BINARY_4 = LengthHeader(4)
INCLUSIVE = LengthHeader(2, inclusive=True)
BCD = LengthHeader(2, LengthEncoding.BCD)
ASCII_4 = LengthHeader(4, LengthEncoding.ASCII)
ASCII_5 = LengthHeader(5, LengthEncoding.ASCII)
ASCII_INCLUSIVE = LengthHeader(4, LengthEncoding.ASCII, inclusive=True)
HEX = LengthHeader(4, LengthEncoding.HEX)

TEN = [
    pytest.param(BINARY_2, b"\x00\x0a", id="Post, NAC"),
    pytest.param(BINARY_3, b"\x00\x00\x0a", id="CMF"),
    pytest.param(BINARY_4, b"\x00\x00\x00\x0a", id="Raw"),
    pytest.param(INCLUSIVE, b"\x00\x0c", id="Amex, NAC inclusive"),
    pytest.param(BCD, b"\x00\x10", id="BCD"),
    pytest.param(ASCII_4, b"0010", id="ASCII"),
    pytest.param(ASCII_5, b"00010", id="ASCII of five"),
    pytest.param(ASCII_INCLUSIVE, b"0014", id="ASCII inclusive"),
    pytest.param(HEX, b"000A", id="hex"),
    pytest.param(HEX, b"000a", id="hex in small letters"),
]
NONE = [
    pytest.param(BINARY_2, b"\x00\x00", id="Post, NAC"),
    pytest.param(BINARY_3, b"\x00\x00\x00", id="CMF"),
    pytest.param(INCLUSIVE, b"\x00\x00", id="Amex poll"),
    pytest.param(INCLUSIVE, b"\x00\x02", id="NAC inclusive"),
    pytest.param(BCD, b"\x00\x00", id="BCD"),
    pytest.param(ASCII_4, b"0000", id="ASCII"),
    pytest.param(ASCII_INCLUSIVE, b"0004", id="ASCII inclusive"),
    pytest.param(HEX, b"0000", id="hex"),
]
NEVER = [
    pytest.param(BINARY_3, b"\x01\x00\x00", id="more than 65,535"),
    pytest.param(BINARY_4, b"\xff\xff\xff\xff", id="4 GiB"),
    pytest.param(INCLUSIVE, b"\x00\x01", id="less than the header itself"),
    pytest.param(BCD, b"\x00\x0a", id="no decimal digit"),
    pytest.param(ASCII_4, b"+123", id="plus sign"),
    pytest.param(ASCII_4, b"-001", id="minus sign"),
    pytest.param(ASCII_4, b"1_23", id="underscore"),
    pytest.param(ASCII_4, b" 123", id="space"),
    pytest.param(ASCII_4, b"\xb2\xb3\xb9\xb2", id="other digits"),
    pytest.param(ASCII_5, b"65536", id="ASCII more than 65,535"),
    pytest.param(HEX, b"0x0A", id="hex prefix"),
    pytest.param(HEX, b"000G", id="no hex digit"),
]


@pytest.mark.parametrize(("header", "ten"), TEN)
def test_variant_cuts_its_messages(header: LengthHeader, ten: bytes) -> None:
    message = ten + BODY
    codec = speaking(header).downstream()
    stream = message + message + message[:-1]
    assert payloads(received(codec, stream)) == [message, message]
    assert codec.buffered == len(message) - 1


@pytest.mark.parametrize(("header", "ten"), TEN)
def test_variant_matches_one_response(header: LengthHeader, ten: bytes) -> None:
    codec = speaking(header).upstream()
    request = Request(ten + BODY)
    assert codec.send(request) == ten + BODY
    assert codec.feed(ten + BODY[::-1]) == [Answer(request, ten + BODY[::-1])]


@pytest.mark.parametrize(("header", "none"), NONE)
def test_keepalive_is_echoed_where_it_came_from(
    header: LengthHeader, none: bytes
) -> None:
    protocol = speaking(header)
    assert received(protocol.downstream(), none) == [Reply(none, keepalive=True)]
    assert protocol.upstream().feed(none) == [SendBack(none, keepalive=True)]


@pytest.mark.parametrize(("header", "wrong"), NEVER)
def test_variant_refuses_what_is_no_length(header: LengthHeader, wrong: bytes) -> None:
    with pytest.raises(FramingError):
        header.body_length(wrong)
    protocol = speaking(header)
    (closed,) = received(protocol.downstream(), wrong + BODY)
    assert isinstance(closed, Close)

    codec = protocol.upstream()
    request = Request(b"")
    codec.send(request)
    failed, last = codec.feed(wrong + BODY)
    assert isinstance(failed, Failed)
    assert failed[:2] == (request, Failure.INVALID_RESPONSE)
    assert isinstance(last, Close)


def test_keepalive_does_not_take_the_place_of_a_response() -> None:
    codec = ISO8583.upstream()
    request = Request(b"\x00\x01?")
    codec.send(request)
    assert codec.feed(b"\x00\x00") == [SendBack(b"\x00\x00", keepalive=True)]
    assert codec.feed(b"\x00\x00\x00\x01!\x00\x00") == [
        SendBack(b"\x00\x00", keepalive=True),
        Answer(request, b"\x00\x01!"),
        SendBack(b"\x00\x00", keepalive=True),
    ]


def test_keepalives_and_requests_keep_their_turn() -> None:
    first, keepalive, second = received(ISO8583.downstream(), b"\0\1a\0\0\0\1b")
    assert isinstance(first, Request)
    assert keepalive == Reply(b"\0\0", keepalive=True)
    assert isinstance(second, Request)


def test_longest_messages_pass() -> None:
    longest = b"\xff\xff" + bytes(65_535)
    assert payloads(received(ISO8583.downstream(), longest)) == [longest]
    longest = b"9999" + bytes(9_999)
    assert payloads(received(MPU.downstream(), longest)) == [longest]


def test_second_answer_is_stray_and_closes() -> None:
    codec = ISO8583.upstream()
    request = Request(b"\0\1?")
    codec.send(request)
    answer, stray, closed = codec.feed(b"\0\1!\0\1x\0\1y")
    assert answer == Answer(request, b"\0\1!")
    assert isinstance(stray, Unsolicited)
    assert stray.data == b"\0\1x\0\1y"
    assert isinstance(closed, Close)


@pytest.mark.parametrize("unasked", [b"\0\1x", b"\0\5x", b"\0\5"])
def test_what_nobody_asked_for_is_stray_and_closes(unasked: bytes) -> None:
    """It closes at its first certain byte, not once the message is whole."""
    stray, closed = ISO8583.upstream().feed(unasked)
    assert isinstance(stray, Unsolicited)
    assert stray.data == unasked
    assert isinstance(closed, Close)


@pytest.mark.parametrize("rest", [b"\1x", b"\5x"], ids=["whole", "begun"])
def test_message_that_began_before_the_request_is_not_its_response(rest: bytes) -> None:
    codec = ISO8583.upstream()
    assert codec.feed(b"\0") == []  # may still be a keepalive
    codec.send(Request(b"\0\1?"))
    stray, closed = codec.feed(rest)
    assert isinstance(stray, Unsolicited)
    assert stray.data == b"\0" + rest
    assert isinstance(closed, Close)


def test_keepalive_that_began_before_the_request_is_echoed() -> None:
    codec = ISO8583.upstream()
    codec.feed(b"\0")
    request = Request(b"\0\1?")
    codec.send(request)
    assert codec.feed(b"\0\0\1!") == [
        SendBack(b"\0\0", keepalive=True),
        Answer(request, b"\0\1!"),
    ]


def test_expired_request_gives_the_connection_up() -> None:
    codec = ISO8583.upstream()
    request = Request(b"\0\1?")
    codec.send(request)
    assert codec.expire(request) is False
    stray, closed = codec.feed(b"\0\1!")
    assert isinstance(stray, Unsolicited)
    assert isinstance(closed, Close)


def test_response_has_begun_with_its_first_byte() -> None:
    codec = ISO8583.upstream()
    request, other = Request(b"\0\1?"), Request(b"\0\1?")
    codec.send(request)
    assert not codec.begun(request)
    codec.feed(b"\0")
    assert codec.begun(request)
    assert not codec.begun(other)
    codec.feed(b"\1!")
    assert not codec.begun(request)


def test_refusal_closes() -> None:
    assert ISO8583.downstream().refuse(Request(b"\0\1?"), Failure.BUSY) is None


def test_unfinished_message_at_the_end_is_told() -> None:
    codec = ISO8583.downstream()
    assert received(codec, b"\0\1?\0") != []
    assert codec.eof() is not None
    codec = ISO8583.downstream()
    assert received(codec, b"\0\1?") != []
    assert codec.eof() is None


@pytest.mark.parametrize("spec", [default, default_ascii], ids=["binary", "ASCII"])
@pytest.mark.parametrize("protocol", [ISO8583, MPU], ids=["iso8583", "mpu"])
def test_real_iso8583_messages_pass_unchanged(
    protocol: LengthPrefixedProtocol, spec: iso8583.decoder.SpecDict
) -> None:
    fields = {"t": "0200", "3": "000000", "4": "000000001000", "11": "000123"}
    asked, _ = iso8583.encode({**fields, "41": "TERM0001"}, spec)
    answered, _ = iso8583.encode({**fields, "t": "0210", "39": "00"}, spec)

    def framed(body: bytearray) -> bytes:
        if protocol is MPU:
            return b"%04d" % len(body) + body
        return len(body).to_bytes(2) + body

    (request,) = received(protocol.downstream(), framed(asked))
    assert isinstance(request, Request)
    upstream = protocol.upstream()
    sent = upstream.send(request)
    assert iso8583.decode(sent[protocol.header.size :], spec)[0]["41"] == "TERM0001"
    (answer,) = upstream.feed(framed(answered))
    assert isinstance(answer, Answer)
    reply = protocol.downstream().reply(request, answer.response)
    assert iso8583.decode(reply[protocol.header.size :], spec)[0]["39"] == "00"
    assert protocol.describe(sent, reply) == (
        f"0200, {len(asked)} bytes -> 0210, {len(answered)} bytes"
    )


def test_description_without_a_readable_type_shows_bytes() -> None:
    assert ISO8583.describe(b"\0\2\x02\x00", None) == "2 bytes 02 00"
    assert ISO8583.describe(b"\0\x0312", None) == "2 bytes 31 32"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "incomplete"),
        (b"\0", "incomplete"),
        (b"\0\2x", "incomplete"),
        (b"\0\1x\0", "follow"),
        (b"\0\1x\0\1x", "follow"),
        (b"\0\0", "empty"),
    ],
)
def test_own_request_must_be_one_message(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ISO8583.request(payload)


def test_own_request_with_a_wrong_header_is_refused() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        MPU.request(b"+001x")


def test_probe_is_what_the_user_chose_and_is_checked_at_once() -> None:
    assert MPU.probe(Request(b"0001x")) is None
    protocol = MpuProtocol(options(probe=b"00040800"))
    probe = protocol.probe(None)
    assert probe is not None
    assert probe.payload == b"00040800"
    assert not probe.retry_safe
    with pytest.raises(ValueError, match="incomplete"):
        MpuProtocol(options(probe=b"00050800"))


PROTOCOLS = st.sampled_from([ISO8583, MPU, speaking(INCLUSIVE), speaking(BCD)])


def written(header: LengthHeader, body: bytes) -> bytes:
    """Frame a body, independently of how the codec reads."""
    number = len(body) + (header.size if header.inclusive else 0)
    match header.encoding:
        case LengthEncoding.ASCII:
            return str(number).zfill(header.size).encode() + body
        case LengthEncoding.BCD:
            return bytes.fromhex(str(number).zfill(2 * header.size)) + body
        case _:
            return number.to_bytes(header.size) + body


@given(data=st.data(), protocol=PROTOCOLS, bodies=st.lists(st.binary(max_size=300)))
def test_pieces_do_not_matter_downstream(
    data: st.DataObject, protocol: LengthPrefixedProtocol, bodies: list[bytes]
) -> None:
    messages = [written(protocol.header, body) for body in bodies]
    codec = protocol.downstream()
    events = []
    for piece in data.draw(pieces(b"".join(messages))):
        events += received(codec, piece)
    assert codec.buffered == 0
    assert [
        event.payload if isinstance(event, Request) else event for event in events
    ] == [
        message if body else Reply(message, keepalive=True)
        for message, body in zip(messages, bodies, strict=True)
    ]


@given(data=st.data(), protocol=PROTOCOLS, body=st.binary(min_size=1, max_size=300))
def test_pieces_do_not_matter_upstream(
    data: st.DataObject, protocol: LengthPrefixedProtocol, body: bytes
) -> None:
    message = written(protocol.header, body)
    codec = protocol.upstream()
    request = Request(message)
    codec.send(request)
    *begin, end = data.draw(pieces(message))
    assert [event for piece in begin for event in codec.feed(piece)] == []
    assert codec.feed(end) == [Answer(request, message)]


@given(data=st.data(), protocol=PROTOCOLS, stream=st.binary(max_size=400))
def test_any_bytes_downstream_are_messages_or_a_close(
    data: st.DataObject, protocol: LengthPrefixedProtocol, stream: bytes
) -> None:
    codec = protocol.downstream()
    accounted = b""
    for piece in data.draw(pieces(stream)):
        for event in received(codec, piece):
            if isinstance(event, Close):
                return
            assert isinstance(event, (Request, Reply))
            accounted += event.payload if isinstance(event, Request) else event.data
    assert len(accounted) + codec.buffered == len(stream)
    assert stream.startswith(accounted)


@given(data=st.data(), protocol=PROTOCOLS, stream=st.binary(max_size=400))
def test_any_bytes_upstream_are_at_most_one_answer_each(
    data: st.DataObject, protocol: LengthPrefixedProtocol, stream: bytes
) -> None:
    """Whatever a device sends: one answer a request, nothing after a close."""
    codec = protocol.upstream()
    waiting = None
    for piece in data.draw(pieces(stream)):
        if waiting is None and data.draw(st.booleans()):
            waiting = Request(b"?")
            codec.send(waiting)
        events = codec.feed(piece)
        for event in events:
            if isinstance(event, (Answer, Failed)):
                assert event.request is waiting
                waiting = None
        assert [type(event) for event in events[:-1]].count(Close) == 0
        if events and isinstance(events[-1], Close):
            return


def test_message_in_many_pieces_costs_its_length() -> None:
    """Copying the buffer for every piece would cost its square."""
    codec = speaking(LengthHeader(4, max_body=2 << 20)).downstream()
    message = (2 << 20).to_bytes(4) + bytes(2 << 20)
    started = time.process_time()
    events = [
        event
        for at in range(0, len(message), 2)
        for event in received(codec, message[at : at + 2])
    ]
    assert payloads(events) == [message]
    assert time.process_time() - started < 4


def test_many_messages_at_once_cost_their_length() -> None:
    message = b"\0\1x"
    codec = ISO8583.downstream()
    started = time.process_time()
    assert received(codec, b"\0") == []  # so that they wait in a bytearray
    events = received(codec, (message * 100_000)[1:])
    assert len(events) == 100_000
    assert time.process_time() - started < 4
