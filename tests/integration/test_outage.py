"""An outage is told, and does not fill the database."""

import asyncio
from typing import cast

from homeassistant.const import STATE_ON
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.multiplexer import (
    Event,
    EventType,
    Failure,
    Health,
)
from custom_components.tcp_multiplexer.outage import MOST_SECONDS, Refusals
from tests.engine.clock import Clock
from tests.waiting import until
from tests.wire import read, values

from .peers import ModbusClient, ModbusDevice
from .test_entities import Told
from .test_init import CONNECTION, HEALTH, NO_PATH, listen_port

NIGHT = 12 * 3600
BACK = Event(EventType.UPSTREAM_BACK)


def refused(client: str, reason: Failure = Failure.NO_CONNECTION) -> Event:
    """Give the event of a request that was refused."""
    return Event(EventType.REQUEST_REFUSED, client, reason, "read 1")


class Evening:
    """A clock, and what is told by it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[Event] = []
        loop = cast(asyncio.AbstractEventLoop, self.clock)
        self.refusals = Refusals(loop, self.told.append)

    def pass_with(self, seconds: int, every: int, *clients: str) -> int:
        """Let clients be refused every few seconds; give how often that was."""
        for _ in range(0, seconds, every):
            for client in clients:
                self.refusals.take(refused(client))
            self.clock.advance(every)
        return seconds // every * len(clients)


@pytest.fixture
def evening() -> Evening:
    """Return one that has just begun."""
    return Evening()


@pytest.mark.parametrize("every", [1, 5, 30, 60])
def test_a_night_is_a_few_events(evening: Evening, every: int) -> None:
    """However often clients ask; and in the morning every request was told."""
    asked = evening.pass_with(NIGHT, every, "wallbox", "evcc")
    assert len(evening.told) <= 2 * (NIGHT / MOST_SECONDS + 12)
    evening.refusals.take(BACK)
    told, back = evening.told[:-1], evening.told[-1]
    assert back == BACK
    assert sum(event.count for event in told) == asked
    assert {event.client for event in told} == {"wallbox", "evcc"}
    assert not evening.clock.waiting


def test_the_beginning_is_told_as_it_is(evening: Evening) -> None:
    evening.pass_with(8, 1, "evcc")
    assert [event.count for event in evening.told] == [1, 2, 4]
    assert evening.told[-1].detail == "read 1"
    # Another client, and another reason, are something else.
    evening.refusals.take(refused("wallbox"))
    evening.refusals.take(refused("evcc", Failure.PAUSED))
    evening.refusals.take(refused("evcc", Failure.SILENT))
    assert [event.client for event in evening.told[-3:]] == ["wallbox", "evcc", "evcc"]
    evening.refusals.take(refused("evcc", Failure.SILENT))
    assert len(evening.told) == 6


@pytest.mark.parametrize(
    "event",
    [
        refused("evcc", Failure.NO_RESPONSE),
        Event(EventType.CLIENT_CONNECTED, "evcc"),
        Event(EventType.HEALTH_CHANGED, reason=Health.UNREACHABLE),
    ],
)
def test_everything_else_is_told_at_once(evening: Evening, event: Event) -> None:
    evening.pass_with(100, 1, "evcc")
    evening.told.clear()
    for _ in range(3):
        evening.refusals.take(event)
    assert evening.told == [event] * 3


def test_health_ends_it_as_well(evening: Evening) -> None:
    """Nothing is lost, and the next outage is a new one."""
    asked = evening.pass_with(100, 1, "evcc")
    evening.refusals.take(Event(EventType.HEALTH_CHANGED, reason=Health.HEALTHY))
    assert sum(event.count for event in evening.told[:-1]) == asked
    evening.told.clear()
    evening.refusals.take(refused("evcc"))
    assert evening.told == [refused("evcc")]


def test_who_has_gone_is_forgotten(evening: Evening) -> None:
    evening.pass_with(100, 1, "evcc")
    evening.clock.advance(3600)
    assert not evening.clock.waiting
    evening.told.clear()
    evening.refusals.take(refused("evcc"))
    assert evening.told == [refused("evcc")]


async def test_an_outage_of_a_real_device(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    """At once, and the rest together when it is over."""
    await device.stop()
    told = Told(hass)
    options = {"reconnect_backoff": 0.1, "reconnect_backoff_max": 0.2, "timeout": 0.1}
    hass.config_entries.async_update_entry(entry, options=options)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: hass.states.is_state(HEALTH, "unreachable"))

    def count() -> int:
        return sum(int(str(each["count"])) for each in told.of("request_refused"))

    async with ModbusClient(listen_port(hass, entry)) as client:
        for _ in range(5):
            assert await client.ask(read()) == NO_PATH
        await until(lambda: count() == 1)
        await device.start()
        await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
        assert await client.ask(read()) == values()
        await until(lambda: count() == 5)
