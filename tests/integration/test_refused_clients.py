"""Who is turned away is named, and let in with a click."""

from ipaddress import ip_address
from typing import Any

from homeassistant.components import network
from homeassistant.const import STATE_ON
from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer import refused_clients
from custom_components.tcp_multiplexer.const import CONF_LEFT_OUT
from custom_components.tcp_multiplexer.multiplexer import (
    ClientRefusal,
    Event,
    EventType,
)
from custom_components.tcp_multiplexer.refused_clients import (
    ATTEMPTS,
    CLIENTS_NAMED,
    REFUSED_CLIENTS,
    TAILSCALE,
)
from tests.waiting import until
from tests.wire import read, values

from .peers import ModbusClient
from .subentries import add_client
from .test_init import CONNECTION, listen_port
from .test_repairs import Repairs, assert_no_issues, issues, repairs  # noqa: F401
from .words import words_in

FAR_AWAY = "93.184.216.34"
PHONE = "100.101.7.7"
OWN_PUBLIC = "2a00:1234:5:6::7"
OWN_NETWORK = "2a00:1234:5:6::/64"
VISITOR = "2a00:1234:5:6:aaaa:bbbb:cccc:dddd"


@pytest.fixture
async def narrow(hass: HomeAssistant, entry: MockConfigEntry) -> MockConfigEntry:
    """Return a loaded entry that lets nobody in who is on this machine."""
    hass.config_entries.async_update_entry(
        entry,
        options={"allowed_networks": ["10.0.0.0/8"]},
    )
    add_client(hass, entry, "evcc", "127.0.0.5")
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
    return entry


async def turned_away(
    hass: HomeAssistant, entry: MockConfigEntry, address: str, times: int = ATTEMPTS
) -> None:
    """Try to connect from an address of this machine."""
    for _ in range(times):
        async with ModbusClient(listen_port(hass, entry), address) as client:
            assert await client.closed()


def report(entry: MockConfigEntry, client: str | None, count: int = ATTEMPTS) -> None:
    """Report a client at an address that this machine cannot have."""
    reason = ClientRefusal.NOT_ALLOWED
    entry.runtime_data.multiplexer._events.emit(  # noqa: SLF001
        Event(EventType.CLIENT_REFUSED, client, reason, count=count)
    )


def offered(step: dict[str, Any]) -> list[str]:
    """Give what a menu offers, in words."""
    words = words_in("en")["issues"][REFUSED_CLIENTS]["fix_flow"]["step"]["init"]
    return [
        words["menu_options"][option].format(**step["description_placeholders"])
        for option in step["menu_options"]
    ]


async def test_a_client_that_is_turned_away_is_let_in_with_a_click(
    hass: HomeAssistant,
    narrow: MockConfigEntry,
    repairs: Repairs,  # noqa: F811
) -> None:
    await turned_away(hass, narrow, "127.0.0.5", ATTEMPTS - 1)
    assert_no_issues(hass)
    await turned_away(hass, narrow, "127.0.0.5", 1)
    await until(lambda: issues(hass))  # attempts are reported once a second
    issue = issues(hass)[REFUSED_CLIENTS]
    assert issue.translation_placeholders == {
        "title": "Inverter",
        "clients": "* evcc (127.0.0.5)",
    }
    step = await repairs.open(issue)  # the first click
    assert offered(step) == [
        "Let 127.0.0.5 in",
        "Leave them out, and do not mention them again",
    ]
    done = await repairs.submit(step, next_step_id="allow_1")  # the second
    assert done["type"] == "create_entry"
    assert_no_issues(hass)
    async with ModbusClient(listen_port(hass, narrow), "127.0.0.5") as client:
        assert await client.ask(read()) == values()
    assert narrow.options["allowed_networks"] == ["10.0.0.0/8", "127.0.0.5/32"]
    await hass.async_block_till_done()
    assert_no_issues(hass)


async def test_the_others_are_still_named(
    hass: HomeAssistant,
    narrow: MockConfigEntry,
    repairs: Repairs,  # noqa: F811
) -> None:
    for number in range(1, CLIENTS_NAMED + 2):
        report(narrow, f"192.168.7.{number}")
    step = await repairs.open(issues(hass)[REFUSED_CLIENTS])
    assert step["menu_options"] == [
        *(f"allow_{number}" for number in range(1, CLIENTS_NAMED + 1)),
        "leave_out",
    ]
    await repairs.submit(step, next_step_id="allow_2")
    await until(lambda: issues(hass))
    named = (issues(hass)[REFUSED_CLIENTS].translation_placeholders or {})["clients"]
    assert "192.168.7.2" not in named
    assert "192.168.7.6" in named  # there is room now
    for number in (1, 3, 4, 5):
        step = await repairs.open(issues(hass)[REFUSED_CLIENTS])
        assert f"Let 192.168.7.{number} in" == offered(step)[0]
        await repairs.submit(step, next_step_id="allow_1")
        await until(lambda: issues(hass))


async def test_left_out_for_good(
    hass: HomeAssistant,
    narrow: MockConfigEntry,
    repairs: Repairs,  # noqa: F811
) -> None:
    report(narrow, "192.168.7.7")
    step = await repairs.open(issues(hass)[REFUSED_CLIENTS])
    await repairs.submit(step, next_step_id="leave_out")
    assert_no_issues(hass)
    assert narrow.data[CONF_LEFT_OUT] == ["192.168.7.7"]
    await hass.async_block_till_done()
    report(narrow, "192.168.7.7")
    assert_no_issues(hass)
    report(narrow, "192.168.7.8")
    assert "192.168.7.7" not in str(issues(hass)[REFUSED_CLIENTS])


@pytest.mark.parametrize(
    ("client", "words", "option", "added"),
    [
        pytest.param(FAR_AWAY, [], "", [], id="a public address"),
        pytest.param(
            PHONE,
            [f"Let {PHONE} in", "Let everybody in your Tailscale network in"],
            "allow_tailscale",
            [str(each) for each in TAILSCALE],
            id="Tailscale",
        ),
        pytest.param(
            VISITOR,
            [
                f"Let {VISITOR} in",
                f"Let everybody in your own network {OWN_NETWORK} in",
            ],
            "allow_own_network",
            [OWN_NETWORK],
            id="one's own network",
        ),
    ],
)
async def test_what_is_offered(  # noqa: PLR0917
    hass: HomeAssistant,
    narrow: MockConfigEntry,
    repairs: Repairs,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    client: str,
    words: list[str],
    option: str,
    added: list[str],
) -> None:
    """This machine has a public address of IPv6, as one behind a router has."""
    adapters = [
        {
            "ipv4": [{"address": "192.168.7.2", "network_prefix": 24}],
            "ipv6": [{"address": OWN_PUBLIC, "network_prefix": 128}],
        }
    ]
    monkeypatch.setattr(network, "async_get_loaded_adapters", lambda _: adapters)
    report(narrow, client)
    issue = issues(hass)[REFUSED_CLIENTS]
    assert client in (issue.translation_placeholders or {})["clients"]
    step = await repairs.open(issue)
    *shown, leave_out = offered(step)
    assert shown == words
    assert leave_out.startswith("Leave")
    if option:
        await repairs.submit(step, next_step_id=option)
        assert narrow.options["allowed_networks"] == ["10.0.0.0/8", *added]
        assert_no_issues(hass)


def test_a_public_address_of_ipv4_has_its_network_too(
    hass: HomeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is this machine's neighbour, but its network is not offered as a whole."""
    adapters = [
        {"ipv4": [{"address": "93.184.216.2", "network_prefix": 24}], "ipv6": []}
    ]
    monkeypatch.setattr(network, "async_get_loaded_adapters", lambda _: adapters)
    assert refused_clients.offers(hass, [FAR_AWAY, PHONE]) == {
        "allow_1": [f"{FAR_AWAY}/32"],
        "allow_2": [f"{PHONE}/32"],
        "allow_tailscale": [str(each) for each in TAILSCALE],
    }


async def test_gone_when_it_is_let_in_otherwise(
    hass: HomeAssistant, narrow: MockConfigEntry
) -> None:
    report(narrow, "127.0.0.6")
    assert issues(hass)
    hass.config_entries.async_update_entry(
        narrow, options={"allowed_networks": ["127.0.0.0/8"]}
    )
    await until(lambda: not issues(hass))


async def test_gone_when_it_is_connected(
    hass: HomeAssistant, narrow: MockConfigEntry
) -> None:
    """It may be let in before the entry says so."""
    report(narrow, "127.0.0.6")
    assert issues(hass)
    multiplexer = narrow.runtime_data.multiplexer
    multiplexer._events.emit(  # noqa: SLF001
        Event(EventType.CLIENT_CONNECTED, "127.0.0.6")
    )
    assert_no_issues(hass)


async def test_gone_when_it_stays_away_and_with_the_entry(
    hass: HomeAssistant, narrow: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_clients, "AWAY_SECONDS", 0.2)
    report(narrow, "192.168.7.7")
    assert issues(hass)
    await until(lambda: not issues(hass))
    report(narrow, "192.168.7.7", 1)  # which begins anew
    assert_no_issues(hass)
    report(narrow, "192.168.7.7")
    assert issues(hass)
    await hass.config_entries.async_unload(narrow.entry_id)
    assert_no_issues(hass)


async def test_a_scan_is_bounded(hass: HomeAssistant, narrow: MockConfigEntry) -> None:
    first = int(ip_address("192.168.0.0"))
    for number in range(1000):
        report(narrow, str(ip_address(first + number)), 1)
    report(narrow, None)  # merged by the engine
    assert not issues(hass)
    report(narrow, "192.168.3.3")
    assert not issues(hass)  # not counted any more
    report(narrow, "192.168.0.3")
    assert issues(hass)


async def test_an_ignored_issue_stays_ignored(
    hass: HomeAssistant, narrow: MockConfigEntry
) -> None:
    report(narrow, "192.168.7.7")
    ir.async_ignore_issue(
        hass, "tcp_multiplexer", issues(hass)[REFUSED_CLIENTS].issue_id, ignore=True
    )
    report(narrow, "192.168.7.8")
    assert issues(hass)[REFUSED_CLIENTS].dismissed_version
