"""The demo of `script/develop`, for tests that use a real Home Assistant."""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
import re
from typing import Any, NamedTuple

import aiohttp

from script.demo.run import HomeAssistant

from .integration.ports import free_port

ROOT = Path(__file__).parents[1]
DOMAIN = "tcp_multiplexer"

ENTRIES = "/api/config/config_entries/entry"
FLOWS = "/api/config/config_entries/flow"
SUBENTRY_FLOWS = "/api/config/config_entries/subentries/flow"

SET_UP_SECONDS = 600
"""With everything fetched from the internet."""
STOP_SECONDS = 60


class Demo(NamedTuple):
    """What `script/develop` has started."""

    process: Process
    said: dict[str, str]
    """What it printed, by the names that it gave it."""
    folder: Path


@asynccontextmanager
async def running_demo(folder: Path, *options: str) -> AsyncGenerator[Demo]:
    """Run it, with these options, until the end of the context.

    Its ports are random: those that it would choose may be taken, by another run of
    these tests, before its Home Assistant listens.
    """
    process = await asyncio.create_subprocess_exec(
        ROOT / "script" / "develop",
        *options,
        *("--port", str(free_port()), "--listen", str(free_port())),
        *("--folder", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(SET_UP_SECONDS):
            words = await process.stdout.readuntil(b"Ctrl-C stops all of it.\n")
        said = re.findall(r"^(\S.*\S)  +(\S.*)$", words.decode(), re.MULTILINE)
        yield Demo(process, dict(said), folder)
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()


class Api:
    """Home Assistant's HTTP interface, logged in."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        """Know where it is and who asks."""
        self._session = session
        self._url = url
        self._token = token

    async def _ask(self, method: str, path: str, **how: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with self._session.request(
            method, self._url + path, headers=headers, **how
        ) as response:
            assert response.ok, await response.text()
            return await response.json()

    async def get(self, path: str) -> Any:
        """Give what is there."""
        return await self._ask("GET", path)

    async def post(self, path: str, data: dict[str, Any]) -> Any:
        """Send something and give the answer."""
        return await self._ask("POST", path, json=data)

    async def delete(self, path: str) -> None:
        """Delete what is there."""
        await self._ask("DELETE", path)

    async def command(self, kind: str, **data: Any) -> Any:
        """Give the result of a command of the WebSocket interface."""
        async with self._session.ws_connect(f"{self._url}/api/websocket") as socket:
            await socket.receive_json()
            await socket.send_json({"type": "auth", "access_token": self._token})
            await socket.receive_json()
            await socket.send_json({"id": 1, "type": kind, **data})
            return (await socket.receive_json())["result"]

    async def becomes(self, entity_id: str, wanted: str) -> None:
        """Wait until an entity has this state."""
        async with asyncio.timeout(60):
            while await self.state(entity_id) != wanted:
                pass

    async def loaded(self, domain: str) -> None:
        """Wait until the only entry of an integration is loaded."""
        async with asyncio.timeout(60):
            states: list[str] = []
            while states != ["loaded"]:
                entries = await self.get(f"{ENTRIES}?domain={domain}")
                states = [entry["state"] for entry in entries]

    async def state(self, entity_id: str) -> str:
        """Give the state of an entity."""
        return str((await self.get(f"/api/states/{entity_id}"))["state"])


@asynccontextmanager
async def logged_in(demo: Demo) -> AsyncGenerator[Api]:
    """Give the interface of the demo's Home Assistant, until the end of the context."""
    url = demo.said["Home Assistant"]
    async with aiohttp.ClientSession() as session:
        token = await HomeAssistant(session, url).log_in(first_start=False)
        yield Api(session, url, token)


def filled_in(schema: list[dict[str, Any]], typed: dict[str, Any]) -> dict[str, Any]:
    """Fill a form as the frontend does: what is not typed is as proposed."""
    values: dict[str, Any] = {}
    for field in schema:
        name = field["name"]
        if field.get("type") == "expandable":
            values[name] = filled_in(field["schema"], typed)
        elif name in typed:
            values[name] = typed[name]
        elif suggested := field.get("description", {}).get("suggested_value"):
            values[name] = suggested
        elif "default" in field:
            values[name] = field["default"]
    return values


async def fill_in(
    api: Api, step: dict[str, Any], typed: dict[str, Any], flows: str = FLOWS
) -> Any:
    """Send the pages of a dialog as long as they are forms; give what comes then."""
    while step["type"] == "form":
        assert not step.get("errors"), step
        form = filled_in(step["data_schema"], typed)
        step = await api.post(f"{flows}/{step['flow_id']}", form)
    return step


async def add_entry(api: Api, **typed: Any) -> dict[str, Any]:
    """Add a multiplexer as its owner does, the device answering or not."""
    step = await fill_in(api, await api.post(FLOWS, {"handler": DOMAIN}), typed)
    if step["type"] == "menu":
        add_anyway = {"next_step_id": "add_anyway"}
        step = await api.post(f"{FLOWS}/{step['flow_id']}", add_anyway)
    assert step["type"] == "create_entry", step
    assert step["result"]["state"] == "loaded"
    return dict(step["result"])
