"""How hosts and ports are written."""

from unittest.mock import patch

from homeassistant.core import HomeAssistant
import pytest

from custom_components.tcp_multiplexer.addresses import (
    async_hosts_for_clients,
    format_endpoint,
    host_for_home_assistant,
    parse_endpoint,
)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1", ("192.0.2.1", None)),
        ("192.0.2.1:502", ("192.0.2.1", 502)),
        (" Inverter.Local ", ("inverter.local", None)),
        ("inverter.local:1502", ("inverter.local", 1502)),
        ("wärmepumpe", ("wärmepumpe", None)),
        ("sma_3010", ("sma_3010", None)),
        ("FD00:0:0:0::5", ("fd00::5", None)),
        ("fe80::1%eth0", ("fe80::1%eth0", None)),
        ("[fd00::5]", ("fd00::5", None)),
        ("[FD00:0::5]:65535", ("fd00::5", 65535)),
    ],
)
def test_what_people_type(text: str, endpoint: tuple[str, int | None]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":502",
        "host:",
        "host:0",
        "host:65536",
        "host:502:503",
        "two words",
        "tcp://192.0.2.1",
        "192.0.2.1/24",
        "[192.0.2.1]:502",
        "[fd00::5",
        "[inverter]",
    ],
)
def test_what_is_neither_a_name_nor_an_address(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its text is nobody's business
        parse_endpoint(text)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert format_endpoint("192.0.2.1", 502) == "192.0.2.1:502"
    assert format_endpoint("fd00::5", 502) == "[fd00::5]:502"
    assert parse_endpoint(format_endpoint("fd00::5", 502)) == ("fd00::5", 502)


@pytest.mark.parametrize(
    ("listen_host", "own", "of_clients"),
    [
        (None, "127.0.0.1", ["192.0.2.9", "fd00::9", "169.254.0.9"]),
        ("0.0.0.0", "127.0.0.1", ["192.0.2.9", "169.254.0.9"]),  # noqa: S104
        ("::", "::1", ["fd00::9"]),
        ("192.0.2.9", "192.0.2.9", ["192.0.2.9"]),
        ("fd00::9", "fd00::9", ["fd00::9"]),
    ],
)
async def test_who_reaches_a_listener_where(
    hass: HomeAssistant, listen_host: str | None, own: str, of_clients: list[str]
) -> None:
    assert host_for_home_assistant(listen_host) == own
    with patch(
        "homeassistant.components.network.async_get_announce_addresses",
        return_value=["192.0.2.9", "fe80::9", "fd00::9", "169.254.0.9"],
    ):
        assert await async_hosts_for_clients(hass, listen_host) == of_clients


async def test_a_machine_that_announces_nothing(hass: HomeAssistant) -> None:
    with patch(
        "homeassistant.components.network.async_get_announce_addresses",
        return_value=[],
    ):
        assert await async_hosts_for_clients(hass, None) == ["127.0.0.1"]
