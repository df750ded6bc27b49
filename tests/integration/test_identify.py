"""Who a device says it is, asked of real servers and through the dialog."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
import struct
from typing import Any, override

from homeassistant.config_entries import SOURCE_RECONFIGURE, ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry as dr
from pymodbus.pdu.mei_message import ReadDeviceInformationResponse
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.flow.identify import Identity, identify
from custom_components.tcp_multiplexer.flow.probe import (
    DeviceError,
    DeviceProblem,
    ProbeResult,
    ask_device,
    ask_running,
)
from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings
from tests.wire import read, values

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port


def sunspec(manufacturer: str, model: str, version: str, serial: str) -> bytes:
    """Give the registers of a SunSpec common model, from the marker on."""
    head = b"SunS" + struct.pack(">HH", 1, 65)
    sizes = ((manufacturer, 32), (model, 32), ("", 16), (version, 16), (serial, 32))
    return head + b"".join(text.encode().ljust(size, b"\0") for text, size in sizes)


SOLAREDGE = sunspec("SolarEdge", "SE10K", "4.18", "7F123456")
INFORMATION = ReadDeviceInformationResponse(
    read_code=2, information={0: b"SMA", 1: b"STP", 2: b"3.10", 5: b"STP 60-10"}
)
MEI = bytes((0x2B,)) + INFORMATION.encode()


class IdentifyingDevice:
    """Answers as its registers and its identification say; other units are silent."""

    def __init__(
        self,
        unit: int = 1,
        registers: Mapping[int, bytes] | None = None,
        identification: bytes = b"\xab\1",
    ) -> None:
        self.unit = unit
        self.registers = registers or {}
        self.identification = identification
        self.asked: list[bytes] = []
        self.connections = 0

    def answer(self, payload: bytes) -> bytes | None:
        """Give the answer to a unit and a PDU, if there is one."""
        self.asked.append(payload)
        if payload[0] != self.unit:
            return None
        if payload[1] == 0x2B:
            return payload[:1] + self.identification
        address, count = struct.unpack(">HH", payload[2:6])
        for start, data in self.registers.items():
            at = 2 * (address - start)
            if 0 <= at < len(data):
                values = data[at : at + 2 * count].ljust(2 * count, b"\0")
                return payload[:2] + bytes((2 * count,)) + values
        return bytes((payload[0], payload[1] | 0x80, 2))

    async def ask(self, payload: bytes) -> bytes | None:
        """Be asked without a wire between."""
        return self.answer(payload)

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[int]:
        """Listen; gives the port."""

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            self.connections += 1
            try:
                while True:
                    head = await reader.readexactly(6)
                    payload = await reader.readexactly(int.from_bytes(head[4:6]))
                    answer = self.answer(payload)
                    if answer is not None:
                        writer.write(head[:4] + len(answer).to_bytes(2) + answer)
            except asyncio.IncompleteReadError, OSError:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@pytest.mark.parametrize("base", [40000, 50000, 0])
async def test_sunspec(base: int) -> None:
    """The common model is found wherever it may stand."""
    found = await identify(IdentifyingDevice(registers={base: SOLAREDGE}).ask, [1])
    assert found == Identity(
        unit=1,
        manufacturer="SolarEdge",
        model="SE10K",
        version="4.18",
        serial="7F123456",
    )
    assert found.profile == "solaredge"
    assert found.name == "SolarEdge SE10K"


async def test_identification_needs_no_registers() -> None:
    device = IdentifyingDevice(identification=MEI, registers={40000: SOLAREDGE})
    found = await identify(device.ask, [1])
    assert found == Identity(
        unit=1, manufacturer="SMA", model="STP 60-10", version="3.10"
    )
    assert found.profile == "sma"
    assert len(device.asked) == 1


@pytest.mark.parametrize(
    "identification",
    [b"\xab\1", b"\x2b", b"\x2b\x0e\2\x83\0\0\1\0\xff", b"\x2b\x0e\2\x83\0\0\0", b"\0"],
)
async def test_any_answer_is_somebody(identification: bytes) -> None:
    found = await identify(IdentifyingDevice(identification=identification).ask, [1])
    assert found == Identity(unit=1)
    assert found.profile is None


@pytest.mark.parametrize(
    ("manufacturer", "model", "profile"),
    [
        ("HUAWEI", "SUN2000-10KTL", "huawei_sdongle"),
        ("Huawei", "EMMA-A02", "huawei_emma"),
        ("Fronius", "GEN24 10.0", "fronius"),
        ("Somebody", "Else", None),
    ],
)
def test_words_suggest_a_profile(
    manufacturer: str, model: str, profile: str | None
) -> None:
    said = Identity(unit=1, manufacturer=manufacturer, model=model)
    assert said.profile == profile


async def test_the_unit_is_found_on_one_connection() -> None:
    """The expected unit is silent: the profile's is asked next, then the usual ones."""
    device = IdentifyingDevice(unit=3, identification=MEI)
    async with device.serve() as port:
        settings = Settings(host="127.0.0.1", port=port, timeout=0.2)
        met = await ask_device(settings, (71,))
    assert met.identity is not None
    assert met.identity.unit == 3
    assert device.connections == 1
    units = list(dict.fromkeys(payload[0] for payload in device.asked))
    assert units == [1, 71, 0, 255, 247, 3]


async def test_a_device_without_a_unit_that_answers_is_silent() -> None:
    device = IdentifyingDevice(unit=99)
    async with device.serve() as port:
        settings = Settings(host="127.0.0.1", port=port, timeout=0.1)
        with pytest.raises(DeviceError) as caught:
            await ask_device(settings)
    assert caught.value.problem is DeviceProblem.SILENT


async def test_the_dialog_proposes_what_it_found(
    hass: HomeAssistant, device_registry: dr.DeviceRegistry
) -> None:
    device = IdentifyingDevice(registers={40000: SOLAREDGE, 0: bytes(4)})
    async with device.serve() as port:
        dialog = Dialog(hass)
        await dialog.start()
        page = await dialog.send(
            host="127.0.0.1",
            port=port,
            listen_port=free_port(),
            listen_host="127.0.0.1",
        )
        assert page["type"] is FlowResultType.FORM
        assert page["step_id"] == "identified"
        assert dialog.values == {
            "name": "SolarEdge SE10K",
            "profile": "solaredge",
            "unit_id": 1,
        }
        page = await dialog.send()
        assert page["type"] is FlowResultType.CREATE_ENTRY
        said = page["description_placeholders"]["answer"]
        assert said == "SolarEdge SE10K, 4.18, 7F123456"
        entry = page["result"]
        assert entry.title == "SolarEdge SE10K"
        settings = entry.runtime_data.multiplexer.settings
        assert settings.max_lifetime == 300
        assert settings.connect_delay == 1
        (shown,) = dr.async_entries_for_config_entry(device_registry, entry.entry_id)
        assert shown.model == "SolarEdge SE10K (Modbus/TCP)"
        assert shown.serial_number == "7F123456"
        # Its firmware: so is it called of a device, not of a service.
        assert (shown.sw_version, shown.entry_type) == ("4.18", None)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_a_unit_that_was_found_is_kept(hass: HomeAssistant) -> None:
    async with IdentifyingDevice(unit=247, registers={0: bytes(4)}).serve() as port:
        dialog = Dialog(hass)
        await dialog.start()
        page = await dialog.send(
            host="127.0.0.1",
            port=port,
            listen_port=free_port(),
            listen_host="127.0.0.1",
            timeout=0.3,
        )
        assert dialog.values["unit_id"] == 247
        page = await dialog.send(name="Garage")
        assert page["title"] == "Garage"
        assert page["options"] == {"timeout": 0.3, "unit_id": 247}
        await hass.config_entries.async_unload(page["result"].entry_id)


# Through an entry that runs


class Inverter(ModbusDevice):
    """Has one slot, and says who it is."""

    def __init__(self) -> None:
        super().__init__()
        self.said = IdentifyingDevice(registers={40000: SOLAREDGE})

    @override
    def answer(self, request: bytes) -> bytes:
        if request[1] == 0x2B or request[2:4] >= (40000).to_bytes(2):
            return self.said.answer(request) or b""
        return super().answer(request)


@pytest.fixture
async def inverter() -> AsyncGenerator[Inverter]:
    """Return an inverter that is switched on."""
    inverter = Inverter()
    await inverter.start()
    yield inverter
    await inverter.stop()


async def add_at_night(
    hass: HomeAssistant, inverter: Inverter, **typed: Any
) -> MockConfigEntry:
    """Add the inverter while it is off, then switch it on."""
    await inverter.stop()
    dialog = Dialog(hass)
    await dialog.start()
    await dialog.send(
        host="127.0.0.1",
        port=inverter.port,
        listen_port=free_port(),
        listen_host="127.0.0.1",
        connect_on_demand=True,
        **typed,
    )
    page = await dialog.choose("add_anyway")
    await inverter.start()
    entry: MockConfigEntry = page["result"]
    return entry


async def reconfigure(hass: HomeAssistant, entry: MockConfigEntry) -> Dialog:
    """Open the dialog that reconfigures an entry."""
    dialog = Dialog(hass)
    await dialog.start(source=SOURCE_RECONFIGURE, entry_id=entry.entry_id)
    return dialog


async def test_a_device_in_use_is_asked_through_its_entry(
    hass: HomeAssistant, inverter: Inverter, device_registry: dr.DeviceRegistry
) -> None:
    """Its one slot stays where it is, and so do the clients."""
    entry = await add_at_night(hass, inverter)
    states: list[ConfigEntryState] = []
    async with ModbusClient(entry.data["listen_port"]) as client:
        assert await client.ask(read()) == values()
        slot = inverter.connection
        entry.async_on_state_change(lambda: states.append(entry.state))
        dialog = await reconfigure(hass, entry)
        page = await dialog.send()
        assert page["step_id"] == "identified"
        assert page["description_placeholders"] == {
            "device": "SolarEdge SE10K",
            "answer": "SolarEdge SE10K, 4.18, 7F123456",
        }
        assert dialog.values == {
            "name": "SolarEdge SE10K",
            "profile": "solaredge",
            "unit_id": 1,
        }
        page = await dialog.send(profile="generic")
        assert page["reason"] == "reconfigure_successful"
        await hass.async_block_till_done()
        assert await client.ask(read()) == values()
        assert inverter.connection is slot
        assert states == []
        (shown,) = dr.async_entries_for_config_entry(device_registry, entry.entry_id)
        assert shown.name == entry.title == "SolarEdge SE10K"
        assert shown.model == "SolarEdge SE10K (Modbus/TCP)"
        assert shown.serial_number == "7F123456"
        # What is known is no news.
        dialog = await reconfigure(hass, entry)
        page = await dialog.send()
        assert page["reason"] == "reconfigure_successful"
        assert inverter.connection is slot


async def test_what_its_owner_calls_it_is_kept(
    hass: HomeAssistant, inverter: Inverter
) -> None:
    entry = await add_at_night(hass, inverter, name="Roof", profile="fronius")
    dialog = await reconfigure(hass, entry)
    await dialog.send()
    assert dialog.values["name"] == "Roof"
    assert dialog.values["profile"] == "fronius"
    dialog.abandon()
    await hass.async_block_till_done()
    assert "identity" not in entry.data


async def test_another_device_is_not_taken_for_the_one_before(
    hass: HomeAssistant, inverter: Inverter, device: ModbusDevice
) -> None:
    entry = await add_at_night(hass, inverter)
    dialog = await reconfigure(hass, entry)
    await dialog.send()
    await dialog.send()
    await hass.async_block_till_done()
    assert entry.data["identity"]["serial"] == "7F123456"
    dialog = await reconfigure(hass, entry)
    page = await dialog.send(port=device.port)
    assert page["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert "identity" not in entry.data


async def test_units_that_answer_are_asked_first() -> None:
    """Nobody waits for a silent unit while another one is known to answer."""
    device = IdentifyingDevice(unit=7, registers={0: bytes(8), 40000: SOLAREDGE})
    async with device.serve() as port:
        multiplexer = Multiplexer(
            Settings(host="127.0.0.1", port=port, listen_port=0, timeout=0.3)
        )
        await multiplexer.start()
        assert await multiplexer.request(bytes((7, *read())))
        device.asked.clear()
        met = await ask_running(multiplexer, ())
        assert met.identity is not None
        assert met.identity.unit == 7
        assert {payload[0] for payload in device.asked} == {7}
        await multiplexer.stop()


async def test_units_of_a_device_in_use_in_the_usual_order() -> None:
    device = IdentifyingDevice(unit=3, identification=MEI)
    async with device.serve() as port:
        multiplexer = Multiplexer(
            Settings(
                host="127.0.0.1",
                port=port,
                listen_port=0,
                timeout=0.3,
                reconnect_backoff=0.1,
            )
        )
        await multiplexer.start()
        met = await ask_running(multiplexer, (71,))
        assert met.identity is not None
        assert met.identity.unit == 3
        units = list(dict.fromkeys(payload[0] for payload in device.asked))
        assert units == [1, 71, 0, 255, 247, 3]
        # One that is left alone says nothing, and neither does one that takes too long.
        await multiplexer.pause()
        assert await ask_running(multiplexer, ()) == ProbeResult()
        multiplexer.resume()
        device.unit = 99
        multiplexer.reset_statistics()
        assert await ask_running(multiplexer, (), seconds=0.1) == ProbeResult()
        await multiplexer.stop()
