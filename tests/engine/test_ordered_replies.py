"""What a client that has left is still told, where replies must be in order."""

from __future__ import annotations

from typing import override

from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import Result
from custom_components.tcp_multiplexer.multiplexer.downstream.ordered_replies import (
    OrderedReplies,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    DownstreamCodec,
    DownstreamEvent,
    Failure,
    Request,
)

from .test_queue import Asker, read


class Refusing(DownstreamCodec[bytes]):
    """A codec that only refuses."""

    buffered = 0

    @override
    def receive_data(self, data: bytes) -> None:
        raise NotImplementedError

    @override
    def next_event(self) -> DownstreamEvent | None:
        raise NotImplementedError

    @override
    def reply(self, request: Request, response: bytes) -> bytes:
        raise NotImplementedError

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes:
        return b"no"


def test_nothing_is_said_behind_a_read_that_was_dropped() -> None:
    """It would be taken for the reply to that read."""
    line = OrderedReplies(Refusing())
    told, dropped, behind = (read(Asker()) for _ in range(3))
    told.result = behind.result = Result(failure=Failure.TOO_LARGE)
    for exchange in (told, dropped, behind):
        line.append(exchange)
    line.abandon([dropped], [])
    said = [line.pop(), line.pop()]
    assert [reply and reply.data for reply in said] == [b"no", None]
