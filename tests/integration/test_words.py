"""Whatever people choose or are shown has words in every language, and a place.

The code's own registries are held against the translations. What dialogs and issues
show is checked where other tests open them: see `dialogs.py` and `words.py`.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any
from unittest.mock import patch

from homeassistant.components import system_health
from homeassistant.config_entries import SOURCE_RECONFIGURE, ConfigEntryState
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import section
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.selector import SelectSelector
from homeassistant.setup import async_setup_component
from homeassistant.util.yaml import load_yaml_dict
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    get_system_health_info,
)
import voluptuous as vol

from custom_components.tcp_multiplexer import config_flow
from custom_components.tcp_multiplexer.config_flow import TcpMultiplexerConfigFlow
from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    DOMAIN,
)
from custom_components.tcp_multiplexer.flow.probe import DeviceProblem
from custom_components.tcp_multiplexer.local_sockets import ListenProblem
from custom_components.tcp_multiplexer.multiplexer import (
    PROFILES,
    PROTOCOLS,
    ROWS,
    ClientRefusal,
    CloseReason,
    Failure,
    Health,
    Settings,
)
from custom_components.tcp_multiplexer.multiplexer.observe.snapshot import TraceOutcome
from custom_components.tcp_multiplexer.telling import SHOWN_TYPES

from .dialogs import Dialog
from .words import LANGUAGES, TRANSLATIONS, words_in

SHOWN_ELSEWHERE = {
    "framing": "upstream",
    "serial": "device",
    "dial_in": "dial_in_port",
    "tls": "tls_upstream",
    "more_listeners": "client_framing",
}
"""Settings that no field is named for, and a field by which each is set."""


@pytest.fixture(params=LANGUAGES)
def words(request: pytest.FixtureRequest) -> Any:
    """Return the words of each language."""
    return words_in(request.param)


def idle_entry(hass: HomeAssistant, protocol: str) -> MockConfigEntry:
    """Add an entry that dials nobody until it is asked something."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="Idle",
        data={
            CONF_PROTOCOL: protocol,
            CONF_HOST: "127.0.0.1",
            CONF_PORT: 1,
            CONF_LISTEN_HOST: "127.0.0.1",
            CONF_LISTEN_PORT: 0,
        },
        options={"connect_on_demand": True},
    )
    entry.add_to_hass(hass)
    return entry


# Protocols and profiles


def test_protocols_have_words(words: Any) -> None:
    assert words["selector"]["protocol"]["options"].keys() == PROTOCOLS.keys()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_protocol_has_a_model_and_entities(
    hass: HomeAssistant, protocol: str
) -> None:
    entry = idle_entry(hass, protocol)
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.LOADED
    (device,) = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert device.model
    entities = er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    assert {entity.domain for entity in entities} == words_in("en")["entity"].keys()


def test_profiles_have_words(words: Any) -> None:
    assert words["selector"]["profile"]["options"].keys() == PROFILES.keys()


# Fields and their choices


def fields_of(schema: vol.Schema) -> Iterator[tuple[str, Any]]:
    """Give the fields of a form with their selectors, sections or not."""
    for key, value in schema.schema.items():
        if isinstance(value, section):
            yield from fields_of(value.schema)
        else:
            yield str(key), value


async def shown_fields(hass: HomeAssistant) -> dict[str, Any]:
    """Open each form for each protocol; give all fields with their selectors."""
    shown: dict[str, Any] = {}

    def look_at(dialog: Dialog) -> None:
        shown.update(fields_of(dialog.page["data_schema"]))
        dialog.abandon()

    adding = Dialog(hass)
    await adding.start()
    look_at(adding)
    with patch.object(config_flow, "find_logger_serial", return_value=0):
        await adding.start()
        await adding.send(host="127.0.0.1", upstream="solarman")
    look_at(adding)
    for protocol in PROTOCOLS:
        entry = idle_entry(hass, protocol)
        assert await hass.config_entries.async_setup(entry.entry_id)
        changing = Dialog(hass)
        await changing.start(source=SOURCE_RECONFIGURE, entry_id=entry.entry_id)
        look_at(changing)
        options = Dialog(hass, options_of=entry.entry_id)
        await options.start()
        look_at(options)
        for kind in entry.supported_subentry_types:
            subentry = Dialog(hass, subentry_of=(entry.entry_id, kind))
            await subentry.start()
            look_at(subentry)
        assert await hass.config_entries.async_remove(entry.entry_id)
    return shown


async def test_every_setting_has_its_place_in_a_form(hass: HomeAssistant) -> None:
    shown = await shown_fields(hass)
    settings = {field.name for field in fields(Settings)}
    assert settings - shown.keys() == SHOWN_ELSEWHERE.keys()
    assert shown.keys() >= set(SHOWN_ELSEWHERE.values())


def choices_of_actions() -> Iterator[tuple[str, set[str]]]:
    """Give the choices in the fields of actions, by the names of their words."""
    actions = load_yaml_dict(str(TRANSLATIONS.parent / "services.yaml"))
    for action in actions.values():
        for field in action["fields"].values():
            if (select := field["selector"].get("select")) is not None:
                yield select["translation_key"], set(select["options"])


async def test_every_choice_has_words(hass: HomeAssistant) -> None:
    shown = await shown_fields(hass)
    choices = {
        selector.config["translation_key"]: set(selector.config["options"])
        for selector in shown.values()
        if isinstance(selector, SelectSelector) and "translation_key" in selector.config
    }
    for name, choice in choices_of_actions():
        choices[name] = choices.get(name, set()) | choice
    for language in LANGUAGES:
        options = {
            name: words["options"].keys()
            for name, words in words_in(language)["selector"].items()
            if "options" in words
        }
        assert options == choices


@pytest.mark.parametrize("language", LANGUAGES)
def test_options_that_disconnect_clients_say_so(language: str) -> None:
    """They end with one and the same sentence, and no other option says it."""
    page = words_in(language)["options"]["step"]["preferences"]
    texts = {
        field: text
        for part in page["sections"].values()
        for field, text in part["data_description"].items()
        if field in ROWS
    }
    [disconnects] = {
        text.rpartition(". ")[2]
        for field, text in texts.items()
        if not ROWS[field].live
    }
    if language == "en":
        assert disconnects == "Changing this disconnects all clients briefly."
    said = {field: disconnects in text for field, text in texts.items()}
    assert said == {field: not ROWS[field].live for field in said}


async def test_whatever_a_profile_sets_can_be_changed(hass: HomeAssistant) -> None:
    shown = await shown_fields(hass)
    for name, profile in PROFILES.items():
        for setting in profile.settings:
            assert SHOWN_ELSEWHERE.get(setting, setting) in shown, name


# Problems


@pytest.mark.parametrize("problem", DeviceProblem)
def test_every_problem_of_a_device_has_its_page(
    problem: DeviceProblem, words: Any
) -> None:
    assert callable(getattr(TcpMultiplexerConfigFlow, f"async_step_{problem}"))
    menu = {"try_again", "change", "add_anyway", "save_anyway"}
    assert words["config"]["step"][problem]["menu_options"].keys() == menu


@pytest.mark.parametrize("problem", ListenProblem)
def test_every_problem_of_a_local_port_has_words(
    problem: ListenProblem, words: Any
) -> None:
    for kind in (words["config"], words["config_subentries"]["local_port"]):
        assert kind["error"][problem]


async def test_every_kind_of_subentry_has_words(hass: HomeAssistant) -> None:
    """Home Assistant shows them at the entry, beside the dialogs."""
    kinds = idle_entry(hass, "modbus").supported_subentry_types
    for language in LANGUAGES:
        words = words_in(language)["config_subentries"]
        assert words.keys() == kinds.keys()
        for kind, supports in kinds.items():
            assert supports == {"supports_reconfigure": True}
            assert words[kind]["entry_type"]
            assert words[kind]["initiate_flow"].keys() == {"user", "reconfigure"}


# States and events


def test_every_health_has_words(words: Any) -> None:
    states = words["entity"]["sensor"]["health"]["state"]
    assert states.keys() == {health.value for health in Health}


def test_every_event_has_words_and_a_sentence(words: Any) -> None:
    event = words["entity"]["event"]["upstream_and_clients"]
    states = event["state_attributes"]["event_type"]["state"]
    assert states.keys() == set(SHOWN_TYPES)
    frames = {"nobody", "count", "clients", "more_clients", "outages"}
    sentences = {name for name in words["common"] if name.startswith("event_")}
    assert sentences == {f"event_{name}" for name in (*SHOWN_TYPES, *frames)}


def test_every_reason_of_an_event_has_words(words: Any) -> None:
    event = words["entity"]["event"]["upstream_and_clients"]
    states = event["state_attributes"]["reason"]["state"]
    reasons = {*Failure, *ClientRefusal, TraceOutcome.ACKNOWLEDGED}
    assert states.keys() == {reason.value for reason in reasons}


def test_every_end_of_a_connection_has_words(words: Any) -> None:
    """An outage that has no better detail says why its connection ended."""
    event = words["entity"]["event"]["upstream_and_clients"]
    states = event["state_attributes"]["detail"]["state"]
    assert states.keys() == {reason.value for reason in CloseReason}


async def test_all_of_system_health_has_words(hass: HomeAssistant) -> None:
    assert await async_setup_component(hass, DOMAIN, {})
    assert await async_setup_component(hass, system_health.DOMAIN, {})
    await hass.async_block_till_done()
    shown = await get_system_health_info(hass, DOMAIN)
    for language in LANGUAGES:
        assert words_in(language)["system_health"]["info"].keys() == shown.keys()
