"""One connection that a simulated device accepted, and what goes wrong on it."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, override

from .dialects import CONFIRMED, ModbusDialect, exception_of, is_read, no_answer
from .faults import Fault
from .manners import UNLIMITED, Gateway, Habit, Order
from .network import Endpoint, Link

if TYPE_CHECKING:
    from .device import SimulatedDevice


class DeviceConnection(asyncio.Protocol):
    """One connection that the device accepted."""

    def __init__(self, device: SimulatedDevice, link: Link) -> None:
        """Begin with nothing received."""
        self.device = device
        self.loop = device.loop
        self.link = link
        self.mute = False
        """It never answers again."""
        self.superfluous = False
        """It has none of the device's slots."""
        self.open: dict[int, int] = {}
        """Transaction identifiers not yet answered, and how often."""
        self._done: deque[int] = deque(maxlen=40)
        """Those whose right answer was sent: nobody awaits another."""
        self._buffer = bytearray()
        self._queue: deque[tuple[int, bytes]] = deque()
        self._busy = False
        self._outbox: deque[tuple[float, bytes, bool]] = deque()
        self._sending = False
        self._heard = self.loop.time()
        self._lost = False

    @property
    def idle(self) -> bool:
        """Nothing is asked, and nothing is left to be sent."""
        return not (self.open or self.mute or self._outbox)

    def end(self) -> Endpoint:
        """Give the device's end of the link."""
        return self.link.accepted

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.device.manners.slots < UNLIMITED:
            self._watch_silence()

    def _watch_silence(self) -> None:
        """Free the slot of a connection whose other end has long been silent."""
        due = self._heard + self.device.manners.slot_timeout
        if self._lost:
            return
        if due <= self.loop.time():
            self.device.connections.pop(self, None)
            self.end().abort()
        else:
            self.loop.post(max(due, self.loop.time() + 1), self._watch_silence)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.device.connections.pop(self, None)

    @override
    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        self._buffer += data
        for tid, body in self.device.face.cut(self._buffer):
            self._take(tid, body)

    def _take(self, tid: int, body: bytes) -> None:
        device = self.device
        device.received.append((self.loop.time(), self.link.number, body))
        if self._ignores(tid, body):
            return
        self.open[tid] = self.open.get(tid, 0) + 1
        if self.mute:
            return
        if device.manners.in_order:
            device.queue.append((self, tid, body))
            self._next()
        elif device.manners.order is Order.PARALLEL:
            when = self.loop.time() + device.service_time(body)
            self.loop.post(when, self._serve, tid, body)
        else:
            self._queue.append((tid, body))
            self._next()

    def _ignores(self, tid: int, body: bytes) -> bool:
        """Tell whether a request is lost before anybody has looked at it."""
        device = self.device
        if tid and device.manners.habit is Habit.NEEDS_ZERO:
            return True
        match device.manners.gateway:
            case Gateway.DROPS:
                return body[0] in device.silent
            case Gateway.OVERRUN:
                return device.waits
            case _:
                return False

    def _next(self) -> None:
        """Begin to serve the next request, if nothing else is served."""
        device = self.device
        now = self.loop.time()
        if device.manners.in_order:
            if not device.busy and device.queue:
                device.busy = True
                connection, tid, body = device.queue.popleft()
                device.waits = body[0] in device.silent
                when = now + device.service_time(body)
                self.loop.post(when, connection.finish, tid, body)
        elif not self._busy and self._queue:
            self._busy = True
            tid, body = self._queue.popleft()
            self.loop.post(now + device.service_time(body), self.finish, tid, body)

    def finish(self, tid: int, body: bytes) -> None:
        """End the service of a request, and begin that of the next."""
        device = self.device
        silent, device.waits = device.waits, False
        self._busy = device.busy = False
        if not silent:
            self._serve(tid, body)
        elif not self._lost:
            if device.manners.gateway is Gateway.EXCUSES:
                self._send(self.device.face.pack_answer(tid, no_answer(body)))
            self._answered(tid)
        self._next()

    def _answered(self, tid: int) -> None:
        left = self.open.get(tid, 0) - 1
        if left > 0:
            self.open[tid] = left
        else:
            self.open.pop(tid, None)

    def _serve(self, tid: int, body: bytes) -> None:
        if self._lost or self.mute:
            return
        device = self.device
        if device.manners.poison and is_read(body, device.manners.poison):
            device.count(Fault.CLOSE_INSTEAD)
            self._answered(tid)
            self._close()
            return
        fault = device.draw()
        if fault is Fault.OTHER_WRITE and body[1] not in CONFIRMED:
            fault = None
        if fault is None:
            answer = self._execute(tid, body)
            low, high = device.manners.dawdle
            if high:
                when = self.loop.time() + low + (high - low) * device.rng.random()
                self.loop.post(when, self._answer, tid, answer)
            else:
                self._answer(tid, answer)
            return
        device.count(fault)
        self._misbehave(fault, tid, body)
        if fault is not Fault.LATE:
            self._answered(tid)

    def _answer(self, tid: int, answer: bytes) -> None:
        """Send a right answer."""
        if not self.mute:
            self._send(answer)
            self._answered(tid)
            self._done.append(tid)

    def _execute(self, tid: int, body: bytes) -> bytes:
        """Carry a request out, and give the answer's bytes."""
        return self.device.face.pack_answer(tid, self._carry_out(body))

    def _carry_out(self, body: bytes) -> bytes:
        """Carry a request out, and give the answer's body."""
        now = self.loop.time()
        self.device.executed.append((now, body))
        return self.device.dialect.execute(body, now)

    def _altered(self, tid: int, body: bytes, at: int, bits: int) -> bytes:
        """Carry a request out, and give an answer of which one byte is wrong."""
        answer = _changed(self._carry_out(body), at, bits)
        return self.device.face.pack_answer(tid, answer)

    def _misbehave(self, fault: Fault, tid: int, body: bytes) -> None:  # noqa: C901, PLR0915 - one case each
        device, dialect, face = self.device, self.device.dialect, self.device.face
        rng = device.rng
        match fault:
            case Fault.RESET:
                if rng.random() < 0.5:
                    answer = self._execute(tid, body)
                    self._send(answer[: rng.randrange(len(answer))])
                later = self.loop.time() + 0.003 * rng.random()
                self.loop.post(later, self.link.reset)
                self.mute = True
            case Fault.HALF_OPEN:
                if rng.random() < 0.5:
                    self._execute(tid, body)
                self.link.vanish()
            case Fault.LATE:
                self._late(tid, body)
            case Fault.LOST:
                if rng.random() < 0.5:
                    self._execute(tid, body)
            case Fault.SPLIT:
                self._split(self._execute(tid, body))
            case Fault.MERGED:
                answer, extra = self._execute(tid, body), dialect.unsolicited(rng, 12)
                if face.correlated and rng.random() < 0.5:
                    self._send(extra + answer, whole=True)
                else:
                    self._send(answer + extra, whole=True)
            case Fault.TRUNCATED:
                self._truncate(self._execute(tid, body))
            case Fault.GARBAGE:
                self._send(dialect.garbage(rng))
                if face.correlated and rng.random() < 0.5:
                    self._send(self._execute(tid, body))
                else:
                    self.mute = True
            case Fault.WRONG_TID:
                answer = self._execute(tid, body)
                self._send(self._other_tid(tid).to_bytes(2) + answer[2:])
            case Fault.WRONG_UNIT:
                self._send(self._altered(tid, body, 0, rng.randrange(1, 256)))
            case Fault.WRONG_FUNCTION:
                self._send(self._altered(tid, body, 1, rng.randrange(1, 128)))
            case Fault.DUPLICATE:
                answer = self._execute(tid, body)
                if rng.random() < 0.5:
                    self._send(answer + answer, whole=True)
                else:
                    self._send(answer)
                    self._send(answer, after=0.05 * rng.random())
            case Fault.UNSOLICITED:
                self._send(dialect.unsolicited(rng, 9))
                self._send(self._execute(tid, body), after=0.01 * rng.random())
            case Fault.EXCEPTION:
                self._send(face.pack_answer(tid, exception_of(body)))
            case Fault.ODD_EXCEPTION:
                self._send(self._odd(tid, exception_of(body)))
                if device.on_odd is not None and not self._outbox:
                    device.on_odd(self.link, tid)
            case Fault.NOISE:
                self._send(rng.choice((b"\xff", b"\xff\xfe\xfd", b"USR-TCP232\r\n")))
                self._send(self._execute(tid, body), after=0.1 * rng.random())
            case Fault.OTHER_WRITE:
                answer = self._carry_out(body)
                other = _changed(answer, 3, rng.randrange(1, 256))
                self._send(face.pack_answer(tid, other))
                self._send(face.pack_answer(tid, answer), after=0.01 * rng.random())
            case Fault.CLOSE_INSTEAD:
                if rng.random() < 0.5:
                    self._execute(tid, body)
                self._close()
            case Fault.CLOSE_AFTER:
                self._send(self._execute(tid, body))
                self._close()

    def _late(self, tid: int, body: bytes) -> None:
        """Answer after the deadline; meanwhile serve the others, or nobody."""
        rng = self.device.rng
        answer = self._execute(tid, body)
        manners, now = self.device.manners, self.loop.time()
        delay = rng.uniform(*manners.late)
        if manners.latest < inf:
            mine, received = [self.link.number, body], reversed(self.device.received)
            came = next(when for when, *what in received if what == mine)
            delay = max(0.0, min(delay, came + manners.latest - now))
        if self.device.face.correlated and rng.random() < 0.5:
            self._send(answer, after=delay)
            return
        self.loop.post(self.loop.time() + delay, self._send_late, tid, answer)

    def _send_late(self, tid: int, answer: bytes) -> None:
        self._answered(tid)
        self._send(answer)

    def _odd(self, tid: int, exception: bytes) -> bytes:
        """Give an exception of which the header says another length, or the bytes."""
        frame = self.device.face.pack_answer(tid, exception)
        longer = self.device.rng.randrange(4, 9)
        match self.device.rng.randrange(3):
            case 0:  # with a byte behind it, as the header says
                return _changed(frame, 5, 3 ^ 4) + b"\xff"
            case 1:  # the header promises what never comes
                return _changed(frame, 5, 3 ^ longer)
            case _:
                return _changed(frame, 5, 3 ^ 2)

    def _split(self, answer: bytes) -> None:
        rng = self.device.rng
        step = rng.choice((1, rng.randrange(1, len(answer) + 1)))
        for start in range(0, len(answer), step):
            pause = rng.choice((0.0, 0.002)) * rng.random()
            self._send(answer[start : start + step], after=pause, whole=True)

    def _truncate(self, answer: bytes) -> None:
        """Send a part, and then nothing, the end, or what cannot be its rest."""
        rng = self.device.rng
        refuses = self.device.face.correlated and len(answer) <= 10
        # (Where the code of an exception is missing, nobody could tell what comes
        # behind it from the code.)
        missing = rng.randrange(2 if refuses else 1, len(answer))
        part = answer[:-missing]
        match rng.randrange(3 if self.device.face.correlated else 2):
            case 0:
                self._send(part)
                self.mute = True
            case 1:
                self._send(part)
                self._close()
            case _:
                # In one piece, and long enough to show that it is no rest: bytes
                # that come alone and just complete the frame could be told by nobody.
                missing = min(missing, 200)
                other = self.device.dialect.unsolicited(rng, missing + 8)
                self._send(answer[:-missing] + other, whole=True)

    def _other_tid(self, tid: int) -> int:
        """Give an identifier that no request in flight here has."""
        rng = self.device.rng
        if self._done and rng.random() < 0.5:
            return rng.choice(self._done)
        return ModbusDialect.far_from(tid, rng)

    def _close(self) -> None:
        """Close once all is sent."""
        self.mute = True
        self._send(b"")

    def _send(self, data: bytes, *, after: float = 0.0, whole: bool = False) -> None:
        """Send behind all that is to be sent before; nothing means: close.

        `whole` data arrives in one piece, whatever the network does to others.
        """
        self._outbox.append((after, data, whole))
        if not self._sending:
            self._pump()

    def _pump(self) -> None:
        self._sending = False
        while self._outbox and not self._lost:
            after, data, whole = self._outbox.popleft()
            if after:
                self._outbox.appendleft((0.0, data, whole))
                self._sending = True
                self.loop.post(self.loop.time() + after, self._pump)
            elif not data:
                self.end().close()
            elif whole:
                self.end().write_whole(data)
            else:
                self.end().write(data)
            if after:
                return


def _changed(data: bytes, index: int, bits: int) -> bytes:
    """Give bytes of which one has other bits."""
    return data[:index] + bytes((data[index] ^ bits,)) + data[index + 1 :]
