"""Modbus/TCP devices that are wrong in small ways: noise, and lengths."""

from __future__ import annotations

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    Request,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.protocol import (
    ModbusProtocol,
)
from tests.wire import Frame, exception, read, values, write

from .conftest import Connect, Multiplex
from .devices import Asked, Device
from .streams import fed, options, pieces

BROADCAST = bytes.fromhex("01200201 5abb391041d78a31ba414391c802000000d502000039fe")
NOISE = [
    b"\xff",
    b"\r\n",
    b"USR-TCP232\r\n",
    BROADCAST,
    bytes(7),
    b"\1\3\2\0\5\x79\x84",
]

each_matching = pytest.mark.parametrize("matching", ["strict", "lenient"])


def asking(
    pdu: bytes, matching: str = "strict"
) -> tuple[UpstreamCodec[bytes], Request, int]:
    """Return an upstream codec, what it has asked, and with which identifier."""
    protocol = ModbusProtocol(options(matching=matching))
    codec = protocol.upstream()
    request = protocol.request(b"\1" + pdu)
    return codec, request, int.from_bytes(codec.send(request)[:2])


def after_silence(codec: UpstreamCodec[bytes]) -> list[UpstreamEvent[bytes]]:
    """Let time pass until the codec has no more to decide."""
    events: list[UpstreamEvent[bytes]] = []
    now = 0.0
    while codec.framed_by_silence and (at := codec.deadline(now)) is not None:
        assert at > now
        now = at
        events += codec.tick(now)
    return events


def answers(events: list[UpstreamEvent[bytes]]) -> list[bytes]:
    """Return the responses among events."""
    return [event.response for event in events if isinstance(event, Answer)]


def discarded(events: list[UpstreamEvent[bytes]]) -> bytes:
    """Return all bytes among events that belong to nobody."""
    return b"".join(event.data for event in events if isinstance(event, Unsolicited))


# ---- bytes that are no frame ----------------------------------------------------


@each_matching
@given(data=st.data(), noise=st.lists(st.sampled_from(NOISE), max_size=4))
def test_noise_before_a_response_is_passed_over(
    matching: str, data: st.DataObject, noise: list[bytes]
) -> None:
    """However its bytes arrive, and whatever the last noise was."""
    if matching == "lenient":  # to which zeros may be a header
        noise = [each for each in noise if 0 not in each]
    codec, request, number = asking(read(7), matching)
    right = Frame(number, 1, values(7)).encoded()
    events: list[UpstreamEvent[bytes]] = []
    for piece in data.draw(pieces(b"".join(noise) + right)):
        events += fed(codec, piece)
    events += after_silence(codec)
    assert answers(events) == [b"\1" + values(7)]
    assert discarded(events) == b"".join(noise)
    assert not any(isinstance(event, Close) for event in events)
    assert not codec.begun(request)


@each_matching
@pytest.mark.parametrize("noise", NOISE, ids=bytes.hex)
def test_noise_soon_behind_a_response_does_not_spoil_it(
    noise: bytes, matching: str
) -> None:
    codec, _, number = asking(read(7), matching)
    right = Frame(number, 1, values(7)).encoded()
    assert answers(fed(codec, right + noise[:2])) == [b"\1" + values(7)]
    fed(codec, noise[2:])
    after_silence(codec)
    again = ModbusProtocol(options()).request(b"\1" + read(8))
    number = int.from_bytes(codec.send(again)[:2])
    assert answers(fed(codec, Frame(number, 1, values(8)).encoded())) == [
        b"\1" + values(8)
    ]


@each_matching
@pytest.mark.parametrize("noise", NOISE[2:4], ids=bytes.hex)
@pytest.mark.parametrize("cut", range(1, 10))
def test_noise_does_not_complete_a_response(
    cut: int, noise: bytes, matching: str
) -> None:
    codec, request, number = asking(read(7, 9), matching)
    right = Frame(number, 1, values(7, 9)).encoded()
    events = fed(codec, right[:-cut])
    events += fed(codec, noise)
    assert not answers(events)
    assert codec.begun(request)
    assert not codec.expire(request)


@pytest.mark.parametrize(
    ("noise", "matching"),
    [
        (b"\xff", "strict"),
        (b"\x77\x77\0\0\0\x50\1\4", "strict"),
        (b"\x77\x77\0\0\0\x50\1\4", "lenient"),
    ],
)
def test_silence_ends_what_is_not_a_response(noise: bytes, matching: str) -> None:
    """So that it swallows no response, and no timeout closes for it."""
    codec, request, number = asking(read(7), matching)
    assert fed(codec, noise) == []
    assert discarded(after_silence(codec)) == noise
    assert codec.begun(request) is (matching == "lenient")  # which cannot tell
    right = Frame(number, 1, values(7)).encoded()
    assert answers(codec.feed(right)) == [b"\1" + values(7)]


def test_response_within_a_frame_that_never_ends_is_found() -> None:
    codec, _, number = asking(read(7))
    right = Frame(number, 1, values(7)).encoded()
    assert fed(codec, b"\x77\x77\0\0\0\x50\1\4" + right) == []
    assert answers(after_silence(codec)) == [b"\1" + values(7)]


def test_timeout_with_noise_keeps_the_connection() -> None:
    codec, request, _ = asking(read(7))
    assert fed(codec, b"\xff") == []
    assert codec.expire(request)


def test_a_flood_of_noise_is_not_kept() -> None:
    codec, request, number = asking(read(7))
    for noise in (
        bytes(1 << 16),
        (number.to_bytes(2) + bytes(3)) * 9999,
        b"\1" * 65536,
    ):
        assert len(discarded(fed(codec, noise))) > len(noise) - 8
    codec.send(ModbusProtocol(options()).request(b"\1" + read(8)))
    assert codec.begun(request)


# ---- exceptions of wrong length -------------------------------------------------


def with_length(number: int, length: int, pdu: bytes = exception(3, 2)) -> bytes:
    """Return the frame of an exception that claims to be `length` bytes long."""
    return number.to_bytes(2) + b"\0\0" + length.to_bytes(2) + b"\1" + pdu


@each_matching
@given(data=st.data(), length=st.sampled_from([0, 1, 2, 4, 5, 6, 9, 254, 255, 0x300]))
def test_exception_of_wrong_length_is_taken_after_a_silence(
    matching: str, data: st.DataObject, length: int
) -> None:
    codec, request, number = asking(read(7), matching)
    for piece in data.draw(pieces(with_length(number, length))):
        assert fed(codec, piece) == []
    assert codec.begun(request)
    assert after_silence(codec) == [Answer(request, b"\1" + exception(3, 2))]
    assert not codec.framed_by_silence


@pytest.mark.parametrize("length", [0, 2, 4, 6, 40, 0x300])
def test_next_response_ends_an_exception_of_wrong_length(length: int) -> None:
    protocol = ModbusProtocol(options())
    codec = protocol.upstream()
    one, two = (protocol.request(b"\1" + read(i)) for i in (1, 2))
    first, second = (int.from_bytes(codec.send(request)[:2]) for request in (one, two))
    behind = Frame(second, 1, values(2)).encoded()
    events = fed(codec, with_length(first, length) + behind)
    assert events == [
        Answer(one, b"\1" + exception(3, 2)),
        Answer(two, b"\1" + values(2)),
    ]


@pytest.mark.parametrize("length", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("come", range(2, 9))
def test_no_exception_is_completed_by_the_next_response(length: int, come: int) -> None:
    """Even if there is just as much of that as the exception claims to be longer."""
    protocol = ModbusProtocol(options())
    codec = protocol.upstream()
    one, two = (protocol.request(b"\1" + read(i)) for i in (1, 2))
    first, second = (int.from_bytes(codec.send(request)[:2]) for request in (one, two))
    behind = Frame(second, 1, values(2)).encoded()
    events = fed(codec, with_length(first, length) + behind[:come])
    assert events in ([], [Answer(one, b"\1" + exception(3, 2))])
    assert [*events, *fed(codec, behind[come:])] == [
        Answer(one, b"\1" + exception(3, 2)),
        Answer(two, b"\1" + values(2)),
    ]


@each_matching
@pytest.mark.parametrize("length", [4, 6, 0x300])
def test_only_an_exception_is_ended_by_silence(length: int, matching: str) -> None:
    codec, request, number = asking(write(1, 2), matching)
    for pdu in (b"\6\0", exception(3, 2)[:1]):
        codec.feed(with_length(number, length, pdu))
        assert not answers(after_silence(codec))
    assert isinstance(request, Request)


@each_matching
@pytest.mark.parametrize("length", [2, 4, 6])
def test_what_names_another_unit_is_no_exception_of_wrong_length(
    length: int, matching: str
) -> None:
    """With lenient matching, nothing else would tell it from noise."""
    codec, _, number = asking(read(7), matching)
    foreign = bytearray(with_length(number, length))
    foreign[6] = 9
    assert not answers(fed(codec, bytes(foreign)))
    assert not answers(after_silence(codec))


@pytest.mark.parametrize("length", [5, 6, 7])
def test_bytes_behind_a_response_cut_short_make_no_exception(length: int) -> None:
    """What began as a response became one when another's frame followed its unit."""
    protocol = ModbusProtocol(options())
    codec = protocol.upstream()
    request = protocol.request(b"\1" + read(7))
    number = int.from_bytes(codec.send(request)[:2])
    cut_short = Frame(number, 1, b"").encoded()[:4] + length.to_bytes(2) + b"\1"
    foreign = Frame(0x839B, 3, values(3)).encoded()  # its number is 3 with the bit set
    events = [*fed(codec, cut_short + foreign), *after_silence(codec)]
    assert not answers(events)
    assert codec.begun(request) or any(isinstance(event, Close) for event in events)


async def test_wrong_length_costs_neither_time_nor_connection(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    def too_long(asked: Asked) -> None:
        asked.link.transport.write(with_length(asked.transaction, 4))

    multiplexer = await multiplex()
    client = await connect(multiplexer)
    device.script.append(too_long)
    assert await client.ask(read(1)) == exception(3, 2)
    assert await client.ask(read(2)) == values(2)
    snapshot = multiplexer.snapshot()
    assert (snapshot.connection_attempts, snapshot.timeouts) == (1, 0)


async def test_noise_between_responses_costs_nothing(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    def noisy(asked: Asked) -> None:
        pdu = device.answer(asked.unit, asked.pdu)
        answered = Frame(asked.transaction, asked.unit, pdu).encoded()
        asked.link.transport.write(BROADCAST + answered + b"\xff")

    device.respond = noisy
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    for address in range(20):
        assert await client.ask(read(address)) == values(address)
    assert multiplexer.snapshot().connection_attempts == 1
