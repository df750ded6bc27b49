"""Lenient matching: for devices that echo neither transaction identifier nor unit.

One request is in flight, and a response of its function and size is its own.
"""

import re
from typing import override

from ..base import Answer, Request, Unsolicited, UpstreamEvent
from .matching import ModbusUpstream, Transactions
from .pdu import EXCEPTION_BIT, may_answer
from .tcp import MIDDLES, PREFIX


class LenientUpstream(ModbusUpstream):
    """Faces a device that does not echo the transaction identifier, or the unit.

    With one request in flight, a response of its function is taken for its own, to a
    read also one whose byte count fits. Nothing else tells it from a late one.
    """

    __slots__ = ("_given_up", "quiet")

    def __init__(self, transactions: Transactions, quiet: float) -> None:
        """Keep `quiet` seconds of silence after a request that was given up."""
        super().__init__(transactions)
        self.quiet = quiet
        self._given_up = False
        """The last request got no response: it may still come."""

    @override
    def send(self, request: Request) -> bytes:
        self._given_up = False
        return super().send(request)

    @override
    def fast_answer(self, data: bytes) -> None:
        """There is no short way to see what a response without a number answers."""

    @override
    def _match(self, frame: bytes) -> UpstreamEvent[bytes]:
        request = next(iter(self._in_flight.values()), None)
        response = frame[PREFIX:]
        if request is None:
            reason = "it came after its deadline" if self._given_up else "nobody asked"
            return Unsolicited(reason, frame, late=self._given_up)
        if not may_answer(request.payload, response):
            return Unsolicited("function or byte count do not fit", frame)
        self._in_flight.clear()
        return Answer(request, request.payload[:1] + response[1:])

    @override
    def _find_own(self, data: bytes, start: int) -> int:
        found = self._header().search(data, start) if self._in_flight else None
        return len(data) if found is None else found.start()

    def _header(self) -> re.Pattern[bytes]:
        """Return what the header of a response looks like."""
        function = next(iter(self._in_flight.values())).payload[1]
        refusal = re.escape(bytes((function | EXCEPTION_BIT,)))
        either = re.escape(bytes((function,))) + refusal
        pattern = rb"..\0\0(?:\0[\x02-\xfe].[%b]|...%b)" % (either, refusal)
        return re.compile(pattern, re.DOTALL)

    @override
    def _is_own(self, data: bytes, at: int) -> bool:
        head = data[at : at + 8]
        request = next(iter(self._in_flight.values()), None)
        if request is None or not b"\0\0".startswith(head[2:4]):
            return False
        function = request.payload[1]
        refused = head[7:] == bytes((function | EXCEPTION_BIT,))
        return refused or (
            bytes((function,)).startswith(head[7:])
            and (head[2:PREFIX] in MIDDLES or len(head) < 8)
        )

    @override
    def _own_within(self, data: bytes, start: int, end: int) -> int:
        """Return `end`: values look too much like a header of unknown identifier."""
        return end

    @override
    def begun(self, request: Request) -> bool:
        return bool(self._touched) or (
            bool(self._buffer) and self._is_own(self._buffer, 0)
        )

    @override
    def expire(self, request: Request) -> bool:
        self._given_up = True
        return super().expire(request)
