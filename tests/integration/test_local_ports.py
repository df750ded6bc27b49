"""Further local ports of an entry: added, used, changed and removed as subentries."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
import socket
import ssl
from typing import Any

from homeassistant.config_entries import SOURCE_RECONFIGURE, ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.tcp_multiplexer import async_get_endpoint
from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    SUBENTRY_LOCAL_PORT,
)
from custom_components.tcp_multiplexer.local_sockets import try_listen, which_failed
from custom_components.tcp_multiplexer.multiplexer import ListenerSettings, Settings
from tests.engine.certificates import Authority
from tests.waiting import until
from tests.wire import read, values

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port
from .subentries import add_local_port
from .test_config_flow import CREATE_ENTRY, FORM, add_entry
from .test_diagnostics import REDACTED, diagnostics
from .test_repairs import Repairs, issues, repairs
from .test_tls import Upload, assert_serves, authority, of_device, ours, upload

__all__ = ["authority", "of_device", "ours", "repairs", "upload"]


@pytest.fixture
async def running(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> MockConfigEntry:
    """Return an entry that runs at a known port."""
    data = {**entry.data, CONF_LISTEN_PORT: free_port()}
    hass.config_entries.async_update_entry(entry, data=data)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: device.connection)
    return entry


async def open_dialog(
    hass: HomeAssistant, entry: MockConfigEntry, subentry_id: str | None = None
) -> Dialog:
    """Open the dialog that adds a port, or changes that of a subentry."""
    dialog = Dialog(hass, subentry_of=(entry.entry_id, SUBENTRY_LOCAL_PORT))
    page = (
        await dialog.start(source=SOURCE_RECONFIGURE, subentry_id=subentry_id)
        if subentry_id
        else await dialog.start()
    )
    assert page["type"] is FORM
    assert page["step_id"] == ("reconfigure" if subentry_id else "user")
    assert not page["errors"]
    return dialog


async def add_port(hass: HomeAssistant, entry: MockConfigEntry, **typed: Any) -> int:
    """Add a port in its dialog; give its number."""
    dialog = await open_dialog(hass, entry)
    port: int = typed.setdefault(CONF_LISTEN_PORT, free_port())
    page = await dialog.send(**typed)
    assert page["type"] is CREATE_ENTRY, page["errors"]
    await hass.async_block_till_done()
    assert entry.state is ConfigEntryState.LOADED
    return port


def stored(entry: MockConfigEntry) -> list[dict[str, Any]]:
    """Return what is stored of the ports, in their order."""
    return [dict(subentry.data) for subentry in entry.subentries.values()]


def titles(entry: MockConfigEntry) -> list[str]:
    """Return what the ports are called."""
    return [subentry.title for subentry in entry.subentries.values()]


async def test_clients_that_speak_rtu_only(
    hass: HomeAssistant, running: MockConfigEntry, device: ModbusDevice
) -> None:
    dialog = await open_dialog(hass, running)
    # What is proposed is free, and where the first one is.
    suggested = dialog.values[CONF_LISTEN_PORT]
    assert suggested > running.data[CONF_LISTEN_PORT]
    assert await try_listen(None, suggested) is None
    assert dialog.values[CONF_LISTEN_HOST] == "127.0.0.1"

    async with ModbusClient(running.data[CONF_LISTEN_PORT]) as there:
        assert await there.ask(read()) == values()
        port = await add_port(hass, running, client_framing="rtu")
        assert await there.ask(read()) == values()  # It has noticed nothing.
    assert stored(running) == [
        {"host": "127.0.0.1", "port": port, "framing": "rtu", "tls": None}
    ]
    assert titles(running) == [f"127.0.0.1:{port} (Modbus RTU over TCP)"]
    client = AsyncModbusTcpClient("127.0.0.1", port=port, framer=FramerType.RTU)
    await client.connect()
    answer = await client.read_holding_registers(7, count=2)
    client.close()
    assert answer.registers == [1007, 1008]
    # Other integrations are given the first one: it speaks what they speak.
    endpoint = async_get_endpoint(hass, "127.0.0.1", device.port)
    assert endpoint == ("127.0.0.1", running.data[CONF_LISTEN_PORT])


async def test_clients_with_certificates(  # noqa: PLR0917
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    running: MockConfigEntry,
    authority: Authority,
    upload: Upload,
    tmp_path: Path,
) -> None:
    """Added, used, changed without new files, and removed."""
    # In debug mode asyncio reports each handshake that fails to Home Assistant.
    asyncio.get_running_loop().set_debug(False)
    server, client = authority.issue("127.0.0.1"), authority.issue("client.example")
    port = await add_port(
        hass,
        running,
        listen_host="",
        tls_clients="client_certificates",
        tls_certificate=await upload(server.certificate),
        tls_key=await upload(server.key),
        tls_client_ca=await upload(authority.certificate),
    )
    (before,) = stored(running)
    assert before["host"] is None
    assert before["tls"]["client_ca"] == authority.certificate
    assert titles(running) == [f"{port} (Modbus/TCP, TLS)"]
    context = ssl.create_default_context(cadata=authority.certificate)
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        await assert_serves(port, context)
    path = tmp_path / "client.pem"
    path.write_text(client.certificate + client.key)
    context.load_cert_chain(path)
    await assert_serves(port, context)

    told = await diagnostics(hass, hass_client, running)
    (subentry,) = told["entry"]["subentries"]
    assert subentry["data"]["tls"] == REDACTED
    assert "BEGIN" not in str(told)

    (subentry_id,) = running.subentries
    dialog = await open_dialog(hass, running, subentry_id)
    assert dialog.values == {
        CONF_LISTEN_PORT: port,
        "client_framing": "tcp",
        "tls_clients": "client_certificates",
        # Nothing of the files is shown.
        "tls_certificate": None,
        "tls_key": None,
        "tls_client_ca": None,
        CONF_LISTEN_HOST: "",
    }
    new = free_port()
    page = await dialog.send(listen_port=new, tls_clients="any_client")
    assert page["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    after = {**before, "port": new, "tls": {**before["tls"], "client_ca": ""}}
    assert stored(running) == [after]
    assert titles(running) == [f"{new} (Modbus/TCP, TLS)"]
    assert await try_listen(None, port) is None
    await assert_serves(new, ssl.create_default_context(cadata=authority.certificate))

    hass.config_entries.async_remove_subentry(running, subentry_id)
    await hass.async_block_till_done()
    assert await try_listen(None, new) is None
    await assert_serves(running.data[CONF_LISTEN_PORT])


async def test_only_the_clients_of_a_port_notice_its_changes(
    hass: HomeAssistant, running: MockConfigEntry, device: ModbusDevice
) -> None:
    ports = [await add_port(hass, running) for _ in range(3)]
    connection = device.connection
    async with (
        ModbusClient(running.data[CONF_LISTEN_PORT]) as main,
        ModbusClient(ports[0]) as first,
        ModbusClient(ports[1]) as second,
        ModbusClient(ports[2]) as third,
    ):
        clients = [main, first, second, third]
        for client in clients:
            assert await client.ask(read()) == values()
        first_id, second_id, _ = running.subentries
        dialog = await open_dialog(hass, running, second_id)
        assert dialog.values[CONF_LISTEN_PORT] == ports[1]
        # To save what is there already needs no free port, and changes nothing.
        page = await dialog.send()
        assert page["reason"] == "reconfigure_successful"
        for client in clients:
            assert await client.ask(read()) == values()
        dialog = await open_dialog(hass, running, second_id)
        new = free_port()
        await dialog.send(listen_port=new)
        assert await second.closed()
        hass.config_entries.async_remove_subentry(running, first_id)
        assert await first.closed()
        await hass.async_block_till_done()
        for client in (main, third):
            assert await client.ask(read()) == values()
        for port in (new, ports[2]):
            await assert_serves(port)
        assert await try_listen(None, ports[0]) is None
        assert device.connection is connection  # It was not set up anew.


async def test_the_listen_address_names_further_ports(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    def shown() -> Any:
        state = hass.states.get("sensor.inverter_listen_address")
        assert state
        main = f"127.0.0.1:{running.data[CONF_LISTEN_PORT]}"
        assert state.state == main
        assert state.attributes["addresses"] == [main]
        return state.attributes.get("further_addresses")

    assert shown() is None
    port = await add_port(hass, running, client_framing="solarman")
    tcp = await add_port(hass, running)
    further = [f"127.0.0.1:{port} (Solarman V5)", f"127.0.0.1:{tcp} (Modbus/TCP)"]
    assert shown() == further
    assert await hass.config_entries.async_reload(running.entry_id)
    assert shown() == further
    for subentry_id in tuple(running.subentries):
        hass.config_entries.async_remove_subentry(running, subentry_id)
    await hass.async_block_till_done()
    assert shown() is None


async def test_a_port_that_is_taken_at_the_last_moment(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    """Setting the entry up anew finds out, says so, and tries again."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        add_local_port(hass, running, port)
        await hass.async_block_till_done()
        await until(lambda: running.state is ConfigEntryState.SETUP_RETRY)
        placeholders = issues(hass)["port_taken"].translation_placeholders
        assert placeholders
        assert placeholders["port"] == str(port)
    assert await hass.config_entries.async_reload(running.entry_id)
    await assert_serves(port)


async def test_other_protocols_have_no_framing(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    hass.config_entries.async_update_entry(
        running, data={**running.data, "protocol": "echo"}
    )
    await hass.async_block_till_done()
    port = await add_port(hass, running)
    assert stored(running)[0]["framing"] == "tcp"
    assert titles(running) == [f"127.0.0.1:{port}"]


@pytest.mark.parametrize(
    ("wrong", "field", "error"),
    [
        ("another entry's", "listen_port", "port_of_entry"),
        ("its own", "listen_port", "port_of_listener"),
        ("a program's", "listen_port", "port_in_use"),
        ("the device's", "listen_port", "listener_is_device"),
        ("elsewhere", "listen_host", "address_not_here"),
        ("no address", "listen_host", "invalid_listen_host"),
        ("no files", "tls_certificate", "tls_files_missing"),
        ("a key alone", "tls_certificate", "tls_certificate_missing"),
        ("no key", "tls_key", "tls_key_missing"),
        ("no CA", "tls_client_ca", "tls_client_ca_missing"),
        ("CA not PEM", "tls_client_ca", "tls_client_ca_not_pem"),
    ],
)
async def test_what_cannot_be_used_is_told_where_it_stands(  # noqa: PLR0917
    hass: HomeAssistant,
    running: MockConfigEntry,
    device: ModbusDevice,
    authority: Authority,
    upload: Upload,
    wrong: str,
    field: str,
    error: str,
) -> None:
    pair = authority.issue("127.0.0.1")
    other = add_entry(hass)
    right = {
        "listen_port": free_port(),
        "listen_host": "127.0.0.1",
        "client_framing": "rtu",
        "tls_clients": "client_certificates",
        "tls_certificate": await upload(pair.certificate),
        "tls_key": await upload(pair.key),
        "tls_client_ca": await upload(authority.certificate),
    }
    with socket.create_server(("127.0.0.1", 0)) as program:
        typed: dict[str, dict[str, Any]] = {
            "another entry's": {"listen_port": other.data[CONF_LISTEN_PORT]},
            "its own": {"listen_port": running.data[CONF_LISTEN_PORT]},
            "a program's": {"listen_port": program.getsockname()[1]},
            "the device's": {"listen_port": device.port},
            "elsewhere": {"listen_host": "192.0.2.1"},
            "no address": {"listen_host": "here"},
            "no files": {"tls_certificate": "", "tls_key": ""},
            "a key alone": {"tls_certificate": ""},
            "no key": {"tls_key": ""},
            "no CA": {"tls_client_ca": ""},
            "CA not PEM": {"tls_client_ca": await upload("none")},
        }
        dialog = await open_dialog(hass, running)
        page = await dialog.send(**right | typed[wrong])
        assert page["type"] is FORM
        in_section = field.startswith("tls_")
        assert page["errors"] == {"tls" if in_section else field: error}
        assert dialog.opened == (["tls"] if in_section else [])
        assert dialog.values == right | typed[wrong]
        assert not running.subentries
        assert running.state is ConfigEntryState.LOADED
        page = await dialog.send(**right)
        assert page["type"] is CREATE_ENTRY
    await hass.async_block_till_done()
    assert running.state is ConfigEntryState.LOADED


async def test_a_further_port_that_is_taken(
    hass: HomeAssistant,
    running: MockConfigEntry,
    issue_registry: ir.IssueRegistry,
    repairs: Repairs,
) -> None:
    """The repair names it, and leads to where it can be changed."""
    port = await add_port(hass, running)
    await hass.config_entries.async_unload(running.entry_id)
    with socket.create_server(("127.0.0.1", port)):
        assert not await hass.config_entries.async_setup(running.entry_id)
        assert running.state is ConfigEntryState.SETUP_RETRY
        issue = issues(hass)["port_taken"]
        assert issue.translation_placeholders
        assert issue.translation_placeholders["port"] == str(port)
        step = await repairs.fix(issue)
        assert step["type"] == "abort"
        kind, flow_id = step["next_flow"]
        assert kind == "config_subentries_flow"
        dialog = Dialog(hass, subentry_of=(running.entry_id, SUBENTRY_LOCAL_PORT))
        subentries = hass.config_entries.subentries
        dialog.page = dict(await subentries.async_configure(flow_id))
        new = dialog.values[CONF_LISTEN_PORT]
        assert new > port  # one that is free stands there
        page = await dialog.send(listen_port=port)
        assert page["errors"] == {"listen_port": "port_in_use"}
        page = await dialog.send(listen_port=new)
        assert page["reason"] == "reconfigure_successful"
    assert await hass.config_entries.async_reload(running.entry_id)
    assert not issues(hass)
    await assert_serves(new)


async def test_a_further_port_that_is_removed_instead(
    hass: HomeAssistant, running: MockConfigEntry, repairs: Repairs
) -> None:
    port = await add_port(hass, running)
    await hass.config_entries.async_unload(running.entry_id)
    with socket.create_server(("127.0.0.1", port)):
        assert not await hass.config_entries.async_setup(running.entry_id)
        (subentry_id,) = running.subentries
        hass.config_entries.async_remove_subentry(running, subentry_id)
        step = await repairs.fix(issues(hass)["port_taken"])
        assert (step["type"], step["reason"]) == ("abort", "cannot_reconfigure")


async def test_reconfiguring_knows_further_ports(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    port = await add_port(hass, running, client_framing="rtu")
    dialog = Dialog(hass)
    await dialog.start(source=SOURCE_RECONFIGURE, entry_id=running.entry_id)
    page = await dialog.send(listen_port=port)
    assert page["errors"] == {"listen_port": "port_of_listener"}
    page = await dialog.send(
        listen_port=running.data[CONF_LISTEN_PORT], host="localhost", port=port
    )
    assert page["errors"] == {"host": "itself"}
    page = await dialog.send(
        host="127.0.0.1", port=running.data["port"], protocol="echo"
    )
    assert page["errors"] == {"base": "invalid_more_listeners"}
    page = await dialog.send(protocol="modbus")
    assert page["reason"] == "reconfigure_successful"


@pytest.mark.parametrize("taken", [None, 0, 1, 2])
async def test_which_port_kept_it_from_starting(taken: int | None) -> None:
    """Asked a moment later, none may be to blame any more; then it is the first."""
    ports = [free_port() for _ in range(3)]
    first, *more = ports
    settings = Settings(
        host="192.0.2.1",
        listen_port=first,
        more_listeners=tuple(ListenerSettings(port=port) for port in more),
    )
    with ExitStack() as stack:
        if taken is not None:
            stack.enter_context(socket.create_server(("", ports[taken])))
        failed = await which_failed(settings)
    assert failed == (ports[taken or 0], bool(taken))
