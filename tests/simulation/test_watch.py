"""What the watch believes of the engine, where the outside cannot tell."""

from __future__ import annotations

from typing import override

import pytest

from .clients import Temper
from .dialects import Ask, read, read_cell
from .manners import Manners
from .network import Link
from .test_sharing import Scripted
from .world import World


@pytest.mark.parametrize("pipelined", [False, True])
def test_an_answer_waits_for_the_one_before_it(pipelined: bool) -> None:
    """One that the device gives later holds it up only where it has both at once."""
    with World() as world:
        asker = world.watch.host()
        asker.face = world.rtu_face
        first, second = (
            world.watch.asked(asker, 0, read(1, 3, address, 2)) for address in (10, 20)
        )
        assert asker.owes_before(second, pipelined=pipelined)
        first.links.append(Link(world.network, 1))
        assert asker.owes_before(second, pipelined=pipelined) is pipelined
        world.watch.end(second)
        assert not asker.owes_before(first, pipelined=pipelined)


@pytest.mark.parametrize(("slow", "alike"), [(False, False), (True, True)])
def test_a_wider_read_may_answer_what_was_not_taken_before(
    slow: bool, alike: bool
) -> None:
    """What there was room for was placed at once, and does not wait for a later one."""
    with World() as world:
        asker, other = world.watch.host(), world.watch.host()
        asker.slow = slow
        part = world.watch.asked(asker, 0, read(1, 3, 10, 2))
        apart = world.watch.asked(asker, 0, read(1, 4, 10, 2))
        world.watch.asked(other, 0, read(1, 3, 0, 100))
        assert part.alike is alike
        assert not apart.alike


class LongReader(Scripted):
    """Reads more of a unit than the device takes at once, and not what others read."""

    @override
    def think_of(self) -> Ask:
        return read_cell(2, 0, 8 * int(self.source.rpartition(".")[2]))


def test_two_long_reads_may_begin_with_the_same_part() -> None:
    """The second is asked beside the first, which is overdue, and is none of it."""
    manners = Manners(silent=frozenset((2,)))
    with World("same", manners=manners, max_read_registers=10, timeout=4) as world:
        world.start()
        clients = [world.client(LongReader, n, Temper(depth=1)) for n in (1, 2)]
        world.run_for(3.0)
        first, second = sorted(
            (question for client in clients for question in client.asker.waiting),
            key=lambda question: question.sent,
        )
        assert second.sent - first.sent == pytest.approx(1.03, abs=0.1)
        assert len(first.links) == len(second.links) == 1
        world.stop()
