"""Lines, byte by byte."""

from __future__ import annotations

import time

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer.protocols import echo
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    Failed,
    Failure,
    Request,
    Unsolicited,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.echo import EchoProtocol

from .streams import options, payloads, pieces, received

ECHO = EchoProtocol(options())


def test_lines_pass_as_they_are() -> None:
    lines = [b"one\n", b"two\r\n", b"\n", b"\0\xff\n"]
    assert payloads(received(ECHO.downstream(), b"".join(lines))) == lines


def test_tail_without_a_newline_is_dropped_and_told() -> None:
    codec = ECHO.downstream()
    assert payloads(received(codec, b"one\ntwo")) == [b"one\n"]
    assert codec.buffered == 3
    ignored = codec.eof()
    assert ignored is not None
    assert "unfinished" in ignored.reason


def test_nothing_is_told_at_a_clean_end() -> None:
    codec = ECHO.downstream()
    received(codec, b"one\n")
    assert codec.eof() is None


def test_longest_line_passes_and_a_longer_one_closes() -> None:
    longest = bytes(65_535) + b"\n"
    assert payloads(received(ECHO.downstream(), longest)) == [longest]
    (closed,) = received(ECHO.downstream(), b"x" + longest)
    assert isinstance(closed, Close)
    # Not only once the newline comes: nothing may grow.
    (closed,) = received(ECHO.downstream(), bytes(65_536))
    assert isinstance(closed, Close)


def test_limit_counts_from_the_line_s_own_beginning() -> None:
    codec = ECHO.downstream()
    longest = bytes(65_535) + b"\n"
    assert payloads(received(codec, b"one\n" + longest[:60_000])) == [b"one\n"]
    assert payloads(received(codec, longest[60_000:])) == [longest]


def test_response_is_the_first_line_after_the_request() -> None:
    codec = ECHO.upstream()
    request = Request(b"one\n")
    assert codec.send(request) == b"one\n"
    assert codec.feed(b"on") == []
    assert codec.begun(request)
    assert codec.feed(b"e\n") == [Answer(request, b"one\n")]


@pytest.mark.parametrize("more", [b"more\n", b"m", b"\n"])
def test_more_than_was_asked_is_stray_and_closes(more: bytes) -> None:
    codec = ECHO.upstream()
    request = Request(b"one\n")
    codec.send(request)
    answer, stray, closed = codec.feed(b"one\n" + more)
    assert answer == Answer(request, b"one\n")
    assert isinstance(stray, Unsolicited)
    assert stray.data == more
    assert isinstance(closed, Close)


@pytest.mark.parametrize("unasked", [b"welcome\n", b"w", b"\n"])
def test_what_nobody_asked_for_is_stray_and_closes(unasked: bytes) -> None:
    stray, closed = ECHO.upstream().feed(unasked)
    assert isinstance(stray, Unsolicited)
    assert stray.data == unasked
    assert isinstance(closed, Close)


def test_endless_response_fails_its_request() -> None:
    codec = ECHO.upstream()
    request = Request(b"one\n")
    codec.send(request)
    failed, closed = codec.feed(bytes(65_536))
    assert isinstance(failed, Failed)
    assert failed[:2] == (request, Failure.INVALID_RESPONSE)
    assert isinstance(closed, Close)


def test_expired_request_gives_the_connection_up() -> None:
    codec = ECHO.upstream()
    request = Request(b"one\n")
    codec.send(request)
    assert codec.expire(request) is False


def test_own_request_and_probe_are_one_line() -> None:
    assert ECHO.request(b"hello\n").payload == b"hello\n"
    assert ECHO.probe(None) is None
    probe = EchoProtocol(options(probe=b"ping\n")).probe(None)
    assert probe is not None
    assert probe.payload == b"ping\n"
    with pytest.raises(ValueError, match="incomplete"):
        EchoProtocol(options(probe=b"ping"))
    with pytest.raises(ValueError, match="follow"):
        ECHO.request(b"one\ntwo\n")


def test_description_shows_the_lines() -> None:
    assert ECHO.describe(b"one\n", None) == "'one'"
    assert ECHO.describe(b"one\r\n", b"\xff\n") == r"'one\r' -> '�'"
    assert ECHO.describe(b"x" * 99 + b"\n", None) == f"'{'x' * 64}'... 100 bytes"


@given(
    data=st.data(),
    lines=st.lists(
        st.binary(max_size=300).map(lambda x: x.replace(b"\n", b"") + b"\n")
    ),
    tail=st.binary(max_size=20).map(lambda x: x.replace(b"\n", b"")),
)
def test_pieces_do_not_matter_downstream(
    data: st.DataObject, lines: list[bytes], tail: bytes
) -> None:
    codec = ECHO.downstream()
    events = []
    for piece in data.draw(pieces(b"".join(lines) + tail)):
        events += received(codec, piece)
    assert payloads(events) == lines
    assert codec.buffered == len(tail)


@given(data=st.data(), stream=st.binary(max_size=400))
def test_any_bytes_upstream_are_at_most_one_answer_each(
    data: st.DataObject, stream: bytes
) -> None:
    codec = ECHO.upstream()
    waiting = None
    for piece in data.draw(pieces(stream)):
        if waiting is None and data.draw(st.booleans()):
            waiting = Request(b"?\n")
            codec.send(waiting)
        events = codec.feed(piece)
        for event in events:
            if isinstance(event, Answer):
                assert event.request is waiting
                waiting = None
        if events and isinstance(events[-1], Close):
            return
        assert not any(isinstance(event, Close) for event in events)


def test_line_in_many_pieces_costs_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searching or copying all of it for every piece would cost its square."""
    monkeypatch.setattr(echo, "MAX_LINE", 2 << 20)
    line = bytes((2 << 20) - 1) + b"\n"
    codec = ECHO.downstream()
    started = time.process_time()
    events = [
        event
        for at in range(0, len(line), 2)
        for event in received(codec, line[at : at + 2])
    ]
    assert payloads(events) == [line]
    assert time.process_time() - started < 4
