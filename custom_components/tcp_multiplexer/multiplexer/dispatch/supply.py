"""What the dispatcher needs of the pool, which stands above it."""

from typing import TYPE_CHECKING, Protocol as Interface

if TYPE_CHECKING:
    from ..protocols.base import Failure
    from .exchange import CloseReason, Upstream


class Supply(Interface):
    """What the dispatcher needs of whatever opens and judges connections."""

    willing: bool
    """The device may be asked: it is neither paused nor stopped."""
    limit: int
    """How many connections the device can serve at a time, as far as is known."""
    well: bool
    """The device is known to be healthy: a response tells nothing new about it."""

    def connect(self) -> None:
        """Open a connection, if one is wanted and may be opened now."""

    def refuses(self, deadline: float) -> Failure | None:
        """Return why nothing can be served before `deadline`, if so."""

    def answered(self, now: float) -> None:
        """Learn that the device has answered; needed only if it is not `well`."""

    def unanswered(self, failure: Failure) -> None:
        """Learn that a request got no response, for whatever reason."""

    def lost(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Learn that an open connection is gone."""
