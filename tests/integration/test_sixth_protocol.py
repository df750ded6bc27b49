"""A protocol that is registered, and nowhere else named, is a citizen of the house."""

import asyncio
from collections.abc import AsyncGenerator

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_PROTOCOL, STATE_ON
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry as dr, entity_registry as er
import pytest

from custom_components.tcp_multiplexer.const import DOMAIN
from custom_components.tcp_multiplexer.diagnostics import (
    async_get_config_entry_diagnostics,
)
from tests.fixtures import sixth_protocol
from tests.fixtures.sixth_protocol import framed
from tests.waiting import until

from .dialogs import Dialog
from .ports import free_port
from .words import LANGUAGES, words_in


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the protocol."""
    sixth_protocol.register(monkeypatch)


@pytest.fixture
async def port() -> AsyncGenerator[int]:
    """Return the port of a device that repeats what it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    server.close_clients()


async def ask(port: int, frame: bytes) -> bytes:
    """Ask the device through the multiplexer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(5):
        writer.write(frame)
        answer = await reader.readexactly(len(frame))
        writer.close()
        await writer.wait_closed()
    return answer


async def test_it_is_set_up_by_the_form_and_has_entities(
    hass: HomeAssistant, port: int
) -> None:
    listen_port = free_port()
    dialog = Dialog(hass)
    page = await dialog.start()
    offered = page["data_schema"].schema[CONF_PROTOCOL].config["options"]
    assert "stx" in offered
    page = await dialog.send(
        protocol="stx", host="127.0.0.1", port=port, listen_port=listen_port
    )
    assert page["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    (entry,) = hass.config_entries.async_entries(DOMAIN)
    assert entry.state is ConfigEntryState.LOADED

    frame = framed(b"hello")
    assert await ask(listen_port, frame) == frame
    (device,) = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert device.model == "STX/ETX"
    connection = er.async_get(hass).async_get_entity_id(
        "binary_sensor", DOMAIN, f"{entry.entry_id}-upstream_connection"
    )
    assert connection is not None
    await until(lambda: hass.states.is_state(connection, STATE_ON))
    told = await async_get_config_entry_diagnostics(hass, entry)
    (record,) = told["trace"]
    assert record["request"] == record["response"] == {"bytes": len(frame)}

    options = Dialog(hass, options_of=entry.entry_id)
    await options.start()
    assert "probe" in options.values
    assert options.values.keys().isdisjoint(
        {"unit_id", "max_in_flight", "share_reads", "matching", "max_body"}
    )
    page = await options.send(probe=frame.hex())
    assert page["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options == {"probe": frame.hex()}
    await hass.async_block_till_done()  # it is reloaded
    assert await ask(listen_port, frame) == frame
    assert await hass.config_entries.async_unload(entry.entry_id)


async def test_it_has_no_units_to_be_reached_by(hass: HomeAssistant, port: int) -> None:
    dialog = Dialog(hass)
    await dialog.start()
    for upstream in ("rtu", "home_assistant"):
        page = await dialog.send(
            protocol="stx", host="127.0.0.1", port=port, upstream=upstream
        )
        assert page["errors"] == {"upstream": "only_modbus"}


def test_one_line_in_each_language_is_all_that_it_says() -> None:
    assert len(LANGUAGES) > 1
    for language in LANGUAGES:
        others = words_in(language)["selector"]["protocol"]["options"]
        words = sixth_protocol.words(language)
        said = words["selector"]["protocol"]["options"]["stx"]
        assert words == {"selector": {"protocol": {"options": {"stx": said}}}}
        assert said not in others.values()
