"""The engine's nouns: a requester, one of its exchanges, and what carries that.

A `Requester` is whatever places requests: a network client, the host program, the
health check. An `Exchange` is one of its requests with what the engine must remember
about it. An `Upstream` is one connection to the device: what the dispatcher needs of
it is to send an exchange, and to be told, as its `UpstreamOwner`, what came of that.
All are plain records as far as possible; queue, dispatcher and pool move them about.
"""

from abc import ABC, abstractmethod
from collections import deque
import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol as Interface, override

from ..networks import HOST_ADDRESS

if TYPE_CHECKING:
    from ..networks import Address
    from ..observe.statistics import Statistics
    from ..protocols.base import Failure, Mismatch, Request, Unsolicited


NOBODY: list[Exchange] = []
"""Stands for no followers, so that a list is made only for those who have some."""


class Result(NamedTuple):
    """How an exchange has ended: with a response, or with a failure."""

    response: Any = None
    failure: Failure | None = None


class Exchange:
    """One request, from its last byte received to its last word sent."""

    __slots__ = (
        "arrived",
        "attempts",
        "deadline",
        "followers",
        "request",
        "requester",
        "result",
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
        self.result: Result | None = None
        """What an ordered client has yet to be told, once its turn has come."""

    @override
    def __repr__(self) -> str:
        sent = f", sent {self.attempts} times" if self.attempts else ""
        return (
            f"<Exchange {self.request.payload[:32].hex(' ')} of "
            f"{self.requester.name}{sent}>"
        )


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


class CloseReason(enum.StrEnum):
    """Why an upstream connection ended."""

    CLOSED_BY_DEVICE = "closed_by_device"
    RESET = "reset"
    """The device or the network broke it off."""
    NO_RESPONSE = "no_response"
    """We closed it: a response is missing and could still come."""
    INVALID_DATA = "invalid_data"
    """We closed it: what the device sent cannot be trusted."""
    IDLE = "idle"
    LIFETIME = "lifetime"
    RECONNECT = "reconnect"
    PAUSED = "paused"
    STOPPED = "stopped"
    SPENT = "spent"
    """The protocol allows no further request on it."""


class UpstreamOwner(Interface):
    """What a connection tells the pool."""

    statistics: Statistics
    """Where bytes on the wire are counted."""

    def answered(self, upstream: Upstream, exchange: Exchange, response: Any) -> None:
        """Hear the response to an exchange."""

    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        """Hear that an exchange got something that cannot be passed on."""

    def unsolicited(self, upstream: Upstream, event: Unsolicited) -> None:
        """Hear of bytes that nobody asked for."""

    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        """Hear that the connection is gone, whoever closed it. Told once."""


class Upstream(ABC):
    """One way to the device, open from the end of `open` until `lost`."""

    def __init__(self, owner: UpstreamOwner) -> None:
        """Belong to a pool; nothing is opened yet."""
        self.owner = owner
        self.in_flight: dict[Request, Exchange] = {}
        """Sent and neither answered nor given up, the oldest first."""
        self.waiting: list[Requester] = []
        """Requesters whose next request must go here, when there is place."""
        self.ready = False
        """A request may be sent now; the pool keeps this true."""
        self.opened_at = 0.0
        self.not_before = 0.0
        """No request may be sent earlier."""
        self.last_used = 0.0
        """When the last exchange but a probe ended here."""
        self.last_received = 0.0
        self.received = False
        """At least one byte came."""
        self.responses = 0
        self.sent = 0
        """Requests sent."""
        self.timeouts_in_a_row = 0
        """Requests given up since the last byte came."""
        self.discarded_for: Exchange | None = None
        """Whose response lenient matching would have seen in the last one discarded."""
        self.mismatch: Mismatch | None = None
        """What did not fit in that one."""
        self.on_trial = False
        """An extra connection that has not answered yet."""
        self.trial_until = 0.0
        """When the response to the request in flight on trial must have begun."""
        self.draining: CloseReason | None = None
        """It gets no further request and closes, for this reason, when empty."""
        self.one_at_a_time = False
        """The device has shown that it overlooks requests sent beside others."""
        self.reusable = True
        """False once it must not carry another request."""

    @override
    def __repr__(self) -> str:
        state = "ready" if self.ready else "draining" if self.draining else "busy"
        return f"<{type(self).__name__}: {state}, {len(self.in_flight)} in flight>"

    @property
    def names_unit(self) -> bool:
        """A response names its unit: `quiet` then concerns that unit alone."""
        return False

    @property
    def quiet(self) -> float:
        """Seconds for which nothing may be sent after a timeout."""
        return 0.0

    @abstractmethod
    async def open(self) -> None:
        """Connect.

        Raises:
            OSError: no connection; the text says why.

        """

    @abstractmethod
    def send(self, exchange: Exchange) -> None:
        """Send a request."""

    @abstractmethod
    def begun(self, exchange: Exchange) -> bool:
        """Tell whether a byte of its response may have come."""

    @abstractmethod
    def expire(self, exchange: Exchange) -> bool:
        """Give up waiting for a response; tell whether the connection may be kept."""

    @abstractmethod
    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Close; `lost` follows at once."""
