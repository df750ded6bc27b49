"""The RTU codec of a serial port: what an adapter's echo is taken for."""

from __future__ import annotations

import pytest

from custom_components.tcp_multiplexer.multiplexer import SerialLine
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Request,
    SendBack,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.rtu_serial import (
    TEST_SECONDS,
    RtuSerialUpstream,
)

from .serial_line import with_crc

READ, VALUE = b"\1\3\0\x10\0\1", b"\1\3\2\x12\x34"
WRITE = b"\1\6\0\5\x12\x34"
BROADCAST = b"\0\6\0\5\x12\x34"
BITS, BITS_SET = b"\1\1\3\0\0\x18", b"\1\1\3\xab\xcd\xef"
"""A read of coils whose frame could be a response to it, but for its values."""
TEST, TEST_VALUE = with_crc(b"\1\3\0\0\0\1"), with_crc(b"\1\3\2\0\0")


@pytest.fixture
def codec() -> RtuSerialUpstream:
    return RtuSerialUpstream(1.0, SerialLine(device="/dev/ttyUSB0"))


def ask(codec: RtuSerialUpstream, payload: bytes) -> Request:
    """Send a request, which goes out as it is."""
    request = modbus_request(payload, None)
    assert codec.send(request) == with_crc(payload)
    return request


def answers(events: list[UpstreamEvent[bytes]]) -> list[bytes]:
    """Give the responses among what has happened."""
    return [event.response for event in events if isinstance(event, Answer)]


def sent_back(events: list[UpstreamEvent[bytes]]) -> list[bytes]:
    """Give what is to be sent."""
    return [event.data for event in events if isinstance(event, SendBack)]


def learn(codec: RtuSerialUpstream, *, echo: bool) -> None:
    """Let a read tell whether the adapter echoes."""
    ask(codec, READ)
    data = with_crc(READ) * echo + with_crc(VALUE)
    assert answers(codec.feed(data)) == [VALUE]


@pytest.mark.parametrize("payload", [WRITE, BITS])
def test_only_what_comes_behind_the_echo_counts(
    codec: RtuSerialUpstream, payload: bytes
) -> None:
    learn(codec, echo=True)
    ask(codec, payload)
    frame = with_crc(payload)
    answer = with_crc(BITS_SET) if payload == BITS else frame
    for byte in b"\xff\1" + frame + b"\0" + answer[:-1]:
        assert not answers(codec.feed(bytes((byte,))))
    assert answers(codec.feed(answer[-1:])) == [answer[:-2]]


def test_without_an_echo_a_write_is_confirmed_at_once(codec: RtuSerialUpstream) -> None:
    learn(codec, echo=False)
    ask(codec, WRITE)
    assert answers(codec.feed(with_crc(WRITE))) == [WRITE]


def test_a_spoiled_echo_tells_nothing(codec: RtuSerialUpstream) -> None:
    ask(codec, READ)
    spoiled = b"\xff\xff" + with_crc(READ)[2:]
    assert answers(codec.feed(spoiled + with_crc(VALUE))) == [VALUE]
    assert codec.send(modbus_request(WRITE, None)) == TEST


def test_whoever_answers_a_broadcast_does_not_echo(codec: RtuSerialUpstream) -> None:
    ask(codec, BROADCAST)
    assert not answers(codec.feed(with_crc(BROADCAST)))
    at = codec.deadline(0.0)
    assert at is not None
    assert answers(codec.tick(at)) == [BROADCAST]
    assert codec.send(modbus_request(WRITE, None)) == TEST


@pytest.mark.parametrize("echo", [b"", TEST])
def test_a_read_goes_before_a_write(codec: RtuSerialUpstream, echo: bytes) -> None:
    request = modbus_request(WRITE, None)
    assert codec.send(request) == TEST
    assert not codec.begun(request)
    events = codec.feed(echo + TEST_VALUE)
    assert not answers(events)
    assert sent_back(events) == [with_crc(WRITE)]
    copies = [with_crc(WRITE)] * (2 if echo else 1)
    heard = [answers(codec.feed(copy)) for copy in copies]
    assert heard[-1] == [WRITE]
    assert not any(heard[:-1])


@pytest.mark.parametrize("echo", [b"", TEST])
def test_a_silent_device(codec: RtuSerialUpstream, echo: bytes) -> None:
    """An echo depends on no device; a lost one is none."""
    codec.send(modbus_request(WRITE, None))
    assert not codec.feed(echo)
    at = codec.deadline(0.0)
    assert at is not None
    assert at > TEST_SECONDS
    assert not codec.tick(at - 0.1)
    assert sent_back(codec.tick(at)) == [with_crc(WRITE)]
    assert bool(answers(codec.feed(with_crc(WRITE)))) != bool(echo)


def test_a_noisy_line_is_tested_three_times(codec: RtuSerialUpstream) -> None:
    codec.send(modbus_request(WRITE, None))
    noise = b"\xfe" * 8
    sent = [sent_back(codec.feed(noise + TEST_VALUE)) for _ in range(3)]
    assert sent == [[TEST], [TEST], [with_crc(WRITE)]]
    assert answers(codec.feed(with_crc(WRITE))) == [WRITE]


def test_what_was_given_up_leaves_nothing(codec: RtuSerialUpstream) -> None:
    request = modbus_request(WRITE, None)
    codec.send(request)
    assert codec.expire(request)
    assert codec.deadline(0.0) is None
    assert not sent_back(codec.feed(TEST_VALUE))
    learn(codec, echo=False)
