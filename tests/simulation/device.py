"""A simulated device: slow, forgetful, jealous of its connections, and seldom honest.

It serves each connection's requests in their order, one at a time over all connections,
or all of them at once, each after a service time. Of the requests, a share meets a
fault; the faults are dealt so that each kind has its turn. What the device executed is
logged, so that a request that came twice shows.

Some things no multiplexer could notice, and no device here does them: an answer with
the identifier, unit and function of another request in flight, or, in protocols without
identifiers, bytes that nobody asked for at the very moment when somebody asks.
"""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import TYPE_CHECKING

from .device_connection import DeviceConnection
from .dialects import Dialect
from .faults import Fault
from .manners import Manners, Slots
from .network import Link, Network, Refusal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from .faces import Face

HOST = "10.0.0.2"
PORT = 502


class SimulatedDevice:
    """Memory, connections and faults."""

    def __init__(
        self,
        network: Network,
        dialect: Dialect,
        rng: Random,
        manners: Manners | None = None,
        face: Face | None = None,
    ) -> None:
        """Listen."""
        self.network = network
        self.loop = network.loop
        self.dialect = dialect
        self.face = face or dialect
        """How it frames what it says."""
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
        self.silent: frozenset[int] = self.manners.silent
        """Units that are silent at the moment."""
        self.away = False
        """Connection attempts are refused, and there are no connections."""
        self.on_link: Callable[[Link], None] | None = None
        """Sees each new connection."""
        self.on_odd: Callable[[Link, int], None] | None = None
        """Sees which requests are refused with an exception whose length is wrong."""
        self.script: deque[Fault | None] = deque()
        """What the next requests meet, before chance is asked."""
        self.busy = False
        self.waits = False
        """It waits for a silent unit."""
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
        """Spoil a connection at which nothing is asked, if there is one.

        Units that are silent at times are so from now on, or no longer.
        """
        if self.manners.silent:
            self.silent = frozenset(
                unit for unit in sorted(self.manners.silent) if self.rng.random() < 0.5
            )
        idle = [connection for connection in self.connections if connection.idle]
        if not idle:
            return
        connection = self.rng.choice(idle)
        kinds = [Fault.RESET, Fault.HALF_OPEN, Fault.CLOSE_AFTER]
        if self.face.correlated:
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

    def service_time(self, body: bytes) -> float:
        """Draw how long a request takes."""
        if body[0] in self.silent:
            return self.manners.holds
        low, high = self.manners.service
        return low + (high - low) * self.rng.random()
