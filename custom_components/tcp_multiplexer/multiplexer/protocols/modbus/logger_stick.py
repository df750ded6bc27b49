"""What faces a logger stick: requests in Solarman V5 frames, and what comes back.

One request is in flight, since there is one line behind the stick. Some sticks send
every response on every connection, so a response counts only if sequence byte, serial
number, unit and function fit, and a read's byte count. Heartbeats and reports are
acknowledged. Some frames come with a wrong checksum: the RTU frame within has a CRC of
its own. What else comes between frames, such as the text `AT+…` after connecting, is
passed over.

A stick that is asked with another serial number than its own is silent, or refuses,
which tells its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import override

from ..base import (
    Answer,
    Failed,
    Failure,
    Mismatch,
    Request,
    SendBack,
    Unsolicited,
    UpstreamCodec,
    UpstreamEvent,
)
from .pdu import confirms_another, exception_response, success_response
from .rtu import (
    BROADCAST,
    MAX_FRAME,
    MIN_FRAME,
    SILENCE,
    crc16,
    frame_of,
    response_length,
)
from .solarman import (
    REQUEST,
    REQUEST_HEAD,
    RESPONSE,
    RESPONSE_HEAD,
    START,
    Frame,
    Stick,
    frame_size,
    read_frame,
)

_PUSHED = frozenset((0x4110, 0x4210, 0x4310, 0x4710, 0x4810))
"""Handshake, data, information, heartbeat and report: sent until acknowledged."""
_ACKNOWLEDGES = 0x3000
"""A code less this is that of its acknowledgement, and of its response."""
_INTERVAL = 0x78
"""Seconds until the next heartbeat."""
_REFUSED = b"\x06\0"
"""What a stick sends instead of an RTU frame if the serial number is not its own."""
_CRC_OF_FRAME = b"\0\0"
"""What some sticks append: the CRC of a frame that has its CRC."""


class SolarmanUpstream(UpstreamCodec[bytes]):
    """Faces a logger stick."""

    __slots__ = (
        "_answer_at",
        "_broadcast",
        "_buffer",
        "_number",
        "_old",
        "_request",
        "_silence_tells",
        "_spoiled",
        "_stick",
        "_time_of_day",
    )

    framed_by_silence = True

    def __init__(self, stick: Stick, time_of_day: Callable[[], float]) -> None:
        """Ask `stick`; acknowledgements tell it the time, in seconds since 1970."""
        self._stick = stick
        self._time_of_day = time_of_day
        self._request: Request | None = None
        self._number = 0
        """Its sequence byte."""
        self._buffer = b""
        """It begins where a frame may begin."""
        self._old = 0
        """So many bytes of it came before the request: what begins there is not the
        response to it."""
        self._spoiled = False
        """What could have been the response could not be read."""
        self._silence_tells = False
        """Silence would tell that what seems to be begun is no frame."""
        self._broadcast: bytes | None = None
        """The response that nobody will send."""
        self._answer_at: float | None = None

    @override
    def send(self, request: Request) -> bytes:
        payload = request.payload
        self._request = request
        self._old = len(self._buffer)
        self._spoiled = False
        self._broadcast = None if request.expects_reply else success_response(payload)
        self._answer_at = None
        return self._asking(payload)

    def _asking(self, payload: bytes) -> bytes:
        self._number = self._stick.count()
        sequence = bytes((self._number, 0))
        data = REQUEST_HEAD + frame_of(payload)
        return Frame(REQUEST, sequence, self._stick.serial, data).encoded()

    @override
    def feed(self, data: bytes) -> list[UpstreamEvent[bytes]]:
        return self._read(self._buffer + data, silent=False)

    def _read(self, data: bytes, *, silent: bool) -> list[UpstreamEvent[bytes]]:
        """Take all frames out of `data`, and keep the one that has begun."""
        events: list[UpstreamEvent[bytes]] = []
        at = done = 0
        while (at := data.find(START, at)) != -1:
            end = at + (frame_size(data, at) or 0)
            if end > len(data) and not (silent and self._has_frame(data[at + 1 :])):
                break
            event = self._take(data, at, end) if at < end <= len(data) else None
            if event is None:
                at += 1
                continue
            if done < at:
                events.append(Unsolicited("not a Solarman V5 frame", data[done:at]))
            events.append(event)
            at = done = end
        kept = len(data) if at == -1 else at
        if done < kept:
            events.append(Unsolicited("not a Solarman V5 frame", data[done:kept]))
        self._buffer = data[kept:]
        self._old = max(0, self._old - kept)
        self._silence_tells = data.find(START, kept + 1) != -1
        return events

    def _take(self, data: bytes, at: int, end: int) -> UpstreamEvent[bytes] | None:
        """Return what the frame between `at` and `end` means; None if it is none."""
        raw = data[at:end]
        frame = read_frame(raw)
        if frame is None:
            return None
        if not frame.intact and not self._is_credible(frame, raw):
            self._spoiled |= self._is_own(raw)
            return None
        if frame.control == RESPONSE:
            return self._respond(frame, raw, old=at < self._old)
        if frame.control in _PUSHED:
            return SendBack(_acknowledgement(frame, int(self._time_of_day())))
        return Unsolicited("nothing that was asked for", raw)

    def _is_credible(self, frame: Frame, raw: bytes) -> bool:
        """Return whether a frame with a wrong checksum is one all the same.

        It has the stick's serial number, an RTU frame in it has a right CRC, and no
        other frame lies in it, as if it had been cut short.
        """
        rtu = frame.payload[len(RESPONSE_HEAD) :]
        return (
            frame.serial == self._stick.serial
            and not any(inner.intact for inner, _ in _frames_in(raw[1:]))
            and (frame.control != RESPONSE or len(rtu) < MIN_FRAME or not crc16(rtu))
        )

    def _has_frame(self, data: bytes) -> bool:
        """Return whether there is a whole frame in `data`."""
        return any(
            frame.intact or self._is_credible(frame, raw)
            for frame, raw in _frames_in(data)
        )

    def _is_own(self, head: bytes) -> bool:
        """Return whether the response may begin like this."""
        return bytes((0x10, RESPONSE >> 8, self._number)).startswith(head[3:6])

    def _respond(self, frame: Frame, raw: bytes, *, old: bool) -> UpstreamEvent[bytes]:
        """Return whose response this is, or what else it says."""
        request, stick = self._request, self._stick
        rtu = frame.payload[len(RESPONSE_HEAD) :]
        number = frame.sequence[0]
        if request is None or old or number != self._number:
            return self._pass_over(number, raw)
        if frame.serial != stick.serial:
            if stick.serial:
                reason = f"the logger's serial number is {frame.serial}"
                return Unsolicited(reason, raw, lenient=Mismatch.SERIAL)
            stick.serial = frame.serial
            if rtu == _REFUSED:  # so it has not reached the inverter
                return SendBack(self._asking(request.payload))
        if len(rtu) < MIN_FRAME:
            failed = exception_response(request.payload, Failure.NO_RESPONSE)
            return self._end(request, self._broadcast or failed)
        own = _frame_for(request.payload, rtu)
        if own is None or confirms_another(request.payload, own[:-2]):
            return Unsolicited("the response to another client", raw)
        if crc16(own):
            self._request = None
            return Failed(request, Failure.INVALID_RESPONSE, "the CRC is wrong")
        return self._end(request, own[:-2])

    def _pass_over(self, number: int, raw: bytes) -> Unsolicited:
        if self._stick.is_late(number):
            return Unsolicited("it came after its deadline", raw, late=True)
        self._stick.heard(number)
        return Unsolicited("the response to another client", raw)

    def _end(self, request: Request, response: bytes) -> Answer[bytes]:
        self._request = None
        return Answer(request, response)

    @override
    def begun(self, request: Request) -> bool:
        fresh = self._buffer[self._old :]
        return self._spoiled or (bool(fresh) and self._is_own(fresh))

    @override
    def expire(self, request: Request) -> bool:
        self._request = None
        self._stick.give_up(self._number)
        return True

    @override
    def deadline(self, now: float) -> float | None:
        if self._request is not None and self._broadcast is not None:
            if self._answer_at is None:
                self._answer_at = now + BROADCAST
            return self._answer_at
        return now + SILENCE if self._silence_tells else None

    @override
    def tick(self, now: float) -> list[UpstreamEvent[bytes]]:
        request = self._request
        if request is not None and self._broadcast is not None:
            if self._answer_at is None or now < self._answer_at:
                return []
            self._stick.give_up(self._number)
            return [self._end(request, self._broadcast)]
        events = self._read(self._buffer, silent=True)
        self._silence_tells = False
        return events


def _frames_in(data: bytes) -> Iterator[tuple[Frame, bytes]]:
    """Yield what may be whole frames, and their bytes."""
    at = data.find(START)
    while at != -1:
        end = at + (frame_size(data, at) or 0)
        if at < end <= len(data) and (frame := read_frame(data[at:end])) is not None:
            yield frame, data[at:end]
        at = data.find(START, at + 1)


def _frame_for(payload: bytes, rtu: bytes) -> bytes | None:
    """Return the RTU frame in a response, without a second CRC, if it fits a request.

    None if it cannot answer `payload`. The CRC may be wrong.
    """
    length = response_length(payload, rtu)
    if rtu[0] != payload[0] or length is None:
        return None
    twice = rtu.endswith(_CRC_OF_FRAME)
    if length > MAX_FRAME:  # nothing in it tells
        twice &= not crc16(rtu[:-2])
        return rtu[:-2] if twice else rtu
    return rtu[:length] if len(rtu) in {length, length + 2 * twice} else None


def _acknowledgement(frame: Frame, time: int) -> bytes:
    """Return what a stick gets for something pushed, at a time of day."""
    payload = b"%c\x01%b%b" % (
        frame.payload[0],
        time.to_bytes(4, "little"),
        _INTERVAL.to_bytes(4, "little"),
    )
    code = frame.control - _ACKNOWLEDGES
    return Frame(code, frame.sequence, frame.serial, payload).encoded()
