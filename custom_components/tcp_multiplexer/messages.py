"""What is told, as a sentence in the language of this Home Assistant."""

from collections.abc import Callable
from typing import Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.translation import async_get_cached_translations

from .const import DOMAIN
from .multiplexer import EventType
from .telling import Told

_CATEGORY: Final = "common"
_PREFIX: Final = f"component.{DOMAIN}.{_CATEGORY}."
_DETAILS: Final = (
    f"component.{DOMAIN}.entity.event.upstream_and_clients.state_attributes"
    ".detail.state."
)


class Messages:
    """Makes sentences of what is told; `describe` gives a client's name and address.

    Home Assistant keeps the texts of what is loaded at hand, in its own language.
    """

    def __init__(self, hass: HomeAssistant, describe: Callable[[str], str]) -> None:
        self._hass = hass
        self._describe = describe

    @callback
    def async_message(self, told: Told) -> str:
        """Return what happened, to whom, why, and how often."""
        event = told.event
        named = [self._describe(address) for address in told.clients]
        message = self._text(
            f"event_{told.type}",
            who=named[0] if named else self._text("event_nobody"),
            detail=self._detail(event.detail),
        )
        if told.more_clients:
            key = "event_more_clients"
        elif len(named) > 1:
            key = "event_clients"
        elif event.count > 1:
            back = event.type is EventType.UPSTREAM_BACK
            key = "event_outages" if back else "event_count"
        else:
            return message
        return self._text(
            key, message=message, others=", ".join(named[1:]), count=str(event.count)
        )

    def _detail(self, detail: str | None) -> str:
        """Return what the engine says of it: some of that has words of its own."""
        if detail is None:
            return ""
        return self._cached("entity").get(f"{_DETAILS}{detail}", detail)

    def _text(self, key: str, **values: str) -> str:
        return self._cached(_CATEGORY)[f"{_PREFIX}{key}"].format(**values)

    def _cached(self, category: str) -> dict[str, str]:
        hass = self._hass
        return async_get_cached_translations(
            hass, hass.config.language, category, DOMAIN
        )
