"""What an owner does with it, in a real browser, with real devices and clients."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
import re
import socket
from typing import Final

from playwright.async_api import expect
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
import pytest
import pytest_asyncio

from script.demo import inverter
from script.demo.run import ENTRY_ID
from tests.demo import DOMAIN, ENTRIES, SET_UP_SECONDS, Api, Demo, add_entry
from tests.integration.ports import free_port
from tests.waiting import until

from .conftest import PATIENCE, Visit
from .pictures import Pictures
from .statistics import import_day
from .visitor import ENTRY_PAGE, Visitor

FOUND: Final = "Sunny Side Up SSU 8000"
TITLE: Final = "Heat pump"

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(SET_UP_SECONDS + 120),
]


@pytest_asyncio.fixture(loop_scope="session")
async def device() -> AsyncGenerator[int]:
    """Return the port of another device than the demo's."""
    server = await inverter.start("127.0.0.1", free_port())
    yield inverter.port_of(server)
    await server.shutdown()


@pytest_asyncio.fixture(loop_scope="session")
async def port(api: Api, device: int) -> AsyncGenerator[int]:
    """Share that device; return the local port."""
    port = free_port()
    entry = await add_entry(
        api,
        host="127.0.0.1",
        port=device,
        listen_port=port,
        name=TITLE,
        allowed_networks=["127.0.0.0/30"],
    )
    yield port
    await api.delete(f"{ENTRIES}/{entry['entry_id']}")


async def entries(api: Api, title: str) -> list[str]:
    """Return the IDs of the entries of this title."""
    return [
        entry["entry_id"]
        for entry in await api.get(f"{ENTRIES}?domain={DOMAIN}")
        if entry["title"] == title
    ]


@asynccontextmanager
async def client(port: int, address: str) -> AsyncGenerator[AsyncModbusTcpClient]:
    """Give a client at an address of this machine, connected if that is allowed."""
    client = AsyncModbusTcpClient(
        "127.0.0.1",
        port=port,
        source_address=(address, 0),
        reconnect_delay=0,
        timeout=PATIENCE / 1000,
    )
    await client.connect()
    try:
        yield client
    finally:
        client.close()


async def is_served(port: int, address: str) -> bool:
    """Wait until a client reads the power of the device: a page is faster than that."""
    async with asyncio.timeout(PATIENCE / 1000):
        while True:
            async with client(port, address) as asking:
                with suppress(ModbusException):
                    answer = await asking.read_holding_registers(inverter.POWER)
                    if not answer.isError():
                        return answer.registers[0] > 0
            await asyncio.sleep(0.05)


async def is_turned_away(port: int, address: str) -> bool:
    """Tell whether a client is connected to, and closed at once."""
    async with client(port, address) as asking:
        await until(lambda: not asking.connected)
        return True


async def chooses(visitor: Visitor, title: str, item: str) -> None:
    """Choose an item of the menu of an entry."""
    row = visitor.page.locator("ha-config-entry-row").filter(has_text=title)
    await row.get_by_role("button", name="Menu").first.click()
    await visitor.page.get_by_role("menuitem", name=item).filter(visible=True).click()


async def configures(visitor: Visitor, title: str) -> None:
    """Open the options of an entry."""
    row = visitor.page.locator("ha-config-entry-row").filter(has_text=title)
    await row.get_by_role("button", name="Configure").first.click()


async def adds(visitor: Visitor, what: str, title: str) -> None:
    """Open the dialog for something that belongs to an entry."""
    await visitor.presses(f"Add {what}")
    await expect(visitor.dialog).to_have_count(1)
    await visitor.presses(title)


async def test_a_device_is_added_with_one_typed_value(
    visit: Visit, api: Api, device: int, pictures: Pictures
) -> None:
    async with visit() as visitor:
        await visitor.open(ENTRY_PAGE)
        await visitor.presses("Add service")
        await visitor.types("Host", "192.168.1.20")
        await visitor.sees("All settings are tested before they are saved.")
        await pictures.take(visitor, "add", clip=await visitor.place_of_dialog())
        await visitor.types("Host", f"127.0.0.1:{device}")
        port = int(await visitor.reads("Local port"))
        await visitor.presses("Submit")
        await visitor.sees(f"Found {FOUND}")
        await visitor.presses("Submit")
        await visitor.sees("The connection works. The device answered:")
        await visitor.sees(f"{FOUND}, 1.4.2")
        await visitor.sees(f"127.0.0.1:{port}")
        assert not await visitor.cut_off()
        await pictures.take(visitor, "added", clip=await visitor.place_of_dialog())
        await visitor.presses("Skip and finish")
        await visitor.has_no_dialog()
        await visitor.sees(FOUND)
        assert await is_served(port, "127.0.0.7")
    (added,) = await entries(api, FOUND)
    await api.delete(f"{ENTRIES}/{added}")


async def test_options_hold(visit: Visit, port: int, pictures: Pictures) -> None:
    async with visit() as visitor:
        await visitor.open(ENTRY_PAGE)
        await configures(visitor, TITLE)
        await visitor.sees("Changes take effect immediately.")
        await pictures.take(visitor, "options", clip=await visitor.place_of_dialog())
        await visitor.unfolds("Access")
        await visitor.types("Maximum clients", "0")
        await visitor.presses("Submit")
        await visitor.sees("0 is not possible. Enter a number from 1 to")
        await visitor.types("Maximum clients", "1")
        await visitor.presses("Submit")
        await visitor.sees("Options successfully saved.")
        async with client(port, "127.0.0.2"):
            assert await is_turned_away(port, "127.0.0.3")
        await visitor.presses("Finish")
        await visitor.has_no_dialog()
        await configures(visitor, TITLE)
        await visitor.unfolds("Access")
        assert await visitor.reads("Maximum clients") == "1"


async def test_reconfigured_to_another_port(visit: Visit, port: int) -> None:
    other = free_port()
    async with visit() as visitor:
        await visitor.open(ENTRY_PAGE)
        await chooses(visitor, TITLE, "Reconfigure")
        assert await visitor.reads("Local port") == str(port)
        await visitor.types("Local port", str(other))
        await visitor.presses("Submit")
        await visitor.sees("Reconfiguration was successful")
        assert await is_served(other, "127.0.0.2")


async def test_a_client_gets_a_name(
    visit: Visit, port: int, pictures: Pictures
) -> None:
    async with client(port, "127.0.0.2"), visit() as visitor:
        await visitor.open(ENTRY_PAGE)
        await adds(visitor, "client", TITLE)
        await visitor.types("Name", "wallbox")
        await visitor.presses("Add")
        await (
            visitor.page.get_by_role("option")
            .filter(has_text="127.0.0.2", visible=True)
            .first.click()
        )
        clip, shown = await visitor.place_of_dialog(), {"127.0.0.2": "192.168.1.30"}
        await pictures.take(visitor, "client", clip=clip, shown=shown)
        await visitor.presses("Submit")
        await visitor.sees("Created configuration for wallbox.")
        await visitor.presses("Finish")
        await visitor.has_no_dialog()
        assert await is_served(port, "127.0.0.2")
        await visitor.page.get_by_role("button", name=re.compile("wallbox")).click()
        await visitor.sees("Asking")


async def test_a_further_port_is_added(visit: Visit, port: int) -> None:
    other = free_port()
    async with visit() as visitor:
        await visitor.open(ENTRY_PAGE)
        await adds(visitor, "additional local port", TITLE)
        await visitor.types("Local port", str(port))
        await visitor.presses("Submit")
        await visitor.sees(
            "This entry already uses this local port. The next free one is"
        )
        await visitor.types("Local port", str(other))
        await visitor.presses("Submit")
        await visitor.sees("Created configuration for")
        await visitor.presses("Finish")
        await visitor.has_no_dialog()
        await visitor.sees(re.compile(rf"\b{other}\b"))
        assert await is_served(other, "127.0.0.2")


async def test_pause_on_the_device_page(
    visit: Visit, api: Api, pictures: Pictures
) -> None:
    devices = await api.command("config/device_registry/list")
    (device,) = [
        each["id"] for each in devices if [DOMAIN, ENTRY_ID] in each["identifiers"]
    ]
    async with visit() as visitor:
        await visitor.open(f"/config/devices/device/{device}")
        health = visitor.row("Health")
        await expect(health).to_contain_text("Healthy")
        await expect(visitor.row("Clients")).to_contain_text("3")
        await visitor.sees("Connected devices")
        await pictures.take(visitor, "device", clip=await visitor.content())
        await visitor.page.locator("ha-entity-toggle").click()
        await expect(health).to_contain_text("Paused")
        await visitor.page.locator("ha-entity-toggle").click()
        await expect(health).to_contain_text("Healthy")


async def test_a_refused_client_is_served_after_three_clicks(
    visit: Visit, port: int, pictures: Pictures
) -> None:
    for _ in range(3):
        assert await is_turned_away(port, "127.0.0.5")
    async with visit() as visitor:
        await visitor.open("/")
        badge = visitor.page.locator("ha-sidebar").get_by_text("1", exact=True)
        await expect(badge.filter(visible=True).first).to_be_visible()
        await visitor.page.get_by_role("link", name="Settings").click()  # 1
        await visitor.page.get_by_text(f"{TITLE} turns clients away").click()  # 2
        await visitor.sees("127.0.0.5")
        shown = {
            "Home Assistant (127.0.0.5)": "192.168.1.5",
            "127.0.0.5": "192.168.1.5",
        }
        clip = await visitor.place_of_dialog()
        await pictures.take(visitor, "refused", clip=clip, shown=shown)
        assert not await visitor.cut_off()
        await visitor.dialog.get_by_text(re.compile(r"^Let \S+ in$")).click()  # 3
        await visitor.sees("The issue is repaired!")
        assert await is_served(port, "127.0.0.5")
        await visitor.presses("Close")
        await expect(visitor.page.get_by_text("turns clients away")).to_have_count(0)


async def test_a_port_that_is_taken_is_changed_by_the_repair(
    visit: Visit, api: Api, port: int, pictures: Pictures
) -> None:
    (entry,) = await entries(api, TITLE)
    change = {"entry_id": entry}
    await api.command("config_entries/disable", **change, disabled_by="user")
    with socket.create_server(("", port)):
        await api.command("config_entries/disable", **change, disabled_by=None)
        async with visit() as visitor:
            await visitor.open("/config/repairs")
            await visitor.page.get_by_text(f"{TITLE}: port {port} is in use").click()
            await visitor.sees(f"Another program on this computer uses port {port}")
            shown = {str(port): "5099"}
            clip = await visitor.place_of_dialog()
            await pictures.take(visitor, "repair", clip=clip, shown=shown)
            await visitor.presses("Submit")
            await visitor.sees("Change device and port")
            other = int(await visitor.reads("Local port"))
            assert other != port
            await visitor.presses("Submit")
            await visitor.sees("Reconfiguration was successful")
            assert await is_served(other, "127.0.0.2")


async def test_the_dashboard(
    visit: Visit, demo: Demo, api: Api, pictures: Pictures
) -> None:
    await import_day(api)
    # Those of the demo may have come before there was a logbook.
    port = int(demo.said["Your clients"].split()[0].rpartition(":")[2])
    for address in ("127.0.0.2", "127.0.0.3"):
        assert await is_served(port, address)
    async with visit(width=1440, height=760) as visitor:
        await visitor.open("/demo-multiplexer")
        logbook = visitor.page.locator("hui-logbook-card")
        await expect(logbook).to_contain_text(
            "evcc (127.0.0.2) connected", ignore_case=True
        )
        await expect(logbook).to_contain_text(
            "openWB (127.0.0.3) connected", ignore_case=True
        )
        for words in ("Healthy", "evcc", "openWB", "Asking", "Reads saved"):
            await visitor.sees(words)
        await expect(visitor.page.locator("ha-chart-base canvas")).to_have_count(3)
        assert not await visitor.cut_off()
        await pictures.take(visitor, "dashboard", clip=await visitor.content())
        await visitor.open("/demo-inverter")
        await visitor.sees("Limit to 50 %")
        energy = re.compile(r"^Energy [\d,.]+ kWh")
        await expect(visitor.page.get_by_role("button", name=energy)).to_be_visible()
