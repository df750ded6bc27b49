"""Modbus RTU: serial frames, as serial servers carry them to and from a line.

A frame is a unit identifier, a PDU and a CRC, at most 256 bytes (Modbus over Serial
Line V1.02, 2.5.1); on the line a silence ends it. On TCP there is no such silence to
rely on, so the length is taken from the function code, and silence only decides
where that says nothing. Nothing in a frame says which request it answers.

Upstream: one request is in flight. Its response is looked for at every place where its
unit and function stand; it counts if its CRC is right. What lies before and behind is
noise. If a place further on has a whole frame while one before it waits for more, the
earlier one is given a silence's time: it could be the frame, and the other its data.
A device's registers may be wider than two bytes: a response of a multiple of the size
counts once silence is behind it, unless it is the copy of an earlier one.
A frame with a wrong CRC does not end the exchange: the response may be still to come,
and would be taken for the next one's. What arrives while nothing is asked belongs to
nobody.

Downstream: clients that only speak RTU. A frame whose CRC is wrong is discarded, with
all that was received, as a device on a line does; the client will ask again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import override

from ..base import (
    Answer,
    DownstreamCodec,
    DownstreamEvent,
    Failure,
    Ignored,
    Request,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from ..options import SILENT_CHARACTERS, OnFailure, ProtocolOptions
from .pdu import (
    EXCEPTION_BIT,
    byte_count,
    confirms_another,
    exception_response,
    modbus_request,
    register_width,
    success_response,
)

MIN_FRAME = 4
MAX_FRAME = 256
SILENCE = 0.05
"""Seconds after which nothing more of a frame is expected. On the line, 3.5 characters
(4 ms at 9600 baud); serial servers and networks tear frames further apart."""
BROADCAST = 0.1
"""Seconds that devices get to carry out a broadcast, which none of them answers:
the turnaround delay, 100 to 200 ms (Modbus over Serial Line V1.02, 2.4.1)."""

TOLD = 4
"""So many responses are remembered, to know a copy of one."""
_WINDOW = 1024
"""So many of the last bytes are searched: a bound to what a babbling line costs."""


def _table() -> Iterator[int]:
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)  # noqa: PLW2901
        yield crc


_CRC_OF_BYTE = tuple(_table())


def crc16(data: bytes) -> int:
    """Return the CRC of `data`; of a whole frame with a right CRC it is 0.

    Modbus over Serial Line V1.02, 6.2.2. (Bit by bit it would take ten times as long.)
    """
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_OF_BYTE[(crc ^ byte) & 0xFF]
    return crc


def frame_of(payload: bytes) -> bytes:
    """Return the frame of a unit identifier and a PDU."""
    return payload + crc16(payload).to_bytes(2, "little")


def is_frame(data: bytes) -> bool:
    """Return whether `data` is a frame: of possible length, its CRC right."""
    return MIN_FRAME <= len(data) <= MAX_FRAME and crc16(data) == 0


# Lengths of whole frames, from Modbus Application Protocol V1.1b3, 6. A response or a
# request of a function in none of these has its length within, or none that is known.
_EXCEPTION_LENGTH = 5
_RESPONSE_LENGTHS = {5: 8, 6: 8, 7: 5, 0x0B: 8, 0x0F: 8, 0x10: 8, 0x16: 10}
_COUNTED_RESPONSES = frozenset((1, 2, 3, 4, 0x0C, 0x11, 0x14, 0x15, 0x17))
"""A byte count follows the function."""
_REQUEST_LENGTHS = {
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 8), 8),
    **dict.fromkeys((7, 0x0B, 0x0C, 0x11), 4),
    0x16: 10,
    0x18: 6,
}
_COUNTED_REQUESTS = {0x0F: 6, 0x10: 6, 0x14: 2, 0x15: 2, 0x17: 10}
"""Where their byte count stands."""
_DIAGNOSTICS = 0x08
_READ_FIFO_QUEUE = 0x18
_ENCAPSULATED = 0x2B
_READ_DEVICE_IDENTIFICATION = b"\x0e"
BY_SILENCE = MAX_FRAME + 1
"""Stands for a length that only silence tells."""


def response_length(payload: bytes, frame: bytes) -> int | None:
    """Return the length of the frame that answers `payload` and begins with `frame`.

    None if no such frame begins like this. While `frame` has too little to tell the
    length, the result is a lower bound that is not there yet.
    """
    function = payload[1]
    if len(frame) < 2:
        return MIN_FRAME
    if frame[1] != function:
        return _EXCEPTION_LENGTH if frame[1] == function | EXCEPTION_BIT else None
    if function == _DIAGNOSTICS:
        return len(payload) + 2
    if function in _RESPONSE_LENGTHS:
        return _RESPONSE_LENGTHS[function]
    if function in _COUNTED_RESPONSES:
        if len(frame) < 3:
            return _EXCEPTION_LENGTH
        if byte_count(payload) not in {None, frame[2]}:
            return None
        length = frame[2] + 5
    elif function == _READ_FIFO_QUEUE:
        length = 6 if len(frame) < 4 else int.from_bytes(frame[2:4]) + 6
    elif function == _ENCAPSULATED and payload[2:3] == _READ_DEVICE_IDENTIFICATION:
        if len(frame) > 2 and frame[2:3] != _READ_DEVICE_IDENTIFICATION:
            return None
        length = _identification_length(frame)
    else:
        return BY_SILENCE
    return length if length <= MAX_FRAME else None


def _identification_length(frame: bytes) -> int:
    """Return the length of a read device identification response (6.21), likewise.

    Unit, function, MEI type, code, conformity level, more follows, next object and
    number of objects; then each object's identifier, length and value.
    """
    if len(frame) < 8:
        return 10
    at = 8
    for _ in range(frame[7]):
        if len(frame) < at + 2:
            return at + 4
        at += 2 + frame[at + 1]
    return at + 2


def request_length(frame: bytes) -> int | None:
    """Return the length of the request that begins with `frame`.

    None if its function is unknown. While `frame` has too little to tell the length,
    the result is a lower bound that is not there yet.
    """
    if len(frame) < 2:
        return MIN_FRAME
    function = frame[1]
    if function in _COUNTED_REQUESTS:
        at = _COUNTED_REQUESTS[function]
        return at + 3 if len(frame) <= at else at + 3 + frame[at]
    if function == _ENCAPSULATED:
        return 7 if frame[2:3] in {b"", _READ_DEVICE_IDENTIFICATION} else None
    return _REQUEST_LENGTHS.get(function)


class RtuUpstream(UpstreamCodec[bytes]):
    """Faces a serial line behind one connection."""

    __slots__ = (
        "_answer_at",
        "_broadcast",
        "_buffer",
        "_character",
        "_given_up",
        "_request",
        "_sending",
        "_silence_tells",
        "_spoiled",
        "_told",
        "_widths",
        "quiet",
    )

    framed_by_silence = True
    names_unit = True

    def __init__(self, quiet: float, character: float = 0.0) -> None:
        """Keep `quiet` seconds of silence after a request that was given up.

        `character` is how long one takes on the line (s), if that is known.
        """
        self.quiet = quiet
        self._character = character
        self._sending = 0.0
        """Seconds that the last request takes on the line."""
        self._request: Request | None = None
        self._buffer = b""
        """What may become the response; it begins where that may begin."""
        self._given_up = False
        """The last request got no response: it may still come."""
        self._spoiled = False
        """A frame had the right head and length and the wrong CRC."""
        self._told: deque[bytes] = deque(maxlen=TOLD)
        """The last responses, which a device may send twice."""
        self._widths: dict[bytes, int] = {}
        """Of units and functions: how wide their registers are, if more than usual."""
        self._silence_tells = False
        """Silence would decide what to make of the buffer."""
        self._broadcast: bytes | None = None
        """The response that nobody will send."""
        self._answer_at: float | None = None

    @override
    def send(self, request: Request) -> bytes:
        payload = request.payload
        self._request = request
        self._given_up = self._spoiled = self._silence_tells = False
        self._broadcast = None if request.expects_reply else success_response(payload)
        self._answer_at = None
        frame = frame_of(payload)
        self._sending = len(frame) * self._character
        return frame

    @override
    def feed(self, data: bytes) -> list[UpstreamEvent[bytes]]:
        request = self._request
        if request is None:
            reason = "it came after its deadline" if self._given_up else "nobody asked"
            unit = data[0] if self._given_up and is_frame(data) else None
            return [Unsolicited(reason, data, late=self._given_up, unit=unit)]
        return self._search(request, self._buffer + data, silent=False)

    def _search(
        self, request: Request, buffer: bytes, *, silent: bool
    ) -> list[UpstreamEvent[bytes]]:
        """Look for the response in all that came and could be part of it."""
        payload = request.payload
        size = len(buffer)
        begun = None
        """The first place where a response may have begun that is not all here."""
        wide = None
        """The first place of one with wider registers: silence must be behind it."""
        self._silence_tells = False
        for at in _places(buffer, payload[0]):
            length = response_length(payload, buffer[at : at + MAX_FRAME])
            if length is None:
                length = self._wide_length(payload, buffer, at)
                if length is None:
                    continue
                wide = at if wide is None else wide
                if not silent or length > size - at:
                    self._silence_tells |= length == size - at
                    continue
            if length <= size - at:
                if not is_frame(buffer[at : at + length]):
                    self._spoiled = True
                    continue
                if confirms_another(payload, buffer[at : at + length - 2]):
                    continue
                if begun is not None and not silent:
                    self._silence_tells = True
                    break
            elif silent and length == BY_SILENCE and is_frame(buffer[at:]):
                length = size - at
            else:
                self._silence_tells |= length == BY_SILENCE
                begun = at if begun is None else begun
                continue
            return self._found(request, buffer, at, at + length)
        kept = min(size if begun is None else begun, size if wide is None else wide)
        self._buffer = buffer[kept:]
        return [self._noise(buffer[:kept])] if kept else []

    def _wide_length(self, payload: bytes, buffer: bytes, at: int) -> int | None:
        """Return the length of a response whose registers are wider than two bytes.

        None if none ends at the end of `buffer`, or behind that. The copy of an earlier
        response is none, unless the unit has shown that its registers are so wide.
        """
        width = register_width(payload, buffer[at : at + 3])
        if width < 2:
            return None
        length = buffer[at + 2] + 5
        if not len(buffer) - at <= length <= MAX_FRAME:
            return None
        if width == self._widths.get(payload[:2]):
            return length
        return None if buffer[at:-2] in self._told else length

    def _found(
        self, request: Request, buffer: bytes, at: int, end: int
    ) -> list[UpstreamEvent[bytes]]:
        """End the exchange with the frame between `at` and `end`."""
        events: list[UpstreamEvent[bytes]] = []
        if at:
            events.append(self._noise(buffer[:at]))
        response = buffer[at : end - 2]
        self._told.append(response)
        head, width = request.payload[:2], register_width(request.payload, response[:3])
        if width > 1:
            self._widths[head] = width
        elif width:
            self._widths.pop(head, None)
        events.append(Answer(request, response))
        if end < len(buffer):
            events.append(Unsolicited("nobody asked", buffer[end:]))
        self._forget()
        return events

    def _noise(self, data: bytes) -> Unsolicited:
        return Unsolicited(
            "the CRC is wrong" if self._spoiled else "not the response", data
        )

    def _forget(self) -> None:
        self._request = None
        self._buffer = b""

    @override
    def begun(self, request: Request) -> bool:
        return bool(self._buffer) or self._spoiled

    @override
    def expire(self, request: Request) -> bool:
        self._forget()
        self._given_up = True
        return True

    @override
    def deadline(self, now: float) -> float | None:
        if self._request is None:
            return None
        if self._broadcast is not None:
            if self._answer_at is None:
                self._answer_at = now + self._sending + BROADCAST
            return self._answer_at
        if not self._silence_tells:
            return None
        return now + SILENCE + SILENT_CHARACTERS * self._character

    @override
    def tick(self, now: float) -> list[UpstreamEvent[bytes]]:
        request = self._request
        if request is None:
            return []
        if self._answer_at is not None and self._broadcast is not None:
            if now < self._answer_at:
                return []
            self._forget()
            return [Answer(request, self._broadcast)]
        if not self._silence_tells:
            return []
        events = self._search(request, self._buffer, silent=True)
        self._silence_tells = False
        return events


def _places(buffer: bytes, unit: int) -> Iterator[int]:
    """Return where `unit` stands in the last bytes of `buffer`."""
    at = buffer.find(unit, max(0, len(buffer) - _WINDOW))
    while at != -1:
        yield at
        at = buffer.find(unit, at + 1)


class RtuDownstream(DownstreamCodec[bytes]):
    """Faces one client that speaks RTU over TCP.

    Requests of the known functions end by their length, so they may come in pieces or
    several at a time. One of an unknown function is taken when all that was received
    has a right CRC. A fragment is dropped for the whole frame that comes after it.
    """

    __slots__ = ("_buffer", "_last", "_on_failure", "_start")

    def __init__(self, on_failure: OnFailure) -> None:
        self._buffer = b""
        self._start = 0
        self._last = 0
        """Where the bytes that came last begin."""
        self._on_failure = on_failure

    @override
    def apply(self, options: ProtocolOptions) -> None:
        self._on_failure = options.on_failure

    @property
    @override
    def buffered(self) -> int:
        return len(self._buffer) - self._start

    @override
    def receive_data(self, data: bytes) -> None:
        kept = self._buffer[self._start :]
        self._buffer = kept + data
        self._start = 0
        self._last = len(kept)

    @override
    def next_event(self) -> DownstreamEvent | None:
        frame = self._buffer[self._start : self._start + MAX_FRAME + 1]
        size = len(frame)
        if not size:
            return None
        length = request_length(frame)
        if length is None or length > MAX_FRAME:  # A count may say what cannot be.
            length = size
            complete = size > MAX_FRAME or is_frame(frame)
        else:
            complete = length <= size
        if not complete:
            if self._start < self._last and is_frame(self._buffer[self._last :]):
                return self._discard("a fragment of a frame")
            return None
        if not is_frame(frame[:length]):
            if not is_frame(frame):
                return self._discard("a frame with a wrong CRC")
            length = size  # longer than others of its function
        self._start += length
        return modbus_request(frame[: length - 2], None)

    def _discard(self, reason: str) -> Ignored:
        """Go on with the bytes that came last, unless they are what is wrong."""
        end = len(self._buffer)
        self._start = self._last if self._start < self._last else end
        return Ignored(reason)

    @override
    def reply(self, request: Request, response: bytes) -> bytes:
        if not request.expects_reply:
            return b""  # a broadcast has no response on a line: nobody awaits one
        return frame_of(response)

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        if self._on_failure is OnFailure.CLOSE and not failure.is_rule:
            return None
        return self.reply(request, exception_response(request.payload, failure))
