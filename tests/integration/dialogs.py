"""Somebody who fills in dialogs, and can read them in each language.

Every page is checked as it comes: all that it shows has words in each language, and
whatever stands in braces there is given.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, cast

from homeassistant.config_entries import SOURCE_USER, ConfigFlowContext
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.data_entry_flow import (
    EVENT_DATA_ENTRY_FLOW_PROGRESSED,
    FlowResultType,
    section,
)

from custom_components.tcp_multiplexer.const import DOMAIN

from .words import assert_words

type Page = dict[str, Any]
"""What the flow manager gives: a form, a menu, or the end."""


class Dialog:
    """A config flow, an options flow, or that of a subentry, as a person sees it."""

    def __init__(
        self,
        hass: HomeAssistant,
        *,
        options_of: str | None = None,
        subentry_of: tuple[str, str] | None = None,
    ) -> None:
        """Stand before the first page.

        `options_of` is an entry's id, `subentry_of` that with the type of the subentry.
        """
        self._flows: Any = hass.config_entries.flow
        self._handler: Any = DOMAIN
        self._kind: tuple[str, ...] = ("config",)
        if options_of:
            self._flows = hass.config_entries.options
            self._handler = options_of
            self._kind = ("options",)
        elif subentry_of:
            self._flows = hass.config_entries.subentries
            self._handler = subentry_of
            self._kind = ("config_subentries", subentry_of[1])
        self.page: Page = {}
        self.progress: list[str] = []
        """What was shown while something took its time."""
        self._changed = asyncio.Event()
        hass.bus.async_listen(EVENT_DATA_ENTRY_FLOW_PROGRESSED, self._note_change)

    @callback
    def _note_change(self, event: Event[Any]) -> None:
        if event.data["flow_id"] == self.page.get("flow_id"):
            self._changed.set()

    async def start(self, **context: Any) -> Page:
        """Open the first page."""
        return await self._follow(
            await self._flows.async_init(
                self._handler,
                context=cast(ConfigFlowContext, {"source": SOURCE_USER} | context),
            )
        )

    async def send(self, **typed: Any) -> Page:
        """Send the form: what it suggests, with `typed` instead here and there.

        What stands in a section is given by the name of its field, like all else.
        """
        return await self._follow(
            await self._flows.async_configure(
                self.page["flow_id"], _fill(self.page["data_schema"], typed)
            )
        )

    async def choose(self, option: str) -> Page:
        """Choose from the menu."""
        assert option in self.page["menu_options"]
        return await self._follow(
            await self._flows.async_configure(
                self.page["flow_id"], {"next_step_id": option}
            )
        )

    async def look_again(self) -> Page:
        """Reload the page, as a browser does."""
        return self._read(await self._flows.async_configure(self.page["flow_id"]))

    def abandon(self) -> None:
        """Close the dialog halfway."""
        self._flows.async_abort(self.page["flow_id"])

    @property
    def values(self) -> dict[str, Any]:
        """What stands in the form, sections or not."""
        return _fill_flat(self.page["data_schema"])

    @property
    def opened(self) -> list[str]:
        """The sections that stand open."""
        return [
            str(key)
            for key, value in self.page["data_schema"].schema.items()
            if isinstance(value, section) and not value.options["collapsed"]
        ]

    async def _follow(self, result: Any) -> Page:
        """Read the page, and those that come by themselves.

        A page is asked for once Home Assistant has told of it, as browsers do. Sooner,
        the step could be taken twice.
        """
        while self._read(result)["type"] is FlowResultType.SHOW_PROGRESS:
            self.progress.append(self.page["progress_action"])
            async with asyncio.timeout(30):
                await self._changed.wait()
            self._changed.clear()
            result = await self._flows.async_configure(self.page["flow_id"])
        return self.page

    def _read(self, result: Any) -> Page:
        page: Page = result
        self.page = page
        given = page.get("description_placeholders") or ()
        for path in _shown(page):
            assert_words((*self._kind, *path), given)
        return page


def _shown(page: Page) -> Iterator[tuple[str, ...]]:
    """Give the paths of all words that a page shows."""
    match page["type"]:
        case FlowResultType.FORM:
            step = ("step", page["step_id"])
            yield (*step, "title")
            yield (*step, "description")
            for key, value in page["data_schema"].schema.items():
                if isinstance(value, section):
                    inside = (*step, "sections", str(key))
                    yield (*inside, "name")
                    yield (*inside, "description")
                    for field in value.schema.schema:
                        yield (*inside, "data", str(field))
                        yield (*inside, "data_description", str(field))
                else:
                    yield (*step, "data", str(key))
                    yield (*step, "data_description", str(key))
            for key in (page["errors"] or {}).values():
                yield ("error", key)
        case FlowResultType.MENU:
            step = ("step", page["step_id"])
            yield (*step, "title")
            yield (*step, "description")
            for option in page["menu_options"]:
                yield (*step, "menu_options", option)
        case FlowResultType.SHOW_PROGRESS:
            yield ("progress", page["progress_action"])
        case FlowResultType.CREATE_ENTRY if page.get("description"):
            yield ("create_entry", page["description"])
        case FlowResultType.ABORT if "translation_domain" not in page:
            yield ("abort", page["reason"])


def _fill(schema: Any, typed: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in schema.schema.items():
        if isinstance(value, section):
            values[key] = _fill(value.schema, typed)
        elif (said := typed.get(str(key), _value(key))) is not None:
            values[key] = said
    return values


def _fill_flat(schema: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in schema.schema.items():
        if isinstance(value, section):
            values |= _fill_flat(value.schema)
        else:
            values[str(key)] = _value(key)
    return values


def _value(key: Any) -> Any:
    """Give what a field shows: its suggestion, or its default."""
    if key.description and "suggested_value" in key.description:
        return key.description["suggested_value"]
    return key.default() if callable(key.default) else None
