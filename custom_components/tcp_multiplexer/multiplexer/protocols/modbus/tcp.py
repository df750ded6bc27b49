"""Modbus/TCP: the MBAP header in front of a unit identifier and a PDU.

A frame is seven bytes of header and a PDU (Modbus Messaging on TCP/IP V1.0b, 3.1):

    transaction 2 | protocol 2, always 0 | length 2 | unit 1 | function 1 | data

`length` counts from the unit on, so it is 2 to 254, and a frame is at most 260 bytes.

The frame is cut from the stream of a client, its transaction identifier kept aside, and
unit and PDU become the request. What faces a device is in `matching`.
"""

from __future__ import annotations

from typing import Final, override

from ..base import (
    Close,
    DownstreamCodec,
    DownstreamEvent,
    Failure,
    Ignored,
    Request,
)
from ..options import OnFailure, ProtocolOptions
from .pdu import (
    PLAIN_QUANTITIES,
    PLAIN_READS,
    PlainRead,
    exception_response,
    modbus_request,
)

MIN_LENGTH: Final = 2
MAX_LENGTH: Final = 254
PREFIX: Final = 6
"""Header bytes that `length` does not count."""
MIN_FRAME = PREFIX + MIN_LENGTH

# The middle of a header, for each length: protocol 0 and the length itself.
MIDDLE: Final = tuple(b"\0\0" + length.to_bytes(2) for length in range(MAX_LENGTH + 1))
# The same, for each size of a whole frame.
MIDDLE_OF_FRAME: Final = {
    PREFIX + length: MIDDLE[length] for length in range(MIN_LENGTH, MAX_LENGTH + 1)
}

_MIDDLE_OF_READ: Final = MIDDLE[6]

# All of them, and what may have come of them so far.
MIDDLES: Final = frozenset((*MIDDLE_OF_FRAME.values(), b"", b"\0", b"\0\0", b"\0\0\0"))


def frame_of(transaction: bytes, payload: bytes) -> bytes:
    """Return the frame of a unit identifier and a PDU."""
    return transaction + MIDDLE[len(payload)] + payload


def may_begin(data: bytes, at: int) -> bool:
    """Return whether the bytes from `at` on can be the beginning of a header."""
    return data[at + 2 : at + PREFIX] in MIDDLES


class ModbusDownstream(DownstreamCodec[bytes]):
    """Faces one Modbus/TCP client."""

    __slots__ = ("_buffer", "_on_failure", "_start")

    ordered = False

    def __init__(self, on_failure: OnFailure) -> None:
        self._buffer = b""
        self._start = 0
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
        if self._buffer:
            data = self._buffer[self._start :] + data
            self._start = 0
        self._buffer = data

    @override
    def next_event(self) -> DownstreamEvent | None:
        buffer, start = self._buffer, self._start
        size = len(buffer) - start
        if size < PREFIX:
            return None
        length = buffer[start + 4] << 8 | buffer[start + 5]
        if not MIN_LENGTH <= length <= MAX_LENGTH:
            return Close(f"not a Modbus/TCP frame: length {length}")
        if size < PREFIX + length:
            return None
        end = start + PREFIX + length
        if size == PREFIX + length:
            self._buffer = b""
            self._start = 0
        else:
            self._start = end
        if buffer[start + 2] or buffer[start + 3]:
            return Ignored("protocol identifier is not 0")
        return modbus_request(buffer[start + PREFIX : end], buffer[start : start + 2])

    @override
    def fast_request(self, data: bytes) -> Request | None:
        if self._buffer:
            return None
        if (
            data[2:PREFIX] == _MIDDLE_OF_READ
            and data[10:] in PLAIN_QUANTITIES
            and data[7] in PLAIN_READS
        ):  # as a rule: `modbus_request` would make the same of it
            return PlainRead(data[PREFIX:], data[:2])
        if data[2:PREFIX] != MIDDLE_OF_FRAME.get(len(data)):
            return None
        return modbus_request(data[PREFIX:], data[:2])

    @override
    def reply(self, request: Request, response: bytes) -> bytes:
        transaction: bytes = request.context
        return transaction + MIDDLE[len(response)] + response

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        if self._on_failure is OnFailure.CLOSE and not failure.is_rule:
            return None
        return self.reply(request, exception_response(request.payload, failure))
