"""Lenient matching: for devices that echo neither transaction identifier nor unit.

One request is in flight, and a response of its function and size is its own. What the
device shows of its way with identifiers is used as far as it goes:

* Some answer only the identifier 0. So the first request has that; once it has its
  response, a read like it gets another identifier, and if that one gets none, 0 it is.
* Some echo identifiers after all. Then a response with an older one of ours is late, or
  a copy: some devices answer twice. Until that is known, what comes with the identifier
  of the first request may be its copy, and is held until the response is overdue.
"""

from __future__ import annotations

from collections import deque
import enum
import re
from typing import override

from ..base import Answer, Request, Unsolicited, UpstreamEvent
from .matching import SILENCE, ModbusUpstream, Transactions
from .pdu import EXCEPTION_BIT, EXCEPTION_SIZE, may_answer, register_width
from .rtu import TOLD
from .tcp import MIDDLES, PREFIX, frame_of

_ZERO = b"\0\0"
_FIRST = 0x5A00
"""Devices that count on their own, or always say the same, hardly say this."""
_HOLD = 0.25
"""Seconds after a request up to which a copy of the first response may come, and the
right response behind it, unless that takes longer."""
_OVERDUE = 1.3
"""A response is overdue after so many times what the first one took."""
_HELD = Unsolicited("held until it is known whose it is", b"")


class Manner(enum.Enum):
    """What a device does with transaction identifiers."""

    UNKNOWN = enum.auto()
    ANSWERS_ZERO = enum.auto()
    """It has answered the identifier 0; whether another one too is yet to be seen."""
    ECHOES = enum.auto()
    IGNORES = enum.auto()
    """It answers any identifier, with any identifier."""
    NEEDS_ZERO = enum.auto()
    """It answers 0 and is silent to others."""


class LenientTransactions(Transactions):
    """Counts identifiers, and knows what a device does with them."""

    __slots__ = ("head", "manner", "took")

    def __init__(self) -> None:
        super().__init__(_FIRST)
        self.manner = Manner.UNKNOWN
        self.head = b""
        """Unit and function of what was answered with identifier 0."""
        self.took = 0.0
        """How long that took, in seconds."""


class LenientUpstream(ModbusUpstream):
    """Faces a device that does not echo the transaction identifier, or the unit.

    With one request in flight, a response of its function is taken for its own, to a
    read also one whose byte count fits. Nothing else tells it from a late one.
    """

    __slots__ = (
        "_discarded",
        "_given_up",
        "_held",
        "_known",
        "_numbered",
        "_said_zero",
        "_sent_at",
        "_told",
        "_wide",
        "quiet",
    )

    identifies = False

    def __init__(self, transactions: LenientTransactions, quiet: float) -> None:
        """Keep `quiet` seconds of silence after a request that was given up."""
        super().__init__(transactions)
        self.quiet = quiet
        self._known = transactions
        self._given_up = False
        """The last request got no response: it may still come."""
        self._held: bytes | None = None
        """A frame that is the response if no better one comes."""
        self._told: deque[bytes] = deque(maxlen=TOLD)
        """The last responses, which a device may send twice."""
        self._wide: set[bytes] = set()
        """Units and functions that have registers of four bytes."""
        self._numbered = 0
        """Requests sent with an identifier of their own."""
        self._said_zero = False
        """A request was sent with identifier 0."""
        self._sent_at: float | None = 0.0
        """When the last request was sent; None until the time is known."""
        self._discarded: tuple[bytes, bytes] = (b"", b"")
        """The older identifiers that came instead of the last two responses, if so."""

    @override
    def send(self, request: Request) -> bytes:
        self._given_up = False
        self._sent_at = None
        self._touched.clear()
        known = self._known
        learning = known.manner in {Manner.UNKNOWN, Manner.ANSWERS_ZERO}
        self.framed_by_silence |= learning
        if known.manner in {Manner.UNKNOWN, Manner.NEEDS_ZERO} or (
            known.manner is Manner.ANSWERS_ZERO
            and not (request.retry_safe and request.payload[:2] == known.head)
        ):
            self._said_zero = True
            self._in_flight[_ZERO] = request
            return frame_of(_ZERO, request.payload)
        self._numbered += 1
        return super().send(request)

    @override
    def fast_answer(self, data: bytes) -> None:
        """There is no short way to see what a response without a number answers."""

    @override
    def feed(self, data: bytes) -> list[UpstreamEvent[bytes]]:
        held = self._held
        events = [event for event in super().feed(data) if event is not _HELD]
        answered = any(type(event) is Answer for event in events)
        if (
            held is not None
            and self._held is held
            and (
                answered or self._is_wide(held)  # behind which there must be silence
            )
        ):
            events.insert(0, Unsolicited("a copy, or of another request", held))
            self._held = None
        self.framed_by_silence |= self._held is not None or self._known.took < 0
        return events

    @override
    def _match(self, frame: bytes) -> UpstreamEvent[bytes]:
        in_flight = self._in_flight
        response = frame[PREFIX:]
        if not in_flight:
            reason = "it came after its deadline" if self._given_up else "nobody asked"
            return Unsolicited(reason, frame, late=self._given_up)
        ((number, request),) = in_flight.items()
        if self._is_older(frame[:2], number):
            self._discarded = (self._discarded[0], frame[:2])
            return Unsolicited("an earlier request's", frame, late=True)
        fits = may_answer(request.payload, response)
        if not fits and not self._is_wide(frame):
            return Unsolicited("function or byte count do not fit", frame)
        if not fits or (
            self._known.manner is Manner.ANSWERS_ZERO and frame[:2] != number != _ZERO
        ):
            self._held = frame
            return _HELD
        return self._take(frame)

    def _take(self, frame: bytes) -> Answer[bytes]:
        """Take a frame for the response, and learn from its identifier."""
        ((number, request),) = self._in_flight.items()
        known = self._known
        if frame[:2] == number != _ZERO:
            known.manner = Manner.ECHOES
        elif known.manner is Manner.ANSWERS_ZERO and number != _ZERO:
            known.manner = Manner.IGNORES
        elif known.manner is Manner.UNKNOWN:
            known.manner = Manner.ANSWERS_ZERO
            known.head = request.payload[:2]
            known.took = -1.0  # not known yet
        self._discarded = (b"", b"")
        self._in_flight.clear()
        response = frame[PREFIX:]
        if response[1] & EXCEPTION_BIT:
            response = response[:EXCEPTION_SIZE]  # more may be another's response
        self._told.append(response)
        head, width = request.payload[:2], register_width(request.payload, response[:3])
        if width > 1:
            self._wide.add(head)
        elif width:
            self._wide.discard(head)
        return Answer(request, request.payload[:1] + response[1:])

    def _is_older(self, number: bytes, current: bytes) -> bool:
        """Return whether a response has an identifier that an earlier request had."""
        if self._known.manner is not Manner.ECHOES or number == current:
            return False
        if number == _ZERO:
            return self._said_zero
        return (int.from_bytes(current) - int.from_bytes(number)) % 0xFFFF < (
            self._numbered
        )

    def _is_wide(self, frame: bytes) -> bool:
        """Return whether a response has registers of four bytes.

        The copy of an earlier one has not, unless the unit has shown that it has such.
        """
        request = next(iter(self._in_flight.values()), None)
        response = frame[PREFIX:]
        return (
            request is not None
            and register_width(request.payload, response[:3]) == 2
            and (request.payload[:2] in self._wide or response not in self._told)
        )

    @override
    def deadline(self, now: float) -> float | None:
        known = self._known
        if self._sent_at is None:
            self._sent_at = now
        elif known.took < 0 and not self._in_flight:
            known.took = now - self._sent_at
        if self._held is None:
            return super().deadline(now) if self._buffer else None
        if self._is_wide(self._held):
            return now + SILENCE
        return max(now, self._sent_at + max(_HOLD, _OVERDUE * known.took))

    @override
    def tick(self, now: float) -> list[UpstreamEvent[bytes]]:
        held, self._held = self._held, None
        if held is None:
            return super().tick(now) if self._buffer else []
        if not self._in_flight:
            return []
        return [self._take(held)]

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
        return (
            self._held is not None
            or bool(self._touched)
            or (bool(self._buffer) and self._is_own(self._buffer, 0))
        )

    @override
    def expire(self, request: Request) -> bool:
        number = next(iter(self._in_flight), b"")
        known = self._known
        if known.manner is Manner.ANSWERS_ZERO and number not in {b"", _ZERO}:
            silent = self._held is None
            known.manner = Manner.NEEDS_ZERO if silent else Manner.IGNORES
        before, last = self._discarded
        if before and before == last:
            known.manner = Manner.IGNORES  # what seemed an echo was chance
        self._discarded = (last, b"")
        self._held = None
        self._given_up = True
        return super().expire(request)
