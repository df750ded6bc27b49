"""Button to reconnect: closes the upstream connection and opens it again.

There is none where the connection is Home Assistant's.
"""

from typing import Final, override

from homeassistant.components.button import (
    ButtonDeviceClass,
    ButtonEntity,
    ButtonEntityDescription,
)
from homeassistant.const import EntityCategory, Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import TcpMultiplexerConfigEntry
from .entity import TcpMultiplexerEntity, async_forget

PARALLEL_UPDATES = 1

RECONNECT: Final = ButtonEntityDescription(
    key="reconnect",
    translation_key="reconnect",
    entity_category=EntityCategory.CONFIG,
    device_class=ButtonDeviceClass.RESTART,
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the button of an entry."""
    coordinator = entry.runtime_data
    if coordinator.owns_connection:
        async_add_entities([ReconnectButton(coordinator, RECONNECT)])
    else:
        async_forget(coordinator, Platform.BUTTON, RECONNECT)


class ReconnectButton(TcpMultiplexerEntity, ButtonEntity):
    """Reconnects the upstream; waiting requests survive that."""

    @override
    async def async_press(self) -> None:
        """Let exchanges in flight finish, then connect again."""
        await self.coordinator.async_reconnect()
