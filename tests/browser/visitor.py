"""Somebody in front of a browser: what they do, and what they see.

The pages of Home Assistant are web components; Playwright's locators look into their
shadow trees. What is looked for are words and roles, as people and screen readers have
them, and names of components only where those are not enough.
"""

from io import BytesIO
from pathlib import Path
import re
from typing import Final

from PIL import Image, ImageStat
from playwright.async_api import (
    ConsoleMessage,
    FloatRect,
    Locator,
    Page,
    Response,
    expect,
)

ENTRY_PAGE: Final = "/config/integrations/integration/tcp_multiplexer"

_CUT_OFF: Final = (Path(__file__).parent / "cut_off.js").read_text()


class Visitor:
    """Uses pages of Home Assistant, logged in."""

    def __init__(self, page: Page, url: str) -> None:
        """Look at a page, and listen to what it complains about."""
        self.page = page
        self.complaints: list[str] = []
        self._url = url
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def _response(self, response: Response) -> None:
        if response.status >= 500:
            self.complaints.append(f"HTTP {response.status}: {response.url}")

    @property
    def dialog(self) -> Locator:
        """The dialog that is open."""
        return self.page.locator("ha-dialog").filter(
            has=self.page.locator("dialog[open]")
        )

    async def open(self, path: str) -> None:
        """Go to a page."""
        await self.page.goto(self._url + path)

    async def sees(self, words: str | re.Pattern[str]) -> None:
        """Wait until words can be read, in the dialog if there is one."""
        place = self.dialog if await self.dialog.count() else self.page
        await expect(
            place.get_by_text(words).filter(visible=True).first
        ).to_be_visible()

    async def presses(self, name: str | re.Pattern[str]) -> None:
        """Press a button, in the dialog if there is one."""
        place = self.dialog if await self.dialog.count() else self.page
        button = place.get_by_role("button", name=name, exact=isinstance(name, str))
        await button.filter(visible=True).first.click()

    def _field(self, label: str) -> Locator:
        """Find a field of the dialog, of text or a number."""
        name = re.compile(rf"^{re.escape(label)}\*?$")
        return (
            self.dialog.get_by_role("textbox", name=name)
            .or_(self.dialog.get_by_role("spinbutton", name=name))
            .first
        )

    async def types(self, label: str, text: str) -> None:
        """Fill in a field of the dialog."""
        await self._field(label).fill(text)

    async def reads(self, label: str) -> str:
        """Return what a field of the dialog says."""
        return await self._field(label).input_value()

    async def unfolds(self, section: str) -> Locator:
        """Open a section of the dialog; return what is in it."""
        panel = self.dialog.locator("ha-expansion-panel").filter(
            has=self.page.get_by_role("heading", name=section, exact=True)
        )
        await panel.get_by_role("button", name=section, exact=True).first.click()
        return panel

    def row(self, name: str) -> Locator:
        """Find the row of an entity on a device page."""
        return self.page.locator("hui-generic-entity-row").filter(
            has=self.page.get_by_text(name, exact=True)
        )

    async def place_of_dialog(self) -> FloatRect:
        """Return where the dialog is, with a margin."""
        # Another that was open on it may still be closing.
        await expect(self.dialog.locator("dialog")).to_have_count(1)
        box = await self.dialog.locator("dialog").bounding_box()
        assert box
        margin = 8
        return {
            "x": box["x"] - margin,
            "y": box["y"] - margin,
            "width": box["width"] + 2 * margin,
            "height": box["height"] + 2 * margin,
        }

    async def content(self) -> FloatRect:
        """Return where the page is: what is beside the sidebar, and below the bar."""
        place = await self.page.locator(
            "ha-panel-lovelace, ha-panel-config"
        ).bounding_box()
        assert place
        bar = 56
        return {**place, "y": place["y"] + bar, "height": place["height"] - bar}

    async def has_no_dialog(self) -> None:
        """Wait until no dialog is open any more."""
        await expect(self.dialog).to_have_count(0)

    async def is_dark(self) -> bool:
        """Tell whether most of what is seen is dark."""
        seen = Image.open(BytesIO(await self.page.screenshot())).convert("L")
        return float(ImageStat.Stat(seen).median[0]) < 128

    async def cut_off(self) -> list[str]:
        """Return the words that cannot be read whole: cut, or beyond the edge.

        Of a dialog, if one is open, else of the page.
        """
        found: list[str] = await self.page.evaluate(_CUT_OFF)
        return found
