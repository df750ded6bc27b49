"""When what a client has sent was complete, while it has to wait."""

from __future__ import annotations

from custom_components.tcp_multiplexer.multiplexer.downstream.arrivals import Arrivals


def test_nothing_that_has_not_waited_came_earlier_than_now() -> None:
    arrivals = Arrivals()
    assert not arrivals
    assert arrivals.when(12, 5.0) == 5.0


def test_a_message_was_complete_when_its_last_byte_came() -> None:
    arrivals = Arrivals()
    arrivals.note(17, 0, 1.0)
    arrivals.note(24, 0, 2.0)
    arrivals.note(36, 0, 3.0)
    assert [arrivals.when(taken, 9.0) for taken in (12, 24, 36, 40)] == [1, 2, 3, 9]
    assert not arrivals


def test_what_was_taken_says_nothing_of_what_comes_later() -> None:
    arrivals = Arrivals()
    arrivals.note(12, 0, 1.0)
    arrivals.note(14, 12, 7.0)
    assert arrivals.when(14, 9.0) == 7.0


def test_pieces_of_a_byte_do_not_fill_memory() -> None:
    arrivals = Arrivals()
    for received in range(1, 4097):
        arrivals.note(received, 0, received / 10)
    assert len(arrivals) <= 4096 / 2
    assert 99.6 <= arrivals.when(1000, 999.0) <= 100.0
