"""The blueprints, as automations of a real Home Assistant with a real device."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
import shutil
from typing import Any

from homeassistant.core import Event, HomeAssistant
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_capture_events,
    async_fire_time_changed,
)

from custom_components.tcp_multiplexer import async_get_endpoint
from tests.waiting import until
from tests.wire import read

from .peers import ModbusClient, ModbusDevice

BLUEPRINTS = Path(__file__).parents[2] / "blueprints" / "automation"
HEALTH = "sensor.inverter_health"

type Automate = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
async def automate(hass: HomeAssistant, tmp_path: Path) -> AsyncGenerator[Automate]:
    """Return what makes an automation of a blueprint, as its owner would."""
    shutil.copytree(BLUEPRINTS, tmp_path / "blueprints" / "automation")
    hass.config.config_dir = str(tmp_path)

    async def automate(blueprint: str, **inputs: Any) -> None:
        use = {"path": f"tcp_multiplexer/{blueprint}.yaml", "input": inputs}
        config = {"automation": {"alias": "It", "use_blueprint": use}}
        assert await async_setup_component(hass, "automation", config)
        await hass.async_block_till_done()
        assert hass.states.is_state("automation.it", "on")

    yield automate
    await hass.services.async_call(
        "automation", "turn_off", {"entity_id": "automation.it"}, blocking=True
    )


@pytest.fixture
async def impatient_entry(
    hass: HomeAssistant, entry: MockConfigEntry
) -> MockConfigEntry:
    """Return a loaded entry that notices soon what its device does."""
    hass.config_entries.async_update_entry(
        entry,
        options={
            "timeout": 0.2,
            "reconnect_backoff": 0.1,
            "reconnect_backoff_max": 0.1,
            "health_check_interval": 0.1,
        },
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    await health_is(hass, "healthy")
    return entry


async def health_is(hass: HomeAssistant, health: str) -> None:
    """Wait until the device does as badly or well as that."""
    await until(lambda: hass.states.is_state(HEALTH, health))


def it_is_minutes_later(hass: HomeAssistant, minutes: float) -> None:
    """Let automations see the time so much later than it is."""
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(minutes=minutes))


async def test_tells_when_the_device_is_away_and_when_it_is_back(
    hass: HomeAssistant,
    impatient_entry: MockConfigEntry,
    device: ModbusDevice,
    automate: Automate,
) -> None:
    gone: list[Event] = async_capture_events(hass, "gone")
    back: list[Event] = async_capture_events(hass, "back")
    await automate(
        "notify_unreachable",
        health=HEALTH,
        minutes=10,
        unreachable_actions=[
            {"event": "gone", "event_data_template": {"device": "{{ device }}"}}
        ],
        back_actions=[
            {"event": "back", "event_data_template": {"device": "{{ device }}"}}
        ],
    )
    await device.stop()
    await health_is(hass, "unreachable")
    it_is_minutes_later(hass, 9)
    await hass.async_block_till_done()
    assert not gone
    it_is_minutes_later(hass, 11)
    await until(lambda: gone)
    assert [event.data for event in gone] == [{"device": "Inverter"}]
    assert not back

    await device.start()
    await until(lambda: back)
    assert [event.data for event in back] == [{"device": "Inverter"}]

    # It tells of the next time too
    await device.stop()
    await health_is(hass, "unreachable")
    it_is_minutes_later(hass, 11)
    await until(lambda: len(gone) == 2)
    await device.start()
    await until(lambda: len(back) == 2)


async def test_short_outage_is_not_told(
    hass: HomeAssistant,
    impatient_entry: MockConfigEntry,
    device: ModbusDevice,
    automate: Automate,
) -> None:
    gone: list[Event] = async_capture_events(hass, "gone")
    await automate(
        "notify_unreachable", health=HEALTH, unreachable_actions=[{"event": "gone"}]
    )
    await device.stop()
    await health_is(hass, "unreachable")
    await device.start()
    await health_is(hass, "healthy")
    it_is_minutes_later(hass, 11)
    await hass.async_block_till_done()
    assert not gone


async def test_reconnects_when_health_stays_degraded(
    hass: HomeAssistant,
    impatient_entry: MockConfigEntry,
    device: ModbusDevice,
    automate: Automate,
) -> None:
    await automate("reconnect_degraded", health=HEALTH, minutes=5)
    hass.config_entries.async_update_entry(
        impatient_entry, options={"timeout": 0.2, "health_check_interval": 0}
    )
    await hass.async_block_till_done()
    endpoint = async_get_endpoint(hass, "127.0.0.1", device.port)
    assert endpoint
    async with ModbusClient(endpoint[1]) as client:
        for silent in (True, False, True, False):  # never twice in a row
            device.silent = silent
            await client.ask(read())
    await health_is(hass, "degraded")
    connection = device.connection
    assert connection

    it_is_minutes_later(hass, 4)
    await hass.async_block_till_done()
    assert device.connection is connection
    it_is_minutes_later(hass, 6)
    await until(lambda: device.connection not in (None, connection))


async def at_three_in_the_morning(hass: HomeAssistant) -> None:
    """Let automations see that."""
    tomorrow = dt_util.now() + timedelta(days=1)
    async_fire_time_changed(hass, tomorrow.replace(hour=3, minute=0, second=1))
    await hass.async_block_till_done()


def was_triggered(hass: HomeAssistant) -> bool:
    """Tell whether the automation did anything."""
    state = hass.states.get("automation.it")
    assert state
    return state.attributes["last_triggered"] is not None


def weekday(days_later: int) -> str:
    """Give the day as automations name it."""
    return f"{dt_util.now() + timedelta(days=days_later):%a}".lower()


async def test_reconnects_at_its_time(
    hass: HomeAssistant,
    impatient_entry: MockConfigEntry,
    device: ModbusDevice,
    automate: Automate,
) -> None:
    connection = device.connection
    assert connection
    await automate("reconnect_schedule", health=HEALTH, weekdays=[weekday(0)])
    it_is_minutes_later(hass, 0.5)
    await hass.async_block_till_done()
    assert device.connection is connection
    await at_three_in_the_morning(hass)
    assert was_triggered(hass)
    await until(lambda: device.connection not in (None, connection))


async def test_reconnects_on_its_days_only(
    hass: HomeAssistant,
    impatient_entry: MockConfigEntry,
    device: ModbusDevice,
    automate: Automate,
) -> None:
    connection = device.connection
    assert connection
    others = [weekday(days) for days in range(1, 7)]
    await automate("reconnect_schedule", health=HEALTH, weekdays=others)
    await at_three_in_the_morning(hass)
    assert not was_triggered(hass)
    assert device.connection is connection


async def test_leaves_a_paused_multiplexer_alone(
    hass: HomeAssistant,
    impatient_entry: MockConfigEntry,
    automate: Automate,
) -> None:
    await hass.services.async_call(
        "switch", "turn_on", {"entity_id": "switch.inverter_pause"}, blocking=True
    )
    await health_is(hass, "paused")
    await automate("reconnect_schedule", health=HEALTH)
    await at_three_in_the_morning(hass)
    assert not was_triggered(hass)


async def many(events: list[Event], number: int) -> None:
    """Wait until so many have come."""
    await until(lambda: len(events) == number)


async def test_tells_of_a_client_that_is_silent(
    hass: HomeAssistant, automate: Automate
) -> None:
    """Of any binary sensor that is on while a client asks."""
    asking = "binary_sensor.evcc_asking"
    silent: list[Event] = async_capture_events(hass, "silent")
    back: list[Event] = async_capture_events(hass, "back")
    hass.states.async_set(asking, "on")
    await automate(
        "client_silent",
        asking=asking,
        minutes=5,
        silent_actions=[{"event": "silent"}],
        back_actions=[{"event": "back"}],
    )
    for times in (1, 2):
        hass.states.async_set(asking, "off")
        await hass.async_block_till_done()
        it_is_minutes_later(hass, 4)
        await hass.async_block_till_done()
        assert len(silent) == times - 1
        it_is_minutes_later(hass, 6)
        await many(silent, times)
        assert len(back) == times - 1
        hass.states.async_set(asking, "on")
        await many(back, times)
        await runs(hass, 0)


async def test_names_the_client_that_is_silent(
    hass: HomeAssistant,
    impatient_entry: MockConfigEntry,
    device: ModbusDevice,
    automate: Automate,
) -> None:
    silent: list[Event] = async_capture_events(hass, "silent")
    await automate(
        "client_silent",
        asking="binary_sensor.inverter_device_connection",
        minutes=0,
        silent_actions=[
            {"event": "silent", "event_data_template": {"client": "{{ client }}"}}
        ],
    )
    await device.stop()
    await until(lambda: silent)
    assert silent[0].data == {"client": "Inverter"}


FAILED = "sensor.inverter_failed_requests"


@pytest.fixture
async def many_failed(hass: HomeAssistant, automate: Automate) -> list[Event]:
    """Return what is told where 10 requests failed within 15 minutes."""
    many: list[Event] = async_capture_events(hass, "many")
    hass.states.async_set(FAILED, "100")
    await automate(
        "failed_requests",
        counter=FAILED,
        count=10,
        minutes=15,
        quiet_minutes=60,
        actions=[{"event": "many", "event_data_template": {"failed": "{{ failed }}"}}],
    )
    return many


async def runs(hass: HomeAssistant, number: int) -> None:
    """Wait until the automation waits for something (1), or for its trigger (0)."""

    def current() -> object:
        state = hass.states.get("automation.it")
        assert state
        return state.attributes["current"]

    await until(lambda: current() == number)


def failed(hass: HomeAssistant, *counts: str) -> None:
    """Let the counter count."""
    for count in counts:
        hass.states.async_set(FAILED, count)


async def test_tells_of_many_failed_requests_once_in_an_hour(
    hass: HomeAssistant, many_failed: list[Event]
) -> None:
    failed(hass, "101")
    await runs(hass, 1)
    failed(hass, "105", "109", "112", "150")
    await until(lambda: many_failed)
    failed(hass, "200")
    it_is_minutes_later(hass, 59)
    failed(hass, "300")
    await runs(hass, 1)
    it_is_minutes_later(hass, 61)
    await runs(hass, 0)
    failed(hass, "400")
    await until(lambda: len(many_failed) == 2)
    assert [event.data for event in many_failed] == [{"failed": 50}, {"failed": 100}]


async def test_few_failed_requests_are_not_told(
    hass: HomeAssistant, many_failed: list[Event]
) -> None:
    failed(hass, "101")
    await runs(hass, 1)
    failed(hass, "109")
    it_is_minutes_later(hass, 16)
    await runs(hass, 0)
    failed(hass, "113")  # the quarter of an hour begins anew
    await runs(hass, 1)
    failed(hass, "118", "119")
    await until(lambda: many_failed)
    assert [event.data for event in many_failed] == [{"failed": 10}]


async def test_a_counter_that_begins_anew_is_no_failure(
    hass: HomeAssistant, many_failed: list[Event]
) -> None:
    failed(hass, "unavailable", "120", "unknown", "0", "unavailable", "3", "3")
    await hass.async_block_till_done()
    await runs(hass, 0)
    failed(hass, "12")
    await runs(hass, 1)
    failed(hass, "13")
    await until(lambda: many_failed)
    assert [event.data for event in many_failed] == [{"failed": 10}]
