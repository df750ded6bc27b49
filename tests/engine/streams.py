"""What the tests of all codecs share: streams in pieces, codecs asked to the end."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from custom_components.tcp_multiplexer.multiplexer import Settings
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    DownstreamCodec,
    DownstreamEvent,
    Progress,
    Request,
    UpstreamCodec,
    UpstreamEvent,
)


def options(**settings: Any) -> Settings:
    """Make settings that are what a protocol reads its options of."""
    return Settings(**{"host": "device", **settings})


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut `data` anywhere, as a network may; no piece is empty."""
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12))
    return [data[a:b] for a, b in pairwise([0, *sorted(cuts), len(data)]) if a < b]


def received(codec: DownstreamCodec[Any], data: bytes) -> list[DownstreamEvent]:
    """Give all that a downstream codec makes of `data`.

    Up to a close, and the short way first, as the engine does.
    """
    request = codec.fast_request(data)
    if request is not None:
        return [request]
    codec.receive_data(data)
    events: list[DownstreamEvent] = []
    while (event := codec.next_event()) is not None:
        if not isinstance(event, Progress):
            events.append(event)
        if isinstance(event, Close):
            break
    return events


def fed(codec: UpstreamCodec[Any], data: bytes) -> list[UpstreamEvent[Any]]:
    """Give all that an upstream codec makes of `data`, the short way first."""
    answer = codec.fast_answer(data)
    return codec.feed(data) if answer is None else [Answer(*answer)]


def payloads(events: Iterable[DownstreamEvent]) -> list[bytes]:
    """Give the payloads of events that must all be requests."""
    requests = list(events)
    assert all(isinstance(event, Request) for event in requests)
    return [event.payload for event in requests if isinstance(event, Request)]
