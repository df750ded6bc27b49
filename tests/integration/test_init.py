"""From setting up to stopping: an entry is a multiplexer, and leaves nothing behind."""

import asyncio
import socket
from typing import Any

from homeassistant.components.switch.const import DOMAIN as SWITCH_DOMAIN
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import (
    ATTR_ENTITY_ID,
    CONF_HOST,
    EVENT_HOMEASSISTANT_FINAL_WRITE,
    EVENT_HOMEASSISTANT_STOP,
    SERVICE_TURN_OFF,
    SERVICE_TURN_ON,
    STATE_OFF,
    STATE_ON,
)
from homeassistant.core import Event, HomeAssistant
from homeassistant.helpers import issue_registry as ir
from pymodbus.client import AsyncModbusTcpClient
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer import async_get_endpoint
from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_PAUSED,
    DOMAIN,
)
from tests.waiting import until
from tests.wire import read, values

from .peers import ModbusClient, ModbusDevice

CONNECTION = "binary_sensor.inverter_device_connection"
HEALTH = "sensor.inverter_health"
PAUSE = "switch.inverter_pause"

NO_PATH = b"\x83\x0a"
NO_RESPONSE = b"\x83\x0b"


def listen_port(hass: HomeAssistant, entry: MockConfigEntry) -> int:
    """Give the local port of a loaded entry."""
    endpoint = async_get_endpoint(hass, entry.data[CONF_HOST], entry.data["port"])
    assert endpoint is not None
    return endpoint[1]


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a local port now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


async def test_shares_one_connection_among_real_clients(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    port = listen_port(hass, loaded_entry)
    slot = device.connection

    async def read(address: int) -> list[int]:
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        answers = [
            await client.read_holding_registers(address + i, count=1) for i in range(5)
        ]
        client.close()
        return [answer.registers[0] for answer in answers]

    assert list(await asyncio.gather(read(100), read(200), read(300))) == [
        [1100, 1101, 1102, 1103, 1104],
        [1200, 1201, 1202, 1203, 1204],
        [1300, 1301, 1302, 1303, 1304],
    ]
    assert len(device.requests) == 15
    assert device.connection is slot


async def test_loads_although_the_device_is_away(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    device: ModbusDevice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await device.stop()
    hass.config_entries.async_update_entry(
        entry,
        options={
            "timeout": 0.5,
            "reconnect_backoff": 0.1,
            "reconnect_backoff_max": 0.2,
        },
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.LOADED
    await until(lambda: hass.states.is_state(HEALTH, "unreachable"))
    assert hass.states.is_state(CONNECTION, STATE_OFF)
    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.ask(read()) == NO_PATH

        await device.start()
        await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
        assert await client.ask(read()) == values()
    await until(lambda: hass.states.is_state(HEALTH, "healthy"))

    told = [r.getMessage() for r in caplog.records if DOMAIN in r.name]
    assert sum("is unavailable" in message for message in told) == 1
    assert sum("is back" in message for message in told) == 1


async def test_port_in_use_is_retried_and_reported(
    hass: HomeAssistant, entry: MockConfigEntry, issue_registry: ir.IssueRegistry
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        hass.config_entries.async_update_entry(
            entry, data={**entry.data, CONF_LISTEN_PORT: port}
        )
        assert not await hass.config_entries.async_setup(entry.entry_id)
        assert entry.state is ConfigEntryState.SETUP_RETRY
        assert entry.error_reason_translation_key == "cannot_listen"
        assert entry.reason
        assert str(port) in entry.reason
        assert [issue for domain, issue in issue_registry.issues if domain == DOMAIN]
    assert await hass.config_entries.async_reload(entry.entry_id)
    await hass.async_block_till_done()
    assert listen_port(hass, entry) == port
    assert not [issue for domain, issue in issue_registry.issues if domain == DOMAIN]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", -1),
        # Whom it is about is not known: it must not be about everybody, or nobody.
        ("write_rules", [{"action": "deny", "clients": ["Nobody"]}]),
        ("write_rules", [{"action": "deny", "units": [256]}]),
    ],
)
async def test_settings_that_cannot_be_are_not_retried(
    hass: HomeAssistant, entry: MockConfigEntry, field: str, value: Any
) -> None:
    hass.config_entries.async_update_entry(entry, options={field: value})
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_ERROR
    assert entry.error_reason_translation_key == "invalid_settings"
    assert entry.error_reason_translation_placeholders
    assert entry.error_reason_translation_placeholders["field"] == field


async def test_unload_frees_port_clients_and_device(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    port = listen_port(hass, loaded_entry)
    async with ModbusClient(port) as client:
        assert await client.ask(read()) == values()
        assert await hass.config_entries.async_unload(loaded_entry.entry_id)
        assert is_free(port)
        assert await client.closed()
    await until(lambda: device.connection is None)
    assert async_get_endpoint(hass, "127.0.0.1", device.port) is None


async def test_setup_that_fails_later_frees_the_port(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    device: ModbusDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_LISTEN_PORT: port}
    )

    async def fail(*_: object) -> None:
        assert not is_free(port)
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(hass.config_entries, "async_forward_entry_setups", fail)
        assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_ERROR
    assert is_free(port)
    await until(lambda: device.connection is None)


async def test_home_assistants_stop_closes_everything(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    port = listen_port(hass, loaded_entry)
    device.silent = True
    async with ModbusClient(port) as client:
        waiting = asyncio.ensure_future(client.ask(read()))
        await until(lambda: device.requests)
        await hass.async_stop()
        assert is_free(port)
        assert await waiting == NO_RESPONSE  # asked, and the device was let go
        assert await client.closed()
    await until(lambda: device.connection is None)
    # Home Assistant does not unload its entries; asking must do no harm.
    assert async_get_endpoint(hass, "127.0.0.1", device.port) is None


async def test_clients_are_served_until_late_in_home_assistants_stop(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    answers: list[bytes] = []
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:

        async def ask(_: Event[Any]) -> None:
            answers.append(await client.ask(read()))

        hass.bus.async_listen_once(EVENT_HOMEASSISTANT_STOP, ask)
        hass.bus.async_listen_once(EVENT_HOMEASSISTANT_FINAL_WRITE, ask)
        await hass.async_stop()
        assert await client.closed()
    assert answers == [values()] * 2


async def test_pause_survives_a_reload_and_drops_no_client(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        assert await client.ask(read()) == values()
        await hass.services.async_call(
            SWITCH_DOMAIN, SERVICE_TURN_ON, {ATTR_ENTITY_ID: PAUSE}, blocking=True
        )
        await until(lambda: device.connection is None)
        assert await client.ask(read()) == NO_PATH
        await until(lambda: hass.states.is_state(PAUSE, STATE_ON))
        assert hass.states.is_state(HEALTH, "paused")
        assert hass.states.is_state(CONNECTION, STATE_OFF)
    assert loaded_entry.data[CONF_PAUSED]

    assert await hass.config_entries.async_reload(loaded_entry.entry_id)
    await hass.async_block_till_done()
    assert hass.states.is_state(PAUSE, STATE_ON)
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        assert await client.ask(read()) == NO_PATH
        assert device.connection is None

        await hass.services.async_call(
            SWITCH_DOMAIN, SERVICE_TURN_OFF, {ATTR_ENTITY_ID: PAUSE}, blocking=True
        )
        await until(lambda: hass.states.is_state(PAUSE, STATE_OFF))
        assert await client.ask(read()) == values()
    assert not loaded_entry.data[CONF_PAUSED]


async def test_options_apply_live_where_they_can(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    device.silent = True
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        hass.config_entries.async_update_entry(loaded_entry, options={"timeout": 0.1})
        await hass.async_block_till_done()
        async with asyncio.timeout(2):
            assert await client.ask(read()) == NO_RESPONSE


async def test_other_options_reload(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        await client.ask(read())
        hass.config_entries.async_update_entry(
            loaded_entry, options={"matching": "lenient"}
        )
        assert await client.closed()
    await hass.async_block_till_done()
    assert loaded_entry.state is ConfigEntryState.LOADED
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        assert await client.ask(read()) == values()


async def test_renaming_the_entry_disturbs_nobody(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        hass.config_entries.async_update_entry(loaded_entry, title="Roof")
        await hass.async_block_till_done()
        assert await client.ask(read()) == values()


async def test_endpoint_for_other_integrations(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_HOST: "LocalHost"}
    )
    assert async_get_endpoint(hass, "localhost", device.port) is None  # not loaded
    assert await hass.config_entries.async_setup(entry.entry_id)
    endpoint = async_get_endpoint(hass, "localhost", device.port)
    assert endpoint is not None
    host, port = endpoint
    assert host == "127.0.0.1"
    assert async_get_endpoint(hass, "LOCALHOST", device.port) == endpoint
    assert async_get_endpoint(hass, "127.0.0.1", device.port) is None
    assert async_get_endpoint(hass, "localhost", port) is None


async def test_endpoint_of_a_listener_on_all_addresses_is_the_loopback_one(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_LISTEN_HOST: None}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    endpoint = async_get_endpoint(hass, "127.0.0.1", device.port)
    assert endpoint is not None
    assert endpoint[0] == "127.0.0.1"
