"""Who asked what of the engine, and what became of it, as the `Watch` sees that."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import override

from .dialects import Ask, Verdict
from .faces import Face
from .network import Endpoint, Link


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
        "barred",
        "begun",
        "beside",
        "confirmable",
        "delayed",
        "due",
        "ended",
        "era",
        "gone_turn",
        "handed",
        "links",
        "number",
        "odd",
        "parts",
        "passed",
        "said",
        "sent",
        "sent_turn",
        "size",
        "steps",
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
        self.arrived_turn = self.sent_turn = 0
        self.due = 0.0
        """When it has to be answered at last."""
        self.admitted = False
        """The queue certainly had room for it when it arrived."""
        self.era = 0
        """Which of the owner's settings were in force when it arrived."""
        self.barred = False
        """A rule of the owner's answers it, not the device."""
        self.parts: list[list[bytes]] = []
        """In which parts it may be asked, if it is longer than the device takes."""
        self.beside = False
        """It was sent while another was overdue, and may be lost in a gateway."""
        self.delayed = False
        """It may be refused at once, and that be told later: its client asks again
        what was refused just before."""
        self.confirmable = False
        """It repeats the last write to its unit, and may be confirmed without being
        sent."""
        self.alike = False
        """Another asks the very same, or more: whose is whose cannot be told upstream.
        """
        self.handed = False
        """It may have been handed to a connection that was lost before it went."""
        self.size = 0
        """Bytes of it on the wire."""
        self.steps = self.passed = 0
        """Steps of the loop when it arrived, and what had passed in the network."""
        self.sent = 0.0
        """When it was sent last."""
        self.links: list[Link] = []
        """The upstream connections on which it was sent."""
        self.upstream_tid = 0
        """Its identifier there."""
        self.said: bytes | bytearray = b""
        """Where answers name no question, what the device has said since it was sent,
        until the next was."""
        self.odd = inf
        """When the device said an exception of odd length to it."""
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

    def __init__(
        self, name: str, face: Face, address: str = "", *, host: bool = False
    ) -> None:
        """Begin with nothing asked."""
        self.name = name
        self.face = face
        """How it frames what it says."""
        self.address = address
        self.host = host
        """It is the host program itself."""
        self.end: Endpoint | None = None
        """The engine's end of its connection."""
        self.served = 0
        """When it was last served, or accepted, as a count."""
        self.served_turn = 0
        """The loop's turn in which that was seen."""
        self.served_at = self.chosen_at = 0.0
        """When that was seen, and when it was decided at the earliest (loop time)."""
        self.sure = True
        """That is certain: nobody asked the very same as its last question."""
        self.waiting: deque[Question] = deque()
        """Its questions in order; those in front may have ended."""
        self.by_tid: dict[int, Question] = {}
        self.on_the_way: deque[tuple[int, Question]] = deque()
        """Questions not yet read by the engine, and where in the stream each ends."""
        self.sent = 0
        self.read = 0
        self.refused_at = -inf
        """When it was last refused something."""
        self.held = 0
        """Bytes that the engine read, of questions not ended or not complete."""
        self.ignored = 0
        """Bytes that ask nothing."""
        self.largest = 0
        """Bytes of the longest answer."""
        self.buffer = bytearray()
        """What the engine wrote to it, beyond the last whole message."""
        self.left = False
        """The client closed, at least its side, or vanished."""
        self.offended = False
        """The client gave a reason to be closed."""
        self.logged_in = False
        """It used a function that may be a login: it goes with its connection."""
        self.known_gone = False
        """The engine has learned that it left, or has closed it."""
        self.slow = False
        """It may not take its answers."""
        self.silent = False
        """It must not get a single byte."""

    @property
    def is_full(self) -> bool:
        """Whether the engine has written more than its connection takes for now."""
        return self.end is not None and self.end.writing_paused

    def head(self) -> Question | None:
        """Give its first question not yet ended."""
        waiting = self.waiting
        while waiting and waiting[0].ended is not None:
            waiting.popleft()
        return waiting[0] if waiting else None

    def owes_before(self, question: Question, *, pipelined: bool) -> bool:
        """Tell whether an answer may be kept for that to an earlier question.

        One that is in order goes out behind a refusal that is told later, behind the
        answer to a read that has joined another, and (`pipelined`) behind one that the
        device gives later.
        """
        if self.face.correlated:
            return False
        for other in self.waiting:
            if other is question:
                break
            sure = other.links and not (other.alike or pipelined)
            if other.ended is None and not sure:
                return True
        return False

    def next_answered(self, body: bytes, *, drops: bool) -> Question | None:
        """Give the question that an answer without an identifier belongs to.

        With `drops`, of a client that has left reads may have been dropped meanwhile.
        """
        head = self.head()
        if head is None or not (drops and self.known_gone):
            return head
        fitting = [
            question
            for question in self.waiting
            if question.ended is None
            and question.ask.body[0] == body[0]
            and question.ask.body[1] == body[1] & 0x7F
        ]
        if fitting and fitting[0].ask.writes is not None:
            return fitting[0]  # a write is not dropped
        sent = [question for question in fitting if question.links or question.barred]
        return next(iter((*sent, *fitting)), head)
