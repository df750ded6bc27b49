"""What the watch believes of the engine, where the outside cannot tell."""

from __future__ import annotations

import pytest

from .dialects import read
from .network import Link
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
