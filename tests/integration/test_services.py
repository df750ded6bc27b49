"""The actions: what they do, what they answer, and what they say when they cannot."""

import asyncio
from base64 import b64decode
import json
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import ATTR_CONFIG_ENTRY_ID, CONF_HOST
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import (
    HomeAssistantError,
    ServiceValidationError,
    Unauthorized,
)
from homeassistant.helpers.translation import async_get_translations
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser

from custom_components.tcp_multiplexer.const import (
    CONF_ALLOW_SEND_REQUEST,
    CONF_LISTEN_HOST,
    CONF_PAUSED,
    DOMAIN,
)
from custom_components.tcp_multiplexer.multiplexer import Failure
from tests.waiting import until
from tests.wire import read, values

from .peers import ModbusClient, ModbusDevice
from .subentries import add_client
from .test_init import listen_port

DISCONNECT_CLIENT = "disconnect_client"
GET_CLIENTS = "get_clients"
GET_STATISTICS = "get_statistics"
GET_TRACE = "get_trace"
RECONNECT = "reconnect"
RESET_STATISTICS = "reset_statistics"
SEND_REQUEST = "send_request"
ALL = (
    DISCONNECT_CLIENT,
    GET_CLIENTS,
    GET_STATISTICS,
    GET_TRACE,
    RECONNECT,
    RESET_STATISTICS,
    SEND_REQUEST,
)
ANSWERING = {DISCONNECT_CLIENT, GET_CLIENTS, GET_STATISTICS, GET_TRACE, SEND_REQUEST}


async def call(
    hass: HomeAssistant,
    action: str,
    entry: MockConfigEntry,
    context: Context | None = None,
    **data: Any,
) -> Any:
    """Call an action on an entry; what it answers must be JSON."""
    response = await hass.services.async_call(
        DOMAIN,
        action,
        {ATTR_CONFIG_ENTRY_ID: entry.entry_id, **data},
        blocking=True,
        context=context,
        return_response=action in ANSWERING,
    )
    return json.loads(json.dumps(response))


async def test_actions_are_there_without_any_entry_loaded(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    assert await hass.config_entries.async_unload(loaded_entry.entry_id)
    assert set(hass.services.async_services_for_domain(DOMAIN)) == set(ALL)


@pytest.mark.parametrize("action", ALL)
async def test_entry_must_be_loaded(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, action: str
) -> None:
    assert await hass.config_entries.async_unload(loaded_entry.entry_id)
    assert loaded_entry.state is ConfigEntryState.NOT_LOADED
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, action, loaded_entry)
    assert error.value.translation_key == "service_config_entry_not_loaded"


@pytest.mark.parametrize("action", [DISCONNECT_CLIENT, SEND_REQUEST])
async def test_these_are_for_administrators(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    hass_read_only_user: MockUser,
    action: str,
) -> None:
    with pytest.raises(Unauthorized):
        await call(
            hass, action, loaded_entry, context=Context(user_id=hass_read_only_user.id)
        )


@pytest.mark.parametrize("drain", [True, False])
async def test_reconnect(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    drain: bool,
) -> None:
    """With `drain` the exchange in flight ends first; without, it is asked again."""
    device.delay = 0.2
    before = device.connection
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        waiting = asyncio.ensure_future(client.ask(read()))
        await until(lambda: device.requests)
        await call(hass, RECONNECT, loaded_entry, drain=drain)
        assert await waiting == values()
    assert len(device.requests) == (1 if drain else 2)
    await until(lambda: device.connection not in {None, before})


async def test_reconnect_while_paused(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    hass.config_entries.async_update_entry(
        entry, data={**entry.data, CONF_PAUSED: True}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, RECONNECT, entry)
    assert error.value.translation_key == "paused"


@pytest.mark.parametrize(
    "whom", [{}, {"address": "127.0.0.1"}, {"address": "Home Assistant"}]
)
async def test_disconnect_client(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, whom: dict[str, Any]
) -> None:
    port = listen_port(hass, loaded_entry)
    async with ModbusClient(port) as one, ModbusClient(port) as other:
        assert await one.ask(read()) == values()
        assert await other.ask(read()) == values()
        assert await call(hass, DISCONNECT_CLIENT, loaded_entry, **whom) == {
            "disconnected": 2
        }
        assert await one.closed()
        assert await other.closed()


async def test_disconnect_somebody_who_is_not_there(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        with pytest.raises(ServiceValidationError) as error:
            await call(hass, DISCONNECT_CLIENT, loaded_entry, address="192.168.1.9")
        assert error.value.translation_key == "client_not_connected"
        assert await client.ask(read()) == values()


async def test_get_clients(hass: HomeAssistant, loaded_entry: MockConfigEntry) -> None:
    add_client(hass, loaded_entry, "evcc", "127.0.0.1")
    assert await call(hass, GET_CLIENTS, loaded_entry) == {"clients": []}
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        await client.ask(read())
        await client.ask(b"\x2b\x0e\x01\x00")  # an exception is an answer
        [told] = (await call(hass, GET_CLIENTS, loaded_entry))["clients"]
    assert told["since"] <= told["last_request"]
    assert told["since"].endswith("+00:00")
    assert {
        key: told[key]
        for key in told.keys() - {"port", "since", "last_request", "bytes_out"}
    } == {
        "address": "127.0.0.1",
        "name": "evcc",
        "requests": 2,
        "responses": 2,
        "failures": 0,
        "refused": 0,
        "pending": 0,
        "bytes_in": 23,
    }


async def test_get_and_reset_statistics(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        for unit in (1, 1, 2):
            await client.ask(read(), unit)
        told = await call(hass, GET_STATISTICS, loaded_entry)
        assert told["health"] == "healthy"
        assert told["requests"] == told["responses"] == 3
        assert told["clients"] == told["connections"] == 1
        assert set(told["failures"].values()) == {0}
        assert told["since"] <= told["connected_since"] <= told["last_response"]
        assert told["units"]["1"] == {
            "requests": 2,
            "responses": 2,
            "failures": 0,
            "refused": 0,
            "functions": {"3": 2},
        }
        assert told["units"]["2"]["requests"] == 1

        await call(hass, RESET_STATISTICS, loaded_entry)
        told = await call(hass, GET_STATISTICS, loaded_entry)
        assert told["requests"] == 0
        assert told["units"] == {}
        assert told["clients"] == 1


async def test_statistics_name_the_units_that_are_silent(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    hass.config_entries.async_update_entry(entry, options={"timeout": 0.1})
    assert await hass.config_entries.async_setup(entry.entry_id)
    device.silent_units = {7}
    async with ModbusClient(listen_port(hass, entry)) as client:
        for unit in (1, 7, 7, 7):
            await client.ask(read(), unit)
        told = await call(hass, GET_STATISTICS, entry)
    assert told["silent_units"] == [7]
    assert (told["failures"]["no_response"], told["failures"]["silent"]) == (2, 1)


async def test_send_request(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    hass.config_entries.async_update_entry(
        loaded_entry, options={CONF_ALLOW_SEND_REQUEST: True}
    )
    assert await call(
        hass, SEND_REQUEST, loaded_entry, unit_id=7, pdu="03 00 10 00 02"
    ) == {"unit_id": 7, "pdu": values(16, unit=7).hex(" ")}
    assert await call(hass, SEND_REQUEST, loaded_entry, unit_id=7, pdu="2B0E0100") == {
        "unit_id": 7,
        "pdu": "ab 01",
    }
    assert device.requests[0] == b"\x07\x03\x00\x10\x00\x02"


async def test_send_request_is_off_unless_enabled(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, SEND_REQUEST, loaded_entry, unit_id=1, pdu="0300000001")
    assert error.value.translation_key == "send_request_disabled"
    assert not device.requests


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({}, "modbus_request_fields"),
        ({"unit_id": 1}, "modbus_request_fields"),
        ({"pdu": "0300000001"}, "modbus_request_fields"),
        ({"unit_id": 1, "pdu": "03", "message": "03"}, "modbus_request_fields"),
        ({"unit_id": 1, "pdu": "three"}, "not_hex"),
        ({"unit_id": 1, "pdu": ""}, "invalid_request"),
        ({"unit_id": 1, "pdu": "00" * 254}, "invalid_request"),
    ],
)
async def test_send_request_refuses_what_is_none(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    data: dict[str, Any],
    key: str,
) -> None:
    hass.config_entries.async_update_entry(
        loaded_entry, options={CONF_ALLOW_SEND_REQUEST: True}
    )
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, SEND_REQUEST, loaded_entry, **data)
    assert error.value.translation_key == key
    assert not device.requests


async def test_send_request_without_an_answer(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    hass.config_entries.async_update_entry(
        entry, options={CONF_ALLOW_SEND_REQUEST: True, "timeout": 0.1}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    device.silent = True
    with pytest.raises(HomeAssistantError) as error:
        await call(hass, SEND_REQUEST, entry, unit_id=1, pdu="0300000001")
    assert error.value.translation_key == "request_no_response"


async def test_send_request_while_paused(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    hass.config_entries.async_update_entry(
        entry,
        data={**entry.data, CONF_PAUSED: True},
        options={CONF_ALLOW_SEND_REQUEST: True},
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    with pytest.raises(HomeAssistantError) as error:
        await call(hass, SEND_REQUEST, entry, unit_id=1, pdu="0300000001")
    assert error.value.translation_key == "request_paused"


async def test_send_request_of_another_protocol(hass: HomeAssistant) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    entry = MockConfigEntry(
        domain=DOMAIN,
        data={
            CONF_HOST: "127.0.0.1",
            "port": server.sockets[0].getsockname()[1],
            "protocol": "echo",
            CONF_LISTEN_HOST: "127.0.0.1",
            "listen_port": 0,
        },
        options={CONF_ALLOW_SEND_REQUEST: True},
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    message = b"hello\n".hex(" ")
    assert await call(hass, SEND_REQUEST, entry, message=message) == {
        "message": message
    }
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, SEND_REQUEST, entry, unit_id=1, pdu="03")
    assert error.value.translation_key == "message_request_fields"
    assert await hass.config_entries.async_unload(entry.entry_id)
    server.close()
    await server.wait_closed()


async def test_every_failure_has_its_words(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    """`request_<failure>` is looked up: each `Failure` must have a translation."""
    for language in ("en", "de"):
        words = await async_get_translations(hass, language, "exceptions", {DOMAIN})
        for failure in Failure:
            key = f"component.{DOMAIN}.exceptions.request_{failure.value}.message"
            assert "{title}" in words[key]


async def test_get_trace_tells_what_was_asked_and_answered(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        answer = await client.ask(read())
    told = await call(hass, GET_TRACE, loaded_entry, limit=1)
    (exchange,) = told["exchanges"]
    request = read()
    assert exchange["unit"] == 1
    assert exchange["function"] == 3
    assert exchange["outcome"] == "answered"
    assert exchange["client_name"] == "Home Assistant"
    assert exchange["response_seconds"] > 0
    assert exchange["values"] == [
        int.from_bytes(answer[at : at + 2]) for at in range(2, len(answer), 2)
    ]
    assert bytes.fromhex(exchange["request"])[1:] == request
    assert bytes.fromhex(exchange["response"])[1:] == answer


async def test_get_trace_as_capture(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        answer = await client.ask(read())
    told = await call(hass, GET_TRACE, loaded_entry, pcap=True)
    capture = b64decode(told["pcap"])
    assert told["exchanges"] == 1
    assert capture[:4] == bytes.fromhex("4d3cb2a1")
    assert capture.endswith(answer)
