"""Modbus RTU on a serial line of this machine, whose adapter may echo what it sends.

Half-duplex adapters hear themselves: what is sent comes back, directly before the
response. With most requests that is mere noise. But the response to some, to a write of
one register for one, is equal to the request: its echo would confirm what nobody has
carried out.

Whether an adapter echoes is told by the first exchange whose response does not look
like its request. Where the first request is one of the others, a harmless read goes
before it. From then on, the first copy of a request is its echo.
"""

from __future__ import annotations

from math import inf
from typing import override

from ..base import Answer, Request, SendBack, UpstreamEvent
from ..options import SerialLine
from .pdu import modbus_request
from .rtu import BY_SILENCE, MAX_FRAME, RtuUpstream, frame_of, response_length

HARMLESS_READ = b"\x03\0\0\0\x01"
"""Holding register 0, as health checks read it."""
TEST_SECONDS = 1.0
"""How long the response to the harmless read is awaited."""
_TESTS = 3
"""An adapter whose echo did not come intact in so many of these reads has none."""


def looks_like_its_response(payload: bytes, frame: bytes) -> bool:
    """Return whether the frame of a request could be taken for the response to it."""
    return response_length(payload, frame) in {len(frame), BY_SILENCE}


class RtuSerialUpstream(RtuUpstream):
    """Faces a serial line through an adapter."""

    __slots__ = (
        "_echo",
        "_echoes",
        "_heard",
        "_holds",
        "_test_until",
        "_tested_for",
        "_tests",
    )

    def __init__(self, quiet: float, line: SerialLine) -> None:
        """Face `line`, of whose adapter nothing is known."""
        super().__init__(quiet, line.character)
        self._echoes: bool | None = None
        """Whether the adapter echoes; None: nothing has told yet."""
        self._echo = b""
        """The echo that is due."""
        self._heard = b""
        """What has come since the last request, up to its echo."""
        self._holds = False
        """What has come is held until it is known to be no echo."""
        self._tested_for: Request | None = None
        """The request that waits until it is known whether the adapter echoes."""
        self._test_until: float | None = None
        self._tests = 0

    @override
    def send(self, request: Request) -> bytes:
        self._test_until = None
        payload = request.payload
        if (
            self._echoes is None
            and request.expects_reply
            and looks_like_its_response(payload, frame_of(payload))
        ):
            self._tested_for = request
            request = modbus_request(payload[:1] + HARMLESS_READ, None)
        return self._send(request)

    def _send(self, request: Request) -> bytes:
        frame = super().send(request)
        self._heard = b""
        self._echo = b"" if self._echoes is False else frame
        self._holds = self._echo != b""
        return frame

    @override
    def feed(self, data: bytes) -> list[UpstreamEvent[bytes]]:
        request = self._request
        if request is None or self._echoes is False:
            return super().feed(data)
        rest = self._without_echo(data, request)
        if not rest:
            return []
        return self._concluded(super().feed(rest))

    def _without_echo(self, data: bytes, request: Request) -> bytes:
        """Return what of `data` may go to the search for the response."""
        self._heard = (self._heard + data)[-2 * MAX_FRAME :]
        if not self._echo:
            return data
        before, echo, behind = self._heard.partition(self._echo)
        held = self._holds
        if echo:
            if request.expects_reply:  # else a device may have answered a broadcast
                self._echoes = True
            self._holds = False
            self._echo = b""
            self._heard = before + behind
        elif looks_like_its_response(request.payload, self._echo):
            return b""  # only what comes behind the echo can be the response
        else:
            self._holds = self._echo.startswith(self._heard)
        if self._holds:
            return b""
        return self._heard if held else data

    def _concluded(
        self, events: list[UpstreamEvent[bytes]]
    ) -> list[UpstreamEvent[bytes]]:
        """Learn from a response; after a test, go on with what waited for it."""
        answer = next((each for each in events if type(each) is Answer), None)
        if answer is None or not answer.request.expects_reply:
            return events
        before = self._heard.find(answer.response)
        if self._echoes is None and 0 <= before < len(answer.request.payload) // 2:
            self._echoes = False  # even of a mutilated echo, more would have come
        if self._tested_for is None:
            return events
        return [each for each in events if each is not answer] + self._go_on()

    def _go_on(self) -> list[UpstreamEvent[bytes]]:
        """Send what waited for the test; if that told nothing, test again."""
        request, self._test_until = self._tested_for, None
        if request is None:
            return []
        self._tests += 1
        if self._echoes is None and self._tests == _TESTS:
            self._echoes = False
        if self._echoes is None:
            return [SendBack(self.send(request))]
        self._tested_for = None
        return [SendBack(self._send(request))]

    @override
    def begun(self, request: Request) -> bool:
        return self._tested_for is None and super().begun(request)

    @override
    def expire(self, request: Request) -> bool:
        self._tested_for = None
        self._echo = self._heard = b""
        return super().expire(request)

    @override
    def deadline(self, now: float) -> float | None:
        at = super().deadline(now)
        if self._tested_for is None:
            return at
        if self._test_until is None:
            self._test_until = now + self._sending + TEST_SECONDS
        return min(self._test_until, inf if at is None else at)

    @override
    def tick(self, now: float) -> list[UpstreamEvent[bytes]]:
        if self._test_until is None or now < self._test_until:
            return self._concluded(super().tick(now))
        if not self._heard and self._echoes is None:
            self._echoes = False  # an echo does not depend on any device
        self._forget()
        return self._go_on()
