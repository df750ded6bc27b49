"""What tests of the integration have at hand."""

from collections.abc import AsyncGenerator
from typing import Any

from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL, STATE_ON
from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir
from pymodbus.pdu.device import ModbusDeviceIdentification
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.syrupy import HomeAssistantSnapshotExtension
from syrupy.assertion import SnapshotAssertion

from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    DOMAIN,
)
from custom_components.tcp_multiplexer.refused_clients import REFUSED_CLIENTS
from tests.waiting import until

from .peers import ModbusDevice
from .words import assert_words


@pytest.fixture(autouse=True)
def custom_integrations(enable_custom_integrations: None) -> None:
    """Let Home Assistant find the integration of this repository."""


@pytest.fixture(autouse=True)
def issues_have_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check, of every issue that is raised, that it has words in each language."""
    create = ir.async_create_issue

    def checked(hass: HomeAssistant, domain: str, issue_id: str, **issue: Any) -> None:
        create(hass, domain, issue_id, **issue)
        if domain == DOMAIN:
            issue_path = ("issues", issue["translation_key"])
            first = "init" if issue["translation_key"] == REFUSED_CLIENTS else "confirm"
            page = ("fix_flow", "step", first) if issue["is_fixable"] else ()
            given = issue.get("translation_placeholders") or ()
            assert_words((*issue_path, "title"), given)
            assert_words((*issue_path, *page, "description"), given)

    monkeypatch.setattr(ir, "async_create_issue", checked)


@pytest.fixture(autouse=True)
def own_device_identification(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a pymodbus server identifies itself as to one test.

    All servers of a process share it, and those that follow would keep it.
    """
    identification = dict(ModbusDeviceIdentification.stat_data)
    monkeypatch.setattr(ModbusDeviceIdentification, "stat_data", identification)


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Return snapshots that are written in Home Assistant's way."""
    return snapshot.use_extension(HomeAssistantSnapshotExtension)


@pytest.fixture
async def device() -> AsyncGenerator[ModbusDevice]:
    """Return a device that is switched on."""
    device = ModbusDevice()
    await device.start()
    yield device
    await device.stop()


@pytest.fixture
def entry(hass: HomeAssistant, device: ModbusDevice) -> MockConfigEntry:
    """Return an entry that shares the device at a port of the system's choice."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        entry_id="01JM0000000000000000000000",
        title="Inverter",
        data={
            CONF_HOST: "127.0.0.1",
            CONF_PORT: device.port,
            CONF_PROTOCOL: "modbus",
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: 0,
        },
    )
    entry.add_to_hass(hass)
    return entry


@pytest.fixture
async def loaded_entry(hass: HomeAssistant, entry: MockConfigEntry) -> MockConfigEntry:
    """Return the entry, loaded and connected to the device."""
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    connection = "binary_sensor.inverter_device_connection"
    await until(lambda: hass.states.is_state(connection, STATE_ON))
    return entry
