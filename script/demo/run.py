"""Run the demo: a simulated inverter, and a Home Assistant that shares it.

Home Assistant is the real one. Before its first start its folder is filled so that
nothing has to be clicked: an owner, an entry of this integration, named clients,
dashboards, automations. What is changed there later stays, except for the ports: they
are chosen anew at each start, because another program may have taken one meanwhile.

`script/develop` prepares the environment and calls this.
"""

import asyncio
from contextlib import suppress
import json
import logging
import os
from pathlib import Path
import shutil
import signal
import socket
import sys
from typing import Any

import aiohttp

from script.demo import energy_manager, inverter
from script.demo.arguments import parse

DEMO = Path(__file__).parent
ROOT = DEMO.parents[1]
DASHBOARD = ROOT / "docs/dashboard.yaml"

USER = PASSWORD = "demo"  # noqa: S105 - of this demo only
TITLE = "Inverter"
ENTRY_ID = "tcp_multiplexer_demo"
CLIENTS = {"Home Assistant": "127.0.0.1", "evcc": "127.0.0.2", "openWB": "127.0.0.3"}
"""Where they are. All but the first are simulated, too."""
LIVING_VALUE = "sensor.inverter_power"

READY_SECONDS = 180
STOP_SECONDS = 30
RESTART = 100
"""The exit code with which Home Assistant asks to be started again."""


def free_port(host: str, *wanted: int) -> int:
    """Give the first of these ports that can be had, else any."""
    for port in (*wanted, 0):
        with suppress(OSError), socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            return int(listener.getsockname()[1])
    raise SystemExit(f"script/develop: cannot listen on {host}")


# ---- Home Assistant's folder ---------------------------------------------------------


def fill(folder: Path, host: str, port: int, listen: int, upstream: int) -> None:
    """Make `folder` such that Home Assistant starts with all of the demo."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / "custom_components").symlink_to(ROOT / "custom_components")
    configuration = (DEMO / "configuration.yaml").read_text()
    (folder / "configuration.yaml").write_text(
        configuration.replace("LISTEN_PORT", str(listen))
    )
    for path in (DEMO / "automations.yaml", DEMO / "inverter.yaml", DASHBOARD):
        shutil.copy(path, folder)
    blueprints = folder / "blueprints/automation/tcp_multiplexer"
    shutil.copytree(
        ROOT / "blueprints/automation/tcp_multiplexer", blueprints, dirs_exist_ok=True
    )

    store = Store(folder / ".storage")
    # In YAML these would be a trial that ends after five minutes.
    http = {
        "server_host": [host],
        "server_port": port,
        "cors_allowed_origins": [],
        "login_attempts_threshold": -1,
        "ip_ban_enabled": True,
        "ssl_profile": "modern",
        "use_x_frame_options": True,
        "created_at": "2026-01-01T00:00:00+00:00",
        "error": None,
        "error_message": None,
    }
    store.write(
        "http",
        {"stable": http, "pending": None, "yaml_migration_done": True},
        version=2,
        minor_version=2,
    )
    # Of the onboarding only the owner's account is left. The other steps would start
    # integrations that want the internet.
    store.write_once(
        "onboarding",
        {"done": ["core_config", "analytics", "integration"]},
        version=4,
    )
    store.write_once(
        "frontend.system_data", {"core": {"default_panel": "demo-multiplexer"}}
    )
    store.write_once("core.config_entries", {"entries": [_entry()]})
    store.write_once(
        "core.entity_registry", {"entities": [_enabled("saved_reads", "reads_saved")]}
    )
    store.update_entry({"port": upstream, "listen_port": listen})
    # Or the values of the last time would look as if they lived.
    store.forget("core.restore_state")


def _entry() -> dict[str, Any]:
    """Give the entry that shares the inverter, as storage version 1.1 has it."""
    return {
        "entry_id": ENTRY_ID,
        "version": 1,
        "minor_version": 3,
        "domain": "tcp_multiplexer",
        "title": TITLE,
        "data": {
            "protocol": "modbus",
            "host": "127.0.0.1",
            "listen_host": "127.0.0.1",
        },
        "options": {},
        "source": "user",
        "unique_id": None,
        "subentries": [
            {
                "subentry_id": f"{ENTRY_ID}_{name}",
                "subentry_type": "client",
                "title": name,
                "data": {"addresses": [address]},
                "unique_id": None,
            }
            for name, address in CLIENTS.items()
        ],
    }


def _enabled(name: str, key: str) -> dict[str, Any]:
    """Give a sensor that is disabled otherwise, as storage version 1.1 has it."""
    return {
        "entity_id": f"sensor.inverter_{name}",
        "config_entry_id": ENTRY_ID,
        "platform": "tcp_multiplexer",
        "unique_id": f"{ENTRY_ID}-{key}",
    }


class Store:
    """Home Assistant's storage folder."""

    def __init__(self, folder: Path) -> None:
        """Make it, if need be."""
        folder.mkdir(exist_ok=True)
        self._folder = folder

    def write(
        self, key: str, data: Any, *, version: int = 1, minor_version: int = 1
    ) -> None:
        """Write a file."""
        content = {
            "version": version,
            "minor_version": minor_version,
            "key": key,
            "data": data,
        }
        (self._folder / key).write_text(json.dumps(content))

    def write_once(self, key: str, data: Any, *, version: int = 1) -> None:
        """Write a file unless there is one."""
        if not (self._folder / key).exists():
            self.write(key, data, version=version)

    def forget(self, key: str) -> None:
        """Remove a file if there is one."""
        (self._folder / key).unlink(missing_ok=True)

    def update_entry(self, data: dict[str, Any]) -> None:
        """Change data of the demo's entry, unless its owner has deleted it."""
        path = self._folder / "core.config_entries"
        content = json.loads(path.read_text())
        for entry in content["data"]["entries"]:
            if entry["entry_id"] == ENTRY_ID:
                entry["data"] |= data
        path.write_text(json.dumps(content))


# ---- Home Assistant's process --------------------------------------------------------


async def run_home_assistant(folder: Path) -> int:
    """Run it until it ends for good; give its exit code."""
    with (folder / "console.log").open("wb") as console:
        while True:
            process = await asyncio.create_subprocess_exec(
                Path(sys.executable).with_name("hass"),
                "--skip-pip",
                "--config",
                folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=os.environ | {"PYTHONPATH": str(DEMO / "stand_ins")},
                start_new_session=True,  # Ctrl-C is for us; we stop it in order.
            )
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _stop(process)
                raise
            if code != RESTART:
                return code


async def _stop(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


class HomeAssistant:
    """Its HTTP interface, as far as the demo needs it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Know where it is."""
        self._session = session
        self._url = url
        self._client_id = f"{url}/"

    async def _post(self, path: str, **how: Any) -> Any:
        async with self._session.post(f"{self._url}{path}", **how) as response:
            response.raise_for_status()
            return await response.json()

    async def _get(self, path: str, **how: Any) -> Any:
        async with self._session.get(f"{self._url}{path}", **how) as response:
            response.raise_for_status()
            return await response.json()

    async def log_in(self, *, first_start: bool) -> str:
        """Log in as soon as that is served; give a token.

        Raises:
            KeyError: somebody has changed the login.

        """
        while True:
            with suppress(aiohttp.ClientError):
                code = await (self._make_owner() if first_start else self._log_in())
                break
            await asyncio.sleep(0.2)
        grant = {"grant_type": "authorization_code", "code": code}
        tokens = await self._post(
            "/auth/token", data={**grant, "client_id": self._client_id}
        )
        return str(tokens["access_token"])

    async def _make_owner(self) -> str:
        owner = {"name": "Demo", "username": USER, "password": PASSWORD}
        account = await self._post(
            "/api/onboarding/users",
            json={**owner, "client_id": self._client_id, "language": "en"},
        )
        return str(account["auth_code"])

    async def _log_in(self) -> str:
        flow = await self._post(
            "/auth/login_flow",
            json={
                "client_id": self._client_id,
                "handler": ["homeassistant", None],
                "redirect_uri": self._client_id,
            },
        )
        login = {"username": USER, "password": PASSWORD}
        done = await self._post(
            f"/auth/login_flow/{flow['flow_id']}",
            json={**login, "client_id": self._client_id},
        )
        return str(done["result"])

    async def wait_for_values(self, token: str) -> str:
        """Wait until the inverter's power is there; give it."""
        headers = {"Authorization": f"Bearer {token}"}
        while True:
            with suppress(aiohttp.ClientError):
                state = await self._get(f"/api/states/{LIVING_VALUE}", headers=headers)
                if state["state"] not in ("unavailable", "unknown"):
                    return f"{state['state']} W"
            await asyncio.sleep(0.2)


# ---- All of it -----------------------------------------------------------------------


async def announce(
    host: str, port: int, listen: int, folder: Path, *, first_start: bool
) -> None:
    """Wait until everything works, then say where it is."""
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104
    async with aiohttp.ClientSession() as session:
        home_assistant = HomeAssistant(session, url)
        try:
            async with asyncio.timeout(READY_SECONDS):
                token = await home_assistant.log_in(first_start=first_start)
                value = await home_assistant.wait_for_values(token)
        except KeyError:
            value = "see the first page"  # Somebody has changed the login.
        except TimeoutError:
            value = "none yet: see the log"
    print(
        f"""
Home Assistant   {url}
Login            {USER} / {PASSWORD}
Your clients     127.0.0.1:{listen} (Modbus/TCP, unit {inverter.UNIT_ID})
Power now        {value} (register {inverter.POWER})
Log              {folder / "home-assistant.log"}

Ctrl-C stops all of it.""",
        flush=True,
    )


async def main(host: str, port: int | None, listen: int | None, folder: Path) -> int:
    """Start everything, say so, and stop it in order; give the exit code."""
    stop = asyncio.Event()
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)

    for address, wanted in ((host, port), ("127.0.0.1", listen)):
        if wanted and wanted != free_port(address, wanted):
            raise SystemExit(f"script/develop: port {wanted} is in use: choose another")
    port = port or free_port(host, 8123, 8124, 8125)
    listen = listen or free_port("127.0.0.1", 5020, 5021, 5022)
    upstream = free_port("127.0.0.1", 1502, 1503, 1504)
    fill(folder, host, port, listen, upstream)
    onboarding = json.loads((folder / ".storage/onboarding").read_text())
    first_start = "user" not in onboarding["data"]["done"]
    server = await inverter.start("127.0.0.1", upstream)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # while nobody listens
    print("Starting Home Assistant ...", flush=True)
    hass = asyncio.create_task(run_home_assistant(folder))
    tasks = {
        hass,
        asyncio.create_task(
            announce(host, port, listen, folder, first_start=first_start)
        ),
        asyncio.create_task(stop.wait()),
        *(
            asyncio.create_task(energy_manager.run(address, listen))
            for address in list(CLIENTS.values())[1:]
        ),
    }
    try:
        # That everything was announced ends nothing; any other end ends all.
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if stop.is_set() or hass.done():
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.shutdown()
    if stop.is_set():
        print("Stopped.", flush=True)
        return 0
    print(f"Home Assistant has ended: see {folder / 'console.log'}", file=sys.stderr)
    return hass.result() or 1


if __name__ == "__main__":
    arguments = parse()
    sys.exit(
        asyncio.run(
            main(
                arguments.host,
                arguments.port,
                arguments.listen,
                arguments.folder.resolve(),
            )
        )
    )
