"""Statistics of a day, always the same: a demo that has just started has none."""

from datetime import UTC, datetime, timedelta
from itertools import accumulate
from math import sin

from tests.demo import Api

_HOURS = 24


async def import_day(api: Api) -> None:
    """Let the recorder have the last day of what the dashboard draws."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    starts = [
        (now - timedelta(hours=hour)).isoformat() for hour in range(_HOURS, 0, -1)
    ]
    means = [24 + 5 * sin(hour / 3) for hour in range(_HOURS)]
    await _import(
        api,
        "response_time",
        {"mean_type": 1, "has_sum": False, "unit_of_measurement": "ms"},
        [
            {"start": start, "mean": mean, "min": mean - 3, "max": 2 * mean}
            for start, mean in zip(starts, means, strict=True)
        ],
    )
    saved = [round(900 + 400 * sin(hour / 4)) for hour in range(_HOURS)]
    failed = [6 if hour == 7 else 2 if hour in {8, 19} else 0 for hour in range(_HOURS)]
    for sensor, counts in (("saved_reads", saved), ("failed_requests", failed)):
        await _import(
            api,
            sensor,
            {"mean_type": 0, "has_sum": True, "unit_of_measurement": None},
            [
                {"start": start, "state": total, "sum": total}
                for start, total in zip(starts, accumulate(counts), strict=True)
            ],
        )


async def _import(
    api: Api,
    sensor: str,
    metadata: dict[str, object],
    rows: list[dict[str, float | str]],
) -> None:
    names = {"statistic_id": f"sensor.inverter_{sensor}", "source": "recorder"}
    await api.command(
        "recorder/import_statistics",
        metadata=metadata
        | names
        | {"name": None, "unit_class": "duration" if "mean" in rows[0] else None},
        stats=rows,
    )
