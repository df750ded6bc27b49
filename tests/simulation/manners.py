"""How a simulated device behaves, beside its faults."""

from __future__ import annotations

from dataclasses import dataclass
import enum
from math import inf
from typing import TYPE_CHECKING

from .faults import CONNECT_FAULTS, Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

UNLIMITED = 100
"""Connections, of a device that does not count them."""


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


class Habit(enum.Enum):
    """What a device does with transaction identifiers."""

    ECHOES = enum.auto()
    SAYS_ZERO = enum.auto()
    NEEDS_ZERO = enum.auto()
    """It is silent to others."""
    COUNTS = enum.auto()
    """It says numbers of its own."""


class Gateway(enum.Enum):
    """What stands before units of which some may be silent."""

    DROPS = "drops"
    """It forgets a silent unit's request, and goes on."""
    QUEUES = "queues"
    """It serves all in order, and waits for the silent unit."""
    OVERRUN = "overrun"
    """It waits, and what comes meanwhile is lost."""
    EXCUSES = "excuses"
    """It waits, and then says that there was no answer (0x0B)."""


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
    latest: float = inf
    """How long after its request a late response comes at most, however long that has
    waited for others."""
    slot_timeout: float = 5.0
    """A connection that was silent for so long gives up its slot."""
    habit: Habit = Habit.ECHOES
    silent: frozenset[int] = frozenset()
    """Units that are silent at times, or always."""
    gateway: Gateway = Gateway.DROPS
    """What stands before them."""
    holds: float = 0.0
    """How long that waits for a silent unit."""
    poison: int = 0
    """It hangs up at reads of such an address; 0: at none."""

    @property
    def in_order(self) -> bool:
        """One request is served after the other, whatever connection it is from."""
        return self.order is Order.GLOBAL or (
            bool(self.silent) and self.gateway is not Gateway.DROPS
        )
