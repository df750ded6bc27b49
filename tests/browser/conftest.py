"""A demo that runs for all of these tests, and visitors who come with a browser."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
import json
import os
from pathlib import Path
import re
from tempfile import TemporaryDirectory
from typing import Final

from playwright.async_api import (
    Browser,
    BrowserContext,
    StorageState,
    async_playwright,
    expect,
)
import pytest
import pytest_asyncio

from script.demo.run import PASSWORD, USER
from tests.demo import ROOT, Api, Demo, logged_in, running_demo

from .pictures import Pictures
from .visitor import Visitor

CHROMIUM: Final = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
)
PATIENCE: Final = 120_000
"""Milliseconds after which something does not come any more, on a busy machine."""
FAILED: Final = ROOT / "build" / "browser"
"""Where a picture of what was on the screen is left if a test fails."""

MADE_UP: Final = {"ipv4": "192.168.1.10", "ipv6": "fd00::10"}
"""The address of the machine in pictures, whichever it has."""

# Nobody misses these: Home Assistant's own, and known there. A ResizeObserver that has
# more to do in the next frame is what a slow machine has.
_NOT_OURS: Final = re.compile(
    r"brands\.home-assistant\.io|net::ERR_|ResizeObserver loop"
)

type Visit = Callable[..., AbstractAsyncContextManager[Visitor]]

expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo() -> AsyncGenerator[Demo]:
    """Return the demo, running."""
    with TemporaryDirectory() as folder:
        async with running_demo(Path(folder)) as demo:
            yield demo


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(demo: Demo) -> AsyncGenerator[Api]:
    """Return the interface of the demo's Home Assistant."""
    async with logged_in(demo) as api:
        yield api


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(pytestconfig: pytest.Config) -> AsyncGenerator[Browser]:
    """Return the browser."""
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(
            executable_path=pytestconfig.getoption("--chromium"),
            args=CHROMIUM,
            timeout=PATIENCE,
        ) as browser,
    ):
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def login(browser: Browser, demo: Demo) -> StorageState:
    """Return what a browser remembers of somebody who has logged in."""
    context = await browser.new_context()
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    await page.goto(demo.said["Home Assistant"])
    await page.get_by_role("textbox", name="Username").fill(USER)
    await page.get_by_role("textbox", name="Password").fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("What to do")).to_be_visible()
    state = await context.storage_state()
    await context.close()
    return state


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pictures(pytestconfig: pytest.Config, demo: Demo, api: Api) -> Pictures:
    """Return who takes the pictures, if that is asked for."""
    folder = ROOT / "docs/images" if pytestconfig.getoption("--pictures") else None
    adapters = (await api.command("network"))["adapters"]
    listen = demo.said["Your clients"].split()[0]
    return Pictures(
        folder,
        {listen: "127.0.0.1:5020"}
        | {
            own["address"]: made_up
            for adapter in adapters
            for family, made_up in MADE_UP.items()
            for own in adapter[family]
            if adapter["name"] != "lo"
        },
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def visit(browser: Browser, demo: Demo, login: StorageState) -> Visit:
    """Return how somebody visits the demo: language, width in pixels, dark or not."""
    contexts: dict[bool, BrowserContext] = {}

    async def context(*, dark: bool) -> BrowserContext:
        """Give a browser that somebody has used before: that saves much time."""
        if dark not in contexts:
            context = await browser.new_context(
                color_scheme="dark" if dark else "light",
                reduced_motion="reduce",
                storage_state=login,
                locale="en",
                timezone_id="Europe/Berlin",
            )
            context.set_default_timeout(PATIENCE)
            contexts[dark] = context
        return contexts[dark]

    @asynccontextmanager
    async def visiting(
        *,
        language: str = "en",
        width: int = 1000,
        height: int = 800,
        dark: bool = False,
    ) -> AsyncGenerator[Visitor]:
        page = await (await context(dark=dark)).new_page()
        chosen = json.dumps(json.dumps(language))
        await page.add_init_script(
            f"localStorage.setItem('selectedLanguage', {chosen})"
        )
        await page.set_viewport_size({"width": width, "height": height})
        visitor = Visitor(page, demo.said["Home Assistant"])
        try:
            yield visitor
        except BaseException:
            FAILED.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "_", os.environ["PYTEST_CURRENT_TEST"])
            await page.screenshot(path=FAILED / f"{name}.png")
            raise
        finally:
            await page.close()
        ours = [line for line in visitor.complaints if not _NOT_OURS.search(line)]
        assert not ours

    return visiting
