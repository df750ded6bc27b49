"""The interface between the dispatcher and the pool, which it does not import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..protocols.compiled import mypyc_attr

if TYPE_CHECKING:
    from ..protocols.base import Failure, Request
    from .exchange import CloseReason, Upstream


@mypyc_attr(allow_interpreted_subclasses=True)
class Supply(ABC):
    """What the dispatcher needs of the pool, which opens and judges connections."""

    willing: bool
    """Whether requests may be sent: it is neither paused nor stopped."""
    limit: int
    """How many connections the device can serve at once, as far as is known."""
    well: bool
    """Whether the device is known to be healthy, so that a response is no news."""

    @property
    @abstractmethod
    def opening(self) -> bool:
        """Whether a connection is being opened now."""

    @abstractmethod
    def connect(self) -> None:
        """Open a connection, if one is wanted and may be opened now."""

    @abstractmethod
    def refuses(self, deadline: float) -> Failure | None:
        """Return why nothing can be served before `deadline` (loop time), or None."""

    @abstractmethod
    def answered(self, now: float) -> None:
        """Note that the device has answered; needed only while it is not `well`."""

    @abstractmethod
    def question(self, upstream: Upstream, request: Request, now: float) -> bool:
        """Ask the device on a connection that may be dead; return whether that is done.

        `now` is loop time.
        """

    @abstractmethod
    def unanswered(self, failure: Failure, *, probe: bool) -> None:
        """Note that a request, or a probe, got no response, for whatever reason."""

    @abstractmethod
    def lost(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Note that an open connection is gone."""
