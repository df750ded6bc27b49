"""A device that dials in, in Home Assistant: expected, learned, and no other."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
import socket
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
import pytest

from custom_components.tcp_multiplexer.diagnostics import (
    async_get_config_entry_diagnostics,
)
from custom_components.tcp_multiplexer.flow import trial
from tests.engine.test_dial_in import Dongle
from tests.waiting import until
from tests.wire import read

from .dialogs import Dialog
from .peers import ModbusClient
from .ports import free_port


@pytest.fixture
def port() -> int:
    """Return the port on which the device will be expected."""
    return free_port()


@pytest.fixture
async def dongle(port: int) -> AsyncGenerator[list[Dongle]]:
    """Return a device that dials again whenever it has no connection."""
    dongles: list[Dongle] = []

    async def keep_dialling() -> None:
        while True:
            if not dongles or dongles[-1].closed:
                with suppress(OSError):
                    dongles.append(await Dongle.dial(port))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(keep_dialling())
    yield dongles
    task.cancel()
    for each in dongles:
        each.transport.abort()


async def add(hass: HomeAssistant, port: int, **typed: Any) -> Dialog:
    """Fill in the form for a device that dials in."""
    dialog = Dialog(hass)
    await dialog.start()
    defaults = {"dial_in_port": port, "listen_port": free_port()}
    await dialog.send(**{"upstream": "dial_in", **defaults, **typed})
    return dialog


async def test_adding_one_that_dials(
    hass: HomeAssistant, port: int, dongle: list[Dongle]
) -> None:
    page = (await add(hass, port)).page
    assert page["type"] is FlowResultType.CREATE_ENTRY, page
    assert page["title"] == f"Port {port}"
    assert page["description"] == "answered"
    assert page["data"] == {
        "protocol": "modbus",
        "dial_in_port": port,
        "dial_in_device": "",
        "listen_host": None,
        "listen_port": page["data"]["listen_port"],
        "profile": "generic",
        "upstream": "dial_in",
    }
    entry = page["result"]
    assert entry.state is ConfigEntryState.LOADED
    async with ModbusClient(page["data"]["listen_port"]) as client:
        assert await client.ask(read(16, 1)) == b"\3\2\x12\x34"
    assert entry.data["dial_in_device"] == "127.0.0.1"
    told = await async_get_config_entry_diagnostics(hass, entry)
    assert told["entry"]["data"]["dial_in_device"] == "**REDACTED**"


async def test_adding_one_that_sleeps(
    hass: HomeAssistant, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "DIAL_IN_SECONDS", 0.2)
    dialog = await add(hass, port)
    assert dialog.page["step_id"] == "not_dialled"
    entry = (await dialog.choose("add_anyway"))["result"]
    health = f"sensor.port_{port}_health"
    assert hass.states.is_state(health, "waiting")

    dongle = await Dongle.dial(port)
    async with ModbusClient(entry.data["listen_port"]) as client:
        assert await client.ask(read(16, 1)) == b"\3\2\x12\x34"
    assert entry.data["dial_in_device"] == "127.0.0.1"
    await hass.async_block_till_done()
    assert entry.state is ConfigEntryState.LOADED
    assert not dongle.closed  # what was learned needs no restart
    stranger = await Dongle.dial(port, source="127.0.0.2")
    await until(lambda: stranger.closed)
    dongle.transport.abort()


async def test_a_protocol_that_has_no_question(
    hass: HomeAssistant, port: int, dongle: list[Dongle]
) -> None:
    page = (await add(hass, port, protocol="echo", dial_in_device="127.0.0.1")).page
    assert page["type"] is FlowResultType.CREATE_ENTRY, page
    assert page["title"] == "127.0.0.1"
    assert page["description"] == "connected"


async def test_a_protocol_that_has_no_question_and_nobody_dials(
    hass: HomeAssistant, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "DIAL_IN_SECONDS", 0.2)
    page = (await add(hass, port, protocol="echo")).page
    assert page["step_id"] == "not_dialled"


async def test_a_protocol_that_has_no_units(hass: HomeAssistant, port: int) -> None:
    async def serve() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with closing(writer), suppress(asyncio.IncompleteReadError):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                    await reader.read()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(serve())
    try:
        page = (await add(hass, port, protocol="http")).page
    finally:
        task.cancel()
    assert page["type"] is FlowResultType.CREATE_ENTRY, page
    assert page["description"] == "answered"


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ({"dial_in_device": "dongle"}, {"dial_in": "invalid_dial_in_device"}),
        ({"upstream": "dial_in_rtu", "protocol": "mpu"}, {"upstream": "only_modbus"}),
        ({"tls_upstream": "system_ca"}, {"tls": "tls_not_available"}),
    ],
)
async def test_what_cannot_be(
    hass: HomeAssistant, port: int, typed: dict[str, Any], error: dict[str, str]
) -> None:
    assert (await add(hass, port, **typed)).page["errors"] == error


async def test_a_port_that_clients_use(hass: HomeAssistant, port: int) -> None:
    page = (await add(hass, port, listen_port=port)).page
    assert page["errors"] == {"dial_in": "port_of_listener"}


async def test_a_port_that_another_program_has(hass: HomeAssistant, port: int) -> None:
    with socket.create_server(("", port)):
        page = (await add(hass, port)).page
        assert page["errors"] == {"dial_in": "port_in_use"}


async def test_a_port_that_another_entry_has(
    hass: HomeAssistant, port: int, dongle: list[Dongle]
) -> None:
    await add(hass, port)
    page = (await add(hass, free_port(), listen_port=port)).page
    assert page["errors"] == {"listen_port": "port_of_entry"}
    page = (await add(hass, port)).page
    assert page["reason"] == "already_configured"


async def test_its_port_is_taken_when_it_starts(
    hass: HomeAssistant, port: int, dongle: list[Dongle]
) -> None:
    entry = (await add(hass, port)).page["result"]
    await hass.config_entries.async_unload(entry.entry_id)
    with socket.create_server(("", port)):
        await hass.config_entries.async_setup(entry.entry_id)
        assert entry.state is ConfigEntryState.SETUP_RETRY
        assert str(port) in entry.reason


async def test_to_another_port(
    hass: HomeAssistant, port: int, dongle: list[Dongle]
) -> None:
    entry = (await add(hass, port, dial_in_device="127.0.0.1")).page["result"]
    dialog = Dialog(hass)
    await dialog.start(source="reconfigure", entry_id=entry.entry_id)
    assert dialog.values["dial_in_port"] == port
    assert dialog.values["dial_in_device"] == "127.0.0.1"
    await dialog.send(listen_port=free_port())
    assert dialog.page["reason"] == "reconfigure_successful", dialog.page
    await hass.async_block_till_done()
    assert entry.state is ConfigEntryState.LOADED
