"""Who may connect, and which requests may pass."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import Settings, WriteRule
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
from tests.rules import rule
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
    ("action", "verdict"),
    [
        ("allow", Verdict.PASS),
        ("deny", Verdict.REFUSE),
        ("acknowledge", Verdict.ACKNOWLEDGE),
    ],
)
def test_a_rule_without_conditions_is_for_all_writes_and_no_reads(
    action: str, verdict: Verdict
) -> None:
    rules: dict[str, Any] = {"write_rules": (rule(action),)}
    assert Policy(Settings(host="x", **rules), MODBUS).active is (action != "allow")
    assert judged(b"\1" + write(1, 2), **rules) is verdict
    assert judged(b"\1\x65", **rules) is verdict  # unknown: it may change something
    assert judged(b"\1\x08\0\1\0\0", **rules) is verdict
    assert judged(b"\1" + read(), **rules) is Verdict.PASS
    assert judged(b"\1\x08\0\0\0\0", **rules) is Verdict.PASS


def test_the_first_rule_that_matches_decides() -> None:
    """What matches none is allowed."""
    rules: dict[str, Any] = {
        "write_rules": (
            rule("deny", "192.0.2.129"),
            rule("allow", "192.0.2.128/25", "::1"),
            rule("acknowledge", "192.0.2.0/24"),
        )
    }
    request = b"\1" + write(1, 2)
    assert judged(request, "192.0.2.129", **rules) is Verdict.REFUSE
    assert judged(request, "192.0.2.130", **rules) is Verdict.PASS
    assert judged(request, "::1", **rules) is Verdict.PASS
    assert judged(request, "192.0.2.7", **rules) is Verdict.ACKNOWLEDGE
    assert judged(request, "198.51.100.1", **rules) is Verdict.PASS


def test_a_rule_matches_what_fits_all_of_its_conditions() -> None:
    rules: dict[str, Any] = {
        "write_rules": (rule("deny", "192.0.2.7", units=(1, 5), functions=(6, 0x65)),)
    }
    assert judged(b"\1" + write(1, 2), **rules) is Verdict.REFUSE
    assert judged(b"\5\x65", **rules) is Verdict.REFUSE
    assert judged(b"\2" + write(1, 2), **rules) is Verdict.PASS
    assert judged(b"\1\5\0\1\xff\0", **rules) is Verdict.PASS
    assert judged(b"\1" + write(1, 2), "192.0.2.8", **rules) is Verdict.PASS


WRITES_TO = {
    "coil": (b"\1\5%c%c\xff\0", 1),
    "register": (b"\1\6%c%c\0\1", 1),
    "coils": (b"\1\x0f%c%c\0\3\1\7", 3),
    "registers": (b"\1\x10%c%c\0\3\6abcdef", 3),
    "mask": (b"\1\x16%c%c\0\1\0\1", 1),
    # It reads from register 100, which no rule is about.
    "read/write": (b"\1\x17\0\x64\0\1%c%c\0\3\6abcdef", 3),
}


@pytest.mark.parametrize("kind", WRITES_TO)
def test_writes_are_to_a_range_of_registers(kind: str) -> None:
    """Of what is partly inside, nothing is allowed, and nothing acknowledged."""
    payload, count = WRITES_TO[kind]

    def at(first: int, *rules: WriteRule) -> Verdict:
        return judged(payload % (first >> 8, first & 0xFF), write_rules=rules)

    def rules_for(action: str) -> tuple[WriteRule, ...]:
        return (rule(action, registers=(1000, 1009)), rule("deny"))

    first, last = 1000, 1009 - count + 1
    for inside in (first, last):
        assert at(inside, *rules_for("allow")) is Verdict.PASS
        assert at(inside, rules_for("deny")[0]) is Verdict.REFUSE
        assert at(inside, rules_for("acknowledge")[0]) is Verdict.ACKNOWLEDGE
    for outside in (1000 - count, 1010):
        assert at(outside, *rules_for("allow")) is Verdict.REFUSE
        assert at(outside, rules_for("deny")[0]) is Verdict.PASS
        assert at(outside, rules_for("acknowledge")[0]) is Verdict.PASS
    for across in () if count == 1 else (first - 1, last + 1):
        assert at(across, *rules_for("allow")) is Verdict.REFUSE
        assert at(across, rules_for("deny")[0]) is Verdict.REFUSE
        assert at(across, rules_for("acknowledge")[0]) is Verdict.REFUSE


@pytest.mark.parametrize(
    "payload",
    [b"\1\x15\7\6\0\1\0\1\0\1", b"\1\x65\0\1", b"\1\x2b\x0d", b"\1\x08\0\1\0\0"],
    ids=["file record", "unknown", "encapsulated", "restart"],
)
def test_a_rule_with_registers_is_not_for_functions_without(payload: bytes) -> None:
    everywhere = rule("deny", registers=(0, 0xFFFF))
    assert judged(payload, write_rules=(everywhere,)) is Verdict.PASS
    assert judged(payload, write_rules=(everywhere, rule("deny"))) is Verdict.REFUSE


@pytest.mark.parametrize(
    "payload",
    [b"\1\6\0\x64", b"\1\x10\xff\xff\0\2\4abcd"],
    ids=["cut short", "beyond the last"],
)
def test_what_names_no_clear_registers_may_change_any(payload: bytes) -> None:
    somewhere = rule("deny", registers=(7, 7))
    assert judged(payload, write_rules=(somewhere,)) is Verdict.REFUSE
    allowed = rule("allow", registers=(100, 0xFFFF))
    assert judged(payload, write_rules=(allowed, rule("deny"))) is Verdict.REFUSE


def test_only_a_protocol_with_writes_says_what_they_change() -> None:
    with pytest.raises(NotImplementedError):
        _ = Request(b"hello\n").written


def test_only_named_functions_and_units_pass() -> None:
    functions: dict[str, Any] = {"allowed_functions": (3, 6)}
    assert judged(b"\1" + read(), **functions) is Verdict.PASS
    assert judged(b"\1" + write(1, 2), **functions) is Verdict.PASS
    assert judged(b"\1\4\0\0\0\1", **functions) is Verdict.REFUSE
    units: dict[str, Any] = {"allowed_units": (0, 247)}
    assert judged(b"\0" + read(), **units) is Verdict.PASS
    assert judged(b"\xf7" + read(), **units) is Verdict.PASS
    assert judged(b"\1" + read(), **units) is Verdict.REFUSE
    # Who may write is not spared by the other rules.
    everybody: dict[str, Any] = {"write_rules": (rule("allow"),)}
    assert judged(b"\1" + write(1, 2), **units, **everybody) is Verdict.REFUSE


def parts(payload: bytes, registers: int) -> list[bytes]:
    """Give the parts in which a Modbus request is asked."""
    policy = Policy(Settings(host="x", max_read_registers=registers), MODBUS)
    return [part.payload for part in policy.parts(MODBUS.request(payload))]


@pytest.mark.parametrize("function", [3, 4])
def test_longer_reads_of_registers_are_asked_in_parts(function: int) -> None:
    head = bytes((1, function))
    limit: dict[str, Any] = {"max_read_registers": 50}
    assert judged(head + b"\0\x0a\0\x7d", **limit) is Verdict.PASS
    assert parts(head + b"\0\x0a\0\x32", 50) == []
    assert parts(head + b"\0\x0a\0\x33", 50) == [
        head + b"\0\x0a\0\x32",
        head + b"\0\x3c\0\x01",
    ]
    assert parts(head + b"\0\x0a\0\x7d", 125) == []


def test_of_coils_sixteen_count_as_a_register() -> None:
    head = bytes((1, 2))
    assert parts(head + b"\0\0\x03\x20", 50) == []
    assert parts(head + b"\0\0\x03\x21", 50) == [
        head + b"\0\0\x03\x20",
        head + b"\x03\x20\0\x01",
    ]


@pytest.mark.parametrize(
    "payload",
    [
        "01 03 0000 0100",  # beyond the specification, so never sent
        "01 01 0000 0800",
        "01 03",
        "01 2b 0e 01 00",
    ],
)
def test_what_cannot_be_a_read_has_no_parts(payload: str) -> None:
    assert parts(bytes.fromhex(payload), 50) == []


@pytest.mark.parametrize(
    "payload",
    [
        "01 17 0000 0033 0000 0001 02 1234",  # it writes, too
        "01 03 0000 0033 00",
        "01 03 ffd0 0033",
    ],
)
def test_longer_reads_that_have_no_parts_are_refused_for_their_size(
    payload: str,
) -> None:
    assert judged(bytes.fromhex(payload), max_read_registers=50) is Verdict.REFUSE_SIZE
    assert judged(bytes.fromhex(payload), max_read_registers=51) is Verdict.PASS


def test_what_is_asked_in_parts_is_not_the_programs_own() -> None:
    """A probe is asked as it is, or not at all."""
    policy = Policy(Settings(host="x", max_read_registers=50), MODBUS)
    assert policy.permits(MODBUS.request(bytes.fromhex("01 03 0000 0032")))
    assert not policy.permits(MODBUS.request(bytes.fromhex("01 03 0000 0033")))


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
