"""What the entities of a multiplexer have in common.

An entity is a line in a table: a key, and a function from a `Snapshot` to its value.
Here is the rest: the device, the unique id, and that a state is written only when
its value has changed. Entities stay available while the entry is loaded: the
multiplexer itself is always there; what it does not know is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import override

from homeassistant.core import callback
from homeassistant.helpers.entity import EntityDescription
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from .coordinator import TcpMultiplexerCoordinator
from .multiplexer import Snapshot


class TcpMultiplexerEntity(CoordinatorEntity[TcpMultiplexerCoordinator]):
    """An entity on the device of its multiplexer."""

    _attr_has_entity_name = True

    def __init__(
        self, coordinator: TcpMultiplexerCoordinator, description: EntityDescription
    ) -> None:
        """Say what it is and where it belongs."""
        super().__init__(coordinator)
        self.entity_description = description
        entry = coordinator.config_entry
        self._attr_unique_id = f"{entry.entry_id}-{description.key}"
        self._attr_device_info = coordinator.device_info

    @callback
    @override
    def _handle_coordinator_update(self) -> None:
        """Write nothing: that a value changed does not change this entity's state."""


@dataclass(frozen=True, kw_only=True)
class ShownValue[ValueT]:
    """The part of a description that says what to show, and when."""

    value_fn: Callable[[Snapshot], ValueT]
    at_once: bool = False
    """True: whenever it changes. False: every few seconds, for what always changes."""


class SnapshotEntity[ValueT](TcpMultiplexerEntity):
    """An entity that shows one value of a snapshot."""

    value: ValueT
    """What the state says; known once the entity is added."""

    def __init__(
        self,
        coordinator: TcpMultiplexerCoordinator,
        description: EntityDescription,
        shown: ShownValue[ValueT],
    ) -> None:
        """Follow the description."""
        super().__init__(coordinator, description)
        self._shown = shown

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the coordinator, beginning with what is true now."""
        await super().async_added_to_hass()
        self.value = self._read()

    def _read(self) -> ValueT:
        coordinator = self.coordinator
        shown = self._shown
        return shown.value_fn(
            coordinator.data if shown.at_once else coordinator.counters
        )

    @callback
    @override
    def _handle_coordinator_update(self) -> None:
        """Write the state if the value is a new one."""
        if (value := self._read()) != self.value:
            self.value = value
            self.async_write_ha_state()
