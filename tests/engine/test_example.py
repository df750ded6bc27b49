"""The example of a configuration in deploy/."""

from __future__ import annotations

from pathlib import Path
import re

import trustme

from custom_components.tcp_multiplexer.multiplexer import (
    DEFAULT_NETWORKS,
    Settings,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.configuration import (
    read_configuration,
)
from custom_components.tcp_multiplexer.multiplexer.command_line.file_values import (
    READERS,
)
from script.config_example import example

FILE = Path(__file__).parents[2] / "deploy" / "config.example.toml"


def test_it_follows_from_the_settings() -> None:
    assert FILE.read_text() == example(), (
        "python -m script.config_example >deploy/config.example.toml"
    )


def test_it_names_every_setting() -> None:
    text = FILE.read_text()
    for name in (*READERS, "profile"):
        assert re.search(rf"^(#: )?(\[.*\.)?{name}(\]| = )", text, re.MULTILINE), name


def test_it_can_be_used_as_it_is() -> None:
    expected = Settings(host="192.168.1.22", listen_port=5020)
    assert read_configuration(FILE) == {"inverter": expected}


def test_everything_in_it_can_be_used(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("inverter.example.org")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("server", "client"):
        leaf.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        leaf.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
    file = tmp_path / "all.toml"
    file.write_text(FILE.read_text().replace("#: ", ""))
    devices = read_configuration(file)
    assert list(devices) == ["inverter", "logger", "meter", "stick"]
    for settings in devices.values():
        # What it gives as defaults are the defaults.
        assert settings.timeout == Settings(host="a").timeout
        assert settings.allowed_networks == DEFAULT_NETWORKS
    assert len(devices["inverter"].more_listeners) == 2
    assert devices["inverter"].tls is not None
    assert devices["logger"].port == 8899
