"""What happened stands in the logbook, whole, in the language of the instance."""

from datetime import timedelta
from typing import Any

from homeassistant.components.logbook.const import DOMAIN as LOGBOOK_DOMAIN
from homeassistant.components.logbook.models import LogbookConfig
from homeassistant.components.logbook.processor import EventProcessor
from homeassistant.components.recorder import get_instance
from homeassistant.const import CONF_ENTITY_ID, EVENT_LOGBOOK_ENTRY, STATE_ON
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.translation import async_load_integrations
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_capture_events,
)
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
)

from custom_components.tcp_multiplexer.const import DOMAIN
from custom_components.tcp_multiplexer.event import (
    WRITE_VALUES,
    WRITES_BYTES,
    bounded,
)
from custom_components.tcp_multiplexer.messages import Messages
from custom_components.tcp_multiplexer.multiplexer import (
    ClientRefusal,
    CloseReason,
    Event,
    EventType,
    Failure,
)
from custom_components.tcp_multiplexer.telling import Told, shown_type
from tests.waiting import until

from .peers import ModbusClient, ModbusDevice
from .subentries import add_client
from .test_entities import EVENT, Heard, load
from .test_init import CONNECTION, listen_port
from .words import LANGUAGES

NAMES = {"192.168.1.5": "evcc (192.168.1.5)"}


@pytest.fixture(autouse=True)
def custom_integrations(recorder_db_url: str, enable_custom_integrations: None) -> None:
    """Let Home Assistant find the integration, once there is a database."""


async def messages(hass: HomeAssistant, language: str) -> Messages:
    """Make sentences in a language."""
    hass.config.language = language
    await async_load_integrations(hass, {DOMAIN})
    return Messages(hass, lambda address: NAMES.get(address, address))


def told(event: Event, *clients: str, more: bool = False) -> Told:
    """Give what is told of an event."""
    shown = shown_type(event)
    assert shown
    return Told(shown, event, clients, more)


TURNED_AWAY = Event(EventType.CLIENT_REFUSED, reason=ClientRefusal.NOT_ALLOWED)


@pytest.mark.parametrize(
    ("language", "event", "clients", "message"),
    [
        (
            "en",
            TURNED_AWAY,
            ["192.168.1.5"],
            (
                "evcc (192.168.1.5) was turned away: its address is not in Allowed "
                "networks"
            ),
        ),
        (
            "de",
            TURNED_AWAY,
            ["192.168.1.5"],
            (
                "evcc (192.168.1.5) wurde abgewiesen: Die Adresse gehört nicht zu "
                "„Erlaubte Netze“"
            ),
        ),
        (
            "en",
            Event(EventType.CLIENT_CONNECTED, count=7),
            ["192.168.1.5"],
            "evcc (192.168.1.5) connected (7 times)",
        ),
        (
            "en",
            Event(EventType.CLIENT_CONNECTED, count=7),
            ["192.168.1.5", "192.168.1.6", "192.168.1.7"],
            (
                "evcc (192.168.1.5) connected (also 192.168.1.6, 192.168.1.7; 7 times in "
                "all)"
            ),
        ),
        (
            "en",
            Event(EventType.CLIENT_CONNECTED, count=700),
            ["192.168.1.6", "192.168.1.7", "..."],
            "192.168.1.6 connected (also 192.168.1.7 and more; 700 times in all)",
        ),
        (
            "de",
            Event(
                EventType.REQUEST_REFUSED, None, Failure.NO_RESPONSE, "unit 1 read 7"
            ),
            [],
            (
                "Ein Client bekam keine Antwort: Das Gerät hat nicht rechtzeitig "
                "geantwortet (unit 1 read 7)"
            ),
        ),
        (
            "de",
            Event(EventType.UPSTREAM_LOST, detail=CloseReason.RESET),
            [],
            "Das Gerät ist nicht erreichbar (Verbindung abgebrochen)",
        ),
        (
            "en",
            Event(EventType.UPSTREAM_LOST, detail="Connect call failed"),
            [],
            "The device cannot be reached (Connect call failed)",
        ),
        ("en", Event(EventType.UPSTREAM_BACK), [], "The device answers again"),
        (
            "en",
            Event(EventType.UPSTREAM_BACK, count=4),
            [],
            "The device answers again (it was away 4 times)",
        ),
    ],
)
async def test_sentences(
    hass: HomeAssistant, language: str, event: Event, clients: list[str], message: str
) -> None:
    more = "..." in clients
    shown = told(event, *(each for each in clients if each != "..."), more=more)
    assert (await messages(hass, language)).async_message(shown) == message


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_type_has_a_sentence_in_each_language(
    hass: HomeAssistant, language: str
) -> None:
    sentences = await messages(hass, language)
    reasons = [None, *ClientRefusal, *Failure]
    events = [
        Event(kind, reason=reason, detail="2")
        for kind in EventType
        for reason in reasons
    ]
    said = {
        sentences.async_message(told(event, "192.168.1.5"))
        for event in events
        if shown_type(event)
    }
    assert not {sentence for sentence in said if "{" in sentence}
    assert len(said) == 21


async def test_a_row_in_the_logbook_at_the_entity(
    recorder_mock: Any, hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    """The recorder's and the logbook's own; only the page is not installed here."""
    begin = dt_util.utcnow()
    hass.config.components.add(LOGBOOK_DOMAIN)
    hass.data[LOGBOOK_DOMAIN] = LogbookConfig({})
    add_client(hass, entry, "evcc", "127.0.0.1")
    await load(hass, entry, allowed_networks=["192.168.0.0/16"])
    await messages(hass, "de")  # the owner chooses another language
    heard = Heard(hass)
    async with ModbusClient(listen_port(hass, entry)) as client:
        assert await client.closed()
    await until(lambda: heard.attributes)
    await async_wait_recording_done(hass)
    processor = EventProcessor(hass, (EVENT_LOGBOOK_ENTRY,), [EVENT])
    rows = await get_instance(hass).async_add_executor_job(
        processor.get_events, begin, dt_util.utcnow() + timedelta(seconds=1)
    )
    [row] = [row for row in rows if "message" in row]
    assert row.pop("when")
    assert row == {
        "name": "Inverter Device and clients",
        "message": "evcc (127.0.0.1) wurde abgewiesen: Die Adresse gehört nicht zu "
        "„Erlaubte Netze“",
        "domain": DOMAIN,
        CONF_ENTITY_ID: EVENT,
    }


async def test_one_row_for_each_event_and_none_without_the_entity(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    logged = async_capture_events(hass, EVENT_LOGBOOK_ENTRY)
    heard = Heard(hass)
    await load(hass, entry)

    async def come_and_go(times: int) -> None:
        before = len(heard.attributes)
        for _ in range(times):
            async with ModbusClient(listen_port(hass, entry)):
                await until(
                    lambda: hass.states.is_state("sensor.inverter_clients", "1")
                )
            await until(lambda: hass.states.is_state("sensor.inverter_clients", "0"))
        await until(lambda: len(heard.attributes) > before)

    await come_and_go(1)
    assert not logged  # there is no logbook
    hass.config.components.add(LOGBOOK_DOMAIN)
    heard.attributes.clear()
    await come_and_go(1)
    await until(lambda: len(heard.attributes) == 2)
    assert [row.data["message"] for row in logged] == [
        "Home Assistant (127.0.0.1) connected",
        "Home Assistant (127.0.0.1) disconnected",
    ]
    logged.clear()
    registry = er.async_get(hass)
    registry.async_update_entity(EVENT, disabled_by=er.RegistryEntryDisabler.USER)
    await hass.config_entries.async_reload(entry.entry_id)
    await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
    async with ModbusClient(listen_port(hass, entry)):
        await until(lambda: hass.states.is_state("sensor.inverter_clients", "1"))
    await until(lambda: hass.states.is_state("sensor.inverter_clients", "0"))
    assert not logged


# What automations get


async def test_writes_are_told_but_not_all_of_them(
    hass: HomeAssistant, entry: MockConfigEntry, device: ModbusDevice
) -> None:
    heard = Heard(hass)
    await load(hass, entry, write_rules=[{"action": "deny"}])
    async with ModbusClient(listen_port(hass, entry)) as client:
        pdu = b"\x10\0\7\0\x7b\xf6" + b"\x12\x34" * 123
        assert await client.ask(pdu) == b"\x90\1"
    await until(lambda: heard.of("write_refused"))
    [attributes] = heard.of("write_refused")
    assert attributes["writes"] == [
        {
            "unit": 1,
            "function": 16,
            "address": 7,
            "value": [0x1234] * WRITE_VALUES,
            "count": 123,
        }
    ]


def test_writes_are_bounded() -> None:
    short = {"unit": 1, "function": 6, "address": 7, "value": 8}
    assert bounded([short]) == [short]
    long = {**short, "value": [65535] * 123}
    vendor = {"unit": 1, "function": 0x41, "value": "ab" * 252}
    kept = bounded([long, vendor, *[long] * 100])
    assert kept[0]["value"] == [65535] * WRITE_VALUES
    assert kept[0]["count"] == 123
    assert kept[1] == {**vendor, "value": "ab" * 2 * WRITE_VALUES, "count": 252}
    assert len(str(kept)) <= WRITES_BYTES < len(str([*kept, kept[0]]))
