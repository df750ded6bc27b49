"""A multiplexer at work leaves Home Assistant in peace.

The device and its clients are a process of their own, so that what is measured here
is ours. `LOAD_SECONDS` and `LOAD_RELOADS` in the environment make it last longer:
what leaks slowly is seen only then.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
import gc
import json
import logging
import os
from pathlib import Path
import resource
import socket
import sys
import time
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_PORT, EVENT_STATE_CHANGED, EVENT_STATE_REPORTED
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.util.async_ import get_scheduled_timer_handles
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.const import (
    CONF_LISTEN_PORT,
    CONF_PAUSED,
    DOMAIN,
)

from .test_init import is_free, listen_port

SECONDS = float(os.environ.get("LOAD_SECONDS", "2"))
RATE = 1000
WRITES_AT_ONCE = 30
WRITES_A_SECOND = 4
CALLBACK_P999 = 0.002 if SECONDS >= 60 else 0.005
"""Of a short run it is the second or third longest, beside another worker's tests."""
CALLBACK_LONGEST = 0.020 if SECONDS >= 60 else 0.040
"""Beside another worker's tests, the same takes up to twice as long."""
RELOADS = int(os.environ.get("LOAD_RELOADS", "15"))
TRAFFIC_SECONDS = 0.2
"""Between two reloads."""
SETTLED = 10
GROWTH = 2 << 20


@pytest.fixture(autouse=True)
async def as_in_earnest() -> AsyncGenerator[None]:
    """Measure what users run: no asyncio debugging, no logs kept.

    The garbage collector's pauses belong to the whole process and to how much it
    holds; here that is a test session.
    """
    asyncio.get_running_loop().set_debug(False)
    logging.disable(logging.INFO)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)


class Load:
    """The other process; see `load.py`."""

    def __init__(self, process: Process, device_port: int) -> None:
        """Keep the process, which waits for `begin`."""
        self._process = process
        self.device_port = device_port

    def begin(self, port: int) -> None:
        """Let the clients loose on a port."""
        assert self._process.stdin
        self._process.stdin.write(f"{port}\n".encode())

    async def end(self) -> Counter[str]:
        """Give what the clients saw."""
        output, _ = await self._process.communicate()
        return Counter(json.loads(output))


@asynccontextmanager
async def load(way: str) -> AsyncGenerator[Load]:
    """Start a device and clients that act in some way."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.integration.load", way, str(RATE)),
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        assert process.stdout
        yield Load(process, int(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextmanager
def state_writes(hass: HomeAssistant) -> Generator[Counter[str]]:
    """Count what is written to the state machine, changed or not."""
    writes: Counter[str] = Counter()

    @callback
    def count(event: Event[Any]) -> None:
        writes[event.data["entity_id"]] += 1

    stop = (
        hass.bus.async_listen(EVENT_STATE_CHANGED, count),
        hass.bus.async_listen(EVENT_STATE_REPORTED, count, callback(lambda _: True)),
    )
    yield writes
    for unsubscribe in stop:
        unsubscribe()


@contextmanager
def callback_times() -> Generator[list[float]]:
    """Measure the processor time, in seconds, of each callback that the loop runs.

    All are measured: ours cannot be told from asyncio's that call them, and hardly
    anything else runs.
    """
    times: list[float] = []
    run = asyncio.Handle._run  # noqa: SLF001 - there is no other door
    clock = time.thread_time

    def timed(handle: asyncio.Handle) -> None:
        begin = clock()
        run(handle)
        times.append(clock() - begin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", timed)
        yield times


@pytest.mark.parametrize(
    ("way", "data", "options", "expected"),
    [
        pytest.param("ask", {}, {}, "answered", id="answered"),
        pytest.param("ask", {CONF_PAUSED: True}, {}, "refused", id="refused"),
        pytest.param(
            "come_and_go",
            {},
            {"allowed_networks": ["10.0.0.0/8"]},
            "disconnected",
            id="clients_refused",
        ),
        pytest.param("come_and_go", {}, {}, "answered", id="clients_come_and_go"),
        pytest.param("flap", {}, {}, "answered", id="device_hangs_up"),
    ],
)
async def test_state_writes_and_callbacks_under_load(  # noqa: PLR0917
    hass: HomeAssistant,
    entry: MockConfigEntry,
    way: str,
    data: dict[str, Any],
    options: dict[str, Any],
    expected: str,
) -> None:
    async with load(way) as clients:
        hass.config_entries.async_update_entry(
            entry,
            data={**entry.data, CONF_PORT: clients.device_port, **data},
            options=options,
        )
        assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
        clients.begin(listen_port(hass, entry))
        with state_writes(hass) as writes, callback_times() as times:
            await asyncio.sleep(SECONDS)
        seen = await clients.end()
    # A busy machine gives less than was asked for; much less would measure nothing.
    assert seen[expected] > 0.1 * RATE * SECONDS
    assert writes.total() <= WRITES_AT_ONCE + WRITES_A_SECOND * SECONDS
    times.sort()
    assert times[int(len(times) * 0.999)] < CALLBACK_P999
    assert times[-1] < CALLBACK_LONGEST


def sockets() -> int:
    """Count the sockets that this process holds."""
    return sum(link.is_socket() for link in Path("/proc/self/fd").iterdir())


def is_ours(what: object) -> bool:
    """Tell whether a task or a timer is the integration's.

    (The folder of the whole checkout may well have its name, too.)
    """
    return f"custom_components/{DOMAIN}/" in repr(what)


def our_timers() -> list[asyncio.TimerHandle]:
    """Give the timers of ours that wait; Home Assistant has some too."""
    handles = get_scheduled_timer_handles(asyncio.get_running_loop())
    return [handle for handle in handles if not handle.cancelled() and is_ours(handle)]


def memory() -> int:
    """Give the memory, in bytes, that this process really holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def test_reloads_under_traffic_leave_nothing_behind(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    left_behind = []

    async with load("ask") as clients:
        hass.config_entries.async_update_entry(
            entry,
            data={
                **entry.data,
                CONF_PORT: clients.device_port,
                CONF_LISTEN_PORT: port,
            },
        )
        before = sockets(), asyncio.all_tasks()

        @callback
        def look() -> None:
            """Note what is left, the moment that the entry is unloaded."""
            if entry.state is ConfigEntryState.NOT_LOADED:
                left_behind.append(
                    (
                        is_free(port),
                        sockets() - before[0],
                        set(filter(is_ours, asyncio.all_tasks() - before[1])),
                        our_timers(),
                    )
                )

        entry.async_on_state_change(look)
        assert await hass.config_entries.async_setup(entry.entry_id)
        clients.begin(port)
        settled = 0
        for count in range(1, RELOADS + 1):
            assert await hass.config_entries.async_reload(entry.entry_id)
            await asyncio.sleep(TRAFFIC_SECONDS)
            if count == SETTLED:
                settled = memory()
        assert left_behind == [(True, 0, set(), [])] * RELOADS
        assert memory() - settled <= GROWTH
        seen = await clients.end()
    assert seen["answered"] > 0.1 * RATE * RELOADS * TRAFFIC_SECONDS
