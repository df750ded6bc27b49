"""Long-term statistics of counts, which had a word for a unit in older versions.

Where a sensor's unit differs from that of its statistics, the recorder stops compiling
them and raises an issue. A count is the same number with and without a word behind it.
"""

from functools import partial

from homeassistant.core import HomeAssistant

from .const import RECORDER_DOMAIN


async def async_forget_units(hass: HomeAssistant, counts: set[str]) -> None:
    """Leave the statistics of the sensors `counts` without a unit, as they are."""
    if RECORDER_DOMAIN not in hass.config.components:
        return
    from homeassistant.components.recorder import (  # noqa: PLC0415 - it may be missing
        get_instance,
        statistics,
    )

    known = await get_instance(hass).async_add_executor_job(
        partial(statistics.get_metadata, hass, statistic_ids=counts)
    )
    with_unit = [
        statistic_id
        for statistic_id, (_, metadata) in known.items()
        if metadata["unit_of_measurement"] is not None
    ]
    for statistic_id in with_unit:
        statistics.async_update_statistics_metadata(
            hass, statistic_id, new_unit_class=None, new_unit_of_measurement=None
        )
