"""Decides which requests may pass: by the write policy, and by the protocol's rules.

The rules are the owner's. This module only applies them; counting, reporting and
answering are up to its caller.
"""

import enum
from typing import TYPE_CHECKING, Any

from ..networks import HOST_ADDRESS, is_in
from ..protocols.base import Failure
from ..settings import WritePolicy

if TYPE_CHECKING:
    from ..networks import Address
    from ..protocols.base import Protocol, Request
    from ..settings import Settings


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
        self._writes = settings.write_policy
        self._write_networks = settings.write_networks
        self._rules = protocol.rules(settings)
        self.active = self._rules is not None or self._writes is not WritePolicy.ALLOW
        """Whether any rule could stop a request."""

    def judge(self, request: Request, address: Address) -> Verdict:
        """Return what to do with a request from `address`."""
        if self._rules is not None:
            failure = self._rules.judge(request.payload)
            if failure is not None:
                too_large = failure is Failure.TOO_LARGE
                return Verdict.REFUSE_SIZE if too_large else Verdict.REFUSE
        if (
            self._writes is WritePolicy.ALLOW
            or request.writes is None
            or is_in(address, self._write_networks)
        ):
            return Verdict.PASS
        if self._writes is WritePolicy.ACKNOWLEDGE:
            return Verdict.ACKNOWLEDGE
        return Verdict.REFUSE

    def parts(self, request: Request) -> list[Request]:
        """Return the requests in which a read is to be asked; none: as it is."""
        return [] if self._rules is None else self._rules.parts(request)

    def permits(self, request: Request) -> bool:
        """Return whether the program itself may send a request, such as a probe."""
        passes = self.judge(request, HOST_ADDRESS) is Verdict.PASS
        return passes and not self.parts(request)
