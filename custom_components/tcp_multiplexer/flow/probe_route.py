"""Try a device that no TCP connection reaches: by a multiplexer of its own.

The counterpart of `probe.py` for all other routes to a device. Nobody else can connect
to that multiplexer, and it lasts as long as the trial.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..multiplexer import (
    Event,
    EventType,
    Failure,
    Multiplexer,
    RequestError,
    Settings,
    make_protocol,
)
from .identify import Identity
from .probe import (
    ANSWER_SECONDS,
    UNIT_SECONDS,
    DeviceError,
    DeviceProblem,
    ProbeResult,
    ask_running,
)

DIAL_IN_SECONDS: Final = 25.0
"""How long a device is expected to dial in; SolaX dongles do it every 5 to 20 s."""
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
    dials_in = settings.dial_in is not None
    multiplexer = Multiplexer(
        replace(
            settings,
            listen_host="127.0.0.1",
            listen_port=0,
            more_listeners=(),
            timeout=seconds if dials_in else min(settings.timeout, seconds),
            allowed_functions=(),
            allowed_units=(),
            connect_on_demand=False,
            # one attempt tells
            reconnect_backoff=seconds,
            reconnect_backoff_max=seconds,
        )
    )
    opened = asyncio.Event()

    def note(event: Event) -> None:
        if event.type is EventType.CONNECTION_OPENED:
            opened.set()

    multiplexer.subscribe(note)
    try:
        await multiplexer.start()
        return await _ask(multiplexer, units, opened)
    finally:
        await multiplexer.stop()


async def _ask(
    multiplexer: Multiplexer, units: Sequence[int], opened: asyncio.Event
) -> ProbeResult:
    protocol = make_protocol(multiplexer.settings)
    request = protocol.probe(None)
    if request is None:
        # nothing can be asked: that it connects is all that can be known
        try:
            async with asyncio.timeout(multiplexer.settings.timeout):
                await opened.wait()
        except TimeoutError:
            raise _error(multiplexer, Failure.NO_CONNECTION) from None
        return ProbeResult()
    payload = request.payload
    try:
        response = await multiplexer.request(payload)
    except RequestError as err:
        if err.failure is Failure.NO_RESPONSE and protocol.has_units:
            identity = await _identify(multiplexer, units)
            if identity is not None:
                return ProbeResult(f"unit {identity.unit}", identity)
        raise _error(multiplexer, err.failure) from err
    answer = protocol.describe(payload, response)
    if not protocol.has_units:
        return ProbeResult(answer)
    return ProbeResult(answer, await _identify(multiplexer, units))


async def _identify(multiplexer: Multiplexer, units: Sequence[int]) -> Identity | None:
    settings = multiplexer.settings
    await multiplexer.apply(
        replace(settings, timeout=min(settings.timeout, UNIT_SECONDS))
    )
    return (await ask_running(multiplexer, units)).identity


def _error(multiplexer: Multiplexer, failure: Failure) -> DeviceError:
    expects = multiplexer.settings.dial_in is not None
    away = DeviceProblem.NOT_DIALLED if expects else DeviceProblem.NO_PORT
    problem = _PROBLEMS.get(failure, away)
    return DeviceError(problem, multiplexer.snapshot().health_reason)
