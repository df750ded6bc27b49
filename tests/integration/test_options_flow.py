"""Changing preferences, through the flow manager, of an entry that runs."""

from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType, InvalidData
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.const import (
    CONF_ADDRESSES,
    CONF_ALLOW_SEND_REQUEST,
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_PROFILE,
    CONF_UPDATE_INTERVAL,
    DOMAIN,
)
from custom_components.tcp_multiplexer.multiplexer import DEFAULT_NETWORKS
from tests.rules import rule
from tests.wire import read, values, write

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port
from .subentries import add_client

FORM, CREATE_ENTRY = FlowResultType.FORM, FlowResultType.CREATE_ENTRY


async def running_entry(
    hass: HomeAssistant,
    device: ModbusDevice,
    protocol: str,
    *,
    minor_version: int = 1,
    **options: Any,
) -> MockConfigEntry:
    """Give an entry that runs."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        minor_version=minor_version,
        data={
            CONF_PROTOCOL: protocol,
            CONF_HOST: "127.0.0.1",
            CONF_PORT: device.port,
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: free_port(),
        },
        options=options,
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    return entry


async def open_options(hass: HomeAssistant, entry: MockConfigEntry) -> Dialog:
    """Open the dialog."""
    dialog = Dialog(hass, options_of=entry.entry_id)
    page = await dialog.start()
    assert page["type"] is FORM
    assert page["step_id"] == "preferences"
    assert not page["errors"]
    assert dialog.opened == []
    return dialog


async def test_the_form_shows_defaults_and_saving_them_stores_nothing(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    assert dialog.values == {
        "timeout": 5,
        "connect_delay": 0,
        "request_delay": 0,
        "connect_on_demand": False,
        "idle_timeout": 0,
        "max_lifetime": 0,
        "unit_id": 1,
        "reconnect_backoff": 1,
        "reconnect_backoff_max": 30,
        "health_check_interval": 30,
        "max_connections": 1,
        "max_in_flight": 1,
        "queue_size": 32,
        "on_failure": "exception",
        "share_reads": True,
        "cache_ttl": 0,
        "writes_first": True,
        "write_rules": [],
        "repeated_write_ttl": 0,
        "allowed_functions": "",
        "allowed_units": "",
        "max_read_registers": 125,
        "unit_map": "",
        "discard_first_read": False,
        "periodic_request": "",
        "periodic_interval": 60,
        "matching": "strict",
        "quiet": 1,
        "check_logger_serial": False,
        "allowed_networks": [str(network) for network in DEFAULT_NETWORKS],
        "max_clients": 1000,
        "client_idle_timeout": 0,
        CONF_UPDATE_INTERVAL: 10,
        CONF_ALLOW_SEND_REQUEST: False,
        "trace_size": 200,
    }
    page = await dialog.send()
    assert page["type"] is CREATE_ENTRY
    assert entry.options == {}


async def test_modbus_in_depth(hass: HomeAssistant, device: ModbusDevice) -> None:
    """What is typed as text is kept as numbers, obeyed, and shown again."""
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    page = await dialog.send(
        allowed_functions="3, 0x10 6",
        allowed_units="1, 10",
        unit_map="2=10",
        repeated_write_ttl=5,
        periodic_request=" unit=1 read=40608 ",
    )
    assert page["type"] is CREATE_ENTRY
    assert entry.options == {
        "allowed_functions": [3, 16, 6],
        "allowed_units": [1, 10],
        "unit_map": [[2, 10]],
        "repeated_write_ttl": 5,
        "periodic_request": "unit=1 read=40608",
    }
    await hass.async_block_till_done()
    settings = entry.runtime_data.multiplexer.settings
    assert settings.allowed_functions == (3, 16, 6)
    assert settings.unit_map == ((2, 10),)
    shown = (await open_options(hass, entry)).values
    assert shown["allowed_functions"] == "3, 16, 6"
    assert shown["unit_map"] == "2=10"


async def test_pasted_forms_of_numbers_are_understood(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    dialog = await open_options(hass, entry)
    await dialog.send(
        allowed_functions="3-6, 0x10",
        allowed_units="1 - 5",
        unit_map="1:10, 2 = 11",
    )
    assert entry.options["allowed_functions"] == [3, 4, 5, 6, 16]
    assert entry.options["allowed_units"] == [1, 2, 3, 4, 5]
    assert entry.options["unit_map"] == [[1, 10], [2, 11]]
    shown = (await open_options(hass, entry)).values
    assert shown["allowed_functions"] == "3-6, 16"
    assert shown["allowed_units"] == "1-5"
    assert shown["unit_map"] == "1=10, 2=11"


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("allowed_functions", "three"),
        ("allowed_functions", "256"),
        ("allowed_units", "5-1"),
        ("allowed_units", "-5"),
        ("allowed_units", "0-99999"),
        ("unit_map", "1=2=3"),
        ("unit_map", "1:2=3"),
        ("unit_map", "1=2, 1=3"),
        ("unit_map", "1=300"),
        ("periodic_request", "unit=1"),
        ("periodic_request", "read 40608"),
    ],
)
async def test_modbus_in_depth_says_what_is_wrong(
    hass: HomeAssistant, device: ModbusDevice, field: str, typed: Any
) -> None:
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    page = await dialog.send(**{field: typed})
    assert page["type"] is FORM
    assert page["errors"] == {"modbus": f"invalid_{field}"}
    assert dialog.values[field] == typed
    page = await dialog.send(**{field: ""})
    assert page["type"] is CREATE_ENTRY


async def test_rules_for_writes_are_a_list(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    """They are obeyed in order, shown again, and follow who has a name."""
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    wallbox = add_client(hass, entry, "Wallbox", "192.0.2.9")
    rows = [
        {
            "action": "deny",
            "clients": [" 192.168.1.7/24", "Wallbox", "fd00::5", ""],
            "units": "1, 0x2",
            "functions": "6 16",
            "registers": "100-0x6e",
        },
        {"action": "allow", "clients": ["Home Assistant"], "registers": "7"},
        {"action": "acknowledge", "clients": [" "], "units": "", "registers": ""},
    ]
    page = await dialog.send(write_rules=rows)
    assert page["type"] is CREATE_ENTRY
    assert entry.options["write_rules"] == [
        {
            "action": "deny",
            "clients": ["192.168.1.0/24", "Wallbox", "fd00::5/128"],
            "units": [1, 2],
            "functions": [6, 16],
            "registers": [100, 110],
        },
        {"action": "allow", "clients": ["Home Assistant"], "registers": [7, 7]},
        {"action": "acknowledge"},
    ]
    await hass.async_block_till_done()
    multiplexer = entry.runtime_data.multiplexer
    conditions = {"units": (1, 2), "functions": (6, 16), "registers": (100, 110)}
    loopback = rule("allow", "127.0.0.0/8", "::1", registers=(7, 7))
    assert multiplexer.settings.write_rules == (
        rule("deny", "192.168.1.0/24", "192.0.2.9", "fd00::5", **conditions),
        loopback,
        rule("acknowledge"),
    )
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        for register in (7, 8):
            assert await client.ask(write(register, 1)) == write(register, 1)
    asked = [request[1:] for request in device.requests]
    assert [pdu for pdu in asked if pdu[0] == 6] == [write(7, 1)]

    dialog = await open_options(hass, entry)
    shown = dialog.values["write_rules"]
    assert shown == [
        {
            "action": "deny",
            "clients": ["192.168.1.0/24", "Wallbox", "fd00::5/128"],
            "units": "1, 2",
            "functions": "6, 16",
            "registers": "100-110",
        },
        {"action": "allow", "clients": ["Home Assistant"], "registers": "7-7"},
        {"action": "acknowledge"},
    ]
    # A client's new address, and another order
    subentry = entry.subentries[wallbox]
    hass.config_entries.async_update_subentry(
        entry, subentry, data={CONF_ADDRESSES: ["192.0.2.10"]}
    )
    await dialog.send(write_rules=[shown[1], shown[0]])
    await hass.async_block_till_done()
    assert multiplexer.settings.write_rules == (
        loopback,
        rule("deny", "192.168.1.0/24", "192.0.2.10", "fd00::5", **conditions),
    )
    dialog = await open_options(hass, entry)
    await dialog.send(write_rules=[])
    assert "write_rules" not in entry.options


@pytest.mark.parametrize(
    ("condition", "typed", "shown"),
    [
        ("clients", ["10.0.0.0/8", "Walbox"], "Walbox"),
        ("units", "1, 256", "1, 256"),
        ("units", "one", "one"),
        ("functions", "0", "0"),
        ("functions", "6, sixteen", "6, sixteen"),
        ("registers", "200-100", "200-100"),
        ("registers", "65536", "65536"),
        ("registers", "1-2-3", "1-2-3"),
        ("registers", "100 200", "100 200"),
    ],
)
async def test_a_rule_for_writes_says_which_row_is_wrong(
    hass: HomeAssistant, device: ModbusDevice, condition: str, typed: Any, shown: str
) -> None:
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    rows = [
        {"action": "allow", "functions": "90"},
        {"action": "deny", condition: typed},
    ]
    page = await dialog.send(write_rules=rows)
    assert page["type"] is FORM
    assert page["errors"] == {"modbus": f"invalid_rule_{condition}"}
    assert page["description_placeholders"] == {"row": "2", "value": shown}
    assert dialog.opened == ["modbus"]
    assert dialog.values["write_rules"] == rows
    assert entry.options == {}


EVERYBODY = {"action": "deny"}
LAN = {"action": "deny", "clients": ["10.0.0.0/8", "10.1.0.0/16"]}


@pytest.mark.parametrize(
    ("earlier", "later", "reached"),
    [
        (EVERYBODY, {"action": "allow", "clients": ["10.0.0.0/8"]}, False),
        (EVERYBODY, {"action": "allow", "registers": "100-200"}, False),
        (LAN, {"action": "allow", "clients": ["10.0.0.0/8"], "units": "1"}, False),
        (LAN, {"action": "allow", "clients": ["192.0.2.0/24"]}, True),
        (LAN, EVERYBODY, True),
        ({"action": "deny", "units": "1, 2"}, {"action": "allow", "units": "1"}, False),
        ({"action": "deny", "units": "1"}, {"action": "allow", "units": "1-2"}, True),
        (
            {"action": "deny", "registers": "10-20"},
            {"action": "allow", "registers": "11-20"},
            False,
        ),
        (
            {"action": "deny", "registers": "10-20"},
            {"action": "allow", "registers": "11-21"},
            True,
        ),
        # Writes that begin or end outside get past the first of these.
        (
            {"action": "allow", "registers": "10-20"},
            {"action": "deny", "registers": "11-20"},
            True,
        ),
        ({"action": "allow", "functions": "6"}, {"action": "deny"}, True),
    ],
)
async def test_a_rule_that_is_never_reached_is_told(
    hass: HomeAssistant,
    device: ModbusDevice,
    earlier: dict[str, Any],
    later: dict[str, Any],
    reached: bool,
) -> None:
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    page = await dialog.send(
        write_rules=[{"action": "allow", "functions": "90"}, earlier, later]
    )
    if reached:
        assert page["type"] is CREATE_ENTRY
        return
    assert page["errors"] == {"modbus": "invalid_rule_order"}
    assert page["description_placeholders"] == {"row": "3", "value": "2"}


async def test_a_rule_that_named_a_client_that_is_gone_is_for_its_addresses(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = await running_entry(hass, device, "modbus")
    wallbox = add_client(hass, entry, "Wallbox", "192.0.2.1", "192.0.3.0/24")
    rows = [
        {"action": "deny", "clients": ["192.0.2.7", "Wallbox"], "units": "1"},
        {"action": "allow"},
    ]
    dialog = await open_options(hass, entry)
    await dialog.send(write_rules=rows)
    await hass.async_block_till_done()
    multiplexer = entry.runtime_data.multiplexer
    networks = ["192.0.2.7/32", "192.0.2.1/32", "192.0.3.0/24"]
    rules = (rule("deny", *networks, units=(1,)), rule("allow"))
    assert multiplexer.settings.write_rules == rules
    hass.config_entries.async_remove_subentry(entry, wallbox)
    await hass.async_block_till_done()
    assert multiplexer.settings.write_rules == rules
    assert entry.options["write_rules"] == [
        {"action": "deny", "clients": networks, "units": [1]},
        {"action": "allow"},
    ]
    assert entry.runtime_data.multiplexer is multiplexer


async def test_a_profile_sets_defaults_and_can_be_overridden(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = await running_entry(hass, device, "modbus")
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_PROFILE: "growatt"}
    )
    await hass.async_block_till_done()
    dialog = await open_options(hass, entry)
    assert dialog.values["request_delay"] == 0.5
    assert dialog.values["max_read_registers"] == 25
    await dialog.send()
    assert entry.options == {}
    dialog = await open_options(hass, entry)
    await dialog.send(request_delay=0)
    assert entry.options == {"request_delay": 0}
    await hass.async_block_till_done()
    assert entry.runtime_data.multiplexer.settings.request_delay == 0


@pytest.mark.parametrize(
    ("protocol", "shown", "hidden"),
    [
        ("http", {"max_body"}, {"probe", "unit_id", "max_in_flight", "on_failure"}),
        ("mpu", {"probe"}, {"max_body", "unit_id", "max_in_flight", "on_failure"}),
        ("modbus", {"unit_id", "max_in_flight", "on_failure"}, {"probe", "max_body"}),
    ],
)
async def test_a_protocol_has_options_of_its_own(
    hass: HomeAssistant,
    device: ModbusDevice,
    protocol: str,
    shown: set[str],
    hidden: set[str],
) -> None:
    entry = await running_entry(hass, device, protocol, connect_on_demand=True)
    dialog = await open_options(hass, entry)
    assert shown <= dialog.values.keys()
    assert hidden.isdisjoint(dialog.values)


async def test_what_is_changed_applies_without_dropping_a_client(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = await running_entry(hass, device, "modbus")
    async with ModbusClient(entry.data[CONF_LISTEN_PORT]) as client:
        assert await client.ask(read()) == values()
        dialog = await open_options(hass, entry)
        page = await dialog.send(
            timeout=7.5,
            allowed_networks=["192.168.1.77/24", "127.0.0.0/8"],
            update_interval=30,
            allow_send_request=True,
        )
        assert page["type"] is CREATE_ENTRY
        await hass.async_block_till_done()
        assert await client.ask(read()) == values()
    assert entry.state is ConfigEntryState.LOADED
    assert entry.options == {
        "timeout": 7.5,
        "allowed_networks": ["192.168.1.0/24", "127.0.0.0/8"],
        CONF_UPDATE_INTERVAL: 30,
        CONF_ALLOW_SEND_REQUEST: True,
    }
    dialog = await open_options(hass, entry)
    assert dialog.values["timeout"] == 7.5
    # Back to the default: it is not stored any more.
    await dialog.send(timeout=5)
    assert entry.options.keys() == {
        "allowed_networks",
        CONF_UPDATE_INTERVAL,
        CONF_ALLOW_SEND_REQUEST,
    }


async def test_what_is_not_shown_is_kept(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = await running_entry(hass, device, "modbus", max_body=2048, later="kept")
    dialog = await open_options(hass, entry)
    await dialog.send(queue_size=64)
    assert entry.options == {"max_body": 2048, "later": "kept", "queue_size": 64}


@pytest.mark.parametrize(
    ("protocol", "typed", "place", "error"),
    [
        (
            "modbus",
            {"reconnect_backoff": 60},
            "recovery",
            "invalid_reconnect_backoff_max",
        ),
        ("modbus", {"allowed_networks": []}, "access", "invalid_allowed_networks"),
        ("mpu", {"probe": "ping"}, "recovery", "invalid_probe"),
        # Ten bytes announced, four there
        ("mpu", {"probe": "3030 3130 7069 6e67"}, "recovery", "invalid_probe"),
    ],
)
async def test_what_cannot_be_used_is_told_where_it_stands(  # noqa: PLR0917
    hass: HomeAssistant,
    device: ModbusDevice,
    protocol: str,
    typed: dict[str, Any],
    place: str,
    error: str,
) -> None:
    entry = await running_entry(hass, device, protocol, connect_on_demand=True)
    dialog = await open_options(hass, entry)
    before = dialog.values
    page = await dialog.send(**typed, queue_size=64)
    assert page["type"] is FORM
    assert page["errors"] == {place: error}
    assert dialog.opened == [place]
    # Nothing of what was typed is lost, and nothing is stored.
    assert dialog.values == before | typed | {"queue_size": 64}
    assert entry.options == {"connect_on_demand": True}
    page = await dialog.send(**{name: before[name] for name in typed})
    assert page["type"] is CREATE_ENTRY
    assert entry.options == {"connect_on_demand": True, "queue_size": 64}


async def test_a_message_to_ask_as_health_check(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = await running_entry(hass, device, "mpu", connect_on_demand=True)
    dialog = await open_options(hass, entry)
    page = await dialog.send(probe="30 30 30 34 50 49 4E 47")
    assert page["type"] is CREATE_ENTRY
    assert entry.options["probe"] == "3030303450494e47"
    await hass.async_block_till_done()
    assert entry.state is ConfigEntryState.LOADED


@pytest.mark.parametrize(
    ("typed", "section", "said"),
    [
        ({"timeout": 0}, "connection", ("0", "0.1", "3600")),
        ({"unit_id": 256}, "connection", ("256", "0", "255")),
        ({"queue_size": 0}, "pool", ("0", "1", "100000")),
        ({"max_lifetime": 604801}, "connection", ("604801", "0", "604800")),
        ({"timeout": float("nan")}, "connection", ("nan", "0.1", "3600")),
    ],
)
async def test_no_more_can_be_typed_than_the_engine_takes(
    hass: HomeAssistant,
    device: ModbusDevice,
    typed: dict[str, Any],
    section: str,
    said: tuple[str, str, str],
) -> None:
    """It is said in the user's language, where it was typed."""
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    page = await dialog.send(**typed)
    assert page["errors"] == {section: "number_out_of_range"}
    given = page["description_placeholders"]
    assert (given["value"], given["low"], given["high"]) == said
    [(field, value)] = typed.items()
    assert repr(float(dialog.values[field])) == repr(float(value))
    right = getattr(entry.runtime_data.multiplexer.settings, field)
    assert (await dialog.send(**{field: right}))["type"] is CREATE_ENTRY


async def test_what_is_no_number_is_refused(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    entry = await running_entry(hass, device, "modbus")
    dialog = await open_options(hass, entry)
    with pytest.raises(InvalidData):
        await dialog.send(timeout="soon")
