"""What people see: which entities there are, when they change and when not."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

from homeassistant.components.button.const import DOMAIN as BUTTON_DOMAIN, SERVICE_PRESS
from homeassistant.components.homeassistant import SERVICE_UPDATE_ENTITY
from homeassistant.components.switch import DOMAIN as SWITCH_DOMAIN
from homeassistant.const import (
    ATTR_CONFIG_ENTRY_ID,
    ATTR_ENTITY_ID,
    CONF_HOST,
    EVENT_STATE_CHANGED,
    EVENT_STATE_REPORTED,
    SERVICE_TURN_ON,
    STATE_OFF,
    STATE_ON,
    STATE_UNKNOWN,
    EntityCategory,
)
from homeassistant.core import (
    DOMAIN as HOMEASSISTANT_DOMAIN,
    Event,
    EventStateChangedData,
    HomeAssistant,
    callback,
)
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from syrupy.assertion import SnapshotAssertion

from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_PAUSED,
    CONF_UPDATE_INTERVAL,
    DOMAIN,
)
from custom_components.tcp_multiplexer.telling import CLIENTS_NAMED, TYPE_BURST
from tests.waiting import until
from tests.wire import read, values

from .peers import ModbusClient, ModbusDevice
from .subentries import add_client
from .test_init import CONNECTION, HEALTH, NO_RESPONSE, PAUSE, listen_port

CLIENTS = "sensor.inverter_clients"
EVENT = "event.inverter_device_and_clients"
FAILED = "sensor.inverter_failed_requests"
LISTEN_ADDRESS = "sensor.inverter_listen_address"
QUEUE_DEPTH = "sensor.inverter_queue_depth"
RECONNECT = "button.inverter_reconnect"
REQUESTS = "sensor.inverter_requests"
RESPONSE_TIME = "sensor.inverter_response_time"

OFTEN = 0.2
"""A shorter interval than the dialog allows."""
NEVER = 86_400
"""An interval that no test lives to see the end of."""


class Heard:
    """The events that the event entity told, in their order."""

    def __init__(self, hass: HomeAssistant) -> None:
        self.attributes: list[dict[str, object]] = []
        hass.bus.async_listen(EVENT_STATE_CHANGED, self._take)

    @callback
    def _take(self, event: Event[EventStateChangedData]) -> None:
        state = event.data["new_state"]
        if event.data["entity_id"] == EVENT and state and state.state != STATE_UNKNOWN:
            self.attributes.append(
                {
                    key: value
                    for key, value in state.attributes.items()
                    if key not in {"event_types", "friendly_name"}
                }
            )

    def of(self, event_type: str) -> list[dict[str, object]]:
        """Give what was told of a type."""
        return [heard for heard in self.attributes if heard["event_type"] == event_type]


async def load(
    hass: HomeAssistant, entry: MockConfigEntry, **options: object
) -> MockConfigEntry:
    """Load an entry with options, and wait until it is connected."""
    hass.config_entries.async_update_entry(entry, options=options)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
    return entry


@pytest.fixture
async def all_entities(hass: HomeAssistant, entry: MockConfigEntry) -> None:
    """Enable also the entities that a user would have to enable."""
    registry = er.async_get(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    assert await hass.config_entries.async_unload(entry.entry_id)
    for entity in er.async_entries_for_config_entry(registry, entry.entry_id):
        registry.async_update_entity(entity.entity_id, disabled_by=None)
    await hass.async_block_till_done()


@pytest.mark.usefixtures("all_entities")
async def test_entities(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    entity_registry: er.EntityRegistry,
    snapshot: SnapshotAssertion,
) -> None:
    """All of them, on a multiplexer that is paused: its states stand still."""
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_PAUSED: True}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    port = str(listen_port(hass, entry))
    entities = er.async_entries_for_config_entry(entity_registry, entry.entry_id)
    for entity in sorted(entities, key=lambda entity: entity.entity_id):
        assert entity == snapshot(name=f"{entity.entity_id}-entry")
        state = hass.states.get(entity.entity_id)
        assert state
        if entity.entity_id == LISTEN_ADDRESS:
            assert state.state == f"127.0.0.1:{port}"
            assert state.attributes["addresses"] == [f"127.0.0.1:{port}"]
        elif entity.entity_id != EVENT:  # which tells of the load before
            assert state == snapshot(name=f"{entity.entity_id}-state")


async def test_entities_enabled_by_default(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    entity_registry: er.EntityRegistry,
) -> None:
    enabled = {
        entity.entity_id: entity.entity_category
        for entity in er.async_entries_for_config_entry(
            entity_registry, loaded_entry.entry_id
        )
        if entity.disabled_by is None
    }
    assert enabled == {
        **dict.fromkeys((HEALTH, CLIENTS, PAUSE, EVENT)),
        **dict.fromkeys(
            (CONNECTION, QUEUE_DEPTH, RESPONSE_TIME, FAILED, LISTEN_ADDRESS),
            EntityCategory.DIAGNOSTIC,
        ),
        RECONNECT: EntityCategory.CONFIG,
    }


async def test_device(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device_registry: dr.DeviceRegistry,
    snapshot: SnapshotAssertion,
) -> None:
    devices = dr.async_entries_for_config_entry(device_registry, loaded_entry.entry_id)
    assert devices == snapshot


async def test_listen_address_on_all_addresses_is_what_home_assistant_announces(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_LISTEN_HOST: None}
    )
    await load(hass, entry)
    state = hass.states.get(LISTEN_ADDRESS)
    assert state
    assert state.state == f"10.10.10.10:{listen_port(hass, entry)}"


@pytest.mark.usefixtures("all_entities")
async def test_clients_and_health_at_once_and_counters_not(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    device.delay = 0.02
    await load(hass, entry, **{CONF_UPDATE_INTERVAL: NEVER})
    assert hass.states.is_state(CLIENTS, "0")
    port = listen_port(hass, entry)
    async with ModbusClient(port) as client, ModbusClient(port):
        await until(lambda: hass.states.is_state(CLIENTS, "2"))
        for _ in range(10):
            assert await client.ask(read()) == values()
        await device.stop()
        await until(lambda: hass.states.is_state(HEALTH, "unreachable"))
        assert hass.states.is_state(CONNECTION, STATE_OFF)
    await until(lambda: hass.states.is_state(CLIENTS, "0"))
    assert hass.states.is_state(REQUESTS, "0")
    assert hass.states.is_state(RESPONSE_TIME, STATE_UNKNOWN)

    # Who wants to know now may ask.
    assert await async_setup_component(hass, HOMEASSISTANT_DOMAIN, {})
    await hass.services.async_call(
        HOMEASSISTANT_DOMAIN,
        SERVICE_UPDATE_ENTITY,
        {ATTR_ENTITY_ID: REQUESTS},
        blocking=True,
    )
    assert hass.states.is_state(REQUESTS, "10")
    state = hass.states.get(RESPONSE_TIME)
    assert state
    assert 20 <= float(state.state) < 1000


@pytest.mark.usefixtures("all_entities")
async def test_counters_when_they_moved_much_and_nothing_when_nothing_changed(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    await load(hass, entry, **{CONF_UPDATE_INTERVAL: OFTEN})
    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.ask(read()) == values()
        await until(lambda: hass.states.is_state(REQUESTS, "1"))
        for _ in range(4):
            assert await client.ask(read()) == values()
        await until(lambda: not hass.states.is_state(REQUESTS, "0"))
        # The client stays connected and says nothing: for two intervals and more
        # nothing is written, not even the same again.
        await until(lambda: hass.states.is_state(CLIENTS, "1"))
        await until(lambda: entry.runtime_data.counters.responses == 5)
        writes: Counter[str] = Counter()

        @callback
        def count(event: Event[Any]) -> None:
            writes[event.data["entity_id"]] += 1

        hass.bus.async_listen(EVENT_STATE_CHANGED, count)
        hass.bus.async_listen(EVENT_STATE_REPORTED, count, callback(lambda _: True))
        await asyncio.sleep(2.2 * OFTEN)
        assert not writes

        device.silent = True
        hass.config_entries.async_update_entry(
            entry, options={CONF_UPDATE_INTERVAL: OFTEN, "timeout": 0.1}
        )
        await hass.async_block_till_done()
        assert await client.ask(read()) == NO_RESPONSE
        await until(lambda: hass.states.is_state(FAILED, "1"))
        # The first that failed is news; that one more was asked is not.
        assert writes[FAILED] == 1
        assert not writes[REQUESTS]
        device.silent = False
        for _ in range(20):
            assert await client.ask(read()) == values()
        await until(lambda: writes[REQUESTS])


@pytest.mark.usefixtures("all_entities")
async def test_what_moved_little_is_shown_when_it_is_asked_for(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    await load(hass, entry, **{CONF_UPDATE_INTERVAL: OFTEN})
    assert await async_setup_component(hass, HOMEASSISTANT_DOMAIN, {})
    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.ask(read()) == values()
        await until(lambda: hass.states.is_state(REQUESTS, "1"))
        for _ in range(4):
            assert await client.ask(read()) == values()
    await until(lambda: entry.runtime_data.counters.requests == 5)
    assert hass.states.is_state(REQUESTS, "1")
    await hass.services.async_call(
        HOMEASSISTANT_DOMAIN,
        SERVICE_UPDATE_ENTITY,
        {ATTR_ENTITY_ID: REQUESTS},
        blocking=True,
    )
    assert hass.states.is_state(REQUESTS, "5")
    await hass.services.async_call(
        DOMAIN,
        "reset_statistics",
        {ATTR_CONFIG_ENTRY_ID: entry.entry_id},
        blocking=True,
    )
    assert hass.states.is_state(REQUESTS, "0")


async def test_response_time_is_unknown_when_nothing_has_answered_for_long(
    hass: HomeAssistant, entry: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(hass, entry, **{CONF_UPDATE_INTERVAL: NEVER})
    assert await async_setup_component(hass, HOMEASSISTANT_DOMAIN, {})

    async def update() -> None:
        await hass.services.async_call(
            HOMEASSISTANT_DOMAIN,
            SERVICE_UPDATE_ENTITY,
            {ATTR_ENTITY_ID: RESPONSE_TIME},
            blocking=True,
        )

    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.ask(read()) == values()
    await hass.services.async_call(
        SWITCH_DOMAIN, SERVICE_TURN_ON, {ATTR_ENTITY_ID: PAUSE}, blocking=True
    )
    await update()
    assert not hass.states.is_state(RESPONSE_TIME, STATE_UNKNOWN)

    begin = hass.loop.time()
    monkeypatch.setattr(hass.loop, "time", lambda: begin + 10 * 60 + 1)
    await update()
    assert hass.states.is_state(RESPONSE_TIME, STATE_UNKNOWN)
    monkeypatch.undo()


async def test_interval_changes_without_a_reload(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    await load(hass, entry, **{CONF_UPDATE_INTERVAL: NEVER})
    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.ask(read()) == values()
        hass.config_entries.async_update_entry(
            entry, options={CONF_UPDATE_INTERVAL: OFTEN}
        )
        await until(lambda: not hass.states.is_state(RESPONSE_TIME, STATE_UNKNOWN))
        assert await client.ask(read()) == values()


async def test_button_reconnects_and_drops_nobody(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        assert await client.ask(read()) == values()
        before = device.connection
        await hass.services.async_call(
            BUTTON_DOMAIN, SERVICE_PRESS, {ATTR_ENTITY_ID: RECONNECT}, blocking=True
        )
        await until(lambda: device.connection not in {None, before})
        assert await client.ask(read()) == values()
    state = hass.states.get(RECONNECT)
    assert state
    assert state.state != STATE_UNKNOWN


async def test_button_while_paused_says_so(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_PAUSED: True}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    with pytest.raises(ServiceValidationError) as error:
        await hass.services.async_call(
            BUTTON_DOMAIN, SERVICE_PRESS, {ATTR_ENTITY_ID: RECONNECT}, blocking=True
        )
    assert error.value.translation_key == "paused"


async def test_events_of_clients(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    heard = Heard(hass)
    await load(hass, entry, timeout=0.1)
    async with ModbusClient(listen_port(hass, entry)) as client:
        await until(lambda: heard.of("client_connected"))
        device.silent = True
        assert await client.ask(read(7, 3)) == NO_RESPONSE
        await until(lambda: heard.of("no_response"))
    await until(lambda: heard.of("client_disconnected"))
    client_is = {"client": "127.0.0.1", "client_name": "Home Assistant"}
    assert heard.attributes == [
        {"event_type": "client_connected", **client_is, "count": 1},
        {
            "event_type": "no_response",
            **client_is,
            "reason": "no_response",
            "detail": "unit 1 read holding registers 7 count 3",
            "count": 1,
        },
        {"event_type": "client_disconnected", **client_is, "count": 1},
    ]


async def test_refused_clients_have_a_reason_and_a_name(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    heard = Heard(hass)
    add_client(hass, entry, "evcc", "127.0.0.1")
    await load(hass, entry, allowed_networks=["192.168.0.0/16"])
    for _ in range(3):
        async with ModbusClient(listen_port(hass, entry)) as client:
            assert await client.closed()
    # The first at once, the others together.
    await until(lambda: len(heard.attributes) == 2)
    refused = {
        "event_type": "address_not_allowed",
        "client": "127.0.0.1",
        "client_name": "evcc",
        "reason": "not_allowed",
    }
    assert heard.attributes == [{**refused, "count": 1}, {**refused, "count": 2}]
    assert hass.states.is_state(CLIENTS, "0")


async def test_events_of_the_same_moment_are_told_one_by_one(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    heard = Heard(hass)
    port = listen_port(hass, loaded_entry)
    addresses = {f"127.0.0.{number}" for number in range(1, 6)}
    async with AsyncExitStack() as clients:
        for address in addresses:
            await clients.enter_async_context(ModbusClient(port, address))
        await until(lambda: hass.states.is_state(CLIENTS, "5"))
        await hass.services.async_call(
            DOMAIN,
            "disconnect_client",
            {ATTR_CONFIG_ENTRY_ID: loaded_entry.entry_id},
            blocking=True,
        )
        await until(lambda: len(heard.of("client_disconnected")) == 5)
    assert {event["client"] for event in heard.of("client_disconnected")} == addresses
    assert hass.states.is_state(CLIENTS, "0")


async def test_events_that_come_too_often_are_merged_and_counted(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    """Forty clients at once: the first by name, the others together."""
    heard = Heard(hass)
    await load(hass, entry)
    port = listen_port(hass, entry)
    async with AsyncExitStack() as clients:
        for number in range(1, 41):
            await clients.enter_async_context(ModbusClient(port, f"127.0.0.{number}"))
        await until(lambda: hass.states.is_state(CLIENTS, "40"))
        await until(lambda: sum(int(str(e["count"])) for e in heard.attributes) == 40)
        *first, others = heard.attributes
        addresses = [f"127.0.0.{number}" for number in range(1, 41)]
        assert [event["client"] for event in first] == addresses[:TYPE_BURST]
        assert "client" not in others
        assert others["clients"] == addresses[TYPE_BURST:][:CLIENTS_NAMED]


async def test_events_of_the_upstream(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    heard = Heard(hass)
    await load(hass, entry, reconnect_backoff=0.1, reconnect_backoff_max=0.2)
    await device.stop()
    await until(lambda: heard.of("upstream_lost"))
    await device.start()
    await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.ask(read()) == values()
    await until(lambda: heard.of("upstream_back"))
    assert len(heard.of("upstream_lost")) == len(heard.of("upstream_back")) == 1


async def test_events_of_a_unit(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    heard = Heard(hass)
    await load(hass, entry, timeout=0.1)
    device.silent_units = {2}
    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.ask(read()) == values()
        for _ in range(2):
            assert await client.ask(read(), unit=2) == NO_RESPONSE
        await until(lambda: heard.of("unit_silent"))
        assert await client.ask(read(), unit=2) == NO_RESPONSE
        assert device.requests.count(b"\2" + read()) == 2
        assert hass.states.is_state(HEALTH, "healthy")
        await until(lambda: heard.of("not_asked"))
        device.silent_units = set()
        await entry.runtime_data.async_reconnect()  # it is tried again at once
        multiplexer = entry.runtime_data.multiplexer
        await until(lambda: multiplexer.snapshot().connections)
        assert await client.ask(read(), unit=2) == values(unit=2)
        await until(lambda: heard.of("unit_back"))
    for event_type in ("unit_silent", "unit_back"):
        assert heard.of(event_type) == [
            {"event_type": event_type, "detail": "2", "count": 1}
        ]


async def test_other_protocols(hass: HomeAssistant, device: ModbusDevice) -> None:
    """An entry of another protocol has the same entities and its own model."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Meter",
        data={
            CONF_HOST: "127.0.0.1",
            "port": device.port,
            "protocol": "http",
            CONF_LISTEN_HOST: "127.0.0.1",
            "listen_port": 0,
        },
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    [shown] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert shown.model == "HTTP/1.1"
    # Its page, by way of us.
    [address] = entry.runtime_data.multiplexer.snapshot().listen_addresses
    assert shown.configuration_url == f"http://127.0.0.1:{address[1]}"
    assert hass.states.is_state("sensor.meter_clients", "0")
