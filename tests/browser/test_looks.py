"""Dialogs in every language, on a telephone and in the dark: they can be read."""

from collections.abc import Iterator
import json
from pathlib import Path
import re
from typing import Any, Final

from playwright.async_api import expect
import pytest

from script.demo.run import TITLE
from tests.demo import DOMAIN, ROOT, SET_UP_SECONDS

from .conftest import Visit
from .visitor import ENTRY_PAGE, Visitor

TRANSLATIONS: Final = ROOT / "custom_components" / DOMAIN / "translations"
LANGUAGES: Final = sorted(path.stem for path in TRANSLATIONS.glob("*.json"))
TELEPHONE: Final = 390
"""Pixels that most telephones are wide, or more."""
LOOKS: Final = [
    ("en", 1000, True),
    ("de", 1000, False),
    *((language, TELEPHONE, language > "en") for language in LANGUAGES),
]

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(SET_UP_SECONDS + 120),
]


def load(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def texts(words: Any) -> Iterator[str]:
    """Give all words in a file of translations."""
    if isinstance(words, str):
        yield words
    else:
        for more in words.values():
            yield from texts(more)


async def shows(visitor: Visitor, step: dict[str, Any]) -> None:
    """See a page of a dialog, with all of its sections open, and all of it whole."""
    await visitor.sees(step["title"])
    for section in step.get("sections", {}).values():
        panel = await visitor.unfolds(section["name"])
        label = next(iter(section["data"].values()))
        await expect(panel.get_by_text(label).first).to_be_visible()
    said = re.sub(r"/url: .*", "", await visitor.dialog.aria_snapshot())
    assert not re.findall(r"\b[a-z]+_[a-z_]+\b", said)  # a name without its words
    assert not await visitor.cut_off()
    await visitor.page.keyboard.press("Escape")
    await visitor.has_no_dialog()


@pytest.mark.parametrize(("language", "width", "dark"), LOOKS)
async def test_dialogs_can_be_read_whole(
    visit: Visit, language: str, width: int, *, dark: bool
) -> None:
    words = load(TRANSLATIONS / f"{language}.json")
    parts = words["config_subentries"]
    async with visit(language=language, width=width, dark=dark) as visitor:
        await visitor.open(ENTRY_PAGE)
        for part in parts.values():
            await visitor.sees(part["initiate_flow"]["user"])
        assert await visitor.is_dark() == dark
        assert set(await visitor.cut_off()).isdisjoint(texts(words))
        await visitor.page.locator("ha-button[appearance=accent]").first.click()
        await shows(visitor, words["config"]["step"]["user"])
        row = visitor.page.locator("ha-config-entry-row").filter(has_text=TITLE)
        await row.locator("ha-icon-button").nth(1).click()
        await shows(visitor, words["options"]["step"]["preferences"])
        for part in parts.values():
            await visitor.presses(part["initiate_flow"]["user"])
            await shows(visitor, part["step"]["user"])
