"""All tapes that are kept are played again, and would find what they once found."""

import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.expiry import Expiry
from custom_components.tcp_multiplexer.multiplexer.protocols.base import Request
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.tcp import (
    ModbusDownstream,
)
from tests.simulation.loop import Restless
from tests.simulation.questions import Violation

from . import codecs, engine
from .corpus import kept
from .reach import Reach

ALONE = b"\0\2\1\3\4\0"
"""Modbus: a client asks, it is sent, and the device answers."""
UNANSWERED = b"\0\0\0\2\0\0"
"""Modbus: a client asks, and the device does not answer."""


def test_kept_tapes_for_codecs() -> None:
    tapes = kept("codecs")
    assert len(tapes) > 100
    for tape in tapes:
        codecs.play(tape)


def test_kept_tapes_for_the_engine() -> None:
    tapes = kept("engine")
    assert len(tapes) > 100
    for tape in tapes:
        engine.play(tape)


def test_a_codec_that_cuts_requests_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_request = ModbusDownstream.fast_request

    def cut(codec: ModbusDownstream, data: bytes) -> Request | None:
        request = fast_request(codec, data)
        if request is not None:
            request.payload = request.payload[:-1]
        return request

    codecs.play(ALONE)
    monkeypatch.setattr(ModbusDownstream, "fast_request", cut)
    with pytest.raises(AssertionError):
        codecs.play(ALONE)


def test_an_engine_that_forgets_deadlines_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.play(UNANSWERED)
    monkeypatch.setattr(Expiry, "give_up", lambda *_: None)
    with pytest.raises(Restless, match="turns in no time"):
        engine.play(UNANSWERED)


def test_an_engine_that_answers_nobody_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ModbusDownstream, "refuse", lambda *_: b"")
    with pytest.raises(Violation, match="left waiting: 1 asked"):
        engine.play(UNANSWERED)


def test_tapes_that_reach_nothing_new_are_not_kept() -> None:
    useful = Reach().useful(codecs.play, [b"\0", ALONE, ALONE])
    assert useful == [b"\0", ALONE]
