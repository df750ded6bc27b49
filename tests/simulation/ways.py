"""Lives before a device that is reached in another way than by a socket to it.

What the way itself does wrong is up to each test. All else is as in other lives: the
settings that matter on any way are drawn, clients are of all tempers, and the owner
calls what he can. The `Watch` sees the engine's upstream side as Modbus/TCP, into which
each way translates for it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from .clients import HalfCloser, Leaver, SimulatedClient, SlowReader, Temper
from .dialects import Verdict
from .draws import draw_own
from .owner import Owner
from .world import World

_CROWD = (
    SimulatedClient,
    SimulatedClient,
    SimulatedClient,
    Leaver,
    HalfCloser,
    SlowReader,
)
_RIGHT = 300
"""Right answers that a life must see."""


class WayWorld(World):
    """A world whose device is reached in another way."""

    def __init__(self, seed: str, **settings: Any) -> None:
        """Draw what is not among `settings`."""
        rng = Random(f"{seed}/settings")
        drawn: dict[str, Any] = {
            "share_reads": rng.random() < 0.5,
            "writes_first": rng.random() < 0.5,
            "cache_ttl": rng.choice((0.0, 0.0, 0.3)),
            "request_delay": rng.choice((0.0, 0.0, 0.02)),
            "connect_on_demand": rng.random() < 0.3,
            "health_check_interval": rng.choice((0.0, 5.0)),
            "idle_timeout": rng.choice((0.0, 0.0, 0.5)),
        }
        own = draw_own(rng, "modbus")
        super().__init__(seed, **{**drawn, **own, **settings})
        self._owner = Owner(self, self.rng("owner"), len(_CROWD))
        self._owner.resets = False  # devices here look at what was counted

    def live(self, seconds: float = 100) -> None:
        """Live from now until the stop of the multiplexer."""
        for number, kind in enumerate(_CROWD, 1):
            depth = 8 if kind is SlowReader else 1
            self.client(kind, number, Temper(depth=depth, think=(0.0, 0.05)))
        self.loop.post(self.loop.time() + 1, self._owner.act)
        self.run_for(seconds)
        self.stop()
        self._owner.see_all_ended()
        assert self.watch.verdicts[Verdict.RIGHT] > _RIGHT
        own = self.watch.own
        assert own.asked >= min(own.wanted, 1)
        assert bool(own.discarded) is self.settings.discard_first_read
