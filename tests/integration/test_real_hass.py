"""A real Home Assistant, started, used and stopped as people do it.

`script/develop` runs it in an environment of its own, which it makes if need be;
nothing of this process is in it. It is the newest, unless pytest is given
`--homeassistant`.
"""

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from pathlib import Path
import re
import signal
from typing import Any, Final
from zipfile import ZipFile

from pymodbus.client import AsyncModbusTcpClient
import pytest

from script.demo import inverter
from script.release import build_zip
from tests.demo import (
    DOMAIN,
    ENTRIES,
    FLOWS,
    ROOT,
    SET_UP_SECONDS,
    STOP_SECONDS,
    SUBENTRY_FLOWS,
    Api,
    Demo,
    add_entry,
    fill_in,
    logged_in,
    running_demo,
)
from tests.engine.pty_line import PtyLine, device_on, pty_line
from tests.waiting import until

from .ports import free_port

BAUDRATE = 115_200
"""Of a line on which an integration asks for much."""

FIXES = "/api/repairs/issues/fix"

pytestmark = pytest.mark.timeout(SET_UP_SECONDS + 120)


@pytest.fixture
def release(pytestconfig: pytest.Config) -> str:
    """Return what `script/homeassistant` calls the Home Assistant to start."""
    return str(pytestconfig.getoption("homeassistant"))


@pytest.fixture
async def environment(release: str) -> Path:
    """Return the virtual environment of that Home Assistant, made if need be."""
    process = await asyncio.create_subprocess_exec(
        ROOT / "script" / "homeassistant", release, stdout=PIPE
    )
    path, _ = await process.communicate()
    assert process.returncode == 0
    return Path(path.decode().strip())


@pytest.fixture
def has_solaredge_modbus(environment: Path) -> bool:
    """Tell whether Home Assistant has an integration for such inverters (2026.10)."""
    components = "lib/python3*/site-packages/homeassistant/components"
    return any(environment.glob(f"{components}/solaredge_modbus"))


@pytest.fixture
async def demo(release: str, tmp_path: Path) -> AsyncGenerator[Demo]:
    """Return the demo, running.

    The integration is what a release has for HACS, unpacked as that does it.
    """
    build_zip("v1.0.0", tmp_path / "release.zip")
    with ZipFile(tmp_path / "release.zip") as archive:
        archive.extractall(tmp_path / "custom_components" / DOMAIN)
    async with running_demo(tmp_path, "--homeassistant", release) as demo:
        yield demo


@pytest.fixture
async def devices() -> AsyncGenerator[list[inverter.OneConnectionServer]]:
    """Return two other inverters than the demo's."""
    servers = [await inverter.start("127.0.0.1", free_port()) for _ in range(2)]
    yield servers
    for server in servers:
        await server.shutdown()


@pytest.fixture
async def line(tmp_path: Path) -> AsyncGenerator[PtyLine]:
    """Return a serial line with a device on it."""
    async with pty_line(tmp_path) as line, device_on(line):
        yield line


@pytest.fixture
async def line_of_inverter(tmp_path: Path) -> AsyncGenerator[PtyLine]:
    """Return a serial line with an inverter on it."""
    (folder := tmp_path / "inverter").mkdir()
    async with (
        pty_line(folder, BAUDRATE) as line,
        device_on(line, inverter.make("0043")),
    ):
        yield line


@pytest.fixture
async def api(demo: Demo) -> AsyncGenerator[Api]:
    """Return the interface of the demo's Home Assistant."""
    async with logged_in(demo) as api:
        yield api


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
        and DOMAIN in record.replace(str(ROOT), "")
    ]


async def our_issues(api: Api) -> list[dict[str, Any]]:
    """Give what stands on the repairs page of ours."""
    issues = (await api.command("repairs/list_issues"))["issues"]
    return [issue for issue in issues if issue["domain"] == DOMAIN]


async def stop(demo: Demo) -> None:
    """Press Ctrl-C, and read the log."""
    log = demo.folder / "home-assistant.log"
    demo.process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            assert await demo.process.wait() == 0
    except TimeoutError:
        pytest.fail(f"it runs after {STOP_SECONDS} s: {log.read_text()[-4000:]}")
    assert not complaints(log)


async def read_power(client: AsyncModbusTcpClient) -> int:
    """Give the power of the inverter in watts."""
    answer = await client.read_holding_registers(inverter.POWER)
    assert not answer.isError()
    assert 0 < answer.registers[0] <= inverter.RATED_WATTS
    return answer.registers[0]


IMPORTS: Final = """
import importlib
import pkgutil
from custom_components import tcp_multiplexer

for module in pkgutil.walk_packages(
    tcp_multiplexer.__path__, f"{tcp_multiplexer.__name__}."
):
    # What is left out runs when it is imported, or needs an extra of the command line.
    if not module.name.endswith((".__main__", ".command_line.metrics")):
        importlib.import_module(module.name)
    print(module.name)
"""


async def test_every_module_can_be_imported(environment: Path) -> None:
    """Also those that Home Assistant imports only when somebody asks for them."""
    process = await asyncio.create_subprocess_exec(
        *(environment / "bin" / "python", "-c", IMPORTS), cwd=ROOT, stdout=PIPE
    )
    imported, _ = await process.communicate()
    assert process.returncode == 0
    files = (ROOT / "custom_components" / DOMAIN).rglob("*.py")
    assert len(imported.split()) == len(list(files)) - 1  # `tcp_multiplexer` itself


def client_of(port: int) -> AsyncModbusTcpClient:
    """Make a client of a multiplexer; it is not connected yet."""
    return AsyncModbusTcpClient("127.0.0.1", port=port, reconnect_delay=0)


async def add_subentry(api: Api, entry: dict[str, Any], kind: str, **typed: Any) -> str:
    """Add a named client, or a further local port; returns its ID."""
    entry_id = entry["entry_id"]
    listed = {"entry_id": entry_id}
    before = await api.command("config_entries/subentries/list", **listed)
    step = await api.post(SUBENTRY_FLOWS, {"handler": [entry_id, kind]})
    step = await fill_in(api, step, typed, SUBENTRY_FLOWS)
    assert step["type"] == "create_entry", step
    after = await api.command("config_entries/subentries/list", **listed)
    (added,) = [each for each in after if each not in before]
    return str(added["subentry_id"])


async def name_client(
    api: Api, entry: dict[str, Any], client: AsyncModbusTcpClient
) -> None:
    """Give a connected client a name, and a port of its own, and take both away."""
    heater = await add_subentry(
        api, entry, "client", name="heater", addresses=["127.0.0.1"]
    )
    await api.becomes("binary_sensor.heater_asking", "on")
    port = free_port()
    further = await add_subentry(api, entry, "local_port", listen_port=port)
    other = client_of(port)
    await other.connect()
    await read_power(other)
    other.close()
    for subentry_id in (heater, further):
        await api.command(
            "config_entries/subentries/delete",
            entry_id=entry["entry_id"],
            subentry_id=subentry_id,
        )
    await read_power(client)
    entities = await api.command("config/entity_registry/list")
    assert not any("heater" in entity["entity_id"] for entity in entities)


async def share(api: Api, device: inverter.OneConnectionServer) -> AsyncModbusTcpClient:
    """Share an inverter and look at what its owner can; returns a connected client."""
    port = free_port()
    entry = await add_entry(
        api, host="127.0.0.1", port=inverter.port_of(device), listen_port=port
    )
    client = client_of(port)
    await client.connect()
    await read_power(client)
    answer = await client.write_register(inverter.LIMIT_ENABLED, 1)
    assert not answer.isError()
    assert await read_power(client) <= inverter.RATED_WATTS / 2

    before = device.served
    of_entry = {"config_entry_id": entry["entry_id"]}
    await api.post(f"/api/services/{DOMAIN}/reconnect", of_entry)
    await until(lambda: device.served not in (None, before))
    await read_power(client)

    answer = await api.post(
        f"/api/services/{DOMAIN}/get_clients?return_response", of_entry
    )
    (counted,) = answer["service_response"]["clients"]
    assert counted["requests"] == 4
    assert counted["responses"] == 4
    await name_client(api, entry, client)
    return client


async def share_beside_core_integration(
    api: Api, device: inverter.OneConnectionServer
) -> AsyncModbusTcpClient:
    """Share an inverter with one slot that a core integration already uses.

    Once on Home Assistant's own connection, once as the repair has it; returns a
    connected client.
    """
    where = {"host": "127.0.0.1", "port": inverter.port_of(device)}
    step = await api.post(FLOWS, {"handler": "solaredge_modbus"})
    step = await api.post(f"{FLOWS}/{step['flow_id']}", {"next_step_id": "tcp"})
    step = await fill_in(api, step, where)
    assert step["result"]["state"] == "loaded"

    port = free_port()
    client = client_of(port)
    entry = await add_entry(
        api, **where, listen_port=port, upstream="home_assistant", name="Roof"
    )
    await client.connect()
    await read_power(client)
    assert float(await api.state("sensor.solaredge_ssu_8000_power")) > 0
    client.close()
    await api.delete(f"{ENTRIES}/{entry['entry_id']}")

    await add_entry(api, **where, listen_port=port, name="Roof")
    issues = await our_issues(api)
    assert len(issues) == 1, issues
    about = {"handler": DOMAIN, "issue_id": issues[0]["issue_id"]}
    step = await api.post(FIXES, about)
    step = await api.post(f"{FIXES}/{step['flow_id']}", {"next_step_id": "confirm"})
    step = await api.post(f"{FIXES}/{step['flow_id']}", {})
    # It goes on when the device answers: to the next health check, or to a client.
    await client.connect()
    while step["type"] == "progress":
        await client.read_holding_registers(inverter.POWER)
        step = await api.post(f"{FIXES}/{step['flow_id']}", {})
    step = await api.get(f"{FLOWS}/{step['next_flow'][1]}")
    advice = issues[0]["translation_placeholders"]
    there = {"host": advice["local_host"], "port": int(advice["local_port"])}
    step = await fill_in(api, step, there)
    assert step["reason"] == "reconfigure_successful"

    await api.loaded("solaredge_modbus")
    await read_power(client)
    assert float(await api.state("sensor.solaredge_ssu_8000_power")) > 0
    await api.becomes("sensor.roof_clients", "2")
    assert not await our_issues(api)
    return client


async def share_serial_port(api: Api, line: PtyLine) -> AsyncModbusTcpClient:
    """Share a device on a serial port; returns a connected client."""
    port = free_port()
    device = str(line.path)
    await add_entry(api, upstream="serial", device=device, listen_port=port)
    client = client_of(port)
    await client.connect()
    assert (await client.read_holding_registers(16, count=2)).registers == [16, 17]
    assert not (await client.write_register(16, 5)).isError()
    return client


async def share_serial_port_of_core_integration(
    api: Api, line: PtyLine
) -> AsyncModbusTcpClient:
    """Share a serial port that a core integration holds; returns a connected client."""
    where = {"device": str(line.path), "baudrate": BAUDRATE}
    step = await api.post(FLOWS, {"handler": "solaredge_modbus"})
    step = await api.post(f"{FLOWS}/{step['flow_id']}", {"next_step_id": "serial"})
    step = await fill_in(api, step, where)
    assert step["result"]["state"] == "loaded"

    port = free_port()
    shared = {"upstream": "home_assistant_serial", "name": "Line"}
    await add_entry(api, **where, **shared, listen_port=port)
    client = client_of(port)
    await client.connect()
    for _ in range(3):
        await read_power(client)
    assert float(await api.state("sensor.solaredge_ssu_8000_power_2")) > 0
    return client


async def test_life_of_a_real_home_assistant(
    demo: Demo,
    api: Api,
    devices: list[inverter.OneConnectionServer],
    line: PtyLine,
    line_of_inverter: PtyLine,
    *,
    has_solaredge_modbus: bool,
) -> None:
    """All in one: a start takes longer than all that is looked at."""
    assert re.match(r"[1-9]\d* W ", demo.said["Power now"])
    clients = [await share(api, devices[0]), await share_serial_port(api, line)]
    if has_solaredge_modbus:
        clients.append(await share_beside_core_integration(api, devices[1]))
        clients.append(
            await share_serial_port_of_core_integration(api, line_of_inverter)
        )
    await stop(demo)  # with clients connected
    for client in clients:
        client.close()
    await until(lambda: all(device.served is None for device in devices))
