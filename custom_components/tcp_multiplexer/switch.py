"""Switch to pause: leaves the device alone, so that a vendor's app can use its slot.

There is none where the connection is Home Assistant's: its integrations hold the slot.
"""

from dataclasses import dataclass
from typing import Any, Final, override

from homeassistant.components.switch import SwitchEntity, SwitchEntityDescription
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .entity import ShownValue, SnapshotEntity, async_forget
from .multiplexer import Health

# One at a time: pausing takes as long as the exchanges in flight.
PARALLEL_UPDATES = 1


@dataclass(frozen=True, kw_only=True)
class TcpMultiplexerSwitchEntityDescription(SwitchEntityDescription, ShownValue[bool]):
    """Describes a switch."""


PAUSE: Final = TcpMultiplexerSwitchEntityDescription(
    key="pause",
    translation_key="pause",
    value_fn=lambda snapshot: snapshot.health is Health.PAUSED,
    at_once=True,
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the switch of an entry."""
    coordinator = entry.runtime_data
    if coordinator.owns_connection:
        async_add_entities([PauseSwitch(coordinator)])
    else:
        async_forget(coordinator, Platform.SWITCH, PAUSE)


class PauseSwitch(SnapshotEntity[bool], SwitchEntity):
    """Pauses and resumes a multiplexer."""

    def __init__(self, coordinator: TcpMultiplexerCoordinator) -> None:
        super().__init__(coordinator, PAUSE, PAUSE)

    @property
    @override
    def is_on(self) -> bool:
        return self.value

    @override
    async def async_turn_on(self, **kwargs: Any) -> None:
        """Pause; returns once exchanges in flight are finished and the slot is free."""
        await self.coordinator.async_set_paused(paused=True)

    @override
    async def async_turn_off(self, **kwargs: Any) -> None:
        """Resume."""
        await self.coordinator.async_set_paused(paused=False)
