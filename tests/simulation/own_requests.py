"""What the engine asks by itself, now and then and first, as the contract says it.

The periodic request is a question of the host program's, as the `Watch` sees it, but is
asked for itself. When it is placed, and how it ends, is told by the engine; whether it
may be placed then, is judged here, from the contract alone.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, override

from custom_components.tcp_multiplexer.multiplexer import Failure, Health
from custom_components.tcp_multiplexer.multiplexer.upstream.periodic import (
    PeriodicRequester,
)

from .dialects import Ask, Verdict
from .questions import Question, Violation

if TYPE_CHECKING:
    from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings
    from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import (
        Exchange,
        Upstream,
    )

    from .invariants import Watch
    from .network import Link

PERIODIC: dict[str, Ask] = {
    "": Ask(b""),
    "unit=1 read=3000 count=2": Ask(b"\1\3\x0b\xb8\0\2"),
    "unit=2 write=28672 value=4660": Ask(b"\2\6\x70\0\x12\x34", False, 2),
}
"""What lives may have for a periodic request: nothing, or what no client asks."""
_PATIENCE = 1.03
"""Seconds for which all else waits for the first read, or half the timeout if less."""
_DROPS = frozenset((Failure.NO_CONNECTION, Failure.CONNECTION_LOST))
"""It was dropped with the last connection: the next one begins with it."""
_TINY = 1e-6


class OwnRequests:
    """Sees when the engine asks for itself, beside the probes."""

    def __init__(self, watch: Watch, settings: Settings) -> None:
        """Watch an engine that runs with `settings`, in which these do not change."""
        self._watch = watch
        self._loop = watch.loop
        self._every = settings.periodic_interval
        self._ask = PERIODIC.get(settings.periodic_request, PERIODIC[""])
        self._discards = settings.discard_first_read
        self._on_port = settings.serial is not None
        self._due = self._earliest = 0.0
        self._open: Question | None = None
        self.asked = 0
        """How often the periodic request was asked."""
        self.wanted = 10 if self._ask.body else 0
        """How often a life must see it."""
        self._firsts: dict[Link, float] = {}
        """By connection, when it was asked what is discarded; infinity: nothing was."""
        self.discarded = 0
        """How many reads were."""

    def attach(self, mux: Multiplexer) -> None:
        """Be told by an engine when the periodic request is placed, and ends."""
        if self._ask.body:
            requester = mux._pool._periodic  # noqa: SLF001 - told by it
            requester.__class__ = _told_to(self)

    # ---- now and then -----------------------------------------------------------

    def begins(self, now: float) -> None:
        """Look at a periodic request that is about to be placed."""
        watch, mux = self._watch, self._watch.mux
        if self._open is not None:
            raise Violation(f"{self._open} has not ended, and is asked again")
        if now < self._earliest - _TINY:
            raise Violation(f"the periodic request is due at {self._earliest}")
        # (That a connection is lost is learned a moment later.)
        there = mux is not None and (watch.upstreams() or mux.snapshot().connections)
        if mux is None or mux.paused or not there:
            raise Violation("the periodic request is asked, and nothing is open")
        self._due = self._earliest = now + self._every
        self.asked += 1
        self._open = watch.asked(watch.host(), 0, self._ask)

    def answered(self, body: bytes) -> None:
        """Judge the response to it."""
        question = self._ended()
        self._watch.answered(question, body)
        if not question.links and question.verdict is not Verdict.RULE:
            raise Violation(f"{question} was answered by what another asked")

    def failed(self, failure: Failure) -> None:
        """Judge why there is none."""
        question = self._ended()
        self._watch.failed(question, failure)
        if failure in _DROPS:
            self._earliest = self._loop.time()

    def _ended(self) -> Question:
        question, self._open = self._open, None
        assert question is not None, "the periodic request ends, and was not asked"
        return question

    def look(self, mux: Multiplexer) -> None:
        """See soon that it was asked, if it is due and could be."""
        well = not mux.paused and mux.health in {Health.HEALTHY, Health.DEGRADED}
        due = self._loop.time() > self._due and self._open is None
        if self._ask.body and due and well:
            when = self._loop.time() + self._watch.slack
            links = {end.link for end in self._watch.upstreams()}
            self._loop.post(when, self._must_have_asked, mux, self.asked, links)

    def _must_have_asked(self, mux: Multiplexer, asked: int, links: set[Link]) -> None:
        there = links & {end.link for end in self._watch.upstreams()}
        if asked == self.asked and there and not (mux.paused or self._loop.stalled):
            raise Violation(f"the periodic request was not asked at {self._due}")

    # ---- first ------------------------------------------------------------------

    def sent(self, link: Link, body: bytes) -> None:
        """Look at a request that goes upstream: first, or behind the first."""
        if not self._discards:
            return
        now = self._loop.time()
        if link not in self._firsts:
            self._is_first(link, body, now)
            return
        asked = self._firsts[link]
        upstream = self._upstream(link)
        if asked < inf and any(map(_is_discarded, _exchanges(upstream, but=body))):
            raise Violation(f"{body.hex(' ')} was sent beside the first read")
        patience = min(_PATIENCE, self._watch.shortest_timeout / 2)
        unheard = self._watch.heard_at(link) <= asked < inf
        # (It was chosen some time before it was seen, if the loop stalled.)
        if unheard and now < asked + patience - self._watch.slack:
            raise Violation(f"{body.hex(' ')} was sent before the first read ended")

    def _is_first(self, link: Link, body: bytes, now: float) -> None:
        mux = self._watch.mux
        upstream = self._upstream(link)
        found = _exchanges(upstream)
        self._firsts[link] = inf
        if any(_is_discarded(e) and e.asked.payload == body for e in found):
            self._firsts[link] = now
            self.discarded += 1
        elif mux is not None and upstream is not None and not self._on_port:
            # (At a port it may end before the line is silent and the adapter known.)
            # believed: that connections serve one request, and that rules forbid all
            connections = mux._connections  # noqa: SLF001
            if not connections._habit.known and connections.probe() is not None:  # noqa: SLF001
                raise Violation(f"{body.hex(' ')} was sent before the first read")

    def _upstream(self, link: Link) -> Upstream | None:
        """Give what a connection is in the engine."""
        mux = self._watch.mux
        opened = mux._connections.open if mux is not None else []  # noqa: SLF001
        if len(opened) == 1:
            return opened[0]
        for upstream in opened:
            if getattr(upstream, "_transport", None) is link.program:
                return upstream
        return None


def _exchanges(upstream: Upstream | None, but: bytes = b"") -> list[Exchange]:
    """Give what is in flight on a connection, but for what was sent just now."""
    flying = [] if upstream is None else list(upstream.in_flight.values())
    return [e for e in flying if not but or e is not flying[-1]]


def _is_discarded(exchange: Exchange) -> bool:
    return exchange.requester.name == "first read"


def _told_to(own: OwnRequests) -> type[PeriodicRequester]:
    """Give a periodic requester that tells what it does."""

    class Told(PeriodicRequester):
        __slots__ = ()

        @override
        def ask(self, settings: Settings, now: float) -> None:
            if now >= self.next_moment(settings):
                own.begins(now)
            super().ask(settings, now)

        @override
        def answered(self, exchange: Exchange, response: Any) -> None:
            own.answered(bytes(response))
            super().answered(exchange, response)

        @override
        def failed(self, exchange: Exchange, failure: Failure) -> None:
            own.failed(failure)
            super().failed(exchange, failure)

    return Told
