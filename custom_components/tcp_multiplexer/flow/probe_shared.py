"""Try a device over the Modbus connection that Home Assistant shares.

The counterpart of `probe.py`, for an entry that will have no connection of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.requirements import RequirementsNotFound

from ..multiplexer import Settings, make_protocol
from ..shared_connection import async_prepare, import_connection, link
from ..shared_unit import ask
from .identify import Identity, identify
from .probe import (
    ANSWER_SECONDS,
    DeviceError,
    DeviceProblem,
    ProbeResult,
)

type _Ask = Callable[[bytes], Awaitable[bytes]]


async def async_ask_shared(hass: HomeAssistant, settings: Settings) -> ProbeResult:
    """Send what a health check sends, and identify the device.

    Raises:
        DeviceError: it did not answer, or is already used with other link settings.

    """
    protocol = make_protocol(settings)
    request = protocol.probe(None)
    if request is None:
        raise DeviceError(DeviceProblem.NOT_UNDERSTOOD)
    payload = request.payload
    try:
        await async_prepare(hass)
        from modbus_connection import (  # noqa: PLC0415
            ModbusConnectionError,
            ModbusError,
        )
    except RequirementsNotFound as err:
        raise DeviceError(DeviceProblem.NOT_INSTALLED, str(err)) from err
    try:
        async with import_connection().async_get_temporary_unit(
            hass, link(settings), payload[0]
        ) as unit:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await ask(unit, payload)
            identity = await _identify(lambda payload: ask(unit, payload), payload[:1])
    except ModbusConnectionError as err:
        serial = settings.serial is not None
        problem = DeviceProblem.NO_PORT if serial else DeviceProblem.UNREACHABLE
        raise DeviceError(problem, str(err)) from err
    except (ModbusError, TimeoutError) as err:
        raise DeviceError(DeviceProblem.SILENT) from err
    except HomeAssistantError as err:
        raise DeviceError(DeviceProblem.OTHER_SETTINGS, str(err)) from err
    return ProbeResult(protocol.describe(payload, response), identity)


async def _identify(ask: _Ask, units: bytes) -> Identity | None:
    """Identify a device that has answered: what it does not answer now is no fault."""
    from modbus_connection import ModbusError  # noqa: PLC0415

    with suppress(ModbusError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            return await identify(ask, units)
    return None
