"""Diagnostics help, and give nothing away."""

import json
from typing import Any

from homeassistant.const import CONF_HOST
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.tcp_multiplexer.const import CONF_LEFT_OUT
from tests.waiting import until
from tests.wire import read

from .peers import ModbusClient, ModbusDevice
from .ports import free_port
from .subentries import add_client, add_local_port
from .test_init import HEALTH, listen_port

REDACTED = "**REDACTED**"


async def diagnostics(
    hass: HomeAssistant, hass_client: ClientSessionGenerator, entry: MockConfigEntry
) -> dict[str, Any]:
    """Download what a user would attach to an issue."""
    assert await async_setup_component(hass, "diagnostics", {})
    downloaded = await get_diagnostics_for_config_entry(hass, hass_client, entry)
    assert isinstance(downloaded, dict)
    return downloaded


async def test_diagnostics(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    loaded_entry: MockConfigEntry,
) -> None:
    add_client(hass, loaded_entry, "wallbox", "192.168.7.7", "192.168.8.0/24")
    evcc = add_client(hass, loaded_entry, "evcc", "127.0.0.1")
    port = add_local_port(hass, loaded_entry, free_port())
    await hass.async_block_till_done()
    hass.config_entries.async_update_entry(
        loaded_entry,
        title="Anna's roof",
        options={
            "client_names": {"192.168.7.7": "wallbox"},  # of an older version
            "allowed_networks": ["127.0.0.0/8", "192.168.7.0/24"],
            "write_rules": [
                {
                    "action": "allow",
                    "clients": ["127.0.0.1/32", "wallbox", "Home Assistant"],
                },
                {"action": "acknowledge", "units": [7]},
            ],
            "write_networks": ["127.0.0.1/32"],  # of an older version
        },
        data={**loaded_entry.data, CONF_LEFT_OUT: ["192.168.7.9"]},
    )
    await hass.async_block_till_done()
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        await client.ask(read(0x1234, 2))
        await client.ask(b"\x06\x00\x63\xab\xcd")
        await client.ask(b"\x2b\x0e\x01\x00")
        told = await diagnostics(hass, hass_client, loaded_entry)

    entry = told["entry"]
    assert entry["title"] == entry["data"]["host"] == REDACTED
    assert entry["data"]["listen_host"] == REDACTED
    assert entry["options"]["allowed_networks"] == REDACTED
    assert "client_names" not in entry["options"]
    named = {each["subentry_id"]: each for each in entry["subentries"]}
    assert named[evcc]["title"] == named[port]["title"] == REDACTED
    assert [each.get("named_client") for each in entry["subentries"]] == [1, 2, None]
    assert [each["data"].get("addresses") for each in entry["subentries"]] == [
        [REDACTED, f"{REDACTED}/24"],
        [REDACTED],
        None,
    ]
    assert named[port]["data"]["host"] == REDACTED
    assert entry["options"]["write_rules"] == [
        {
            "action": "allow",
            "clients": [f"{REDACTED}/32", "named client 1", "Home Assistant"],
        },
        {"action": "acknowledge", "units": [7]},
    ]
    assert entry["options"]["write_networks"] == REDACTED
    assert entry["data"]["protocol"] == "modbus"

    assert told["snapshot"]["health"] == "healthy"
    assert told["snapshot"]["listen_addresses"] == REDACTED
    assert told["snapshot"]["requests"] == 3
    assert told["snapshot"]["silent_units"] == []
    [shown] = told["snapshot"]["clients"]
    assert shown["requests"] == 3
    assert (shown["client"], shown["named_client"], shown["name"]) == (1, 2, None)

    trace = told["trace"]
    assert [(record["client"], record["outcome"]) for record in trace] == [
        (1, "answered")
    ] * 3
    assert [record["request"] for record in trace] == [
        {"bytes": 6, "unit": 1, "function": 3, "address": 0x1234, "count": 2},
        {"bytes": 6, "unit": 1, "function": 6, "address": 0x63},
        {"bytes": 5, "unit": 1, "function": 0x2B},
    ]
    assert [record["response"] for record in trace] == [
        {"bytes": 7},
        {"bytes": 6},
        {"bytes": 3, "exception": 1},
    ]

    # Wherever else it might stand: neither addresses, nor the title, nor values.
    text = json.dumps(told["entry"]) + json.dumps(told["snapshot"]) + json.dumps(trace)
    assert "127.0.0" not in text
    assert "192.168" not in text
    for name in ("Anna", "evcc", "wallbox"):
        assert name not in text
    assert "abcd" not in text
    assert str(0xABCD) not in text


async def test_last_error_names_no_address(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    entry: MockConfigEntry,
    device: ModbusDevice,
) -> None:
    await device.stop()
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_HOST: "localhost"}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    await until(lambda: hass.states.is_state(HEALTH, "unreachable"))
    told = await diagnostics(hass, hass_client, entry)
    reason = told["snapshot"]["health_reason"]
    assert "Connect call failed" in reason
    assert REDACTED in reason
    assert "127.0.0.1" not in reason
    assert "::1" not in reason
    assert "localhost" not in reason


async def test_other_protocols_tell_lengths_only(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    entry: MockConfigEntry,
    device: ModbusDevice,
) -> None:
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, "protocol": "echo"}, options={"timeout": 0.1}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    device.silent = True
    async with ModbusClient(listen_port(hass, entry)) as client:
        await client.say(b"my secret\n")
        assert await client.closed()
    [record] = (await diagnostics(hass, hass_client, entry))["trace"]
    assert record["request"] == {"bytes": 10}
    assert record["response"] is None
    assert record["outcome"] == "no_response"
    assert record["name"] == "Home Assistant"
