"""Statistics of counts go on, though older versions had words for their units."""

from typing import Any

from homeassistant.components.recorder import get_instance
from homeassistant.components.recorder.models import (
    StatisticMeanType,
    StatisticMetaData,
)
from homeassistant.components.recorder.statistics import (
    async_import_statistics,
    get_metadata,
)
from homeassistant.const import UnitOfTime
from homeassistant.core import HomeAssistant
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
)

from .test_entities import FAILED, RESPONSE_TIME


@pytest.fixture(autouse=True)
def custom_integrations(recorder_db_url: str, enable_custom_integrations: None) -> None:
    """Let Home Assistant find the integration, once there is a database."""


async def test_statistics_of_counts_lose_their_unit(
    recorder_mock: Any, hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done(wait_background_tasks=True)
    hour = dt_util.utcnow().replace(minute=0, second=0, microsecond=0)
    before = {FAILED: "Anfragen", RESPONSE_TIME: UnitOfTime.MILLISECONDS}
    for statistic_id, unit in before.items():
        metadata = StatisticMetaData(
            has_sum=True,
            mean_type=StatisticMeanType.NONE,
            name=None,
            source="recorder",
            statistic_id=statistic_id,
            unit_class="duration" if statistic_id == RESPONSE_TIME else None,
            unit_of_measurement=unit,
        )
        async_import_statistics(hass, metadata, [{"start": hour, "sum": 7.0}])
    await async_wait_recording_done(hass)

    async def units() -> dict[str, str | None]:
        known = await get_instance(hass).async_add_executor_job(
            lambda: get_metadata(hass, statistic_ids={*before})
        )
        return {key: told["unit_of_measurement"] for key, (_, told) in known.items()}

    assert await units() == before
    assert await hass.config_entries.async_reload(entry.entry_id)
    await hass.async_block_till_done(wait_background_tasks=True)
    await async_wait_recording_done(hass)
    assert await units() == {**before, FAILED: None}
