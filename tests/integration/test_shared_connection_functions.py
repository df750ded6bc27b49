"""What Home Assistant's own Modbus connection carries, and how it fails.

The peer is a device whose answers are written down here, byte by byte: what a client
gets through the registers and coils of the shared connection's interface must be them.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import override

from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_UPSTREAM,
    DOMAIN,
)
from tests.waiting import until
from tests.wire import read, values

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port

NO_RESPONSE = b"\x83\x0b"


class ScriptedDevice(ModbusDevice):
    """A device that answers as it is told."""

    response: bytes | None = None
    """The PDU that it answers; None: as other devices do."""

    @override
    def answer(self, request: bytes) -> bytes:
        if self.response is None:
            return super().answer(request)
        return request[:1] + self.response


@pytest.fixture
async def device() -> AsyncGenerator[ScriptedDevice]:
    """Return a device that is switched on."""
    device = ScriptedDevice()
    await device.start()
    yield device
    await device.stop()


@pytest.fixture
async def entry(hass: HomeAssistant, device: ScriptedDevice) -> MockConfigEntry:
    """Return a loaded entry whose upstream is Home Assistant's own connection."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Inverter",
        data={
            CONF_PROTOCOL: "modbus",
            CONF_HOST: "127.0.0.1",
            CONF_PORT: device.port,
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: free_port(),
            CONF_UPSTREAM: "home_assistant",
        },
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    return entry


@pytest.mark.parametrize(
    ("request_pdu", "response"),
    [
        ("01 0000 000A", "01 02 5501"),
        ("02 0010 0003", "02 01 05"),
        ("05 0001 FF00", "05 0001 FF00"),
        ("05 0001 0000", "05 0001 0000"),
        ("0F 0000 000A 02 5501", "0F 0000 000A"),
        ("18 0004", "18 0006 0002 0007 0008"),
        ("18 0004", "98 03"),
    ],
)
async def test_requests_and_responses_pass_unchanged(
    device: ScriptedDevice, entry: MockConfigEntry, request_pdu: str, response: str
) -> None:
    device.response = bytes.fromhex(response)
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(bytes.fromhex(request_pdu)) == device.response
    assert device.requests == [b"\x01" + bytes.fromhex(request_pdu)]


@pytest.mark.parametrize("response", ["03 03 000000", "06 0000 0000"])
async def test_response_that_is_none_is_as_if_there_was_none(
    device: ScriptedDevice, entry: MockConfigEntry, response: str
) -> None:
    device.response = bytes.fromhex(response)
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(read()) == NO_RESPONSE
        device.response = None
        assert await client.ask(read()) == values()


async def test_unloading_does_not_wait_for_the_device(
    hass: HomeAssistant, device: ScriptedDevice, entry: MockConfigEntry
) -> None:
    device.silent = True
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        asked = asyncio.create_task(client.ask(read()))
        await until(lambda: device.requests)
        async with asyncio.timeout(1):
            assert await hass.config_entries.async_unload(entry.entry_id)
        assert await asked == NO_RESPONSE


@pytest.mark.parametrize(
    ("response", "page_type", "says"),
    [
        ("83 02", FlowResultType.CREATE_ENTRY, "answered"),
        ("06 0000 0000", FlowResultType.MENU, "silent"),
        (None, FlowResultType.MENU, "unreachable"),
    ],
)
async def test_dialog_says_how_the_device_behaves(
    hass: HomeAssistant,
    device: ScriptedDevice,
    response: str | None,
    page_type: FlowResultType,
    says: str,
) -> None:
    if response is None:
        await device.stop()
    else:
        device.response = bytes.fromhex(response)
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        host="127.0.0.1",
        port=device.port,
        listen_port=free_port(),
        upstream="home_assistant",
    )
    assert page["type"] is page_type
    assert says in (page.get("step_id"), page.get("description"))
