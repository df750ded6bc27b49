"""Strict matching: which request a frame of a Modbus/TCP device answers.

Each request gets an identifier of our own; a response counts if identifier, unit and
function all fit a request in flight, and a confirmation if it names what was written.
Nothing in a frame marks its end but its length, so a truncated one would be completed
with bytes of the next: what follows a frame, and what lies within one, must not
contradict that it was whole. In doubt the connection is closed, never guessed at.

Some devices and gateways say other things between their frames. What cannot be a frame
is passed over, up to the header of a response that is awaited. And some send exceptions
whose length is wrong: since all exceptions have the same, it is known by the function.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import override

from ..base import (
    Answer,
    Close,
    Mismatch,
    Request,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from .pdu import (
    EXCEPTION_BIT,
    EXCEPTION_NAMES,
    EXCEPTION_SIZE,
    confirms_another,
    may_answer,
)
from .tcp import (
    MIDDLE,
    MIDDLE_OF_FRAME,
    MIDDLES,
    MIN_FRAME,
    MIN_LENGTH,
    PREFIX,
    frame_of,
    may_begin,
)

SILENCE = 0.05
"""Seconds after which nothing more of a frame is expected that is not what it says."""

_EXCEPTION = PREFIX + EXCEPTION_SIZE
"""Bytes of a frame with an exception."""
_ECHO = 6
"""Bytes of a write that its confirmation repeats at least: what and how much."""
_NO_FRAME = "not a Modbus/TCP frame"

_EXPIRED_LIMIT = 4096
"""Identifiers a connection may lose to timeouts before it is renewed."""


class Transactions:
    """Counts transaction identifiers, over all connections to a device."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last


class ModbusUpstream(UpstreamCodec[bytes]):
    """Faces one connection to a Modbus/TCP device."""

    __slots__ = (
        "_buffer",
        "_cut_short",
        "_expired",
        "_in_flight",
        "_touched",
        "_transactions",
        "framed_by_silence",
        "reusable",
    )

    identifies = True

    def __init__(self, transactions: Transactions) -> None:
        """Go on counting `transactions`, which outlive the connection."""
        self._transactions = transactions
        self._in_flight: dict[bytes, Request] = {}
        """By transaction identifier, as it stands in a frame."""
        self._expired: dict[bytes, Request] = {}
        self._buffer = b""
        self._cut_short = False
        """What is buffered cannot be told apart any more."""
        self._touched: set[bytes] = set()
        """Identifiers in flight that stood in bytes that were no frame."""
        self.framed_by_silence = False
        """Silence would decide what to make of the buffer."""
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
        return transaction + MIDDLE[len(payload)] + payload

    @override
    def fast_answer(self, data: bytes) -> tuple[Request, bytes] | None:
        in_flight = self._in_flight
        request = in_flight.get(data[:2])
        if (
            request is None
            or len(in_flight) > 1
            or self._buffer
            or self._expired
            or data[2:PREFIX] != MIDDLE_OF_FRAME.get(len(data))
        ):
            return None
        response = data[PREFIX:]
        payload = request.payload
        # one comparison where the device does not say no
        if response[:2] != payload[:2] and (
            response[0] != payload[0]
            or response[1] != payload[1] | EXCEPTION_BIT
            or len(response) != EXCEPTION_SIZE
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
        begins = may_begin(data, 0)
        while size - start >= MIN_FRAME:
            length = data[start + 5] if begins else 0
            end = start + PREFIX + length
            if length <= MIN_LENGTH or end > size:
                after = self._look_closer(data, start, events, begins=begins)
                if after is None:
                    break
                if after != start:
                    start = after
                    begins = may_begin(data, start)
                    continue
            begins = end == size or may_begin(data, end)
            if (not begins and self._is_own(data, start)) or (
                (len(self._in_flight) > 1 or self._expired)
                and self._holds_another(data, start, end)
            ):
                if self._is_refusal(data, start):
                    end = start + _EXCEPTION
                    begins = may_begin(data, end)
                    events.append(self._refused(data[start:end]))
                else:
                    self._buffer = data[start:]
                    self._cut_short = True
                    events.append(Close("a frame was cut short"))
                    return events
            else:
                event = self._match(data if size == end - start else data[start:end])
                if not begins and type(event) is Unsolicited:
                    within = self._own_within(data, start, end)
                    if within < end:
                        end, begins = within, True
                        event = self._discard(data[start:end])
                events.append(event)
            start = end
        if not begins:
            start = self._skip(data, start, events)
        self._buffer = data[start:]
        self.framed_by_silence = start < size and self._is_odd(self._buffer)
        return events

    def _look_closer(
        self,
        data: bytes,
        start: int,
        events: list[UpstreamEvent[bytes]],
        *,
        begins: bool,
    ) -> int | None:
        """Return where to go on if the next frame is not whole or of odd length.

        `start` says that it is a frame like others, None that more has to come.
        """
        if self._is_refusal(data, start):
            end = start + _EXCEPTION
            if not self._is_own(data, end) or len(data) < end + PREFIX:
                return None
            events.append(self._refused(data[start:end]))
            return end
        if begins:
            whole = start + PREFIX + data[start + 5] <= len(data)
            return start if whole else None
        after = self._skip(data, start, events)
        return None if after == start else after

    # ---- bytes that are no frame ------------------------------------------------

    def _skip(self, data: bytes, start: int, events: list[UpstreamEvent[bytes]]) -> int:
        """Discard bytes up to where a response begins, or may begin at the end."""
        end = self._find_own(data, start)
        if end == len(data):
            tail = range(max(start, end - MIN_FRAME + 1), end)
            end = next((at for at in tail if self._is_own(data, at)), end)
        if end > start:
            events.append(self._discard(data[start:end]))
        return end

    def _discard(self, skipped: bytes) -> Unsolicited:
        """Note that bytes were no frame, and whose response may have begun in them."""
        self._touched = {
            transaction
            for transaction in self._in_flight
            if transaction in self._touched or transaction in skipped
        }
        return Unsolicited(_NO_FRAME, skipped)

    def _own_within(self, data: bytes, start: int, end: int) -> int:
        """Return where a response begins within what seemed a frame, or else `end`."""
        return min(self._find_own(data, start + 1), end)

    def _find_own(self, data: bytes, start: int) -> int:
        """Return where the header of a response begins, or else the end of `data`."""
        found = len(data)
        for transaction in self._in_flight:
            at = data.find(transaction + b"\0\0", start, found)
            while at != -1 and not (
                at + MIN_FRAME <= len(data) and self._is_own(data, at)
            ):
                at = data.find(transaction + b"\0\0", at + 1, found)
            if at != -1:
                found = at
        return found

    def _is_own(self, data: bytes, at: int) -> bool:
        """Return whether the bytes at `at` are, so far, the header of a response."""
        head = data[at : at + MIN_FRAME]
        return any(
            transaction.startswith(head[:2])
            and b"\0\0".startswith(head[2:4])
            and may_head(head[6:], request)
            and (
                head[2:6] in MIDDLES or len(head) < MIN_FRAME or head[7] & EXCEPTION_BIT
            )
            for transaction, request in self._candidates(head)
        )

    def _candidates(self, head: bytes) -> Iterable[tuple[bytes, Request]]:
        """Return the requests that a header could name."""
        if len(head) < 2:
            return self._in_flight.items()
        transaction = head[:2]
        request = self._in_flight.get(transaction) or self._expired.get(transaction)
        return () if request is None else ((transaction, request),)

    def _is_refusal(self, data: bytes, at: int) -> bool:
        """Return whether an exception of wrong length, and nothing else, is at `at`.

        Its code is one that the specification has (V1.1b3, section 7): a response that
        was cut short may be followed by bytes that make it look like an exception.
        """
        if len(data) < at + MIN_FRAME or not data[at + 7] & EXCEPTION_BIT:
            return False  # as nearly always
        head = data[at : at + MIN_FRAME]
        return (
            head[4:6] != b"\0\3"
            and any(head[6] == r.payload[0] for r in self._in_flight.values())
            and (
                data[at + MIN_FRAME] in EXCEPTION_NAMES
                if len(data) >= at + _EXCEPTION
                else head[4:6] == b"\0\2"
            )
            and self._is_own(data, at)
        )

    def _refused(self, frame: bytes) -> UpstreamEvent[bytes]:
        """Take an exception for what it is, whatever length it claims to have."""
        response = frame[PREFIX:]
        return self._match(frame_of(frame[:2], response))

    def _is_odd(self, buffer: bytes) -> bool:
        """Return whether it must be decided what to make of this if no more comes."""
        return self._is_refusal(buffer, 0) or not self._is_own(buffer, 0)

    @override
    def deadline(self, now: float) -> float | None:
        return now + SILENCE if self.framed_by_silence else None

    @override
    def tick(self, now: float) -> list[UpstreamEvent[bytes]]:
        if not self.framed_by_silence:
            return []
        self.framed_by_silence = False
        buffer, self._buffer = self._buffer, b""
        events: list[UpstreamEvent[bytes]] = []
        if self._is_refusal(buffer, 0):
            events.append(self._refused(buffer[:_EXCEPTION]))
            rest = buffer[_EXCEPTION:]
        else:
            start = self._own_within(buffer, 0, len(buffer))
            events.append(self._discard(buffer[:start]))
            rest = buffer[start:]
        return events + self.feed(rest) if rest else events

    def _match(self, frame: bytes) -> UpstreamEvent[bytes]:
        """Find the request that a whole frame answers."""
        transaction = frame[:2]
        request = self._in_flight.get(transaction)
        if request is None:
            expired = self._expired.get(transaction)
            if expired is not None:
                reason = "the response came after its deadline"
                return Unsolicited(
                    reason, frame, late=True, unit=expired.unit, answers=expired
                )
            reason = "no request has this transaction identifier"
            return self._unsolicited(reason, frame, Mismatch.IDENTIFIER)
        payload = request.payload
        response = frame[PREFIX:]
        if response[:2] != payload[:2]:
            if response[0] != payload[0]:
                reason = "the unit identifier is not the requested one"
                return self._unsolicited(reason, frame, Mismatch.UNIT)
            if response[1] != payload[1] | EXCEPTION_BIT:
                return Unsolicited("the function code is not the requested one", frame)
            response = response[:EXCEPTION_SIZE]  # more may be another's response
        elif request.writes is not None and confirms_another(payload, response):
            return Unsolicited("it confirms another write", frame)
        del self._in_flight[transaction]
        return Answer(request, response)

    def _unsolicited(
        self, reason: str, frame: bytes, mismatch: Mismatch
    ) -> Unsolicited:
        """Discard a frame; note whether lenient matching would not."""
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is None or not may_answer(oldest.payload, frame[PREFIX:]):
            return Unsolicited(reason, frame)
        return Unsolicited(reason, frame, lenient=mismatch)

    def _holds_another(self, data: bytes, start: int, end: int) -> bool:
        """Return whether another response begins in the frame from `start` to `end`.

        So it does when the device cut this frame short, and the response to another
        request, pipelined or given up, filled it up to its length. Of that response
        there may be no more yet than the first bytes of its header. So it does, too,
        right behind an exception that claims to be longer than exceptions are.
        """
        if self._is_refusal(data, start) and self._is_own(data, start + _EXCEPTION):
            return True
        at = data.find(b"\0\0", start + PREFIX + 2, end + 3)
        while at != -1:
            transaction = data[at - 2 : at]
            other = self._in_flight.get(transaction) or self._expired.get(transaction)
            if (
                other is not None
                and may_begin(data, at - 2)
                and may_head(data[at + 4 : at + 6], other)
            ):
                return not self._is_echo(data[start:end])
            at = data.find(b"\0\0", at + 1, end + 3)
        return False

    def _is_echo(self, frame: bytes) -> bool:
        """Return whether a frame repeats the write that it confirms, to the byte.

        Whatever that looks like, nothing in it can be wrong.
        """
        request = self._in_flight.get(frame[:2])
        return (
            request is not None
            and request.writes is not None
            and len(frame) >= PREFIX + _ECHO
            and request.payload.startswith(frame[PREFIX:])
        )

    @override
    def begun(self, request: Request) -> bool:
        buffer = self._buffer
        for transaction, other in self._in_flight.items():
            if other is request:
                return (
                    transaction in self._touched
                    or (bool(buffer) and transaction.startswith(buffer[:2]))
                    # else it may have begun anywhere
                    or (self._cut_short and transaction in buffer)
                )
        return False

    @override
    def expire(self, request: Request) -> bool:
        keep = not (self._buffer and self._is_own(self._buffer, 0))
        for transaction, other in self._in_flight.items():
            if other is request:
                del self._in_flight[transaction]
                self._expired[transaction] = request
                break
        self.reusable = len(self._expired) < _EXPIRED_LIMIT
        return keep


def may_head(head: bytes, request: Request) -> bool:
    """Return whether unit and function, as far as they came, answer `request`."""
    unit, function = request.payload[:2]
    refusal = bytes((unit, function | EXCEPTION_BIT))
    return head == refusal or request.payload[:2].startswith(head)
