"""System health: whether the multiplexers of this Home Assistant work, at a glance."""

from typing import Any

from homeassistant.components import system_health
from homeassistant.core import HomeAssistant, callback

from .const import DOMAIN
from .coordinator import TcpMultiplexerConfigEntry
from .multiplexer import __version__


@callback
def async_register(
    hass: HomeAssistant, register: system_health.SystemHealthRegistration
) -> None:
    """Register what system health shows."""
    register.async_register_info(_async_info)


async def _async_info(hass: HomeAssistant) -> dict[str, Any]:
    """Count running entries, connected devices, clients and requests."""
    entries = hass.config_entries.async_entries(DOMAIN, include_disabled=False)
    loaded: list[TcpMultiplexerConfigEntry]
    loaded = hass.config_entries.async_loaded_entries(DOMAIN)
    snapshots = [entry.runtime_data.multiplexer.snapshot() for entry in loaded]
    connected = sum(snapshot.connections > 0 for snapshot in snapshots)
    return {
        "version": __version__,
        "entries": f"{len(snapshots)}/{len(entries)}",
        "upstreams": f"{connected}/{len(snapshots)}",
        "clients": sum(len(snapshot.clients) for snapshot in snapshots),
        "requests": sum(snapshot.requests for snapshot in snapshots),
        "failures": sum(sum(snapshot.failures.values()) for snapshot in snapshots),
    }
