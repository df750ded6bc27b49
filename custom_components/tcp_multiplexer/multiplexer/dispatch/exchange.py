"""The engine's nouns: a requester, its exchanges, and the connections that carry them.

A `Requester` is anything that makes requests: a network client, the host program, the
health check. An `Exchange` is one of its requests with the state that the engine keeps
for it. An `Upstream` is one connection to the device; it sends exchanges, and reports
their outcome to its `UpstreamOwner`, the dispatcher. All are plain records as far as
possible; queue, dispatcher and pool act on them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
import enum
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    NamedTuple,
    override,
)

from ..networks import HOST_ADDRESS
from ..protocols.compiled import mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..networks import Address
    from ..observe.statistics import Statistics
    from ..protocols.base import Failure, Mismatch, Request, Unsolicited
    from .split import Split


NOTHING_JOINED: Final[dict[Exchange, Exchange]] = {}
"""Of a requester whose requests never follow others: an empty one takes 80 bytes."""
NOBODY: Final[list[Exchange]] = []
"""Stands for no followers, so that a list is made only where there are some."""


class Result(NamedTuple):
    """How an exchange has ended: with a response, or with a failure."""

    response: Any = None
    failure: Failure | None = None


class Exchange:
    """One request, from its last byte received until its response has been sent."""

    __slots__ = (
        "arrived",
        "asked",
        "attempts",
        "deadline",
        "followers",
        "request",
        "requester",
        "result",
        "sent",
        "split",
        "turn",
    )

    def __init__(
        self, request: Request, requester: Requester, arrived: float, deadline: float
    ) -> None:
        """Begin with when the request arrived and when it times out (loop time)."""
        self.request = self.asked = request
        """What its requester asks, and what the device is asked: that, or a part."""
        self.requester = requester
        self.arrived = arrived
        self.deadline = deadline
        self.sent = 0.0
        """When it was last sent (loop time); meaningless while `attempts` is 0."""
        self.attempts = 0
        """How often it has been sent."""
        self.turn = 0
        """Its own place in the queue once it was requeued; 0: its requester's."""
        self.followers: list[Exchange] = NOBODY
        """Reads that its response answers as well: identical ones, and of a part."""
        self.split: Split | None = None
        """The parts in which it is asked, if the device does not take it whole."""
        self.result: Result | None = None
        """How it ended, kept until it is its turn where replies must be in order."""

    @property
    def sent_once(self) -> bool:
        """Whether nothing of it has been sent twice."""
        return self.attempts == (1 if self.split is None else self.split.number)

    @override
    def __repr__(self) -> str:
        sent = f", sent {self.attempts} times" if self.attempts else ""
        return (
            f"<Exchange {self.request.payload[:32].hex(' ')} of "
            f"{self.requester.name}{sent}>"
        )


class Repetition(Exchange):
    """A request that its client has asked before, to the byte, and is still owed.

    It is not sent: it follows the first, and ends as that does.
    """

    __slots__ = ()


@mypyc_attr(allow_interpreted_subclasses=True)
class Requester(ABC):
    """Anything that makes requests; the queue is fair between requesters.

    Each part of its state is kept by one other part of the engine:

    =====================  ======================================================
    pending, turn, queued  the queue: what waits, and its place in line
    joined, blocked        the queue: reads without a turn, no room for a request
    in_flight, upstream    connections and dispatcher, while it is being served
    pinned                 the dispatcher, once it has logged in
    writing                the dispatcher: writes from their arrival to their end
    held, gone             the requester itself: not reading, or no longer there
    =====================  ======================================================
    """

    # Slots, because without them access is slow to an instance's attributes beyond 30.
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
        "pinned",
        "queued",
        "turn",
        "upstream",
        "writing",
    )

    counted = True
    """Whether its requests count in statistics."""
    keeps_open = True
    """Whether its requests keep a connection from being idle, if they count."""
    tells = True
    """Whether it says anything of the device that one gets no response."""

    def __init__(self, name: str) -> None:
        self.name = name
        """For logs and traces."""
        self.address: str | None = None
        """Its address without a port, for events; None for a part of the program."""
        self.peer: Address = HOST_ADDRESS
        """Its address, for the owner's rules."""
        self.pending: list[Exchange] = []
        """Its requests not yet sent, the oldest first. No deque: an empty one takes 760
        bytes, for each client."""
        self.joined: dict[Exchange, Exchange] = NOTHING_JOINED
        """Its requests that follow others, each with the one it follows."""
        self.writing = 0
        """Its writes not yet answered."""
        self.in_flight = 0
        """Its requests sent and not yet answered or failed."""
        self.upstream: Upstream | None = None
        """The connection that carries its requests in flight."""
        self.pinned: Upstream | None = None
        """The connection in which it may have logged in: it stays with that."""
        self.turn = 0
        """When it was last served, or joined, as a count: the lowest goes next."""
        self.queued = False
        """It stands in the queue's line."""
        self.blocked = False
        """It found no room for its next request."""
        self.held = False
        """It does not read its responses, so it is not served until it does."""
        self.gone = False
        """It has left: there is nothing to answer."""

    @abstractmethod
    def answered(self, exchange: Exchange, response: Any) -> None:
        """Receive the response to one of its requests."""

    @abstractmethod
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        """Receive the failure of one of its requests, which gets no response."""

    def unblock(self) -> None:  # noqa: B027 - few are ever blocked
        """Place the next request: the queue has room again."""

    def dismiss(self) -> None:  # noqa: B027 - few ever log in
        """Leave: the connection is gone in which it had logged in."""


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


BY_DEVICE = frozenset((CloseReason.CLOSED_BY_DEVICE, CloseReason.RESET))
"""Reasons for which it was not the multiplexer that closed."""


@mypyc_attr(allow_interpreted_subclasses=True)
class UpstreamOwner(ABC):
    """What a connection reports to; in the engine, the dispatcher."""

    statistics: Statistics
    """Where bytes on the wire are counted."""

    @abstractmethod
    def answered(self, upstream: Upstream, exchange: Exchange, response: Any) -> None:
        """Take the response to an exchange."""

    @abstractmethod
    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        """Note that the response to an exchange cannot be passed on."""

    @abstractmethod
    def unsolicited(self, upstream: Upstream, event: Unsolicited) -> None:
        """Note bytes that belong to no request."""

    @abstractmethod
    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        """Note that the connection is gone, whichever side closed it; called once."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Upstream(ABC):
    """One connection to the device, open from the return of `open` until `lost`.

    All moments are loop time.
    """

    # Slots for the same reason: with those of its subclasses it has more than 30.
    __slots__ = (
        "alone",
        "capacity",
        "discarded_for",
        "draining",
        "in_flight",
        "last_received",
        "last_used",
        "mismatch",
        "not_before",
        "on_trial",
        "one_at_a_time",
        "opened_at",
        "owner",
        "probed_at",
        "ready",
        "received",
        "responses",
        "reusable",
        "sent",
        "timeouts_in_a_row",
        "trial_until",
        "waiting",
    )

    reaches_device = True
    """Whether `open` reaches the device, or only the first request does."""

    def __init__(self, owner: UpstreamOwner) -> None:
        self.owner = owner
        self.in_flight: dict[Request, Exchange] = {}
        """Requests sent and neither answered nor timed out, the oldest first."""
        self.waiting: list[Requester] = []
        """Requesters whose next request must go here as soon as there is room."""
        self.ready = False
        """A request may be sent now; kept up to date by `Connections`."""
        self.opened_at = 0.0
        self.not_before = 0.0
        """No request may be sent earlier."""
        self.last_used = 0.0
        """When the last exchange other than a probe ended here."""
        self.last_received = 0.0
        """When the last byte arrived, or the connection was opened."""
        self.probed_at = 0.0
        """When the health check last asked here."""
        self.received = False
        """At least one byte has arrived."""
        self.responses = 0
        """Responses received."""
        self.sent = 0
        """Requests sent."""
        self.capacity = 1
        """How many requests may be in flight; kept by `Connections`."""
        self.timeouts_in_a_row = 0
        """Requests that had a fair chance and timed out since the last byte arrived."""
        self.discarded_for: Exchange | None = None
        """The exchange that lenient matching would have given the last discarded
        response."""
        self.mismatch: Mismatch | None = None
        """What did not fit in that response."""
        self.on_trial = False
        """An extra connection that has not answered yet."""
        self.trial_until = 0.0
        """By when the response to the request in flight must have begun."""
        self.alone = False
        """Nothing may go out beside what is in flight."""
        self.draining: CloseReason | None = None
        """It gets no further requests, and closes for this reason once it is empty."""
        self.one_at_a_time = False
        """Whether the device has overlooked requests that were sent beside others."""
        self.reusable = True
        """False once it must not carry another request."""

    @override
    def __repr__(self) -> str:
        state = "ready" if self.ready else "draining" if self.draining else "busy"
        return f"<{type(self).__name__}: {state}, {len(self.in_flight)} in flight>"

    @property
    def identifies(self) -> bool:
        """Whether a response names the very request that it answers."""
        return False

    @property
    def names_unit(self) -> bool:
        """Whether a response names its unit; `quiet` then applies to that unit only."""
        return False

    @property
    def quiet(self) -> float:
        """Seconds for which nothing may be sent after a timeout."""
        return 0.0

    @abstractmethod
    def open(self) -> Coroutine[Any, Any, None]:
        """Connect; to be awaited.

        Raises:
            OSError: no connection; the text says why.

        """

    @abstractmethod
    def send(self, exchange: Exchange) -> None:
        """Send a request."""

    @abstractmethod
    def begun(self, exchange: Exchange) -> bool:
        """Return whether a byte of its response may have arrived."""

    @abstractmethod
    def expire(self, exchange: Exchange) -> bool:
        """Stop waiting for a response; return whether the connection may be kept."""

    @abstractmethod
    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Close; `lost` follows at once."""
