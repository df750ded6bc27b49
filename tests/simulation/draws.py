"""What a life may be like: settings of the multiplexer, manners of the device."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any, Final

from custom_components.tcp_multiplexer.multiplexer import Framing, ListenerSettings
from custom_components.tcp_multiplexer.multiplexer.limits import MOST_FREE_DESCRIPTORS
from tests.rules import ACKNOWLEDGED, DENIED, rule

from .dialects import CELLS, UNITS
from .faults import LENIENT_FAULTS, MODBUS_FAULTS, PLAIN_FAULTS, RTU_FAULTS
from .manners import UNLIMITED, Gateway, Habit, Manners, Order, Slots
from .network import Conditions
from .own_requests import PERIODIC

KINDS: Final = ("modbus", "rtu", "lenient", "http", "echo", "iso8583", "mpu")
"""Kinds of lives: what the multiplexer and its device speak."""
_IN_TURN = ("modbus", "rtu", "modbus", "lenient", "modbus", "http", "modbus")
_MODBUS = frozenset(("modbus", "rtu", "lenient"))
_FAULTS = {"modbus": MODBUS_FAULTS, "rtu": RTU_FAULTS, "lenient": LENIENT_FAULTS}
_QUIET = (0.3, 1.0)
DESCRIPTORS: Final = (0, 0, 0, MOST_FREE_DESCRIPTORS + 8)
"""Limits of the program's sockets, mostly none."""
_SOME = (CELLS + 1, CELLS + 8)
"""Three of the cells that clients write, and a half of two more."""
_WRITE_RULES = (
    (),
    (rule("allow", "192.168.1.2"), *DENIED),
    (rule("allow", "192.168.1.2"), *ACKNOWLEDGED),
    (
        rule("deny", "192.168.1.3", functions=(0x06, 0x10, 0x17)),
        rule("acknowledge", units=(2,), registers=_SOME),
        rule("allow", "192.168.1.0/30", registers=_SOME),
        rule("deny", units=(1, 2), registers=(0, CELLS + 15)),
        rule("deny", functions=(0x41,)),
    ),
)


def draw_own(rng: Random, kind: str) -> dict[str, Any]:
    """Draw what the multiplexer asks for itself, apart from all else."""
    if kind not in _MODBUS:
        return {}
    return {
        "discard_first_read": rng.choice((False, False, True)),
        "periodic_request": rng.choice(("", "", *PERIODIC)),
        "periodic_interval": rng.choice((1.0, 5.0, 20.0)),
    }


def kind_of(seed: int) -> str:
    """Give the kind of a life that nobody has chosen: more than half are of Modbus."""
    if seed % 10 < len(_IN_TURN):
        return _IN_TURN[seed % 10]
    return ("echo", "iso8583", "mpu")[seed % 10 - len(_IN_TURN)]


class Draw:
    """Draws one life."""

    def __init__(self, rng: Random, kind: str, descriptors: int = 0) -> None:
        """Draw what others follow from; `descriptors` are drawn apart."""
        self._rng = rng
        self._kind = kind
        self._modbus = kind in _MODBUS
        self._alone = kind != "modbus"
        """One request is in flight, since answers name no question."""
        self._timeout = rng.choice((0.3, 0.5, 1.0, 3.0))
        self._quiet = rng.choice(_QUIET)
        self._descriptors = descriptors

    def conditions(self) -> Conditions:
        """Draw the network."""
        rng = self._rng
        return Conditions(
            latency=rng.choice(((1e-4, 5e-4), (2e-4, 0.002), (0.001, 0.02))),
            split=rng.choice((0.0, 0.05, 0.3)),
            merge=rng.choice((0.0, 0.2, 0.8)),
            descriptors=self._descriptors,
        )

    def manners(self) -> Manners:
        """Draw the device."""
        rng, timeout = self._rng, self._timeout
        late, latest = (timeout * 1.02, timeout * 1.8), inf
        if self._kind in {"rtu", "lenient"}:
            # What comes even later could be told from an answer by nobody.
            latest = timeout + 0.4 * self._quiet
            late = (timeout * 1.02, latest)
        manners = Manners(
            service=rng.choice(((0.0, 0.001), (0.001, 0.01), (0.02, 0.03))),
            dawdle=rng.choice(((0.0, 0.0), (0.0, 0.0), (0.0, 0.02))),
            order=rng.choice(tuple(Order)),
            slots=rng.choice((1, 1, 2, 3, UNLIMITED)),
            beyond=rng.choice(tuple(Slots)),
            fault_share=rng.choice((0.07, 0.085, 0.11)),
            refuse_share=0.2,
            faults=_FAULTS.get(self._kind, PLAIN_FAULTS),
            late=late,
            latest=latest,
            slot_timeout=rng.choice((1.0, 3.0)),
        )
        if self._kind == "rtu":
            manners.order = Order.GLOBAL
        elif self._kind == "lenient":
            manners.habit = rng.choice(tuple(Habit))
        if self._modbus:
            manners.poison = rng.choice((0, 0, 100))
            manners.silent = frozenset(rng.sample(UNITS, rng.choice((0, 1, 2))))
            manners.gateway = rng.choice(tuple(Gateway))
            # (Longer, and there is hardly a moment in which anybody is answered.)
            most = 2 * timeout if len(manners.silent) < 2 else timeout
            manners.holds = min(rng.choice((1.0, 3.0, 10.0)), most)
            if self._kind != "modbus":
                # (What waits behind it must not come later either, see `late`;
                # several units, or connections, may have been silent before it.)
                units = 4 if self._kind == "lenient" else 2
                longest = (timeout + 0.4 * self._quiet) / units
                manners.holds = min(manners.holds, longest)
        return manners

    def settings(self) -> dict[str, Any]:
        """Draw the multiplexer's settings."""
        rng, timeout = self._rng, self._timeout
        backoff = rng.choice((0.1, 0.2, 0.5))
        connections = rng.choice((1, 1, 2, 4))
        in_flight = rng.choice((1, 1, 2, 4, 16))
        settings = {
            "protocol": "modbus" if self._modbus else self._kind,
            "timeout": timeout,
            "connect_delay": rng.choice((0.0, 0.0, 0.05, timeout / 4)),
            "request_delay": rng.choice((0.0, 0.0, 0.0, 0.005, 0.02)),
            "connect_on_demand": rng.random() < 0.3,
            "idle_timeout": rng.choice((0.0, 0.0, 0.2, 1.0)),
            "max_lifetime": rng.choice((0.0, 0.0, 1.0, 10.0)),
            "reconnect_backoff": backoff,
            "reconnect_backoff_max": backoff * rng.choice((1, 4, 10)),
            "max_connections": 1 if self._kind == "rtu" else connections,
            "max_in_flight": 1 if self._alone else in_flight,
            "queue_size": rng.choice((1, 2, 8, 32, 1000)),
            "health_check_interval": rng.choice((0.0, 0.5, 5.0)),
            "share_reads": rng.random() < 0.5,
            "writes_first": rng.random() < 0.5,
            "max_clients": rng.choice((1000, 1000, 1000, 5)),
        }
        return settings | self._modbus_settings() if self._modbus else settings

    def _modbus_settings(self) -> dict[str, Any]:
        rng = self._rng
        rtu_listener = ListenerSettings(
            host="127.0.0.1", port=5021, framing=Framing.RTU
        )
        return {
            "framing": "rtu" if self._kind == "rtu" else "tcp",
            "matching": "lenient" if self._kind == "lenient" else "strict",
            "quiet": self._quiet,
            "more_listeners": rng.choice(((), (rtu_listener,))),
            "unit_map": rng.choice(((), (), ((101, 1), (102, 2)))),
            "on_failure": rng.choice(("exception", "exception", "close")),
            "cache_ttl": rng.choice((0.0, 0.0, 0.1, 1.0)),
            "write_rules": rng.choice(_WRITE_RULES),
            "repeated_write_ttl": rng.choice((0.0, 0.3, 5.0)),
            "max_read_registers": rng.choice((125, 125, 20)),
            "allowed_units": rng.choice(((), (), (), (1, 2))),
            "allowed_functions": rng.choice(((), (), (), (1, 3, 4, 6, 16))),
        }
