"""Try a plan: bind its port, and ask its device the way the entry will.

A running entry holds the device's only slot, and its port. So the entry that is
reconfigured is unloaded meanwhile, but only if what it holds must be tried: another
device is asked while the old one goes on being served. A device at another port of the
same host may be the same one; so it is asked once more without the entry, should it not
answer.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_HOST
from homeassistant.core import HomeAssistant

from ..const import (
    CONF_DIAL_IN_PORT,
    CONF_PROFILE,
    CONF_UPSTREAM,
    SHARED_UPSTREAMS,
)
from ..coordinator import TcpMultiplexerConfigEntry
from ..entry_settings import GENERIC
from ..multiplexer import PROFILES
from ..serial_ports import async_prepare_serial
from .fields import FieldError
from .local_ports import (
    async_bind,
    async_check_others,
    async_other_entries,
    is_reached,
    listen_addresses,
)
from .plan import Plan
from .probe import DeviceError, ProbeResult, Report, Stage, ask_device, ask_running
from .probe_route import DIAL_IN_SECONDS, ask_with_multiplexer
from .probe_shared import async_ask_shared


@asynccontextmanager
async def async_try(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry | None,
    plan: Plan,
    report: Report,
) -> AsyncIterator[ProbeResult]:
    """Try a plan, and yield what the device answered; `report` its stages.

    If `entry` had to be unloaded, it is set up again after the block, with what the
    block has changed in it.

    Raises:
        FieldError: something that was typed cannot be used.
        DeviceError: the device does not answer.

    """
    await _async_check_own_listeners(hass, entry, plan)
    async with AsyncExitStack() as released:
        if plan.to_try.release:
            await released.enter_async_context(_async_out_of_the_way(hass, entry))
        if plan.to_try.bind:
            await async_bind(hass, plan.listen_address)
        if plan.to_try.dial and plan.dial_in_address is not None:
            await async_bind(hass, plan.dial_in_address, CONF_DIAL_IN_PORT)
        try:
            result = await _async_ask_device(hass, entry, plan, report)
        except DeviceError:
            if not plan.to_try.release_if_needed:
                raise
            await released.enter_async_context(_async_out_of_the_way(hass, entry))
            result = await _async_ask_device(hass, entry, plan, report)
        yield result


async def _async_check_own_listeners(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry | None, plan: Plan
) -> None:
    """Check the plan against what this integration listens on.

    Raises:
        FieldError: another entry has the port, or the device is one of our listeners.

    """
    settings = plan.settings
    siblings = listen_addresses(entry)[1:] if entry else []
    await async_check_others(hass, entry, plan.listen_address, siblings)
    if (dial_in := plan.dial_in_address) is not None:
        taken = [plan.listen_address, *siblings]
        await async_check_others(hass, entry, dial_in, taken, CONF_DIAL_IN_PORT)
    if not settings.host:
        return
    own = [plan.listen_address, *siblings]
    if await is_reached(settings.host, settings.port, own):
        raise FieldError(CONF_HOST, "itself")
    for other in async_other_entries(hass, entry):
        if await is_reached(settings.host, settings.port, listen_addresses(other)):
            raise FieldError(CONF_HOST, "own_listener", title=other.title)


@asynccontextmanager
async def _async_out_of_the_way(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry | None
) -> AsyncIterator[None]:
    """Unload the entry that is reconfigured, while what it holds is tried."""
    # If it cannot be unloaded, it stays; the trial then shows what is wrong.
    released = entry is not None and await hass.config_entries.async_unload(
        entry.entry_id
    )
    try:
        yield
    finally:
        if released and entry and entry.state is ConfigEntryState.NOT_LOADED:
            await hass.config_entries.async_setup(entry.entry_id)


async def _async_ask_device(
    hass: HomeAssistant,
    entry: TcpMultiplexerConfigEntry | None,
    plan: Plan,
    report: Report,
) -> ProbeResult:
    """Ask the device something harmless, the way the entry will.

    Raises:
        DeviceError: it does not answer.

    """
    profile = PROFILES.get(plan.data[CONF_PROFILE], PROFILES[GENERIC])
    report(Stage.ASKING)
    if plan.to_try.ask and entry:
        return await ask_running(entry.runtime_data.multiplexer, profile.units)
    if not plan.to_try.dial:
        return ProbeResult()
    if plan.data[CONF_UPSTREAM] in SHARED_UPSTREAMS:
        return await async_ask_shared(hass, plan.settings)
    if plan.settings.serial is not None:
        await async_prepare_serial(hass)
        return await ask_with_multiplexer(plan.settings, profile.units)
    if plan.settings.dial_in is not None:
        report(Stage.WAITING)
        return await ask_with_multiplexer(
            plan.settings, profile.units, seconds=DIAL_IN_SECONDS
        )
    return await ask_device(plan.settings, profile.units, report)
