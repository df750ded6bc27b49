"""A logger stick in Home Assistant: added, used, changed, and refused."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

from homeassistant.config_entries import SOURCE_RECONFIGURE, ConfigEntryState
from homeassistant.core import HomeAssistant
from pymodbus.client import AsyncModbusTcpClient
from pysolarmanv5 import PySolarmanV5Async
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.tcp_multiplexer import config_flow
from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_LOGGER_SERIAL,
    DOMAIN,
)
from custom_components.tcp_multiplexer.flow import trial
from custom_components.tcp_multiplexer.flow.probe import ask_device
from custom_components.tcp_multiplexer.multiplexer import find_logger_serial
from tests.solarman import SERIAL, LoggerStick, logger_stick, searchable
from tests.waiting import until

from .dialogs import Dialog
from .ports import free_port
from .test_config_flow import CREATE_ENTRY, FORM, MENU
from .test_diagnostics import REDACTED, diagnostics
from .test_local_ports import add_port
from .test_repairs import Repairs, issues, repairs

__all__ = ["repairs"]

OTHER = 2_700_000_007


@pytest.fixture
async def stick() -> AsyncGenerator[LoggerStick]:
    """Have a stick switched on."""
    async with logger_stick() as stick:
        yield stick


@pytest.fixture(autouse=True)
async def found(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[list[bytes]]:
    """Let the search find the stick, on loopback; gives what was asked."""
    answer = b"127.0.0.1,34EAE7D9EC04,%d" % SERIAL
    async with searchable(answer) as (port, asked):
        search = partial(find_logger_serial, broadcast="127.0.0.1", port=port)
        monkeypatch.setattr(config_flow, "find_logger_serial", search)
        yield asked


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the search find nothing, and nobody wait long for an answer."""
    search = partial(
        find_logger_serial, broadcast="127.0.0.1", port=free_port(), seconds=0.02
    )
    monkeypatch.setattr(config_flow, "find_logger_serial", search)
    monkeypatch.setattr(trial, "ask_device", partial(ask_device, answer_seconds=0.5))


async def add(hass: HomeAssistant, stick: LoggerStick) -> Dialog:
    """Submit the first page of the dialog."""
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        host="127.0.0.1",
        port=stick.port,
        listen_port=free_port(),
        listen_host="127.0.0.1",
        upstream="solarman",
    )
    assert page["type"] is FORM
    assert page["step_id"] == "logger"
    return dialog


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize(
    ("host", "endpoint"),
    [("127.0.0.1", "127.0.0.1:8899"), ("127.0.0.1:502", "127.0.0.1:502")],
)
async def test_port_that_is_usual_for_sticks(
    hass: HomeAssistant, host: str, endpoint: str
) -> None:
    dialog = Dialog(hass)
    await dialog.start()
    assert dialog.values["port"] is None
    page = await dialog.send(host=host, listen_port=free_port(), upstream="solarman")
    assert page["description_placeholders"]["endpoint"] == endpoint
    dialog.abandon()


async def read_by_v5(port: int, serial: int = SERIAL) -> list[int]:
    """Read two registers by pysolarmanv5."""
    client = PySolarmanV5Async("127.0.0.1", serial, port=port, socket_timeout=5)
    await client.connect()
    try:
        registers: list[int] = await client.read_holding_registers(7, 2)
        return registers
    finally:
        await client.disconnect()


async def read_by_tcp(port: int) -> list[int]:
    """Read two registers by pymodbus."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    assert await client.connect()
    try:
        return (await client.read_holding_registers(7, count=2)).registers
    finally:
        client.close()


async def test_stick_is_found_added_and_shared(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    stick: LoggerStick,
    found: list[bytes],
) -> None:
    dialog = await add(hass, stick)
    assert found
    assert dialog.values == {CONF_LOGGER_SERIAL: SERIAL}
    page = await dialog.send()
    assert page["type"] is CREATE_ENTRY
    (entry,) = hass.config_entries.async_entries(DOMAIN)
    assert entry.data["upstream"] == "solarman"
    assert entry.data[CONF_LOGGER_SERIAL] == SERIAL
    port = await add_port(hass, entry, client_framing="solarman")
    for registers in await asyncio.gather(
        read_by_v5(port), read_by_v5(port, 1), read_by_tcp(entry.data[CONF_LISTEN_PORT])
    ):
        assert registers == [1007, 1008]
    assert not stick.refused  # nobody else was at the stick
    told = await diagnostics(hass, hass_client, entry)
    assert told["entry"]["data"][CONF_LOGGER_SERIAL] == REDACTED
    assert str(SERIAL) not in str(told)


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("refuses", [False, True])
async def test_wrong_serial_number_is_told(
    hass: HomeAssistant, stick: LoggerStick, refuses: bool
) -> None:
    stick.refuses = refuses
    dialog = await add(hass, stick)
    assert dialog.values == {CONF_LOGGER_SERIAL: None}
    page = await dialog.send(logger_serial=OTHER)
    assert page["type"] is MENU
    assert page["step_id"] == ("wrong_serial" if refuses else "silent_logger")
    assert (str(SERIAL) in page["description_placeholders"]["detail"]) is refuses
    page = await dialog.choose("change")
    page = await dialog.send()
    assert page["step_id"] == "logger"
    page = await dialog.send(logger_serial=SERIAL)
    assert page["type"] is CREATE_ENTRY


@pytest.mark.usefixtures("silence")
async def test_stick_that_tells_its_serial_number_needs_none(
    hass: HomeAssistant, stick: LoggerStick
) -> None:
    stick.refuses = True
    dialog = await add(hass, stick)
    page = await dialog.send()
    assert page["type"] is CREATE_ENTRY
    (entry,) = hass.config_entries.async_entries(DOMAIN)
    assert CONF_LOGGER_SERIAL not in entry.data
    assert await read_by_tcp(entry.data[CONF_LISTEN_PORT]) == [1007, 1008]


async def test_profile_of_a_stick_is_enough(
    hass: HomeAssistant, stick: LoggerStick
) -> None:
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        host="127.0.0.1",
        port=stick.port,
        listen_port=free_port(),
        profile="deye_logger",
    )
    assert page["step_id"] == "logger"
    assert (await dialog.send())["type"] is CREATE_ENTRY


async def test_sticks_are_for_modbus_only(
    hass: HomeAssistant, stick: LoggerStick
) -> None:
    dialog = Dialog(hass)
    await dialog.start()
    page = await dialog.send(
        protocol="echo", host="127.0.0.1", listen_port=free_port(), upstream="solarman"
    )
    assert page["errors"] == {"upstream": "only_modbus"}


def entry_of(hass: HomeAssistant, stick: LoggerStick, serial: int) -> MockConfigEntry:
    """Add an entry for a stick."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Stick",
        data={
            "protocol": "modbus",
            "host": "127.0.0.1",
            "port": stick.port,
            "upstream": "solarman",
            CONF_LOGGER_SERIAL: serial,
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: free_port(),
            "profile": "generic",
        },
        options={"timeout": 0.1, "health_check_interval": 0.0},
    )
    entry.add_to_hass(hass)
    return entry


@pytest.mark.usefixtures("silence")
async def test_reconfigure_proposes_what_is_stored(
    hass: HomeAssistant, stick: LoggerStick
) -> None:
    entry = entry_of(hass, stick, SERIAL)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: stick.slot)
    dialog = Dialog(hass)
    await dialog.start(source=SOURCE_RECONFIGURE, entry_id=entry.entry_id)
    await dialog.send()
    assert dialog.values == {CONF_LOGGER_SERIAL: SERIAL}
    page = await dialog.send(logger_serial=OTHER)
    assert page["step_id"] == "silent_logger"
    assert entry.state is ConfigEntryState.LOADED
    await dialog.choose("save_anyway")
    assert entry.data[CONF_LOGGER_SERIAL] == OTHER
    await hass.async_block_till_done()


async def test_another_upstream_needs_no_serial_number(
    hass: HomeAssistant, stick: LoggerStick
) -> None:
    entry = entry_of(hass, stick, SERIAL)
    dialog = Dialog(hass)
    await dialog.start(source=SOURCE_RECONFIGURE, entry_id=entry.entry_id)
    page = await dialog.send(upstream="tcp", port=free_port())
    assert page["step_id"] == "refused"
    await dialog.choose("save_anyway")
    assert CONF_LOGGER_SERIAL not in entry.data


async def test_replaced_stick_is_an_issue_until_its_number_is_known(
    hass: HomeAssistant, stick: LoggerStick, repairs: Repairs
) -> None:
    entry = entry_of(hass, stick, OTHER)
    stick.refuses = True
    assert await hass.config_entries.async_setup(entry.entry_id)
    for _ in range(3):
        await read_by_tcp_in_vain(entry.data[CONF_LISTEN_PORT])
    await until(lambda: issues(hass))
    assert list(issues(hass)) == ["wrong_serial"]
    done = await repairs.fix(issues(hass)["wrong_serial"])
    assert (done["type"], done["reason"]) == ("abort", "reconfigure")
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_LOGGER_SERIAL: SERIAL}
    )
    await hass.async_block_till_done()
    assert not issues(hass)


async def read_by_tcp_in_vain(port: int) -> None:
    """Read, and get the exception of a gateway."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0)
    assert await client.connect()
    response = await client.read_holding_registers(7, count=2)
    client.close()
    assert response.exception_code == 0x0B
