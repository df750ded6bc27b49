"""The pictures of the manual, taken while the tests use what they show.

A picture is written only if it shows something else than the one that is there: what
moves by itself (a time, a measured value) is not worth a change.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops
from playwright.async_api import FloatRect

from .visitor import Visitor

COLOURS: Final = 128
_NOTICED: Final = 24
"""By how much a pixel differs that people notice, of 255."""
_MOVES: Final = 0.001
"""The part of a picture that may move by itself."""

_REPLACE: Final = """
(shown) => {
  const walk = (root) => {
    for (const node of root.childNodes) {
      if (node.nodeType === Node.TEXT_NODE)
        for (const [real, made_up] of Object.entries(shown))
          if (node.data.includes(real)) node.data = node.data.replace(real, made_up);
      if (node.shadowRoot) walk(node.shadowRoot);
      walk(node);
    }
  };
  walk(document.body);
}
"""


class Pictures:
    """Takes pictures, or does nothing."""

    def __init__(self, folder: Path | None, addresses: Mapping[str, str]) -> None:
        """Put them into a folder; show other addresses than those of this machine."""
        self._folder = folder
        self._addresses = dict(addresses)

    async def take(
        self,
        visitor: Visitor,
        name: str,
        *,
        clip: FloatRect,
        shown: Mapping[str, str] | None = None,
    ) -> None:
        """Take one of a part of what is seen, with some words replaced."""
        if self._folder is None:
            return
        page = visitor.page
        await page.evaluate(_REPLACE, {**self._addresses, **(shown or {})})
        await page.mouse.move(0, 0)
        taken = await page.screenshot(clip=clip, animations="disabled", caret="hide")
        picture = (
            Image.open(BytesIO(taken))
            .convert("RGB")
            .quantize(COLOURS, dither=Image.Dither.NONE)
        )
        path = self._folder / f"{name}.png"
        if not (path.exists() and _alike(picture, path)):
            picture.save(path, optimize=True)


def _alike(picture: Image.Image, path: Path) -> bool:
    """Return whether two pictures differ by no more than moves by itself."""
    with Image.open(path) as other:
        if picture.size != other.size:
            return False
        difference = ImageChops.difference(picture.convert("L"), other.convert("L"))
    noticed = sum(difference.histogram()[_NOTICED:])
    return noticed < _MOVES * picture.width * picture.height
