"""Further listeners of an entry: added, used, changed and removed in the options."""

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
    CONF_MORE_LISTENERS,
)
from custom_components.tcp_multiplexer.local_sockets import try_listen, which_failed
from custom_components.tcp_multiplexer.multiplexer import ListenerSettings, Settings
from tests.engine.certificates import Authority
from tests.waiting import until

from .dialogs import Dialog
from .peers import ModbusDevice
from .ports import free_port
from .test_config_flow import CREATE_ENTRY, FORM, MENU, add_entry
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


async def open_options(
    hass: HomeAssistant, entry: MockConfigEntry, option: str
) -> Dialog:
    """Open the options, and choose from their menu."""
    dialog = Dialog(hass, options_of=entry.entry_id)
    page = await dialog.start()
    assert page["type"] is MENU
    assert page["step_id"] == "init"
    page = await dialog.choose(option)
    assert page["type"] is FORM
    assert not page["errors"]
    return dialog


async def add_listener(
    hass: HomeAssistant, entry: MockConfigEntry, **typed: Any
) -> int:
    """Add a listener; give its port."""
    dialog = await open_options(hass, entry, "add_listener")
    port: int = typed.setdefault(CONF_LISTEN_PORT, free_port())
    page = await dialog.send(**typed)
    assert page["type"] is CREATE_ENTRY, page["errors"]
    await hass.async_block_till_done()
    assert entry.state is ConfigEntryState.LOADED
    return port


async def test_clients_that_speak_rtu_only(
    hass: HomeAssistant, running: MockConfigEntry, device: ModbusDevice
) -> None:
    dialog = await open_options(hass, running, "add_listener")
    # What is proposed is free, and where the first one is.
    suggested = dialog.values[CONF_LISTEN_PORT]
    assert suggested > running.data[CONF_LISTEN_PORT]
    assert await try_listen(None, suggested) is None
    assert dialog.values[CONF_LISTEN_HOST] == "127.0.0.1"

    port = await add_listener(hass, running, client_framing="rtu")
    assert running.options == {
        CONF_MORE_LISTENERS: [
            {"host": "127.0.0.1", "port": port, "framing": "rtu", "tls": None}
        ]
    }
    client = AsyncModbusTcpClient("127.0.0.1", port=port, framer=FramerType.RTU)
    await client.connect()
    answer = await client.read_holding_registers(7, count=2)
    client.close()
    assert answer.registers == [1007, 1008]
    await assert_serves(running.data[CONF_LISTEN_PORT])
    # Other integrations are given the first one: it speaks what they speak.
    endpoint = async_get_endpoint(hass, "127.0.0.1", device.port)
    assert endpoint == ("127.0.0.1", running.data[CONF_LISTEN_PORT])
    dialog = Dialog(hass, options_of=running.entry_id)
    page = await dialog.start()
    assert page["description_placeholders"]["listeners"] == (
        f"- 127.0.0.1:{running.data[CONF_LISTEN_PORT]} (Modbus/TCP)\n"
        f"- 127.0.0.1:{port} (Modbus RTU over TCP)"
    )


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
    port = await add_listener(
        hass,
        running,
        listen_host="",
        tls_clients="client_certificates",
        tls_certificate=await upload(server.certificate),
        tls_key=await upload(server.key),
        tls_client_ca=await upload(authority.certificate),
    )
    (stored,) = running.options[CONF_MORE_LISTENERS]
    assert stored["host"] is None
    assert stored["tls"]["client_ca"] == authority.certificate
    context = ssl.create_default_context(cadata=authority.certificate)
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        await assert_serves(port, context)
    path = tmp_path / "client.pem"
    path.write_text(client.certificate + client.key)
    context.load_cert_chain(path)
    await assert_serves(port, context)

    told = await diagnostics(hass, hass_client, running)
    (listener,) = told["entry"]["options"][CONF_MORE_LISTENERS]
    assert listener["tls"] == REDACTED
    assert "BEGIN" not in str(told)

    dialog = await open_options(hass, running, "change_listener")
    assert dialog.page["step_id"] == "listener"  # There is one only.
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
    assert page["type"] is CREATE_ENTRY
    await hass.async_block_till_done()
    stored = {**stored, "port": new, "tls": {**stored["tls"], "client_ca": ""}}
    assert running.options[CONF_MORE_LISTENERS] == [stored]
    assert await try_listen(None, port) is None
    await assert_serves(new, ssl.create_default_context(cadata=authority.certificate))
    dialog = Dialog(hass, options_of=running.entry_id)
    page = await dialog.start()
    listeners = page["description_placeholders"]["listeners"]
    assert listeners.endswith(f"\n- {new} (Modbus/TCP, TLS)")

    dialog = await open_options(hass, running, "remove_listener")
    page = await dialog.send(listener=["0"])
    assert page["type"] is CREATE_ENTRY
    await hass.async_block_till_done()
    assert running.options == {}
    assert await try_listen(None, new) is None
    await assert_serves(running.data[CONF_LISTEN_PORT])


async def test_one_of_several(hass: HomeAssistant, running: MockConfigEntry) -> None:
    ports = [await add_listener(hass, running) for _ in range(3)]
    dialog = await open_options(hass, running, "change_listener")
    assert dialog.page["step_id"] == "change_listener"
    page = await dialog.send(listener="1")
    assert page["step_id"] == "listener"
    assert dialog.values[CONF_LISTEN_PORT] == ports[1]
    # To save what is there already needs no free port.
    page = await dialog.send()
    assert page["type"] is CREATE_ENTRY
    dialog = await open_options(hass, running, "change_listener")
    await dialog.send(listener="1")
    new = free_port()
    await dialog.send(listen_port=new)
    await hass.async_block_till_done()
    for port in (ports[0], new, ports[2]):
        await assert_serves(port)
    dialog = await open_options(hass, running, "remove_listener")
    assert dialog.values == {"listener": []}
    await dialog.send()
    assert len(running.options[CONF_MORE_LISTENERS]) == 3
    dialog = await open_options(hass, running, "remove_listener")
    await dialog.send(listener=["0", "2"])
    await hass.async_block_till_done()
    await assert_serves(new)
    assert [each["port"] for each in running.options[CONF_MORE_LISTENERS]] == [new]
    # Preferences leave them alone.
    dialog = await open_options(hass, running, "preferences")
    await dialog.send(timeout=7)
    assert running.options.keys() == {CONF_MORE_LISTENERS, "timeout"}


async def test_other_protocols_have_no_framing(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    hass.config_entries.async_update_entry(
        running, data={**running.data, "protocol": "echo"}
    )
    await hass.async_block_till_done()
    port = await add_listener(hass, running)
    assert running.options[CONF_MORE_LISTENERS][0]["framing"] == "tcp"
    dialog = await open_options(hass, running, "remove_listener")
    selector = dialog.page["data_schema"].schema["listener"]
    assert selector.config["options"] == [{"value": "0", "label": f"127.0.0.1:{port}"}]


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
        dialog = await open_options(hass, running, "add_listener")
        page = await dialog.send(**right | typed[wrong])
        assert page["type"] is FORM
        assert page["errors"] == {field: error}
        assert dialog.values == right | typed[wrong]
        assert running.options == {}
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
    port = await add_listener(hass, running)
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
        assert kind == "options_flow"
        dialog = Dialog(hass, options_of=running.entry_id)
        dialog.page = dict(await hass.config_entries.options.async_configure(flow_id))
        await dialog.choose("change_listener")
        page = await dialog.send()
        assert page["errors"] == {"listen_port": "port_in_use"}
        new = free_port()
        page = await dialog.send(listen_port=new)
        assert page["type"] is CREATE_ENTRY
    assert await hass.config_entries.async_reload(running.entry_id)
    assert not issues(hass)
    await assert_serves(new)


async def test_reconfiguring_knows_further_ports(
    hass: HomeAssistant, running: MockConfigEntry
) -> None:
    port = await add_listener(hass, running, client_framing="rtu")
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
