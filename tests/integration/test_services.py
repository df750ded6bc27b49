"""The actions: what they do, what they answer, and what they say when they cannot."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import timedelta
import json
import re
import struct
from typing import Any
from unittest.mock import patch

from freezegun.api import FrozenDateTimeFactory
from homeassistant.components import persistent_notification
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import (
    ATTR_CONFIG_ENTRY_ID,
    CONF_HOST,
    CONF_PORT,
    CONF_PROTOCOL,
)
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import (
    HomeAssistantError,
    ServiceValidationError,
    Unauthorized,
    UnknownUser,
)
from homeassistant.helpers import area_registry as ar, device_registry as dr
from homeassistant.helpers.network import NoURLAvailableError
from homeassistant.helpers.translation import async_get_translations
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockUser,
    async_fire_time_changed,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator
import voluptuous as vol

from custom_components.tcp_multiplexer.const import (
    CONF_ALLOW_SEND_REQUEST,
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_PAUSED,
    CONF_WRITE_RULES,
    DOMAIN,
)
from custom_components.tcp_multiplexer.multiplexer import Failure
from custom_components.tcp_multiplexer.services import captures
from tests.waiting import until
from tests.wire import read, values

from .peers import ModbusClient, ModbusDevice
from .subentries import add_client
from .test_init import listen_port
from .words import LANGUAGES, assert_words

type Fetch = Callable[[str], Awaitable[tuple[int, bytes, Mapping[str, str]]]]

DISCONNECT_CLIENT = "disconnect_client"
GET_CLIENTS = "get_clients"
GET_STATISTICS = "get_statistics"
GET_TRACE = "get_trace"
READ_REGISTERS = "read_registers"
RECONNECT = "reconnect"
RESET_STATISTICS = "reset_statistics"
SEND_REQUEST = "send_request"
WRITE_REGISTERS = "write_registers"
DATA: dict[str, dict[str, Any]] = {
    DISCONNECT_CLIENT: {},
    GET_CLIENTS: {},
    GET_STATISTICS: {},
    GET_TRACE: {},
    READ_REGISTERS: {"address": 0},
    RECONNECT: {},
    RESET_STATISTICS: {},
    SEND_REQUEST: {},
    WRITE_REGISTERS: {"address": 0, "values": 1},
}
"""All actions, with what each needs."""
ANSWERING = DATA.keys() - {RECONNECT, RESET_STATISTICS}
FOR_ADMINISTRATORS = DATA.keys() - {RECONNECT}


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
    assert set(hass.services.async_services_for_domain(DOMAIN)) == DATA.keys()


@pytest.mark.parametrize("action", DATA)
async def test_entry_must_be_loaded(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, action: str
) -> None:
    assert await hass.config_entries.async_unload(loaded_entry.entry_id)
    assert loaded_entry.state is ConfigEntryState.NOT_LOADED
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, action, loaded_entry, **DATA[action])
    assert error.value.translation_key == "service_config_entry_not_loaded"


@pytest.mark.parametrize("action", sorted(FOR_ADMINISTRATORS))
async def test_these_are_for_administrators(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    hass_read_only_user: MockUser,
    action: str,
) -> None:
    context = Context(user_id=hass_read_only_user.id)
    with pytest.raises(Unauthorized):
        await call(hass, action, loaded_entry, context=context, **DATA[action])


async def test_only_administrators_cut_requests_off(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    device: ModbusDevice,
    hass_read_only_user: MockUser,
    hass_admin_user: MockUser,
) -> None:
    anybody = Context(user_id=hass_read_only_user.id)
    before = device.connection
    await call(hass, RECONNECT, loaded_entry, context=anybody)
    await until(lambda: device.connection not in {None, before})
    for user_id, error in ((hass_read_only_user.id, Unauthorized), ("?", UnknownUser)):
        context = Context(user_id=user_id)
        with pytest.raises(error):
            await call(hass, RECONNECT, loaded_entry, context=context, drain=False)
    administrator = Context(user_id=hass_admin_user.id)
    before = device.connection
    await call(hass, RECONNECT, loaded_entry, context=administrator, drain=False)
    await until(lambda: device.connection not in {None, before})


# Which multiplexer is meant


@pytest.fixture
async def other_entry(hass: HomeAssistant) -> AsyncGenerator[MockConfigEntry]:
    """Return a second entry, which shares another device."""
    device = ModbusDevice()
    await device.start()
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Meter",
        data={
            CONF_HOST: "127.0.0.1",
            CONF_PORT: device.port,
            CONF_PROTOCOL: "modbus",
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: 0,
        },
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    yield entry
    assert await hass.config_entries.async_unload(entry.entry_id)
    await device.stop()


def device_of(hass: HomeAssistant, entry: MockConfigEntry) -> dr.DeviceEntry:
    """Return the device of an entry in the registry."""
    [device] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    return device


async def call_target(
    hass: HomeAssistant, action: str, target: dict[str, Any], **data: Any
) -> Any:
    """Call an action as people click it; what it answers must be JSON."""
    response = await hass.services.async_call(
        DOMAIN,
        action,
        data,
        blocking=True,
        target=target,
        return_response=action in ANSWERING,
    )
    return json.loads(json.dumps(response))


async def test_device_and_its_entities_are_targets(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, other_entry: MockConfigEntry
) -> None:
    targets: tuple[dict[str, Any], ...] = (
        {"device_id": device_of(hass, loaded_entry).id},
        {"device_id": [device_of(hass, loaded_entry).id]},
        {"entity_id": "sensor.inverter_health"},
        {"entity_id": ["sensor.inverter_health", "button.inverter_reconnect"]},
    )
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        await client.ask(read())
        for target in targets:
            told = await call_target(hass, GET_CLIENTS, target)
            assert len(told["clients"]) == 1
    target = {"device_id": device_of(hass, other_entry).id}
    assert await call_target(hass, GET_CLIENTS, target) == {"clients": []}


async def test_whatever_else_is_in_an_area_is_left_alone(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    area = ar.async_get(hass).async_create("Cellar")
    registry = dr.async_get(hass)
    registry.async_update_device(device_of(hass, loaded_entry).id, area_id=area.id)
    stranger = MockConfigEntry(domain="other")
    stranger.add_to_hass(hass)
    lamp = registry.async_get_or_create(
        config_entry_id=stranger.entry_id, identifiers={("other", "lamp")}
    )
    registry.async_update_device(lamp.id, area_id=area.id)
    target = {"area_id": area.id}
    assert (await call_target(hass, GET_STATISTICS, target))["health"] == "healthy"
    with pytest.raises(ServiceValidationError) as error:
        await call_target(hass, GET_STATISTICS, {"device_id": lamp.id})
    assert error.value.translation_key == "no_multiplexer_targeted"


async def test_several_reconnect_at_once_but_answer_alone(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    other_entry: MockConfigEntry,
    device: ModbusDevice,
) -> None:
    ids = [device_of(hass, entry).id for entry in (loaded_entry, other_entry)]
    target = {"device_id": ids}
    before = device.connection
    await call_target(hass, RECONNECT, target)
    await call_target(hass, RESET_STATISTICS, target)
    await until(lambda: device.connection not in {None, before})
    with pytest.raises(ServiceValidationError) as error:
        await call_target(hass, GET_STATISTICS, target)
    assert error.value.translation_key == "several_multiplexers_targeted"
    assert error.value.translation_placeholders == {"titles": "Inverter, Meter"}


async def test_the_only_one_need_not_be_named(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    assert await call_target(hass, GET_CLIENTS, {}) == {"clients": []}


async def test_one_of_several_must_be_named(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, other_entry: MockConfigEntry
) -> None:
    with pytest.raises(ServiceValidationError):
        await call_target(hass, GET_CLIENTS, {})


# What each does


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
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, READ_REGISTERS, entry, address=0)
    assert error.value.translation_key == "no_registers"
    assert await hass.config_entries.async_unload(entry.entry_id)
    server.close()
    await server.wait_closed()


async def test_every_failure_has_its_words(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    """`request_<failure>` is looked up: each `Failure` must have a translation."""
    for language in LANGUAGES:
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


@pytest.fixture
async def fetch(
    hass: HomeAssistant, hass_client_no_auth: ClientSessionGenerator
) -> Fetch:
    """Return what follows a link as a browser does: with no right of its own."""
    hass.config.internal_url = "http://192.0.2.7:8123"

    async def fetch(link: str) -> tuple[int, bytes, Mapping[str, str]]:
        base = "http://192.0.2.7:8123"
        assert link.startswith(f"{base}/api/{DOMAIN}/capture/")
        path = link.removeprefix(base)
        client = await hass_client_no_auth()
        async with client.head(path) as response:  # what previews links
            assert response.status == 405
        async with client.get(path) as response:
            return response.status, await response.read(), response.headers

    return fetch


def notifications(hass: HomeAssistant) -> list[str]:
    """Return what is shown to people now."""
    shown = persistent_notification._async_get_or_create_notifications(hass)  # noqa: SLF001
    return [f"{each['title']}: {each['message']}" for each in shown.values()]


async def test_capture_is_offered_as_a_file_once(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, fetch: Fetch
) -> None:
    async with ModbusClient(listen_port(hass, loaded_entry)) as client:
        answer = await client.ask(read())
    told = await call(hass, GET_TRACE, loaded_entry, file=True)
    assert told.keys() == {"exchanges", "link", "valid_until"}
    assert told["exchanges"] == 1
    [shown] = notifications(hass)
    assert shown.startswith("Inverter: capture: ")
    assert re.search(r"\]\((.*)\)", shown)[1] == told["link"]  # type: ignore[index]

    status, capture, headers = await fetch(told["link"])
    assert status == 200
    assert capture[:4] == bytes.fromhex("4d3cb2a1")
    assert capture.endswith(answer)
    assert headers["Content-Disposition"] == 'attachment; filename="inverter.pcap"'
    assert headers["Cache-Control"] == "no-store"
    assert notifications(hass) == []
    assert (await fetch(told["link"]))[0] == 404


async def test_capture_is_offered_for_five_minutes(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    fetch: Fetch,
    freezer: FrozenDateTimeFactory,
) -> None:
    told = await call(hass, GET_TRACE, loaded_entry, file=True, pcap=True)
    assert b64decode(told["pcap"])
    for seconds, shown in ((299, 1), (2, 0)):
        freezer.tick(timedelta(seconds=seconds))
        async_fire_time_changed(hass)
        await hass.async_block_till_done()
        assert len(notifications(hass)) == shown
    assert (await fetch(told["link"]))[0] == 404


async def test_last_capture_of_an_entry_is_offered(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, fetch: Fetch
) -> None:
    first = await call(hass, GET_TRACE, loaded_entry, file=True)
    second = await call(hass, GET_TRACE, loaded_entry, file=True)
    assert len(notifications(hass)) == 1
    assert (await fetch(first["link"]))[0] == 404
    assert (await fetch(second["link"]))[0] == 200


async def test_each_entry_has_a_capture_of_its_own(
    hass: HomeAssistant,
    loaded_entry: MockConfigEntry,
    other_entry: MockConfigEntry,
    fetch: Fetch,
) -> None:
    links = [
        (await call(hass, GET_TRACE, entry, file=True))["link"]
        for entry in (loaded_entry, other_entry)
    ]
    assert len(notifications(hass)) == 2
    for link in links:
        assert (await fetch(link))[0] == 200


async def test_capture_needs_an_address(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    with (
        patch.object(captures, "get_url", side_effect=NoURLAvailableError),
        pytest.raises(HomeAssistantError) as error,
    ):
        await call(hass, GET_TRACE, loaded_entry, file=True)
    assert error.value.translation_key == "no_own_url"
    assert notifications(hass) == []


# Registers


async def test_read_registers(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    told = await call(hass, READ_REGISTERS, loaded_entry, address=16, count=3)
    assert told == {
        "unit_id": 1,
        "table": "holding_registers",
        "address": 16,
        "values": list(struct.unpack(">3H", values(16, 3)[2:])),
        "raw": values(16, 3)[2:].hex(" "),
    }
    told = await call(
        hass,
        READ_REGISTERS,
        loaded_entry,
        unit_id=7,
        table="input_registers",
        address=16,
        data_type="int32",
        word_order="little",
    )
    low, high = struct.unpack(">2H", values(16, 2, unit=7)[2:])
    assert told["values"] == [high << 16 | low]
    assert device.requests == [
        b"\1\3\0\x10\0\3",
        b"\7\4\0\x10\0\2",
    ]


async def test_exception_is_told_with_its_name(
    hass: HomeAssistant, loaded_entry: MockConfigEntry
) -> None:
    with pytest.raises(HomeAssistantError) as error:
        await call(hass, READ_REGISTERS, loaded_entry, address=0, table="coils")
    assert error.value.translation_key == "modbus_exception"
    assert error.value.translation_placeholders == {
        "title": "Inverter",
        "code": "0x01",
        "name": "illegal function",
    }


async def test_response_of_another_length_is_none(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    with (
        patch.object(device, "answer", return_value=b"\1\3\4\0\0\0\0"),
        pytest.raises(HomeAssistantError) as error,
    ):
        await call(hass, READ_REGISTERS, loaded_entry, address=0)
    assert error.value.translation_key == "request_invalid_response"


async def test_too_many_registers(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, READ_REGISTERS, loaded_entry, address=0, count=126)
    assert error.value.translation_key == "too_many_values"
    assert not device.requests


async def test_write_registers(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    hass.config_entries.async_update_entry(
        loaded_entry, options={CONF_ALLOW_SEND_REQUEST: True}
    )
    told = await call(
        hass,
        WRITE_REGISTERS,
        loaded_entry,
        address=47,
        values=[-1, 2],
        data_type="int32",
    )
    assert told == {
        "unit_id": 1,
        "table": "holding_registers",
        "address": 47,
        "raw": "10 00 2f 00 04 08 ff ff ff ff 00 00 00 02",
    }
    await call(hass, WRITE_REGISTERS, loaded_entry, address=47, values=5)
    await call(
        hass, WRITE_REGISTERS, loaded_entry, address=2, table="coils", values="on"
    )
    assert [request.hex(" ") for request in device.requests] == [
        "01 " + told["raw"],
        "01 06 00 2f 00 05",
        "01 05 00 02 ff 00",
    ]


async def test_writing_must_be_enabled(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, WRITE_REGISTERS, loaded_entry, address=47, values=5)
    assert error.value.translation_key == "send_request_disabled"
    assert not device.requests


async def test_writing_obeys_the_rules(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    """Where a client of this computer may write, so may the action."""
    rules = [
        {"clients": ["Home Assistant"], "registers": [47, 48], "action": "allow"},
        {"action": "deny"},
    ]
    hass.config_entries.async_update_entry(
        loaded_entry,
        options={CONF_ALLOW_SEND_REQUEST: True, CONF_WRITE_RULES: rules},
    )
    await hass.async_block_till_done()
    await call(hass, WRITE_REGISTERS, loaded_entry, address=47, values=[5, 6])
    with pytest.raises(HomeAssistantError) as error:
        await call(hass, WRITE_REGISTERS, loaded_entry, address=48, values=[5, 6])
    assert error.value.translation_key == "request_refused"
    assert len(device.requests) == 1


async def test_what_cannot_be_written_is_told(
    hass: HomeAssistant, loaded_entry: MockConfigEntry, device: ModbusDevice
) -> None:
    hass.config_entries.async_update_entry(
        loaded_entry, options={CONF_ALLOW_SEND_REQUEST: True}
    )
    with pytest.raises(ServiceValidationError) as error:
        await call(hass, WRITE_REGISTERS, loaded_entry, address=47, values=70000)
    assert error.value.translation_key == "invalid_number"
    with pytest.raises(vol.Invalid):
        await call(
            hass,
            WRITE_REGISTERS,
            loaded_entry,
            address=47,
            values=1,
            table="input_registers",
        )
    assert not device.requests


async def test_every_problem_of_a_value_has_its_words() -> None:
    for key in (
        "too_many_values",
        "too_much_to_write",
        "no_values",
        "beyond_last_address",
        "invalid_number",
        "invalid_bit",
    ):
        assert_words(("exceptions", key, "message"), {"most", "value", "data_type"})
