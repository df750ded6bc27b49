"""The files to run it with: services and the image, as far as they run here."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
import json
from pathlib import Path
import re
import shutil
import subprocess
import sys
from threading import Thread
import tomllib
from typing import Any, Final, override

import pytest
import yaml

from custom_components.tcp_multiplexer.multiplexer.command_line.main import main

ROOT: Final = Path(__file__).parents[1]
DEPLOY: Final = ROOT / "deploy"
SERVICES: Final = ("tcp-multiplexer.service", "tcp-multiplexer@.service")
PROGRAM: Final = "/usr/local/bin/tcp-multiplexer"
EXPOSURE: Final = 15
"""Tenths, at most, of what `systemd-analyze security` calls the exposure level."""

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="there is no systemd-analyze here: services are not looked at",
)


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `systemd-analyze` on what is in a folder."""
    return subprocess.run(  # noqa: S603 - with arguments of this file
        ["systemd-analyze", *arguments],  # noqa: S607 - wherever it is
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"},
    )


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Put a service where it can be looked at; its program is any that is there."""
    name = str(request.param).replace("@.", "@roof.")
    text = (DEPLOY / request.param).read_text()
    assert text.count(PROGRAM) == 2
    (tmp_path / name).write_text(text.replace(PROGRAM, "/bin/true"))
    return name


@systemd
def test_service_has_no_mistake(service: str, tmp_path: Path) -> None:
    found = analyze(tmp_path, "verify", f"./{service}")
    assert (found.returncode, found.stderr) == (0, "")


@systemd
def test_a_mistake_would_be_found(service: str, tmp_path: Path) -> None:
    path = tmp_path / service
    path.write_text(path.read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in analyze(tmp_path, "verify", f"./{service}").stderr


@systemd
@pytest.mark.parametrize("more", [None, "serial.conf", "low-port.conf"])
def test_service_is_exposed_to_little(
    service: str, tmp_path: Path, more: str | None
) -> None:
    if more is not None:
        # As `systemd-analyze` reads no drop-ins beside a file: they are behind it.
        path = tmp_path / service
        path.write_text(f"{path.read_text()}\n{(DEPLOY / more).read_text()}")
    found = analyze(
        tmp_path,
        *("security", "--offline=true", f"--threshold={EXPOSURE}", f"./{service}"),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    level = re.search(r"exposure level for \S+: (\S+)", found.stdout)
    assert level is not None
    assert float(level[1]) <= EXPOSURE / 10


@pytest.mark.parametrize("service", SERVICES)
def test_service_calls_what_there_is(
    service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` and `run` are commands, each with a file."""
    text = (DEPLOY / service).read_text()
    calls = re.findall(rf"^Exec\w+={PROGRAM} (\w+) (\S+)$", text, re.MULTILINE)
    assert [command for command, _ in calls] == ["check", "run"]
    assert len({file for _, file in calls}) == 1
    (file := tmp_path / "one.toml").write_text(CONFIGURATION)
    assert main(["check", str(file)]) == 0
    with pytest.raises(SystemExit) as helped:
        main(["run", "--help"])
    assert helped.value.code == 0
    assert "FILE" in capsys.readouterr().out


CONFIGURATION: Final = """
[devices.inverter]
protocol = "modbus"
host = "127.0.0.1"
listen_host = "127.0.0.1"
listen_port = 5020
"""


# The image


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, without comments."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parts = [line.strip() for line in re.sub(r"\n +", " ", joined).splitlines()]
    return [(name, rest) for name, _, rest in (each.partition(" ") for each in parts)]


def arguments(name: str) -> list[str]:
    """Return what an instruction says as a list, the last one of that name."""
    found: list[str] = json.loads(
        re.sub(
            r"^.*?(?=\[)",
            "",
            [rest for each, rest in instructions() if each == name][-1],
        )
    )
    return found


def test_image_has_what_the_package_is_built_of() -> None:
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY"
        for source in rest.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = project["build-system"]
    (folder,) = build["backend-path"]
    named = [
        "pyproject.toml",
        "setup.py",
        project["project"]["readme"],
        *project["project"]["license-files"],
        f"{folder}/{build['build-backend']}.py",
        *project["tool"]["setuptools"]["package-dir"].values(),
    ]
    assert copied == set(named)
    extras = project["project"]["optional-dependencies"]
    for name, rest in instructions():
        for wanted in re.findall(r"\[([a-z,]+)\]\"", rest if name == "RUN" else ""):
            assert set(wanted.split(",")) <= extras.keys()


def test_image_runs_as_nobody_in_particular() -> None:
    names = [name for name, _ in instructions()]
    assert dict(instructions())["USER"] == "10001:10001"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert arguments("ENTRYPOINT") == ["tcp-multiplexer"]
    assert arguments("CMD")[0] == "run"


class Health(BaseHTTPRequestHandler):
    """Says how healthy it is."""

    status = 200

    def do_GET(self) -> None:
        """Answer."""
        assert self.path == "/health"
        self.send_response(self.status)
        self.end_headers()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about it."""


@pytest.mark.parametrize("status", [200, 503])
def test_image_is_healthy_where_its_program_says_so(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Health, "status", status)
    asked = arguments("CMD")[arguments("CMD").index("--metrics") + 1]
    program, *check = arguments("HEALTHCHECK")
    assert program == "python"
    assert asked in check[1]
    server = HTTPServer(("127.0.0.1", 0), Health)
    Thread(target=server.handle_request).start()
    check[1] = check[1].replace(asked, f"127.0.0.1:{server.server_port}")
    done = subprocess.run(  # noqa: S603 - what the Dockerfile says
        [sys.executable, *check], check=False, capture_output=True
    )
    server.server_close()
    assert (done.returncode == 0) == (status == 200)


def test_compose_hands_the_file_to_where_the_image_reads_it() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    volumes = service["tcp-multiplexer"]["volumes"]
    assert volumes == [f"./tcp-multiplexer.toml:{arguments('CMD')[1]}:ro"]
