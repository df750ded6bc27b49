"""Unit remapping: clients ask one unit identifier, the device hears another.

The map is one-to-one and nothing is remembered of it: a request carries the original
with it, and its response gets that one's unit back. Units not in the map pass as they
are. It wraps the codec that faces the client, whatever its framing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, override

from ..base import DownstreamCodec, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from ..base import DownstreamEvent, Failure, Ignored
    from ..options import ProtocolOptions


class UnitMap(DownstreamCodec[bytes]):
    """Faces a client that knows the device's units by other numbers."""

    __slots__ = ("_codec", "_make_request", "_units", "ordered")

    def __init__(
        self,
        codec: DownstreamCodec[bytes],
        units: Mapping[int, int],
        make_request: Callable[[bytes, object], Request],
    ) -> None:
        """Map `units` of the client to units of the device, around `codec`."""
        self.ordered = codec.ordered
        self._codec = codec
        self._units = units
        self._make_request = make_request

    @override
    def apply(self, options: ProtocolOptions) -> None:
        self._codec.apply(options)

    @property
    @override
    def buffered(self) -> int:
        return self._codec.buffered

    @override
    def receive_data(self, data: bytes) -> None:
        self._codec.receive_data(data)

    @override
    def next_event(self) -> DownstreamEvent | None:
        event = self._codec.next_event()
        if not isinstance(event, Request):
            return event
        unit = self._units.get(event.payload[0], event.payload[0])
        return self._make_request(bytes((unit,)) + event.payload[1:], event)

    @override
    def identifier(self, request: Request) -> Hashable:
        return self._codec.identifier(request.context)

    @override
    def reply(self, request: Request, response: bytes) -> bytes:
        original: Request = request.context
        return self._codec.reply(original, original.payload[:1] + response[1:])

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        return self._codec.refuse(request.context, failure)

    @override
    def eof(self) -> Ignored | None:
        return self._codec.eof()
