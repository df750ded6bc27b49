"""What a dialog learns from the neighbours: integrations that connect to devices.

The form suggests the devices that they use, and the page about a device that does not
answer names those that use the same one.
"""

from homeassistant.const import CONF_HOST, CONF_PORT
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.selector import (
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
)
from homeassistant.loader import Integration, async_get_integrations

from ..addresses import format_endpoint, host_for_home_assistant
from ..const import CONF_LISTEN_HOST, CONF_LISTEN_PORT
from ..multiplexer import Settings
from ..neighbours import async_neighbours, async_who_dials
from .fields import DEFAULTS
from .local_ports import async_other_entries


@callback
def async_host_selector(hass: HomeAssistant) -> TextSelector | SelectSelector:
    """Suggest devices that neighbours use; anything else may be typed."""
    own = {
        endpoint
        for entry in async_other_entries(hass, None)
        for endpoint in (
            (entry.data.get(CONF_HOST), entry.data.get(CONF_PORT)),
            (
                host_for_home_assistant(entry.data[CONF_LISTEN_HOST]),
                entry.data[CONF_LISTEN_PORT],
            ),
        )
    }
    suggestions = {
        format_endpoint(neighbour.host, neighbour.port): neighbour.name
        for neighbour in sorted(
            async_neighbours(hass),
            # Devices that speak Modbus first
            key=lambda other: (not other.shared, other.port != DEFAULTS[CONF_PORT]),
        )
        if (neighbour.host, neighbour.port) not in own
    }
    if not suggestions:
        return TextSelector()
    return SelectSelector(
        SelectSelectorConfig(
            options=[
                SelectOptionDict(value=endpoint, label=f"{name} ({endpoint})")
                for endpoint, name in suggestions.items()
            ],
            custom_value=True,
            mode=SelectSelectorMode.DROPDOWN,
        )
    )


async def async_names_of_neighbours(
    hass: HomeAssistant, settings: Settings, *, beside_shared: bool
) -> str:
    """Return the names of the neighbours that take the slot of the same device.

    `beside_shared`: those that share Home Assistant's connection take it, too.
    """
    neighbours = [
        neighbour
        for neighbour in async_who_dials(hass, settings.host, settings.port)
        if beside_shared or not neighbour.shared
    ]
    integrations = await async_get_integrations(
        hass, {neighbour.domain for neighbour in neighbours}
    )
    names = {
        domain: integration.name if isinstance(integration, Integration) else domain
        for domain, integration in integrations.items()
    }
    return ", ".join(
        f"{neighbour.name} ({names[neighbour.domain]})" for neighbour in neighbours
    )
