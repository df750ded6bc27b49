"""The owner's rules for writes: who may write what, where.

Rules stand in a list, and the first that matches a write decides about it.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum
from typing import TYPE_CHECKING

from .checks import chosen
from .networks import Address, Network, is_in
from .protocols.options import SettingsError

if TYPE_CHECKING:
    from .protocols.base import Written

_FIELD = "write_rules"


class WriteAction(enum.StrEnum):
    """What to do with a write."""

    ALLOW = "allow"
    DENY = "deny"
    """Refuse it (Modbus: exception 0x01)."""
    ACKNOWLEDGE = "acknowledge"
    """Answer it as if it had been carried out, without sending it: some clients treat a
    refusal as a fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteRule:
    """What to do with the writes that fit all of its conditions; an empty one fits all.

    An action may be given by its name, as config entries and command lines have it.

    Raises:
        SettingsError: the action is unknown, or a number out of its bounds.

    """

    action: WriteAction
    networks: tuple[Network, ...] = ()
    """Where the client is."""
    units: tuple[int, ...] = ()
    """Units of the device."""
    functions: tuple[int, ...] = ()
    """Function codes."""
    registers: tuple[int, int] | None = None
    """The first and the last register, or coil, as they are on the wire: from 0. What
    writes to none (`Written.registers`) does not fit."""

    def __post_init__(self) -> None:
        """Check everything, and convert an action given by its name."""
        action = chosen(_FIELD, WriteAction, self.action)
        object.__setattr__(self, "action", action)
        for what, low, high, numbers in (
            ("unit", 0, 255, self.units),
            ("function", 1, 255, self.functions),
            ("register", 0, 0xFFFF, self.registers or ()),
        ):
            for number in numbers:
                if not low <= number <= high:
                    message = f"{what} must be between {low} and {high}, is {number}"
                    raise SettingsError(_FIELD, message)
        if self.registers is not None and (
            len(self.registers) != 2 or self.registers[0] > self.registers[1]
        ):
            message = "registers must be the first and the last of one range"
            raise SettingsError(_FIELD, message)

    def matches(self, written: Written, address: Address) -> bool:
        """Return whether this rule decides about a write of a client at `address`.

        A write to registers inside and outside of its range cannot be cut in two: a
        rule that allows matches only what lies inside, any other whatever touches it.
        """
        if (
            (self.networks and not is_in(address, self.networks))
            or (self.units and written.unit not in self.units)
            or (self.functions and written.function not in self.functions)
        ):
            return False
        if self.registers is None:
            return True
        if written.registers is None:
            return False
        if self.action is WriteAction.ALLOW:
            return self.contains(written)
        return (
            written.registers[0] <= self.registers[1]
            and self.registers[0] <= written.registers[1]
        )

    def contains(self, written: Written) -> bool:
        """Return whether all registers of a write that matches are in its range."""
        return self.registers is None or (
            written.registers is not None
            and self.registers[0] <= written.registers[0]
            and written.registers[1] <= self.registers[1]
        )
