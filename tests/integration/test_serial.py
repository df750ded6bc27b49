"""A device on a serial port, in Home Assistant: added, changed, used, diagnosed."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers.selector import SerialPortSelector
from homeassistant.requirements import RequirementsNotFound
import pytest

from custom_components.tcp_multiplexer import serial_ports
from custom_components.tcp_multiplexer.const import DOMAIN
from custom_components.tcp_multiplexer.diagnostics import (
    async_get_config_entry_diagnostics,
)
from tests.engine.pty_line import PtyLine, device_on, pty_line
from tests.waiting import until
from tests.wire import read

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port


@pytest.fixture
async def line(hass: HomeAssistant, tmp_path: Path) -> AsyncGenerator[PtyLine]:
    """Return a serial line with a device on it; it lasts until nothing uses it."""
    async with pty_line(tmp_path) as line, device_on(line):
        yield line
        for entry in hass.config_entries.async_loaded_entries(DOMAIN):
            await hass.config_entries.async_unload(entry.entry_id)


async def add(hass: HomeAssistant, line: PtyLine, **typed: Any) -> Dialog:
    """Fill in the form for a device on the line."""
    dialog = Dialog(hass)
    await dialog.start()
    listen_port = free_port()
    defaults = {"device": str(line.path), "listen_port": listen_port}
    await dialog.send(**{"upstream": "serial", **defaults, **typed})
    return dialog


async def assert_serves(port: int) -> None:
    """Check that a client gets the device's registers there."""
    async with ModbusClient(port) as client:
        assert await client.ask(read(16, 1)) == b"\3\2\0\x10"


async def test_adding(hass: HomeAssistant, line: PtyLine) -> None:
    page = (await add(hass, line)).page
    assert page["type"] is FlowResultType.CREATE_ENTRY, page
    assert page["title"] == "usb-adapter"
    assert page["description"] == "answered"
    assert page["data"] == {
        "protocol": "modbus",
        "device": str(line.path),
        "baudrate": 9600,
        "parity": "none",
        "stopbits": 1,
        "listen_host": None,
        "listen_port": page["data"]["listen_port"],
        "profile": "generic",
        "upstream": "serial",
    }
    assert page["result"].state is ConfigEntryState.LOADED
    await assert_serves(page["data"]["listen_port"])


async def test_the_port_is_chosen_from_those_that_are_there(
    hass: HomeAssistant,
) -> None:
    dialog = Dialog(hass)
    page = await dialog.start()
    section = page["data_schema"].schema["serial"].schema.schema
    assert isinstance(section["device"], SerialPortSelector)


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ({"device": ""}, {"serial": "serial_port_missing"}),
        ({"protocol": "http"}, {"upstream": "only_modbus"}),
        ({"tls_upstream": "system_ca"}, {"tls": "tls_not_available"}),
    ],
)
async def test_what_cannot_be(
    hass: HomeAssistant, line: PtyLine, typed: dict[str, Any], error: dict[str, str]
) -> None:
    dialog = await add(hass, line, **typed)
    assert dialog.page["errors"] == error
    await dialog.send(device=str(line.path), protocol="modbus", tls_upstream="off")
    assert dialog.page["type"] is FlowResultType.CREATE_ENTRY


async def test_no_such_port(hass: HomeAssistant, line: PtyLine) -> None:
    dialog = await add(hass, line, device="/dev/serial/by-id/none")
    assert dialog.page["step_id"] == "no_port"
    given = dialog.page["description_placeholders"]
    assert given["endpoint"] == "/dev/serial/by-id/none"
    assert "No such file" in given["detail"]
    await dialog.choose("change")
    page = await dialog.send(device=str(line.path))
    assert page["type"] is FlowResultType.CREATE_ENTRY


async def test_nobody_on_the_line(hass: HomeAssistant, tmp_path: Path) -> None:
    async with pty_line(tmp_path) as line:
        dialog = await add(hass, line, timeout=0.3)
        assert dialog.page["step_id"] == "silent"
        page = await dialog.choose("add_anyway")
        assert page["type"] is FlowResultType.CREATE_ENTRY
        await hass.config_entries.async_unload(page["result"].entry_id)


async def test_another_unit_answers(hass: HomeAssistant, line: PtyLine) -> None:
    line.change = lambda data: b"" if data[0] == 9 else data
    dialog = await add(hass, line, unit_id=9, timeout=0.5)
    assert dialog.page["step_id"] == "identified"
    assert dialog.values["unit_id"] == 1


async def test_a_port_has_one_entry(hass: HomeAssistant, line: PtyLine) -> None:
    await add(hass, line)
    dialog = await add(hass, line)
    assert dialog.page["type"] is FlowResultType.ABORT
    assert dialog.page["reason"] == "already_configured"


async def test_from_a_host_to_a_port_and_back(
    hass: HomeAssistant, line: PtyLine, device: ModbusDevice
) -> None:
    dialog = Dialog(hass)
    await dialog.start()
    port = free_port()
    page = await dialog.send(host="127.0.0.1", port=device.port, listen_port=port)
    entry = page["result"]

    dialog = Dialog(hass)
    await dialog.start(source="reconfigure", entry_id=entry.entry_id)
    await dialog.send(upstream="serial", device=str(line.path), stopbits=2)
    assert dialog.page["reason"] == "reconfigure_successful", dialog.page
    await hass.async_block_till_done()
    assert not {"host", "port"} & entry.data.keys()
    assert entry.data["stopbits"] == 2
    await assert_serves(port)

    dialog = Dialog(hass)
    await dialog.start(source="reconfigure", entry_id=entry.entry_id)
    assert dialog.values["device"] == str(line.path)
    await dialog.send(upstream="tcp", host="127.0.0.1", port=device.port)
    assert dialog.page["reason"] == "reconfigure_successful", dialog.page
    await hass.async_block_till_done()
    assert not {"device", "baudrate", "parity", "stopbits"} & entry.data.keys()


async def test_the_speed_is_tried_on_the_port_that_the_entry_holds(
    hass: HomeAssistant, line: PtyLine
) -> None:
    entry = (await add(hass, line)).page["result"]
    dialog = Dialog(hass)
    await dialog.start(source="reconfigure", entry_id=entry.entry_id)
    await dialog.send(baudrate=19200)
    assert dialog.page["reason"] == "reconfigure_successful", dialog.page
    await hass.async_block_till_done()
    assert entry.runtime_data.multiplexer.settings.serial.baudrate == 19200
    await assert_serves(entry.data["listen_port"])


async def test_diagnostics_do_not_tell_the_port(
    hass: HomeAssistant, line: PtyLine
) -> None:
    entry = (await add(hass, line)).page["result"]
    line.unplug()
    await until(lambda: entry.runtime_data.multiplexer.health == "unreachable")
    told = str(await async_get_config_entry_diagnostics(hass, entry))
    assert "usb-adapter" not in told
    assert "9600" in told
    line.plug_in()


async def test_without_usb_the_integration_loads(
    hass: HomeAssistant, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(hass: HomeAssistant, domain: str) -> None:
        raise RequirementsNotFound(domain, ["serialx"])

    monkeypatch.setattr(serial_ports, "async_get_integration_with_requirements", fail)
    entry = (await add(hass, line)).page["result"]
    assert entry.domain == DOMAIN
    assert entry.state is ConfigEntryState.LOADED
