"""What the actions share: which multiplexer a call means, and how it fails.

A call names a config entry, as automations do, or has a target, as people click it:
devices, entities, areas, labels. What else is in an area is left alone.
"""

from typing import Final, NoReturn

from homeassistant.const import (
    ATTR_AREA_ID,
    ATTR_CONFIG_ENTRY_ID,
    ATTR_DEVICE_ID,
    ATTR_ENTITY_ID,
    ATTR_FLOOR_ID,
    ATTR_LABEL_ID,
)
from homeassistant.core import ServiceCall
from homeassistant.exceptions import (
    HomeAssistantError,
    ServiceValidationError,
    Unauthorized,
    UnknownUser,
)
from homeassistant.helpers import config_validation as cv, service
import voluptuous as vol

from ..const import DOMAIN
from ..coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from ..multiplexer import RequestError

_TARGETS: Final = (
    ATTR_DEVICE_ID,
    ATTR_ENTITY_ID,
    ATTR_AREA_ID,
    ATTR_FLOOR_ID,
    ATTR_LABEL_ID,
)

SCHEMA: Final = vol.Schema(
    {vol.Optional(ATTR_CONFIG_ENTRY_ID): cv.string, **cv.ENTITY_SERVICE_FIELDS}
)
"""What every action accepts."""


async def async_coordinators(call: ServiceCall) -> list[TcpMultiplexerCoordinator]:
    """Return the coordinators of all multiplexers that a call means: at least one.

    Where it says nothing about that, it means the only one that there is.

    Raises:
        ServiceValidationError: it means none, or one that is not loaded.

    """
    ids: set[str | None] = set()
    if any(key in call.data for key in _TARGETS):
        own = {
            entry.entry_id for entry in call.hass.config_entries.async_entries(DOMAIN)
        }
        ids |= own & await service.async_extract_config_entry_ids(call)
    if named := call.data.get(ATTR_CONFIG_ENTRY_ID):
        ids.add(named)
    elif not any(key in call.data for key in _TARGETS):
        ids.add(None)
    if not ids:
        invalid("no_multiplexer_targeted")
    entries: list[TcpMultiplexerConfigEntry] = [
        service.async_get_config_entry(call.hass, DOMAIN, entry_id) for entry_id in ids
    ]
    return [entry.runtime_data for entry in entries]


async def async_coordinator(call: ServiceCall) -> TcpMultiplexerCoordinator:
    """Return the coordinator of the one multiplexer that a call means.

    Raises:
        ServiceValidationError: it means none or several, or one that is not loaded.

    """
    coordinators = await async_coordinators(call)
    if len(coordinators) > 1:
        titles = sorted(each.config_entry.title for each in coordinators)
        invalid("several_multiplexers_targeted", titles=", ".join(titles))
    return coordinators[0]


async def async_require_admin(call: ServiceCall) -> None:
    """Let only administrators pass, and automations, which run without a user.

    Raises:
        Unauthorized: the user is no administrator.

    """
    if (user_id := call.context.user_id) is None:
        return
    user = await call.hass.auth.async_get_user(user_id)
    if user is None:
        raise UnknownUser(context=call.context)
    if not user.is_admin:
        raise Unauthorized(context=call.context)


async def async_ask(coordinator: TcpMultiplexerCoordinator, payload: bytes) -> bytes:
    """Send a request through policy and queue, like any client's; return the response.

    Raises:
        ServiceValidationError: it is not a request.
        HomeAssistantError: there is no response.

    """
    try:
        return await coordinator.multiplexer.request(payload)
    except ValueError as err:
        invalid("invalid_request", err, error=str(err))
    except RequestError as err:
        raise HomeAssistantError(
            translation_domain=DOMAIN,
            translation_key=f"request_{err.failure.value}",
            translation_placeholders={"title": coordinator.config_entry.title},
        ) from err


def invalid(
    key: str, cause: Exception | None = None, /, **placeholders: str
) -> NoReturn:
    """Reject the call with a translated error."""
    raise ServiceValidationError(
        translation_domain=DOMAIN,
        translation_key=key,
        translation_placeholders=placeholders,
    ) from cause
