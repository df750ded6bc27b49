"""Home Assistant's own Modbus connection as the upstream, with real peers.

The device has one slot. Another integration holds it through `modbus.async_get_unit`;
external clients come through the multiplexer. Both must be served on that one
connection, and whatever a client gets must be what the device would have given it.
"""

import asyncio
from collections.abc import AsyncGenerator

from homeassistant.components.modbus.connection import async_get_unit
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from modbus_connection import ModbusTcpParams, ModbusTlsParams, ModbusUnit
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_UPSTREAM,
    DOMAIN,
)
from custom_components.tcp_multiplexer.flow import probe_shared
from custom_components.tcp_multiplexer.flow.identify import Identity
from custom_components.tcp_multiplexer.flow.probe import DeviceError, DeviceProblem
from custom_components.tcp_multiplexer.flow.probe_shared import async_ask_shared
from custom_components.tcp_multiplexer.multiplexer import Settings
from tests.waiting import until
from tests.wire import read, values

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port
from .pymodbus_device import pymodbus_device


def shared_entry(hass: HomeAssistant, port: int, **options: object) -> MockConfigEntry:
    """Add an entry whose upstream is Home Assistant's own connection."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Inverter",
        data={
            CONF_PROTOCOL: "modbus",
            CONF_HOST: "127.0.0.1",
            CONF_PORT: port,
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: free_port(),
            CONF_UPSTREAM: "home_assistant",
        },
        options=options,
    )
    entry.add_to_hass(hass)
    return entry


@pytest.fixture
async def device() -> AsyncGenerator[ModbusDevice]:
    """Give a device with one slot."""
    device = ModbusDevice()
    await device.start()
    yield device
    await device.stop()


@pytest.fixture
def other(hass: HomeAssistant) -> MockConfigEntry:
    """Give the entry of another integration."""
    other = MockConfigEntry(domain="other")
    other.add_to_hass(hass)
    return other


def unit_of(
    hass: HomeAssistant, other: MockConfigEntry, device: ModbusDevice
) -> ModbusUnit:
    """Let the other integration use the device, as core integrations do."""
    params = ModbusTcpParams(host="127.0.0.1", port=device.port)
    return async_get_unit(hass, other, params, 1)


async def test_both_are_served_on_the_one_connection(
    hass: HomeAssistant, device: ModbusDevice, other: MockConfigEntry
) -> None:
    unit = unit_of(hass, other, device)
    assert await unit.read_holding_registers(10, 2) == [1010, 1011]
    slot = device.connection
    entry = shared_entry(hass, device.port)
    assert await hass.config_entries.async_setup(entry.entry_id)
    port = entry.data[CONF_LISTEN_PORT]
    async with ModbusClient(port) as one, ModbusClient(port) as two:
        answers = await asyncio.gather(
            one.ask(read(20, 3)),
            two.ask(read(30, 1)),
            unit.read_holding_registers(40, 1),
        )
    assert list(answers) == [values(20, 3), values(30, 1), [1040]]
    assert device.connection is slot
    # The other goes on when the multiplexer has gone.
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert await unit.read_holding_registers(50, 1) == [1050]
    assert device.connection is slot
    await hass.config_entries.async_unload(other.entry_id)


async def test_every_function_gives_what_the_device_gives(
    hass: HomeAssistant,
) -> None:
    """Whoever asks through the multiplexer sees what whoever asks directly sees."""
    requests = [
        read(0, 4),
        b"\x04\0\0\0\2",
        b"\x06\0\1\x12\x34",
        read(1, 1),
        b"\x10\0\2\0\2\4\0\7\0\x08",
        b"\x16\0\1\xff\0\0\x56",
        read(0, 4),
        b"\x17\0\0\0\2\0\3\0\1\2\0\x63",
        read(3, 1),
        read(900, 1),  # an address that it does not have
    ]
    answers: list[list[bytes]] = []
    for through in (False, True):
        async with pymodbus_device(11, 22, 33, 44) as port:
            asked = port
            if through:
                entry = shared_entry(hass, port)
                assert await hass.config_entries.async_setup(entry.entry_id)
                asked = entry.data[CONF_LISTEN_PORT]
            async with ModbusClient(asked) as client:
                answers.append([await client.ask(request) for request in requests])
            if through:
                assert await hass.config_entries.async_unload(entry.entry_id)
    assert answers[1] == answers[0]


@pytest.mark.parametrize(
    ("request_pdu", "answer"),
    [
        (b"\x41\0\0", b"\xc1\1"),  # a vendor's own function
        (b"\x15\x12" + 2 * (b"\6\0\4\0\7\0\1\0\0"), b"\x95\1"),  # two records
        (b"\x03\0\0\0\x7e", b"\x83\3"),  # more than Modbus allows
        (b"\x03\0\0", b"\x83\3"),  # cut short
        (b"\x05\0\0\x12\x34", b"\x85\3"),  # neither on nor off
        (b"\x10\0\0\0\2\2\0\1", b"\x90\3"),  # fewer values than announced
    ],
)
async def test_what_cannot_pass_is_refused(
    hass: HomeAssistant, device: ModbusDevice, request_pdu: bytes, answer: bytes
) -> None:
    entry = shared_entry(hass, device.port)
    assert await hass.config_entries.async_setup(entry.entry_id)
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(request_pdu) == answer
    assert device.requests == []


async def test_a_silent_device_is_a_gateway_exception(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    device.silent = True
    entry = shared_entry(hass, device.port, timeout=0.3)
    assert await hass.config_entries.async_setup(entry.entry_id)
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(read()) == b"\x83\x0b"


async def test_a_device_that_is_away_is_found_again(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    await device.stop()
    entry = shared_entry(hass, device.port, timeout=2, reconnect_backoff=0.1)
    assert await hass.config_entries.async_setup(entry.entry_id)
    multiplexer = entry.runtime_data.multiplexer
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(read()) == b"\x83\x0a"
        assert multiplexer.health.value == "unreachable"
        await device.start()
        answer = b""
        while answer != values():
            answer = await client.ask(read())
    await until(lambda: multiplexer.health.value == "healthy")


async def test_other_link_settings_are_a_conflict(
    hass: HomeAssistant, device: ModbusDevice, other: MockConfigEntry
) -> None:
    params = ModbusTlsParams(host="127.0.0.1", port=device.port, verify=False)
    async_get_unit(hass, other, params, 1)
    entry = shared_entry(hass, device.port)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == "shared_connection_in_use"
    await hass.config_entries.async_unload(entry.entry_id)
    await hass.config_entries.async_unload(other.entry_id)


async def test_the_dialog_asks_on_that_way(
    hass: HomeAssistant, device: ModbusDevice, other: MockConfigEntry
) -> None:
    """The device is held by Home Assistant already: a dial would be turned away."""
    await unit_of(hass, other, device).read_holding_registers(0, 1)
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        host="127.0.0.1",
        port=device.port,
        listen_port=free_port(),
        upstream="home_assistant",
    )
    assert page["type"] is FlowResultType.CREATE_ENTRY
    assert page["description"] == "answered"
    assert page["result"].state is ConfigEntryState.LOADED


async def test_the_dialog_says_that_settings_differ(
    hass: HomeAssistant, device: ModbusDevice, other: MockConfigEntry
) -> None:
    params = ModbusTlsParams(host="127.0.0.1", port=device.port, verify=False)
    async_get_unit(hass, other, params, 1)
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        host="127.0.0.1",
        port=device.port,
        listen_port=free_port(),
        upstream="home_assistant",
    )
    assert page["type"] is FlowResultType.MENU
    assert page["step_id"] == "other_settings"
    await hass.config_entries.async_unload(other.entry_id)


async def test_the_way_is_for_modbus_only(hass: HomeAssistant) -> None:
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        protocol="echo", host="127.0.0.1", listen_port=free_port(), upstream="rtu"
    )
    assert page["errors"] == {"upstream": "only_modbus"}


async def test_a_device_that_refuses_has_answered(
    hass: HomeAssistant, device: ModbusDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        device, "answer", lambda request: bytes((request[0], request[1] | 0x80, 2))
    )
    result = await async_ask_shared(hass, Settings(host="127.0.0.1", port=device.port))
    assert result.answer is not None
    assert "illegal data address" in result.answer
    assert result.identity == Identity(unit=1)


async def test_a_device_that_is_away_is_unreachable(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    await device.stop()
    with pytest.raises(DeviceError) as raised:
        await async_ask_shared(hass, Settings(host="127.0.0.1", port=device.port))
    assert raised.value.problem is DeviceProblem.UNREACHABLE


async def test_a_device_that_keeps_silent(
    hass: HomeAssistant, device: ModbusDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_shared, "ANSWER_SECONDS", 0.2)
    device.silent = True
    with pytest.raises(DeviceError) as raised:
        await async_ask_shared(hass, Settings(host="127.0.0.1", port=device.port))
    assert raised.value.problem is DeviceProblem.SILENT


async def test_a_protocol_without_a_question_is_not_understood(
    hass: HomeAssistant,
) -> None:
    with pytest.raises(DeviceError) as raised:
        await async_ask_shared(hass, Settings(host="127.0.0.1", port=1, protocol="mpu"))
    assert raised.value.problem is DeviceProblem.NOT_UNDERSTOOD
