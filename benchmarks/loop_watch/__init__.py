"""Tells how long Home Assistant's event loop was held: an integration for benchmarks.

A hold is the time from when the loop has been told what is ready until it asks again:
so long, nothing else gets its turn. Whoever connects to the port that the configuration
gives is told the longest hold since somebody was told, in seconds.
"""

import asyncio
from time import perf_counter
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.helpers.typing import ConfigType


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:
    """Watch from now on."""
    selector: Any = hass.loop._selector  # type: ignore[attr-defined] # noqa: SLF001
    select = selector.select
    told = perf_counter()
    longest = 0.0

    def watched(timeout: float | None = None) -> Any:
        nonlocal told, longest
        longest = max(longest, perf_counter() - told)
        ready = select(timeout)
        told = perf_counter()
        return ready

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal longest
        writer.write(str(longest).encode())
        longest = 0.0
        writer.close()

    selector.select = watched
    await asyncio.start_server(tell, "127.0.0.1", config["loop_watch"]["port"])
    return True
