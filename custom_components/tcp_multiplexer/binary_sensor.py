"""Binary sensors: whether the device is connected, and whether named clients ask."""

from dataclasses import dataclass
from typing import Final, override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .client_entities import ClientBinarySensor, async_add_client_entities
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .entity import ShownValue, SnapshotEntity
from .multiplexer import Health, Snapshot

PARALLEL_UPDATES = 0


@dataclass(frozen=True, kw_only=True)
class TcpMultiplexerBinarySensorEntityDescription(
    BinarySensorEntityDescription, ShownValue[bool]
):
    """Describes a binary sensor."""


def _connection_rank(snapshot: Snapshot) -> int | None:
    """Return how bad it is that the device is connected, or not."""
    if snapshot.connections:
        return 1
    return {Health.PAUSED: None, Health.IDLE: 0}.get(snapshot.health, 2)


BINARY_SENSORS: Final = (
    TcpMultiplexerBinarySensorEntityDescription(
        key="upstream_connection",
        translation_key="upstream_connection",
        entity_category=EntityCategory.DIAGNOSTIC,
        device_class=BinarySensorDeviceClass.CONNECTIVITY,
        value_fn=lambda snapshot: snapshot.connections > 0,
        at_once=True,
        rank_fn=_connection_rank,
    ),
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the binary sensors of an entry."""
    async_add_entities(
        TcpMultiplexerBinarySensor(entry.runtime_data, description)
        for description in BINARY_SENSORS
    )
    async_add_client_entities(
        entry.runtime_data, ClientBinarySensor, async_add_entities
    )


class TcpMultiplexerBinarySensor(SnapshotEntity[bool], BinarySensorEntity):
    """Shows a yes or no from a snapshot."""

    entity_description: TcpMultiplexerBinarySensorEntityDescription

    def __init__(
        self,
        coordinator: TcpMultiplexerCoordinator,
        description: TcpMultiplexerBinarySensorEntityDescription,
    ) -> None:
        super().__init__(coordinator, description, description)

    @property
    @override
    def is_on(self) -> bool:
        return self.value
