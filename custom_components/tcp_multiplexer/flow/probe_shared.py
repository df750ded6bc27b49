"""Try a device over the Modbus connection that Home Assistant shares.

The counterpart of `probe.py`, for an entry that will have no connection of its own.
"""

import asyncio
from contextlib import suppress

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError

from ..multiplexer import Settings
from ..shared_connection import async_prepare, import_connection
from ..shared_unit import SERVER_FAILURE, ask, refusal
from .identify import identify
from .probe import (
    ANSWER_SECONDS,
    DeviceError,
    DeviceProblem,
    ProbeResult,
    make_protocol,
)


async def async_ask_shared(hass: HomeAssistant, settings: Settings) -> ProbeResult:
    """Send what a health check sends, and identify the device.

    Raises:
        DeviceError: it did not answer, or is already used with other link settings.

    """
    await async_prepare(hass)
    from modbus_connection import (  # noqa: PLC0415
        ModbusConnectionError,
        ModbusError,
        ModbusExceptionError,
        ModbusTcpParams,
    )

    protocol = make_protocol(settings)
    request = protocol.probe(None)
    if request is None:
        raise DeviceError(DeviceProblem.NOT_UNDERSTOOD)
    payload = request.payload
    params = ModbusTcpParams(host=settings.host, port=settings.port)
    identity = None
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            import_connection().async_get_temporary_unit(
                hass, params, payload[0]
            ) as unit,
        ):
            response = await ask(unit, payload)

            async def again(payload: bytes) -> bytes | None:
                return await ask(unit, payload)

            with suppress(ModbusError, ValueError):
                identity = await identify(again, payload[:1])
    except ModbusExceptionError as err:
        response = refusal(payload, err.exception_code or SERVER_FAILURE)
    except ModbusConnectionError as err:
        raise DeviceError(DeviceProblem.UNREACHABLE) from err
    except (ModbusError, TimeoutError) as err:
        raise DeviceError(DeviceProblem.SILENT) from err
    except HomeAssistantError as err:
        raise DeviceError(DeviceProblem.OTHER_SETTINGS) from err
    return ProbeResult(protocol.describe(payload, response), identity)
