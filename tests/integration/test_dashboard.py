"""The manual's dashboard: its entities are there, and it lists the named clients."""

from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.template import Template
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
import yaml

from custom_components.tcp_multiplexer import client_watch
from tests.waiting import until
from tests.wire import read

from .peers import ModbusClient
from .subentries import add_client
from .test_init import listen_port

DASHBOARD = yaml.safe_load(
    (Path(__file__).parents[2] / "docs" / "dashboard.yaml").read_text()
)


def cards() -> Iterator[dict[str, Any]]:
    """Return all cards of the dashboard."""
    for view in DASHBOARD["views"]:
        for section in view["sections"]:
            yield from section["cards"]


def entities(part: Any) -> set[str]:
    """Return the entities that a part of the dashboard names."""
    return set(re.findall(r"\b[a-z_]+\.inverter_\w+", str(part)))


async def list_of_clients(hass: HomeAssistant) -> str:
    """Return what the card with the clients shows."""
    (card,) = [card for card in cards() if card["type"] == "markdown"]
    return str(Template(card["content"], hass).async_render(parse_result=False))


async def test_entities_are_there(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    """Under the names that an entry with the title *Inverter* gives them."""
    named = entities(DASHBOARD)
    assert len(named) >= 10
    registry = er.async_get(hass)
    for entity_id in named:
        registered = registry.async_get(entity_id)
        assert registered, entity_id
        # Of those that are disabled at first, the manual names the only one.
        assert not registered.disabled or entity_id == "sensor.inverter_saved_reads"


async def test_graphs_are_of_what_has_statistics(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    graphs = [card for card in cards() if card["type"] == "statistics-graph"]
    assert graphs
    for graph in graphs:
        for shown in graph["entities"]:
            registered = er.async_get(hass).async_get(shown["entity"])
            assert registered
            assert registered.capabilities
            kind = registered.capabilities["state_class"]
            sums = {"measurement": False, "total_increasing": True}[kind]
            assert ("change" in graph["stat_types"]) == sums


async def test_clients_are_listed_by_name(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", 0.02)
    assert "No client has a name yet" in await list_of_clients(hass)
    add_client(hass, loaded_entry, "evcc", "127.0.0.1")
    add_client(hass, loaded_entry, "Wallbox", "192.168.1.5")
    await until(lambda: len(dr.async_get(hass).devices) == 3)
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        await client.ask(read(0, 1))
        await until(lambda: hass.states.is_state("binary_sensor.evcc_asking", "on"))
        lines = (await list_of_clients(hass)).strip().split("\n")
    assert lines[0].startswith("| | Client |")
    assert len(lines) == 4
    assert "mdi:check-circle" in lines[2]
    assert "| evcc | Asking |" in lines[2]
    assert "| Wallbox | " in lines[3]
