"""What the engine may hold for one client, and how many steps an exchange may cost.

What it holds is seen from outside: bytes that it read of questions not yet ended, and
bytes that it wrote and that the client's socket did not take. A step is a callback of
the loop, or a turn in which a transport is read or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .questions import Violation

if TYPE_CHECKING:
    from .dialects import Dialect
    from .network import Network, ProgramEndpoint
    from .questions import Asker, Question

_UNREAD = 64 << 10
"""Bytes that a client may leave unread before it gets no more."""
_READ_ON = {"modbus": 4 << 10}
"""Bytes that are read of a client for whose questions there is no room."""
_READ_AT_ONCE = 128 << 10
"""The same where the protocol wants none: what was read with the last question."""
_REFUSALS = 64
"""Refusals that may wait to be told."""
_AT_ONCE = 8
"""Questions of one client that are taken in one step, if there are so many."""
_STEPS = (3, 60, 30)
"""Steps for each thing that passes, for each second, and beyond those."""


class Bounds:
    """Looks at what the engine holds, and at what it does."""

    def __init__(self, network: Network, dialect: Dialect) -> None:
        """Look at an engine in a network."""
        self._network = network
        self._loop = network.loop
        self._questions = 0
        """How many have arrived."""
        self._read_on = _READ_ON.get(dialect.name, _READ_AT_ONCE)

    def client_read(self, asker: Asker, size: int, placed: int) -> None:
        """Look at what is held of a client, of which `placed` questions may be."""
        asker.held += size
        if asker.held <= self._read_on + asker.ignored:
            return
        questions = [question for question in asker.waiting if question.ended is None]
        taken = sum(q.size for q in questions[: placed + _REFUSALS])
        if asker.held > self._read_on + asker.ignored + taken:
            raise Violation(f"{asker.held} bytes are held of {asker.name}")

    def client_written(
        self, asker: Asker, end: ProgramEndpoint, size: int, placed: int
    ) -> None:
        """Look at what a client has not read, when it was written `size` bytes."""
        asker.largest = max(asker.largest, size)
        most = _UNREAD + (placed + _REFUSALS) * asker.largest
        if end.get_write_buffer_size() > most:
            unread = end.get_write_buffer_size()
            raise Violation(f"{unread} bytes are kept for {asker.name}, unread")

    def arrived(self, question: Question) -> None:
        """Note that the engine has all of a question."""
        self._questions += 1
        question.steps = self._loop.steps
        question.passed = self._passed

    def ended(self, question: Question) -> None:
        """Look at what the engine did while a question was open."""
        question.asker.held -= question.size
        if question.arrived is None:
            return
        took = self._loop.time() - question.arrived
        passed = self._passed - question.passed
        steps = self._loop.steps - question.steps
        each, a_second, beyond = _STEPS
        if steps > each * passed + a_second * took + beyond:
            raise Violation(
                f"{steps} steps for {question}, in which {passed} things passed"
            )

    @property
    def _passed(self) -> int:
        """How much has passed: what the network brought, and what was taken of it."""
        return self._network.passed + self._questions // _AT_ONCE
