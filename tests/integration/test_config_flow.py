"""Adding and reconfiguring, through the flow manager, with real ports and devices."""

import asyncio
from collections.abc import Generator
import errno
import os
import socket
from typing import Any
from unittest.mock import AsyncMock

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntryDisabler,
    ConfigEntryState,
)
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType, UnknownFlow
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.selector import SelectSelector, TextSelector
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockModule,
    mock_integration,
)

from custom_components.tcp_multiplexer import config_flow
from custom_components.tcp_multiplexer.addresses import async_hosts_for_clients
from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_PAUSED,
    CONF_PROFILE,
    CONF_UPSTREAM,
    DOMAIN,
)
from custom_components.tcp_multiplexer.coordinator import TcpMultiplexerCoordinator
from custom_components.tcp_multiplexer.flow import progress
from custom_components.tcp_multiplexer.local_sockets import try_listen
from tests.waiting import until
from tests.wire import exception, read, values, write

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port
from .pymodbus_device import pymodbus_device

FORM, MENU, ABORT, CREATE_ENTRY = (
    FlowResultType.FORM,
    FlowResultType.MENU,
    FlowResultType.ABORT,
    FlowResultType.CREATE_ENTRY,
)


@pytest.fixture
def taken() -> Generator[int]:
    """Return a port on which another program listens."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        yield port


@pytest.fixture
async def dialog(hass: HomeAssistant) -> Dialog:
    """Return the dialog that adds an entry, at its first page."""
    dialog = Dialog(hass)
    page = await dialog.start()
    assert page["type"] is FORM
    assert page["step_id"] == "user"
    assert not page["errors"]
    return dialog


def add_entry(
    hass: HomeAssistant, title: str = "Heat pump", *, disabled: bool = True, **more: Any
) -> MockConfigEntry:
    """Add another entry of ours; what it wants counts even if it is disabled."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title=title,
        disabled_by=ConfigEntryDisabler.USER if disabled else None,
        data={
            CONF_PROTOCOL: "modbus",
            CONF_HOST: "192.0.2.7",
            CONF_PORT: 502,
            CONF_LISTEN_HOST: None,
            CONF_LISTEN_PORT: free_port(),
        }
        | more,
    )
    entry.add_to_hass(hass)
    return entry


def add_neighbour(
    hass: HomeAssistant, title: str, host: str, port: int, domain: str = "sofa"
) -> MockConfigEntry:
    """Add a loaded entry of another integration that dials a host and port."""
    entry = MockConfigEntry(
        domain=domain, title=title, data={CONF_HOST: host, CONF_PORT: port}
    )
    entry.add_to_hass(hass)
    entry.mock_state(hass, ConfigEntryState.LOADED)
    return entry


def assert_state(entry: MockConfigEntry, state: ConfigEntryState) -> None:
    """Check the state of an entry."""
    assert entry.state is state


async def assert_serves(port: int) -> None:
    """Check that a client gets the device's registers there."""
    async with ModbusClient(port) as client:
        assert await client.ask(read()) == values()


# Adding


async def test_three_values_are_enough(hass: HomeAssistant, dialog: Dialog) -> None:
    listen_port = free_port()
    async with pymodbus_device(21365, 7) as port:
        page = await dialog.send(host="localhost", port=port, listen_port=listen_port)
        assert page["type"] is CREATE_ENTRY
        assert page["title"] == "localhost"
        assert page["data"] == {
            CONF_PROTOCOL: "modbus",
            CONF_HOST: "localhost",
            CONF_PORT: port,
            CONF_LISTEN_HOST: None,
            CONF_LISTEN_PORT: listen_port,
            CONF_PROFILE: "generic",
            CONF_UPSTREAM: "tcp",
        }
        assert page["options"] == {}
        assert page["description"] == "answered"
        assert page["description_placeholders"] == {
            "answer": "unit 1 read holding registers 0 count 1 -> values 21365",
            "port": str(listen_port),
            "addresses": f"- `10.10.10.10:{listen_port}`",
            "own_address": f"127.0.0.1:{listen_port}",
        }
        assert page["result"].state is ConfigEntryState.LOADED
        async with ModbusClient(listen_port) as client:
            answer = await client.ask(read())
        assert answer == b"\3\4" + (21365).to_bytes(2) + (7).to_bytes(2)


async def test_a_port_may_follow_the_host(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    page = await dialog.send(
        host=f" LOCALHOST:{device.port} ",
        listen_port=free_port(),
        name=" Inverter ",
        listen_host="127.0.0.1",
    )
    assert page["type"] is CREATE_ENTRY
    assert page["title"] == "Inverter"
    assert page["data"][CONF_HOST] == "localhost"
    assert page["data"][CONF_PORT] == device.port
    assert page["data"][CONF_LISTEN_HOST] == "127.0.0.1"
    listen_port = page["data"][CONF_LISTEN_PORT]
    # Not on the addresses that Home Assistant announces: it does not listen there.
    placeholders = page["description_placeholders"]
    assert placeholders["addresses"] == f"- `127.0.0.1:{listen_port}`"


async def test_only_what_differs_from_the_default_is_kept(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    page = await dialog.send(
        host="127.0.0.1",
        port=device.port,
        listen_port=free_port(),
        timeout=7,
        connect_delay=0,
        unit_id=3,
        allowed_networks=["127.0.0.1", "192.168.1.77/24"],
    )
    assert page["type"] is CREATE_ENTRY
    assert page["options"] == {
        "timeout": 7,
        "unit_id": 3,
        "allowed_networks": ["127.0.0.1/32", "192.168.1.0/24"],
    }
    assert device.requests[0][0] == 3
    await assert_serves(page["data"][CONF_LISTEN_PORT])


async def test_a_protocol_without_a_question(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    page = await dialog.send(
        protocol="echo", host="127.0.0.1", port=device.port, listen_port=free_port()
    )
    assert page["type"] is CREATE_ENTRY
    assert page["description"] == "connected"
    assert device.requests == []


async def test_in_a_container_the_port_must_be_published(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    ir.async_create_issue(
        hass,
        "network",
        "docker_host_network",
        is_fixable=False,
        severity=ir.IssueSeverity.WARNING,
        translation_key="docker_host_network",
    )
    page = await dialog.send(
        host="127.0.0.1", port=device.port, listen_port=free_port()
    )
    assert page["type"] is CREATE_ENTRY
    assert page["description"] == "answered_publish"


async def test_the_suggested_port_is_free_and_not_another_entry_s(
    hass: HomeAssistant, dialog: Dialog
) -> None:
    suggested = dialog.values[CONF_LISTEN_PORT]
    assert suggested >= 5020
    assert await try_listen(None, suggested) is None
    add_entry(hass, listen_port=suggested)
    await dialog.start()
    assert dialog.values[CONF_LISTEN_PORT] > suggested


@pytest.mark.parametrize(
    ("typed", "place", "error"),
    [
        ({"host": "rfc2217://192.0.2.1"}, "host", "invalid_host"),
        ({"host": "192.0.2.1:70000"}, "host", "invalid_host"),
        ({"host": "[192.0.2.1]:502"}, "host", "invalid_host"),
        ({"listen_host": "192.0.2.1"}, "access", "address_not_here"),
        ({"listen_host": "here"}, "access", "invalid_listen_host"),
        ({"listen_host": "fe80::1"}, "access", "listen_host_needs_zone"),
        ({"listen_port": 70000}, "listen_port", "number_out_of_range"),
        ({"port": 0}, "port", "number_out_of_range"),
        ({"timeout": 0}, "connection", "number_out_of_range"),
        ({"allowed_networks": ["home"]}, "access", "invalid_allowed_networks"),
        ({"allowed_networks": []}, "access", "invalid_allowed_networks"),
        ({"protocol": "echo", "max_in_flight": 2}, "pool", "invalid_max_in_flight"),
    ],
)
async def test_what_cannot_be_used_is_told_where_it_stands(
    dialog: Dialog,
    device: ModbusDevice,
    typed: dict[str, Any],
    place: str,
    error: str,
) -> None:
    right = {"host": "127.0.0.1", "port": device.port, "listen_port": free_port()}
    right |= {"name": "Roof", "idle_timeout": 60}
    before = dialog.values
    page = await dialog.send(**right | typed)
    assert page["type"] is FORM
    assert page["errors"] == {place: error}
    sections = ("connection", "pool", "access")
    assert dialog.opened == [name for name in sections if name == place]
    # Nothing of what was typed is lost.
    assert dialog.values == before | right | typed
    page = await dialog.send(**{name: before[name] for name in typed} | right)
    assert page["type"] is CREATE_ENTRY
    assert page["title"] == "Roof"
    assert page["options"] == {"idle_timeout": 60}


async def test_a_pasted_address_of_a_web_page_is_a_host(
    dialog: Dialog, device: ModbusDevice
) -> None:
    page = await dialog.send(
        host="http://127.0.0.1/", port=device.port, listen_port=free_port()
    )
    assert page["type"] is CREATE_ENTRY
    assert page["data"][CONF_HOST] == "127.0.0.1"
    assert page["data"][CONF_PORT] == device.port


async def test_numbers_on_later_pages_are_bounded_too(
    dialog: Dialog, device: ModbusDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.silent_units = {1}
    typed = {"host": "127.0.0.1", "port": device.port, "listen_port": free_port()}
    page = await dialog.send(**typed, timeout=0.5)
    assert page["step_id"] == "identified"
    page = await dialog.send(unit_id=300)
    assert page["errors"] == {"unit_id": "number_out_of_range"}
    assert dialog.values["unit_id"] == 300
    page = await dialog.send(unit_id=0)
    assert page["type"] is CREATE_ENTRY

    monkeypatch.setattr(config_flow, "find_logger_serial", AsyncMock(return_value=0))
    await dialog.start()
    page = await dialog.send(host="127.0.0.1", port=1, upstream="solarman")
    assert page["step_id"] == "logger"
    page = await dialog.send(logger_serial=2**32)
    assert page["errors"] == {"logger_serial": "number_out_of_range"}
    assert dialog.values["logger_serial"] == 2**32


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show progress at once."""
    monkeypatch.setattr(progress, "SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
async def test_what_takes_its_time_shows_what_is_tried(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    device.silent_units = {1}
    page = await dialog.send(
        host="127.0.0.1", port=device.port, listen_port=free_port(), timeout=0.5
    )
    assert list(dict.fromkeys(dialog.progress)) == [
        "connecting",
        "asking",
        "trying_units",
    ]
    assert page["type"] is FORM
    assert page["step_id"] == "identified"


@pytest.mark.usefixtures("impatient")
async def test_errors_and_menus_come_after_progress_too(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice, taken: int
) -> None:
    typed = {"host": "127.0.0.1", "port": device.port}
    page = await dialog.send(**typed, listen_port=taken)
    assert page["errors"] == {"listen_port": "port_in_use"}
    device.silent = True
    page = await dialog.send(listen_port=free_port(), timeout=0.5)
    assert page["step_id"] == "silent"
    device.silent = False
    page = await dialog.choose("try_again")
    assert page["type"] is CREATE_ENTRY
    assert dialog.progress


@pytest.mark.usefixtures("impatient")
async def test_dialog_that_is_closed_meanwhile_ends_its_trial(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    device.silent = True
    flows = hass.config_entries.flow
    dialog = Dialog(hass)
    await dialog.start()
    sending = asyncio.ensure_future(
        dialog.send(host="127.0.0.1", port=device.port, listen_port=free_port())
    )
    await until(lambda: device.connection and dialog.progress)
    dialog.abandon()
    sending.cancel()
    with pytest.raises(UnknownFlow):
        await dialog.look_again()
    async with asyncio.timeout(3):  # by itself, it would wait for 5 s
        await until(lambda: device.connection is None)
    assert not flows.async_progress()


async def test_clients_may_only_read(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    hosts = await async_hosts_for_clients(hass, None)
    shown = dialog.page["description_placeholders"]["hosts"]
    assert all(f"`{host}`" in shown for host in hosts)
    assert dialog.values["clients_may"] == "read_and_write"
    typed = {"host": "127.0.0.1", "port": device.port, "listen_port": free_port()}
    page = await dialog.send(**typed, clients_may="read_only")
    assert page["type"] is CREATE_ENTRY
    assert page["options"] == {"write_rules": [{"action": "deny"}]}
    async with ModbusClient(page["data"][CONF_LISTEN_PORT]) as client:
        assert await client.ask(read()) == values()
        assert await client.ask(write(1, 2)) == exception(6, 1)


async def test_only_modbus_tells_reading_and_writing_apart(
    dialog: Dialog, device: ModbusDevice
) -> None:
    typed = {"host": "127.0.0.1", "port": device.port, "listen_port": free_port()}
    page = await dialog.send(**typed, protocol="echo", clients_may="read_only")
    assert page["errors"] == {"clients_may": "only_modbus_writes"}
    page = await dialog.send(protocol="modbus")
    assert page["type"] is CREATE_ENTRY


async def test_a_port_in_use(dialog: Dialog, device: ModbusDevice, taken: int) -> None:
    page = await dialog.send(host="127.0.0.1", port=device.port, listen_port=taken)
    assert page["type"] is FORM
    assert page["errors"] == {"listen_port": "port_in_use"}
    assert dialog.values["listen_port"] == taken
    assert device.requests == []
    suggestion = int(page["description_placeholders"]["suggestion"])
    page = await dialog.send(listen_port=suggestion)
    assert page["type"] is CREATE_ENTRY
    await assert_serves(suggestion)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EACCES, "port_not_permitted"), (errno.ENOBUFS, "cannot_listen")],
)
async def test_a_port_that_the_system_refuses(
    dialog: Dialog,
    device: ModbusDevice,
    number: int,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Which ports are privileged, and who may have them, differs between machines.
    loop = asyncio.get_running_loop()
    create_server = loop.create_server

    async def refuse(protocol: Any, host: Any, port: int, **more: Any) -> Any:
        if port == 502:
            raise OSError(number, os.strerror(number))
        return await create_server(protocol, host, port, **more)

    monkeypatch.setattr(loop, "create_server", refuse)
    page = await dialog.send(host="127.0.0.1", port=device.port, listen_port=502)
    assert page["type"] is FORM
    assert page["errors"] == {"listen_port": error}
    suggestion = int(page["description_placeholders"]["suggestion"])
    assert suggestion >= 5020
    page = await dialog.send(listen_port=free_port())
    assert page["type"] is CREATE_ENTRY


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(None, ""), (None, "127.0.0.1"), ("127.0.0.1", ""), ("127.0.0.1", "127.0.0.1")],
)
async def test_the_port_of_another_entry(
    hass: HomeAssistant,
    dialog: Dialog,
    device: ModbusDevice,
    theirs: str | None,
    ours: str,
) -> None:
    other = add_entry(hass, listen_host=theirs)
    port = other.data[CONF_LISTEN_PORT]
    page = await dialog.send(
        host="127.0.0.1", port=device.port, listen_port=port, listen_host=ours
    )
    assert page["type"] is FORM
    assert page["errors"] == {"listen_port": "port_of_entry"}
    assert page["description_placeholders"]["title"] == "Heat pump"
    assert int(page["description_placeholders"]["suggestion"]) > port
    page = await dialog.send(listen_port=free_port())
    assert page["type"] is CREATE_ENTRY


async def test_the_port_of_another_entry_at_another_address(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    other = add_entry(hass, listen_host="127.0.0.2")
    page = await dialog.send(
        host="127.0.0.1",
        port=device.port,
        listen_port=other.data[CONF_LISTEN_PORT],
        listen_host="127.0.0.1",
    )
    assert page["type"] is CREATE_ENTRY


@pytest.mark.parametrize("named", ["localhost", "0.0.0.0"])  # noqa: S104 - a device's
@pytest.mark.parametrize("listen_host", [None, "127.0.0.1"])
async def test_our_own_listener_is_no_device(
    hass: HomeAssistant,
    dialog: Dialog,
    device: ModbusDevice,
    listen_host: str | None,
    named: str,
) -> None:
    other = add_entry(
        hass,
        disabled=False,
        listen_host=listen_host,
        host="127.0.0.1",
        port=device.port,
    )
    assert await hass.config_entries.async_setup(other.entry_id)
    page = await dialog.send(
        host=named, port=other.data[CONF_LISTEN_PORT], listen_port=free_port()
    )
    assert page["type"] is FORM
    assert page["errors"] == {"host": "own_listener"}
    assert page["description_placeholders"]["title"] == "Heat pump"
    async with pymodbus_device(1) as port:
        page = await dialog.send(host="localhost", port=port)
        assert page["type"] is CREATE_ENTRY


async def test_a_device_at_the_port_number_of_our_own_listener(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    add_entry(hass, listen_host="127.0.0.2", listen_port=device.port)
    page = await dialog.send(
        host="127.0.0.1", port=device.port, listen_port=free_port()
    )
    assert page["type"] is CREATE_ENTRY


@pytest.mark.parametrize("whose", ["another entry's", "its own"])
async def test_a_device_elsewhere_may_have_the_port_number_of_a_listener(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice, whose: str
) -> None:
    port, listen_port = free_port(), free_port()
    if whose == "its own":
        listen_port = port
    else:
        add_entry(hass, listen_port=port)
    page = await dialog.send(host="fe80::1%nowhere", port=port, listen_port=listen_port)
    assert page["type"] is MENU
    assert page["step_id"] == "unknown_host"
    await dialog.choose("change")
    page = await dialog.send(host="localhost", port=device.port)
    assert page["type"] is CREATE_ENTRY


async def test_a_multiplexer_does_not_connect_to_itself(
    dialog: Dialog, device: ModbusDevice
) -> None:
    port = free_port()
    page = await dialog.send(host="localhost", port=port, listen_port=port)
    assert page["type"] is FORM
    assert page["errors"] == {"host": "itself"}
    page = await dialog.send(port=device.port)
    assert page["type"] is CREATE_ENTRY


async def test_a_device_is_shared_once(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    add_entry(hass, host="localhost", port=device.port)
    page = await dialog.send(
        host="LocalHost", port=device.port, listen_port=free_port()
    )
    assert page["type"] is ABORT
    assert page["reason"] == "already_configured"
    assert device.requests == []


# A device that does not answer


async def test_a_device_that_is_switched_on_late(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    await device.stop()
    page = await dialog.send(
        host="127.0.0.1", port=device.port, listen_port=free_port(), name="Roof"
    )
    for _ in range(2):
        assert page["type"] is MENU
        assert page["step_id"] == "refused"
        assert page["menu_options"] == ["try_again", "change", "add_anyway"]
        placeholders = page["description_placeholders"]
        assert placeholders["endpoint"] == f"127.0.0.1:{device.port}"
        page = await dialog.choose("try_again")
    assert (await dialog.look_again())["step_id"] == page["step_id"]
    await device.start()
    page = await dialog.choose("try_again")
    assert page["type"] is CREATE_ENTRY
    assert page["title"] == "Roof"
    assert page["description"] == "answered"


async def test_a_device_that_sleeps_can_be_added(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    await device.stop()
    listen_port = free_port()
    page = await dialog.send(
        host="127.0.0.1", port=device.port, listen_port=listen_port, timeout=6
    )
    assert page["type"] is MENU
    page = await dialog.choose("add_anyway")
    assert page["type"] is CREATE_ENTRY
    assert page["description"] == "unanswered"
    assert page["options"] == {"timeout": 6}
    assert page["result"].state is ConfigEntryState.LOADED
    await device.start()
    await assert_serves(listen_port)


async def test_a_device_that_says_nothing(dialog: Dialog, device: ModbusDevice) -> None:
    device.silent = True
    page = await dialog.send(
        host="127.0.0.1",
        port=device.port,
        listen_port=free_port(),
        timeout=0.3,
        unit_id=4,
    )
    assert page["type"] is MENU
    assert page["step_id"] == "silent"
    assert page["description_placeholders"]["unit"] == "4"
    device.silent = False
    page = await dialog.choose("try_again")
    assert page["type"] is CREATE_ENTRY


async def test_a_device_whose_slot_is_taken(
    dialog: Dialog, device: ModbusDevice
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", device.port)
    await until(lambda: device.connection)
    page = await dialog.send(
        host="127.0.0.1", port=device.port, listen_port=free_port()
    )
    assert page["type"] is MENU
    assert page["step_id"] == "closed"
    writer.close()
    await until(lambda: device.connection is None)
    page = await dialog.choose("try_again")
    assert page["type"] is CREATE_ENTRY


@pytest.mark.parametrize(
    ("host", "step_id"),
    [("fe80::1%nowhere", "unknown_host"), ("127.255.255.255", "unreachable")],
)
async def test_a_host_that_cannot_be_found(
    dialog: Dialog, device: ModbusDevice, host: str, step_id: str
) -> None:
    before = dialog.values
    typed = {"host": host, "port": device.port, "listen_port": free_port(), "name": "A"}
    page = await dialog.send(**typed)
    assert page["type"] is MENU
    assert page["step_id"] == step_id
    page = await dialog.choose("change")
    assert page["type"] is FORM
    assert not page["errors"]
    assert dialog.values == before | typed
    page = await dialog.send(host="127.0.0.1")
    assert page["type"] is CREATE_ENTRY


async def test_a_device_that_speaks_something_else(
    dialog: Dialog, device: ModbusDevice
) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        page = await dialog.send(host="127.0.0.1", port=port, listen_port=free_port())
    assert page["type"] is MENU
    assert page["step_id"] == "not_understood"
    await dialog.choose("change")
    page = await dialog.send(port=device.port)
    assert page["type"] is CREATE_ENTRY


@pytest.mark.parametrize(("known", "name"), [(True, "Sofa Modbus"), (False, "sofa")])
async def test_a_device_that_somebody_here_uses(
    hass: HomeAssistant,
    dialog: Dialog,
    device: ModbusDevice,
    known: bool,
    name: str,
) -> None:
    if known:
        module = MockModule("sofa", partial_manifest={"name": "Sofa Modbus"})
        mock_integration(hass, module)
    add_neighbour(hass, "Living room", "LOCALHOST", device.port)
    _, writer = await asyncio.open_connection("127.0.0.1", device.port)
    await until(lambda: device.connection)
    page = await dialog.send(
        host="localhost", port=device.port, listen_port=free_port()
    )
    assert page["type"] is MENU
    assert page["step_id"] == "in_use_here"
    assert page["description_placeholders"]["names"] == f"Living room ({name})"
    assert (await dialog.look_again())["step_id"] == page["step_id"]
    writer.close()
    await until(lambda: device.connection is None)
    page = await dialog.choose("try_again")
    assert page["type"] is CREATE_ENTRY


async def test_another_dialog_was_faster(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    device.silent = True
    page = await dialog.send(
        host="localhost", port=device.port, listen_port=free_port(), timeout=0.3
    )
    assert page["type"] is MENU
    add_entry(hass, host="localhost", port=device.port)
    page = await dialog.choose("add_anyway")
    assert page["type"] is ABORT
    assert page["reason"] == "already_configured"


# Suggestions


def host_selector(dialog: Dialog) -> SelectSelector | TextSelector:
    """Give what the form asks the host with."""
    selector: SelectSelector | TextSelector
    selector = dialog.page["data_schema"].schema[CONF_HOST]
    return selector


async def test_nothing_to_suggest(dialog: Dialog) -> None:
    assert isinstance(host_selector(dialog), TextSelector)


async def test_suggestions_come_from_other_integrations(
    hass: HomeAssistant, dialog: Dialog, device: ModbusDevice
) -> None:
    add_neighbour(hass, "Broker", "broker.local", 1883)
    add_neighbour(hass, "Meter", "192.0.2.3", 502)
    add_neighbour(hass, "Roof", "127.0.0.1", device.port)
    add_neighbour(hass, "Heat pump, direct", "192.0.2.7", 502)
    ours = add_entry(hass, "Heat pump")  # at 192.0.2.7
    add_neighbour(hass, "Through us", "127.0.0.1", ours.data[CONF_LISTEN_PORT])
    await dialog.start()
    selector = host_selector(dialog)
    assert isinstance(selector, SelectSelector)
    assert dialog.values[CONF_HOST] == ""  # None is chosen.
    assert selector.config["options"] == [
        {"value": "192.0.2.3:502", "label": "Meter (192.0.2.3:502)"},
        {"value": "broker.local:1883", "label": "Broker (broker.local:1883)"},
        {
            "value": f"127.0.0.1:{device.port}",
            "label": f"Roof (127.0.0.1:{device.port})",
        },
    ]
    page = await dialog.send(host=f"127.0.0.1:{device.port}", listen_port=free_port())
    assert page["type"] is CREATE_ENTRY
    assert page["data"][CONF_HOST] == "127.0.0.1"
    assert page["data"][CONF_PORT] == device.port


# Reconfiguring


@pytest.fixture
async def running(hass: HomeAssistant, device: ModbusDevice) -> MockConfigEntry:
    """Return an entry that runs and holds the device's only slot."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Roof",
        data={
            CONF_PROTOCOL: "modbus",
            CONF_HOST: "127.0.0.1",
            CONF_PORT: device.port,
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: free_port(),
            CONF_PAUSED: False,
        },
        options={"timeout": 0.5},
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: device.connection)
    return entry


@pytest.fixture
def states(hass: HomeAssistant, running: MockConfigEntry) -> list[ConfigEntryState]:
    """Return the states that the running entry goes through from now on."""
    states: list[ConfigEntryState] = []
    running.async_on_state_change(lambda: states.append(running.state))
    return states


async def reconfigure(hass: HomeAssistant, entry: MockConfigEntry) -> Dialog:
    """Open the dialog that reconfigures an entry."""
    dialog = Dialog(hass)
    page = await dialog.start(source=SOURCE_RECONFIGURE, entry_id=entry.entry_id)
    assert page["type"] is FORM
    assert page["step_id"] == "reconfigure"
    return dialog


def assert_success(dialog: Dialog) -> None:
    """Check that the dialog ended well."""
    assert dialog.page["type"] is ABORT
    assert dialog.page["reason"] == "reconfigure_successful"


async def test_the_form_shows_what_is_set(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    dialog = await reconfigure(hass, running)
    assert dialog.values == {
        CONF_PROFILE: "generic",
        CONF_UPSTREAM: "tcp",
        "device": "",
        "baudrate": 9600,
        "parity": "none",
        "stopbits": 1,
        "dial_in_port": 5502,
        "dial_in_device": "",
        "tls_upstream": "off",
        "tls_ca": "",
        "tls_server_name": "",
        "tls_certificate": "",
        "tls_key": "",
        **{name: value for name, value in running.data.items() if name != CONF_PAUSED},
    }


async def test_the_same_device_under_another_name(
    hass: HomeAssistant,
    running: MockConfigEntry,
    device: ModbusDevice,
    states: list[ConfigEntryState],
) -> None:
    """Its only slot is free while it is tried, or it would hang up."""
    dialog = await reconfigure(hass, running)
    await dialog.send(host="localhost")
    assert_success(dialog)
    # It was unloaded for that once, and not again to take over what is new.
    await hass.async_block_till_done()
    assert states.count(ConfigEntryState.NOT_LOADED) == 1
    assert_state(running, ConfigEntryState.LOADED)
    assert running.data[CONF_HOST] == "localhost"
    assert running.data[CONF_PAUSED] is False
    assert running.options == {"timeout": 0.5}
    await assert_serves(running.data[CONF_LISTEN_PORT])


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
async def test_another_device_is_tried_while_the_old_one_is_served(
    hass: HomeAssistant,
    running: MockConfigEntry,
    device: ModbusDevice,
    states: list[ConfigEntryState],
    address: str,
) -> None:
    other = ModbusDevice()
    await other.start(address)
    other.delay = 0.05
    async with ModbusClient(running.data[CONF_LISTEN_PORT]) as client:
        dialog = await reconfigure(hass, running)
        trial = asyncio.ensure_future(dialog.send(host=address, port=other.port))
        await until(lambda: other.requests)
        assert await client.ask(read(7)) == values(7)
        assert states == []
        await trial
    assert_success(dialog)
    await hass.async_block_till_done()
    await until(lambda: other.connection)
    await assert_serves(running.data[CONF_LISTEN_PORT])
    assert running.data[CONF_HOST] == address
    assert await hass.config_entries.async_unload(running.entry_id)
    await other.stop()


async def test_another_device_that_does_not_answer_disturbs_nobody(
    hass: HomeAssistant, running: MockConfigEntry, states: list[ConfigEntryState]
) -> None:
    async with ModbusClient(running.data[CONF_LISTEN_PORT]) as client:
        dialog = await reconfigure(hass, running)
        page = await dialog.send(host="127.0.0.2", port=free_port())
        assert page["step_id"] == "refused"
        await dialog.choose("change")
        page = await dialog.send(host="fe80::1%nowhere")
        assert page["step_id"] == "unknown_host"
        assert states == []
        assert await client.ask(read()) == values()


async def test_another_port_of_a_device_with_one_slot(
    hass: HomeAssistant,
    running: MockConfigEntry,
    device: ModbusDevice,
    states: list[ConfigEntryState],
) -> None:
    """It is asked again once the slot is free."""
    async with device.also() as port:
        dialog = await reconfigure(hass, running)
        await dialog.send(port=port)
        assert_success(dialog)
        await hass.async_block_till_done()
        assert states.count(ConfigEntryState.NOT_LOADED) == 1
        await until(lambda: device.connection)
        await assert_serves(running.data[CONF_LISTEN_PORT])
        assert await hass.config_entries.async_unload(running.entry_id)


async def test_what_is_being_set_up_is_waited_for(
    hass: HomeAssistant, running: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of options may have caused that a moment ago; its port is ours."""
    listens, go_on = asyncio.Event(), asyncio.Event()
    start = TcpMultiplexerCoordinator.async_start

    async def start_slowly(coordinator: TcpMultiplexerCoordinator) -> None:
        await start(coordinator)
        listens.set()
        await go_on.wait()

    monkeypatch.setattr(TcpMultiplexerCoordinator, "async_start", start_slowly)
    dialog = await reconfigure(hass, running)
    port = running.data[CONF_LISTEN_PORT]
    hass.config_entries.async_schedule_reload(running.entry_id)
    async with asyncio.timeout(5):
        await listens.wait()
    sending = asyncio.ensure_future(dialog.send())
    done, _ = await asyncio.wait((sending,), timeout=0.2)
    go_on.set()
    assert not done
    await sending
    assert_success(dialog)
    await hass.async_block_till_done()
    await assert_serves(port)


async def test_another_local_port_needs_no_trial_of_the_device(
    hass: HomeAssistant, running: MockConfigEntry, device: ModbusDevice
) -> None:
    old, new = running.data[CONF_LISTEN_PORT], free_port()
    unloaded_for: list[int] = []

    def note() -> None:
        if running.state is ConfigEntryState.NOT_LOADED:
            unloaded_for.append(running.data[CONF_LISTEN_PORT])

    running.async_on_state_change(note)
    dialog = await reconfigure(hass, running)
    await dialog.send(listen_port=new)
    assert_success(dialog)
    await hass.async_block_till_done()
    # Not for the trial, but for what was saved: whoever listens to updates did it.
    assert unloaded_for == [new]
    # It was asked who it is, on the connection that is there.
    assert {request[1] for request in device.requests} == {0x2B, 3}
    await assert_serves(new)
    assert await try_listen("127.0.0.1", old) is None


async def test_the_same_port_at_other_addresses(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    dialog = await reconfigure(hass, running)
    await dialog.send(listen_host="")
    assert_success(dialog)
    assert running.data[CONF_LISTEN_HOST] is None
    await hass.async_block_till_done()
    await assert_serves(running.data[CONF_LISTEN_PORT])


async def test_nothing_changed_disturbs_nobody(
    hass: HomeAssistant,
    running: MockConfigEntry,
    states: list[ConfigEntryState],
) -> None:
    async with ModbusClient(running.data[CONF_LISTEN_PORT]) as client:
        dialog = await reconfigure(hass, running)
        await dialog.send()
        assert_success(dialog)
        await hass.async_block_till_done()
        assert states == []
        assert await client.ask(read()) == values()


async def test_an_error_in_the_form_disturbs_nobody(
    hass: HomeAssistant,
    running: MockConfigEntry,
    states: list[ConfigEntryState],
) -> None:
    other = add_entry(hass)
    dialog = await reconfigure(hass, running)
    page = await dialog.send(host="no/host")
    assert page["errors"] == {"host": "invalid_host"}
    page = await dialog.send(host="localhost", listen_host="here")
    assert page["errors"] == {"access": "invalid_listen_host"}
    page = await dialog.send(listen_host="", listen_port=other.data[CONF_LISTEN_PORT])
    assert page["errors"] == {"listen_port": "port_of_entry"}
    assert dialog.values["host"] == "localhost"
    assert states == []
    await dialog.send(listen_port=free_port())
    assert_success(dialog)
    await hass.async_block_till_done()
    await assert_serves(running.data[CONF_LISTEN_PORT])


async def test_an_error_of_the_trial_leaves_it_running(
    hass: HomeAssistant, running: MockConfigEntry, taken: int
) -> None:
    dialog = await reconfigure(hass, running)
    page = await dialog.send(host="localhost", listen_port=taken)
    assert page["type"] is FORM
    assert page["errors"] == {"listen_port": "port_in_use"}
    assert_state(running, ConfigEntryState.LOADED)
    await assert_serves(running.data[CONF_LISTEN_PORT])
    await dialog.send(listen_port=int(page["description_placeholders"]["suggestion"]))
    assert_success(dialog)
    await hass.async_block_till_done()
    await assert_serves(running.data[CONF_LISTEN_PORT])


async def test_a_device_that_is_not_there_leaves_it_running(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    dialog = await reconfigure(hass, running)
    before = dict(running.data)
    page = await dialog.send(port=free_port())
    for _ in range(2):
        assert page["type"] is MENU
        assert page["step_id"] == "refused"
        assert page["menu_options"] == ["try_again", "change", "save_anyway"]
        assert_state(running, ConfigEntryState.LOADED)
        await assert_serves(running.data[CONF_LISTEN_PORT])
        page = await dialog.choose("try_again")
    dialog.abandon()
    await hass.async_block_till_done()
    assert running.data == before
    assert_state(running, ConfigEntryState.LOADED)
    await assert_serves(running.data[CONF_LISTEN_PORT])


async def test_a_device_that_is_not_there_yet(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    other = ModbusDevice()
    other.port = free_port()
    dialog = await reconfigure(hass, running)
    page = await dialog.send(port=other.port)
    assert page["type"] is MENU
    await dialog.choose("save_anyway")
    assert_success(dialog)
    await hass.async_block_till_done()
    assert running.data[CONF_PORT] == other.port
    assert_state(running, ConfigEntryState.LOADED)
    await other.start()
    await until(lambda: other.connection)
    await assert_serves(running.data[CONF_LISTEN_PORT])
    await other.stop()


async def test_changed_after_a_look_at_the_menu(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    dialog = await reconfigure(hass, running)
    page = await dialog.send(port=free_port())
    assert page["type"] is MENU
    page = await dialog.choose("change")
    assert page["step_id"] == "reconfigure"
    async with pymodbus_device(1000, 1001) as port:
        await dialog.send(port=port)
        assert_success(dialog)
        await hass.async_block_till_done()
        await assert_serves(running.data[CONF_LISTEN_PORT])


async def test_another_entry_s_device(
    hass: HomeAssistant, running: MockConfigEntry, states: list[ConfigEntryState]
) -> None:
    other = add_entry(hass)
    dialog = await reconfigure(hass, running)
    page = await dialog.send(host=other.data[CONF_HOST], port=other.data[CONF_PORT])
    assert page["type"] is ABORT
    assert page["reason"] == "already_configured"
    assert states == []


async def test_an_entry_whose_port_is_taken(
    hass: HomeAssistant, device: ModbusDevice, taken: int
) -> None:
    """It waits for its next attempt: what is saved is tried at once."""
    entry = add_entry(
        hass, disabled=False, host="127.0.0.1", port=device.port, listen_port=taken
    )
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert_state(entry, ConfigEntryState.SETUP_RETRY)
    dialog = await reconfigure(hass, entry)
    assert dialog.values["listen_port"] > taken  # a free one is proposed
    page = await dialog.send(listen_port=taken)
    assert page["type"] is FORM
    assert page["errors"] == {"listen_port": "port_in_use"}
    assert_state(entry, ConfigEntryState.SETUP_RETRY)
    new = free_port()
    await dialog.send(listen_port=new)
    assert_success(dialog)
    assert_state(entry, ConfigEntryState.LOADED)
    await assert_serves(new)


@pytest.mark.parametrize(
    ("protocol", "options", "new", "error"),
    [
        ("modbus", {"max_in_flight": 4}, "echo", "invalid_max_in_flight"),
        ("mpu", {"probe": b"0004ping".hex()}, "iso8583", "invalid_probe"),
    ],
)
async def test_options_that_do_not_fit_the_new_protocol(  # noqa: PLR0917
    hass: HomeAssistant,
    device: ModbusDevice,
    protocol: str,
    options: dict[str, Any],
    new: str,
    error: str,
) -> None:
    entry = add_entry(
        hass, disabled=False, host="127.0.0.1", port=device.port, protocol=protocol
    )
    hass.config_entries.async_update_entry(
        entry, options=options | {"connect_on_demand": True}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    dialog = await reconfigure(hass, entry)
    page = await dialog.send(protocol=new)
    assert page["type"] is FORM
    assert page["errors"] == {"base": error}
    await dialog.send(protocol=protocol)
    assert_success(dialog)
    assert_state(entry, ConfigEntryState.LOADED)


async def test_an_option_that_is_out_of_its_bounds(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = add_entry(hass, disabled=False, host="127.0.0.1", port=device.port)
    hass.config_entries.async_update_entry(entry, options={"timeout": -1})
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert_state(entry, ConfigEntryState.SETUP_ERROR)
    dialog = await reconfigure(hass, entry)
    page = await dialog.send()
    assert page["type"] is FORM
    assert page["errors"] == {"base": "invalid_value"}
    assert page["description_placeholders"]["field"] == "timeout"
    hass.config_entries.async_update_entry(entry, options={})
    await dialog.send()
    assert_success(dialog)
    assert_state(entry, ConfigEntryState.LOADED)
    await assert_serves(entry.data[CONF_LISTEN_PORT])
