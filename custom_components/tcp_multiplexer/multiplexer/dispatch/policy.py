"""What may pass: which writes, which functions and units.

The rules are the owner's; this room only applies them. Whoever asks it counts, tells
and answers.
"""

import enum
from typing import TYPE_CHECKING

from ..networks import is_in
from ..protocols.modbus.pdu import MAX_REGISTERS, registers_read

if TYPE_CHECKING:
    from ..networks import Address
    from ..protocols.base import Request
    from ..settings import Settings


class Verdict(enum.Enum):
    """What becomes of a request."""

    PASS = enum.auto()
    REFUSE = enum.auto()
    REFUSE_SIZE = enum.auto()
    """It asks for more at once than the device bears."""
    ACKNOWLEDGE = enum.auto()
    """Answer as if it had been carried out: some clients count a refusal as a fault."""


class Policy:
    """The owner's rules for requests."""

    def __init__(self, settings: Settings, *, has_units: bool) -> None:
        """Apply the rules in `settings`; those of units only where there are some."""
        self._writes = settings.write_policy
        self._write_networks = settings.write_networks
        self._functions = frozenset(settings.allowed_functions if has_units else ())
        self._units = frozenset(settings.allowed_units if has_units else ())
        self._registers = settings.max_read_registers if has_units else MAX_REGISTERS
        self.active = (
            bool(self._functions or self._units)
            or self._writes != "allow"
            or self._registers < MAX_REGISTERS
        )
        """There is a rule that could stop a request."""

    def judge(self, request: Request, address: Address) -> Verdict:
        """Decide on a request from `address`."""
        payload = request.payload
        if self._units and payload[0] not in self._units:
            return Verdict.REFUSE
        if self._functions and payload[1] not in self._functions:
            return Verdict.REFUSE
        if (
            self._registers < MAX_REGISTERS
            and registers_read(payload) > self._registers
        ):
            return Verdict.REFUSE_SIZE
        if (
            self._writes == "allow"
            or request.writes is None
            or is_in(address, self._write_networks)
        ):
            return Verdict.PASS
        return Verdict.ACKNOWLEDGE if self._writes == "acknowledge" else Verdict.REFUSE
