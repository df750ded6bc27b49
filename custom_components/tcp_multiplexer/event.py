"""One event entity for what happens to the device and the clients.

The attributes say, for automations, which client, why and how often; a row in the
logbook says it whole, for people.
"""

from collections.abc import Iterable, Mapping
import json
from typing import Final, override

from homeassistant.components.event import EventEntity, EventEntityDescription
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .const import DOMAIN, LOGBOOK_DOMAIN
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .entity import TcpMultiplexerEntity
from .messages import Messages
from .telling import SHOWN_TYPES, Told

PARALLEL_UPDATES = 0

UPSTREAM_AND_CLIENTS: Final = EventEntityDescription(
    key="upstream_and_clients",
    translation_key="upstream_and_clients",
    event_types=list(SHOWN_TYPES),
)

WRITES_BYTES: Final = 4096
"""What `writes` takes as JSON, at most. The recorder drops attributes above 16 KiB."""
WRITE_VALUES: Final = 16
"""Values of a write that `writes` lists, at most."""


async def async_setup_entry(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the event entity of an entry."""
    async_add_entities([UpstreamAndClientsEvent(entry.runtime_data)])


class UpstreamAndClientsEvent(TcpMultiplexerEntity, EventEntity):
    """Shows the last event."""

    def __init__(self, coordinator: TcpMultiplexerCoordinator) -> None:
        super().__init__(coordinator, UPSTREAM_AND_CLIENTS)

    @override
    async def async_added_to_hass(self) -> None:
        """Subscribe to what is told."""
        await super().async_added_to_hass()
        self._messages = Messages(self.hass, self.coordinator.describe_client)
        self.async_on_remove(
            self.coordinator.async_add_told_listener(self._async_handle_told)
        )

    @callback
    def _async_handle_told(self, told: Told) -> None:
        """Show an event, with those attributes that are known, and log it."""
        event, clients = told.event, told.clients
        alone = clients[0] if len(clients) == 1 and not told.more_clients else None
        attributes = {
            "client": alone,
            "client_name": alone and self.coordinator.client_name(alone),
            "clients": None if alone else list(clients) or None,
            "reason": event.reason and event.reason.value,
            "detail": event.detail,
            "count": event.count,
            "writes": bounded(event.writes) or None,
        }
        self._trigger_event(
            told.type,
            {key: value for key, value in attributes.items() if value is not None},
        )
        self.async_write_ha_state()
        self._async_log(told)

    @callback
    def _async_log(self, told: Told) -> None:
        """Say it in the logbook, if there is one: it needs the recorder."""
        state = self.hass.states.get(self.entity_id)
        if LOGBOOK_DOMAIN not in self.hass.config.components or state is None:
            return
        from homeassistant.components.logbook import (  # noqa: PLC0415
            async_log_entry,
        )

        async_log_entry(
            self.hass,
            state.name,
            self._messages.async_message(told),
            DOMAIN,
            self.entity_id,
        )


def bounded(writes: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return the first writes, cut so that attributes bear them.

    Of a write's values the first are listed, with the number of all under `count` (of
    bytes, if the value is hexadecimal).
    """
    kept: list[dict[str, object]] = []
    size = 2
    for write in writes:
        shown = dict(write)
        value = shown.get("value")
        # a list of registers or coils, or hexadecimal digits: two for each byte
        most = WRITE_VALUES if isinstance(value, list) else 4 * WRITE_VALUES
        if isinstance(value, list | str) and len(value) > most:
            shown["value"] = value[:most]
            shown["count"] = len(value) if isinstance(value, list) else len(value) // 2
        size += len(json.dumps(shown)) + 2
        if size > WRITES_BYTES:
            break
        kept.append(shown)
    return kept
