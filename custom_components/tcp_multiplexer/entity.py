"""The base classes of a multiplexer's entities.

An entity is a row in a table: a key, and a function from a `Snapshot` to its value. The
base classes add the device and the unique ID, and write a state only when its value has
changed, and not more often than a database bears. Entities stay available while the
entry is loaded, because the multiplexer itself is always there; values that it does not
know are unknown.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import override

from homeassistant.const import Platform
from homeassistant.core import callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.entity import EntityDescription
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from .const import DOMAIN
from .coordinator import TcpMultiplexerCoordinator
from .multiplexer import Snapshot
from .pace import Damper, Sparing


class TcpMultiplexerEntity(CoordinatorEntity[TcpMultiplexerCoordinator]):
    """An entity on the device of its multiplexer."""

    _attr_has_entity_name = True

    def __init__(
        self, coordinator: TcpMultiplexerCoordinator, description: EntityDescription
    ) -> None:
        super().__init__(coordinator)
        self.entity_description = description
        self._attr_unique_id = _unique_id(coordinator, description)
        self._attr_device_info = coordinator.device_info

    @callback
    @override
    def _handle_coordinator_update(self) -> None:
        """Do nothing: the state of this entity does not come from a snapshot."""


def _unique_id(
    coordinator: TcpMultiplexerCoordinator, description: EntityDescription
) -> str:
    return f"{coordinator.config_entry.entry_id}-{description.key}"


@callback
def async_entity_id(
    coordinator: TcpMultiplexerCoordinator,
    platform: Platform,
    description: EntityDescription,
) -> str | None:
    """Return the ID of an entity of this multiplexer; None: it has never had it."""
    registry = er.async_get(coordinator.hass)
    unique_id = _unique_id(coordinator, description)
    return registry.async_get_entity_id(platform, DOMAIN, unique_id)


@callback
def async_forget(
    coordinator: TcpMultiplexerCoordinator,
    platform: Platform,
    description: EntityDescription,
) -> None:
    """Remove an entity that this multiplexer had before it was reconfigured."""
    if entity_id := async_entity_id(coordinator, platform, description):
        er.async_get(coordinator.hass).async_remove(entity_id)


@dataclass(frozen=True, kw_only=True)
class ShownValue[ValueT]:
    """The part of a description that says which value to show, and when."""

    value_fn: Callable[[Snapshot], ValueT]
    at_once: bool = False
    """True: written whenever it changes. False: now and then, as counters are."""
    rank_fn: Callable[[Snapshot], int | None] = lambda _: None
    """With `at_once`, how bad the value is: see `Damper`."""


class SnapshotEntity[ValueT](TcpMultiplexerEntity):
    """An entity that shows one value of a snapshot."""

    value: ValueT
    """The value in the state; set when the entity is added."""

    def __init__(
        self,
        coordinator: TcpMultiplexerCoordinator,
        description: EntityDescription,
        shown: ShownValue[ValueT],
    ) -> None:
        super().__init__(coordinator, description)
        self._shown = shown
        self._damper = Damper()
        self._sparing = Sparing()
        self._look_again: asyncio.TimerHandle | None = None

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the coordinator, beginning with the present value."""
        await super().async_added_to_hass()
        self.async_on_remove(self._forget_to_look)
        snapshot = self._snapshot
        self.value = self._shown.value_fn(snapshot)
        self._damper.due(self._shown.rank_fn(snapshot), self.hass.loop.time())

    @property
    def _snapshot(self) -> Snapshot:
        coordinator = self.coordinator
        return coordinator.data if self._shown.at_once else coordinator.counters

    @callback
    @override
    def _handle_coordinator_update(self) -> None:
        """Write the state if the value has changed, and may be shown."""
        value = self._shown.value_fn(self._snapshot)
        if self._may_show(value) and value != self.value:
            self.value = value
            self.async_write_ha_state()

    def _may_show(self, value: ValueT) -> bool:
        now = self.hass.loop.time()
        if not self._shown.at_once:
            if self.coordinator.shows_all:
                self._sparing.count(now)
                return True
            return value != self.value and self._sparing.may_show(
                self.value, value, now
            )
        self._forget_to_look()
        due = self._damper.due(self._shown.rank_fn(self._snapshot), now)
        if due <= now:
            return True
        self._look_again = self.hass.loop.call_at(due, self._handle_coordinator_update)
        return False

    def _forget_to_look(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
