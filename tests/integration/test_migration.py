"""Entries of older versions, and entries of newer ones."""

from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.config_flow import TcpMultiplexerConfigFlow
from custom_components.tcp_multiplexer.const import CONF_WRITE_RULES, DOMAIN
from custom_components.tcp_multiplexer.migration import async_migrate
from tests.rules import rule

from .peers import ModbusDevice
from .test_options_flow import running_entry

NETWORKS = ["192.168.1.5/32", "fd00::/8"]


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ({}, ()),
        ({"write_policy": "allow"}, ()),
        ({"write_networks": NETWORKS}, (rule("allow", *NETWORKS),)),
        (
            {"write_policy": "allow", "write_networks": NETWORKS},
            (rule("allow", *NETWORKS),),
        ),
        ({"write_policy": "deny"}, (rule("deny"),)),
        ({"write_policy": "deny", "write_networks": []}, (rule("deny"),)),
        (
            {"write_policy": "deny", "write_networks": NETWORKS},
            (rule("allow", *NETWORKS), rule("deny")),
        ),
        ({"write_policy": "acknowledge"}, (rule("acknowledge"),)),
        (
            {"write_policy": "acknowledge", "write_networks": NETWORKS},
            (rule("allow", *NETWORKS), rule("acknowledge")),
        ),
    ],
)
async def test_a_write_policy_becomes_rules_for_writes(
    hass: HomeAssistant,
    device: ModbusDevice,
    options: dict[str, Any],
    rules: tuple[Any, ...],
) -> None:
    """What it was stays, so that the older version can be installed again."""
    entry = await running_entry(hass, device, "modbus", cache_ttl=1, **options)
    assert entry.state is ConfigEntryState.LOADED
    current = (TcpMultiplexerConfigFlow.VERSION, TcpMultiplexerConfigFlow.MINOR_VERSION)
    assert (entry.version, entry.minor_version) == current
    assert entry.runtime_data.multiplexer.settings.write_rules == rules
    kept = {k: v for k, v in entry.options.items() if k != CONF_WRITE_RULES}
    assert kept == {"cache_ttl": 1, **options}
    assert (CONF_WRITE_RULES in entry.options) is bool(rules)


async def test_an_entry_is_brought_up_to_date_once(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    """Rules that were removed since do not come back, whatever the version."""
    entry = await running_entry(hass, device, "modbus", write_policy="deny")
    options = {k: v for k, v in entry.options.items() if k != CONF_WRITE_RULES}
    for minor_version in (entry.minor_version, entry.minor_version + 1):
        hass.config_entries.async_update_entry(
            entry, options=options, minor_version=minor_version
        )
        assert await hass.config_entries.async_reload(entry.entry_id)
        assert entry.minor_version == minor_version
        assert entry.runtime_data.multiplexer.settings.write_rules == ()


async def test_an_entry_of_a_newer_version_is_left_alone(hass: HomeAssistant) -> None:
    entry = MockConfigEntry(domain=DOMAIN, version=2, options={"write_policy": "deny"})
    entry.add_to_hass(hass)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.MIGRATION_ERROR
    assert not await async_migrate(hass, entry)  # Home Assistant may not ask
    assert entry.options == {"write_policy": "deny"}
