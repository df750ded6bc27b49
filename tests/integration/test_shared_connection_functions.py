"""What Home Assistant's own Modbus connection carries, and how it fails.

The peer is a device whose answers are written down here, byte by byte: what a client
gets through the registers and coils of the shared connection's interface must be them.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import override
from unittest.mock import patch

from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError
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
    script: Mapping[int, bytes] = MappingProxyType({})
    """PDUs that it answers, by function code."""

    @override
    def answer(self, request: bytes) -> bytes:
        response = self.script.get(request[1], self.response)
        return super().answer(request) if response is None else request[:1] + response


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
        ("07", "07 6D"),
        ("08 0000 A537", "08 0000 A537"),
        ("08 0002 0000", "08 0002 0003"),
        ("0B", "0B FFFF 0108"),
        ("11", "11 02 0B FF"),
        ("14 07 06 0004 0001 0002", "14 06 05 06 0DFE 0020"),
        ("15 09 06 0004 0007 0001 06AF", "15 09 06 0004 0007 0001 06AF"),
        ("15 09 06 0004 0007 0001 06AF", "95 02"),
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


async def test_event_log(device: ScriptedDevice, entry: MockConfigEntry) -> None:
    """Status and counts are those of the device, each asked for (6.10)."""
    answers = {
        0x0C: "0C 08 FFFF 0108 0121 2000",
        0x0B: "0B 0000 0109",
        0x08: "08 000B 0124",
    }
    device.script = {code: bytes.fromhex(pdu) for code, pdu in answers.items()}
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        log = await client.ask(b"\x0c")
    assert log == bytes.fromhex("0C 08 0000 0109 0124 2000")
    assert {request[1] for request in device.requests} == set(answers)


async def test_device_identification(
    device: ScriptedDevice, entry: MockConfigEntry
) -> None:
    """The device has more than the basic objects, and the API has those."""
    device.response = bytes.fromhex("2B 0E 01 83 00 00 03 00 01 41 01 01 42 02 01 43")
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        regular = await client.ask(b"\x2b\x0e\2\0")
        assert regular[:7] == bytes.fromhex("2B 0E 02 81 00 00 03")
        assert regular[7:] == device.response[7:]
        one = await client.ask(b"\x2b\x0e\4\1")
        assert one == bytes.fromhex("2B 0E 04 81 00 00 01 01 01 42")
        assert await client.ask(b"\x2b\x0e\4\5") == b"\xab\2"


WRITE = b"\6\0\1\0\2"


@pytest.mark.parametrize(
    ("request_pdu", "answer"),
    [
        pytest.param(read(), b"\x83\x0a", id="a read may be asked again"),
        pytest.param(WRITE, b"\x86\x0b", id="a write may have been carried out"),
    ],
)
async def test_connection_is_lost_while_the_device_thinks(
    device: ScriptedDevice, entry: MockConfigEntry, request_pdu: bytes, answer: bytes
) -> None:
    device.silent = True
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client, asyncio.timeout(2):
        asked = asyncio.create_task(client.ask(request_pdu))
        await until(lambda: device.requests)
        await device.stop()
        assert await asked == answer


@pytest.mark.parametrize(
    "failure", [RuntimeError("of a kind nobody knows"), asyncio.CancelledError()]
)
async def test_unknown_failures_are_told_at_once(
    device: ScriptedDevice,
    entry: MockConfigEntry,
    caplog: pytest.LogCaptureFixture,
    failure: BaseException,
) -> None:
    units = entry.runtime_data.units
    with patch.object(type(units.get(1)), "write_register", side_effect=failure):
        async with (
            ModbusClient(entry.data[CONF_LISTEN_PORT]) as client,
            asyncio.timeout(2),
        ):
            assert await client.ask(WRITE) == b"\x86\x0b"
            assert await client.ask(WRITE) == b"\x86\x0b"
            assert await client.ask(read()) == values()
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) == isinstance(failure, Exception)


async def test_other_settings_since_the_start_are_no_connection(
    entry: MockConfigEntry,
) -> None:
    """Home Assistant closes all connections when it stops: others may have opened."""
    with patch.object(entry.runtime_data.units, "get", side_effect=HomeAssistantError):
        async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
            assert await client.ask(WRITE) == b"\x86\x0a"


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
