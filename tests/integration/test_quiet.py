"""What an hour costs in the recorder's database: an hour of a clock that runs ahead.

The recorder, the sockets and the engine are real. Only waiting is not: whenever there
is nothing to do, the loop's clock jumps to the next timer.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, contextmanager, suppress
import logging
import os
import time
from typing import Any

from homeassistant.components.logbook.const import DOMAIN as LOGBOOK_DOMAIN
from homeassistant.components.recorder import Recorder
from homeassistant.components.recorder.db_schema import (
    Events,
    EventTypes,
    States,
    StatesMeta,
)
from homeassistant.components.recorder.util import session_scope
from homeassistant.const import EVENT_LOGBOOK_ENTRY
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
)

from tests.waiting import until
from tests.wire import read

from .peers import ModbusClient, ModbusDevice
from .test_init import listen_port

SECONDS = float(os.environ.get("QUIET_SECONDS", "3600"))
CLIENTS = 3
POLLING, OUTAGE, FLAPPING = 60, 60, 120
"""Rows an hour that are promised."""
RESPONSE_SECONDS = 0.03
GRACE_SECONDS = 0.00005


@pytest.fixture(autouse=True)
def custom_integrations(recorder_db_url: str, enable_custom_integrations: None) -> None:
    """Let Home Assistant find the integration, once there is a database."""


class RunningAhead:
    """A selector that does not wait, and the time that it would have waited.

    It does wait for an executor: hours would pass while a thread works, and Home
    Assistant gives up a set-up after five minutes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._selector = loop._selector  # type: ignore[attr-defined]  # noqa: SLF001
        self._time = loop.time
        self._run_in_executor = loop.run_in_executor
        self._jobs: set[asyncio.Future[Any]] = set()
        self.ahead = 0.0

    def time(self) -> float:
        """Give the time of the loop, in seconds."""
        return self._time() + self.ahead

    def select(self, timeout: float | None = None) -> Any:
        """Give what is ready; if nothing is, let the time pass in which nothing is."""
        ready = self._selector.select(timeout if self._jobs else 0)
        if not ready and timeout and not self._jobs:
            # What is on its way within the machine is not behind time.
            time.sleep(GRACE_SECONDS)
            ready = self._selector.select(0)
            if not ready:
                self.ahead += timeout
        return ready

    def run_in_executor(self, *args: Any) -> asyncio.Future[Any]:
        """Run a job in an executor, during which the clock goes as others do."""
        job = self._run_in_executor(*args)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def __getattr__(self, name: str) -> Any:
        """Be a selector otherwise."""
        return getattr(self._selector, name)


@contextmanager
def running_ahead() -> Generator[None]:
    """Let the clock of the loop jump while there is nothing to do."""
    loop = asyncio.get_running_loop()
    clock = RunningAhead(loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_selector", clock)
        patch.setattr(loop, "time", clock.time)
        patch.setattr(loop, "run_in_executor", clock.run_in_executor)
        yield


async def poll(port: int, number: int) -> None:
    """Ask once a second what all ask, and two reads of one's own."""
    own = (read(100 * number, 10), read(100 * number + 50, 10))
    loop = asyncio.get_running_loop()
    async with ModbusClient(port, f"127.0.0.{number}") as client:
        due = loop.time()
        while True:
            for request in (read(7, 10), *own):
                await client.ask(request)
            due = max(due + 1, loop.time())
            await asyncio.sleep(due - loop.time())


async def rows(hass: HomeAssistant, entry: MockConfigEntry) -> Counter[str]:
    """Count the rows of an entry: states by entity, and rows of the logbook."""
    await async_wait_recording_done(hass)
    registry = er.async_get(hass)
    ours = {
        entity.entity_id
        for entity in er.async_entries_for_config_entry(registry, entry.entry_id)
    }
    with session_scope(hass=hass, read_only=True) as session:
        counted = Counter(
            entity_id
            for (entity_id,) in session.query(StatesMeta.entity_id).join(
                States, States.metadata_id == StatesMeta.metadata_id
            )
            if entity_id in ours
        )
        counted["logbook"] = (
            session.query(Events)
            .join(EventTypes, Events.event_type_id == EventTypes.event_type_id)
            .where(EventTypes.event_type == EVENT_LOGBOOK_ENTRY)
            .count()
        )
    return counted


@pytest.fixture
async def polled(
    recorder_mock: Recorder,
    hass: HomeAssistant,
    entry: MockConfigEntry,
    device: ModbusDevice,
) -> AsyncGenerator[MockConfigEntry]:
    """Return an entry with defaults whose device is polled by three clients."""
    asyncio.get_running_loop().set_debug(False)
    logging.disable(logging.INFO)
    hass.config.components.add(LOGBOOK_DOMAIN)
    device.delay = RESPONSE_SECONDS
    async with AsyncExitStack() as stack:
        stack.enter_context(running_ahead())
        stack.push_async_callback(asyncio.sleep, 2 * RESPONSE_SECONDS)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
        port = listen_port(hass, entry)
        for number in range(1, CLIENTS + 1):
            task = asyncio.create_task(poll(port, number))
            stack.callback(task.cancel)
        await until(lambda: hass.states.is_state("sensor.inverter_clients", "3"))
        yield entry
    logging.disable(logging.NOTSET)


async def an_hour(hass: HomeAssistant, entry: MockConfigEntry) -> Counter[str]:
    """Let an hour pass; give the rows that it cost."""
    before = await rows(hass, entry)
    snapshot = entry.runtime_data.multiplexer.snapshot
    asked = snapshot().requests
    await asyncio.sleep(SECONDS)
    assert snapshot().requests - asked > SECONDS  # they did poll, whatever came of it
    cost = await rows(hass, entry) - before
    logging.getLogger(__name__).warning("%d rows: %s", cost.total(), dict(cost))
    return cost


async def test_an_hour_of_polling(hass: HomeAssistant, polled: MockConfigEntry) -> None:
    assert (await an_hour(hass, polled)).total() <= POLLING


@pytest.mark.parametrize("way", ["off", "silent", "hanging up"])
async def test_an_hour_without_the_device(
    hass: HomeAssistant, polled: MockConfigEntry, device: ModbusDevice, way: str
) -> None:
    match way:
        case "off":
            await device.stop()
        case "silent":
            device.silent = True
        case "hanging up":
            device.silent = device.hangs_up = True
    assert (await an_hour(hass, polled)).total() <= OUTAGE


@pytest.mark.parametrize(
    ("there", "away"),
    [(10, 10), (300, 30)],
)
async def test_an_hour_of_a_device_that_comes_and_goes(
    hass: HomeAssistant,
    polled: MockConfigEntry,
    device: ModbusDevice,
    there: float,
    away: float,
) -> None:
    async def flap() -> None:
        while True:
            await asyncio.sleep(there)
            await device.stop()
            await asyncio.sleep(away)
            await device.start()

    flapping = asyncio.create_task(flap())
    assert (await an_hour(hass, polled)).total() <= FLAPPING
    flapping.cancel()
    with suppress(asyncio.CancelledError):
        await flapping
