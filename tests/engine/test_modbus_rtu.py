"""RTU over TCP: frames against pymodbus' framer, a bad line, real servers and clients.

The hypothesis of the line itself is in `serial_line.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
import time
from typing import Any, cast, override

from hypothesis import given, strategies as st
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer.rtu import FramerRTU
from pymodbus.pdu import DecodePDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    Failure,
    ListenerSettings,
    Multiplexer,
    RequestError,
    Settings,
    SettingsError,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Ignored,
    Request,
    Unsolicited,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.rtu import (
    BROADCAST,
    MAX_FRAME,
    SILENCE,
    RtuDownstream,
    RtuUpstream,
    crc16,
    request_length,
    response_length,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import (
    Framing,
    OnFailure,
)
from tests.waiting import until
from tests.wire import read, values, write

from .devices import Client
from .serial_line import Line, with_crc
from .streams import payloads, pieces, received

_UNIT = 0x11
_HEX = {
    "read coils": ("01 0013 0013", "01 03 cd6b05"),
    "read discrete inputs": ("02 00c4 0016", "02 03 acdb35"),
    "read holding registers": ("03 006b 0003", "03 06 022b 0000 0064"),
    "read input registers": ("04 0008 0001", "04 02 000a"),
    "write single coil": ("05 00ac ff00", "05 00ac ff00"),
    "write single register": ("06 0001 0003", "06 0001 0003"),
    "read exception status": ("07", "07 6d"),
    "return query data": ("08 0000 a537", "08 0000 a537"),
    "return bus message count": ("08 000b 0000", "08 000b 0102"),
    "get comm event counter": ("0b", "0b ffff 0108"),
    "get comm event log": ("0c", "0c 08 0000 0108 0121 2000"),
    "write multiple coils": ("0f 0013 000a 02 cd01", "0f 0013 000a"),
    "write multiple registers": ("10 0001 0002 04 000a 0102", "10 0001 0002"),
    "report server ID": ("11", "11 05 0102 03 ff 7e"),
    "read file record": (
        "14 0e 06 0004 0001 0002 06 0003 0009 0002",
        "14 0c 05 06 0dfe 0020 05 06 33cd 0040",
    ),
    "write file record": (
        "15 0d 06 0004 0007 0003 06af 04be 100d",
        "15 0d 06 0004 0007 0003 06af 04be 100d",
    ),
    "mask write register": ("16 0004 00f2 0025", "16 0004 00f2 0025"),
    "read/write multiple registers": (
        "17 0003 0006 000e 0003 06 00ff 00ff 00ff",
        "17 0c 00fe 0acd 0001 0003 000d 00ff",
    ),
    "read FIFO queue": ("18 04de", "18 0006 0002 01b8 1284"),
    "read device identification": (
        "2b 0e 01 00",
        "2b 0e 01 01 00 00 03 00 03 414243 01 00 02 05 56322e3131",
    ),
    "read device identification, no object": ("2b 0e 04 80", "2b 0e 04 83 00 00 00"),
}
EXCHANGES = {
    name: (
        bytes((_UNIT,)) + bytes.fromhex(asked),
        bytes((_UNIT,)) + bytes.fromhex(said),
    )
    for name, (asked, said) in _HEX.items()
}
"""Of every standard function, unit and PDU of a request and a response: most are the
examples of the Modbus Application Protocol V1.1b3, 6."""
UNKNOWN = (b"\x11\x41\x01\x02", b"\x11\x41\xca\xfe\xba\xbe")

each_function = pytest.mark.parametrize(
    ("asked", "said"), EXCHANGES.values(), ids=EXCHANGES
)


def exception_to(asked: bytes) -> bytes:
    """Give unit and PDU of the exception that says: illegal data address."""
    return bytes((asked[0], asked[1] | 0x80, 2))


def asking(asked: bytes) -> tuple[RtuUpstream, Request]:
    """Give an upstream codec that has sent a request."""
    codec = RtuUpstream(quiet=1.0)
    request = modbus_request(asked, None)
    assert codec.send(request) == with_crc(asked)
    return codec, request


def answers(events: list[UpstreamEvent[bytes]]) -> list[bytes]:
    """Give the responses among events."""
    return [event.response for event in events if isinstance(event, Answer)]


def strays(events: list[UpstreamEvent[bytes]]) -> bytes:
    """Give all bytes among events that were discarded."""
    return b"".join(event.data for event in events if isinstance(event, Unsolicited))


# ---- confirmations of writes ----------------------------------------------------


@pytest.mark.parametrize(
    "other", ["06 0002 0003", "06 0001 0004", "0001 0003 06 0001 0003"]
)
def test_confirmation_of_another_write_is_noise(other: str) -> None:
    asked, said = EXCHANGES["write single register"]
    codec, _ = asking(asked)
    wrong = with_crc(bytes((_UNIT,)) + bytes.fromhex(other))
    assert not answers(codec.feed(wrong))
    assert answers(codec.feed(with_crc(said))) == [said]


# ---- registers wider than two bytes ----------------------------------------------

TWO = b"\x11\x03\x07\xee\0\2"


def wide(size: int) -> bytes:
    """Return the response to `TWO` of so many bytes."""
    return b"\x11\3" + bytes((size,)) + bytes(range(size))


@pytest.mark.parametrize("size", [8, 12])
@given(data=st.data())
def test_wider_registers_are_taken_after_a_silence(
    size: int, data: st.DataObject
) -> None:
    codec, _ = asking(TWO)
    events: list[UpstreamEvent[bytes]] = []
    for piece in data.draw(pieces(b"\xff" + with_crc(wide(size)))):
        events += codec.feed(piece)
    assert not answers(events)
    assert codec.deadline(0.0) == pytest.approx(0.05)
    assert answers(codec.tick(0.05)) == [wide(size)]


@pytest.mark.parametrize(
    "said",
    [
        with_crc(wide(6)),
        with_crc(wide(8))[:-1] + b"\0",
        with_crc(wide(8)) + b"\0",
        with_crc(wide(8))[:-1],
        with_crc(b"\x11\4" + wide(8)[2:]),
    ],
    ids=["no multiple", "CRC", "something behind", "cut", "function"],
)
def test_what_is_not_wider_is_not_taken(said: bytes) -> None:
    codec, _ = asking(TWO)
    assert not answers(codec.feed(said))
    assert not answers(codec.tick(0.05))
    right = with_crc(wide(4))
    assert answers(codec.feed(right) + codec.tick(0.1)) == [wide(4)]


def test_right_response_behind_a_wider_one_counts() -> None:
    codec, _ = asking(TWO)
    codec.feed(with_crc(wide(8)))
    assert answers(codec.feed(with_crc(wide(4)))) == [wide(4)]


def test_wider_registers_may_say_the_same_again_and_again() -> None:
    codec, _ = asking(TWO)
    for _ in range(5):
        assert not answers(codec.feed(with_crc(wide(8))))
        assert answers(codec.tick(0.05)) == [wide(8)]
        codec.send(modbus_request(TWO[:2] + bytes(3) + b"\2", None))
    # but only as wide as they were
    assert not answers(codec.feed(with_crc(wide(4))[:-1]))
    assert answers(codec.feed(with_crc(wide(4)))) == [wide(4)]
    codec.send(modbus_request(TWO, None))
    assert not answers(codec.feed(with_crc(wide(8))))
    assert not answers(codec.tick(0.05))


def test_copy_of_an_earlier_response_is_not_one_of_wider_registers() -> None:
    codec, _ = asking(b"\x11\x03\0\0\0\4")
    assert answers(codec.feed(with_crc(wide(8)))) == [wide(8)]
    codec.send(modbus_request(TWO, None))
    assert not answers(codec.feed(with_crc(wide(8))))
    assert not answers(codec.tick(0.05))


# ---- CRC and lengths ------------------------------------------------------------


def test_crc_of_the_specification() -> None:
    assert crc16(b"\x02\x07").to_bytes(2, "little") == b"\x41\x12"


@given(data=st.binary(max_size=300))
def test_crc_is_that_of_pymodbus(data: bytes) -> None:
    assert crc16(data).to_bytes(2, "little") == FramerRTU.compute_CRC(data).to_bytes(2)
    assert crc16(with_crc(data)) == 0


@each_function
def test_pymodbus_takes_these_for_requests_and_responses(
    asked: bytes, said: bytes
) -> None:
    for payload, is_server in ((asked, True), (said, False)):
        frame = with_crc(payload)
        used, pdu = FramerRTU(DecodePDU(is_server)).handleFrame(frame, 0, 0)
        assert used == len(frame)
        assert pdu is not None
        assert pdu.function_code == payload[1]


@each_function
def test_lengths_are_known_as_soon_as_the_frame_tells(
    asked: bytes, said: bytes
) -> None:
    question, answer = with_crc(asked), with_crc(said)
    for size in range(1, len(question)):
        length = request_length(question[:size])
        assert length is not None
        assert size < length <= len(question)
    assert request_length(question) == len(question)
    for size in range(1, len(answer)):
        length = response_length(asked, answer[:size])
        assert length is not None
        assert size < length <= len(answer)
    assert response_length(asked, answer) == len(answer)


# ---- upstream -------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("refused", [False, True], ids=["answer", "exception"])
def test_split_at_every_byte(asked: bytes, said: bytes, refused: bool) -> None:
    said = exception_to(asked) if refused else said
    frame = with_crc(said)
    for cut in range(1, len(frame)):
        codec, request = asking(asked)
        assert codec.feed(frame[:cut]) == []
        assert codec.begun(request)
        assert codec.deadline(0.0) is None
        assert codec.feed(frame[cut:]) == [Answer(request, said)]
    codec, request = asking(asked)
    assert not codec.begun(request)
    for at in range(len(frame) - 1):
        assert codec.feed(frame[at : at + 1]) == []
    assert codec.feed(frame[-1:]) == [Answer(request, said)]


NOISE = {
    "zeros": b"\0\0\0",
    "the unit": b"\x11",
    "the unit, twice": b"\x11\x11",
    "another unit's frame": with_crc(b"\x12\x03\x02\x01\x02"),
    "an unknown function's frame": with_crc(b"\x11\x55\x02\x01\x02"),
}


@each_function
@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_noise_before_and_behind(asked: bytes, said: bytes, noise: bytes) -> None:
    for response in (said, exception_to(asked)):
        stream = noise + with_crc(response)
        for cut in range(len(stream)):
            codec, request = asking(asked)
            events = codec.feed(stream[:cut]) + codec.feed(stream[cut:] + noise)
            if codec.deadline(1.0) is not None:  # the noise may be its beginning
                events += codec.tick(1.0 + SILENCE)
            assert answers(events) == [response]
            assert events.count(Answer(request, response)) == 1
            assert strays(events) == noise + noise
            assert codec.feed(noise) == [Unsolicited("nobody asked", noise)]


@each_function
def test_a_corrupt_frame_is_never_an_answer(asked: bytes, said: bytes) -> None:
    for response in (said, exception_to(asked)):
        frame = with_crc(response)
        for at in range(len(frame)):
            for flip in (0x01, 0x80, 0xFF):
                spoiled = bytearray(frame)
                spoiled[at] ^= flip
                codec, _ = asking(asked)
                assert not answers(codec.feed(bytes(spoiled)))
                assert not answers(codec.tick(1.0))
                # what was asked may still be answered, and is
                events = codec.feed(frame)
                if not answers(events):  # a length that was too long swallowed it
                    events = codec.feed(bytes(MAX_FRAME))
                assert answers(events) == [response]


def test_a_frame_with_a_wrong_crc_is_told_as_such() -> None:
    codec, _ = asking(EXCHANGES["read input registers"][0])
    spoiled = bytes.fromhex("11 04 02 000a 0000")
    assert codec.feed(spoiled) == [Unsolicited("the CRC is wrong", spoiled)]


@pytest.mark.parametrize(
    "frame",
    [
        with_crc(b"\x12\x03\x04\0\x01\0\x02"),
        with_crc(b"\x11\x04\x04\0\x01\0\x02"),
        with_crc(b"\x11\x84\x02"),
        with_crc(b"\x11\x03\x06\0\x01\0\x02\0\x03"),
        with_crc(b"\x11\x03\x02\0\x01"),
    ],
    ids=["unit", "function", "function of an exception", "longer", "shorter"],
)
def test_frames_of_other_exchanges_are_strays(frame: bytes) -> None:
    codec, request = asking(b"\x11\x03\0\0\0\x02")
    assert codec.feed(frame) == [Unsolicited("not the response", frame)]
    said = b"\x11\x03\x04\0\x01\0\x02"
    assert codec.feed(with_crc(said)) == [Answer(request, said)]


def test_a_late_frame_is_discarded() -> None:
    asked, said = EXCHANGES["read holding registers"]
    codec, request = asking(asked)
    codec.feed(with_crc(said)[:4])
    assert codec.expire(request)
    late = with_crc(said)[4:]
    assert codec.feed(late) == [
        Unsolicited("it came after its deadline", late, late=True)
    ]
    # what was begun before the deadline is not completed after it
    again = modbus_request(asked, None)
    codec.send(again)
    assert not answers(codec.feed(late))
    assert codec.feed(with_crc(said)) == [Answer(again, said)]
    assert codec.feed(b"x") == [Unsolicited("nobody asked", b"x")]


def test_the_first_frame_counts_if_two_could_be() -> None:
    """A whole exception lies in the data of a longer response, and is none."""
    asked = b"\x01\x03\0\0\0\x04"
    within = with_crc(b"\x01\x83\x02")
    said = b"\x01\x03\x08" + within + b"abc"
    frame = with_crc(said)
    codec, request = asking(asked)
    assert codec.feed(frame[:9]) == []
    assert codec.deadline(5.0) == 5.0 + SILENCE
    assert codec.feed(frame[9:]) == [Answer(request, said)]
    # but if nothing more comes, the long one was noise
    codec, request = asking(asked)
    codec.feed(frame[:8])
    assert codec.tick(5.0) == [
        Unsolicited("not the response", frame[:3]),
        Answer(request, b"\x01\x83\x02"),
    ]


def test_an_unknown_function_ends_with_silence() -> None:
    asked, said = UNKNOWN
    frame = with_crc(said)
    codec, request = asking(asked)
    assert codec.feed(b"\x11\0" + frame[:3]) == [
        Unsolicited("not the response", b"\x11\0")
    ]
    assert codec.deadline(1.0) == 1.0 + SILENCE
    assert codec.tick(1.05) == []
    assert codec.deadline(1.05) is None
    assert codec.feed(frame[3:]) == []
    assert codec.deadline(2.0) == 2.0 + SILENCE
    assert codec.tick(2.05) == [Answer(request, said)]


def test_an_exception_to_an_unknown_function_has_a_length() -> None:
    codec, request = asking(UNKNOWN[0])
    said = exception_to(UNKNOWN[0])
    assert codec.feed(with_crc(said)) == [Answer(request, said)]


def test_a_function_above_127_has_no_exceptions() -> None:
    codec, request = asking(b"\x11\xc1")
    said = b"\x11\xc1\x02\x03\x04"
    assert codec.feed(with_crc(said)) == []
    assert codec.tick(1.0) == [Answer(request, said)]


def test_other_encapsulated_interfaces_end_with_silence() -> None:
    codec, request = asking(b"\x11\x2b\x0d\x01")
    said = b"\x11\x2b\x0d\x01\x02"
    assert codec.feed(with_crc(said)) == []
    assert codec.tick(1.0) == [Answer(request, said)]


def test_what_cannot_be_carried_to_a_client_is_no_frame() -> None:
    codec, _ = asking(b"\x11\x18\0\0")
    too_long = with_crc(b"\x11\x18\0\xfb" + bytes(251))
    assert len(too_long) == MAX_FRAME + 1
    assert codec.feed(too_long) == [Unsolicited("not the response", too_long)]
    codec, _ = asking(UNKNOWN[0])
    codec.feed(with_crc(UNKNOWN[1][:2] + bytes(253)))
    assert not answers(codec.tick(1.0))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"\0" + EXCHANGES[name][0][1:], b"\0" + EXCHANGES[name][1][1:])
        for name in (
            "write single coil",
            "write single register",
            "write multiple coils",
            "write multiple registers",
            "write file record",
            "mask write register",
        )
    ],
)
def test_a_broadcast_gets_its_response_made_up(asked: bytes, said: bytes) -> None:
    codec, request = asking(asked)
    assert codec.deadline(3.0) == 3.0 + BROADCAST
    noise = b"\x01"
    assert codec.feed(noise) == [Unsolicited("not the response", noise)]
    assert codec.deadline(3.05) == 3.0 + BROADCAST
    assert codec.tick(3.05) == []
    assert codec.tick(3.0 + BROADCAST) == [Answer(request, said)]
    assert codec.deadline(3.2) is None
    assert codec.tick(3.2) == []
    # the next one is no broadcast
    codec.send(modbus_request(EXCHANGES["write single register"][0], None))
    assert codec.deadline(4.0) is None


@pytest.mark.parametrize(
    "asked",
    [b"\0\x03\0\0\0\x01", b"\0" + EXCHANGES["read/write multiple registers"][0][1:]],
    ids=["read", "whose response nobody knows"],
)
def test_other_requests_to_unit_0_are_not_made_up(asked: bytes) -> None:
    codec, _ = asking(asked)
    assert codec.deadline(3.0) is None


def test_a_babbling_line_costs_little() -> None:
    """Beginnings of frames without end: neither memory nor time runs away."""
    codec, _ = asking(b"\x11\x03\0\0\0\x7d")
    head = b"\x11\x03\xfa"
    babble = head * 20_000
    began = time.process_time()
    for _ in range(20):
        discarded = strays(codec.feed(babble))
        assert len(discarded) > len(babble) - MAX_FRAME
    assert time.process_time() - began < 5
    said = head + bytes(250)
    assert answers(codec.feed(with_crc(said))) == [said]


@given(data=st.data(), asked=st.binary(min_size=2, max_size=254))
def test_any_bytes_in_any_pieces_are_an_answer_or_noise(
    data: st.DataObject, asked: bytes
) -> None:
    stream = data.draw(
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.binary(max_size=20).map(lambda tail: asked[:2] + tail),
                st.binary(max_size=250).map(lambda tail: with_crc(asked[:2] + tail)),
            )
        ).map(b"".join)
    )
    codec, request = asking(asked)
    said: list[bytes] = []
    for piece in data.draw(pieces(stream)):
        said += answers(codec.feed(piece))
        at = codec.deadline(1.0)
        if at is not None and data.draw(st.booleans()):
            said += answers(codec.tick(at))
    assert len(said) <= 1
    for response in said:
        assert response[0] == asked[0]
        assert (response[1] ^ asked[1]) & 0x7F == 0
        assert len(response) <= 254
        if request.expects_reply:
            assert with_crc(response) in stream


def test_a_bad_line_gives_no_wrong_answer() -> None:
    """Of a million exchanges none is wrong; here are some of them."""
    count = 8000
    line = Line(seed=4)
    line.run(count)
    assert line.wrong == []
    whole = {
        outcome: sum(
            count
            for what, count in line.tally.items()
            if what.startswith(("none", "noise")) and what.endswith(outcome)
        )
        for outcome in ("answered", "given up")
    }
    assert whole["answered"] > 0.6 * count
    assert whole["given up"] < whole["answered"] / 100
    assert line.tally["late: given up"] > 0.06 * count
    assert line.tally["corrupt: given up"] > 0.08 * count


# ---- downstream -----------------------------------------------------------------


@each_function
def test_requests_split_at_every_byte(asked: bytes, said: bytes) -> None:
    frame = with_crc(asked)
    for cut in range(1, len(frame)):
        codec = RtuDownstream(OnFailure.EXCEPTION)
        assert received(codec, frame[:cut]) == []
        assert codec.buffered == cut
        (event,) = received(codec, frame[cut:])
        assert isinstance(event, Request)
        assert event.payload == asked
        assert codec.buffered == 0
        assert codec.reply(event, said) == with_crc(said)


def test_requests_in_one_piece() -> None:
    all_asked = [asked for asked, _ in EXCHANGES.values()]
    codec = RtuDownstream(OnFailure.EXCEPTION)
    events = received(codec, b"".join(map(with_crc, all_asked)))
    assert payloads(events) == all_asked


@given(data=st.data())
def test_requests_in_any_pieces(data: st.DataObject) -> None:
    every = st.sampled_from([asked for asked, _ in EXCHANGES.values()])
    all_asked = data.draw(st.lists(every, max_size=5))
    stream = b"".join(map(with_crc, all_asked))
    codec = RtuDownstream(OnFailure.EXCEPTION)
    events = [
        event for piece in data.draw(pieces(stream)) for event in received(codec, piece)
    ]
    assert payloads(events) == all_asked


def test_a_request_of_an_unknown_function_is_what_came() -> None:
    codec = RtuDownstream(OnFailure.EXCEPTION)
    frame = with_crc(UNKNOWN[0])
    assert received(codec, frame[:3]) == []
    assert payloads(received(codec, frame[3:])) == [UNKNOWN[0]]
    canopen = b"\x01\x2b\x0d\x05\x06"
    assert payloads(received(codec, with_crc(canopen))) == [canopen]


def test_a_request_may_be_longer_than_others_of_its_function() -> None:
    """Diagnostics return as many words of query data as they were sent."""
    asked = b"\x01\x08\0\0\x01\x02\x03\x04"
    assert payloads(received(RtuDownstream(OnFailure.EXCEPTION), with_crc(asked))) == [
        asked
    ]


@each_function
def test_a_corrupt_request_is_discarded(asked: bytes, said: bytes) -> None:
    frame = with_crc(asked)
    for at in range(len(frame)):
        codec = RtuDownstream(OnFailure.EXCEPTION)
        spoiled = bytearray(frame)
        spoiled[at] ^= 0x40
        events = received(codec, bytes(spoiled))
        assert all(isinstance(event, Ignored) for event in events)
        if not events:  # its function is unknown now, or it waits for more
            assert codec.buffered == len(frame)
        # the next request is heard all the same
        assert payloads(received(codec, frame)[-1:]) == [asked]


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"\x01\x41", id="unknown function"),
        pytest.param(b"\x01\x10" + b"\xff" * 5, id="it says that it is longer"),
    ],
)
def test_what_is_too_long_for_a_frame_is_discarded(begin: bytes) -> None:
    codec = RtuDownstream(OnFailure.EXCEPTION)
    events = received(codec, begin + bytes(MAX_FRAME))
    assert events == [Ignored("a frame with a wrong CRC")]
    assert codec.buffered == 0


def test_a_glitch_before_a_request_is_discarded() -> None:
    codec = RtuDownstream(OnFailure.EXCEPTION)
    asked = EXCHANGES["read holding registers"][0]
    assert received(codec, b"\0") == []
    fragment, *requests = received(codec, with_crc(asked))
    assert fragment == Ignored("a frame with a wrong CRC")
    assert payloads(requests) == [asked]
    # likewise if the glitch looked like the beginning of something long
    assert received(codec, b"\x01\x10\0\0\0\x7b\xf6") == []
    fragment, *requests = received(codec, with_crc(asked))
    assert fragment == Ignored("a fragment of a frame")
    assert payloads(requests) == [asked]


def test_nobody_answers_a_broadcast() -> None:
    codec = RtuDownstream(OnFailure.EXCEPTION)
    asked = b"\0" + write(1, 2)
    (event,) = received(codec, with_crc(asked))
    assert isinstance(event, Request)
    assert codec.reply(event, asked) == b""
    assert codec.refuse(event, Failure.NO_CONNECTION) == b""


def test_refusals_are_exceptions_or_a_close() -> None:
    (request,) = received(RtuDownstream(OnFailure.EXCEPTION), with_crc(b"\x01\x07"))
    assert isinstance(request, Request)
    lost = with_crc(b"\x01\x87\x0b")
    assert (
        RtuDownstream(OnFailure.EXCEPTION).refuse(request, Failure.NO_RESPONSE) == lost
    )
    closing = RtuDownstream(OnFailure.CLOSE)
    assert closing.refuse(request, Failure.NO_RESPONSE) is None
    assert closing.refuse(request, Failure.REFUSED) == with_crc(b"\x01\x87\x01")


@given(data=st.data(), stream=st.binary(max_size=600))
def test_any_bytes_of_a_client_are_requests_or_discarded(
    data: st.DataObject, stream: bytes
) -> None:
    codec = RtuDownstream(OnFailure.EXCEPTION)
    for piece in data.draw(pieces(stream)):
        for event in received(codec, piece):
            assert isinstance(event, Request | Ignored)
            if isinstance(event, Request):
                assert with_crc(event.payload) in stream
        assert codec.buffered <= max(MAX_FRAME + 9, len(piece))


# ---- settings -------------------------------------------------------------------


@pytest.mark.parametrize("field", ["max_in_flight", "max_connections"])
def test_a_line_carries_one_exchange_at_a_time(field: str) -> None:
    options: dict[str, Any] = {"host": "h", field: 2}
    Settings(**options)
    with pytest.raises(SettingsError) as error:
        Settings(framing=Framing.RTU, **options)
    assert error.value.field == field


# ---- real lines -----------------------------------------------------------------


class Slave(asyncio.Protocol):
    """A serial server with one slave behind it, whose words a test decides.

    `answer` gives for each request, unit and PDU, what is sent back (None: nothing).
    Everything is said to all connections, as a serial server does.
    """

    def __init__(self) -> None:
        """Answer reads right."""
        self.requests: list[tuple[float, bytes]] = []
        """When each came, and what it was."""
        self.answer: Callable[[bytes], bytes | None] = self.right
        self.links: list[asyncio.Transport] = []
        self.port = 0

    def right(self, asked: bytes) -> bytes:
        """Give the answer of registers that hold their own address."""
        if asked[1] == 6:
            return with_crc(asked)
        address, count = int.from_bytes(asked[2:4]), int.from_bytes(asked[4:6])
        return with_crc(asked[:1] + values(address, count, unit=asked[0]))

    def say(self, data: bytes) -> None:
        """Let the line speak."""
        for link in self.links:
            if not link.is_closing():
                link.write(data)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.links.append(cast("asyncio.Transport", transport))

    @override
    def data_received(self, data: bytes) -> None:
        while data:  # reads and writes of single registers: 8 bytes each
            frame, data = data[:8], data[8:]
            assert with_crc(frame[:-2]) == frame
            self.requests.append((asyncio.get_running_loop().time(), frame[:-2]))
            said = self.answer(frame[:-2])
            if said is not None:
                self.say(said)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.links = [link for link in self.links if not link.is_closing()]


@pytest.fixture
async def slave() -> AsyncGenerator[Slave]:
    """Have a slave behind a serial server."""
    slave = Slave()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: slave, "127.0.0.1", 0)
    slave.port = server.sockets[0].getsockname()[1]
    yield slave
    server.close()
    for link in slave.links:
        link.close()


@asynccontextmanager
async def sharing(port: int, **settings: Any) -> AsyncGenerator[Multiplexer]:
    """Share an RTU line."""
    multiplexer = Multiplexer(
        Settings(
            host="127.0.0.1",
            port=port,
            listen_host="127.0.0.1",
            listen_port=0,
            framing=Framing.RTU,
            **settings,
        )
    )
    await multiplexer.start()
    try:
        yield multiplexer
    finally:
        await multiplexer.stop()


@asynccontextmanager
async def pymodbus_line() -> AsyncGenerator[int]:
    """Serve units 1 to 3 by pymodbus' RTU over TCP; gives the port."""
    devices = [
        SimDevice(
            unit,
            simdata=[SimData(0, values=_registers(unit), datatype=DataType.UINT16)],
        )
        for unit in (1, 2, 3)
    ]
    server = ModbusTcpServer(devices, address=("127.0.0.1", 0), framer=FramerType.RTU)
    await server.serve_forever(background=True)
    try:
        yield cast("asyncio.Server", server.transport).sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


def _registers(unit: int) -> list[int]:
    return [unit * 1000 + address for address in range(300)]


ROUNDS = 10


async def _poll(port: int, framer: FramerType, unit: int, writes: int) -> None:
    """Read and write a unit as a pymodbus client; every value must be right."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port, framer=framer)
    assert await client.connect()
    try:
        for i in range(ROUNDS):
            address, count = i * 21 % 200, i * 9 % 60 + 1
            kind = (
                client.read_input_registers if i % 3 else client.read_holding_registers
            )
            response = await kind(address, count=count, device_id=unit)
            expected = _registers(unit)[address : address + count]
            assert response.registers == expected
            at = 250 + writes
            await client.write_registers(at, [i, i + 1], device_id=unit)
            response = await client.read_holding_registers(at, count=2, device_id=unit)
            assert response.registers == [i, i + 1]
    finally:
        client.close()


async def test_several_clients_share_a_line_of_pymodbus() -> None:
    """Modbus/TCP and RTU clients at once, reads and writes, three units."""
    rtu = ListenerSettings(host="127.0.0.1", port=0, framing=Framing.RTU)
    async with (
        pymodbus_line() as line,
        sharing(line, more_listeners=(rtu,)) as multiplexer,
    ):
        (_, port), (_, rtu_port) = multiplexer.snapshot().listen_addresses
        await asyncio.gather(
            *(
                _poll(port, FramerType.SOCKET, unit=i % 3 + 1, writes=i * 4)
                for i in range(6)
            ),
            *(
                _poll(rtu_port, FramerType.RTU, unit=i + 1, writes=30 + i * 4)
                for i in range(3)
            ),
        )
        snapshot = multiplexer.snapshot()
        assert snapshot.requests == snapshot.responses == 9 * ROUNDS * 3
        assert snapshot.unsolicited_responses == 0
        assert snapshot.connection_attempts == 1


async def test_exceptions_of_a_device_pass() -> None:
    async with pymodbus_line() as line, sharing(line) as multiplexer:
        assert await multiplexer.request(b"\x01\x03\x10\0\0\x01") == b"\x01\x83\x02"


async def test_noise_on_the_line_reaches_nobody(slave: Slave) -> None:
    async with sharing(slave.port) as multiplexer:
        slave.answer = lambda asked: b"\0\x01\xff" + slave.right(asked) + b"\x01\x03"
        for address in range(50):
            asked = b"\x01" + read(address)
            assert await multiplexer.request(asked) == b"\x01" + values(address)
        assert multiplexer.snapshot().unsolicited_responses == 100


async def test_after_a_timeout_the_line_has_its_quiet(slave: Slave) -> None:
    """A response that comes too late, but within the quiet time, reaches nobody."""
    async with sharing(slave.port, timeout=0.5, quiet=0.8) as multiplexer:
        answered = await multiplexer.request(b"\x01" + read(7))
        assert answered == b"\x01" + values(7)
        slave.answer = lambda _: None
        began = asyncio.get_running_loop().time()
        with pytest.raises(RequestError) as error:
            await multiplexer.request(b"\x01" + read(100))
        assert error.value.failure is Failure.NO_RESPONSE
        slave.answer = slave.right
        slave.say(with_crc(b"\x01" + values(100)))
        await multiplexer.apply(replace(multiplexer.settings, timeout=10.0))
        answered = await multiplexer.request(b"\x01" + read(200))
        assert answered == b"\x01" + values(200)
        assert slave.requests[-1][0] >= began + 0.5 + 0.8
        snapshot = multiplexer.snapshot()
        assert (snapshot.late_responses, snapshot.unsolicited_responses) == (1, 0)
        assert snapshot.connection_attempts == 1


async def test_a_new_connection_waits_for_the_quiet_time_too(slave: Slave) -> None:
    """A serial server says what comes late to whoever is connected then."""
    async with sharing(slave.port, quiet=0.4) as multiplexer:
        slave.answer = lambda _: None
        asked = asyncio.ensure_future(multiplexer.request(b"\x01" + read(100)))
        await until(lambda: slave.requests)
        slave.answer = slave.right
        began = asyncio.get_running_loop().time()
        await multiplexer.reconnect(drain=False)
        # it is a read, so it is sent again
        assert await asked == b"\x01" + values(100)
        assert slave.requests[-1][0] >= began + 0.4
        assert len(slave.requests) == 2


async def test_a_frame_in_pieces_is_whole(slave: Slave) -> None:
    async with sharing(slave.port) as multiplexer:
        slave.answer = lambda _: None
        asked = asyncio.ensure_future(multiplexer.request(b"\x01" + read(5)))
        await until(lambda: slave.requests)
        frame = with_crc(b"\x01" + values(5))
        for at in range(len(frame)):
            slave.say(frame[at : at + 1])
            await asyncio.sleep(0.002)
        assert await asked == b"\x01" + values(5)


async def test_an_unknown_function_passes_a_real_line(slave: Slave) -> None:
    async with sharing(slave.port) as multiplexer:
        asked = b"\x01\x41\x01\x02\x03\x04"
        slave.answer = lambda _: with_crc(b"\x01\x41\x0a\x0b\x0c")
        assert await multiplexer.request(asked) == b"\x01\x41\x0a\x0b\x0c"


async def test_a_broadcast_on_a_real_line(slave: Slave) -> None:
    """It is sent once; the client gets its response; the line was left in peace."""
    async with sharing(slave.port) as multiplexer:
        slave.answer = lambda asked: slave.right(asked) if asked[0] else None
        port = multiplexer.snapshot().listen_addresses[0][1]
        client = await Client.connect(port)
        try:
            client.send(write(1, 2), unit=0)
            client.send(read(3), unit=1)
            assert (await client.receive()).pdu == write(1, 2)
            assert (await client.receive()).pdu == values(3)
        finally:
            client.close()
        (sent, broadcast), (after, _) = slave.requests
        assert broadcast == b"\0" + write(1, 2)
        assert after - sent >= BROADCAST * 0.95
        assert multiplexer.snapshot().failures["no_response"] == 0
