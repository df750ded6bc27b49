"""A simulated device: slow, forgetful, jealous of its connections, and seldom honest.

It serves each connection's requests in their order, one at a time over all connections,
or all of them at once, each after a service time. Of the requests, a share meets a
fault; the faults are dealt so that each kind has its turn. What the device executed is
logged, so that a request that came twice shows.

Some things no multiplexer could notice, and no device here does them: an answer with
the identifier, unit and function of another request in flight, or, in protocols without
identifiers, bytes that nobody asked for at the very moment when somebody asks.
"""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass
import enum
from random import Random
from typing import TYPE_CHECKING, override

from .dialects import Dialect, ModbusDialect, exception_of
from .network import Endpoint, Link, Network, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOST = "10.0.0.2"
PORT = 502
UNLIMITED = 100


class Fault(enum.Enum):
    """What may go wrong."""

    REFUSED = "refused"
    """The connection is refused."""
    IGNORED = "ignored"
    """The connection attempt is not answered at all."""
    RESET = "reset"
    HALF_OPEN = "half_open"
    """The device is silently gone; what is written to it vanishes."""
    LATE = "late"
    """The response comes after the deadline."""
    LOST = "lost"
    """There is no response."""
    SPLIT = "split"
    """The response comes in pieces."""
    MERGED = "merged"
    """The response comes in one piece with something that nobody asked for."""
    TRUNCATED = "truncated"
    """The end of the response is missing."""
    GARBAGE = "garbage"
    WRONG_TID = "wrong_tid"
    WRONG_UNIT = "wrong_unit"
    WRONG_FUNCTION = "wrong_function"
    DUPLICATE = "duplicate"
    UNSOLICITED = "unsolicited"
    EXCEPTION = "exception"
    NOISE = "noise"
    """Bytes that are no frame come before the response."""
    CLOSE_INSTEAD = "close_instead"
    CLOSE_AFTER = "close_after"


CONNECT_FAULTS = (Fault.REFUSED, Fault.IGNORED)
PLAIN_FAULTS = (
    Fault.RESET,
    Fault.HALF_OPEN,
    Fault.LATE,
    Fault.LOST,
    Fault.SPLIT,
    Fault.MERGED,
    Fault.TRUNCATED,
    Fault.GARBAGE,
    Fault.CLOSE_INSTEAD,
    Fault.CLOSE_AFTER,
)
MODBUS_FAULTS = (
    *PLAIN_FAULTS,
    Fault.WRONG_TID,
    Fault.WRONG_UNIT,
    Fault.WRONG_FUNCTION,
    Fault.DUPLICATE,
    Fault.UNSOLICITED,
    Fault.EXCEPTION,
    Fault.NOISE,
)


class Slots(enum.Enum):
    """What becomes of a connection beyond those that the device can serve."""

    REFUSE = "refuse"
    NEWER_WINS = "newer_wins"
    """The oldest connection is closed."""
    SILENT = "silent"
    """It is accepted and never answered."""


class Order(enum.Enum):
    """Which requests are served at the same time."""

    CONNECTION = "connection"
    """One of each connection."""
    GLOBAL = "global"
    """One, as a small device does."""
    PARALLEL = "parallel"
    """All; responses come in any order."""


@dataclass(kw_only=True)
class Manners:
    """How a device behaves; times are seconds, shares are of all requests."""

    service: tuple[float, float] = (0.001, 0.01)
    dawdle: tuple[float, float] = (0.0, 0.0)
    """How long an answer, already made, is kept back: meanwhile it may become old."""
    order: Order = Order.CONNECTION
    slots: int = UNLIMITED
    """Connections that it serves."""
    beyond: Slots = Slots.REFUSE
    fault_share: float = 0.0
    refuse_share: float = 0.0
    """Of connection attempts."""
    faults: Sequence[Fault] = ()
    """The kinds that requests may meet."""
    connect_faults: Sequence[Fault] = CONNECT_FAULTS
    late: tuple[float, float] = (5.0, 8.0)
    """How much later than due a late response is."""
    slot_timeout: float = 5.0
    """A connection that was silent for so long gives up its slot."""


class SimulatedDevice:
    """Memory, connections and faults."""

    def __init__(
        self,
        network: Network,
        dialect: Dialect,
        rng: Random,
        manners: Manners | None = None,
    ) -> None:
        """Listen."""
        self.network = network
        self.loop = network.loop
        self.dialect = dialect
        self.rng = rng
        self.manners = manners or Manners()
        self.faults: Counter[Fault] = Counter()
        self.executed: list[tuple[float, bytes]] = []
        """Every request that was carried out, and when."""
        self.received: list[tuple[float, int, bytes]] = []
        """Every request that arrived: when, on which link, its body."""
        self.dials: list[float] = []
        """When connection attempts arrived."""
        self.connections: dict[DeviceConnection, None] = {}
        self.away = False
        """Connection attempts are refused, and there are no connections."""
        self.on_link: Callable[[Link], None] | None = None
        """Sees each new connection."""
        self.script: deque[Fault | None] = deque()
        """What the next requests meet, before chance is asked."""
        self.busy = False
        self.queue: deque[tuple[DeviceConnection, int, bytes]] = deque()
        network.hosts[HOST, PORT] = self._accept

    def leave(self) -> None:
        """Go away: all connections are reset, attempts are refused."""
        self.away = True
        for connection in tuple(self.connections):
            connection.link.reset()

    def come_back(self) -> None:
        """Be there again."""
        self.away = False

    def _accept(self, link: Link) -> asyncio.Protocol | Refusal:
        self.dials.append(self.loop.time())
        if self.away:
            return Refusal.REFUSED
        manners = self.manners
        if self.rng.random() < manners.refuse_share:
            fault = self._deal(manners.connect_faults)
            self.count(fault)
            return Refusal.REFUSED if fault is Fault.REFUSED else Refusal.IGNORED
        connection = DeviceConnection(self, link)
        serving = [other for other in self.connections if not other.superfluous]
        if len(serving) >= manners.slots:
            match manners.beyond:
                case Slots.REFUSE:
                    return Refusal.REFUSED
                case Slots.NEWER_WINS:
                    serving[0].end().close()
                case Slots.SILENT:
                    connection.superfluous = connection.mute = True
        self.connections[connection] = None
        if self.on_link is not None:
            self.on_link(link)
        return connection

    def draw(self) -> Fault | None:
        """Say what the next request meets."""
        if self.script:
            return self.script.popleft()
        if self.rng.random() >= self.manners.fault_share or not self.manners.faults:
            return None
        return self._deal(self.manners.faults)

    def _deal(self, kinds: Sequence[Fault]) -> Fault:
        """Choose among the kinds that were seldom seen."""
        least = min(self.faults[kind] for kind in kinds)
        return self.rng.choice(
            [kind for kind in kinds if self.faults[kind] <= least + 2]
        )

    def mood(self) -> None:
        """Spoil a connection at which nothing is asked, if there is one."""
        idle = [connection for connection in self.connections if connection.idle]
        if not idle:
            return
        connection = self.rng.choice(idle)
        kinds = [Fault.RESET, Fault.HALF_OPEN, Fault.CLOSE_AFTER]
        if self.dialect.correlated:
            kinds += [Fault.UNSOLICITED, Fault.GARBAGE]
        fault = self.rng.choice(kinds)
        self.count(fault)
        match fault:
            case Fault.RESET:
                connection.link.reset()
            case Fault.HALF_OPEN:
                connection.link.vanish()
            case Fault.CLOSE_AFTER:
                connection.end().close()
            case Fault.UNSOLICITED:
                connection.end().write(self.dialect.unsolicited(self.rng, 9))
            case _:
                connection.end().write(self.dialect.garbage(self.rng))

    def count(self, fault: Fault) -> None:
        """Count a fault that happened."""
        self.faults[fault] += 1
        self.network.note("fault", fault.value)

    def service_time(self) -> float:
        """Draw how long a request takes."""
        low, high = self.manners.service
        return low + (high - low) * self.rng.random()


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
        for tid, body in self.device.dialect.cut(self._buffer):
            self._take(tid, body)

    def _take(self, tid: int, body: bytes) -> None:
        device = self.device
        device.received.append((self.loop.time(), self.link.number, body))
        self.open[tid] = self.open.get(tid, 0) + 1
        if self.mute:
            return
        match device.manners.order:
            case Order.PARALLEL:
                when = self.loop.time() + device.service_time()
                self.loop.post(when, self._serve, tid, body)
            case Order.CONNECTION:
                self._queue.append((tid, body))
                self._next()
            case Order.GLOBAL:
                device.queue.append((self, tid, body))
                self._next()

    def _next(self) -> None:
        """Begin to serve the next request, if nothing else is served."""
        device = self.device
        when = self.loop.time() + device.service_time()
        if device.manners.order is Order.GLOBAL:
            if not device.busy and device.queue:
                device.busy = True
                connection, tid, body = device.queue.popleft()
                self.loop.post(when, connection.finish, tid, body)
        elif not self._busy and self._queue:
            self._busy = True
            tid, body = self._queue.popleft()
            self.loop.post(when, self.finish, tid, body)

    def finish(self, tid: int, body: bytes) -> None:
        """End the service of a request, and begin that of the next."""
        self._busy = self.device.busy = False
        self._serve(tid, body)
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
        fault = device.draw()
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
        device = self.device
        now = self.loop.time()
        device.executed.append((now, body))
        return device.dialect.pack(tid, device.dialect.execute(body, now))

    def _misbehave(self, fault: Fault, tid: int, body: bytes) -> None:  # noqa: C901, PLR0915 - one case each
        device, dialect = self.device, self.device.dialect
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
                if dialect.correlated and rng.random() < 0.5:
                    self._send(extra + answer, whole=True)
                else:
                    self._send(answer + extra, whole=True)
            case Fault.TRUNCATED:
                self._truncate(self._execute(tid, body))
            case Fault.GARBAGE:
                self._send(dialect.garbage(rng))
                if dialect.correlated and rng.random() < 0.5:
                    self._send(self._execute(tid, body))
                else:
                    self.mute = True
            case Fault.WRONG_TID:
                answer = self._execute(tid, body)
                self._send(self._other_tid(tid).to_bytes(2) + answer[2:])
            case Fault.WRONG_UNIT:
                answer = self._execute(tid, body)
                self._send(_changed(answer, 6, rng.randrange(1, 256)))
            case Fault.WRONG_FUNCTION:
                answer = self._execute(tid, body)
                self._send(_changed(answer, 7, rng.randrange(1, 128)))
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
                self._send(dialect.pack(tid, exception_of(body)))
            case Fault.NOISE:
                self._send(rng.choice((b"\xff", b"\xff\xfe\xfd", b"USR-TCP232\r\n")))
                self._send(self._execute(tid, body), after=0.1 * rng.random())
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
        delay = rng.uniform(*self.device.manners.late)
        if rng.random() < 0.5:
            self._send(answer, after=delay)
            return
        self.loop.post(self.loop.time() + delay, self._send_late, tid, answer)

    def _send_late(self, tid: int, answer: bytes) -> None:
        self._answered(tid)
        self._send(answer)

    def _split(self, answer: bytes) -> None:
        rng = self.device.rng
        step = rng.choice((1, rng.randrange(1, len(answer) + 1)))
        for start in range(0, len(answer), step):
            pause = rng.choice((0.0, 0.002)) * rng.random()
            self._send(answer[start : start + step], after=pause, whole=True)

    def _truncate(self, answer: bytes) -> None:
        """Send a part, and then nothing, the end, or what cannot be its rest."""
        rng = self.device.rng
        missing = rng.randrange(1, len(answer))
        part = answer[:-missing]
        match rng.randrange(3 if self.device.dialect.correlated else 2):
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
