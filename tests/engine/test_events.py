"""Events are told at once, and those that are alike once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import logging

import pytest

from custom_components.tcp_multiplexer.multiplexer import Failure
from custom_components.tcp_multiplexer.multiplexer.observe.events import (
    Event,
    Events,
    EventType,
)

from .clock import Clock

CAME = Event(EventType.CLIENT_CONNECTED, "192.0.2.1")
OTHER_CAME = Event(EventType.CLIENT_CONNECTED, "192.0.2.2")
WENT = Event(EventType.CLIENT_DISCONNECTED, "192.0.2.1")
LATE = Event(EventType.REQUEST_REFUSED, "192.0.2.1", Failure.NO_RESPONSE, "read 1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have a clock instead of an event loop."""
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


@pytest.fixture
def events(clock: Clock) -> Events:
    """Have events that run by the clock."""
    return Events()


@pytest.fixture
def told(events: Events) -> list[Event]:
    """Have everything that is told."""
    told: list[Event] = []
    events.subscribe(told.append)
    return told


def test_first_of_a_kind_is_told_at_once_and_its_like_after_a_second(
    events: Events, told: list[Event], clock: Clock
) -> None:
    events.emit_merged(LATE)
    assert told == [LATE]
    for address in range(2, 5):
        events.emit_merged(
            Event(LATE.type, LATE.client, LATE.reason, f"read {address}")
        )
    clock.advance(0.99)
    assert told == [LATE]
    clock.advance(0.01)
    assert told == [LATE, Event(LATE.type, LATE.client, LATE.reason, "read 4", count=3)]


def test_same_kind_is_told_once_a_second_whatever_else_happens(
    events: Events, told: list[Event], clock: Clock
) -> None:
    """Each kind has a second of its own; none shortens another's."""
    events.emit_merged(OTHER_CAME)
    moments = []
    events.subscribe(lambda event: moments.append((event.client, clock.time())))
    clock.advance(0.9)
    for _ in range(50):
        events.emit_merged(CAME)
        clock.advance(0.05)
    clock.advance(5)
    mine = [moment - 1000.9 for client, moment in moments if client == CAME.client]
    assert mine == pytest.approx([0, 1, 2, 3])
    assert sum(event.count for event in told if event.client == CAME.client) == 50


def test_kind_that_was_quiet_for_a_second_is_told_at_once_again(
    events: Events, told: list[Event], clock: Clock
) -> None:
    events.emit_merged(CAME)
    clock.advance(1)
    assert clock.waiting == []
    events.emit_merged(CAME)
    assert told == [CAME, CAME]


@pytest.mark.parametrize(
    "other",
    [OTHER_CAME, WENT, Event(CAME.type, CAME.client, Failure.BUSY)],
    ids=["client", "type", "reason"],
)
def test_different_ones_are_not_merged(
    events: Events, told: list[Event], other: Event
) -> None:
    events.emit_merged(CAME)
    events.emit_merged(other)
    assert told == [CAME, other]


def test_too_many_clients_are_merged_into_one_kind_without_a_client(
    events: Events, told: list[Event], clock: Clock
) -> None:
    for number in range(5000):
        events.emit_merged(Event(CAME.type, f"client {number}"))
    assert len(told) == 1025
    assert told[-1] == Event(CAME.type)
    clock.advance(1)
    assert told[1025:] == [Event(CAME.type, count=5000 - 1025)]
    assert len(clock.waiting) == 1


def test_merged_writes_are_told_up_to_sixteen(
    events: Events, told: list[Event], clock: Clock
) -> None:
    for value in range(31):
        events.emit_merged(
            Event(EventType.WRITE_REFUSED, "192.0.2.1", writes=({"value": value},))
        )
    clock.advance(1)
    assert told[1].count == 30
    assert [write["value"] for write in told[1].writes] == list(range(1, 17))


def test_what_is_not_merged_is_told_one_by_one(
    events: Events, told: list[Event], clock: Clock
) -> None:
    events.emit(CAME)
    events.emit(CAME)
    assert told == [CAME, CAME]
    assert clock.waiting == []


def test_what_is_held_back_is_told_at_the_end_and_nothing_after_it(
    events: Events, told: list[Event], clock: Clock
) -> None:
    for event in (CAME, CAME, LATE, WENT, WENT, WENT):
        events.emit_merged(event)
    events.close()
    assert [(event.type, event.count) for event in told] == [
        (EventType.CLIENT_CONNECTED, 1),
        (EventType.REQUEST_REFUSED, 1),
        (EventType.CLIENT_DISCONNECTED, 1),
        (EventType.CLIENT_CONNECTED, 1),
        (EventType.CLIENT_DISCONNECTED, 2),
    ]
    events.emit_merged(LATE)
    events.close()
    assert len(told) == 5
    assert clock.waiting == []


def test_each_subscription_ends_by_itself(events: Events) -> None:
    told: list[str] = []

    def listener(name: str) -> Callable[[Event], None]:
        return lambda _: told.append(name)

    leave_a = events.subscribe(listener("a"))
    events.subscribe(listener("b"))
    leave_a()
    leave_a()
    events.emit(CAME)
    assert told == ["b"]


def test_listener_may_leave_while_it_is_told(events: Events) -> None:
    told = []

    def once(event: Event) -> None:
        told.append(event)
        leave()

    leave = events.subscribe(once)
    events.subscribe(told.append)
    events.emit(CAME)
    events.emit(WENT)
    assert told == [CAME, CAME, WENT]


def test_listener_that_fails_is_logged_and_stops_nobody(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError

    events.subscribe(fail)
    told: list[Event] = []
    events.subscribe(told.append)
    events.emit(CAME)
    assert told == [CAME]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "listener failed" in record.getMessage()
