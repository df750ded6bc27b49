"""One event entity for what happens to the upstream and the clients.

The attributes say which client, why and how often. The engine and the coordinator merge
events that are too frequent to read.
"""

from typing import Final, override

from homeassistant.components.event import EventEntity, EventEntityDescription
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import (
    SHOWN_EVENTS,
    TcpMultiplexerConfigEntry,
    TcpMultiplexerCoordinator,
)
from .entity import TcpMultiplexerEntity
from .multiplexer import Event

PARALLEL_UPDATES = 0

UPSTREAM_AND_CLIENTS: Final = EventEntityDescription(
    key="upstream_and_clients",
    translation_key="upstream_and_clients",
    event_types=[event_type.value for event_type in SHOWN_EVENTS],
)


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
        """Subscribe to the multiplexer's events."""
        await super().async_added_to_hass()
        self.async_on_remove(
            self.coordinator.async_add_event_listener(self._async_handle_event)
        )

    @callback
    def _async_handle_event(self, event: Event) -> None:
        """Show an event, with those attributes that are known."""
        attributes = {
            "client": event.client,
            "client_name": event.client and self.coordinator.client_name(event.client),
            "reason": event.reason and event.reason.value,
            "detail": event.detail,
            "count": event.count,
            "writes": [dict(write) for write in event.writes] or None,
        }
        self._trigger_event(
            event.type.value,
            {key: value for key, value in attributes.items() if value is not None},
        )
        self.async_write_ha_state()
