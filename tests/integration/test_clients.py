"""Named clients: devices that come and go, what is seen of them, and their rights."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from homeassistant.const import STATE_OFF, STATE_ON, STATE_UNKNOWN
from homeassistant.core import Event, EventStateChangedData, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.event import async_track_state_change_event
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer import client_watch
from custom_components.tcp_multiplexer.const import CONF_ADDRESSES, DOMAIN
from tests.rules import rule
from tests.waiting import until
from tests.wire import exception, read, values, write

from .peers import ModbusClient, ModbusDevice
from .subentries import add_client
from .test_init import listen_port

ASKING = "binary_sensor.evcc_asking"
CONNECTED = "binary_sensor.evcc_connection"
LAST_REQUEST = "sensor.evcc_last_request"
PER_MINUTE = "sensor.evcc_requests_per_minute"
FAILED = "sensor.evcc_failed_requests"
ENTITIES = {ASKING, CONNECTED, LAST_REQUEST, PER_MINUTE, FAILED}
SOON, NEVER = 0.3 / 60, 10_000
"""Minutes of silence, and of more than a test has."""

type AddClient = Callable[..., Awaitable[str]]


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at clients sooner than in real life."""
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", 0.02)


@pytest.fixture
def add(hass: HomeAssistant, loaded_entry: MockConfigEntry) -> AddClient:
    """Name clients of the running multiplexer."""

    async def add(name: str = "evcc", *addresses: str, **data: Any) -> str:
        if not addresses:
            addresses = ("127.0.0.1",)
        subentry_id = add_client(hass, loaded_entry, name, *addresses, **data)
        await hass.async_block_till_done()
        return subentry_id

    return add


@pytest.fixture
async def all_entities(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, add: AddClient
) -> None:
    """Name evcc, and enable also what a user would have to enable."""
    registry = er.async_get(hass)
    await add(silent_minutes=NEVER)
    for entity_id in ENTITIES:
        registry.async_update_entity(entity_id, disabled_by=None)
    assert await hass.config_entries.async_reload(loaded_entry.entry_id)
    await hass.async_block_till_done()


def state(hass: HomeAssistant, entity_id: str) -> str:
    """Return the state of an entity that there is."""
    shown = hass.states.get(entity_id)
    assert shown, entity_id
    return shown.state


def follow(hass: HomeAssistant, *entity_ids: str) -> list[str]:
    """Note the states that are written from now on."""
    written: list[str] = []

    @callback
    def note(event: Event[EventStateChangedData]) -> None:
        if new := event.data["new_state"]:
            written.append(new.state)

    async_track_state_change_event(hass, entity_ids, note)
    return written


# Devices


async def test_a_client_is_a_device_as_long_as_it_has_a_name(  # noqa: PLR0917
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    add: AddClient,
    device_registry: dr.DeviceRegistry,
    entity_registry: er.EntityRegistry,
) -> None:
    """Nobody is dropped meanwhile, and nothing is set up anew."""
    coordinator = loaded_entry.runtime_data
    connection = device.connection
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        assert await client.ask(read()) == values()
        evcc = await add()
        main = device_registry.async_get_device_by_identifier(
            (DOMAIN, loaded_entry.entry_id), loaded_entry.entry_id
        )
        assert main
        (its,) = dr.async_entries_for_config_entry(
            device_registry, loaded_entry.entry_id
        )[1:]
        assert (its.name, its.via_device_id) == ("evcc", main.id)
        assert its.config_subentry_id == evcc
        entities = er.async_entries_for_device(
            entity_registry, its.id, include_disabled_entities=True
        )
        assert {each.entity_id: each.disabled_by is not None for each in entities} == {
            each: each != ASKING for each in ENTITIES
        }
        assert {each.config_subentry_id for each in entities} == {evcc}
        assert state(hass, ASKING) == STATE_ON
        assert await client.ask(read()) == values()

        # The device has another name; entities keep their IDs.
        hass.config_entries.async_update_subentry(
            loaded_entry, loaded_entry.subentries[evcc], title="Wallbox"
        )
        await hass.async_block_till_done()
        renamed = device_registry.async_get(its.id)
        assert renamed
        assert renamed.name == "Wallbox"
        assert coordinator.client_name("127.0.0.1") == "Wallbox"
        assert state(hass, ASKING) == STATE_ON

        hass.config_entries.async_remove_subentry(loaded_entry, evcc)
        await hass.async_block_till_done()
        assert device_registry.async_get(its.id) is None
        assert not ENTITIES & set(entity_registry.entities)
        assert hass.states.get(ASKING) is None
        assert await client.ask(read()) == values()
    assert loaded_entry.runtime_data is coordinator
    assert device.connection is connection


async def test_clients_are_there_after_a_restart(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    add: AddClient,
    device_registry: dr.DeviceRegistry,
) -> None:
    await add()
    await add("Wallbox", "127.0.0.2")
    assert await hass.config_entries.async_reload(loaded_entry.entry_id)
    await hass.async_block_till_done()
    main, *clients = dr.async_entries_for_config_entry(
        device_registry, loaded_entry.entry_id
    )
    assert [each.name for each in clients] == ["evcc", "Wallbox"]
    assert {each.via_device_id for each in clients} == {main.id}
    assert state(hass, ASKING) == STATE_UNKNOWN


# What is seen of them


async def test_a_client_that_asks_and_one_that_does_not(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, add: AddClient
) -> None:
    await add(silent_minutes=SOON)
    await add("Wallbox", "127.0.0.2", silent_minutes=SOON)
    written = follow(hass, ASKING)
    wallbox = "binary_sensor.wallbox_asking"
    # Nobody knows yet whether they ask.
    assert state(hass, ASKING) == state(hass, wallbox) == STATE_UNKNOWN
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        assert await client.ask(read()) == values()
        await until(lambda: hass.states.is_state(ASKING, STATE_ON))
        await until(lambda: hass.states.is_state(wallbox, STATE_OFF))
        # To be connected is not to ask.
        await until(lambda: hass.states.is_state(ASKING, STATE_OFF))
        assert await client.ask(read()) == values()
        await until(lambda: hass.states.is_state(ASKING, STATE_ON))
    # What it asked before it left counts.
    assert state(hass, ASKING) == STATE_ON
    await until(lambda: hass.states.is_state(ASKING, STATE_OFF))
    assert written == [STATE_ON, STATE_OFF, STATE_ON, STATE_OFF]
    assert state(hass, wallbox) == STATE_OFF


async def test_another_time_of_silence_counts_at_once(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, add: AddClient
) -> None:
    evcc = await add(silent_minutes=SOON)
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        assert await client.ask(read()) == values()
    await until(lambda: hass.states.is_state(ASKING, STATE_OFF))
    subentry = loaded_entry.subentries[evcc]
    hass.config_entries.async_update_subentry(
        loaded_entry, subentry, data={**subentry.data, "silent_minutes": NEVER}
    )
    await hass.async_block_till_done()
    assert state(hass, ASKING) == STATE_ON


async def test_what_polls_writes_nothing(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, add: AddClient
) -> None:
    """However often it asks, and on however many connections."""
    await add(silent_minutes=NEVER)
    port = listen_port(hass, loaded_entry)
    written = follow(hass, *ENTITIES)
    for _ in range(30):
        async with ModbusClient(port) as client:
            assert await client.ask(read()) == values()
        await asyncio.sleep(0.01)  # it is looked at meanwhile
    await until(lambda: hass.states.is_state(ASKING, STATE_ON))
    assert written == [STATE_ON]


@pytest.mark.usefixtures("all_entities")
async def test_whether_it_is_connected_at_once(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", NEVER)
    assert await hass.config_entries.async_reload(loaded_entry.entry_id)
    port = listen_port(hass, loaded_entry)
    assert state(hass, CONNECTED) == STATE_OFF
    async with ModbusClient(port), ModbusClient(port, "127.0.0.9"):
        await until(lambda: hass.states.is_state(CONNECTED, STATE_ON))
    await until(lambda: hass.states.is_state(CONNECTED, STATE_OFF))


@pytest.mark.usefixtures("all_entities")
async def test_numbers_once_a_minute(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = loaded_entry.runtime_data.clients
    assert state(hass, LAST_REQUEST) == STATE_UNKNOWN
    assert state(hass, PER_MINUTE) == STATE_UNKNOWN
    assert state(hass, FAILED) == "0"
    written = follow(hass, LAST_REQUEST, PER_MINUTE, FAILED)
    device.silent_units = {2}
    hass.config_entries.async_update_entry(loaded_entry, options={"timeout": 0.5})
    await hass.async_block_till_done()
    before = dt_util.utcnow() - timedelta(seconds=1)
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        for _ in range(3):
            assert await client.ask(read()) == values()
        assert await client.ask(read(), unit=2) == exception(3, 0x0B)
        await asyncio.sleep(0.1)  # it is looked at meanwhile
        add_client(hass, loaded_entry, "Wallbox", "127.0.0.2")  # no reason to look
        await hass.async_block_till_done()
        assert written == []
        monkeypatch.setattr(client_watch, "MINUTE", 0.0)
        watch.async_look()
        monkeypatch.undo()
        assert len(written) == 3
        last = dt_util.parse_datetime(state(hass, LAST_REQUEST))
        assert last
        assert before <= last <= dt_util.utcnow() + timedelta(seconds=1)
        assert float(state(hass, PER_MINUTE)) > 0
        assert state(hass, FAILED) == "1"
        # Counters that are set to zero make no rate.
        loaded_entry.runtime_data.async_reset_statistics()
        monkeypatch.setattr(client_watch, "MINUTE", 0.0)
        watch.async_look()
        assert state(hass, PER_MINUTE) == STATE_UNKNOWN
        assert state(hass, FAILED) == "0"
        await asyncio.sleep(0.01)
        watch.async_look()
        assert state(hass, PER_MINUTE) == "0.0"


@pytest.mark.usefixtures("all_entities")
async def test_the_rate_is_per_minute(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_watch, "MINUTE", 0.2)
    written = follow(hass, PER_MINUTE)
    await until(lambda: hass.states.is_state(PER_MINUTE, "0.0"))
    begin = hass.loop.time()
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        for _ in range(10):
            assert await client.ask(read()) == values()
    # Ten in all, in one such minute or in two
    await until(lambda: not hass.states.is_state(PER_MINUTE, "0.0"))
    await until(lambda: hass.states.is_state(PER_MINUTE, "0.0"))
    rates = list(map(float, written))
    assert 60 * 10 / (hass.loop.time() - begin) <= sum(rates) <= 60 * 10 / 0.2


# What they are called


async def test_who_is_home_assistant(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, add: AddClient
) -> None:
    name = loaded_entry.runtime_data.client_name
    await add("House", "192.168.1.0/24")
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        assert name(address) == "Home Assistant"
    assert name("192.168.1.7") == "House"
    assert name("192.168.2.7") is None
    assert name("host") is None
    evcc = await add("evcc", "127.0.0.2", "192.168.1.5")
    assert name("127.0.0.2") == name("192.168.1.5") == "evcc"
    assert name("127.0.0.1") == name("::1") == "this computer"
    assert name("192.168.1.6") == "House"
    subentry = loaded_entry.subentries[evcc]
    hass.config_entries.async_update_subentry(
        loaded_entry, subentry, data={CONF_ADDRESSES: ["::1"]}
    )
    assert name("127.0.0.2") == "this computer"
    assert name("::1") == "evcc"
    hass.config_entries.async_remove_subentry(loaded_entry, evcc)
    assert name("::1") == "Home Assistant"


async def test_this_computer_in_another_language(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    hass.config.language = "de"
    add_client(hass, entry, "evcc", "127.0.0.2")
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    assert entry.runtime_data.client_name("127.0.0.1") == "dieser Rechner"


# Their rights


async def test_rights_of_a_client_apply_at_once(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    add: AddClient,
) -> None:
    hass.config_entries.async_update_entry(
        loaded_entry, options={"write_rules": [{"action": "deny"}]}
    )
    await hass.async_block_till_done()
    port = listen_port(hass, loaded_entry)
    refused = exception(6, 1)
    async with ModbusClient(port) as evcc, ModbusClient(port, "127.0.0.2") as other:
        assert await evcc.ask(write(7, 1)) == refused
        rows = [{"action": "allow", "registers": [7, 7]}]
        await add(write_rules=rows)
        assert await evcc.ask(write(7, 1)) == write(7, 1)
        # What none of its own rules matches, the list decides.
        assert await evcc.ask(write(8, 1)) == refused
        assert await other.ask(write(7, 1)) == refused
        (subentry,) = loaded_entry.subentries.values()
        hass.config_entries.async_update_subentry(
            loaded_entry, subentry, data={CONF_ADDRESSES: ["127.0.0.1"]}
        )
        assert await evcc.ask(write(7, 1)) == refused
        hass.config_entries.async_update_subentry(
            loaded_entry,
            subentry,
            data={CONF_ADDRESSES: ["127.0.0.2"], "write_rules": rows},
        )
        assert await evcc.ask(write(7, 1)) == refused
        assert await other.ask(write(7, 1)) == write(7, 1)
        hass.config_entries.async_remove_subentry(loaded_entry, subentry.subentry_id)
        assert await other.ask(write(7, 1)) == refused
    asked = [request[1:] for request in device.requests]
    assert [pdu for pdu in asked if pdu[0] == 6] == [write(7, 1)] * 2


async def test_the_rules_of_the_narrowest_network_come_first(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, add: AddClient
) -> None:
    house, both, single = (
        [{"action": "acknowledge", "units": [unit]}] for unit in (2, 3, 4)
    )
    await add("House", "192.168.0.0/16", write_rules=house)
    await add("evcc", "10.0.0.0/8", "192.168.1.5", "::1", write_rules=both)
    await add("Wallbox", "192.168.1.0/24", write_rules=single)
    await add("Nobody", "192.168.1.6")
    everybody = {"action": "deny", "units": [1]}
    options = {"write_rules": [everybody, {"action": "deny", "clients": ["evcc"]}]}
    hass.config_entries.async_update_entry(loaded_entry, options=options)
    assert loaded_entry.runtime_data.multiplexer.settings.write_rules == (
        rule("acknowledge", "::1", "192.168.1.5", units=(3,)),
        rule("acknowledge", "192.168.1.0/24", units=(4,)),
        rule("acknowledge", "192.168.0.0/16", units=(2,)),
        rule("acknowledge", "10.0.0.0/8", units=(3,)),
        rule("deny", units=(1,)),
        rule("deny", "10.0.0.0/8", "192.168.1.5", "::1"),
    )
