"""Serial ports, as Home Assistant's `usb` integration knows them.

It brings the library that opens them, and the kinds of ports that other integrations
provide. Neither is needed by an entry whose device is on a network: Home Assistant may
run where there is no USB at all.
"""

from homeassistant.core import HomeAssistant
from homeassistant.requirements import (
    RequirementsNotFound,
    async_get_integration_with_requirements,
)

from .const import LOGGER


async def async_prepare_serial(hass: HomeAssistant) -> None:
    """Make sure that serial ports can be opened, if that is possible here.

    If it is not, opening a port fails, and says why.
    """
    try:
        await async_get_integration_with_requirements(hass, "usb")
    except RequirementsNotFound as err:
        LOGGER.warning("Serial ports are not available: %s", err)
