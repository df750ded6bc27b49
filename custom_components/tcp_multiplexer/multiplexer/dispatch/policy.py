"""Decides which requests may pass: by the rules for writes, and by the protocol's.

The rules are the owner's. This module only applies them; counting, reporting and
answering are up to its caller.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from ..networks import HOST_ADDRESS
from ..protocols.base import Failure
from ..write_rules import WriteAction

if TYPE_CHECKING:
    from ..networks import Address
    from ..protocols.base import Protocol, Request, Written
    from ..settings import Settings
    from ..write_rules import WriteRule


class Verdict(enum.Enum):
    """What to do with a request."""

    PASS = enum.auto()
    REFUSE = enum.auto()
    REFUSE_SIZE = enum.auto()
    """It asks for more at once than the owner allows."""
    ACKNOWLEDGE = enum.auto()
    """Answer as if it had been carried out: some clients treat a refusal as a fault."""


class Policy:
    """The owner's rules for requests."""

    def __init__(self, settings: Settings, protocol: Protocol[Any]) -> None:
        """Apply the rules in `settings`, including those that only `protocol` knows."""
        self._write_rules = settings.write_rules
        self._rules = protocol.rules(settings)
        self.active = self._rules is not None or any(
            rule.action is not WriteAction.ALLOW for rule in self._write_rules
        )
        """Whether any rule could stop a request."""

    def judge(self, request: Request, address: Address) -> Verdict:
        """Return what to do with a request from `address`."""
        if self._rules is not None:
            failure = self._rules.judge(request.payload)
            if failure is not None:
                too_large = failure is Failure.TOO_LARGE
                return Verdict.REFUSE_SIZE if too_large else Verdict.REFUSE
        if not self._write_rules or request.writes is None:
            return Verdict.PASS
        written = request.written
        for rule in self._write_rules:
            if rule.matches(written, address):
                return _verdict(rule, written)
        return Verdict.PASS

    def parts(self, request: Request) -> list[Request]:
        """Return the requests in which a read is to be asked; none: as it is."""
        return [] if self._rules is None else self._rules.parts(request)

    def permits(self, request: Request) -> bool:
        """Return whether the program itself may send a request, such as a probe."""
        passes = self.judge(request, HOST_ADDRESS) is Verdict.PASS
        return passes and not self.parts(request)


def _verdict(rule: WriteRule, written: Written) -> Verdict:
    """Return what a rule decides about a write that matches it."""
    if rule.action is WriteAction.ALLOW:
        return Verdict.PASS
    if rule.action is WriteAction.ACKNOWLEDGE and rule.contains(written):
        return Verdict.ACKNOWLEDGE
    return Verdict.REFUSE
