"""Solarman V5: the frames in which logger sticks carry Modbus RTU, on port 8899.

There is no specification; the layout is that of pysolarmanv5's documentation (Solarman
V5 Protocol), with all numbers little-endian:

    A5 | length 2 | control 2 | sequence 2 | serial 4 | payload | checksum 1 | 15

`length` counts the payload, `serial` is the stick's, and the checksum is the sum of all
bytes between start and checksum. The payload of a request is 15 bytes and an RTU frame,
that of a response 14 bytes and an RTU frame. A response repeats the first byte of its
request's sequence number; the second is the sender's own count.

Here is what faces a client that only speaks V5, such as pysolarmanv5: it gets back the
sequence byte and the serial number that it sent. What faces a stick is in
`logger_stick`.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, override

from ..base import (
    Close,
    DownstreamCodec,
    DownstreamEvent,
    Failure,
    Ignored,
    Request,
)
from ..options import OnFailure, ProtocolOptions
from .pdu import exception_response, modbus_request
from .rtu import frame_of, is_frame

START, END = 0xA5, 0x15
HEAD = 11
"""Bytes before the payload."""
OVERHEAD = HEAD + 2
MAX_PAYLOAD = 1024
"""Reports are the longest, with some hundred bytes."""

REQUEST, RESPONSE = 0x4510, 0x1510
_CODES = frozenset(
    (b"", *(bytes((kind | code,)) for kind in (0x10, 0x40) for code in range(1, 9)))
)
"""High bytes of control codes, or what may have come of them so far."""

REQUEST_HEAD = b"\x02" + bytes(14)
RESPONSE_HEAD = b"\x02\x01" + bytes(12)
"""Frame type, status, and three times, which nobody awaits of a multiplexer."""
_NO_ANSWER = b"\x05\0"
"""What a stick sends instead of an RTU frame if the inverter did not answer."""

_GIVEN_UP = 32
"""So many sequence bytes of requests without a response are not used again soon."""
_OTHERS, _AHEAD = 4, 16
"""So many sequence bytes of other clients are remembered, and so many behind each are
left to that client, which counts on."""


class Frame(NamedTuple):
    """One V5 frame."""

    control: int
    sequence: bytes
    serial: int
    payload: bytes
    intact: bool = True
    """The checksum is right."""

    def encoded(self) -> bytes:
        """Return it as it is sent."""
        body = b"".join(
            (
                len(self.payload).to_bytes(2, "little"),
                self.control.to_bytes(2, "little"),
                self.sequence,
                self.serial.to_bytes(4, "little"),
                self.payload,
            )
        )
        return b"%c%b%c%c" % (START, body, sum(body) & 0xFF, END)


def frame_size(data: bytes, at: int = 0) -> int | None:
    """Return the size of the frame that begins at `at`; None if none does.

    While too little is there to tell, the result is a lower bound.
    """
    length = int.from_bytes(data[at + 1 : at + 3], "little")
    if (
        data[at] != START
        or not b"\x10".startswith(data[at + 3 : at + 4])
        or data[at + 4 : at + 5] not in _CODES
    ):
        return None
    if len(data) < at + 3:
        return OVERHEAD
    return OVERHEAD + length if 0 < length <= MAX_PAYLOAD else None


def read_frame(data: bytes) -> Frame | None:
    """Return the frame that `data` is; None if its end is wrong."""
    if data[-1] != END:
        return None
    return Frame(
        control=int.from_bytes(data[3:5], "little"),
        sequence=data[5:7],
        serial=int.from_bytes(data[7:HEAD], "little"),
        payload=data[HEAD:-2],
        intact=sum(data[1:-2]) & 0xFF == data[-2],
    )


class Stick:
    """What is known of a logger stick, over all connections to it."""

    __slots__ = ("_given_up", "_number", "_others", "serial")

    def __init__(self, serial: int) -> None:
        """Know its serial number; 0: not yet."""
        self.serial = serial
        self._number = 0
        """The sequence byte of the last request."""
        self._given_up: deque[int] = deque(maxlen=_GIVEN_UP)
        self._others: deque[int] = deque(maxlen=_OTHERS)
        """The last sequence bytes of other clients."""

    def count(self) -> int:
        """Return the sequence byte of the next request.

        It is none that a late response may have, nor one that another client is about
        to use.
        """
        while True:
            self._number = self._number + 1 & 0xFF
            if self._number not in self._given_up and all(
                self._number - other & 0xFF > _AHEAD for other in self._others
            ):
                return self._number

    def give_up(self, number: int) -> None:
        """Note that there was no response to this sequence byte: it may still come."""
        self._given_up.append(number)

    def is_late(self, number: int) -> bool:
        """Return whether a response is to a request that was given up."""
        return number in self._given_up

    def heard(self, number: int) -> None:
        """Note that another client has used this sequence byte."""
        if number not in self._others:
            self._others.append(number)


class SolarmanDownstream(DownstreamCodec[bytes]):
    """Faces one client that speaks V5 to a logger stick."""

    __slots__ = ("_buffer", "_checks", "_count", "_on_failure", "_stick")

    ordered = False

    def __init__(self, stick: Stick, on_failure: OnFailure, *, checks: bool) -> None:
        """Stand for `stick`; `checks` ignores requests with another serial number."""
        self._stick = stick
        self._on_failure = on_failure
        self._checks = checks
        self._buffer = b""
        self._count = 0

    @override
    def apply(self, options: ProtocolOptions) -> None:
        self._on_failure = options.on_failure

    @property
    @override
    def buffered(self) -> int:
        return len(self._buffer)

    @override
    def receive_data(self, data: bytes) -> None:
        self._buffer += data

    @override
    def next_event(self) -> DownstreamEvent | None:
        data = self._buffer
        if not data:
            return None
        size = frame_size(data)
        if size is not None and size > len(data):
            return None
        frame = read_frame(data[:size]) if size else None
        if frame is None:
            return Close("not a Solarman V5 frame")
        self._buffer = data[size:]
        if not frame.intact:
            return Ignored("a Solarman V5 frame with a wrong checksum")
        if frame.control != REQUEST:
            return Ignored("a Solarman V5 frame that asks nothing")
        own = self._stick.serial
        if self._checks and frame.serial != own != 0:
            return Ignored(f"for the logger {frame.serial}, not {own}")
        rtu = frame.payload[len(REQUEST_HEAD) :]
        if not is_frame(rtu):
            return Ignored("no Modbus RTU frame", self._encode(frame, _NO_ANSWER))
        return modbus_request(rtu[:-2], frame)

    def _encode(self, asked: Frame, data: bytes) -> bytes:
        """Return the frame that answers `asked` with `data`.

        A client that does not know the serial number (0) is told it.
        """
        self._count = self._count + 1 & 0xFF
        sequence = bytes((asked.sequence[0], self._count))
        serial = asked.serial or self._stick.serial
        return Frame(RESPONSE, sequence, serial, RESPONSE_HEAD + data).encoded()

    @override
    def identifier(self, request: Request) -> int:
        """Return the sequence byte, which alone the reply repeats."""
        asked: Frame = request.context
        return asked.sequence[0]

    @override
    def reply(self, request: Request, response: bytes) -> bytes:
        asked: Frame = request.context
        return self._encode(asked, frame_of(response))

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        if self._on_failure is OnFailure.CLOSE and not failure.is_rule:
            return None
        return self.reply(request, exception_response(request.payload, failure))
