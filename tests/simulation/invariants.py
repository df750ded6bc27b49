"""What must never happen, looked for after every step.

The `Watch` sees both faces of the engine: each byte that it reads from a client and
writes to one, each that it writes to the device, and when connections begin and end.
From that alone, without asking the engine, it knows every question, when it was
complete, when it went upstream and what came back, and raises `Violation` at the very
step that breaks a promise of the behaviour contract.

Where the outside cannot tell (whether a queue that was nearly full took a request yet,
whether an answer that the engine just read was the one), the engine is believed.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, override

from custom_components.tcp_multiplexer.multiplexer import Failure

from .dialects import NO_ANSWER, Ask, Dialect, Verdict
from .network import Link, Network, ProgramEndpoint

if TYPE_CHECKING:
    from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings

_SNAPSHOT_STEPS = 400
"""A snapshot is looked at every so many steps."""
_JITTER = 0.8
"""The share of the backoff that its jitter leaves at least."""
_WRITES_FIRST = 4
"""Writes in a row that may go before a read that waits."""
_TINY = 1e-6


class Violation(AssertionError):  # noqa: N818 - what it is, like KeyboardInterrupt
    """The engine broke a promise."""


class Question:
    """One request of a client's, as the watch sees it."""

    __slots__ = (
        "admitted",
        "alike",
        "arrived",
        "arrived_turn",
        "ask",
        "asked",
        "asker",
        "begun",
        "due",
        "ended",
        "gone_turn",
        "handed",
        "links",
        "number",
        "sent_turn",
        "tid",
        "upstream_tid",
        "verdict",
    )

    def __init__(
        self, number: int, asker: Asker, tid: int, ask: Ask, now: float
    ) -> None:
        """Note who asks what."""
        self.number = number
        self.asker = asker
        self.tid = tid
        self.ask = ask
        self.asked = now
        self.arrived: float | None = None
        """When the engine had read all of it."""
        self.arrived_turn = 0
        self.due = 0.0
        """When it has to be answered at last."""
        self.admitted = False
        """The queue certainly had room for it when it arrived."""
        self.alike = False
        """Another asks the very same: whose is whose cannot be told upstream."""
        self.handed = False
        """It may have been handed to a connection that was lost before it went."""
        self.sent_turn = 0
        self.links: list[Link] = []
        """The upstream connections on which it was sent."""
        self.upstream_tid = 0
        """Its identifier there."""
        self.begun = False
        """The connection ended within the response to it."""
        self.ended: float | None = None
        """When it was answered, or nobody waited for an answer any more."""
        self.gone_turn: int | None = None
        """The loop's turn in which the engine learned that its client had left."""
        self.verdict: Verdict | None = None

    @override
    def __repr__(self) -> str:
        """Say what a person needs to find it in the log."""
        return (
            f"<question {self.number} of {self.asker.name}, tid {self.tid}, "
            f"{self.ask.body[:12].hex(' ')}, asked {self.asked}, "
            f"arrived {self.arrived}, ended {self.ended}, "
            f"links {[link.number for link in self.links]}>"
        )


class Asker:
    """One connection of a client's, as the engine knows it."""

    def __init__(self, name: str, *, host: bool = False) -> None:
        """Begin with nothing asked."""
        self.name = name
        self.host = host
        """It is the host program itself."""
        self.served = 0
        """When it was last served, or accepted, as a count."""
        self.served_turn = 0
        """The loop's turn in which that was seen."""
        self.sure = True
        """That is certain: nobody asked the very same as its last question."""
        self.waiting: deque[Question] = deque()
        """Its questions in order; those in front may have ended."""
        self.by_tid: dict[int, Question] = {}
        self.on_the_way: deque[tuple[int, Question]] = deque()
        """Questions not yet read by the engine, and where in the stream each ends."""
        self.sent = 0
        self.read = 0
        self.buffer = bytearray()
        """What the engine wrote to it, beyond the last whole message."""
        self.left = False
        """The client closed, at least its side, or vanished."""
        self.offended = False
        """The client gave a reason to be closed."""
        self.known_gone = False
        """The engine has learned that it left, or has closed it."""
        self.slow = False
        """It may not take its answers."""
        self.silent = False
        """It must not get a single byte."""

    def head(self) -> Question | None:
        """Give its first question not yet ended."""
        waiting = self.waiting
        while waiting and waiting[0].ended is not None:
            waiting.popleft()
        return waiting[0] if waiting else None


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
        self.remembers = settings.cache_ttl > 0
        """A read may be answered without having been sent."""
        self.closes_on_failure = settings.on_failure == "close" or not (
            dialect.correlated
        )
        self._line_sent: dict[int, tuple[float, Question | None]] = {}
        """Per unit of a line, when it was last asked what, unless that was answered."""
        self._line_held: dict[int, float] = {}
        """Per unit of a line, until when it must not be asked."""
        self._probe = bytes((settings.unit_id, 3, 0, 0, 0, 1))
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
        self._read_turn: dict[Link, int] = {}
        """Per upstream connection, the turn in which the engine last read from it."""
        self._last_end: dict[Link, float] = {}
        self._due: list[tuple[float, int, Question]] = []
        self._good: set[bytes] = {self._probe}
        """What a probe may ask."""
        self._steps = 0
        self._writes_at_least = self._writes_at_most = 0
        """Writes sent in a row while a read waited."""
        self._refused_at: float | None = None
        """When the last attempt to connect failed, if none succeeded since."""
        self.loop.step = self.step
        network.on_dial = self._dialled
        network.on_refused = self._refused

    def _take(self, settings: Settings) -> None:
        """Take settings to go by; of those that follow, the most lenient count."""
        self.timeout = self.shortest_timeout = settings.timeout
        self.queue_size = self.smallest_queue = settings.queue_size
        self.max_connections = settings.max_connections
        self.max_in_flight = settings.max_in_flight
        self.connect_delay = settings.connect_delay
        self.request_delay = settings.request_delay
        self.backoff = settings.reconnect_backoff
        self.probing = settings.health_check_interval > 0
        on_line = settings.framing == "rtu"
        self._hold = settings.timeout + settings.quiet if on_line else None
        """On a line, how long after a request that was given up its unit is left."""

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
        self.probing |= settings.health_check_interval > 0

    # Clients

    def accept(self, link: Link, name: str) -> Asker:
        """Watch a client's new connection."""
        asker = Asker(name)
        self._askers[asker] = None
        end = link.accepted
        assert isinstance(end, ProgramEndpoint)
        end.on_begin = lambda: self._served(asker)
        end.on_read = lambda data: self._client_read(asker, len(data))
        end.on_write = lambda data: self._client_wrote(asker, data)
        end.on_leave = lambda own: self._client_gone(asker, own=own)
        return asker

    def host(self) -> Asker:
        """Watch a request of the host program's own."""
        asker = Asker("host", host=True)
        self._served(asker)
        return asker

    def _served(self, asker: Asker) -> None:
        """Note that somebody was served, or accepted, just now."""
        self._count += 1
        asker.served = self._count
        asker.served_turn = self.loop.turns

    def asked(self, asker: Asker, tid: int, ask: Ask, size: int = 0) -> Question:
        """Note that a client sends a question of `size` bytes."""
        self._questions += 1
        question = Question(self._questions, asker, tid, ask, self.loop.time())
        asker.sent += size
        if size:
            asker.on_the_way.append((asker.sent, question))
        else:
            self._arrived(question)
        return question

    def skipped(self, asker: Asker, size: int) -> None:
        """Note that a client sends bytes that ask nothing."""
        asker.sent += size

    def _client_read(self, asker: Asker, size: int) -> None:
        asker.read += size
        way = asker.on_the_way
        while way and way[0][0] <= asker.read:
            self._arrived(way.popleft()[1])

    def _arrived(self, question: Question) -> None:
        """Note that the engine has all of a question."""
        now = self.loop.time()
        asker = question.asker
        head = asker.head()
        question.arrived = now
        question.arrived_turn = self.loop.turns
        # (What was sent may be queued once more, if it is retry safe.)
        behind = [
            other
            for other in asker.waiting
            if other.ended is None and (not other.links or other.ask.retry_safe)
        ]
        question.admitted = not asker.slow and (
            not behind
            or (
                behind[-1].admitted
                and len(self._pending) + self._resent < self.smallest_queue
            )
        )
        asker.waiting.append(question)
        asker.by_tid[question.tid] = question
        self._pending[question] = None
        same = self._open.setdefault(question.ask.body, [])
        same.append(question)
        if len(same) > 1:
            for other in same:
                other.alike = True
        if question.ask.writes is not None:
            self._writes.setdefault(question.ask.writes, {})[question] = None
        if question.admitted or head is None:
            self._await(question, now)

    def _await(self, question: Question, since: float) -> None:
        """Expect the end of a question within its time."""
        question.due = since + self.timeout + self.slack
        heappush(self._due, (question.due, question.number, question))

    def _client_wrote(self, asker: Asker, data: bytes) -> None:
        if asker.silent:
            raise Violation(f"{asker.name} must not be served, but was told {data!r}")
        asker.buffer += data
        for tid, body in self.dialect.cut(asker.buffer):
            if self.dialect.correlated:
                question = asker.by_tid.get(tid)
            else:
                question = asker.head()
            if question is None:
                raise Violation(f"{asker.name} was told {body!r}, and asked nothing")
            self.answered(question, body)

    def answered(self, question: Question, body: bytes) -> None:
        """Judge what the engine answers to a question."""
        now = self.loop.time()
        verdict = self.dialect.judge(question.ask.body, body, question.asked, now)
        self.verdicts[verdict] += 1
        question.verdict = verdict
        if verdict is Verdict.WRONG:
            raise Violation(f"{question} got a wrong answer: {body[:40].hex(' ')}")
        if question.alike and not question.links:
            self._exchange_with_alike(question)
        if self._hold is not None and question.links:
            self._line_ended(question, verdict, body)
        if verdict is Verdict.GATEWAY:
            # (A read that was sent and lost may be waiting to be sent again.)
            if body[2] == NO_ANSWER:
                self._given_up[question.ask.body] = (self.loop.turns, question.asker)
                if not question.links:
                    # It was handed to a connection, and had its turn.
                    question.asker.sure = False
            elif question.links and not question.ask.retry_safe:
                raise Violation(f"{question} was sent, yet {body.hex(' ')} denies it")
        elif not (question.links or question.alike or self.remembers):
            raise Violation(f"{question} was answered, but never sent")
        if verdict is Verdict.RIGHT and question.ask.retry_safe:
            self._good.add(question.ask.body)
        self.end(question)

    def _line_ended(self, question: Question, verdict: Verdict, body: bytes) -> None:
        """Note what the end of an exchange on a line means for its unit."""
        unit = question.ask.body[0]
        sent, last = self._line_sent.get(unit, (0.0, None))
        if self._hold is None or last is not question:
            return
        if verdict is not Verdict.GATEWAY:
            del self._line_sent[unit]
        elif (
            body[2] == NO_ANSWER
            and self.loop.time() >= question.asked + self.shortest_timeout
        ):
            self._line_held[unit] = sent + self._hold

    def _may_be_held(self, question: Question) -> bool:
        """Tell whether the unit of a question may be left alone for the moment."""
        sent, _ = self._line_sent.get(question.ask.body[0], (-inf, None))
        return self._hold is not None and self.loop.time() < sent + self._hold

    def _exchange_with_alike(self, question: Question) -> None:
        """Correct the books: what was sent was this question, not one just like it."""
        for other in self._open[question.ask.body]:
            if other.links:
                question.links, other.links = other.links, []
                self._flying[question.links[-1]].pop(other, None)
                self._pending[other] = None
                return

    def failed(self, question: Question, failure: Failure) -> None:
        """Note that a request of the host program's own failed."""
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
        was_head = asker.head() is question
        question.ended = now
        self._pending.pop(question, None)
        same = self._open[question.ask.body]
        same.remove(question)
        if not same:
            del self._open[question.ask.body]
        if question.ask.writes is not None:
            self._writes[question.ask.writes].pop(question, None)
            self._write_ended[question.ask.writes] = self.loop.turns
        if question.links:
            link = question.links[-1]
            self._flying[link].pop(question, None)
            if not (question.alike or question.gone_turn or asker.host):
                self._last_end[link] = now
        if asker.by_tid.get(question.tid) is question:
            del asker.by_tid[question.tid]
        if was_head:
            head = asker.head()
            if head is not None and not head.admitted:
                self._await(head, now)

    def _client_gone(self, asker: Asker, *, own: bool) -> None:
        """Note that the engine learns that a client left, or (`own`) closes it."""
        if own and not (asker.left or asker.offended or self.excused):
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

    def upstream(self, link: Link) -> None:
        """Watch a new upstream connection."""
        end = link.program
        opened = self.loop.time()
        buffer = bytearray()
        heard = bytearray()
        self._flying[link] = {}
        self._refused_at = None

        def wrote(data: bytes) -> None:
            buffer.extend(data)
            for tid, body in self.dialect.cut(buffer):
                self._sent(link, tid, body, opened)
            if buffer:
                raise Violation(f"{bytes(buffer)!r} went upstream, and is no request")

        def read(data: bytes) -> None:
            self._read_turn[link] = self.loop.turns
            if self.dialect.correlated:
                heard.extend(data)
                for _ in self.dialect.cut(heard):
                    pass

        def gone() -> None:
            tid = int.from_bytes(heard[:2]) if len(heard) > 1 else -1
            for question in self._flying[link]:
                # (On a line there are no identifiers; elsewhere none is 0.)
                question.begun = tid == question.upstream_tid != 0
            # What was handed to the connection and not seen may be asked again.
            for question in self._pending:
                question.handed = True

        end.on_write = wrote
        end.on_read = read
        end.on_gone = gone

    def _upstreams(self) -> list[ProgramEndpoint]:
        """Give the engine's open connections to the device."""
        return [
            end
            for end in self.network.open
            if (end.server is None or end.link in self._flying) and not end.is_closing()
        ]

    def _dialled(self) -> None:
        count = len(self._upstreams())
        if count >= self.max_connections:
            raise Violation(f"one more connection is opened, though {count} are open")
        earliest = (self._refused_at or 0.0) + _JITTER * self.backoff - _TINY
        if self._refused_at is not None and self.loop.time() < earliest:
            raise Violation(f"it connects again before {earliest}")

    def _refused(self) -> None:
        if not self._upstreams():
            self._refused_at = self.loop.time()

    def told_to_connect(self) -> None:
        """Note that the owner wants a connection at once, whatever happened before."""
        self._refused_at = None

    def _sent(self, link: Link, tid: int, body: bytes, opened: float) -> None:
        """Look at a request that goes upstream."""
        now = self.loop.time()
        if now < opened + self.connect_delay - _TINY:
            raise Violation(f"{body.hex(' ')} was sent before the connect delay")
        if now < self._last_end.get(link, 0.0) + self.request_delay - _TINY:
            raise Violation(f"{body.hex(' ')} was sent before the request delay")
        if self._hold is not None and now < self._line_held.get(body[0], 0) - _TINY:
            raise Violation(f"{body.hex(' ')} may get a response that comes late")
        question = self._whose(body)
        if self._hold is not None:
            self._line_sent[body[0]] = (now, question)
        if question is None:
            self._writes_at_least = self._writes_at_most = 0
            # (What was handed to the connection goes with what else the turn brings.)
            turn, asker = self._given_up.get(body, (-2, None))
            if asker is not None and turn >= self.loop.turns - 1:
                self._served(asker)
            elif not (self.probing and body in self._good):
                raise Violation(f"nobody asks (any more) for {body[:40].hex(' ')}")
            return
        if question.links:
            self._check_resend(question)
        else:
            self._check_turn(question)
        if question.ask.writes is None:
            self._writes_at_least = self._writes_at_most = 0
        else:
            self._writes_at_most += 1
            self._check_write(question)
        if (
            self.dialect.drops_reads
            and question.ask.writes is None
            and question.gone_turn is not None
            and self.loop.turns > question.gone_turn + 2
            and not (question.links or question.alike)
        ):
            # (The engine learns of it in the next turn; what was handed to a connection
            # by then goes in the one after; and what an extra connection on trial did
            # not answer is asked once more.)
            raise Violation(f"{question} was sent, though its client had left")
        self._served(question.asker)
        for other in self._open[body]:
            other.asker.sure = not (question.alike or question.handed)
        question.links.append(link)
        question.upstream_tid = tid
        question.sent_turn = self.loop.turns
        self._pending.pop(question, None)
        flying = self._flying[link]
        flying[question] = None
        here = [other for other in flying if not self._may_have_ended(other)]
        if len(here) > self.max_in_flight:
            raise Violation(f"too many in flight on one connection: {here}")

    def _may_have_ended(self, question: Question) -> bool:
        """Tell whether the engine may have the answer to a question that was sent."""
        link = question.links[-1]
        read = self._read_turn.get(link, 0)
        return (
            question.alike
            or question.gone_turn is not None
            or link.program.is_closing()
            # the device's next request goes out before the client's answer
            or read == self.loop.turns
            # a task awaits the end, which runs later
            or question.asker.host
        )

    def _whose(self, body: bytes) -> Question | None:
        """Find the question that a request upstream asks."""
        same = self._open.get(body, ())
        unsent = [question for question in same if not question.links]
        for candidates in (
            [question for question in unsent if question.gone_turn is None],
            [question for question in same if _may_be_resent(question)],
            unsent,
            [question for question in same if question.gone_turn is None],
        ):
            if candidates:
                return candidates[0]
        return None if self.probing or not same else same[0]

    def _check_resend(self, question: Question) -> None:
        if not question.ask.retry_safe:
            raise Violation(f"{question} was sent twice, and is not retry safe")
        if question.alike:
            return
        # (A connection on trial may cost one sending more.)
        if len(question.links) > (1 if self.max_connections == 1 else 2):
            raise Violation(f"{question} was sent too often")
        if not question.links[0].program.is_closing():
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
                    raise Violation(
                        f"{question} of turn {asker.served} was served before {other} "
                        f"of turn {other.asker.served}"
                    )
            elif question.ask.writes is not None:
                reads_wait = True
            elif self.max_in_flight == 1 and self._writes_at_most < _WRITES_FIRST:
                raise Violation(f"{question} was served before the write {other}")
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
                and not (other.alike or other.handed)
                and other.asker.sure
                and other is self._first_unsent(other.asker)
                and not self._write_waits(other)
                and not self._may_be_held(other)
            ):
                yield other

    def _served_before(self, one: Asker, other: Asker) -> bool:
        """Tell whether one was served longer ago, so that it goes next."""
        # With requests pipelined, who was chosen is seen a turn later.
        since = other.served_turn - (2 if self.max_in_flight > 1 else 0)
        return one.served < other.served and one.served_turn <= since

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
                if other.admitted and other.gone_turn is None:
                    raise Violation(f"{question} was sent before the older {other}")
            elif not self._may_have_ended(other):
                raise Violation(f"{question} was sent beside the older {other}")

    @property
    def _resent(self) -> int:
        """Give how many requests may be queued that were sent, or that nobody asked."""
        return self.max_connections * self.max_in_flight + 1

    # Every step

    def step(self) -> None:
        """Look at what time alone can break."""
        due = self._due
        now = self.loop.time()
        while due and due[0][0] < now:
            question = heappop(due)[2]
            if question.ended is not None or question.due >= now:
                continue
            if question.gone_turn is not None:
                self.end(question)
            elif not question.asker.slow:
                raise Violation(f"{question} is still not answered at {now}")
        self._steps += 1
        if self._steps % _SNAPSHOT_STEPS == 0 and self.mux is not None:
            self._look_at(self.mux)

    def _look_at(self, mux: Multiplexer) -> None:
        picture = mux.snapshot()
        most = self.max_connections * self.max_in_flight
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
        if mux.paused and self._upstreams() and not picture.in_flight:
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


def _may_be_resent(question: Question) -> bool:
    return (
        question.ask.retry_safe
        and len(question.links) == 1
        and question.links[0].program.is_closing()
    )


def _same_kind(one: Question, other: Question) -> bool:
    """Tell whether both write, or neither does: a write may go before a read."""
    return (one.ask.writes is None) == (other.ask.writes is None)
