"""What must never happen, looked for after every step.

The `Watch` sees both faces of the engine: each byte that it reads from a client and
writes to one, each that it writes to the device, and when connections begin and end.
From that alone, without asking the engine, it knows every question, when it was
complete, when it went upstream and what came back, and raises `Violation` at the very
step that breaks a promise of the behaviour contract.

Where the outside cannot tell (whether a queue that was nearly full took a request yet,
whether an answer that the engine just read was the one), the engine is believed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from custom_components.tcp_multiplexer.multiplexer import Failure
from custom_components.tcp_multiplexer.multiplexer.dispatch.refreshing import Refresher
from custom_components.tcp_multiplexer.multiplexer.limits import (
    LIMITS,
    MOST_FREE_DESCRIPTORS,
)

from .bounds import Bounds
from .confirmed import LastWrites
from .dialects import Ask, Dialect, Verdict, covers, exception_of
from .network import Link, Network, ProgramEndpoint
from .own_requests import OwnRequests
from .questions import Asker, Question, Violation
from .rules import Rules

if TYPE_CHECKING:
    from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings
    from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import Exchange

    from .faces import Face

_SNAPSHOT_STEPS = 400
"""A snapshot is looked at every so many steps."""
_JITTER = 0.8
"""The share of the backoff that its jitter leaves at least."""
_WRITES_FIRST = 4
"""Writes in a row that may go before a read that waits."""
_REFUSAL_DELAY = 0.1
"""Seconds within which who asks again is told later that he is refused again."""
_LEAST_PATIENCE = 1.03
"""Seconds after which an answer may be overdue, or half the timeout if that is less."""
_MOST_OVERDUE = 16
"""Overdue answers of one connection."""
_SILENCE = 0.05
"""Seconds after which an exception of odd length is taken for what it is."""
_TINY = 1e-6
_STEP = 0.03
"""Seconds between the engine's decision and what is seen of it, at most."""


class Watch:
    """Sees all that passes the engine."""

    def __init__(self, network: Network, dialect: Dialect, settings: Settings) -> None:
        """Watch an engine that runs with `settings`."""
        self.network = network
        self.loop = network.loop
        self.dialect = dialect
        self.mux: Multiplexer | None = None
        self.verdicts: Counter[Verdict] = Counter()
        self.excused = False
        """Clients may be closed now: the engine was told to."""
        self._take(settings)
        self.writes_first = settings.writes_first
        self.closes_on_failure = settings.on_failure == "close" or not (dialect.excuses)
        self.patient = dialect.correlated and not self._hold and _names(settings)
        """The next question may go out beside one that is overdue."""
        self.bounds = Bounds(network, dialect)
        self.slack = 5 * self.loop.stall + 0.002
        """How late the engine may be, for its loop is."""
        self._questions = 0
        self._count = 0
        """Of askers accepted and questions sent: who was served when."""
        self._askers: dict[Asker, None] = {}
        self._open: dict[bytes, list[Question]] = {}
        """Questions that may still be sent or answered, by what they ask."""
        self._pending: dict[Question, None] = {}
        """Arrived, not sent, not ended: the queue, seen from outside."""
        self._writes: dict[int, dict[Question, None]] = {}
        """Per unit, writes not ended, in the order in which they arrived."""
        self._given_up: dict[bytes, tuple[int, Asker]] = {}
        """In which turn the engine gave up what it may have sent."""
        self._write_ended: dict[int, int] = {}
        """Per unit, the turn in which a write ended last."""
        self._flying: dict[Link, dict[Question, None]] = {}
        """Per upstream connection, questions sent and not ended."""
        self._used: dict[Link, None] = {}
        """Upstream connections that have carried something and are not gone."""
        self._last_end: dict[Link, float] = {}
        self._heard: dict[Link, float] = {}
        """When the device said something last."""
        self._due: list[tuple[float, int, Question]] = []
        self._good: set[bytes] = set(dialect.probes(settings.unit_id))
        """What a probe may ask."""
        self._must_end: list[tuple[str, list[Question], int]] = []
        """Why, and which questions have to end in this turn but for so many."""
        self._steps = 0
        self._writes_at_least = self._writes_at_most = 0
        """Writes sent in a row while a read waited."""
        self._inside: dict[Asker, None] = {}
        """Whose connection the engine has accepted and not yet let go."""
        self._refused_at: float | None = None
        """When the last attempt to connect failed, if none succeeded since."""
        self._attach()

    def _attach(self) -> None:
        self.loop.step = self.step
        self.network.on_dial = self._dialled
        self.network.on_refused = self._refused

    right = 0
    """Right answers: what a life looks at in each of its steps."""
    chosen = inf
    """When what is sent now was chosen, if it is seen later (loop time)."""
    _line_sent: dict[int, tuple[float, Question | None]]
    """Per unit of a line, when it was last asked what, unless that was answered."""
    _unheard: dict[int, float]
    """Per unit, when it was first sent something since it last answered in time."""
    _line_held: dict[int, float]
    """Per unit of a line, until when it must not be asked."""
    _said: dict[Link, bytearray]
    """Where late answers count, what the device said since it was last asked."""
    _unasked: dict[Link, dict[int, tuple[float, bytes]]]
    """Where answers have identifiers, when the engine sent what, its own questions or
    what nobody waits for any more, that is not answered."""
    _overdue_ended: dict[Link, int]
    """In which turn of the loop an overdue question last ended."""

    def _take(self, settings: Settings) -> None:
        """Take settings to go by; of those that follow, the most lenient count."""
        self.timeout = self.shortest_timeout = settings.timeout
        self.queue_size = self.smallest_queue = settings.queue_size
        self.max_connections = settings.max_connections
        self.max_in_flight = settings.max_in_flight
        self.connect_delay = settings.connect_delay
        self.request_delay = settings.request_delay
        self.backoff = settings.reconnect_backoff
        self.remembers = settings.cache_ttl > 0
        """A read may be answered without having been sent."""
        self.shares = settings.share_reads
        """A read may be answered by the answer to another."""
        self.max_clients = settings.max_clients
        self.rules = Rules(settings)
        self.own = OwnRequests(self, settings)
        self.last_writes = LastWrites(settings)
        on_line = settings.framing == "rtu"
        self._line_sent = {}
        self._asked_itself: deque[tuple[Exchange, int]] = deque(maxlen=64)
        """What the engine has asked for itself lately, and at which attempt."""
        self._asked_parts: deque[tuple[Exchange, int]] = deque(maxlen=64)
        """Of what it has lately asked a part, and at which attempt."""
        self._line_held = {}
        self._unheard = {}
        self._said = {}
        self._unasked = {}
        self._overdue_ended = {}
        self._by_unit = on_line
        self._by_link = settings.max_connections > 1
        held = on_line or settings.matching == "lenient"
        self._hold = settings.timeout + settings.quiet if held else None
        """Where nothing tells a late answer, how long after a request that was given up
        its unit is left alone, or (lenient) all."""

    def applied(self, settings: Settings) -> None:
        """Note that these settings are in force from now on."""
        self.timeout = max(self.timeout, settings.timeout)
        self.shortest_timeout = min(self.shortest_timeout, settings.timeout)
        self.queue_size = max(self.queue_size, settings.queue_size)
        self.smallest_queue = min(self.smallest_queue, settings.queue_size)
        self.max_connections = max(self.max_connections, settings.max_connections)
        self.connect_delay = min(self.connect_delay, settings.connect_delay)
        self.request_delay = min(self.request_delay, settings.request_delay)
        self.backoff = min(self.backoff, settings.reconnect_backoff)
        self.remembers |= settings.cache_ttl > 0
        self.shares |= settings.share_reads
        self.max_clients = settings.max_clients
        self.rules.applied(settings)
        for asker in self._askers:
            for question in asker.waiting:
                if question.arrived is not None and not question.admitted:
                    self._await(question, question.arrived)
        self.last_writes.applied(settings)

    # Clients

    def accept(self, link: Link, name: str, face: Face) -> Asker:
        """Watch a client's new connection."""
        asker = Asker(name, face, link.dialled.get_extra_info("sockname")[0])
        self._askers[asker] = None
        end = asker.end = link.accepted
        assert isinstance(end, ProgramEndpoint)
        end.on_begin = lambda: self._begins(asker, end)
        end.on_read = lambda data: self._client_read(asker, len(data))
        end.on_write = lambda data: self._client_wrote(asker, end, data)
        end.on_leave = lambda own: self._client_gone(asker, own=own)
        end.on_gone = lambda: self._inside.pop(asker, None)
        return asker

    def _begins(self, asker: Asker, end: ProgramEndpoint) -> None:
        """Note that the engine learns of a client's connection."""
        self._served(asker)
        if asker.silent:
            return
        if len(self._inside) < self.max_clients and not self._runs_out(end):
            self._inside[asker] = None
            return
        asker.silent = asker.offended = True
        when = self.loop.time() + self.slack
        self.loop.post(when, self._must_be_closed, asker, end)

    def _runs_out(self, end: ProgramEndpoint) -> bool:
        """Tell whether the rest of the sockets is for connections to the device."""
        limit = self.network.conditions.descriptors
        return limit > 0 and end.descriptor >= limit - MOST_FREE_DESCRIPTORS

    def _must_be_closed(self, asker: Asker, end: ProgramEndpoint) -> None:
        if not (end.is_closing() or self.loop.stalled):
            raise Violation(f"{asker.name} is one too many, and was not closed")

    def host(self) -> Asker:
        """Watch a request of the host program's own."""
        asker = Asker("host", self.dialect, "127.0.0.1", host=True)
        self._served(asker)
        return asker

    def _served(self, asker: Asker, chosen: float = inf) -> None:
        """Note that somebody was served, or accepted, just now; `chosen` when."""
        self._count += 1
        asker.served_at = self.loop.time()
        asker.chosen_at = min(chosen, asker.served_at)
        asker.served = self._count
        asker.served_turn = self.loop.turns

    def asked(self, asker: Asker, tid: int, ask: Ask, size: int = 0) -> Question:
        """Note that a client sends a question of `size` bytes."""
        self._questions += 1
        question = Question(self._questions, asker, tid, ask, self.loop.time())
        asker.sent += size
        question.size = size
        if size:
            asker.on_the_way.append((asker.sent, question))
        else:
            self._arrived(question)
        return question

    def skipped(self, asker: Asker, size: int) -> None:
        """Note that a client sends bytes that ask nothing."""
        asker.sent += size
        asker.ignored += size

    def _client_read(self, asker: Asker, size: int) -> None:
        asker.read += size
        way = asker.on_the_way
        while way and way[0][0] <= asker.read:
            self._arrived(way.popleft()[1])
        self.bounds.client_read(asker, size, self.queue_size + self._resent)

    def _arrived(self, question: Question) -> None:
        """Note that the engine has all of a question."""
        now = self.loop.time()
        asker = question.asker
        question.arrived = now
        question.arrived_turn = self.loop.turns
        # (What was sent may be queued once more, if it is retry safe.)
        ahead = next(
            (
                other
                for other in reversed(asker.waiting)
                if other.ended is None and (not other.links or other.ask.retry_safe)
            ),
            None,
        )
        question.admitted = not (asker.slow or self._must_wait(asker)) and (
            ahead is None
            or (
                ahead.admitted
                and len(self._pending) + self._resent < self.smallest_queue
            )
        )
        asker.waiting.append(question)
        asker.by_tid[question.tid] = question
        question.delayed = now < asker.refused_at + _REFUSAL_DELAY + self.slack
        self.bounds.arrived(question)
        question.barred = barred = self.rules.bars(question)
        question.confirmable = self.last_writes.may_confirm(question)
        question.parts = self.rules.parts(question)
        if not barred:
            self._pending[question] = None
        same = self._open.setdefault(question.ask.body, [])
        same.append(question)
        if len(same) > 1:
            for other in same:
                other.alike = True
        elif self.shares and any(covers(other, question.ask) for other in self._open):
            question.alike = True
        if self.shares:
            self._may_wait_for(question)
        # (By the time that the engine takes what had no room, it may bar it no longer.)
        may_go = not (barred and question.admitted)
        if question.ask.writes is not None and may_go:
            self._writes.setdefault(question.ask.writes, {})[question] = None
        self._await(question, now)

    def _may_wait_for(self, wider: Question) -> None:
        """Note which of the older questions this one may answer, too.

        So it may those that it covers and that the engine need not have taken yet.
        """
        for other in self._pending:
            if not other.admitted and covers(wider.ask.body, other.ask):
                other.alike = True

    @staticmethod
    def _must_wait(asker: Asker) -> bool:
        """Tell whether what a client asks may not be taken before it is told more.

        So it is while it has been refused very often, which it is told later.
        """
        waiting = asker.waiting
        if len(waiting) < LIMITS.settled:
            return False
        delayed = sum(other.delayed for other in waiting if other.ended is None)
        return delayed >= LIMITS.settled

    def _await(self, question: Question, since: float) -> None:
        """Expect the end of a question within its time."""
        self._expect(question, since + self.timeout + self.slack)

    def _expect(self, question: Question, due: float) -> None:
        question.due = due
        heappush(self._due, (due, question.number, question))

    def _client_wrote(self, asker: Asker, end: ProgramEndpoint, data: bytes) -> None:
        if asker.silent:
            raise Violation(f"{asker.name} must not be served, but was told {data!r}")
        asker.buffer += data
        for tid, body in asker.face.cut_answers(asker.buffer):
            if asker.face.correlated:
                question = asker.by_tid.get(tid)
            else:
                question = asker.next_answered(body, drops=self.dialect.drops_reads)
            if question is not None:
                self.answered(question, body)
            elif not (asker.offended and self.dialect.last_words):
                raise Violation(f"{asker.name} was told {body!r}, and asked nothing")
        # (All that it has placed may fail at once.)
        placed = self._resent + self.queue_size
        self.bounds.client_written(asker, end, len(data), placed)

    def answered(self, question: Question, body: bytes) -> None:
        """Judge what the engine answers to a question."""
        now = self.loop.time()
        verdict = self._judge(question, body, now)
        self.verdicts[verdict] += 1
        self.right += verdict is Verdict.RIGHT
        question.verdict = verdict
        if verdict is Verdict.WRONG:
            raise Violation(f"{question} got a wrong answer: {body[:40].hex(' ')}")
        if question.alike and not question.links:
            self._exchange_with_alike(question)
        alike = question.links and question.alike and question.ask.retry_safe
        if alike and verdict is Verdict.GATEWAY and body[1:] not in question.said:
            self._hand_to_alike(question)  # its time is over, and the other's goes on
        if self._hold is not None and question.links:
            self._line_ended(question, verdict, body)
        if verdict is Verdict.GATEWAY:
            # (A read that was sent and lost may be waiting to be sent again.)
            denied = not self.dialect.gave_up(body)
            if not denied:
                self._check_silence(question, now)
                self._given_up[question.ask.body] = (self.loop.turns, question.asker)
                if not question.links:
                    # It was handed to a connection, and had its turn.
                    question.asker.sure = False
            elif question.links and not question.ask.retry_safe:
                raise Violation(f"{question} was sent, yet {body.hex(' ')} denies it")
        elif not (
            question.links
            or question.alike
            or verdict is Verdict.RULE
            or (self.remembers and question.ask.retry_safe)
            or (question.confirmable and verdict is Verdict.RIGHT)
        ):
            raise Violation(f"{question} was answered, but never sent")
        if verdict in {Verdict.RIGHT, Verdict.EXCEPTION}:
            self._heard_of(question)
        if verdict in {Verdict.GATEWAY, Verdict.RULE}:
            question.asker.refused_at = now
        if verdict is Verdict.RIGHT and question.ask.retry_safe:
            self._good.add(question.ask.body)
        if verdict is Verdict.RIGHT and question.ask.logs_in:
            question.asker.logged_in = True
        self.end(question)

    def _heard_of(self, question: Question) -> None:
        """Note that a unit has answered a question, unless that was remembered."""
        if not (question.links or question.alike):
            return
        unit = question.ask.body[0]
        self._unheard.pop(unit, None)
        # (The next goes out just before the answer to the one before it.)
        later = [
            other.sent
            for flying in self._flying.values()
            for other in flying
            if other.ask.body[0] == unit and other.sent >= question.sent
            if other is not question
        ]
        if later:
            self._unheard[unit] = min(later)

    def _judge(self, question: Question, body: bytes, now: float) -> Verdict:
        """Say what an answer is, by the owner's rules and by the device's values."""
        said = self.rules.said(question)
        if body in said and not question.links:
            return Verdict.RULE
        if None not in said:
            raise Violation(f"{question} got {body.hex(' ')}, but a rule forbids it")
        verdict = self.dialect.judge(question.ask.body, body, question.asked, now)
        refusals = {exception_of(part) for parts in question.parts for part in parts}
        if verdict is Verdict.WRONG and body[:3] in refusals and len(body) <= 4:
            return Verdict.EXCEPTION
        return verdict

    def refused_oddly(self, link: Link, tid: int) -> None:
        """Note that the device says an exception of which the length is wrong."""
        for question in self._flying[link]:
            if question.upstream_tid == tid:
                question.odd = self.loop.time()

    def _check_silence(self, question: Question, now: float) -> None:
        """See that what was given up was not refused with an exception of odd length.

        The engine takes that for what it is once the device has said nothing more for
        a moment, and need not if the connection is lost before.
        """
        if question.alike or not question.links:
            return
        link = question.links[-1]
        if link.dead:
            return  # what the device said may never have come
        silent = now - _SILENCE - self.slack
        came = question.odd + self.network.conditions.slowest
        if max(came, self._heard[link]) < silent and not link.program.is_closing():
            raise Violation(f"{question} was given up, though the device refused it")

    def _line_ended(self, question: Question, verdict: Verdict, body: bytes) -> None:
        """Note what the end of an exchange on a line means for its unit."""
        unit = self._line_of(question.ask.body, question.links[-1])
        sent, last = self._line_sent.get(unit, (0.0, None))
        if self._hold is None or last is not question:
            return
        if verdict is not Verdict.GATEWAY:
            if not question.alike:  # else it may have been asked again for another
                del self._line_sent[unit]
        elif (
            self.dialect.gave_up(body)
            # (A gateway may have said so itself.)
            and body[1:] not in question.said
            # (What it said may have been the answer to a part.)
            and not (question.parts and question.said)
            and not question.links[-1].program.is_closing()
            and self.loop.time() >= question.asked + self.shortest_timeout
        ):
            self._line_held[unit] = sent + self._hold

    def _line_of(self, body: bytes, link: Link | None) -> int:
        """Give what is held after a question: its unit (RTU), or all on its link."""
        if self._by_unit:
            return body[0]
        return link.number if link is not None and self._by_link else -1

    def _may_be_held(self, question: Question) -> bool:
        """Tell whether the unit of a question may be left alone for the moment."""
        unheard = self._unheard.get(question.ask.body[0], inf)
        # It may be silent, and hold up others.
        shortest = self.shortest_timeout / (2 if self.patient else 1)
        if (self.patient or self._by_unit) and self.loop.time() > unheard + shortest:
            return True
        sent, _ = self._line_sent.get(
            self._line_of(question.ask.body, None), (-inf, None)
        )
        if self._hold is None:
            return False
        return self.loop.time() < sent + self._hold + self.slack

    def _exchange_with_alike(self, question: Question) -> None:
        """Correct the books: what was sent was this question, not one just like it."""
        for other in self._open[question.ask.body]:
            if other.links:
                question.links, other.links = other.links, []
                self._flying[question.links[-1]].pop(other, None)
                self._pending[other] = None
                return

    def _hand_to_alike(self, question: Question) -> None:
        """Correct the books: what was sent was one just like this question."""
        for other in self._open[question.ask.body]:
            if not other.links:
                link = question.links[-1]
                self._flying[link].pop(question, None)
                other.links, question.links = question.links, []
                other.sent, other.sent_turn = question.sent, question.sent_turn
                other.upstream_tid, other.beside = (
                    question.upstream_tid,
                    question.beside,
                )
                other.said, other.odd = question.said, question.odd
                line = self._line_of(question.ask.body, link)
                if self._line_sent.get(line, (0.0, None))[1] is question:
                    self._line_sent[line] = (question.sent, other)
                self._flying[link][other] = None
                self._pending.pop(other, None)
                return

    def failed(self, question: Question, failure: Failure) -> None:
        """Note that a request of the host program's own failed."""
        if failure.is_rule:
            if self.rules.said(question) == {None}:
                raise Violation(f"{question} was refused, and no rule forbids it")
        elif None not in self.rules.said(question):
            raise Violation(f"{question} failed with {failure}, not by its rule")
        unsent = (Failure.BUSY, Failure.NO_CONNECTION, Failure.PAUSED)
        denied = failure in unsent and not question.ask.retry_safe
        if denied and question.links:
            raise Violation(f"{question} was sent, yet {failure} denies it")
        self.verdicts[Verdict.GATEWAY] += 1
        self.end(question)

    def end(self, question: Question) -> None:
        """Note that nobody waits for a question's answer any more."""
        now = self.loop.time()
        asker = question.asker
        question.ended = now
        self.bounds.ended(question)
        self._pending.pop(question, None)
        same = self._open[question.ask.body]
        same.remove(question)
        if not same:
            del self._open[question.ask.body]
        if question.ask.writes is not None:
            self._writes.get(question.ask.writes, {}).pop(question, None)
            self._write_ended[question.ask.writes] = self.loop.turns
        if question.links:
            link = question.links[-1]
            self._flying[link].pop(question, None)
            # (What was lost beside another may end in the queue.)
            rested = question.beside and question.verdict is Verdict.GATEWAY
            rested = rested or bool(question.parts)
            # (After what went overdue, the rest began when it did.)
            if self._is_overdue(question):
                rested = True
                self._overdue_ended[link] = self.loop.turns
            # (An answer may be kept for that to an earlier question: the rest does not
            # wait for it.)
            kept = question.verdict is Verdict.RIGHT and self._heard[link] < now
            unsure = question.alike or question.gone_turn or asker.host
            if not (unsure or rested or kept):
                self._last_end[link] = now
        if asker.by_tid.get(question.tid) is question:
            del asker.by_tid[question.tid]

    def _client_gone(self, asker: Asker, *, own: bool) -> None:
        """Note that the engine learns that a client left, or (`own`) closes it."""
        excused = asker.left or asker.offended or self.excused or asker.logged_in
        if own and not excused:
            waiting = [q for q in asker.waiting if q.ended is None]
            if not (self.closes_on_failure and waiting):
                raise Violation(f"{asker.name} was disconnected, waiting for {waiting}")
        asker.known_gone = True
        self._askers.pop(asker, None)
        for question in asker.waiting:
            if question.ended is None:
                question.gone_turn = self.loop.turns
                self._await(question, self.loop.time())
                if question.links and question.ask.retry_safe:
                    # Its answer may come, unseen here.
                    self._good.add(question.ask.body)
                if self.dialect.drops_reads and question.ask.writes is None:
                    self._pending.pop(question, None)

    # The device

    def upstream(self, link: Link, face: Face | None = None) -> None:
        """Watch a new upstream connection, on which the device has this face."""
        face = face or self.dialect
        end = link.program
        opened = self.loop.time()
        buffer = bytearray()
        heard = bytearray()
        self._flying[link] = {}
        unasked = self._unasked[link] = {}
        self._said[link] = bytearray()
        self._heard[link] = opened
        self._refused_at = None

        def wrote(data: bytes) -> None:
            self._used[link] = None
            buffer.extend(data)
            for tid, body in face.cut(buffer):
                self._sent(link, tid, body, opened)
            if buffer:
                raise Violation(f"{bytes(buffer)!r} went upstream, and is no request")

        def read(data: bytes) -> None:
            self._heard[link] = self.loop.time()
            if face.correlated:
                heard.extend(data)
                for tid, body in self.dialect.cut(heard):
                    if self._answers_unasked(link, tid, body):
                        del unasked[tid]
            elif self._hold is not None:
                self._said[link].extend(data)

        def gone() -> None:
            if link in self._used:  # (else the engine may never have had it)
                del self._used[link]
                self.last_writes.lost(self.loop.time() - self.slack)
            # (Behind garbage, two bytes may be an identifier by chance.)
            begins = len(heard) > 1 and not any(heard[2:4])
            tid = int.from_bytes(heard[:2]) if begins else -1
            for question in self._flying[link]:
                # (On a line there are no identifiers; elsewhere none is 0. One that was
                # taken for lost may wait to be asked again by now.)
                lost = question.beside and self._is_overdue(question)
                question.begun = (tid == question.upstream_tid != 0 and not lost) or (
                    self._by_unit and _has_begun(question.ask.body, self._said[link])
                )
            # What was handed to the connection and not seen may be asked again.
            for question in self._pending:
                question.handed = True

        end.on_write = wrote
        end.on_read = read
        end.on_gone = gone

    def heard_at(self, link: Link) -> float:
        """Give when the device said something last, or the connection was opened."""
        return self._heard[link]

    def upstreams(self) -> list[ProgramEndpoint]:
        """Give the engine's open connections to the device."""
        return [
            end
            for end in self.network.open
            if (end.server is None or end.link in self._flying) and not end.is_closing()
        ]

    def _dialled(self) -> None:
        count = len(self.upstreams())
        if count >= self.max_connections:
            raise Violation(f"one more connection is opened, though {count} are open")
        earliest = (self._refused_at or 0.0) + _JITTER * self.backoff - _TINY
        if self._refused_at is not None and self.loop.time() < earliest:
            raise Violation(f"it connects again before {earliest}")

    def _refused(self) -> None:
        if not self.upstreams():
            self._refused_at = self.loop.time()

    def told_to_connect(self) -> None:
        """Note that the owner wants a connection at once, whatever happened before."""
        self._refused_at = None

    def _sent(self, link: Link, tid: int, body: bytes, opened: float) -> None:
        """Look at a request that goes upstream."""
        now = self.loop.time()
        if now < opened + self.connect_delay - _TINY:
            raise Violation(f"{body.hex(' ')} was sent before the connect delay")
        self._check_rest(link, body, now)
        self.own.sent(link, body)
        open_ = [other for other in self._used if not other.program.is_closing()]
        if len(open_) > self.max_connections:
            raise Violation(f"{body.hex(' ')} was sent over one connection too many")
        line = self._line_of(body, link)
        if self._hold is not None and now < self._line_held.get(line, 0) - _TINY:
            raise Violation(f"{body.hex(' ')} may get a response that comes late")
        whole, number = self._part(link, body)
        question = None if self._is_own(body) else self._whose(whole)
        if number > 1:
            under_way = [other for other in self._open.get(whole, ()) if other.links]
            under_way.sort(key=lambda other: other.links[-1] is not link)
            question = next(iter(under_way), question)
        self._unheard.setdefault(body[0], now)
        if self._hold is not None:
            self._line_sent[line] = (now, question)
            self._said[link] = bytearray()
        if number and question is not None:
            self._check_part(question, body, number)
        if question is None:
            self._asks_itself(link, tid, body)
        elif number > 1:
            self._goes_on(question, link, tid)
        else:
            self._is_asked(question, link, tid)

    def _is_asked(self, question: Question, link: Link, tid: int) -> None:
        """Look at a question that goes upstream, or at the first part of one."""
        now, body = self.loop.time(), question.ask.body
        if None not in self.rules.said(question):
            raise Violation(f"{question} was sent, though a rule forbids it")
        if question.links:
            self._check_resend(question)
        else:
            self._check_turn(question)
        if question.ask.writes is None:
            self._writes_at_least = self._writes_at_most = 0
        else:
            self._writes_at_most += 1
            self._check_write(question)
            self.last_writes.sent(question, now)
        if (
            self.dialect.drops_reads
            and question.ask.writes is None
            and self._was_gone(question)
            and self.loop.turns > (question.gone_turn or 0) + 2
            and not (question.links or question.alike)
        ):
            # (The engine learns of it in the next turn; what was handed to a connection
            # by then goes in the one after; and what an extra connection on trial did
            # not answer is asked once more.)
            raise Violation(f"{question} was sent, though its client had left")
        if question.gone_turn is not None and question.ask.retry_safe:
            self._good.add(body)  # its answer may come, unseen here
        self._takes_turn(question)
        if question.links:  # what was lost beside another goes once more
            self._flying[question.links[-1]].pop(question, None)
        question.links.append(link)
        question.said = self._said[link]
        question.upstream_tid = tid
        question.odd = inf
        question.sent_turn = self.loop.turns
        self._pending.pop(question, None)
        question.sent = now
        flying = self._flying[link]
        known = [other for other in flying if not self._may_have_ended(other)]
        late = [other for other in known if self._is_overdue(other)]
        # (Also beside what may have ended, but need not: asked by the host, or by one
        # who left, or by several. And beside the engine's own, and what has ended since
        # this one was chosen.)
        question.beside = (
            # (also behind what is overdue later, if requests are pipelined)
            (
                self.patient
                and self.max_in_flight > 1
                and bool(flying or self._unasked[link])
            )
            or any(map(self._is_overdue, flying))
            or self._unasked_is_overdue(link)
            or self._overdue_ended.get(link, -2) >= self.loop.turns - 1
        )
        flying[question] = None
        # (What was sent beside others is overdue later; until then it is in flight.)
        if len(known) >= _MOST_OVERDUE + self.max_in_flight:
            raise Violation(f"{question} was sent beside too many overdue: {late}")
        if len(flying) - len(late) > self.max_in_flight:
            why = "too many in flight on one connection:"
            prompt = [other for other in known if other not in late] + [question]
            self._must_end.append((why, prompt, self.max_in_flight))

    def _takes_turn(self, question: Question) -> None:
        """Note that a client is served: with a question, or with a part of one."""
        self._served(question.asker, self.chosen)
        for other in self._open[question.ask.body]:
            other.asker.sure = not (question.alike or question.handed)

    def _part(self, link: Link, body: bytes) -> tuple[bytes, int]:
        """Give what a request upstream is a part of, and which: believed, and checked.

        If it is none, that is the request itself, and 0.
        """
        if self.mux is not None:
            for upstream in self.mux._connections.open:  # noqa: SLF001 - believed
                if getattr(upstream, "_transport", None) is not link.program:
                    continue
                for exchange in upstream.in_flight.values():
                    split, sending = exchange.split, (exchange, exchange.attempts)
                    if (
                        split is not None
                        and exchange.asked.payload == body
                        # (else it is overdue, and another begins with the same part)
                        and sending not in self._asked_parts
                    ):
                        self._asked_parts.append(sending)
                        return exchange.request.payload, split.number
        return body, 0

    def _check_part(self, question: Question, body: bytes, number: int) -> None:
        """Look whether a request may be such a part of a question."""
        question.parts = self.rules.parts(question)  # maybe by settings since then
        if not any(parts[number - 1 : number] == [body] for parts in question.parts):
            raise Violation(f"{body.hex(' ')} is not part {number} of {question}")
        self._good.add(body)
        if number > 1 and not (question.links or question.alike):
            raise Violation(f"{question} does not begin with part {number}")

    def _goes_on(self, question: Question, link: Link, tid: int) -> None:
        """Note that another part of a question is asked, or the same once more."""
        self._writes_at_least = self._writes_at_most = 0
        gone = question.gone_turn
        if gone is not None and self.loop.turns > gone + 2 and not question.alike:
            raise Violation(f"{question} went on, though its client had left")
        if question.links and question.links[-1] is not link:
            if not (question.links[-1].program.is_closing() or question.alike):
                raise Violation(f"{question} went on over another connection")
            self._flying[question.links[-1]].pop(question, None)
        self._takes_turn(question)
        question.links.append(link)
        question.sent, question.upstream_tid = self.loop.time(), tid
        question.said = self._said[link]
        self._flying[link][question] = None

    def _asks_itself(self, link: Link, tid: int, body: bytes) -> None:
        """Look at a request that nobody asks, as it seems."""
        self._writes_at_least = self._writes_at_most = 0
        self._unasked[link][tid] = (self.loop.time(), body)
        # (What was handed to the connection goes with what else the turn brings.)
        turn, asker = self._given_up.get(body, (-2, None))
        alike = [question.asker for question in self._open.get(body, ())]
        if asker is not None and turn >= self.loop.turns - 1:
            self._served(asker)
            asker.sure = not alike
        elif not self._may_probe(body):
            raise Violation(f"nobody asks (any more) for {body[:40].hex(' ')}")
        for one in alike:  # it may have been any of theirs
            one.sure = False

    def _check_rest(self, link: Link, body: bytes, now: float) -> None:
        rested = self._last_end.get(link, 0.0) + self.request_delay - _TINY
        # (The end of what was overdue is no reason to rest.)
        if now < rested and not any(map(self._is_overdue, self._flying[link])):
            raise Violation(f"{body.hex(' ')} was sent before the request delay")

    def _may_have_ended(self, question: Question) -> bool:
        """Tell whether the engine may have the answer to a question that was sent."""
        return (
            question.alike
            or question.gone_turn is not None
            or question.links[-1].program.is_closing()
            # or at least a part of it has
            or bool(question.parts)
            # a task awaits the end, which runs later
            or question.asker.host
            or question.asker.owes_before(question, pipelined=self.pipelined)
        )

    def _is_overdue(self, question: Question) -> bool:
        """Tell whether the next may go out beside a question that was sent."""
        return self.patient and self._exceeds_patience(question.sent)

    def _exceeds_patience(self, sent: float) -> bool:
        patience = min(_LEAST_PATIENCE, self.shortest_timeout / 2)
        return self.loop.time() - sent > patience - _STEP

    def _unasked_is_overdue(self, link: Link) -> bool:
        """Tell whether the next may go out beside what nobody asks."""
        now = self.loop.time()
        return self.patient and any(
            now <= sent + self.timeout + self.slack and self._exceeds_patience(sent)
            for sent, _ in self._unasked[link].values()
        )

    def _answers_unasked(self, link: Link, tid: int, answer: bytes) -> bool:
        """Tell whether an answer is one to what nobody asks."""
        if tid not in self._unasked[link]:
            return False
        sent, body = self._unasked[link][tid]
        verdict = self.dialect.judge(body, answer, sent, self.loop.time())
        return verdict is not Verdict.WRONG

    def _is_own(self, body: bytes) -> bool:
        """Tell whether the engine asks this for itself: nobody else can tell."""
        if self.mux is None:
            return False
        for upstream in self.mux._connections.open:  # noqa: SLF001 - believed
            for exchange in upstream.in_flight.values():
                requester, sending = exchange.requester, (exchange, exchange.attempts)
                own = not requester.counted or isinstance(requester, Refresher)
                known = sending in self._asked_itself
                if own and not known and exchange.request.payload == body:
                    self._asked_itself.append(sending)
                    return True
        return False

    def _whose(self, body: bytes) -> Question | None:
        """Find the question that a request upstream asks."""
        same = self._open.get(body, ())
        unsent = [question for question in same if not question.links]
        for candidates in (
            [question for question in unsent if question.gone_turn is None],
            [question for question in same if self._may_be_resent(question)],
            unsent,
            [question for question in same if question.gone_turn is None],
        ):
            if candidates:
                found = candidates[0]
                # (What nobody waits for any more, or what was sent, may be a probe.)
                asked = found.links and not self._may_be_resent(found)
                done = self._was_gone(found) or asked
                return None if done and self._may_probe(body) else found
        return None if self._may_probe(body) or not same else same[0]

    def _was_gone(self, question: Question) -> bool:
        """Tell whether a client had certainly left when what is sent was chosen."""
        return question.gone_turn is not None and self.chosen == inf

    def tested(self, unit: int) -> None:
        """Note that a unit of a line is asked by what goes before a request."""
        self._line_sent[unit] = (self.loop.time(), None)

    def _may_probe(self, body: bytes) -> bool:
        """Tell whether a request may be the engine's own.

        It looks whether the device is well, and before it gives up a unit or a
        connection, it asks what was answered before.
        """
        return body in self._good

    def _may_be_resent(self, question: Question) -> bool:
        return (
            question.ask.retry_safe
            and len(question.links) == 1
            and (question.beside or question.links[0].program.is_closing())
        )

    def _check_resend(self, question: Question) -> None:
        if not question.ask.retry_safe:
            raise Violation(f"{question} was sent twice, and is not retry safe")
        if question.alike:
            return
        # (A connection on trial may cost one sending more.)
        if len(question.links) > (1 if self.max_connections == 1 else 2):
            raise Violation(f"{question} was sent too often")
        lost = question.beside and self._is_overdue(question)
        if not (lost or question.links[-1].program.is_closing()):
            raise Violation(f"{question} was sent again, though it may be answered")
        if question.begun:
            raise Violation(f"{question} was sent again, though its answer had begun")
        if (
            self.max_connections == 1
            and self.dialect.drops_reads
            and question.gone_turn is not None
            and self.loop.turns > question.gone_turn + 2
        ):
            raise Violation(f"{question} was sent again, though its client had left")

    def _check_turn(self, question: Question) -> None:
        """Look whether somebody else should have gone first."""
        asker = question.asker
        unsure = question.alike or question.handed or not asker.sure
        if self.max_connections > 1 or unsure:
            return
        reads_wait = False
        for other in self._rivals():
            if not self.writes_first or _same_kind(question, other):
                if self._served_before(other.asker, asker):
                    why = f"{question} of turn {asker.served} was served before"
                    self._must_end.append((why, [other], 0))
            elif question.ask.writes is not None:
                reads_wait = True
            elif self.max_in_flight == 1 and self._writes_at_most < _WRITES_FIRST:
                why = f"{question} was served before the write"
                self._must_end.append((why, [other], 0))
        if reads_wait:
            self._writes_at_least += 1
            if self.max_in_flight == 1 and self._writes_at_least > _WRITES_FIRST:
                raise Violation(f"{question} is one more write before waiting reads")

    def _rivals(self) -> Iterator[Question]:
        """Give the questions that could certainly have been sent as well."""
        latest = self.loop.turns - 1
        for other in self._pending:
            if (
                other.admitted
                and other.gone_turn is None
                and not other.asker.host
                and other.arrived_turn < latest
                and (other.arrived or 0.0) <= self.chosen
                and not (other.alike or other.handed or other.delayed)
                and not other.confirmable
                and other.asker.sure
                and other is self._first_unsent(other.asker)
                and not self._write_waits(other)
                and not self._may_be_held(other)
                and not self._something_is_overdue()
                and not self._has_joined(other)
            ):
                yield other

    def _has_joined(self, question: Question) -> bool:
        """Tell whether it follows a wider read that nobody asks: that is believed."""
        return self.mux is not None and any(
            isinstance(leader.requester, Refresher)
            and follower.request.payload == question.ask.body
            for requester in self.mux._queue.requesters()  # noqa: SLF001
            for follower, leader in requester.joined.items()
        )

    def _something_is_overdue(self) -> bool:
        """Tell whether a question may have to wait for what is overdue.

        So it may if it is of the same unit, or if it is not known yet how the device
        takes what goes out beside that.
        """
        return self.patient and any(
            any(map(self._is_overdue, flying))
            or self._unasked_is_overdue(link)
            # it still was when what goes now was chosen
            or self._overdue_ended.get(link, -2) >= self.loop.turns - 1
            for link, flying in self._flying.items()
        )

    def _served_before(self, one: Asker, other: Asker) -> bool:
        """Tell whether one was served longer ago, so that it goes next."""
        # With requests pipelined, who was chosen is seen a turn later.
        since = other.served_turn - (2 if self.max_in_flight > 1 else 0)
        return (
            one.served < other.served
            and one.served_turn <= since
            # (It may have been accepted between the other's choice and its sending.)
            and one.served_at <= other.chosen_at
        )

    @staticmethod
    def _first_unsent(asker: Asker) -> Question | None:
        for question in asker.waiting:
            if question.ended is None and not question.links:
                return question
        return None

    def _write_waits(self, question: Question) -> bool:
        """Tell whether an older write to the same unit stands before a write."""
        unit = question.ask.writes
        return unit is not None and (
            next(iter(self._writes[unit])) is not question
            # it did in the last turn, when what goes now may have been chosen
            or self._write_ended.get(unit, -1) >= self.loop.turns - 1
        )

    def _check_write(self, question: Question) -> None:
        """Look whether an older write to the unit is not done yet."""
        unit = question.ask.writes
        assert unit is not None
        if not question.admitted:
            return
        for other in self._writes[unit]:
            if other is question:
                return
            if not other.links:
                if other.asker.host:
                    # It may have ended just now: its task learns that in the next turn.
                    when = self.loop.time() + self.slack
                    self.loop.post(when, self._must_be_over, question, other)
                elif (
                    other.admitted
                    and other.gone_turn is None
                    and not (other.delayed or other.confirmable)
                ):
                    raise Violation(f"{question} was sent before the older {other}")
            else:
                self._must_end.append((f"{question} was sent beside", [other], 0))

    def _must_be_over(self, question: Question, other: Question) -> None:
        if other.ended is None and not self.loop.stalled:
            raise Violation(f"{question} was sent before the older {other}")

    @property
    def pipelined(self) -> bool:
        """Whether the device may answer a later question of a client's first."""
        return self.patient or self.max_in_flight > 1

    @property
    def _resent(self) -> int:
        """Give how many requests may be queued that were sent, or that nobody asked."""
        return self.max_connections * self.max_in_flight + 1

    # Every step

    def step(self) -> None:
        """Look at what time alone can break."""
        due = self._due
        now = self.loop.time()
        if self._must_end:
            self._see_ended()
        while due and due[0][0] < now:
            question = heappop(due)[2]
            if question.ended is not None or question.due >= now:
                continue
            if question.gone_turn is not None:
                self.end(question)
            elif question.asker.is_full:
                # What it was told before goes first, as its connection carries that.
                self._expect(question, now + self.slack)
            elif not question.asker.slow:
                raise Violation(f"{question} is still not answered at {now}")
        self._steps += 1
        if self._steps % _SNAPSHOT_STEPS == 0 and self.mux is not None:
            self._look_at(self.mux)

    def _see_ended(self) -> None:
        """See that of questions only so many are still to be answered.

        The device's next request goes out just before the answer to the one before it,
        and before those are told that can no longer be served in time.
        """
        for what, questions, most in self._must_end:
            left = [
                question
                for question in questions
                if question.ended is None
                and question.gone_turn is None
                and not question.alike
                and not (question.links and self._may_have_ended(question))
            ]
            if len(left) > most:
                raise Violation(f"{what} {left}")
        self._must_end.clear()

    def _look_at(self, mux: Multiplexer) -> None:
        picture = mux.snapshot()
        late = _MOST_OVERDUE if self.patient else 0
        most = self.max_connections * (self.max_in_flight + late)
        # Each client may place one, those who left have placed all their writes, and
        # what was sent and lost waits once more.
        askers = {question.asker for question in self._pending}
        writes = [q for q in self._pending if q.gone_turn is not None]
        bound = self.queue_size + len(askers) + len(writes) + self._resent
        if not 0 <= picture.queue_depth <= bound:
            raise Violation(f"{picture.queue_depth} are queued, {bound} may be")
        if not 0 <= picture.in_flight <= most:
            raise Violation(f"{picture.in_flight} are in flight, {most} may be")
        if picture.connections > self.max_connections:
            raise Violation(f"{picture.connections} connections are open")
        self.own.look(mux)
        if mux.paused and self.upstreams() and not picture.in_flight:
            # An attempt that is under way is called off first, which takes its turns.
            when = self.loop.time() + self.slack
            # (A device that dials in meanwhile waits a moment, and is told nothing.)
            opened = [
                end
                for end in self.upstreams()
                if end.server is None or end.link in self._used
            ]
            self.loop.post(when, self._must_leave_alone, mux, opened)

    def _must_leave_alone(
        self, mux: Multiplexer, opened: list[ProgramEndpoint]
    ) -> None:
        idle = mux.paused and not mux.snapshot().in_flight and not self.loop.stalled
        if idle and not set(opened).isdisjoint(self.upstreams()):
            raise Violation("a connection is open without need, though it is paused")

    # The end

    def unanswered(self) -> list[Question]:
        """Give the questions that somebody still waits for."""
        return [
            question
            for asker in self._askers
            if not asker.left
            for question in (*asker.waiting, *(entry[1] for entry in asker.on_the_way))
            if question.ended is None
        ]

    def check_stopped(self) -> None:
        """See that a stopped engine has left nothing behind."""
        left: list[object] = [*self.loop.leftovers()]
        left += [f"transport of link {end.link.number}" for end in self.network.open]
        left += [f"listener on {address}" for address in self.network.servers]
        left += [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        if left:
            raise Violation(f"left behind by stop(): {left}")


def _names(settings: Settings) -> bool:
    """Tell whether answers name their question, where they have an identifier."""
    return settings.framing != "solarman"


def _has_begun(body: bytes, said: bytes | bytearray) -> bool:
    """Tell whether an answer to a question seems to have begun on a line."""
    functions = (b"", body[1:2], bytes((body[1] | 0x80,)))
    return said[:1] == body[:1] and said[1:2] in functions


def _same_kind(one: Question, other: Question) -> bool:
    """Tell whether both write, or neither does: a write may go before a read."""
    return (one.ask.writes is None) == (other.ask.writes is None)
