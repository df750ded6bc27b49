"""Tells from within Home Assistant what it holds: memory, tasks, timers and such."""

import asyncio
import gc
from pathlib import Path
import resource
from typing import Final

from aiohttp import web
from homeassistant.components.http import KEY_HASS, HomeAssistantView
from homeassistant.core import HomeAssistant
from homeassistant.helpers.typing import ConfigType
from homeassistant.util.async_ import get_scheduled_timer_handles

URL: Final = "/api/soak_probe"
OURS: Final = "custom_components/tcp_multiplexer/"


def is_ours(what: object) -> bool:
    """Return whether a task or a timer is the integration's."""
    return OURS in repr(what)


def measure(loop: asyncio.AbstractEventLoop) -> dict[str, int]:
    """Return what this process holds at the moment; memory in bytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    timers = [
        each for each in get_scheduled_timer_handles(loop) if not each.cancelled()
    ]
    tasks = asyncio.all_tasks(loop)
    return {
        "memory": pages * resource.getpagesize(),
        "objects": len(gc.get_objects()),
        "tasks": len(tasks),
        "our tasks": sum(map(is_ours, tasks)),
        "timers": len(timers),
        "our timers": sum(map(is_ours, timers)),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "sockets": sum(link.is_socket() for link in Path("/proc/self/fd").iterdir()),
    }


class ProbeView(HomeAssistantView):
    """Where it is asked."""

    url = URL
    name = "api:soak_probe"
    requires_auth = False  # A token would end within a soak; only this machine asks.

    async def get(self, request: web.Request) -> web.Response:
        """Return the measures."""
        return self.json(measure(request.app[KEY_HASS].loop))

    async def post(self, request: web.Request) -> web.Response:
        """Reload the integration, as its owner may."""
        entries = request.app[KEY_HASS].config_entries
        loaded = [
            await entries.async_reload(entry.entry_id)
            for entry in entries.async_entries("tcp_multiplexer")
        ]
        return self.json(loaded)


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:
    """Serve the measures."""
    hass.http.register_view(ProbeView())
    return True
