"""What is wrong is said, can be mended from where it is said, and then is gone."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from http import HTTPStatus
from importlib.util import find_spec
import json
from pathlib import Path
import socket
from typing import Any, override
from unittest.mock import AsyncMock

from homeassistant.components.modbus import async_get_unit, connection
from homeassistant.config_entries import (
    ConfigEntryDisabler,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
)
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from modbus_connection import ModbusSerialParams, ModbusTcpParams
from pymodbus.client import AsyncModbusTcpClient
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockModule,
    mock_config_flow,
    mock_integration,
    mock_platform,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.tcp_multiplexer import async_get_endpoint
from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    DOMAIN,
)
from custom_components.tcp_multiplexer.local_sockets import try_listen
from custom_components.tcp_multiplexer.repairs import DirectConnectionFlow
from script.demo import inverter
from tests.waiting import until
from tests.wire import read, values

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port

CLIENTS = "sensor.inverter_clients"
HEALTH = "sensor.inverter_health"
PAUSE = "switch.inverter_pause"

needs_list_of_connections = pytest.mark.skipif(
    not hasattr(connection, "async_get_connection_info"),
    reason="before 2026.10 Home Assistant does not list its Modbus connections",
)

NO_RESPONSES = (b"\x83\x0a", b"\x83\x0b")
"""No connection, and no response."""


def issues(hass: HomeAssistant) -> dict[str, ir.IssueEntry]:
    """Give our open issues by what they are about, each of which is there once."""
    found = [
        issue
        for (domain, _), issue in ir.async_get(hass).issues.items()
        if domain == DOMAIN and issue.active and issue.translation_key
    ]
    by_key = {str(issue.translation_key): issue for issue in found}
    assert len(by_key) == len(found)
    return by_key


def listen_port(hass: HomeAssistant, entry: MockConfigEntry) -> int:
    """Give the local port of a loaded entry."""
    endpoint = async_get_endpoint(hass, entry.data[CONF_HOST], entry.data[CONF_PORT])
    assert endpoint
    return endpoint[1]


def assert_no_issues(hass: HomeAssistant) -> None:
    """Check that all is well now."""
    assert not issues(hass)


class Repairs:
    """The repairs page, over its HTTP interface."""

    def __init__(self, client: Any) -> None:
        """Use a logged-in client."""
        self._client = client

    async def _post(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        response = await self._client.post(path, json=data)
        assert response.status == HTTPStatus.OK, await response.text()
        return dict(await response.json())

    async def fix(self, issue: ir.IssueEntry, way: str = "") -> dict[str, Any]:
        """Press the issue, choose a way if there are some, submit its explanation."""
        step = await self.open(issue)
        if way:
            step = await self.submit(step, next_step_id=way)
        assert step["type"] == "form"
        assert step["step_id"] == "confirm"
        assert step["description_placeholders"] == issue.translation_placeholders
        return await self.submit(step)

    async def open(self, issue: ir.IssueEntry) -> dict[str, Any]:
        """Press the issue."""
        path = "/api/repairs/issues/fix"
        return await self._post(path, {"handler": DOMAIN, "issue_id": issue.issue_id})

    async def submit(self, step: dict[str, Any], **typed: str) -> dict[str, Any]:
        """Go on with a repair."""
        return await self._post(f"/api/repairs/issues/fix/{step['flow_id']}", typed)

    async def wait(self, step: dict[str, Any]) -> dict[str, Any]:
        """Wait as the dialog does while a repair is in progress."""
        async with asyncio.timeout(30):
            while step["type"] == "progress":
                await asyncio.sleep(0.02)
                step = await self.submit(step)
        return step

    async def close(self, step: dict[str, Any]) -> None:
        """Close the dialog."""
        response = await self._client.delete(
            f"/api/repairs/issues/fix/{step['flow_id']}"
        )
        assert response.status == HTTPStatus.OK

    async def configure(self, flow_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """Fill in a page of the dialog that a repair led to."""
        return await self._post(f"/api/config/config_entries/flow/{flow_id}", data)


@pytest.fixture
async def repairs(hass: HomeAssistant, hass_client: ClientSessionGenerator) -> Repairs:
    """Return the repairs page."""
    # All of them now: once its client is there, the server takes no more pages.
    for component in ("repairs", "config", "file_upload"):
        assert await async_setup_component(hass, component, {})
    return Repairs(await hass_client())


# The port


async def fail_to_listen(
    hass: HomeAssistant, entry: MockConfigEntry, **data: Any
) -> None:
    """Set an entry up that cannot listen."""
    hass.config_entries.async_update_entry(entry, data={**entry.data, **data})
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY


async def test_taken_port_leads_to_reconfigure_and_is_gone_with_its_cause(
    hass: HomeAssistant, entry: MockConfigEntry, repairs: Repairs
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        await fail_to_listen(hass, entry, **{CONF_LISTEN_PORT: port})
        issue = issues(hass)["port_taken"]
        assert issue.translation_placeholders == {
            "title": "Inverter",
            "port": str(port),
            "error": "Address already in use",
        }

        result = await repairs.fix(issue)

        assert result["type"] == "abort"
        assert result["reason"] == "reconfigure"
        kind, flow_id = result["next_flow"]
        assert kind == "config_flow"
        flow = hass.config_entries.flow.async_get(flow_id)
        assert flow["context"]["source"] == "reconfigure"
        assert flow["context"]["entry_id"] == entry.entry_id
        assert "port_taken" in issues(hass)

        # The dialog proposes a port that is free
        page: Any = await hass.config_entries.flow.async_configure(flow_id)
        [proposed] = [
            key.description["suggested_value"]
            for key in page["data_schema"].schema
            if key == CONF_LISTEN_PORT
        ]
        assert proposed > port
        assert await try_listen("127.0.0.1", proposed) is None

        # A retry that fails changes nothing
        assert not await hass.config_entries.async_reload(entry.entry_id)
        assert "port_taken" in issues(hass)

    assert await hass.config_entries.async_reload(entry.entry_id)
    assert not issues(hass)
    await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize("removed", [True, False])
async def test_taken_port_is_no_issue_of_an_entry_that_is_not_to_run(
    hass: HomeAssistant, entry: MockConfigEntry, removed: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        await fail_to_listen(hass, entry, **{CONF_LISTEN_PORT: other.getsockname()[1]})
        assert "port_taken" in issues(hass)
        if removed:
            await hass.config_entries.async_remove(entry.entry_id)
        else:
            await hass.config_entries.async_set_disabled_by(
                entry.entry_id, ConfigEntryDisabler.USER
            )
        assert not issues(hass)


async def test_another_reason_not_to_listen_has_its_own_words(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    await fail_to_listen(hass, entry, **{CONF_LISTEN_HOST: "192.0.2.1"})
    assert list(issues(hass)) == ["cannot_listen"]
    error = issues(hass)["cannot_listen"].translation_placeholders
    assert error
    assert error["error"] == "Cannot assign requested address"
    await hass.config_entries.async_unload(entry.entry_id)


# A neighbour


def add_neighbour(hass: HomeAssistant, **data: Any) -> MockConfigEntry:
    """Add an entry of another integration that has no dialog to reconfigure it."""
    neighbour = MockConfigEntry(domain="wattpilot", title="Wallbox", data=data)
    neighbour.add_to_hass(hass)
    # What a real entry does when it is set up, and this one's integration is not here
    hass.config_entries.async_update_entry(neighbour, title="My wallbox")
    return neighbour


async def test_neighbour_on_the_same_device_is_named_until_it_leaves(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    add_neighbour(hass, host="127.0.0.1", port=device.port + 1)
    add_neighbour(hass, host="127.0.0.2", port=device.port)
    add_neighbour(hass, host="127.0.0.1")
    add_neighbour(hass, host="127.0.0.1", port="auto")
    add_neighbour(hass, host=None, port=device.port)
    assert not issues(hass)

    neighbour = add_neighbour(hass, host="127.0.0.1", port=str(device.port))
    issue = issues(hass)["direct_connection_manual"]
    assert not issue.is_fixable
    assert issue.translation_placeholders == {
        "title": "Inverter",
        "neighbour": "My wallbox",
        "host": "127.0.0.1",
        "port": str(device.port),
        "local_host": "127.0.0.1",
        "local_port": str(loaded_entry.data[CONF_LISTEN_PORT]),
    }

    await hass.config_entries.async_remove(neighbour.entry_id)
    assert not issues(hass)


async def test_neighbour_is_no_issue_while_the_entry_does_not_run(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    add_neighbour(hass, host="127.0.0.1", port=device.port)
    assert issues(hass)
    await hass.config_entries.async_unload(loaded_entry.entry_id)
    assert not issues(hass)
    assert await hass.config_entries.async_setup(loaded_entry.entry_id)
    assert issues(hass)


async def test_ignored_issue_stays_ignored_after_a_reload(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    add_neighbour(hass, host="127.0.0.1", port=device.port)
    issue = issues(hass)["direct_connection_manual"]
    ir.async_ignore_issue(hass, DOMAIN, issue.issue_id, ignore=True)
    assert await hass.config_entries.async_reload(loaded_entry.entry_id)
    assert issues(hass)["direct_connection_manual"].dismissed_version


@needs_list_of_connections  # from then on hubs say to what they connect
@pytest.mark.parametrize("expected_lingering_timers", [True])  # the hub's
async def test_hub_in_yaml_is_named_until_it_is_a_client(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    tmp_path: Path,
) -> None:
    hub = {
        "name": "sungrow",
        "type": "tcp",
        "host": "127.0.0.1",
        "port": device.port,
        "sensors": [{"name": "Power", "address": 1, "slave": 1}],
    }
    assert await async_setup_component(hass, "modbus", {"modbus": [hub]})
    await hass.async_block_till_done()
    issue = issues(hass)["direct_connection_yaml"]
    assert not issue.is_fixable
    assert issue.translation_placeholders
    assert issue.translation_placeholders["neighbour"] == "sungrow"

    # Its owner follows the advice.
    hub["port"] = listen_port(hass, loaded_entry)
    hass.config.config_dir = str(tmp_path)
    (tmp_path / "configuration.yaml").write_text(json.dumps({"modbus": [hub]}))
    await hass.services.async_call("modbus", "reload", blocking=True)
    await until(lambda: not issues(hass))


@needs_list_of_connections
async def test_neighbour_is_known_by_the_connection_that_it_shares(
    hass: HomeAssistant,
    repairs: Repairs,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
) -> None:
    assert await async_setup_component(hass, "modbus", {})
    neighbour = add_neighbour(hass, elsewhere=True)
    line = ModbusSerialParams(device="/dev/null")
    elsewhere = ModbusTcpParams(host="127.0.0.1", port=device.port + 1)
    async_get_unit(hass, neighbour, line, 1)
    async_get_unit(hass, neighbour, elsewhere, 1)
    hass.config_entries.async_update_entry(neighbour, title="My meter")
    assert not issues(hass)

    device_as_line = f"socket://127.0.0.1:{device.port}"
    line = ModbusSerialParams(device=device_as_line, framer="rtu", baudrate=115200)
    async_get_unit(hass, neighbour, line, 1)
    hass.config_entries.async_update_entry(neighbour, title="My heat pump")
    issue = issues(hass)["direct_connection_shared"]
    assert issue.translation_placeholders
    assert issue.translation_placeholders["neighbour"] == "My heat pump"

    # It has no dialog in which it could be pointed elsewhere.
    step = await repairs.open(issue)
    assert step["menu_options"] == ["use_shared_connection"]


async def test_neighbours_are_found_where_shared_connections_cannot_be_listed(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Home Assistant 2026.9 has no such list."""
    assert await async_setup_component(hass, "modbus", {})
    monkeypatch.delattr(connection, "async_get_connection_info", raising=False)
    add_neighbour(hass, host="127.0.0.1", port=device.port)
    assert issues(hass)


class StubbornFlow(ConfigFlow):
    """A dialog that does not let itself be opened."""

    async def async_step_reconfigure(self, _: object = None) -> ConfigFlowResult:
        """Refuse."""
        return self.async_abort(reason="not_today")


@pytest.fixture(params=[True, False])
async def stubborn_neighbour(
    hass: HomeAssistant, device: ModbusDevice, request: pytest.FixtureRequest
) -> AsyncGenerator[bool]:
    """Return whether the neighbour at least can be unloaded."""
    integration = MockModule(
        "wattpilot",
        async_setup_entry=AsyncMock(return_value=True),
        async_unload_entry=AsyncMock(return_value=request.param),
    )
    mock_integration(hass, integration)
    mock_platform(hass, "wattpilot.config_flow", None)
    with mock_config_flow("wattpilot", StubbornFlow):
        neighbour = add_neighbour(hass, host="127.0.0.1", port=device.port)
        assert await hass.config_entries.async_setup(neighbour.entry_id)
        await hass.async_block_till_done()
        yield request.param


async def test_neighbour_that_does_not_play_along(
    hass: HomeAssistant,
    repairs: Repairs,
    loaded_entry: MockConfigEntry,
    stubborn_neighbour: bool,
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        await client.ask(read())
    step = await repairs.wait(await repairs.fix(issues(hass)["direct_connection"]))
    assert step["type"] == "abort"
    expected = "cannot_reconfigure" if stubborn_neighbour else "no_slot"
    assert step["reason"] == expected
    assert "direct_connection" in issues(hass)


# One slot, and a core integration that holds it over the shared connection


@pytest.fixture
async def one_slot() -> AsyncGenerator[inverter.OneConnectionServer]:
    """Return a SunSpec inverter that serves one connection, with pymodbus."""
    server = await inverter.start("127.0.0.1", free_port())
    yield server
    await server.shutdown()


@pytest.fixture
async def neighbour(
    hass: HomeAssistant, one_slot: inverter.OneConnectionServer
) -> MockConfigEntry:
    """Return Home Assistant's own integration for the inverter; it has the slot."""
    if not find_spec("homeassistant.components.solaredge_modbus"):
        pytest.skip("before 2026.10 there is no SolarEdge Modbus")
    hass.config.components.add("usb")  # for serial lines, of which there are none
    address = one_slot.comm_params.source_address
    assert address
    neighbour = MockConfigEntry(
        domain="solaredge_modbus",
        title="SolarEdge",
        unique_id="0042",
        data={
            "type": "tcp",
            CONF_HOST: "127.0.0.1",
            CONF_PORT: address[1],
            "unit_id": 1,
        },
    )
    neighbour.add_to_hass(hass)
    assert await hass.config_entries.async_setup(neighbour.entry_id)
    await hass.async_block_till_done()
    return neighbour


@pytest.fixture
async def unserved_entry(
    hass: HomeAssistant, neighbour: MockConfigEntry
) -> MockConfigEntry:
    """Return a loaded entry that gets no connection because of its neighbour."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Inverter",
        data={
            CONF_HOST: "127.0.0.1",
            CONF_PORT: neighbour.data[CONF_PORT],
            CONF_PROTOCOL: "modbus",
            CONF_LISTEN_HOST: None,
            CONF_LISTEN_PORT: free_port(),
        },
        options={"reconnect_backoff": 0.1, "health_check_interval": 0.1},
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: hass.states.is_state(HEALTH, "unreachable"))
    return entry


def is_direct(hass: HomeAssistant) -> bool:
    """Tell whether the neighbour is in the way, however it connects at the moment."""
    (key,) = issues(hass)
    return key.startswith("direct_connection")


def is_waiting(entry: MockConfigEntry) -> bool:
    """Tell whether an entry waits for its next attempt."""
    return entry.state is ConfigEntryState.SETUP_RETRY


async def test_neighbour_is_led_to_the_multiplexer(
    hass: HomeAssistant,
    repairs: Repairs,
    neighbour: MockConfigEntry,
    unserved_entry: MockConfigEntry,
) -> None:
    issue = issues(hass)["direct_connection_shared"]
    placeholders = issue.translation_placeholders
    assert placeholders
    assert placeholders["neighbour"] == "SolarEdge"

    step = await repairs.fix(issue, "confirm")
    assert step["type"] == "progress"
    step = await repairs.wait(step)

    # The multiplexer has the slot now, and the neighbour waits for its next attempt.
    assert step["type"] == "abort"
    assert step["reason"] == "reconfigure"
    assert hass.states.is_state(HEALTH, "healthy")
    assert is_waiting(neighbour)
    assert is_direct(hass)

    _, flow_id = step["next_flow"]
    result = await repairs.configure(
        flow_id,
        {
            CONF_HOST: placeholders["local_host"],
            CONF_PORT: int(placeholders["local_port"]),
            "more_options": {"unit_id": 1},
        },
    )
    assert result["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert neighbour.state is ConfigEntryState.LOADED
    assert not issues(hass)

    # Both work: the integration, and a client from outside.
    state = hass.states.get("sensor.solaredge_ssu_8000_power")
    assert state
    assert float(state.state) > 0
    client = AsyncModbusTcpClient(
        "127.0.0.1", port=unserved_entry.data[CONF_LISTEN_PORT]
    )
    await client.connect()
    answer = await client.read_holding_registers(inverter.POWER)
    assert answer.registers[0] > 0
    await until(lambda: hass.states.is_state(CLIENTS, "2"))
    client.close()


async def test_multiplexer_is_led_to_the_connection_that_its_neighbour_shares(
    hass: HomeAssistant,
    repairs: Repairs,
    neighbour: MockConfigEntry,
    unserved_entry: MockConfigEntry,
) -> None:
    step = await repairs.open(issues(hass)["direct_connection_shared"])
    assert step["type"] == "menu"
    assert step["menu_options"] == ["use_shared_connection", "confirm"]
    step = await repairs.submit(step, next_step_id="use_shared_connection")
    assert step["type"] == "abort"
    assert step["reason"] == "reconfigure"
    assert is_direct(hass)

    dialog = Dialog(hass)
    dialog.page = {"flow_id": step["next_flow"][1]}
    await dialog.look_again()
    page = await dialog.send(upstream="home_assistant")
    assert page["step_id"] == "identified"
    page = await dialog.send()
    assert page["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert not issues(hass)

    # Both work on the one connection.
    assert await hass.config_entries.async_reload(neighbour.entry_id)
    async with ModbusClient(unserved_entry.data[CONF_LISTEN_PORT]) as client:
        answer = await client.ask(read(inverter.POWER, 1))
    assert answer[:2] == b"\x03\x02"
    assert not issues(hass)

    # Who has a connection of its own is in the way all the same.
    add_neighbour(hass, host="127.0.0.1", port=neighbour.data[CONF_PORT]).mock_state(
        hass, ConfigEntryState.LOADED
    )
    assert list(issues(hass)) == ["direct_connection_manual"]


async def test_neighbour_is_on_again_when_the_device_answers_nobody(
    hass: HomeAssistant,
    one_slot: inverter.OneConnectionServer,
    neighbour: MockConfigEntry,
    unserved_entry: MockConfigEntry,
) -> None:
    await one_slot.shutdown()
    flow = DirectConnectionFlow(unserved_entry, neighbour, slot_timeout=0.3)
    flow.hass = hass
    step = await flow.async_step_take_slot()
    assert step["type"] is FlowResultType.SHOW_PROGRESS
    assert (task := step["progress_task"])
    assert not await task
    step = await flow.async_step_take_slot()
    assert step["type"] is FlowResultType.SHOW_PROGRESS_DONE
    assert step["step_id"] == "no_slot"
    assert neighbour.state is ConfigEntryState.SETUP_RETRY
    assert is_direct(hass)


async def test_neighbour_is_on_again_when_the_dialog_is_closed(
    hass: HomeAssistant,
    repairs: Repairs,
    one_slot: inverter.OneConnectionServer,
    neighbour: MockConfigEntry,
    unserved_entry: MockConfigEntry,
) -> None:
    await one_slot.shutdown()
    step = await repairs.fix(issues(hass)["direct_connection_shared"], "confirm")
    await until(lambda: neighbour.state is ConfigEntryState.NOT_LOADED)
    await repairs.close(step)
    await until(lambda: neighbour.state is ConfigEntryState.SETUP_RETRY)
    assert is_direct(hass)


async def test_neighbour_that_cannot_be_unloaded_stays_as_it_is(
    hass: HomeAssistant,
    repairs: Repairs,
    neighbour: MockConfigEntry,
    unserved_entry: MockConfigEntry,
) -> None:
    neighbour.mock_state(hass, ConfigEntryState.FAILED_UNLOAD)
    issue = issues(hass)["direct_connection_shared"]
    step = await repairs.wait(await repairs.fix(issue, "confirm"))
    assert step["reason"] == "no_slot"
    assert neighbour.state is ConfigEntryState.FAILED_UNLOAD
    neighbour.mock_state(hass, ConfigEntryState.LOADED)


# The device


class _TurnedAway(asyncio.Protocol):
    """A connection to a device whose slot somebody else holds."""

    transport: asyncio.Transport

    def __init__(self, device: FullDevice) -> None:
        self._device = device

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self._device.patient:
            transport.write(self._device.words)
            transport.close()

    @override
    def data_received(self, data: bytes) -> None:
        self._device.asking = self

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._device.turned_away += 1


class FullDevice:
    """Turns everybody away."""

    def __init__(self, port: int) -> None:
        """Know where to listen."""
        self.turned_away = 0
        self.words = b""
        """What it says before it closes a connection."""
        self.patient = False
        """Leave connections open."""
        self.asking: _TurnedAway | None = None
        """The open connection on which something was asked."""
        self._port = port

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _TurnedAway(self), "127.0.0.1", self._port
        )

    async def stop(self) -> None:
        """Listen no more."""
        self._server.close()
        await self._server.wait_closed()

    async def hang_up(
        self, words: bytes = b"", after: Callable[[], None] | None = None
    ) -> None:
        """Close the next connection once something was asked on it."""
        await until(lambda: self.asking)
        assert self.asking
        if after is not None:
            after()
        self.asking.transport.write(words)
        self.asking.transport.close()
        self.asking = None

    async def turn_away(self, count: int) -> None:
        """Wait until so many more were turned away."""
        wanted = self.turned_away + count
        await until(lambda: self.turned_away >= wanted)


class Clock:
    """The time of day, which can jump. Timers and connections know nothing of it."""

    ahead = timedelta()

    def jump(self, seconds: float) -> None:
        """Let time pass that nobody notices."""
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which Home Assistant goes."""
    clock = Clock()
    utcnow = dt_util.utcnow
    monkeypatch.setattr(dt_util, "utcnow", lambda: utcnow() + clock.ahead)
    return clock


@pytest.fixture
async def full_device(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> AsyncGenerator[FullDevice]:
    """Return a device that turns the multiplexer away, several times a second."""
    await device.stop()
    hass.config_entries.async_update_entry(
        entry,
        options={
            "reconnect_backoff": 0.1,
            "reconnect_backoff_max": 0.1,
            "health_check_interval": 0.02,
        },
    )
    full_device = FullDevice(device.port)
    await full_device.start()
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: hass.states.is_state(HEALTH, "unreachable"))
    yield full_device
    await hass.config_entries.async_unload(entry.entry_id)
    await full_device.stop()


async def test_slot_that_somebody_else_holds_is_told_until_the_device_answers(
    hass: HomeAssistant, full_device: FullDevice, device: ModbusDevice, clock: Clock
) -> None:
    await full_device.turn_away(12)
    clock.jump(590)
    await full_device.turn_away(2)
    assert not issues(hass)  # Not for ten minutes yet

    clock.jump(11)
    await until(lambda: issues(hass))
    issue = issues(hass)["slot_taken"]
    assert not issue.is_fixable
    assert issue.translation_placeholders == {
        "title": "Inverter",
        "host": "127.0.0.1",
        "port": str(device.port),
    }

    await full_device.stop()
    await device.start()
    await until(lambda: not issues(hass))


async def test_it_takes_ten_connections(
    hass: HomeAssistant, full_device: FullDevice, clock: Clock
) -> None:
    full_device.patient = True
    await full_device.hang_up(b"?")  # What was before does not count any more.
    await full_device.hang_up()
    await full_device.hang_up(after=lambda: clock.jump(601))  # It lasted.
    for _ in range(8):
        await full_device.hang_up()
    await full_device.hang_up(after=lambda: assert_no_issues(hass))
    await until(lambda: issues(hass))


async def test_connections_that_bring_a_byte_are_no_issue(
    hass: HomeAssistant, full_device: FullDevice, clock: Clock
) -> None:
    full_device.words = b"?"
    await full_device.turn_away(1)
    clock.jump(601)
    await full_device.turn_away(12)
    assert not issues(hass)


async def test_connections_that_last_are_no_issue(
    hass: HomeAssistant, full_device: FullDevice, clock: Clock
) -> None:
    full_device.patient = True
    for _ in range(12):
        await full_device.hang_up(after=lambda: clock.jump(61))
    await full_device.hang_up(after=lambda: assert_no_issues(hass))


async def test_slot_given_away_on_purpose_is_no_issue(
    hass: HomeAssistant, full_device: FullDevice, clock: Clock
) -> None:
    await full_device.turn_away(12)
    clock.jump(601)
    await until(lambda: issues(hass))
    await hass.services.async_call(
        "switch", "turn_on", {"entity_id": PAUSE}, blocking=True
    )
    await hass.async_block_till_done()
    assert not issues(hass)


class _Forgetful(asyncio.Protocol):
    """A device whose every response has the transaction identifier 0, or the unit 255.

    That depends on what the test is about.
    """

    transport: asyncio.Transport
    forgets_unit = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        address, count = data[8:10], data[10:12]
        pdu = values(int.from_bytes(address), int.from_bytes(count))
        length = (len(pdu) + 1).to_bytes(2)
        head = data[:2], data[6:7]
        number, unit = (head[0], b"\xff") if self.forgets_unit else (b"\0\0", head[1])
        self.transport.write(number + b"\0\0" + length + unit + pdu)


@pytest.fixture(params=["lenient_matching", "lenient_matching_unit"])
async def misfit(
    hass: HomeAssistant,
    device: ModbusDevice,
    entry: MockConfigEntry,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[asyncio.Server]:
    """Return a device whose answers were discarded until that was an issue."""
    monkeypatch.setattr(_Forgetful, "forgets_unit", "unit" in request.param)
    await device.stop()
    hass.config_entries.async_update_entry(
        entry,
        data={**entry.data, CONF_LISTEN_PORT: free_port()},
        options={"timeout": 0.2, "reconnect_backoff": 0.1},
    )
    server = await hass.loop.create_server(_Forgetful, "127.0.0.1", device.port)
    assert await hass.config_entries.async_setup(entry.entry_id)
    async with (
        asyncio.timeout(20),
        ModbusClient(entry.data[CONF_LISTEN_PORT]) as client,
    ):
        while not issues(hass):
            assert await client.ask(read(7)) in NO_RESPONSES
    assert list(issues(hass)) == [request.param]
    yield server
    await hass.config_entries.async_unload(entry.entry_id)
    server.close()
    await server.wait_closed()


async def test_device_that_does_not_echo_identifiers_gets_lenient_matching(
    hass: HomeAssistant,
    repairs: Repairs,
    entry: MockConfigEntry,
    misfit: asyncio.Server,
) -> None:
    (issue,) = issues(hass).values()
    assert issue.is_fixable
    done = await repairs.fix(issue)
    assert done["type"] == "create_entry"
    await hass.async_block_till_done()
    assert not issues(hass)
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(read(7)) == values(7)


async def test_lenient_matching_is_no_issue_once_the_device_is_replaced(
    hass: HomeAssistant,
    device: ModbusDevice,
    entry: MockConfigEntry,
    misfit: asyncio.Server,
) -> None:
    misfit.close()
    misfit.close_clients()
    await device.start()
    async with (
        asyncio.timeout(20),
        ModbusClient(entry.data[CONF_LISTEN_PORT]) as client,
    ):
        while issues(hass):
            await client.ask(read(7))
