"""What happens is told once and at once; what happens again, less and less often."""

import asyncio
from typing import cast

from homeassistant.const import STATE_ON
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.multiplexer import (
    ClientRefusal,
    Event,
    EventType,
    Failure,
    Health,
)
from custom_components.tcp_multiplexer.pace import Damper
from custom_components.tcp_multiplexer.telling import (
    AGAIN_SECONDS,
    CLIENTS_NAMED,
    DEVICE_SECONDS,
    HELD_SECONDS,
    SHOWN_TYPES,
    TYPE_BURST,
    TYPE_SECONDS,
    WRITES_KEPT,
    Teller,
    Told,
    shown_type,
)
from tests.engine.clock import Clock
from tests.waiting import until
from tests.wire import read, values

from .peers import ModbusClient, ModbusDevice
from .test_entities import Heard
from .test_init import CONNECTION, HEALTH, NO_PATH, listen_port

HOUR = 3600
NIGHT = 12 * HOUR
LOST = Event(EventType.UPSTREAM_LOST, detail="refused")
BACK = Event(EventType.UPSTREAM_BACK)
TURNED_AWAY = ClientRefusal.NOT_ALLOWED


def refused(client: str, reason: Failure = Failure.NO_CONNECTION) -> Event:
    """Give the event of a request that was refused."""
    return Event(EventType.REQUEST_REFUSED, client, reason, "read 1")


class Evening:
    """A clock, and what is told by it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[Told] = []
        loop = cast(asyncio.AbstractEventLoop, self.clock)
        self.teller = Teller(loop, self.told.append)

    def pass_with(self, seconds: int, every: int, *events: Event) -> int:
        """Let things happen every few seconds; give how many that were."""
        for _ in range(0, seconds, every):
            for event in events:
                self.teller.take(event)
            self.clock.advance(every)
        return len(range(0, seconds, every)) * len(events)

    def count(self) -> int:
        """Give how many events were told, merged or not."""
        return sum(told.event.count for told in self.told)


@pytest.fixture
def evening() -> Evening:
    """Return one that has just begun."""
    return Evening()


@pytest.mark.parametrize("every", [1, 5, 30, 60])
def test_a_night_is_a_few_events(evening: Evening, every: int) -> None:
    """However often clients ask; and at last every request was told."""
    asked = evening.pass_with(NIGHT, every, refused("wallbox"), refused("evcc"))
    assert len(evening.told) <= NIGHT / DEVICE_SECONDS + 2
    evening.clock.advance(DEVICE_SECONDS)
    assert evening.count() == asked
    assert set(evening.told[2].clients) == {"wallbox", "evcc"}
    assert not evening.clock.waiting


def test_the_beginning_is_told_at_once_and_the_rest_soon(evening: Evening) -> None:
    evening.teller.take(refused("evcc"))
    assert [told.event for told in evening.told] == [refused("evcc")]
    evening.clock.advance(1)
    for client in ("wallbox", "evcc", "boiler"):
        evening.teller.take(refused(client))
    # What the device does, all clients meet: they are told together.
    assert len(evening.told) == 1
    evening.clock.advance(HELD_SECONDS)
    assert evening.told[1].clients == ("wallbox", "evcc", "boiler")
    assert evening.told[1].event.count == 3
    # Another cause is something else.
    evening.teller.take(refused("evcc", Failure.PAUSED))
    assert evening.told[-1].type == "paused"


def test_each_client_is_told(evening: Evening) -> None:
    """The one that connects for every request hides no other."""
    often = Event(EventType.CLIENT_CONNECTED, "often")
    connected = evening.pass_with(600, 10, often)
    assert evening.count() < connected
    evening.told.clear()
    evening.teller.take(Event(EventType.CLIENT_CONNECTED, "seldom"))
    assert [told.clients for told in evening.told] == [("seldom",)]


def test_a_scan_from_many_addresses_is_few_events(evening: Evening) -> None:
    for number in range(HOUR):
        evening.teller.take(
            Event(EventType.CLIENT_REFUSED, f"client {number}", TURNED_AWAY)
        )
        evening.clock.advance(1)
    assert len(evening.told) <= HOUR / TYPE_SECONDS + TYPE_BURST + 1
    many = evening.told[-1]
    assert many.more_clients
    assert len(many.clients) == CLIENTS_NAMED
    evening.clock.advance(TYPE_SECONDS)
    assert evening.count() == HOUR
    assert len(evening.teller._kinds) <= 2 * 256  # noqa: SLF001 - memory is the point


def test_what_was_calm_for_long_is_told_at_once_again(evening: Evening) -> None:
    evening.pass_with(100, 1, refused("evcc"))
    evening.clock.advance(3 * DEVICE_SECONDS)
    assert not evening.clock.waiting
    evening.told.clear()
    evening.teller.take(refused("evcc"))
    assert [told.event for told in evening.told] == [refused("evcc")]


def test_writes_are_kept_when_they_are_merged(evening: Evening) -> None:
    for value in range(4):
        evening.teller.take(
            Event(
                EventType.WRITE_REFUSED,
                "evcc",
                Failure.REFUSED,
                writes=({"value": value},),
            )
        )
    evening.clock.advance(HELD_SECONDS)
    assert [told.event.writes for told in evening.told] == [
        ({"value": 0},),
        ({"value": 1},),
        ({"value": 2}, {"value": 3}),
    ]
    evening.pass_with(600, 1, *[evening.told[0].event] * 3)
    evening.clock.advance(AGAIN_SECONDS)
    assert len(evening.told[-1].event.writes) == WRITES_KEPT


@pytest.mark.parametrize("seconds", [1, 5, 10, 30, 100, 300, 1000])
def test_a_device_that_comes_and_goes_is_few_events(
    evening: Evening, seconds: int
) -> None:
    for _ in range(0, 2 * HOUR, 2 * seconds):
        evening.teller.take(LOST)
        evening.clock.advance(seconds)
        evening.teller.take(BACK)
        evening.clock.advance(seconds)
    # Bad news always comes before good news.
    types = [told.type for told in evening.told]
    assert types[::2] == ["upstream_lost"] * len(types[::2])
    assert types[1::2] == ["upstream_back"] * len(types[1::2])
    assert len(types) <= 14
    evening.clock.advance(Damper.CALM_SECONDS)
    assert evening.told[-1].type == "upstream_back"
    back = [told for told in evening.told if told.type == "upstream_back"]
    assert sum(told.event.count for told in back) == len(
        range(0, 2 * HOUR, 2 * seconds)
    )


def test_nothing_waits_at_the_end(evening: Evening) -> None:
    evening.pass_with(10, 1, LOST, BACK, refused("evcc"), refused("wallbox"))
    assert evening.clock.waiting
    evening.teller.end()
    assert not evening.clock.waiting


@pytest.mark.parametrize(
    "event",
    [
        Event(EventType.CONNECTION_OPENED),
        Event(EventType.HEALTH_CHANGED, reason=Health.UNREACHABLE),
        Event(EventType.CLIENT_REFUSED, "evcc"),  # merged by the engine
    ],
)
def test_what_is_for_the_program_alone_is_not_told(event: Event) -> None:
    assert shown_type(event) is None


def test_every_cause_has_a_type() -> None:
    causes = [
        *(Event(EventType.CLIENT_REFUSED, reason=reason) for reason in ClientRefusal),
        *(Event(EventType.REQUEST_REFUSED, reason=reason) for reason in Failure),
        *(
            Event(EventType.WRITE_REFUSED, reason=reason)
            for reason in Failure
            if reason.is_rule
        ),
    ]
    types = [shown_type(event) for event in causes]
    assert set(types) <= set(SHOWN_TYPES)
    assert len(set(types)) == len(causes) - 1  # a write may be too large as well


async def test_an_outage_of_a_real_device(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    """At once, and the rest soon, together."""
    await device.stop()
    heard = Heard(hass)
    options = {"reconnect_backoff": 0.1, "reconnect_backoff_max": 0.2, "timeout": 0.1}
    hass.config_entries.async_update_entry(entry, options=options)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: hass.states.is_state(HEALTH, "unreachable"))

    def count() -> int:
        return sum(int(str(each["count"])) for each in heard.of("no_connection"))

    async with ModbusClient(listen_port(hass, entry)) as client:
        for _ in range(5):
            assert await client.ask(read()) == NO_PATH
        await until(lambda: count() == 1)
        await device.start()
        await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
        assert await client.ask(read()) == values()
        await until(lambda: count() == 5)
