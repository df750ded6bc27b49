"""Entries of older versions, and entries of newer ones."""

from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.config_flow import TcpMultiplexerConfigFlow
from custom_components.tcp_multiplexer.const import CONF_WRITE_RULES, DOMAIN
from custom_components.tcp_multiplexer.migration import async_migrate
from tests.engine.certificates import Authority
from tests.rules import rule

from .peers import ModbusDevice
from .ports import free_port
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


LISTENER = {"host": "127.0.0.1", "port": 0, "framing": "rtu", "tls": None}
NAMES = {"192.168.1.5": "evcc", "fd00::5": "evcc", "192.168.1.7": "Wallbox"}


def subentries(entry: MockConfigEntry) -> list[tuple[str, str, dict[str, Any]]]:
    """Return type, title and data of each."""
    return [
        (each.subentry_type, each.title, dict(each.data))
        for each in entry.subentries.values()
    ]


@pytest.mark.parametrize("minor_version", [1, 2])
async def test_names_and_further_ports_become_subentries(
    hass: HomeAssistant, device: ModbusDevice, minor_version: int
) -> None:
    """Rules that name clients go on doing so; what it was stays."""
    port = free_port()
    options = {
        "client_names": NAMES,
        "more_listeners": [{**LISTENER, "port": port}],
        CONF_WRITE_RULES: [{"action": "deny", "clients": ["evcc", "10.0.0.0/8"]}],
    }
    entry = await running_entry(
        hass, device, "modbus", minor_version=minor_version, **options
    )
    assert entry.minor_version == 3
    assert subentries(entry) == [
        ("client", "evcc", {"addresses": ["192.168.1.5", "fd00::5"]}),
        ("client", "Wallbox", {"addresses": ["192.168.1.7"]}),
        (
            "local_port",
            f"127.0.0.1:{port} (Modbus RTU over TCP)",
            {**LISTENER, "port": port},
        ),
    ]
    assert entry.options == options
    settings = entry.runtime_data.multiplexer.settings
    assert settings.write_rules == (
        rule("deny", "192.168.1.5/32", "fd00::5/128", "10.0.0.0/8"),
    )
    assert [each.port for each in settings.more_listeners] == [port]
    assert entry.runtime_data.client_name("fd00::5") == "evcc"
    # Only once, and only for as long as it says what holds.
    assert await hass.config_entries.async_reload(entry.entry_id)
    assert len(entry.subentries) == 3
    assert entry.options == options
    hass.config_entries.async_remove_subentry(entry, next(iter(entry.subentries)))
    await hass.async_block_till_done()
    assert entry.options.keys() == {CONF_WRITE_RULES}
    assert await hass.config_entries.async_reload(entry.entry_id)
    assert len(entry.subentries) == 2


async def test_certificates_of_a_removed_port_are_not_kept(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    """Not those of the older version either."""
    port = free_port()
    pair = Authority().issue("127.0.0.1")
    tls = {"certificate": pair.certificate, "key": pair.key, "client_ca": ""}
    listener = {**LISTENER, "port": port, "framing": "tcp", "tls": tls}
    entry = await running_entry(hass, device, "modbus", more_listeners=[listener])
    (subentry,) = entry.subentries.values()
    assert subentry.data == listener
    assert subentry.title == f"127.0.0.1:{port} (Modbus/TCP, TLS)"
    hass.config_entries.async_remove_subentry(entry, subentry.subentry_id)
    await hass.async_block_till_done()
    assert "PRIVATE KEY" not in str(entry.as_dict())


@pytest.mark.parametrize("options", [{}, {"client_names": {}, "more_listeners": []}])
async def test_there_may_be_no_names_and_no_further_ports(
    hass: HomeAssistant, device: ModbusDevice, options: dict[str, Any]
) -> None:
    entry = await running_entry(hass, device, "modbus", minor_version=2, **options)
    assert entry.minor_version == 3
    assert not entry.subentries


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
