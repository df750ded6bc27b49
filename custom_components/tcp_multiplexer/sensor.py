"""Sensors: what a multiplexer counts and measures.

One table. Health and connections are written at once, unless they come and go;
counters, which change with every request, when they have moved much, or after some
minutes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, override

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import (
    EntityCategory,
    Platform,
    UnitOfInformation,
    UnitOfTime,
)
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.typing import StateType
from homeassistant.util import dt as dt_util

from .addresses import format_endpoint
from .client_entities import ClientSensor, async_add_client_entities
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .entity import (
    ShownValue,
    SnapshotEntity,
    TcpMultiplexerEntity,
    async_entity_id,
)
from .multiplexer import Health, protocols_with
from .statistics_units import async_forget_units

PARALLEL_UPDATES = 0

type SensorValue = StateType | datetime


@dataclass(frozen=True, kw_only=True)
class TcpMultiplexerSensorEntityDescription(
    SensorEntityDescription, ShownValue[SensorValue]
):
    """Describes a sensor."""

    setting: str = ""
    """The sensor is only for protocols that use this setting; empty: for all."""


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _time(seconds: float | None) -> datetime | None:
    """Return a time of day, rounded to the second as states show it."""
    return None if seconds is None else dt_util.utc_from_timestamp(round(seconds))


_HEALTH_RANKS: Final = {
    Health.IDLE: 0,
    Health.HEALTHY: 1,
    Health.DEGRADED: 2,
    Health.WAITING: 3,
    Health.UNREACHABLE: 3,
}
"""How bad it is; paused, it is as the owner wants it."""

SENSORS: Final = (
    TcpMultiplexerSensorEntityDescription(
        key="health",
        translation_key="health",
        device_class=SensorDeviceClass.ENUM,
        options=[health.value for health in Health],
        value_fn=lambda snapshot: snapshot.health.value,
        at_once=True,
        rank_fn=lambda snapshot: _HEALTH_RANKS.get(snapshot.health),
    ),
    TcpMultiplexerSensorEntityDescription(
        key="clients",
        translation_key="clients",
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda snapshot: len(snapshot.clients),
        at_once=True,
        rank_fn=lambda snapshot: len(snapshot.clients),
    ),
    TcpMultiplexerSensorEntityDescription(
        key="queue_depth",
        translation_key="queue_depth",
        entity_category=EntityCategory.DIAGNOSTIC,
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda snapshot: snapshot.queue_depth,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="response_time",
        translation_key="response_time",
        entity_category=EntityCategory.DIAGNOSTIC,
        device_class=SensorDeviceClass.DURATION,
        state_class=SensorStateClass.MEASUREMENT,
        native_unit_of_measurement=UnitOfTime.MILLISECONDS,
        suggested_display_precision=1,
        value_fn=lambda snapshot: _milliseconds(snapshot.response_seconds_median),
    ),
    TcpMultiplexerSensorEntityDescription(
        key="failed_requests",
        translation_key="failed_requests",
        entity_category=EntityCategory.DIAGNOSTIC,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: sum(snapshot.failures.values()),
    ),
    TcpMultiplexerSensorEntityDescription(
        key="response_time_p95",
        translation_key="response_time_p95",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        device_class=SensorDeviceClass.DURATION,
        state_class=SensorStateClass.MEASUREMENT,
        native_unit_of_measurement=UnitOfTime.MILLISECONDS,
        suggested_display_precision=1,
        value_fn=lambda snapshot: _milliseconds(snapshot.response_seconds_p95),
    ),
    TcpMultiplexerSensorEntityDescription(
        key="requests",
        translation_key="requests",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: snapshot.requests,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="timeouts",
        translation_key="timeouts",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: snapshot.timeouts,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="reconnects",
        translation_key="reconnects",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: snapshot.reconnects,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="unmatched_responses",
        translation_key="unmatched_responses",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: (
            snapshot.late_responses + snapshot.unsolicited_responses
        ),
    ),
    TcpMultiplexerSensorEntityDescription(
        key="reads_saved",
        translation_key="reads_saved",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: snapshot.reads_shared + snapshot.reads_cached,
        setting="share_reads",
    ),
    TcpMultiplexerSensorEntityDescription(
        key="reads_shared",
        translation_key="reads_shared",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: snapshot.reads_shared,
        setting="share_reads",
    ),
    TcpMultiplexerSensorEntityDescription(
        key="reads_cached",
        translation_key="reads_cached",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: snapshot.reads_cached,
        setting="cache_ttl",
    ),
    TcpMultiplexerSensorEntityDescription(
        key="writes_stopped",
        translation_key="writes_stopped",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: (
            snapshot.writes_refused + snapshot.writes_acknowledged
        ),
        setting="write_rules",
    ),
    TcpMultiplexerSensorEntityDescription(
        key="writes_repeated",
        translation_key="writes_repeated",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda snapshot: snapshot.writes_repeated,
        setting="repeated_write_ttl",
    ),
    TcpMultiplexerSensorEntityDescription(
        key="upstream_connections",
        translation_key="upstream_connections",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda snapshot: snapshot.connections,
        at_once=True,
        rank_fn=lambda snapshot: -snapshot.connections,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="queue_peak",
        translation_key="queue_peak",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda snapshot: snapshot.queue_peak,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="bytes_to_upstream",
        translation_key="bytes_to_upstream",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        device_class=SensorDeviceClass.DATA_SIZE,
        state_class=SensorStateClass.TOTAL_INCREASING,
        native_unit_of_measurement=UnitOfInformation.BYTES,
        suggested_unit_of_measurement=UnitOfInformation.MEGABYTES,
        suggested_display_precision=1,
        value_fn=lambda snapshot: snapshot.bytes_to_upstream,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="bytes_from_upstream",
        translation_key="bytes_from_upstream",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        device_class=SensorDeviceClass.DATA_SIZE,
        state_class=SensorStateClass.TOTAL_INCREASING,
        native_unit_of_measurement=UnitOfInformation.BYTES,
        suggested_unit_of_measurement=UnitOfInformation.MEGABYTES,
        suggested_display_precision=1,
        value_fn=lambda snapshot: snapshot.bytes_from_upstream,
    ),
    TcpMultiplexerSensorEntityDescription(
        key="last_response",
        translation_key="last_response",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        device_class=SensorDeviceClass.TIMESTAMP,
        value_fn=lambda snapshot: _time(snapshot.last_response),
    ),
    TcpMultiplexerSensorEntityDescription(
        key="connected_since",
        translation_key="connected_since",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        device_class=SensorDeviceClass.UPTIME,
        value_fn=lambda snapshot: _time(snapshot.connected_since),
    ),
)

LISTEN_ADDRESS: Final = SensorEntityDescription(
    key="listen_address",
    translation_key="listen_address",
    entity_category=EntityCategory.DIAGNOSTIC,
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the sensors of an entry."""
    coordinator = entry.runtime_data
    protocol = coordinator.multiplexer.settings.protocol
    async_add_entities(
        [
            *(
                TcpMultiplexerSensor(coordinator, sensor)
                for sensor in SENSORS
                if protocol in protocols_with(sensor.setting)
            ),
            ListenAddressSensor(coordinator),
        ]
    )
    counts = (
        async_entity_id(coordinator, Platform.SENSOR, sensor)
        for sensor in SENSORS
        if sensor.state_class and sensor.native_unit_of_measurement is None
    )
    entry.async_create_background_task(
        hass,
        async_forget_units(hass, {*filter(None, counts)}),
        "forget the units of counts",
    )
    async_add_client_entities(coordinator, ClientSensor, async_add_entities)


class TcpMultiplexerSensor(SnapshotEntity[SensorValue], SensorEntity):
    """Shows one number, time or state from a snapshot."""

    entity_description: TcpMultiplexerSensorEntityDescription

    def __init__(
        self,
        coordinator: TcpMultiplexerCoordinator,
        description: TcpMultiplexerSensorEntityDescription,
    ) -> None:
        super().__init__(coordinator, description, description)

    @property
    @override
    def native_value(self) -> SensorValue:
        return self.value


class ListenAddressSensor(TcpMultiplexerEntity, SensorEntity):
    """Shows the address to enter in clients in place of the device's."""

    def __init__(self, coordinator: TcpMultiplexerCoordinator) -> None:
        """Set the state; the addresses change only with a reload."""
        super().__init__(coordinator, LISTEN_ADDRESS)
        _, port = coordinator.data.listen_addresses[0]
        addresses = [format_endpoint(host, port) for host in coordinator.hosts]
        self._attr_native_value = addresses[0]
        self._attributes = {"addresses": addresses}
        self._attr_extra_state_attributes = self._all_attributes()

    def _all_attributes(self) -> dict[str, list[str]]:
        """Return the addresses of the main port, and of further ones if there are."""
        further = self.coordinator.further_addresses
        return self._attributes | ({"further_addresses": further} if further else {})

    @callback
    @override
    def _handle_coordinator_update(self) -> None:
        """Follow further ports, which come and go while the entry is loaded."""
        if (attributes := self._all_attributes()) != self._attr_extra_state_attributes:
            self._attr_extra_state_attributes = attributes
            self.async_write_ha_state()
