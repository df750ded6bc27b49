"""Lives: worlds in which everything is drawn from one seed.

Settings, manners, tempers, faults, and what the owner does meanwhile. A life goes on
until enough has been exchanged and suffered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import logging
from random import Random
import traceback
from typing import Any

from .crowd import DEEPEST, draw_crowd
from .draws import DESCRIPTORS, Draw, draw_own
from .faults import Fault
from .owner import Owner
from .questions import Violation
from .world import World

EXCHANGES = 2000
"""Right answers that a life must see."""
FAULTS = 10
"""Faults of each kind that it must see."""
_TOLD = 40
"""Lines of the log that a failure comes with."""
_LIMIT = 100_000.0
"""Seconds of simulated time after which a life is given up."""


class Life(World):
    """A world in which everything is drawn from one seed."""

    def __init__(self, seed: int | str, kind: str = "modbus") -> None:
        """Draw everything."""
        rng = Random(f"{seed}/{kind}/life")
        sockets = Random(f"{seed}/{kind}/descriptors")
        draw = Draw(rng, kind, sockets.choice(DESCRIPTORS))
        super().__init__(
            f"{seed}/{kind}",
            conditions=draw.conditions(),
            stall=rng.choice((0.0, 0.003, 0.03)),
            manners=draw.manners(),
            **draw.settings(),
            **draw_own(Random(f"{seed}/{kind}/own"), kind),
        )
        self.starts_paused = rng.random() < 0.1
        self.addresses = rng.choice((3, 30))
        rtu = bool(self.settings.more_listeners)
        self.crowd = draw_crowd(rng, rtu=rtu, addresses=self.addresses)
        self._rng = rng
        self._owner = Owner(self, rng, self.addresses)
        self._lacks: Fault | None = None
        self.mood_seconds = 2.0

    @property
    def exchanges(self) -> int:
        """Right answers of the device's, so far."""
        return self.watch.right

    @property
    def lacking(self) -> list[Fault]:
        """Kinds of faults that were not seen often enough yet."""
        manners = self.device.manners
        return [
            fault
            for fault in (*manners.faults, *manners.connect_faults)
            if self.device.faults[fault] < FAULTS
        ]

    @property
    def digest(self) -> str:
        """Two lives with the same digest went the same way."""
        faults = sum(self.device.faults.values())
        return f"{self.network.digest:08x} {self.exchanges} {faults}"

    def live(self) -> None:
        """Live it, from the start of the multiplexer to its stop."""
        self.start(paused=self.starts_paused)
        for number, (kind, temper, source) in enumerate(self.crowd, start=1):
            self.client(kind, number, temper, source)
        self.loop.post(self.loop.time() + 1, self._mood)
        self.loop.post(self.loop.time() + 1, self._owner.act)
        if not self.loop.run_until(self._enough, _LIMIT):
            message = f"only {self.exchanges} exchanges; seldom seen: {self.lacking}"
            raise Violation(message)
        if self._rng.random() < 0.5:
            self._wind_down()
        self.stop()
        self._owner.see_all_ended()

    def _enough(self) -> bool:
        watch = self.watch
        if watch.right < EXCHANGES or watch.own.asked < watch.own.wanted:
            return False
        # (Mostly the fault that was lacking last still is.)
        if self._lacks is not None and self.device.faults[self._lacks] < FAULTS:
            return False
        self._lacks = next(iter(self.lacking), None)
        return self._lacks is None

    def _wind_down(self) -> None:
        """Ask no more, and see that everybody is answered."""
        self.winding_down = True
        if self.mux.paused:
            self.loop.call_soon(self.mux.resume)  # in the loop, as all that acts on it
        watch = self.watch
        # A client that is held back asks one thing after the other, each with its time.
        limit = (2 + DEEPEST) * watch.timeout
        if not self.loop.run_until(lambda: not watch.unanswered(), limit):
            raise Violation(f"never answered: {watch.unanswered()}")

        def idle() -> bool:
            picture = self.mux.snapshot()
            return not (picture.queue_depth or picture.in_flight)

        if not self.loop.run_until(idle, limit):
            raise Violation(f"nobody asks, yet {self.mux.snapshot()}")

    def _mood(self) -> None:
        """Let the device do something unasked, now and then."""
        if not self.winding_down:
            self.device.mood()
            pause = self._rng.expovariate(1 / self.mood_seconds)
            self.loop.post(self.loop.time() + pause, self._mood)


@dataclass
class Report:
    """How a life went."""

    seed: int
    replay: str
    """The command that lives it again."""
    digest: str
    exchanges: int
    faults: dict[str, int]
    error: str
    """What it broke, and where; empty where it went well."""
    log: list[str]
    """What passed last."""


def live(seed: int, kind: str = "modbus", *, keep: bool = False) -> Report:
    """Live a life and tell how it went; with `keep`, with all that passed in it."""
    life = Life(seed, kind)
    if keep:
        life.network.log = deque()
    error = ""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a line for each of thousands of connections
    try:
        with life:
            life.live()
    except Exception:  # noqa: BLE001 - whatever ends a life, it is told
        error = traceback.format_exc()
    finally:
        logging.disable(disabled)
    log = [_told(entry) for entry in life.network.log] if keep or error else []
    return Report(
        seed=seed,
        replay=f"script/simulate 1 {seed} --kind {kind}",
        digest=life.digest,
        exchanges=life.exchanges,
        faults={fault.value: count for fault, count in life.device.faults.items()},
        error=error,
        log=log if keep else log[-_TOLD:],
    )


def _told(entry: tuple[Any, ...]) -> str:
    """Say for people what passed."""
    time, *what = entry
    words = [part.hex(" ") if isinstance(part, bytes) else str(part) for part in what]
    return f"{time:.6f} {' '.join(words)}"
