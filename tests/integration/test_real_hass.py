"""A real Home Assistant, started, used and stopped as people do it.

`script/develop` runs the newest one in an environment of its own, which it makes if
need be; nothing of this process is in it.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path
import re
import signal
from typing import Any, NamedTuple

import aiohttp
from pymodbus.client import AsyncModbusTcpClient
import pytest

from script.demo import inverter
from script.demo.run import HomeAssistant

from .peers import until
from .ports import free_port

DOMAIN = "tcp_multiplexer"
ROOT = Path(__file__).parents[2]
SET_UP_SECONDS = 600
"""With everything fetched from the internet."""
STOP_SECONDS = 60


class Demo(NamedTuple):
    """What `script/develop` has started."""

    process: Process
    words: str
    """What it said about it."""
    folder: Path


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncGenerator[Demo]:
    """Return the demo, running."""
    process = await asyncio.create_subprocess_exec(
        ROOT / "script" / "develop",
        *("--port", str(free_port()), "--folder", str(tmp_path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(SET_UP_SECONDS):
            words = await process.stdout.readuntil(b"Ctrl-C stops all of it.\n")
        yield Demo(process, words.decode(), tmp_path)
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()


@pytest.fixture
async def device() -> AsyncGenerator[inverter.OneConnectionServer]:
    """Return another inverter than the demo's."""
    server = await inverter.start("127.0.0.1", free_port())
    yield server
    await server.shutdown()


class Api:
    """Home Assistant's HTTP interface, logged in."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        """Know where it is and who asks."""
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def post(self, path: str, data: dict[str, Any]) -> Any:
        """Send something and give the answer."""
        async with self._session.post(
            self._url + path, json=data, headers=self._headers
        ) as response:
            assert response.ok, await response.text()
            return await response.json()


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


async def add_entry(api: Api, typed: dict[str, Any]) -> dict[str, Any]:
    """Add a multiplexer as its owner does; give the entry."""
    flows = "/api/config/config_entries/flow"
    step = await api.post(flows, {"handler": DOMAIN})
    for _ in range(2):  # The second page proposes what the device says of itself.
        assert step["type"] == "form"
        form = filled_in(step["data_schema"], typed)
        step = await api.post(f"{flows}/{step['flow_id']}", form)
        assert not step.get("errors"), step
    assert step["type"] == "create_entry", step
    assert step["result"]["state"] == "loaded"
    return dict(step["result"])


def complaints(log: Path) -> list[str]:
    """Give the warnings and errors in which we are named, exceptions included.

    The loader says of every custom integration that nobody has tested it. A path in
    this checkout does not name us.
    """
    records = re.split(r"^(?=\d{4}-\d\d-\d\d )", log.read_text(), flags=re.MULTILINE)
    return [
        record
        for record in records
        if re.search(r" (WARNING|ERROR|CRITICAL) \(", record)
        and "[homeassistant.loader]" not in record
        and DOMAIN in record.replace(str(ROOT / ".venv-develop"), "")
    ]


@pytest.mark.timeout(SET_UP_SECONDS + 120)
async def test_life_of_a_real_home_assistant(
    demo: Demo, device: inverter.OneConnectionServer
) -> None:
    said = dict(re.findall(r"^(\S.*\S)  +(\S.*)$", demo.words, re.MULTILINE))
    assert re.match(r"[1-9]\d* W ", said["Power now"])
    url = said["Home Assistant"]
    address = device.comm_params.source_address
    assert address
    listen_port = free_port()

    async with aiohttp.ClientSession() as session:
        token = await HomeAssistant(session, url).log_in(first_start=False)
        api = Api(session, url, token)
        typed = {"host": "127.0.0.1", "port": address[1], "listen_port": listen_port}
        entry = await add_entry(api, typed)

        client = AsyncModbusTcpClient("127.0.0.1", port=listen_port)
        await client.connect()
        answer = await client.read_holding_registers(inverter.POWER)
        assert 0 < answer.registers[0] <= inverter.RATED_WATTS
        answer = await client.write_register(inverter.LIMIT_ENABLED, 1)
        assert not answer.isError()
        answer = await client.read_holding_registers(inverter.POWER)
        assert answer.registers[0] <= inverter.RATED_WATTS / 2

        before = device.served
        await api.post(
            f"/api/services/{DOMAIN}/reconnect", {"config_entry_id": entry["entry_id"]}
        )
        await until(lambda: device.served not in (None, before))
        answer = await client.read_holding_registers(inverter.LIMIT_ENABLED)
        assert answer.registers == [1]

        clients = await api.post(
            f"/api/services/{DOMAIN}/get_clients?return_response",
            {"config_entry_id": entry["entry_id"]},
        )
        (counted,) = clients["service_response"]["clients"]
        assert counted["requests"] == 4
        assert counted["responses"] == 4

        # Ctrl-C, with a client connected
        demo.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            assert await demo.process.wait() == 0
        client.close()

    await until(lambda: device.served is None)
    assert not complaints(demo.folder / "home-assistant.log")
