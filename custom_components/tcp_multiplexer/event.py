"""What happens to the upstream and the clients, as one event entity.

Who, why and how often is in the attributes; the engine and the coordinator merge what
happens too often to be read.
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
    """Tells what happened last."""

    def __init__(self, coordinator: TcpMultiplexerCoordinator) -> None:
        """Follow the description."""
        super().__init__(coordinator, UPSTREAM_AND_CLIENTS)

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to the multiplexer."""
        await super().async_added_to_hass()
        self.async_on_remove(
            self.coordinator.async_add_event_listener(self._async_handle_event)
        )

    @callback
    def _async_handle_event(self, event: Event) -> None:
        """Show an event, with what is known of it."""
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
