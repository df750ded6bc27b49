"""Who may connect, and which requests may pass."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import Settings
from custom_components.tcp_multiplexer.multiplexer.dispatch.policy import (
    Policy,
    Verdict,
)
from custom_components.tcp_multiplexer.multiplexer.networks import is_in, parse_peer
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.protocol import (
    ModbusProtocol,
)
from custom_components.tcp_multiplexer.multiplexer.settings import make_protocol
from tests.wire import read, write

from .streams import options

MODBUS = ModbusProtocol(options())
SOMEBODY = ip_address("192.0.2.7")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),  # how an IPv6 socket sees an IPv4 client
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%2", "fe80::1"),
    ],
)
def test_peer_is_an_address_without_scope_or_mapping(peer: str, address: str) -> None:
    assert parse_peer(peer) == ip_address(address)


@pytest.mark.parametrize("peer", ["", "localhost", "/run/socket"])
def test_peer_that_is_no_address_is_an_error(peer: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        parse_peer(peer)


def test_address_is_in_any_network_of_its_version() -> None:
    networks = (ip_network("192.0.2.0/30"), ip_network("2001:db8::/64"))
    assert is_in(ip_address("192.0.2.3"), networks)
    assert not is_in(ip_address("192.0.2.4"), networks)
    assert is_in(ip_address("2001:db8::ffff"), networks)
    assert not is_in(ip_address("2001:db8:0:1::"), networks)
    assert not is_in(ip_address("192.0.2.3"), ())
    everybody = (ip_network("0.0.0.0/0"),)
    assert not is_in(ip_address("::1"), everybody)


def judged(payload: bytes, address: str = "192.0.2.7", **rules: Any) -> Verdict:
    """Give what becomes of a Modbus request."""
    policy = Policy(Settings(host="x", **rules), MODBUS)
    return policy.judge(MODBUS.request(payload), ip_address(address))


def test_without_rules_everything_passes_unjudged() -> None:
    assert not Policy(Settings(host="x"), MODBUS).active
    assert judged(b"\1" + write(1, 2)) is Verdict.PASS


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        ("allow", Verdict.PASS),
        ("deny", Verdict.REFUSE),
        ("acknowledge", Verdict.ACKNOWLEDGE),
    ],
)
def test_write_policy_is_for_writes_from_elsewhere(
    policy: str, verdict: Verdict
) -> None:
    rules: dict[str, Any] = {
        "write_policy": policy,
        "write_networks": (ip_network("192.0.2.128/25"), ip_network("::1/128")),
    }
    assert Policy(Settings(host="x", **rules), MODBUS).active is (policy != "allow")
    assert judged(b"\1" + write(1, 2), **rules) is verdict
    assert judged(b"\1" + write(1, 2), "192.0.2.129", **rules) is Verdict.PASS
    assert judged(b"\1" + write(1, 2), "::1", **rules) is Verdict.PASS
    assert judged(b"\1" + read(), **rules) is Verdict.PASS
    assert judged(b"\1\x65", **rules) is verdict  # unknown: it may change something


def test_only_named_functions_and_units_pass() -> None:
    functions: dict[str, Any] = {"allowed_functions": (3, 6)}
    assert judged(b"\1" + read(), **functions) is Verdict.PASS
    assert judged(b"\1" + write(1, 2), **functions) is Verdict.PASS
    assert judged(b"\1\4\0\0\0\1", **functions) is Verdict.REFUSE
    units: dict[str, Any] = {"allowed_units": (0, 247)}
    assert judged(b"\0" + read(), **units) is Verdict.PASS
    assert judged(b"\xf7" + read(), **units) is Verdict.PASS
    assert judged(b"\1" + read(), **units) is Verdict.REFUSE
    # A network that may write does not lift the other rules.
    everybody: dict[str, Any] = {"write_networks": (ip_network("0.0.0.0/0"),)}
    assert judged(b"\1" + write(1, 2), **units, **everybody) is Verdict.REFUSE


@pytest.mark.parametrize("function", [3, 4, 0x17])
def test_longer_reads_of_registers_are_refused_for_their_size(function: int) -> None:
    head = bytes((1, function, 0, 0))
    limit: dict[str, Any] = {"max_read_registers": 50}
    assert judged(head + b"\0\x32", **limit) is Verdict.PASS
    assert judged(head + b"\0\x33", **limit) is Verdict.REFUSE_SIZE
    assert judged(head + b"\1\0", **limit) is Verdict.REFUSE_SIZE
    assert judged(head + b"\1\0") is Verdict.PASS  # its device may judge that


def test_limit_is_not_for_coils_nor_for_what_has_no_count() -> None:
    limit: dict[str, Any] = {"max_read_registers": 50}
    assert judged(bytes.fromhex("01 01 0000 0800"), **limit) is Verdict.PASS
    assert judged(bytes.fromhex("01 03"), **limit) is Verdict.PASS


def test_rules_of_units_are_not_for_protocols_without() -> None:
    settings = Settings(
        host="x",
        protocol="echo",
        allowed_functions=(3,),
        allowed_units=(1,),
        max_read_registers=1,
    )
    policy = Policy(settings, make_protocol(settings))
    assert not policy.active
    assert policy.judge(Request(b"hello\n"), SOMEBODY) is Verdict.PASS
