"""The entities of named clients: each client is a device of its own.

Clients come and go while the entry is loaded. Home Assistant removes device and
entities of one that is removed, with its subentry.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity import Entity, EntityDescription
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.typing import StateType

from .client_watch import ClientStatus
from .const import DOMAIN
from .coordinator import TcpMultiplexerCoordinator


@dataclass(frozen=True, kw_only=True)
class ClientBinarySensorEntityDescription(BinarySensorEntityDescription):
    """Describes a binary sensor of a client."""

    value_fn: Callable[[ClientStatus], bool | None]


@dataclass(frozen=True, kw_only=True)
class ClientSensorEntityDescription(SensorEntityDescription):
    """Describes a sensor of a client."""

    value_fn: Callable[[ClientStatus], StateType | datetime]


CLIENT_BINARY_SENSORS: Final = (
    ClientBinarySensorEntityDescription(
        key="asking",
        translation_key="client_asking",
        value_fn=lambda status: status.asking,
    ),
    ClientBinarySensorEntityDescription(
        key="connected",
        translation_key="client_connected",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        device_class=BinarySensorDeviceClass.CONNECTIVITY,
        value_fn=lambda status: status.connected,
    ),
)
CLIENT_SENSORS: Final = (
    ClientSensorEntityDescription(
        key="last_request",
        translation_key="client_last_request",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        device_class=SensorDeviceClass.TIMESTAMP,
        value_fn=lambda status: status.last_request,
    ),
    ClientSensorEntityDescription(
        key="requests_per_minute",
        translation_key="client_requests_per_minute",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=0,
        value_fn=lambda status: status.requests_per_minute,
    ),
    ClientSensorEntityDescription(
        key="failed_requests",
        translation_key="client_failed_requests",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda status: status.failed_requests,
    ),
)


@callback
def async_add_client_entities(
    coordinator: TcpMultiplexerCoordinator,
    kind: type[ClientBinarySensor | ClientSensor],
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the entities of one kind for all named clients, and for those to come."""
    clients = coordinator.clients

    @callback
    def added(client_id: str) -> None:
        async_add_entities(
            [kind(coordinator, client_id, each) for each in kind.descriptions],
            config_subentry_id=client_id,
        )

    for client in clients.clients:
        added(client.subentry_id)
    coordinator.config_entry.async_on_unload(clients.async_add_added_listener(added))


def client_device_info(
    coordinator: TcpMultiplexerCoordinator, client_id: str
) -> DeviceInfo:
    """Return what the device page of a client shows."""
    return DeviceInfo(
        identifiers={(DOMAIN, client_id)},
        name=coordinator.config_entry.subentries[client_id].title,
        via_device_id=coordinator.device_id,
    )


@callback
def async_update_client_devices(
    hass: HomeAssistant, coordinator: TcpMultiplexerCoordinator
) -> None:
    """Have the devices of clients as they are described now."""
    for client in coordinator.clients.clients:
        dr.async_get(hass).async_get_or_create(
            config_entry_id=coordinator.config_entry.entry_id,
            config_subentry_id=client.subentry_id,
            **client_device_info(coordinator, client.subentry_id),
        )


class ClientEntity(Entity):
    """An entity on the device of a named client."""

    _attr_has_entity_name = True
    _attr_should_poll = False

    def __init__(
        self,
        coordinator: TcpMultiplexerCoordinator,
        client_id: str,
        description: EntityDescription,
    ) -> None:
        """Begin with what is known of the client that has this subentry."""
        self.entity_description = description
        self._clients = coordinator.clients
        self._client_id = client_id
        self._attr_unique_id = f"{client_id}-{description.key}"
        self._attr_device_info = client_device_info(coordinator, client_id)

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the client, beginning with the present value."""
        await super().async_added_to_hass()
        self.async_on_remove(self._clients.async_add_listener(self._async_looked))
        if (status := self._clients.status(self._client_id)) is not None:
            self._take(status)

    @callback
    def _async_looked(self) -> None:
        """Write the state if the value has changed."""
        # Of one that was removed, the entity goes a moment later.
        status = self._clients.status(self._client_id)
        if status is not None and self._take(status):
            self.async_write_ha_state()

    @abstractmethod
    def _take(self, status: ClientStatus) -> bool:
        """Take over the value; return whether it is another."""


class ClientBinarySensor(ClientEntity, BinarySensorEntity):
    """Shows a yes or no about a client."""

    descriptions = CLIENT_BINARY_SENSORS
    entity_description: ClientBinarySensorEntityDescription

    @override
    def _take(self, status: ClientStatus) -> bool:
        before = self._attr_is_on
        self._attr_is_on = self.entity_description.value_fn(status)
        return self._attr_is_on != before


class ClientSensor(ClientEntity, SensorEntity):
    """Shows a number or time of a client."""

    descriptions = CLIENT_SENSORS
    entity_description: ClientSensorEntityDescription

    @override
    def _take(self, status: ClientStatus) -> bool:
        before = self._attr_native_value
        self._attr_native_value = self.entity_description.value_fn(status)
        return self._attr_native_value != before
