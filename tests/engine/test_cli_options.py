"""The flags of `tcp-multiplexer server`: what they mean, and what is no flag."""

from __future__ import annotations

import argparse
import dataclasses
from ipaddress import ip_network
import os
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    DialIn,
    ListenerSettings,
    Parity,
    SerialLine,
    Settings,
    TlsListener,
    TlsUpstream,
    WriteRule,
)
from custom_components.tcp_multiplexer.multiplexer.command_line import main as cli
from custom_components.tcp_multiplexer.multiplexer.command_line.flags import (
    Parser,
    add_flags,
    flag_of,
    make_settings,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.values import (
    duration,
    listen_address,
    target,
    write_rule,
)
from custom_components.tcp_multiplexer.multiplexer.profiles import PROFILES
from custom_components.tcp_multiplexer.multiplexer.protocols import (
    OF_SOME,
    PROTOCOLS,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import Framing
from tests.rules import rule

FIELDS = {field.name: field.default for field in dataclasses.fields(Settings)}

MODBUS = ("-p", "modbus")

# A flag for each field of Settings, and what it sets.
FLAGS: dict[str, tuple[list[str], Any]] = {
    "protocol": (["-p", "modbus"], "modbus"),
    "host": (["-t", "device.local:502"], "device.local"),
    "port": (["-t", "127.0.0.1:502"], 502),
    "listen_host": (["-l", "[::1]:8000"], "::1"),
    "listen_port": (["-l", "5020"], 5020),
    "more_listeners": (
        ["--also-listen", "5021", "--also-listen", "[::1]:5022"],
        (ListenerSettings(port=5021), ListenerSettings(host="::1", port=5022)),
    ),
    "tls": (
        ["--tls", "--no-tls-verify", "--tls-server-name", "inverter"],
        TlsUpstream(verify=False, server_name="inverter"),
    ),
    "serial": (
        ["-t", "serial:/dev/ttyUSB0?baudrate=19200&parity=even&stopbits=2"],
        SerialLine(
            device="/dev/ttyUSB0", baudrate=19200, parity=Parity.EVEN, stopbits=2
        ),
    ),
    "dial_in": (
        ["-t", "dial-in:[::1]:5502?from=fd00::22"],
        DialIn(host="::1", port=5502, device="fd00::22"),
    ),
    "timeout": (["--timeout", "5"], 5.0),
    "connect_delay": (["--delay", "500ms"], 0.5),
    "request_delay": (["--request-delay", "100ms"], 0.1),
    "connect_on_demand": (["--connect-on-demand"], True),
    "idle_timeout": (["--idle-timeout", "1m30s"], 90.0),
    "max_lifetime": (["--max-lifetime", "5m"], 300.0),
    "reconnect_backoff": (["--reconnect-backoff", "2s"], 2.0),
    "reconnect_backoff_max": (["--reconnect-backoff-max", "1m"], 60.0),
    "max_connections": (["--max-connections", "4"], 4),
    "queue_size": (["--queue-size", "64"], 64),
    "health_check_interval": (["--health-check-interval", "0"], 0.0),
    "probe": (["--probe", "70 69 6e 67 0a"], b"ping\n"),
    "unit_id": ([*MODBUS, "--unit-id", "247"], 247),
    "matching": ([*MODBUS, "--matching", "lenient"], "lenient"),
    "quiet": ([*MODBUS, "--quiet-time", "2"], 2.0),
    "share_reads": ([*MODBUS, "--no-share-reads"], False),
    "cache_ttl": ([*MODBUS, "--cache-ttl", "1s"], 1.0),
    "writes_first": ([*MODBUS, "--no-writes-first"], False),
    "write_rules": (
        [*MODBUS, "--write-rule", "deny unit=1", "--write-rule", "allow ::1"],
        (rule("deny", units=(1,)), rule("allow", "::1")),
    ),
    "repeated_write_ttl": ([*MODBUS, "--repeated-write-ttl", "10s"], 10.0),
    "discard_first_read": ([*MODBUS, "--discard-first-read"], True),
    "periodic_request": (
        [*MODBUS, "--periodic-request", "unit=1 read=40608"],
        "unit=1 read=40608",
    ),
    "periodic_interval": ([*MODBUS, "--periodic-interval", "2m"], 120.0),
    "allowed_functions": ([*MODBUS, "--allowed-functions", "3,0x04"], (3, 4)),
    "allowed_units": ([*MODBUS, "--allowed-units", "1,2"], (1, 2)),
    "max_read_registers": ([*MODBUS, "--max-read-registers", "25"], 25),
    "unit_map": ([*MODBUS, "--unit-map", "1:11, 2:12"], ((1, 11), (2, 12))),
    "allowed_networks": (["--allowed-networks", "::/0"], (ip_network("::/0"),)),
    "max_clients": (["--max-clients", "8"], 8),
    "client_idle_timeout": (["--client-idle-timeout", "1h"], 3600.0),
    "on_failure": ([*MODBUS, "--on-failure", "close"], "close"),
    "max_body": (["-p", "http", "--max-body", "1024"], 1024),
    "trace_size": (["--trace-size", "0"], 0),
    "max_in_flight": ([*MODBUS, "--max-in-flight", "4"], 4),
    "framing": ([*MODBUS, "--framing", "rtu"], "rtu"),
    "logger_serial": ([*MODBUS, "--logger-serial", "2712345678"], 2_712_345_678),
    "check_logger_serial": ([*MODBUS, "--check-logger-serial"], True),
}


# The fields that not every protocol reads, and those that do.
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "probe": ("iso8583", "mpu", "echo"),
    "max_body": ("http",),
    "serial": ("modbus",),
    **dict.fromkeys(
        (field for field, (flags, _) in FLAGS.items() if flags[:2] == [*MODBUS]),
        ("modbus",),
    ),
}
del ONLY_FOR["protocol"]


@pytest.fixture
def parser() -> Parser:
    """Make a parser of the server's flags."""
    parser = Parser(prog="tcp-multiplexer server")
    add_flags(parser)
    return parser


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acknowledge", rule("acknowledge")),
        (
            "deny 192.168.1.0/24 unit=1 function=6,16 registers=100-200",
            rule(
                "deny",
                "192.168.1.0/24",
                units=(1,),
                functions=(6, 16),
                registers=(100, 200),
            ),
        ),
        (
            "allow  ::1,10.0.0.1 units=1 function=0x10 unit=2 10.1.0.0/16",
            rule(
                "allow",
                "::1",
                "10.0.0.1",
                "10.1.0.0/16",
                units=(1, 2),
                functions=(16,),
            ),
        ),
        ("deny register=0x64", rule("deny", registers=(100, 100))),
    ],
)
def test_a_rule_for_writes_in_one_line(text: str, expected: WriteRule) -> None:
    assert write_rule(text) == expected


def test_short_forms_are_rules_behind_all_others(parser: Parser) -> None:
    flags = ["--write-policy", "deny", "--write-networks", "::1,10.0.0.0/8"]
    given = parser.parse_args([*MODBUS, *flags, "--write-rule", "deny unit=9"])
    assert make_settings(given).write_rules == (
        rule("deny", units=(9,)),
        rule("allow", "::1", "10.0.0.0/8"),
        rule("deny"),
    )


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["-p", "modbus", "-t", "http://192.168.1.20/"], ("192.168.1.20", 502)),
        (["-p", "http", "-t", "http://192.168.1.20/"], ("192.168.1.20", 80)),
        (["-p", "echo", "-t", "tcp://[fd00::5]:7/"], ("fd00::5", 7)),
        (["-p", "modbus", "-t", "http://[fd00::5]/"], ("fd00::5", 502)),
        (
            ["-p", "modbus", "--framing", "solarman", "-t", "http://stick.local/"],
            ("stick.local", 8899),
        ),
        (["-p", "modbus", "-t", "http://192.168.1.20:1502/a"], ("192.168.1.20", 1502)),
    ],
)
def test_pasted_url_is_a_target(
    parser: Parser, arguments: list[str], place: tuple[str, int]
) -> None:
    settings = make_settings(parser.parse_args(arguments))
    assert (settings.host, settings.port) == place


def test_pasted_url_needs_a_port_where_none_is_usual(parser: Parser) -> None:
    given = parser.parse_args(["-p", "iso8583", "-t", "tcp://192.168.1.20"])
    with pytest.raises(ValueError, match="-t: give the port too"):
        make_settings(given)


def test_ranges_and_either_sign_of_pairs_are_understood(parser: Parser) -> None:
    flags = ["--allowed-units", "1-3,7", "--unit-map", "1=11, 2:12"]
    settings = make_settings(parser.parse_args([*MODBUS, *flags]))
    assert settings.allowed_units == (1, 2, 3, 7)
    assert settings.unit_map == ((1, 11), (2, 12))


def test_without_flags_it_is_what_the_go_program_was(parser: Parser) -> None:
    assert make_settings(parser.parse_args([])) == Settings(
        protocol="echo",
        host="127.0.0.1",
        port=1234,
        listen_host=None,
        listen_port=8000,
        timeout=60,
        connect_delay=0,
        max_connections=1,
        reconnect_backoff=1,
        health_check_interval=30,
        queue_size=32,
    )


def test_every_setting_has_a_flag() -> None:
    assert FLAGS.keys() == FIELDS.keys()


@pytest.mark.parametrize("field", FIELDS)
def test_flag_sets_its_field_and_no_other(parser: Parser, field: str) -> None:
    arguments, value = FLAGS[field]
    unchanged = make_settings(parser.parse_args([]))
    assert getattr(unchanged, field) != value, "the test shows nothing"
    settings = make_settings(parser.parse_args(arguments))
    assert getattr(settings, field) == value
    together = [
        {"host", "port"},
        {"listen_host", "listen_port"},
        {"protocol", field},
        {"protocol", "framing", "host", "port", "serial"},
        {"host", "port", "dial_in"},
    ]
    changed = {
        name for name in FIELDS if getattr(settings, name) != getattr(unchanged, name)
    }
    assert changed == {field} or changed in together


@pytest.mark.parametrize("field", FIELDS)
def test_flag_named_in_errors_exists(parser: Parser, field: str) -> None:
    actions = [a for a in parser._actions if flag_of(field) in a.option_strings]  # noqa: SLF001
    assert len(actions) == 1
    arguments, _ = FLAGS[field]
    assert {*actions[0].option_strings}.intersection(arguments)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("field", FIELDS)
def test_flag_means_something_or_is_refused(
    parser: Parser, field: str, protocol: str
) -> None:
    """A field that the protocol reads is none that its flag is refused for."""
    arguments, value = FLAGS[field]
    given = parser.parse_args([*arguments, "-p", protocol])
    refused = field in ONLY_FOR and protocol not in ONLY_FOR[field]
    if refused:
        with pytest.raises(ValueError, match=f"{flag_of(field)}: "):
            make_settings(given)
    elif field != "protocol":
        assert getattr(make_settings(given), field) == value


def test_help_tells_the_defaults_that_hold(parser: Parser) -> None:
    settings = make_settings(parser.parse_args([]))
    text = " ".join(parser.format_help().split())
    told = dict(re.findall(r"--([a-z-]+)[^()]*? \(default ([^):]+)\)", text))
    assert len(told) > 15
    for flag, default in told.items():
        field = {"quiet-time": "quiet"}.get(flag) or flag.replace("-", "_")
        if field in FIELDS:
            value = getattr(settings, field)
            assert default == (f"{value:g}" if isinstance(value, float) else str(value))


# Go's flag library, which the old program used, and argparse both take these.
@pytest.mark.parametrize(
    "arguments",
    [
        ["-p", "modbus"],
        ["-p=modbus"],
        ["-pmodbus"],
        ["--applicationProtocol", "modbus"],
        ["--applicationProtocol=modbus"],
        ["--protocol", "modbus"],
        ["-v", "-d", "-p", "modbus"],
        ["-vd", "-p=modbus"],
        ["-vdp", "modbus"],
        ["-vdpmodbus"],
    ],
)
def test_spellings_of_a_flag(parser: Parser, arguments: list[str]) -> None:
    assert make_settings(parser.parse_args(arguments)).protocol == "modbus"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--timeout", "5"],
        ["--timeout=5"],
        ["--timeout", "5s"],
        ["--timeout=5000ms"],
    ],
)
def test_spellings_of_a_number(parser: Parser, arguments: list[str]) -> None:
    assert make_settings(parser.parse_args(arguments)).timeout == 5


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/dev/ttyUSB0", SerialLine(device="/dev/ttyUSB0")),
        (
            "/dev/serial/by-id/usb-FTDI_A1:if00?baudrate=300",
            SerialLine(device="/dev/serial/by-id/usb-FTDI_A1:if00", baudrate=300),
        ),
        ("rfc2217://10.0.0.1:4000", SerialLine(device="rfc2217://10.0.0.1:4000")),
        (
            "esphome://host:6053/?port_name=A%20B&baudrate=19200&key=x%3D",
            SerialLine(
                device="esphome://host:6053/?port_name=A%20B&key=x%3D", baudrate=19200
            ),
        ),
    ],
)
def test_serial_ports(parser: Parser, text: str, line: SerialLine) -> None:
    settings = make_settings(parser.parse_args(["-t", f"serial:{text}"]))
    assert settings.serial == line
    assert (settings.protocol, settings.framing) == ("modbus", Framing.RTU)
    assert settings.host == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/dev/ttyUSB0?baudrate=fast",
        "/dev/ttyUSB0?parity=mark",
        "/dev/ttyUSB0?stopbits=3",
        "/dev/ttyUSB0?baud=9600",
    ],
)
def test_what_is_no_serial_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write serial:"):
        target(f"serial:{text}")


@pytest.mark.parametrize("text", ["", "5502?from=inverter", "5502?to=10.0.0.1"])
def test_where_no_device_dials_in(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        target(f"dial-in:{text}")


def test_spellings_of_the_target(parser: Parser) -> None:
    for flag in ("-t", "--target", "--targetServer"):
        settings = make_settings(parser.parse_args([flag, "[fe80::1%eth0]:502"]))
        assert (settings.host, settings.port) == ("fe80::1%eth0", 502)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("5", 5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5),
        ("500ms", 0.5),
        ("1s", 1),
        ("1.5s", 1.5),
        ("1m30s", 90),
        ("1h0m0.5s", 3600.5),
        ("1500us", 0.0015),
        ("1500µs", 0.0015),
        ("100ns", 1e-7),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1 s", "s", "1x", "1s1", "1e3", "nan", "inf", "1_0", "٣"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 5, 500ms"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", (None, 8000)),
        (":8000", (None, 8000)),
        ("0.0.0.0:8000", ("0.0.0.0", 8000)),  # noqa: S104
        ("localhost:0", ("localhost", 0)),
        ("[::1]:5020", ("::1", 5020)),
        ("[::]:5020", ("::", 5020)),
    ],
)
def test_places_to_listen(text: str, address: tuple[str | None, int]) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "x", ":", "-1", "65536", "1:2:3", "::1", "[::1]", "[::1:80", "٨٠"]
)
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        listen_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "host", ":502", "host:", "host:x", "::1:502", "[::1]", "host:65536", "a:b:1"],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        target(text)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "required: server|run|check|convert|list|version"),
        pytest.param(
            *(["serve"], "maybe you meant 'server'"),
            marks=pytest.mark.skipif(
                sys.version_info < (3, 14), reason="argparse suggests from 3.14 on"
            ),
        ),
        (["server", "extra"], "unrecognized arguments: extra"),
        (["server", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["server", "--time", "5"], "unrecognized arguments: --time"),
        (["server", "-p"], "expected one argument"),
        (["server", "-p", "smtp"], "-p: unknown protocol 'smtp'; choose one of modbus"),
        (["server", "-t", "nowhere"], "write 192.168.1.22:502"),
        (["server", "-t", "::1:502"], "put brackets"),
        (["server", "-t", "host:0"], "-t: must be between 1 and 65535"),
        (["server", "-l", "99999"], "no port from 0 to 65535"),
        (["server", "--also-listen", "99999"], "no port from 0 to 65535"),
        (["server", "--also-listen-rtu", "0"], "--also-listen: echo has no framing"),
        (["server", "--timeout", "0"], "--timeout: must be between 0.1 and 3600"),
        (["server", "--timeout", "soon"], "'soon' is not a duration"),
        (["server", "--delay", "1h"], "--delay: must be between 0 and 300"),
        (["server", "--max-connections", "0"], "--max-connections: must be between"),
        (["server", "--max-connections", "x"], "invalid int value: 'x'"),
        (["server", "--max-in-flight", "2"], "--max-in-flight: echo can have only 1"),
        (["server", *MODBUS, "--quiet-time", "99"], "--quiet-time: must be between"),
        (["server", "--probe", "xyz"], "'xyz' is not hexadecimal"),
        (["server", "--probe", "7069"], "--probe: the echo message is incomplete"),
        (["server", "--unit-map", "1-2"], "write 1:11,2:12"),
        (["server", *MODBUS, "--unit-map", "1:256"], "--unit-map: must be between"),
        (["server", "--allowed-units", "one"], "write 3,4"),
        (["server", "--allowed-networks", "lan"], "write 192.168.1.0/24"),
        (
            ["server", *MODBUS, "--write-policy", "maybe"],
            "--write-policy: must be allow or deny or acknowledge",
        ),
        (
            ["server", *MODBUS, "--write-rule", "forbid unit=1"],
            "'forbid unit=1': must be allow or deny or acknowledge, is 'forbid'; write",
        ),
        (
            ["server", *MODBUS, "--write-rule", ""],
            "'': must be allow or deny or acknowledge, is ''; write allow, deny or",
        ),
        (
            ["server", *MODBUS, "--write-rule", "deny units=1,256"],
            "'deny units=1,256': unit must be between 0 and 255, is 256; write",
        ),
        (
            ["server", *MODBUS, "--write-rule", "deny color=red"],
            "'color=red' is no condition; write allow, deny or acknowledge, then what",
        ),
        (
            ["server", *MODBUS, "--write-rule", "deny 10.0.0.0/8 lan"],
            "'lan' is no condition",
        ),
        (
            ["server", *MODBUS, "--write-rule", "deny function=six"],
            "'function=six' is no condition",
        ),
        (
            ["server", *MODBUS, "--write-rule", "deny registers=200-100"],
            "registers must be the first and the last of one range; write",
        ),
        (
            ["server", *MODBUS, "--write-rule", "deny registers=1 registers=5"],
            "registers must be the first and the last of one range; write",
        ),
        (["server", "--write-rule", "deny"], "--write-rule: has no effect with echo"),
        (["server", "--write-policy", "deny"], "--write-policy: has no effect with"),
        (
            ["server", "-p", "http", "--write-networks", "::1"],
            "--write-networks: has no effect with http; use it with modbus",
        ),
        (
            ["server", "--framing", "rtu"],
            "--framing: has no effect with echo; use it with modbus",
        ),
        (["server", "-p", "http", "--quiet-time", "1"], "--quiet-time: has no effect"),
        (["server", "-p", "mpu", "--no-share-reads"], "--share-reads: has no effect"),
        (["server", *MODBUS, "--max-body", "1024"], "use it with http"),
        (["server", *MODBUS, "--probe", "00"], "use it with iso8583, mpu, echo"),
        (["server", "--tls-ca", "/nowhere"], "/nowhere cannot be read: No such file"),
        (["server", "--profile", "toaster"], "invalid choice: 'toaster'"),
        (
            ["server", "--profile", "sma", "-p", "http"],
            "--profile is only for -p modbus",
        ),
        (["server", "--no-tls-verify"], "--tls-verify needs --tls"),
        (["server", "--also-listen-tls", "0"], "needs --listen-tls-certificate"),
        (
            ["server", "--listen-tls-key", "/dev/null"],
            "--listen-tls-... needs --also-listen-tls",
        ),
    ],
)
def test_bad_usage_is_told_in_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        sys.exit(cli.main(arguments))
    assert exited.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("tcp-multiplexer")
    assert reason in told.err
    assert told.err.endswith("\n")
    assert told.err.count("\n") == 1


def test_certificates_come_from_files(parser: Parser, tmp_path: Path) -> None:
    names = ("ca", "certificate", "key", "client_ca")
    for name in names:
        (tmp_path / name).write_text(f"the {name}")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    settings = make_settings(
        parser.parse_args(
            [
                "--tls",
                *("--tls-ca", f"{tmp_path}/ca"),
                *("--tls-certificate", f"{tmp_path}/certificate"),
                *("--tls-key", f"{tmp_path}/key"),
                *("--also-listen-tls", "127.0.0.1:802"),
                *("--listen-tls-certificate", f"{tmp_path}/certificate"),
                *("--listen-tls-key", f"{tmp_path}/key"),
                *("--listen-tls-client-ca", f"{tmp_path}/client_ca"),
            ]
        )
    )
    assert settings.tls == TlsUpstream(
        ca="the ca", certificate="the certificate", key="the key"
    )
    tls = TlsListener(
        certificate="the certificate", key="the key", client_ca="the client_ca"
    )
    assert settings.more_listeners == (
        ListenerSettings(host="127.0.0.1", port=802, tls=tls),
    )
    with pytest.raises(SystemExit):
        parser.parse_args(["--tls-ca", f"{tmp_path}/binary"])


@pytest.mark.parametrize("framing", [Framing.RTU, Framing.SOLARMAN])
def test_listeners_with_another_framing(parser: Parser, framing: Framing) -> None:
    given = parser.parse_args([*MODBUS, f"--also-listen-{framing}", "5021"])
    assert make_settings(given).more_listeners == (
        ListenerSettings(port=5021, framing=framing),
    )


def test_profile_stands_between_the_defaults_and_the_flags(parser: Parser) -> None:
    advised = PROFILES["solaredge"].settings
    assert advised["connect_delay"] != 0
    assert advised["timeout"] not in {3, 60}
    settings = make_settings(
        parser.parse_args(["--profile", "solaredge", "--timeout", "3"])
    )
    assert settings.protocol == "modbus"
    assert settings.connect_delay == advised["connect_delay"]
    assert settings.timeout == 3


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_chosen(parser: Parser, name: str) -> None:
    settings = make_settings(parser.parse_args(["-p=modbus", "--profile", name]))
    for field, value in PROFILES[name].settings.items():
        assert getattr(settings, field) == value


def test_settings_of_some_protocols_are_known_without_them() -> None:
    used = [cls.settings for cls in PROTOCOLS.values()]
    assert frozenset().union(*used) == OF_SOME


STARTED = """
import sys
from tcp_multiplexer.command_line.main import _parser, make_settings
make_settings(_parser().parse_args(sys.argv[1:]))
print(*sys.modules)
"""


def test_server_starts_without_what_it_does_not_need() -> None:
    """What it imports takes longer than all else that a start takes."""
    flags = ("-p", "modbus", "-t", "10.0.0.1:502", "--share-reads")
    said = subprocess.run(  # noqa: S603
        (sys.executable, "-c", STARTED, "server", *flags),
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")},
        capture_output=True,
        text=True,
        check=True,
    )
    spared = {"h11", "tomllib", "json", "shutil", "prometheus_client"}
    assert not spared & set(said.stdout.split())
