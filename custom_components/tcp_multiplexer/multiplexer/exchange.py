"""The engine's two nouns: who asks, and one request on its way to a response.

A `Requester` is whoever places requests: a network client, the host program, the
health check. An `Exchange` is one of its requests with what the engine must remember
about it. Both are plain records; the queue and the pool move them about.
"""

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from .policy import HOST_ADDRESS

if TYPE_CHECKING:
    from .policy import Address
    from .protocols.base import Failure, Request
    from .upstream import Upstream


NOBODY: list[Exchange] = []
"""Stands for no followers, so that a list is made only for those who have some."""


class Exchange:
    """One request, from its last byte received to its last word sent."""

    __slots__ = (
        "arrived",
        "attempts",
        "deadline",
        "followers",
        "outcome",
        "request",
        "requester",
        "sent",
        "turn",
    )

    def __init__(
        self, request: Request, requester: Requester, arrived: float, deadline: float
    ) -> None:
        """Note who asks what, since when and until when (loop time, seconds)."""
        self.request = request
        self.requester = requester
        self.arrived = arrived
        self.deadline = deadline
        self.sent = 0.0
        """When it last went upstream; means nothing while `attempts` is 0."""
        self.attempts = 0
        self.turn = 0
        """Its own, where it was put back; 0 stands for its requester's."""
        self.followers: list[Exchange] = NOBODY
        """Identical reads that its response answers too."""
        self.outcome: Any = None
        """What an ordered client has yet to be told, once its turn has come."""


class Requester(ABC):
    """Whoever places requests; the queue is fair between these."""

    # Slots, because an instance with more than 30 attributes is slow without.
    __slots__ = (
        "address",
        "blocked",
        "gone",
        "held",
        "in_flight",
        "joined",
        "name",
        "peer",
        "pending",
        "queued",
        "turn",
        "upstream",
        "writing",
    )

    counted = True
    """Its requests count in statistics."""

    def __init__(self, name: str) -> None:
        """Start with nothing asked."""
        self.name = name
        """For logs and traces."""
        self.address: str | None = None
        """Where it is, for events; None for a part of the program."""
        self.peer: Address = HOST_ADDRESS
        """The same, for rules."""
        self.pending: deque[Exchange] = deque()
        """Its requests not yet sent, in their order."""
        self.joined = 0
        """Its reads that follow identical ones of others."""
        self.writing = 0
        """Its writes not yet answered."""
        self.in_flight = 0
        """Its requests sent and not yet ended."""
        self.upstream: Upstream | None = None
        """The connection that carries its requests in flight."""
        self.turn = 0
        """When it was last served, or accepted, as a count: the least goes next."""
        self.queued = False
        """It waits for its turn."""
        self.blocked = False
        """It has more to ask than the queue may hold."""
        self.held = False
        """It does not take its responses, so it gets no more of them."""
        self.gone = False
        """Nobody is there to be answered."""

    @abstractmethod
    def answered(self, exchange: Exchange, response: Any) -> None:
        """Take the response to one of its requests."""

    @abstractmethod
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        """Learn that one of its requests gets none."""

    def unblock(self) -> None:  # noqa: B027 - few are ever blocked
        """Go on asking: the queue has room again."""
