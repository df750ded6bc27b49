"""The dialog in which a client gets its name, its addresses and its rights."""

from typing import Any

from homeassistant.config_entries import SOURCE_RECONFIGURE
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.const import (
    CONF_ADDRESSES,
    CONF_WRITE_RULES,
    SUBENTRY_CLIENT,
)
from tests.rules import rule
from tests.waiting import until
from tests.wire import read, values

from .dialogs import Dialog
from .peers import ModbusClient
from .subentries import add_client
from .test_config_flow import CREATE_ENTRY, FORM
from .test_init import listen_port
from .test_words import idle_entry


async def open_dialog(
    hass: HomeAssistant, entry: MockConfigEntry, subentry_id: str | None = None
) -> Dialog:
    """Open the dialog that adds a client, or changes that of a subentry."""
    dialog = Dialog(hass, subentry_of=(entry.entry_id, SUBENTRY_CLIENT))
    page = (
        await dialog.start(source=SOURCE_RECONFIGURE, subentry_id=subentry_id)
        if subentry_id
        else await dialog.start()
    )
    assert page["type"] is FORM
    assert page["step_id"] == ("reconfigure" if subentry_id else "user")
    assert not page["errors"]
    return dialog


def proposed(dialog: Dialog) -> list[str]:
    """Return the addresses that the dialog proposes."""
    selector = dialog.page["data_schema"].schema[CONF_ADDRESSES]
    return [option["value"] for option in selector.config["options"]]


async def test_a_client_that_is_connected_gets_a_name(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    port = listen_port(hass, loaded_entry)
    add_client(hass, loaded_entry, "Wallbox", "127.0.0.8/29")
    async with (
        ModbusClient(port) as client,
        ModbusClient(port, "127.0.0.3"),
        ModbusClient(port, "127.0.0.8"),
    ):
        # One that was there a moment ago
        async with ModbusClient(port, "127.0.0.2") as gone:
            assert await gone.ask(read()) == values()
        snapshot = loaded_entry.runtime_data.multiplexer.snapshot
        await until(lambda: len(snapshot().clients) == 3)
        dialog = await open_dialog(hass, loaded_entry)
        assert dialog.values == {
            "name": None,
            "addresses": [],  # or the frontend would select the first one
            "silent_minutes": 5,
            "write_rules": None,
        }
        assert proposed(dialog) == ["127.0.0.1", "127.0.0.3", "127.0.0.2"]
        page = await dialog.send(name=" evcc ", addresses=["127.0.0.1"])
        assert page["type"] is CREATE_ENTRY
        await hass.async_block_till_done()
        assert await client.ask(read()) == values()
    _, subentry = loaded_entry.subentries.values()
    assert subentry.title == "evcc"
    assert subentry.data == {"addresses": ["127.0.0.1"], "silent_minutes": 5}
    assert loaded_entry.runtime_data.client_name("127.0.0.1") == "evcc"


async def test_addresses_and_rules_are_kept_in_their_usual_form(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    rows = [
        {"action": "allow", "functions": "6, 0x10", "registers": "47"},
        {"action": "deny", "units": "", "functions": "", "registers": ""},
    ]
    dialog = await open_dialog(hass, loaded_entry)
    page = await dialog.send(
        name="evcc",
        addresses=[" 192.168.1.7/24", "FD00::0:5", "192.168.1.0/24", "10.0.0.1/32", ""],
        silent_minutes=90,
        write_rules=rows,
    )
    assert page["type"] is CREATE_ENTRY
    await hass.async_block_till_done()
    (subentry,) = loaded_entry.subentries.values()
    assert subentry.data == {
        "addresses": ["192.168.1.0/24", "fd00::5", "10.0.0.1"],
        "silent_minutes": 90,
        "write_rules": [
            {"action": "allow", "functions": [6, 16], "registers": [47, 47]},
            {"action": "deny"},
        ],
    }
    dialog = await open_dialog(hass, loaded_entry, subentry.subentry_id)
    assert dialog.values == {
        "name": "evcc",
        "addresses": ["192.168.1.0/24", "fd00::5", "10.0.0.1"],
        "silent_minutes": 90,
        "write_rules": [
            {"action": "allow", "functions": "6, 16", "registers": "47-47"},
            {"action": "deny"},
        ],
    }
    page = await dialog.send(write_rules=[], addresses=["10.0.0.1"])
    assert page["reason"] == "reconfigure_successful"
    assert subentry.data == {"addresses": ["10.0.0.1"], "silent_minutes": 90}
    await hass.async_block_till_done()
    assert loaded_entry.runtime_data.multiplexer.settings.write_rules == ()


@pytest.mark.parametrize("loaded", [True, False])
async def test_rules_for_all_clients_follow_a_new_name(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, loaded: bool
) -> None:
    evcc = add_client(hass, loaded_entry, "evcc", "192.168.1.5")
    rows: list[dict[str, Any]] = [
        {"action": "allow", "clients": ["evcc", "10.0.0.0/8"], "units": [1]},
        {"action": "deny"},
    ]
    hass.config_entries.async_update_entry(
        loaded_entry, options={CONF_WRITE_RULES: rows}
    )
    rules = (rule("allow", "192.168.1.5", "10.0.0.0/8", units=(1,)), rule("deny"))
    settings = loaded_entry.runtime_data.multiplexer.settings
    assert settings.write_rules == rules
    if not loaded:
        assert await hass.config_entries.async_unload(loaded_entry.entry_id)
    dialog = await open_dialog(hass, loaded_entry, evcc)
    await dialog.send(name="EVCC")
    await hass.async_block_till_done()
    if not loaded:
        assert await hass.config_entries.async_setup(loaded_entry.entry_id)
    assert loaded_entry.options[CONF_WRITE_RULES] == [
        {**rows[0], "clients": ["EVCC", "10.0.0.0/8"]},
        rows[1],
    ]
    settings = loaded_entry.runtime_data.multiplexer.settings
    assert settings.write_rules == rules


@pytest.mark.parametrize(
    ("typed", "field", "error", "said"),
    [
        ({"name": " "}, "name", "invalid_name", {}),
        ({"name": "192.168.1.0/24"}, "name", "invalid_name", {}),
        ({"name": "Wallbox"}, "name", "name_taken", {}),
        ({"addresses": []}, "addresses", "no_addresses", {}),
        ({"addresses": [" "]}, "addresses", "no_addresses", {}),
        (
            {"addresses": ["10.0.0.1", "evcc.local"]},
            "addresses",
            "invalid_addresses",
            {"address": "evcc.local"},
        ),
        (
            {"addresses": ["10.0.0.1", "192.168.1.7"]},
            "addresses",
            "address_of_client",
            {"address": "192.168.1.7", "client": "Wallbox"},
        ),
        (
            {"write_rules": [{"action": "deny"}, {"action": "deny", "units": "256"}]},
            "write_rules",
            "invalid_rule_units",
            {"row": "2", "value": "256"},
        ),
    ],
)
async def test_what_cannot_be_used_is_told_where_it_stands(  # noqa: PLR0917
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    typed: dict[str, Any],
    field: str,
    error: str,
    said: dict[str, str],
) -> None:
    """Within a network of another client is another client: that is no fault."""
    right: dict[str, Any] = {
        "name": "evcc",
        "addresses": ["192.168.2.5"],
        "silent_minutes": 3,
        "write_rules": [],
    }
    add_client(hass, loaded_entry, "Wallbox", "192.168.1.7", "192.168.2.0/24")
    dialog = await open_dialog(hass, loaded_entry)
    page = await dialog.send(**right | typed)
    assert page["type"] is FORM
    assert page["errors"] == {field: error}
    assert page["description_placeholders"] == said
    assert dialog.values == right | typed
    assert len(loaded_entry.subentries) == 1
    page = await dialog.send(**right)
    assert page["type"] is CREATE_ENTRY


async def test_a_client_may_keep_its_name_and_addresses(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    evcc = add_client(hass, loaded_entry, "evcc", "192.168.1.5")
    dialog = await open_dialog(hass, loaded_entry, evcc)
    page = await dialog.send()
    assert page["reason"] == "reconfigure_successful"


async def test_other_protocols_have_no_rules_for_writes(hass: HomeAssistant) -> None:
    """Nor does an entry have to be loaded."""
    entry = idle_entry(hass, "http")
    dialog = await open_dialog(hass, entry)
    assert dialog.values.keys() == {"name", "addresses", "silent_minutes"}
    assert proposed(dialog) == []
    page = await dialog.send(name="evcc", addresses=["192.168.1.5"])
    assert page["type"] is CREATE_ENTRY
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert entry.runtime_data.client_name("192.168.1.5") == "evcc"
