"""`tcp-multiplexer convert`, and settings as TOML."""

from __future__ import annotations

from pathlib import Path
import sys

import pytest
import trustme

from custom_components.tcp_multiplexer.multiplexer import Settings
from custom_components.tcp_multiplexer.multiplexer.command_line.configuration import (
    read_configuration,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.convert import convert
from custom_components.tcp_multiplexer.multiplexer.command_line.flags import (
    Parser,
    add_flags,
    make_settings,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.toml_text import (
    toml_device,
)

from .program import MODULE, output
from .test_cli_options import FLAGS


def read(path: Path, text: str) -> dict[str, Settings]:
    """Read a configuration, and see that it is one."""
    file = path / "converted.toml"
    file.write_text(text)
    return read_configuration(file)


def flags(*arguments: str) -> Settings:
    """Give the settings for flags."""
    parser = Parser()
    add_flags(parser)
    return make_settings(parser.parse_args(arguments))


@pytest.mark.parametrize("field", FLAGS)
def test_every_setting_survives(tmp_path: Path, field: str) -> None:
    settings = flags(*FLAGS[field][0])
    text = toml_device(field, settings)
    assert read(tmp_path, text) == {field: settings}


def test_certificates_survive(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca, leaf = tmp_path / "ca.pem", tmp_path / "leaf.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("x").private_key_and_cert_chain_pem.write_to_path(str(leaf))
    settings = flags(
        *("-p", "modbus", "--tls", "--tls-ca", str(ca), "--also-listen-tls", "802"),
        *("--listen-tls-certificate", str(leaf)),
    )
    assert read(tmp_path, toml_device("a", settings)) == {"a": settings}


DOCUMENTED = (
    "server -p modbus -t 192.168.1.22:1502 -l 5020 -v --max-connections 2",
    (
        "docker run -p 5020:5020 ghcr.io/xerolux/tcp-multiplexer server "
        "-t 192.168.1.22:1502 -l 5020 -p modbus -v"
    ),
    (
        "tcp-multiplexer server -p http -t backend.example.com:80 -l 8080 "
        "--max-connections 5 --health-check-interval 60s"
    ),
    "./tcp-multiplexer server -p echo -t 127.0.0.1:1234 -l 8000",
)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_documented_command_line_of_the_go_program(tmp_path: Path, line: str) -> None:
    words = line.split()
    text = convert(words)
    (settings,) = read(tmp_path, text).values()
    assert settings == flags(*words[words.index("server") + 1 :])
    assert settings.timeout == 60
    assert ("--verbose" in text) == ("-v" in words)


# The examples of the package description of modbus-proxy 0.8.0, without their comments
PLC = """
devices:
- modbus:
    url: plc1.acme.org:502
    timeout: 10
    connection_time: 0.1
  listen:
    bind: 0:9000
  unit_id_remapping:
    1: 0
"""
TWO = """
devices:
- modbus:
    url: plc1.acme.org:502
  listen:
    bind: 0:9000
- modbus:
    url: plc2.acme.org:502
  listen:
    bind: 0:9001
"""
LOGGING = """
devices:
- modbus:
    url: plc1.acme.org:502
  listen:
    bind: 0:502
logging:
  version: 1
  formatters:
    standard:
      format: "%(asctime)s %(levelname)8s %(name)s: %(message)s"
  root:
    handlers: ['console']
    level: DEBUG
"""


def plc(number: int, port: int, **more: object) -> Settings:
    """Give what such an example means."""
    host = f"plc{number}.acme.org"
    given = {"host": host, "port": 502, "listen_host": "0.0.0.0", "listen_port": port}  # noqa: S104
    return Settings(**given | {"timeout": 10.0} | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLC, {"plc1-acme-org": plc(1, 9000, connect_delay=0.1, unit_map=((1, 0),))}),
        (TWO, {"plc1-acme-org": plc(1, 9000), "plc2-acme-org": plc(2, 9001)}),
        (LOGGING, {"plc1-acme-org": plc(1, 502)}),
    ],
)
def test_documented_file_of_modbus_proxy(
    tmp_path: Path, text: str, expected: dict[str, Settings]
) -> None:
    file = tmp_path / "modbus-config.yml"
    file.write_text(text)
    converted = convert([str(file)])
    assert read(tmp_path, converted) == expected
    assert ("# Not taken over: logging." in converted) == ("logging" in text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.toml",
            '[[devices]]\nmodbus.url = "tcp://h:5020"\nlisten.bind = "tcp://:9000"\n',
        ),
        (
            "a.json",
            '{"devices": [{"modbus": {"url": "h:5020"}, "listen": {"bind": ":9000"}}]}',
        ),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (settings,) = read(tmp_path, convert([str(tmp_path / name)])).values()
    assert (settings.host, settings.port) == ("h", 5020)
    assert (settings.listen_host, settings.listen_port) == ("0.0.0.0", 9000)  # noqa: S104


def test_same_host_twice(tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text(TWO.replace("plc2", "plc1"))
    names = list(read(tmp_path, convert([str(file)])))
    assert names == ["plc1-acme-org", "plc1-acme-org-2"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "devices: there are none"),
        ("devices: [", "cannot be read: while parsing"),
        ("devices: [1]", r"devices\[1\]: must be a table, is 1"),
        ("devices: [{modbus: ...}]", r"devices\[1\].modbus: must be a table"),
        ("devices: [{modbus: {url: h}}]", r"devices\[1\].listen: must be a table"),
        (PLC.replace("timeout: 10", "timeout: x"), "timeout: must be a number, is 'x'"),
        (PLC.replace("timeout: 10", "timeout: 0"), "timeout: must be between"),
        (PLC.replace("bind", "bnd"), r"listen.bnd: is unknown"),
        (PLC.replace("org:502", "org:x"), "modbus.url: 'plc1.acme.org:x' is no host"),
        (PLC.replace("1: 0", "a: 0"), "unit_id_remapping: a is no unit"),
    ],
)
def test_what_is_no_file_of_modbus_proxy(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "a.yml"
    file.write_text(text)
    with pytest.raises(ValueError, match=reason):
        convert([str(file)])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give the file of modbus-proxy"),
        (["/nowhere/a.yml"], "cannot be read: No such file"),
        (["server", "-p"], "expected one argument"),
        (["server", "--frobnicate"], "unknown: --frobnicate"),
        (["server", "-p", "smtp"], "unknown protocol"),
    ],
)
def test_what_cannot_be_converted(words: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        convert(words)


def test_yaml_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    file = tmp_path / "a.yml"
    file.write_text(TWO)
    with pytest.raises(ValueError, match=r"pip install 'tcp-multiplexer\[yaml\]'"):
        convert([str(file)])


async def test_command(tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text(TWO)
    status, out, err = await output(sys.executable, *MODULE, "convert", str(file))
    assert (status, err) == (0, "")
    assert list(read(tmp_path, out)) == ["plc1-acme-org", "plc2-acme-org"]
    status, out, err = await output(
        *(sys.executable, *MODULE, "convert", "server", "-p", "modbus", "-t", "a:1")
    )
    assert (status, err) == (0, "")
    status, out, err = await output(sys.executable, *MODULE, "convert", "server", "-p")
    assert (status, out) == (2, "")
    assert err.startswith("tcp-multiplexer convert: argument -p")


def test_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, value in (("-t", "127.0.0.1:1"), ("-l", "1")):
        with pytest.raises(SystemExit):
            flags(flag, value, flag, value)
        assert "is given twice; the command run shares several devices" in (
            capsys.readouterr().err
        )
