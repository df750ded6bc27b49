"""What the owner's rules say to a question, as the `Watch` expects it.

They are said again here, from the contract alone. A rule counts from the moment when it
is applied; for a question not taken yet, each that was in force meanwhile may.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from custom_components.tcp_multiplexer.multiplexer import WriteAction, WriteRule

if TYPE_CHECKING:
    from custom_components.tcp_multiplexer.multiplexer import Settings

    from .questions import Question

_ACKNOWLEDGED = {0x05: 256, 0x06: 256, 0x15: 256, 0x16: 256, 0x0F: 6, 0x10: 6}
"""Up to where the success response repeats the question."""
_SINGLE = frozenset((0x05, 0x06, 0x16))
"""What writes to one register, or coil."""
_SEVERAL = frozenset((0x0F, 0x10, 0x17))
"""What writes to several, and says to how many."""
_BITS_A_REGISTER = {1: 16, 2: 16, 3: 1, 4: 1}
"""Of what is read in parts, how many make up a register."""
ILLEGAL_FUNCTION = 0x01
ILLEGAL_VALUE = 0x03


class Rules:
    """The settings that were in force, one after the other."""

    def __init__(self, settings: Settings) -> None:
        """Begin with what the multiplexer is started with."""
        self._eras = [settings]
        self._none = not _forbids(settings)

    def applied(self, settings: Settings) -> None:
        """Note that other settings are in force."""
        self._eras.append(settings)
        self._none = self._none and not _forbids(settings)

    def bars(self, question: Question) -> bool:
        """Tell whether a question that arrives now must not be sent."""
        question.era = len(self._eras) - 1
        return not self._none and _said(self._eras[-1], question) is not None

    def said(self, question: Question) -> set[bytes | None]:
        """Give what rules may have said to a question by now; None: it may pass."""
        if self._none:
            return {None}
        first = question.era if question.arrived else len(self._eras) - 1
        # (What was certainly taken at once was judged by those of that moment.)
        last = first + 1 if question.admitted else len(self._eras)
        return {_said(settings, question) for settings in self._eras[first:last]}

    def parts(self, question: Question) -> list[list[bytes]]:
        """Give the parts in which a question may be asked; none if it need not be.

        It may go by older rules than it arrived under, in place of one just like it.
        """
        limits = {era.max_read_registers for era in self._eras}
        ways = [parts_of(question.ask.body, registers) for registers in limits]
        return [parts for parts in ways if parts]


def parts_of(body: bytes, registers: int) -> list[bytes]:
    """Give the parts of a question that is longer than so many registers."""
    most = registers * _BITS_A_REGISTER.get(body[1], 1 << 16)
    first, count = int.from_bytes(body[2:4]), int.from_bytes(body[4:6])
    if count <= most or body[1] not in _BITS_A_REGISTER:
        return []
    return [
        body[:2] + (first + done).to_bytes(2) + min(most, count - done).to_bytes(2)
        for done in range(0, count, most)
    ]


def _forbids(settings: Settings) -> bool:
    return bool(
        settings.write_rules
        or settings.allowed_functions
        or settings.allowed_units
        or settings.max_read_registers < 125
    )


def _said(settings: Settings, question: Question) -> bytes | None:
    """Give what a question is told by the rules alone."""
    body = question.ask.body
    if (settings.allowed_units and body[0] not in settings.allowed_units) or (
        settings.allowed_functions and body[1] not in settings.allowed_functions
    ):
        return _refusal(body, ILLEGAL_FUNCTION)
    registers = int.from_bytes(body[4:6]) if body[1] == 0x17 else 0
    if registers > settings.max_read_registers:
        return _refusal(body, ILLEGAL_VALUE)
    if question.ask.writes is None:
        return None
    address = ip_address(question.asker.address)
    for rule in settings.write_rules:
        networks = rule.networks
        if networks and not any(address in network for network in networks):
            continue
        if rule.units and body[0] not in rule.units:
            continue
        if rule.functions and body[1] not in rule.functions:
            continue
        inside = _inside(rule, body)
        if any(inside) and (all(inside) or rule.action is not WriteAction.ALLOW):
            return _told(rule.action, body, whole=all(inside))
    return None


def _inside(rule: WriteRule, body: bytes) -> list[bool]:
    """Tell of each register of a write whether a rule is about it."""
    if rule.registers is None:
        return [True]
    first, last = rule.registers
    at = 6 if body[1] == 0x17 else 2
    begin = int.from_bytes(body[at : at + 2])
    count = int.from_bytes(body[at + 2 : at + 4]) if body[1] in _SEVERAL else 1
    if body[1] not in _SEVERAL | _SINGLE:
        return [False]
    return [first <= register <= last for register in range(begin, begin + count)]


def _told(action: WriteAction, body: bytes, *, whole: bool) -> bytes | None:
    """Give what a write is told by the rule that decides about it."""
    if action is WriteAction.ALLOW:
        return None
    if action is WriteAction.ACKNOWLEDGE and whole and body[1] in _ACKNOWLEDGED:
        return body[: _ACKNOWLEDGED[body[1]]]
    return _refusal(body, ILLEGAL_FUNCTION)


def _refusal(body: bytes, code: int) -> bytes:
    return bytes((body[0], body[1] | 0x80, code))
