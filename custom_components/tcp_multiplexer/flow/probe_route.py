"""Try a device that no TCP connection reaches: by a multiplexer of its own.

The counterpart of `probe.py` for all other routes to a device. Nobody else can connect
to that multiplexer, and it lasts as long as the trial.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..multiplexer import (
    Failure,
    Multiplexer,
    RequestError,
    Settings,
    make_protocol,
)
from .probe import (
    ANSWER_SECONDS,
    DeviceError,
    DeviceProblem,
    ProbeResult,
    ask_running,
)

_PROBLEMS: Final = {
    Failure.CONNECTION_LOST: DeviceProblem.CLOSED,
    Failure.NO_RESPONSE: DeviceProblem.SILENT,
    Failure.INVALID_RESPONSE: DeviceProblem.NOT_UNDERSTOOD,
}


async def ask_with_multiplexer(
    settings: Settings, units: Sequence[int], *, seconds: float = ANSWER_SECONDS
) -> ProbeResult:
    """Send what a health check sends, and identify the device.

    If the unit in `settings` does not answer, others are tried: `units`, then the usual
    ones.

    Raises:
        DeviceError: it did not answer within `seconds`.

    """
    timeout = min(settings.timeout, seconds)
    multiplexer = Multiplexer(
        replace(
            settings,
            listen_host="127.0.0.1",
            listen_port=0,
            more_listeners=(),
            timeout=timeout,
            allowed_functions=(),
            allowed_units=(),
            connect_on_demand=False,
            # one attempt tells
            reconnect_backoff=seconds,
            reconnect_backoff_max=seconds,
        )
    )
    try:
        await multiplexer.start()
        return await _ask(multiplexer, units, seconds)
    finally:
        await multiplexer.stop()


async def _ask(
    multiplexer: Multiplexer, units: Sequence[int], seconds: float
) -> ProbeResult:
    protocol = make_protocol(multiplexer.settings)
    request = protocol.probe(None)
    if request is None:
        raise DeviceError(DeviceProblem.NOT_UNDERSTOOD)
    payload = request.payload
    try:
        response = await multiplexer.request(payload)
    except RequestError as err:
        if err.failure is Failure.NO_RESPONSE:
            found = await ask_running(multiplexer, units, seconds=seconds)
            if (identity := found.identity) is not None:
                return ProbeResult(f"unit {identity.unit}", identity)
        raise DeviceError(
            _PROBLEMS.get(err.failure, DeviceProblem.NO_PORT),
            multiplexer.snapshot().health_reason,
        ) from err
    found = await ask_running(multiplexer, units, seconds=seconds)
    return ProbeResult(protocol.describe(payload, response), found.identity)
