"""A real Home Assistant with entries of this integration, for what is measured in one.

Its folder is new, and it has no integrations but those that every installation has.
"""

from collections.abc import Generator
from contextlib import contextmanager
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from script.demo.run import DEMO, Store  # noqa: E402

WATCH = ROOT / "benchmarks" / "loop_watch"


def entry(number: int, data: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Give an entry of this integration as storage version 1.1 has it."""
    return {
        "entry_id": f"multiplexer{number}",
        "version": 1,
        "domain": "tcp_multiplexer",
        "title": f"Multiplexer {number}",
        "data": {
            "protocol": "modbus",
            "host": "127.0.0.1",
            "listen_host": "127.0.0.1",
            **data,
        },
        "options": options,
        "source": "user",
        "unique_id": None,
    }


@contextmanager
def home_assistant(
    hass: Path, folder: Path, entries: list[dict[str, Any]], yaml: str = ""
) -> Generator[subprocess.Popen[bytes]]:
    """Run the program `hass` in a folder that does not exist yet; end it."""
    components = folder / "custom_components"
    components.mkdir(parents=True)
    for component in (ROOT / "custom_components" / "tcp_multiplexer", WATCH):
        (components / component.name).symlink_to(component)
    (folder / "configuration.yaml").write_text(
        f"homeassistant:\n  name: benchmark\nlogger:\n  default: warning\n{yaml}"
    )
    Store(folder / ".storage").write("core.config_entries", {"entries": entries})
    process = subprocess.Popen(
        (hass, "--skip-pip", "--config", folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(DEMO / "stand_ins")},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
