"""The file of `tcp-multiplexer run`: what it means, and what is wrong in it."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
import tomllib
from typing import Any

from hypothesis import given, strategies as st
import pytest
import trustme

from custom_components.tcp_multiplexer.multiplexer import (
    DialIn,
    ListenerSettings,
    SerialLine,
    Settings,
    TlsListener,
    TlsUpstream,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.configuration import (
    ConfigurationError,
    read_configuration,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.file_values import (
    READERS,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.toml_lines import (
    KeyPath,
    line_of,
    lines_of_keys,
)
from custom_components.tcp_multiplexer.multiplexer.profiles import PROFILES
from tests.rules import rule

from .test_cli_options import FIELDS


@pytest.fixture(name="file")
def file_(tmp_path: Path) -> Path:
    """Give the place of a configuration."""
    return tmp_path / "devices.toml"


def read(file: Path, content: str) -> dict[str, Settings]:
    """Read a configuration."""
    file.write_text(content)
    return read_configuration(file)


def one(file: Path, content: str) -> Settings:
    """Read a configuration of one device that is reached at an address."""
    (settings,) = read(file, f'[devices.a]\nhost = "192.0.2.1"\n{content}').values()
    return settings


def mistakes(file: Path, content: str) -> list[str]:
    """Give what is wrong in a configuration, each without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        read(file, content)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{file}:") for line in lines)
    return [line.removeprefix(f"{file}:") for line in lines]


# ---- what it means ---------------------------------------------------------------


VALUES: dict[str, dict[str, Any]] = {
    "timeout = 3": {"timeout": 3.0},
    'timeout = "1m30s"': {"timeout": 90.0},
    "connect_on_demand = true": {"connect_on_demand": True},
    "max_clients = 8": {"max_clients": 8},
    'matching = "lenient"': {"matching": "lenient"},
    'allowed_networks = ["192.0.2.0/24", "::1"]': {
        "allowed_networks": (ip_network("192.0.2.0/24"), ip_network("::1"))
    },
    'allowed_networks = "::1"': {"allowed_networks": (ip_network("::1"),)},
    'allowed_units = [1, "3-5"]': {"allowed_units": (1, 3, 4, 5)},
    'allowed_functions = "3,4"': {"allowed_functions": (3, 4)},
    "unit_map = { 1 = 11, 2 = 12 }": {"unit_map": ((1, 11), (2, 12))},
    'unit_map = "1:11"': {"unit_map": ((1, 11),)},
    'write_rules = ["deny unit=1", { action = "allow", networks = ["::1"] }]': {
        "write_rules": (rule("deny", units=(1,)), rule("allow", "::1"))
    },
    "more_listeners = [{ port = 5021 }, { host = '::1', port = 1, framing = 'rtu' }]": {
        "more_listeners": (
            ListenerSettings(port=5021),
            ListenerSettings(host="::1", port=1, framing="rtu"),  # type: ignore[arg-type]
        )
    },
    "listen_host = '::1'": {"listen_host": "::1"},
    "tls = {}": {"tls": TlsUpstream()},
    "[devices.a.tls]\nverify = false\nserver_name = 'x'": {
        "tls": TlsUpstream(verify=False, server_name="x")
    },
    "framing = 'solarman'": {"port": 8899, "framing": "solarman"},
    "protocol = 'http'": {"port": 80, "protocol": "http"},
    "protocol = 'echo'\nport = 7\nprobe = '70 0a'": {
        "protocol": "echo",
        "port": 7,
        "probe": b"p\n",
    },
}


@pytest.mark.parametrize("content", VALUES)
def test_a_value(file: Path, content: str) -> None:
    expected = Settings(host="192.0.2.1", **VALUES[content])
    assert one(file, content) == expected


def test_every_setting_can_be_given() -> None:
    assert list(READERS) == list(FIELDS)


def test_other_ways_to_a_device(file: Path) -> None:
    content = """
        [devices.line]
        listen_port = 0
        serial = { device = "/dev/ttyS0", baudrate = 19200, parity = "even" }
        [devices.stick]
        dial_in = { host = "::1", port = 5502, device = "192.0.2.9" }
        """
    serial = SerialLine(device="/dev/ttyS0", baudrate=19200, parity="even")  # type: ignore[arg-type]
    assert read(file, content) == {
        "line": Settings(serial=serial, listen_port=0, framing="rtu"),  # type: ignore[arg-type]
        "stick": Settings(dial_in=DialIn(host="::1", port=5502, device="192.0.2.9")),
    }


def test_certificates_are_files_beside_it_or_texts(file: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(file.parent / "ca.pem"))
    leaf.private_key_and_cert_chain_pem.write_to_path(str(file.parent / "leaf.pem"))
    ca = authority.cert_pem.bytes().decode()
    pem = leaf.private_key_and_cert_chain_pem.bytes().decode()
    settings = one(
        file,
        f"""
        tls = {{ ca = '''{ca}''' }}
        [[devices.a.more_listeners]]
        port = 802
        tls = {{ certificate = "leaf.pem", client_ca = "ca.pem" }}
        """,
    )
    assert settings.tls == TlsUpstream(ca=ca)
    tls = TlsListener(certificate=pem, client_ca=ca)
    assert settings.more_listeners == (ListenerSettings(port=802, tls=tls),)


def test_who_wins_over_whom(file: Path) -> None:
    name = "sungrow_winet"
    advised = PROFILES[name].settings
    key = next(key for key, value in advised.items() if isinstance(value, float))
    content = f"""
        [defaults]
        {key} = 1.25
        queue_size = 7
        cache_ttl = 2
        [devices.plain]
        host = "a"
        listen_port = 1
        queue_size = 8
        [devices.advised]
        host = "b"
        listen_port = 2
        profile = "{name}"
        [devices.own]
        host = "c"
        listen_port = 3
        profile = "{name}"
        {key} = 1.5
        [devices.web]
        host = "d"
        listen_port = 4
        protocol = "http"
        """
    devices = read(file, content)
    assert getattr(devices["plain"], key) == 1.25
    assert devices["plain"].queue_size == 8
    assert getattr(devices["advised"], key) == advised[key]
    assert devices["advised"].queue_size == 7
    assert getattr(devices["own"], key) == 1.5
    assert (devices["plain"].cache_ttl, devices["web"].cache_ttl) == (2, 0)


# ---- what is wrong ---------------------------------------------------------------

DEVICE = '[devices.a]\nhost = "a"\n'

WRONG = {
    "": [" [devices] name a device: [devices.NAME]"],
    "[devices]": ["1: [devices] name a device: [devices.NAME]"],
    "devices = 1": ["1: [devices] name a device: [devices.NAME]"],
    "[a]\n" + DEVICE: ["1: [a] is unknown; a device is a table [devices.NAME]"],
    "devices.a = 1": ["1: [devices.a] must be a table"],
    "defaults = 1\n" + DEVICE: ["1: [defaults] must be a table"],
    '[devices."\\n"]\nhost = "a"': [
        '1: [devices."\\n"] is no name: use characters that can be printed'
    ],
    "[devices.a]": ["1: [devices.a] give one of host, serial, dial_in, not none"],
    DEVICE + "serial.device = 'x'": [
        "1: [devices.a] give one of host, serial, dial_in, not host and serial"
    ],
    "[defaults]\nhost = 'a'\n" + DEVICE: ["2: [defaults] host: belongs to one device"],
    "[defaults]\nlisten_port = 1\n" + DEVICE: [
        "2: [defaults] listen_port: belongs to one device"
    ],
    DEVICE + "\ntimout = 1": [
        "4: [devices.a] timout: is no setting; did you mean timeout?"
    ],
    DEVICE + "frobnicate = 1": ["3: [devices.a] frobnicate: is no setting"],
    DEVICE + "timeout = 0\nqueue_size = 0": [
        "3: [devices.a] timeout: must be between 0.1 and 3600, is 0",
        "4: [devices.a] queue_size: must be between 1 and 100000, is 0",
    ],
    DEVICE + "timeout = nan": [
        "3: [devices.a] timeout: must be between 0.1 and 3600, is nan"
    ],
    DEVICE + "timeout = true": [
        "3: [devices.a] timeout: must be a number of seconds, or '500ms', is true"
    ],
    DEVICE + "timeout = '5 s'": [
        "3: [devices.a] timeout: '5 s' is not a duration; write 5, 500ms, 1s or 1m30s"
    ],
    DEVICE + "queue_size = 1.5": [
        "3: [devices.a] queue_size: must be a whole number, is 1.5"
    ],
    DEVICE + "share_reads = 1": [
        "3: [devices.a] share_reads: must be true or false, is 1"
    ],
    DEVICE + "matching = []": [
        "3: [devices.a] matching: must be a text in quotes, is an array"
    ],
    DEVICE + "matching = 'x'": [
        "3: [devices.a] matching: must be strict or lenient, is 'x'"
    ],
    DEVICE + "protocol = 'smtp'": [
        "3: [devices.a] protocol: is none of modbus, http, iso8583, mpu, echo"
    ],
    DEVICE + "protocol = 'echo'": [
        "1: [devices.a] give the port too; echo has no usual one"
    ],
    DEVICE + "protocol = 'http'\ncache_ttl = 1": [
        "4: [devices.a] cache_ttl: has no effect with http; use it with modbus"
    ],
    DEVICE + "protocol = 'http'\nprofile = 'sungrow_winet'": [
        "4: [devices.a] profile: is only for modbus"
    ],
    DEVICE + "profile = 'x'": [
        f"3: [devices.a] profile: is none of {', '.join(PROFILES)}"
    ],
    DEVICE + "allowed_networks = 1": [
        "3: [devices.a] allowed_networks: must be an array of networks, is 1"
    ],
    DEVICE + "allowed_networks = [\n'::1',\n1,\n]": [
        "3: [devices.a] allowed_networks[2]: must be a text in quotes, is 1"
    ],
    DEVICE + "allowed_units = [{}]": [
        "3: [devices.a] allowed_units[1]: must be a whole number, is a table"
    ],
    DEVICE + "unit_map = 1": [
        "3: [devices.a] unit_map: must be a table such as { 1 = 11 }, is 1"
    ],
    DEVICE + "unit_map.x = 1": ["3: [devices.a] unit_map.x: is no unit of clients"],
    DEVICE + "unit_map.1 = 300": [
        "3: [devices.a] unit_map: must be between 0 and 255, is 300"
    ],
    DEVICE + "write_rules = ['frobnicate']": [
        (
            "3: [devices.a] write_rules[1]: 'frobnicate': must be allow or deny or "
            "acknowledge, is 'frobnicate'; write allow, deny or acknowledge, then what it is "
            "about: networks, unit=1,2, function=6,16, registers=100-200"
        )
    ],
    DEVICE + "[[devices.a.write_rules]]\naction = 'deny'\n"
    "[[devices.a.write_rules]]\nunits = [1]": [
        "5: [devices.a] write_rules[2]: needs action"
    ],
    DEVICE + "write_rules = [{ action = 'deny', registers = [1] }]": [
        (
            "3: [devices.a] write_rules[1]: registers must be the first and the last of "
            "one range"
        )
    ],
    DEVICE + "[devices.a.tls]\nverifi = true": [
        (
            "4: [devices.a] tls.verifi: is unknown; there are verify, ca, server_name, "
            "certificate, key"
        )
    ],
    DEVICE + "tls = true": ["3: [devices.a] tls: must be a table, is true"],
    DEVICE + "tls.ca = '/nowhere/ca.pem'": [
        (
            "3: [devices.a] tls.ca: /nowhere/ca.pem cannot be read: "
            "No such file or directory"
        )
    ],
    DEVICE + "probe = 'xyz'\nprotocol = 'echo'": [
        "3: [devices.a] probe: 'xyz' is not hexadecimal; write 70696e670a"
    ],
    DEVICE + "probe = '70'\nprotocol = 'echo'\nport = 7": [
        "3: [devices.a] probe: the echo message is incomplete"
    ],
    DEVICE + "reconnect_backoff = 60": [
        "1: [devices.a] reconnect_backoff_max: must not be less than reconnect_backoff"
    ],
    DEVICE + "[devices.b]\nhost = 'b'": [
        "3: [devices.b] listen_port: :5020 is taken by [devices.a]"
    ],
    DEVICE + "listen_host = '127.0.0.1'\n[devices.b]\nhost = 'b'\n"
    "more_listeners = [{ host = '::', port = 5020 }]\nlisten_port = 1": [
        "6: [devices.b] more_listeners[1].port: [::]:5020 is taken by [devices.a]"
    ],
    "[devices.a]\nserial.device = 'x'\n[devices.b]\nlisten_port = 0\nserial.device = 'x'": [
        "5: [devices.b] serial.device: is taken by [devices.a]"
    ],
}


@pytest.mark.parametrize("content", WRONG)
def test_a_mistake_is_named_with_its_place(file: Path, content: str) -> None:
    expected = "\n".join(WRONG[content])
    assert "\n".join(mistakes(file, content)) == expected


def test_same_port_of_different_addresses_is_no_mistake(file: Path) -> None:
    places = (("a", "127.0.0.1"), ("b", "127.0.0.2"), ("c", "::1"))
    content = "".join(
        f'[devices.{name}]\nhost = "x"\nlisten_host = "{host}"\n'
        for name, host in places
    )
    assert list(read(file, content)) == ["a", "b", "c"]


def test_certificate_that_cannot_be_used(file: Path) -> None:
    (file.parent / "no.pem").write_text("no certificate")
    content = "more_listeners = [{ port = 1, tls = { certificate = 'no.pem' } }]"
    (line,) = mistakes(file, DEVICE + content)
    assert line.startswith("3: [devices.a] more_listeners[1].tls: the certificate")
    (line,) = mistakes(file, DEVICE + "tls.ca = 'no.pem'")
    assert line.startswith("3: [devices.a] tls: the CA certificate cannot be used")


def test_file_that_is_no_configuration(file: Path) -> None:
    (line,) = mistakes(file, DEVICE + "timeout = \n")
    assert line.startswith(" is not TOML: ")
    assert "at line 3" in line
    file.write_bytes(b"[devices.a]\nhost = '\xff'")
    with pytest.raises(ConfigurationError, match="2: is not UTF-8"):
        read_configuration(file)
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_configuration(file)


# ---- lines -----------------------------------------------------------------------

keys = st.text(st.sampled_from("ab"), min_size=1, max_size=2)
values = st.sampled_from(
    ["1", "'''\n[x]\na = 1\n'''", "[\n1,\n2,\n]", "{ b = 1, c = [{ d = 1 }] }", '"["']
)


@given(
    st.dictionaries(keys, st.dictionaries(keys, values, max_size=4), max_size=4),
    st.lists(st.dictionaries(keys, values, max_size=3), max_size=3),
)
def test_line_of_every_key(
    tables: dict[str, dict[str, str]], array: list[dict[str, str]]
) -> None:
    headers: list[tuple[str, KeyPath, dict[str, str]]]
    headers = [(f"[{name}]", (name,), table) for name, table in tables.items()]
    headers += [
        ("  [[array]] # of tables", ("array", position), table)
        for position, table in enumerate(array)
    ]
    text = "# a comment\n"
    expected: dict[KeyPath, int] = {}
    for header, path, table in headers:
        expected[path] = text.count("\n") + 1
        text += f"{header}\n\n"
        for key, value in table.items():
            expected[*path, key] = text.count("\n") + 1
            text += f"{key} = {value} # = \n"
    tomllib.loads(text)
    lines = lines_of_keys(text)
    for path, line in expected.items():
        assert lines[path] == line
        assert line_of(lines, (*path, "not there")) == line


def test_every_field_of_a_table_can_be_given(file: Path) -> None:
    for key, cls in (
        ("tls", TlsUpstream),
        ("serial", SerialLine),
        ("dial_in", DialIn),
        ("more_listeners", ListenerSettings),
    ):
        value = "[{ x = 1 }]" if key == "more_listeners" else "{ x = 1 }"
        (line,) = mistakes(file, f"[devices.a]\n{key} = {value}\n")
        told = line.partition("there are ")[2].split(", ")
        assert set(told) == {field.name for field in fields(cls)}
