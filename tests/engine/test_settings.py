"""Settings refuse what cannot work, and say which of them is wrong."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from ipaddress import ip_address
from math import inf, nan
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    DEFAULT_NETWORKS,
    PROTOCOLS,
    ListenerSettings,
    Settings,
    SettingsError,
    WriteAction,
    WriteRule,
)
from custom_components.tcp_multiplexer.multiplexer.networks import is_in
from custom_components.tcp_multiplexer.multiplexer.protocols.options import (
    Framing,
    Matching,
    OnFailure,
)
from custom_components.tcp_multiplexer.multiplexer.settings import ROWS

NO_MATCHING: dict[str, Any] = {"matching": "no"}
NUMBERS = [field.name for field in fields(Settings) if field.type in {int, float}]


def refused(**settings: Any) -> str:
    """Give the field that keeps settings from being made."""
    with pytest.raises(SettingsError) as error:
        Settings(**{"host": "192.0.2.1", **settings})
    assert str(error.value) == f"{error.value.field}: {error.value.message}"
    return error.value.field


def test_host_is_all_that_must_be_told() -> None:
    settings = Settings(host="192.0.2.1")
    assert (settings.protocol, settings.port) == ("modbus", 502)
    assert (settings.listen_host, settings.listen_port) == (None, 5020)
    assert settings.timeout == 5  # clients give up after 3 to 10 s
    assert (settings.reconnect_backoff, settings.reconnect_backoff_max) == (1, 30)
    assert (settings.max_connections, settings.max_in_flight) == (1, 1)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings(host="192.0.2.1").port = 1  # type: ignore[misc]


@pytest.mark.parametrize("field", NUMBERS)
def test_bounds_are_allowed_and_what_lies_beyond_is_not(field: str) -> None:
    bounds = ROWS[field].bounds
    assert bounds is not None
    low, high = bounds
    # what the bounds of other settings depend on
    dependent: dict[str, dict[str, Any]] = {
        "reconnect_backoff": {"reconnect_backoff_max": 3600},
        "reconnect_backoff_max": {"reconnect_backoff": 0.1},
    }
    others = dependent.get(field, {})
    kind = type(getattr(Settings(host="x"), field))
    for value in (low, high):
        settings = Settings(host="x", **(others | {field: kind(value)}))
        assert getattr(settings, field) == value
    for value in (low - 1, low - 1e-3, high + 1, inf, -inf, nan):
        assert refused(**(others | {field: value})) == field


def test_choices_come_by_their_names_as_entries_hold_them() -> None:
    stored: dict[str, Any] = {
        "framing": "rtu",
        "matching": "lenient",
        "on_failure": "close",
    }
    settings = Settings(host="x", **stored)
    assert settings.framing is Framing.RTU
    assert settings.matching is Matching.LENIENT
    assert settings.on_failure is OnFailure.CLOSE
    action: Any = "deny"
    assert WriteRule(action=action).action is WriteAction.DENY


def test_only_these_need_a_restart() -> None:
    needs_restart = {
        "port",
        "listen_port",
        "probe",
        "max_body",
        "framing",
        "unit_map",
        "matching",
        "quiet",
        "logger_serial",
        "check_logger_serial",
    }
    assert {name for name, row in ROWS.items() if not row.live} == needs_restart


def test_every_setting_has_its_row_but_those_with_a_form_of_their_own() -> None:
    own = {"protocol", "host", "listen_host", "more_listeners", "tls"}
    own |= {"serial", "dial_in"}
    assert {field.name for field in fields(Settings)} - set(ROWS) == own
    for name, row in ROWS.items():
        placed = name not in {"port", "listen_port", "logger_serial"}
        assert (row.section is not None) is placed, name
        assert bool(row.help) is placed, name


def test_what_a_protocol_names_are_settings() -> None:
    known = {field.name for field in fields(Settings)}
    for protocol in PROTOCOLS.values():
        assert protocol.settings <= known


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"protocol": "ftp"}, "protocol"),
        ({"host": ""}, "host"),
        ({"reconnect_backoff": 31}, "reconnect_backoff_max"),
        ({"on_failure": "shrug"}, "on_failure"),
        ({"framing": "ascii"}, "framing"),
        ({"matching": "never"}, "matching"),
        ({"framing": "rtu", "max_in_flight": 2}, "max_in_flight"),
        ({"framing": "rtu", "max_connections": 2}, "max_connections"),
        ({"matching": "lenient", "max_in_flight": 2}, "max_in_flight"),
        ({"protocol": "http", "max_in_flight": 2}, "max_in_flight"),
        ({"allowed_functions": (3, 0)}, "allowed_functions"),
        ({"allowed_functions": (256,)}, "allowed_functions"),
        ({"allowed_units": (-1,)}, "allowed_units"),
        ({"allowed_units": (0, 256)}, "allowed_units"),
        ({"unit_map": ((1, 256),)}, "unit_map"),
        ({"unit_map": ((-1, 1),)}, "unit_map"),
        ({"unit_map": ((1, 2), (1, 3))}, "unit_map"),
        ({"unit_map": ((1, 3), (2, 3))}, "unit_map"),
        ({"more_listeners": (ListenerSettings(port=65536),)}, "more_listeners"),
        ({"more_listeners": (ListenerSettings(port=-1),)}, "more_listeners"),
        (
            {
                "protocol": "http",
                "more_listeners": (ListenerSettings(port=1, framing=Framing.RTU),),
            },
            "more_listeners",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    settings: dict[str, Any], field: str
) -> None:
    assert refused(**settings) == field


def test_listener_of_an_unknown_framing_is_refused() -> None:
    stored: dict[str, Any] = {"port": 1, "framing": "x"}
    with pytest.raises(SettingsError, match="more_listeners: must be tcp or rtu"):
        ListenerSettings(**stored)


def test_what_does_work_is_not_refused() -> None:
    Settings(host="x", max_in_flight=64, max_connections=64)
    Settings(host="x", matching=Matching.LENIENT, max_connections=4)
    Settings(host="x", allowed_functions=(1, 255), allowed_units=(0, 255))
    Settings(host="x", unit_map=((1, 2), (2, 1), (0, 255)))
    rtu = ListenerSettings(port=0, framing=Framing.RTU)
    Settings(host="x", more_listeners=(rtu, ListenerSettings(port=65535)))


def test_error_tells_the_bounds_and_the_choices() -> None:
    with pytest.raises(SettingsError, match=r"between 1 and 65535, is 0$"):
        Settings(host="x", port=0)
    with pytest.raises(SettingsError, match="strict or lenient, is 'no'"):
        Settings(**{"host": "x", **NO_MATCHING})
    with pytest.raises(SettingsError, match=", ".join(PROTOCOLS)):
        Settings(host="x", protocol="no")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.168.178.20", True),
        ("192.169.0.1", False),
        ("169.254.1.1", True),
        ("fe80::1", True),
        ("fd12:3456::1", True),
        ("100.64.0.1", False),  # Tailscale's: an option, to be named in the docs
        ("8.8.8.8", False),
        ("2001:db8::1", False),
        ("0.0.0.1", False),
    ],
)
def test_clients_from_home_are_allowed(address: str, allowed: bool) -> None:
    assert is_in(ip_address(address), DEFAULT_NETWORKS) is allowed
