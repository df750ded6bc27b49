"""What a client that has left is still told, where replies must be in order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import Result
from custom_components.tcp_multiplexer.multiplexer.downstream.ordered_replies import (
    OrderedReplies,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import Failure

from .test_queue import Asker, read


def test_nothing_is_said_behind_a_read_that_was_dropped() -> None:
    """It would be taken for the reply to that read."""
    codec = SimpleNamespace(refuse=lambda *_: b"no", must_close=False)
    line = OrderedReplies(cast(Any, codec))
    told, dropped, behind = (read(Asker()) for _ in range(3))
    told.result = behind.result = Result(failure=Failure.TOO_LARGE)
    for exchange in (told, dropped, behind):
        line.append(exchange)
    line.abandon([dropped], [])
    said = [line.pop(), line.pop()]
    assert [reply and reply.data for reply in said] == [b"no", None]
