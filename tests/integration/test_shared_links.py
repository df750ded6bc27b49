"""The kinds of links that Home Assistant shares, and how owners choose them.

Another integration holds the device, as core integrations do: over a serial port, with
RTU frames over TCP, or over TCP. External clients come through the multiplexer, and
both are served on the one connection. The device is pymodbus'.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from homeassistant.components.modbus import connection
from homeassistant.components.modbus.connection import async_get_unit
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import entity_registry as er
from homeassistant.requirements import RequirementsNotFound
from homeassistant.setup import async_setup_component
from modbus_connection import ModbusSerialParams, ModbusTcpParams, ModbusTlsParams
from pymodbus import FramerType
from pymodbus.pdu.device import ModbusDeviceIdentification
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer import shared_connection
from custom_components.tcp_multiplexer.const import CONF_LISTEN_PORT, DOMAIN
from custom_components.tcp_multiplexer.diagnostics import (
    async_get_config_entry_diagnostics,
)
from tests.engine.pty_line import PtyLine, device_on, pty_line
from tests.wire import read

from .dialogs import Dialog, Page
from .peers import ModbusClient, ModbusDevice
from .ports import free_port
from .pymodbus_device import pymodbus_device

needs_connection_info = pytest.mark.skipif(
    not hasattr(connection, "async_get_connection_info"),
    reason="Home Assistant 2026.9 does not tell who holds a connection",
)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncGenerator[PtyLine]:
    """Return a serial line with a device on it."""
    async with pty_line(tmp_path) as line, device_on(line):
        yield line


@pytest.fixture
async def other(hass: HomeAssistant) -> AsyncGenerator[MockConfigEntry]:
    """Return the entry of another integration, which uses Home Assistant's Modbus."""
    assert await async_setup_component(hass, "modbus", {})
    other = MockConfigEntry(domain="other")
    other.add_to_hass(hass)
    yield other
    await hass.config_entries.async_unload(other.entry_id)


async def add(hass: HomeAssistant, **typed: Any) -> Page:
    """Fill in the form."""
    dialog = Dialog(hass)
    await dialog.start()
    return await dialog.send(listen_port=free_port(), **typed)


@asynccontextmanager
async def client_of(page: Page) -> AsyncIterator[ModbusClient]:
    """Connect to the multiplexer that was added."""
    assert page["type"] is FlowResultType.CREATE_ENTRY, page
    assert page["description"] == "answered"
    assert page["result"].state is ConfigEntryState.LOADED
    async with ModbusClient(page["data"][CONF_LISTEN_PORT]) as client:
        yield client


async def assert_both_served(page: Page, unit: Any) -> None:
    """Check that the other integration and clients get what they ask for."""
    async with client_of(page) as one, client_of(page) as two:
        for _ in range(3):
            answers = await asyncio.gather(
                one.ask(read(16, 1)),
                unit.read_holding_registers(40, 2),
                two.ask(read(7, 1)),
            )
            assert list(answers) == [b"\3\2\0\x10", [40, 41], b"\3\2\0\7"]


async def test_serial_port(
    hass: HomeAssistant, line: PtyLine, other: MockConfigEntry
) -> None:
    params = ModbusSerialParams(device=str(line.path), baudrate=9600, parity="E")
    unit = async_get_unit(hass, other, params, 1)
    assert await unit.read_holding_registers(0, 1) == [0]
    page = await add(
        hass, upstream="home_assistant_serial", device=str(line.path), parity="even"
    )
    assert page["data"]["device"] == str(line.path)
    await assert_both_served(page, unit)
    entry = page["result"]
    # The other goes on when the multiplexer has gone.
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert await unit.read_holding_registers(50, 1) == [50]


async def test_multiplexer_may_come_first(
    hass: HomeAssistant, line: PtyLine, other: MockConfigEntry
) -> None:
    page = await add(hass, upstream="home_assistant_serial", device=str(line.path))
    params = ModbusSerialParams(device=str(line.path), baudrate=9600)
    await assert_both_served(page, async_get_unit(hass, other, params, 1))


@needs_connection_info
async def test_serial_port_under_another_name(
    hass: HomeAssistant, line: PtyLine, other: MockConfigEntry
) -> None:
    """Home Assistant compares names, and an adapter has several."""
    in_use = str(line.path.readlink())
    params = ModbusSerialParams(device=in_use, baudrate=9600)
    unit = async_get_unit(hass, other, params, 1)
    page = await add(hass, upstream="home_assistant_serial", device=str(line.path))
    assert page["data"]["device"] == in_use
    await assert_both_served(page, unit)


async def test_rtu_over_tcp(hass: HomeAssistant, other: MockConfigEntry) -> None:
    async with pymodbus_device(*range(100), framer=FramerType.RTU) as port:
        device = f"socket://localhost:{port}"
        params = ModbusSerialParams(device=device, baudrate=115200)
        unit = async_get_unit(hass, other, params, 1)
        page = await add(
            hass, upstream="home_assistant_rtu", host="LocalHost", port=port
        )
        await assert_both_served(page, unit)
        await hass.config_entries.async_unload(page["result"].entry_id)
        await hass.config_entries.async_unload(other.entry_id)


async def test_other_settings_of_the_line(
    hass: HomeAssistant, line: PtyLine, other: MockConfigEntry
) -> None:
    params = ModbusSerialParams(device=str(line.path), baudrate=19200)
    async_get_unit(hass, other, params, 1)
    page = await add(hass, upstream="home_assistant_serial", device=str(line.path))
    assert page["step_id"] == "other_settings"
    assert "19200" in page["description_placeholders"]["detail"]


async def test_who_shares_is_not_in_the_way(
    hass: HomeAssistant, device: ModbusDevice, other: MockConfigEntry
) -> None:
    params = ModbusTcpParams(host="127.0.0.1", port=device.port)
    unit = async_get_unit(hass, other, params, 1)
    assert await unit.read_holding_registers(1, 1) == [1001]
    await device.stop()
    where = {"host": "127.0.0.1", "port": device.port}
    page = await add(hass, upstream="home_assistant", **where)
    assert page["step_id"] == "unreachable"


async def test_other_settings_are_no_slot_that_is_taken(
    hass: HomeAssistant, device: ModbusDevice, other: MockConfigEntry
) -> None:
    params = ModbusTlsParams(host="127.0.0.1", port=device.port, verify=False)
    async_get_unit(hass, other, params, 1)
    where = {"host": "127.0.0.1", "port": device.port}
    page = await add(hass, upstream="home_assistant", **where)
    assert page["step_id"] == "other_settings"


async def test_port_that_is_not_there(hass: HomeAssistant) -> None:
    page = await add(hass, upstream="home_assistant_serial", device="/dev/none")
    assert page["step_id"] == "no_port"
    assert "/dev/none" in page["description_placeholders"]["detail"]


async def test_links_are_for_modbus(hass: HomeAssistant, line: PtyLine) -> None:
    for upstream in ("home_assistant_serial", "home_assistant_rtu"):
        page = await add(
            hass,
            protocol="http",
            upstream=upstream,
            host="127.0.0.1",
            device=str(line.path),
        )
        assert page["errors"] == {"upstream": "only_modbus"}


async def test_identification(
    hass: HomeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has no SunSpec model, and identifies itself by 0x2B."""
    identification = {0: "SMA", 1: "STP 60-10", 2: "3.10"}
    monkeypatch.setattr(ModbusDeviceIdentification, "stat_data", identification)
    async with pymodbus_device(1, 2) as port:
        page = await add(
            hass, upstream="home_assistant", host="127.0.0.1", port=port, timeout=2
        )
        assert page["type"] is FlowResultType.FORM, page
        assert page["step_id"] == "identified"
        assert page["description_placeholders"]["device"] == "SMA STP 60-10"


async def test_device_that_ignores_identification_has_answered(
    hass: HomeAssistant, device: ModbusDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = device.answer
    monkeypatch.setattr(
        device, "answer", lambda asked: b"" if asked[1] == 0x2B else answer(asked)
    )
    monkeypatch.setattr(
        "custom_components.tcp_multiplexer.flow.probe_shared.ANSWER_SECONDS", 0.3
    )
    page = await add(
        hass, upstream="home_assistant", host="127.0.0.1", port=device.port
    )
    async with client_of(page) as client:
        assert await client.ask(read(1, 1)) == b"\3\2\3\xe9"


# ---- one entry for each endpoint ------------------------------------------------


async def test_names_of_one_serial_port(hass: HomeAssistant, line: PtyLine) -> None:
    await add(hass, upstream="serial", device=str(line.path.readlink()))
    page = await add(hass, upstream="home_assistant_serial", device=str(line.path))
    assert page["reason"] == "already_configured"


@pytest.mark.parametrize(
    "typed",
    [
        {"upstream": "home_assistant", "host": "LOCALHOST"},
        {"upstream": "serial", "device": "socket://LocalHost:{port}"},
        {"upstream": "home_assistant_serial", "device": "rfc2217://localhost:{port}"},
    ],
)
async def test_names_of_one_server(
    hass: HomeAssistant, device: ModbusDevice, typed: dict[str, str]
) -> None:
    port = device.port
    page = await add(hass, upstream="tcp", host="localhost", port=port)
    assert page["type"] is FlowResultType.CREATE_ENTRY
    typed = {key: value.format(port=port) for key, value in typed.items()}
    page = await add(hass, port=port, **typed)
    assert page["reason"] == "already_configured"


async def test_ports_of_one_proxy_are_two(
    hass: HomeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []
    for name in ("one", "two"):
        device = f"esphome://proxy:6053/?port_name={name}"
        dialog = Dialog(hass)
        await dialog.start()
        await dialog.send(listen_port=free_port(), upstream="serial", device=device)
        pages.append(await dialog.choose("add_anyway"))
    assert [page["type"] for page in pages] == [FlowResultType.CREATE_ENTRY] * 2


# ---- what does nothing is not there ---------------------------------------------


def entities(hass: HomeAssistant, entry: MockConfigEntry) -> set[str]:
    """Return the platforms of an entry's entities."""
    registry = er.async_get(hass)
    return {
        each.domain
        for each in er.async_entries_for_config_entry(registry, entry.entry_id)
    }


async def test_no_reconnect_and_no_pause(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    page = await add(hass, upstream="tcp", host="127.0.0.1", port=device.port)
    entry = page["result"]
    controls = {Platform.BUTTON, Platform.SWITCH}
    assert entities(hass, entry) >= controls
    await entry.runtime_data.async_set_paused(paused=True)

    dialog = Dialog(hass)
    await dialog.start(source="reconfigure", entry_id=entry.entry_id)
    page = await dialog.send(upstream="home_assistant")
    assert page["reason"] == "reconfigure_successful", page
    await hass.async_block_till_done()
    assert not entities(hass, entry) & controls
    # It cannot be resumed, so it is not paused.
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(read(1, 1)) == b"\3\2\3\xe9"
    with pytest.raises(ServiceValidationError) as raised:
        await hass.services.async_call(
            DOMAIN,
            "reconnect",
            {"config_entry_id": entry.entry_id},
            blocking=True,
        )
    assert raised.value.translation_key == "not_own_connection"

    dialog = Dialog(hass)
    await dialog.start(source="reconfigure", entry_id=entry.entry_id)
    await dialog.send(upstream="tcp")
    await hass.async_block_till_done()
    assert entities(hass, entry) >= controls


# ---- what may be missing, and what is told --------------------------------------


async def test_without_the_libraries(
    hass: HomeAssistant, device: ModbusDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(hass: HomeAssistant, domain: str) -> None:
        raise RequirementsNotFound(domain, ["modbus-connection"])

    monkeypatch.setattr(
        shared_connection, "async_get_integration_with_requirements", fail
    )
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        listen_port=free_port(),
        upstream="home_assistant",
        host="127.0.0.1",
        port=device.port,
    )
    assert page["step_id"] == "not_installed"
    assert "modbus-connection" in page["description_placeholders"]["detail"]
    page = await dialog.choose("add_anyway")
    entry = page["result"]
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == "modbus_not_installed"


async def test_diagnostics(
    hass: HomeAssistant, device: ModbusDevice, other: MockConfigEntry
) -> None:
    params = ModbusTcpParams(host="127.0.0.1", port=device.port)
    async_get_unit(hass, other, params, 1)
    page = await add(
        hass, upstream="home_assistant", host="127.0.0.1", port=device.port
    )
    entry = page["result"]
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        await client.ask(read(1, 1))
    told = await async_get_config_entry_diagnostics(hass, entry)
    tells = hasattr(connection, "async_get_connection_info")
    assert told["shared_connection"] == {
        "connected": True,
        "units": [1],
        "shared_with": ["other"] if tells else [],
    }
