"""What is asked of a device, and why it may get no response."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .compiled import mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .extent import Extent


class Failure(enum.StrEnum):
    """Why a request gets no response from the device."""

    NO_CONNECTION = "no_connection"
    """There was no upstream connection before the deadline."""
    CONNECTION_LOST = "connection_lost"
    """The connection ended after the request was sent, and it must not be resent."""
    NO_RESPONSE = "no_response"
    """Sent, but the device did not answer before the deadline."""
    SILENT = "silent"
    """Not sent: what it asks has not answered lately, and is only tried now and then.
    """
    INVALID_RESPONSE = "invalid_response"
    """The device answered with something that cannot be passed on."""
    BUSY = "busy"
    """Still queued at the deadline: the device is slower than its clients."""
    PAUSED = "paused"
    """The multiplexer is paused: it leaves the device alone."""
    REFUSED = "refused"
    """One of the owner's rules forbids this request."""
    TOO_LARGE = "too_large"
    """It asks for more at once than the owner allows, or for a quantity that the
    protocol does not know."""

    @property
    def is_rule(self) -> bool:
        """Whether a rule decided it; `on_failure` then does not apply."""
        return self in {Failure.REFUSED, Failure.TOO_LARGE}


type ShareKey = bytes
"""Identifies what a request reads; the first byte is the scope (`Request.writes`), and
those behind the first four say how much is read."""


class Written(NamedTuple):
    """What a write changes, for the owner's rules."""

    unit: int
    function: int
    registers: tuple[int, int] | None
    """The first and the last register, or coil. None: it names none."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)  # it is copied
class Request:
    """One complete request, in a form that does not depend on the client."""

    __slots__ = (
        "context",
        "expects_reply",
        "payload",
        "retry_safe",
        "share_key",
        "writes",
    )

    def __init__(
        self,
        payload: bytes,
        context: Any = None,
        retry_safe: bool = False,
        share_key: ShareKey | None = None,
        writes: Hashable | None = None,
        *,
        expects_reply: bool = True,
    ) -> None:
        """Store what a codec has decoded, unchecked."""
        self.payload = payload
        """The content for the device, without the numbering of a connection."""
        self.context = context
        """Private to the downstream codec: how to address the reply."""
        self.retry_safe = retry_safe
        """Whether sending it twice does the same as sending it once."""
        self.share_key = share_key
        """Requests with the same key may share one response. None: never."""
        self.writes = writes
        """The scope that it changes (Modbus: the unit); None for a read."""
        self.expects_reply = expects_reply
        """False for a broadcast, to which devices on a serial line do not respond."""

    flaw: ClassVar[Failure | None] = None
    """Why it must not be sent, whatever the owner's rules. What has one neither reads
    nor writes: `share_key` and `writes` are None."""

    may_log_in: bool = False
    """Whether the device may keep what it does for this one connection, as a login."""

    @property
    def unit(self) -> Hashable | None:
        """The unit that is asked, if the protocol has units."""
        return None

    @property
    def subject(self) -> Hashable | None:
        """What of the unit is asked for: the same for all reads that begin alike."""
        return None

    @property
    def extent(self) -> Extent | None:
        """What it covers, if it is a read that may be part of another or have parts."""
        return None

    @property
    def shape(self) -> tuple[bytes, bytes] | None:
        """The area and the quantity of a read that may cover, or be covered."""
        return None

    @property
    def written(self) -> Written:
        """What it changes; only asked of what `writes`.

        Raises:
            NotImplementedError: the protocol has no rules for writes.

        """
        raise NotImplementedError
