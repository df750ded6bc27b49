"""System health: all multiplexers at a glance."""

import asyncio
from typing import Any

from homeassistant.config_entries import ConfigEntryDisabler
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    get_system_health_info,
)

from custom_components.tcp_multiplexer.const import DOMAIN
from custom_components.tcp_multiplexer.multiplexer import __version__
from tests.wire import read

from .peers import ModbusClient, ModbusDevice
from .test_init import listen_port


async def system_health(hass: HomeAssistant) -> dict[str, Any]:
    """Give what the system health page shows."""
    assert await async_setup_component(hass, "system_health", {})
    await hass.async_block_till_done()
    shown: dict[str, Any] = await get_system_health_info(hass, DOMAIN)
    return {
        key: await value if asyncio.iscoroutine(value) else value
        for key, value in shown.items()
    }


async def test_system_health(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    away = MockConfigEntry(
        domain=DOMAIN,
        title="Away",
        data={**loaded_entry.data, "port": 1},
        options={"connect_on_demand": True},
    )
    away.add_to_hass(hass)
    assert await hass.config_entries.async_setup(away.entry_id)
    MockConfigEntry(domain=DOMAIN, data={}).add_to_hass(hass)  # not loaded
    MockConfigEntry(
        domain=DOMAIN, data={}, disabled_by=ConfigEntryDisabler.USER
    ).add_to_hass(hass)
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        await client.ask(read())
        assert await system_health(hass) == {
            "version": __version__,
            "entries": "2/3",
            "upstreams": "1/2",
            "clients": 1,
            "requests": 1,
            "failures": 0,
        }
