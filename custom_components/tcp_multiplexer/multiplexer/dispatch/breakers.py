"""Circuit breakers: what does not answer is not asked for a while.

A unit that is switched off, behind a gateway that serves others, would cost each of its
requests a whole timeout, and everybody who waits behind it too. After two of its
requests in a row were silent, although the device has shown that it lives, its breaker
opens: its requests fail at once, but for one trial now and then. The first response
closes it.

Proof of life is a response to anything else since the silence began. Without one, the
connection may be half-open, so it is renewed first; if the silence goes on after that,
the breaker opens too, or each request would wait for nothing.

Some devices are silent when they are asked for what they do not have, or hang up. That
is no reason to ask the whole unit for nothing: a read that it has answered before is
tried first. If that is answered, it is the read that gets a breaker, not the unit. A
write never gets one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..observe.events import Event, EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from ..observe.events import Events
    from ..protocols.base import Request
    from .exchange import Exchange
    from .known_reads import KnownReads

LOGGER = logging.getLogger(__name__)

SILENT_TO_OPEN = 2
"""Requests in a row without a response after which a breaker opens."""
_FIRST_INTERVAL = 5.0
"""Seconds between opening and the first trial; doubled by each trial that fails."""
_LONGEST_INTERVAL = 60.0
_READS_KEPT = 64
"""Reads without a response that are remembered."""


class Breaker:
    """What is known of one unit, or one read, since it last failed to answer."""

    __slots__ = (
        "asked",
        "interval",
        "is_open",
        "last",
        "renewed",
        "silent",
        "since",
        "trial",
        "until",
    )

    def __init__(self, since: float) -> None:
        self.since = since
        """When the first request without a response was sent (loop time)."""
        self.last = since
        """When it was last counted that there was none (loop time)."""
        self.silent = 0
        """Requests without a response, in a row: each sent after the one before."""
        self.asked: dict[Hashable, None] = {}
        """What they asked for, in order."""
        self.is_open = False
        self.interval = _FIRST_INTERVAL
        self.until = 0.0
        """When the next trial is due, while it is open (loop time)."""
        self.trial: Exchange | None = None
        """The request that is in flight as a trial."""
        self.renewed = False
        """A new connection has not helped."""

    def count(self, exchange: Exchange, now: float) -> None:
        """Count a request without a response."""
        self.asked[exchange.asked.subject] = None
        if exchange.sent < self.last:
            return  # it was under way beside one that is counted
        self.silent += 1
        self.last = now
        if self.is_open:
            self.interval = min(2 * self.interval, _LONGEST_INTERVAL)
            self.until = now + self.interval

    def is_due(self, proof: float) -> bool:
        """Return whether to open it; `proof` is when the device last answered."""
        return (
            not self.is_open
            and self.silent >= SILENT_TO_OPEN
            and (proof > self.since or self.renewed)
        )

    def open(self, now: float) -> None:
        """Let nothing pass until the next trial."""
        self.is_open = True
        self.until = now + self.interval

    def blocks(self, exchange: Exchange, now: float) -> bool:
        """Return whether a request must not be sent now."""
        if not self.is_open or self.trial is exchange:
            return False
        return self.trial is not None or now < self.until


class Breakers:
    """The breakers of a device, by unit and by read; all moments are loop time."""

    def __init__(
        self,
        known: KnownReads,
        describe: Callable[[bytes, None], str],
        events: Events,
        name: str,
    ) -> None:
        """Know a read of each unit that has answered; the others are for reports."""
        self.units: dict[Hashable, Breaker] = {}
        """Of the units that have failed to answer since they last answered."""
        self.reads: dict[Hashable, Breaker] = {}
        """Of reads that get no response though their unit answers others, the longest
        known first."""
        self.known = known
        self._describe = describe
        self._events = events
        self._name = name

    def __bool__(self) -> bool:
        """Return whether anything has failed to answer."""
        return bool(self.units or self.reads)

    @property
    def any_open(self) -> bool:
        """Whether any request would be turned down."""
        return any(breaker.is_open for breaker in self._all())

    @property
    def open_units(self) -> tuple[Hashable, ...]:
        """The units that are only tried now and then."""
        return tuple(unit for unit, b in self.units.items() if b.is_open)

    def _all(self) -> Iterator[Breaker]:
        yield from self.units.values()
        yield from self.reads.values()

    def _of(self, exchange: Exchange) -> Iterator[Breaker]:
        """Yield the breakers that apply to a request."""
        request = exchange.asked
        breaker = self.units.get(request.unit)
        if breaker is not None:
            yield breaker
        if self.reads and request.retry_safe:
            breaker = self.reads.get(request.subject)
            if breaker is not None:
                yield breaker

    # ---- before a request is sent -----------------------------------------------

    def blocks(self, exchange: Exchange, now: float) -> bool:
        """Return whether a request must not be sent now."""
        return any(breaker.blocks(exchange, now) for breaker in self._of(exchange))

    def sent(self, exchange: Exchange) -> None:
        """Note that a request was sent: a trial, if its breaker is open."""
        for breaker in self._of(exchange):
            if breaker.is_open:
                breaker.trial = exchange

    def suspects(self, exchange: Exchange) -> bool:
        """Return whether this read has got no response before."""
        return exchange.asked.subject in self.reads

    def question(self, proof: float) -> Request | None:
        """Return a read of a unit that is about to be given up, though it knows it.

        `proof` is when the device last answered.
        """
        for unit, breaker in self.units.items():
            if breaker.is_due(proof):
                for known in self.known.of(unit):
                    if known.subject not in breaker.asked:
                        return known
        return None

    def witness(self, other_than: Hashable = None) -> Request | None:
        """Return a read that should be answered if the connection is alive, or None."""
        for request in self.known:
            breaker = self.units.get(request.unit)
            if request.unit != other_than and (
                breaker is None or request.subject not in breaker.asked
            ):
                return request
        return None

    # ---- how it ends ------------------------------------------------------------

    def ended(self, exchange: Exchange, now: float) -> None:
        """Note that a request has ended; if it was a trial, another one may follow.

        A trial that showed nothing is made again after the same interval.
        """
        for breaker in self._of(exchange):
            if breaker.trial is exchange:
                breaker.trial = None
                breaker.until = max(breaker.until, now + breaker.interval)

    def answered(self, exchange: Exchange, now: float) -> bool:
        """Note a response; return whether a breaker opens by this proof of life.

        It closes those of its own unit and read.
        """
        request = exchange.asked
        if request.retry_safe:
            self.reads.pop(request.subject, None)
        closed = self.lives(request.unit)
        if closed is not None and closed.silent >= SILENT_TO_OPEN:
            for subject in closed.asked:
                if subject not in {request.subject, None}:
                    self._read(subject, closed.since)
        return self.judge(now, now)

    def lives(self, unit: Hashable) -> Breaker | None:
        """Note that a unit answers, be it too late; close and return its breaker."""
        closed = self.units.pop(unit, None)
        if closed is not None and closed.is_open:
            LOGGER.info("%s: unit %s answers again", self._name, unit)
            self._events.emit(Event(EventType.UNIT_BACK, detail=str(unit)))
        return closed

    def silent(self, exchange: Exchange, now: float, proof: float) -> bool:
        """Count a request without a response; return whether its unit's breaker opens.

        `proof` is when the device last answered.
        """
        request = exchange.asked
        if request.retry_safe and request.subject in self.reads:
            self.refused_read(exchange, now, proof)
        breaker = self.units.get(request.unit)
        if breaker is None:
            breaker = self.units[request.unit] = Breaker(exchange.sent)
        breaker.count(exchange, now)
        return self.judge(now, proof)

    def judge(self, now: float, proof: float) -> bool:
        """Open the breakers of units that are silent without doubt."""
        opened = False
        for unit, breaker in self.units.items():
            if breaker.is_due(proof) and all(
                known.subject in breaker.asked for known in self.known.of(unit)
            ):
                breaker.open(now)
                opened = True
                text = "%s: unit %s does not answer; it is only tried now and then"
                LOGGER.info(text, self._name, unit)
                self._events.emit(Event(EventType.UNIT_SILENT, detail=str(unit)))
        return opened

    def refused_read(self, exchange: Exchange, now: float, proof: float) -> None:
        """Count a read that got no response though its unit answers others.

        So is one in place of whose response the device closed the connection. `proof`
        is when the device last answered.
        """
        request = exchange.asked
        if request.subject is None or not request.retry_safe:
            return
        breaker = self._read(request.subject, exchange.sent)
        breaker.count(exchange, now)
        if breaker.is_due(proof):
            breaker.open(now)
            asked = self._describe(request.payload, None)
            text = "%s: no answer to %s; it is only tried now and then"
            LOGGER.info(text, self._name, asked)

    def _read(self, subject: Hashable, since: float) -> Breaker:
        """Return the breaker of a read, a new one if there is none."""
        breaker = self.reads.get(subject)
        if breaker is None:
            if len(self.reads) >= _READS_KEPT:
                del self.reads[next(iter(self.reads))]
            breaker = self.reads[subject] = Breaker(since)
        return breaker

    # ---- connections ------------------------------------------------------------

    def renewed(self) -> None:
        """Note that the connection was renewed since nothing answered."""
        for breaker in self.units.values():
            breaker.renewed = True

    def away(self, now: float) -> None:
        """Allow trials of units: the device was away, or is asked to begin anew."""
        for breaker in self.units.values():
            breaker.until = min(breaker.until, now)
