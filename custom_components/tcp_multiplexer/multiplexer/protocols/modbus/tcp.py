"""Modbus/TCP: the MBAP header in front of a unit identifier and a PDU.

A frame is seven bytes of header and a PDU (Modbus Messaging on TCP/IP V1.0b, 3.1):

    transaction 2 | protocol 2, always 0 | length 2 | unit 1 | function 1 | data

`length` counts from the unit on, so it is 2 to 254, and a frame is at most 260 bytes.

Downstream, the frame is cut from the stream, its transaction identifier kept aside,
and unit and PDU become the request. Upstream, each request gets an identifier of our
own; a response counts if identifier, unit and function all fit a request in flight.
Nothing in a frame marks its end but its length, so a truncated one would be completed
with bytes of the next: what follows a frame, and what lies within one, must not
contradict that it was whole. In doubt the connection is closed, never guessed at.

Some devices do not echo the identifier. For these there is lenient matching: one
request in flight, and a response of its function and size is its own.
"""

from typing import override

from ..base import (
    Answer,
    Close,
    DownstreamCodec,
    DownstreamEvent,
    Failure,
    Ignored,
    Request,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from ..options import OnFailure
from .pdu import (
    EXCEPTION_BIT,
    confirms_another,
    exception_response,
    may_answer,
    modbus_request,
)

MIN_LENGTH = 2
MAX_LENGTH = 254
_PREFIX = 6
"""Header bytes that `length` does not count."""
_MIN_FRAME = _PREFIX + MIN_LENGTH

# The middle of a header, for each length: protocol 0 and the length itself.
_MIDDLE = tuple(b"\0\0" + length.to_bytes(2) for length in range(MAX_LENGTH + 1))
# The same, for each size of a whole frame.
_MIDDLE_OF_FRAME = {
    _PREFIX + length: _MIDDLE[length] for length in range(MIN_LENGTH, MAX_LENGTH + 1)
}

# All of them, and what may have come of them so far.
_MIDDLES = frozenset((*_MIDDLE_OF_FRAME.values(), b"", b"\0", b"\0\0", b"\0\0\0"))

_EXPIRED_LIMIT = 4096
"""Identifiers a connection may lose to timeouts before it is renewed."""


def frame_of(transaction: bytes, payload: bytes) -> bytes:
    """Give the frame of a unit identifier and a PDU."""
    return transaction + _MIDDLE[len(payload)] + payload


class Transactions:
    """Counts transaction identifiers, over all connections to a device."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0


class ModbusDownstream(DownstreamCodec[bytes]):
    """Faces one Modbus/TCP client."""

    __slots__ = ("_buffer", "_on_failure", "_start")

    ordered = False

    def __init__(self, on_failure: OnFailure) -> None:
        self._buffer = b""
        self._start = 0
        self._on_failure = on_failure

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
        if size < _PREFIX:
            return None
        length = buffer[start + 4] << 8 | buffer[start + 5]
        if not MIN_LENGTH <= length <= MAX_LENGTH:
            return Close(f"not a Modbus/TCP frame: length {length}")
        if size < _PREFIX + length:
            return None
        end = start + _PREFIX + length
        if size == _PREFIX + length:
            self._buffer = b""
            self._start = 0
        else:
            self._start = end
        if buffer[start + 2] or buffer[start + 3]:
            return Ignored("protocol identifier is not 0")
        return modbus_request(buffer[start + _PREFIX : end], buffer[start : start + 2])

    @override
    def fast_request(self, data: bytes) -> Request | None:
        if self._buffer or data[2:_PREFIX] != _MIDDLE_OF_FRAME.get(len(data)):
            return None
        return modbus_request(data[_PREFIX:], data[:2])

    @override
    def reply(self, request: Request, response: bytes) -> bytes:
        transaction: bytes = request.context
        return transaction + _MIDDLE[len(response)] + response

    @override
    def refuse(self, request: Request, failure: Failure) -> bytes | None:
        if self._on_failure is OnFailure.CLOSE and not failure.is_rule:
            return None
        return self.reply(request, exception_response(request.payload, failure))


class ModbusUpstream(UpstreamCodec[bytes]):
    """Faces one connection to a Modbus/TCP device."""

    __slots__ = (
        "_buffer",
        "_cut_short",
        "_expired",
        "_in_flight",
        "_transactions",
        "reusable",
    )

    def __init__(self, transactions: Transactions) -> None:
        """Go on counting `transactions`, which outlive the connection."""
        self._transactions = transactions
        self._in_flight: dict[bytes, Request] = {}
        """By transaction identifier, as it stands in a frame."""
        self._expired: dict[bytes, Request] = {}
        self._buffer = b""
        self._cut_short = False
        """What is buffered cannot be told apart any more."""
        self.reusable = True

    @override
    def send(self, request: Request) -> bytes:
        transactions = self._transactions
        while True:
            transactions.last = transactions.last % 0xFFFF + 1
            transaction = transactions.last.to_bytes(2)
            if transaction not in self._in_flight and transaction not in self._expired:
                break
        self._in_flight[transaction] = request
        payload = request.payload
        return transaction + _MIDDLE[len(payload)] + payload

    @override
    def fast_answer(self, data: bytes) -> tuple[Request, bytes] | None:
        in_flight = self._in_flight
        request = in_flight.get(data[:2])
        if (
            request is None
            or len(in_flight) > 1
            or self._buffer
            or self._expired
            or data[2:_PREFIX] != _MIDDLE_OF_FRAME.get(len(data))
        ):
            return None
        response = data[_PREFIX:]
        payload = request.payload
        # one comparison where the device does not say no
        if response[:2] != payload[:2] and (
            response[0] != payload[0] or response[1] != payload[1] | EXCEPTION_BIT
        ):
            return None
        if request.writes is not None and confirms_another(payload, response):
            return None
        in_flight.clear()
        return request, response

    @override
    def feed(self, data: bytes) -> list[UpstreamEvent[bytes]]:
        if self._buffer:
            data = self._buffer + data
        events: list[UpstreamEvent[bytes]] = []
        start, size = 0, len(data)
        begins = _may_begin(data, 0)
        while begins and size - start >= _MIN_FRAME:
            end = start + _PREFIX + data[start + 5]
            if end > size:
                break
            begins = end == size or _may_begin(data, end)
            if not begins or (
                (len(self._in_flight) > 1 or self._expired)
                and self._holds_another(data, start, end)
            ):
                self._buffer = data[start:]
                self._cut_short = True
                events.append(Close("a frame was cut short"))
                return events
            events.append(self._match(data if size == end - start else data[start:end]))
            start = end
        self._buffer = data[start:]
        if not begins:
            self._cut_short = True
            events.append(Close("not a Modbus/TCP frame"))
        return events

    def _match(self, frame: bytes) -> UpstreamEvent[bytes]:
        """Find the request that a whole frame answers."""
        transaction = frame[:2]
        request = self._in_flight.get(transaction)
        if request is None:
            if transaction in self._expired:
                return Unsolicited(
                    "the response came after its deadline", frame, late=True
                )
            return self._unsolicited(
                "no request has this transaction identifier", frame
            )
        payload = request.payload
        response = frame[_PREFIX:]
        if response[:2] != payload[:2]:
            if response[0] != payload[0]:
                return self._unsolicited("the unit identifier is another one's", frame)
            if response[1] != payload[1] | EXCEPTION_BIT:
                return Unsolicited("the function code is another one's", frame)
        elif confirms_another(payload, response):
            return Unsolicited("it confirms another write", frame)
        del self._in_flight[transaction]
        return Answer(request, response)

    def _unsolicited(self, reason: str, frame: bytes) -> Unsolicited:
        """Discard a frame; note whether lenient matching would not."""
        oldest = next(iter(self._in_flight.values()), None)
        lenient = oldest is not None and may_answer(oldest.payload, frame[_PREFIX:])
        return Unsolicited(reason, frame, lenient=lenient)

    def _holds_another(self, data: bytes, start: int, end: int) -> bool:
        """Tell whether another response begins in the frame from `start` to `end`.

        So it does when the device cut this frame short, and the response to another
        request, pipelined or given up, filled it up to its length. Of that response
        there may be no more yet than the first bytes of its header.
        """
        at = data.find(b"\0\0", start + _PREFIX + 2, end + 3)
        while at != -1:
            transaction = data[at - 2 : at]
            other = self._in_flight.get(transaction) or self._expired.get(transaction)
            if (
                other is not None
                and _may_begin(data, at - 2)
                and _may_head(data[at + 4 : at + 6], other)
            ):
                return True
            at = data.find(b"\0\0", at + 1, end + 3)
        return False

    @override
    def begun(self, request: Request) -> bool:
        buffer = self._buffer
        if self._cut_short:  # so that it may have begun anywhere
            return any(
                other is request and transaction in buffer
                for transaction, other in self._in_flight.items()
            )
        head = buffer[:2]
        return bool(head) and (len(head) < 2 or self._in_flight.get(head) is request)

    @override
    def expire(self, request: Request) -> bool:
        for transaction, other in self._in_flight.items():
            if other is request:
                del self._in_flight[transaction]
                self._expired[transaction] = request
                break
        self.reusable = len(self._expired) < _EXPIRED_LIMIT
        return not self._buffer


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
        response = frame[_PREFIX:]
        if request is None:
            reason = "it came after its deadline" if self._given_up else "nobody asked"
            return Unsolicited(reason, frame, late=self._given_up)
        if not may_answer(request.payload, response):
            return Unsolicited("function or byte count do not fit", frame)
        self._in_flight.clear()
        return Answer(request, request.payload[:1] + response[1:])

    @override
    def begun(self, request: Request) -> bool:
        return bool(self._buffer)

    @override
    def expire(self, request: Request) -> bool:
        self._given_up = True
        return super().expire(request)


def _may_head(head: bytes, request: Request) -> bool:
    """Tell whether unit and function, as far as they came, answer `request`."""
    unit, function = request.payload[:2]
    refusal = bytes((unit, function | EXCEPTION_BIT))
    return head == refusal or request.payload[:2].startswith(head)


def _may_begin(data: bytes, at: int) -> bool:
    """Tell whether the bytes from `at` on can be the beginning of a header."""
    return data[at + 2 : at + _PREFIX] in _MIDDLES
