"""The state of a running server as one line of JSON, for diagnosing a problem.

It has the fields of a `Snapshot` and, as `trace`, the last exchanges; of several
devices, each has these under its name. It is printed by

    kill -USR1 PID
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..multiplexer import Multiplexer
    from .devices import Devices


def report(devices: Devices) -> str:
    """Return states and last exchanges as JSON, by name if devices have names."""
    import json  # noqa: PLC0415 - 3 ms of a start

    states = {device.name: _state(device.multiplexer) for device in devices}
    return json.dumps(states.get("", states), default=_hex)


def _state(multiplexer: Multiplexer) -> dict[str, Any]:
    """Return the state and the last exchanges of a multiplexer."""
    state = asdict(multiplexer.snapshot())
    state["trace"] = [
        {**record._asdict(), **multiplexer.explain(record)}
        for record in multiplexer.trace()
    ]
    return state


def _hex(data: bytes) -> str:
    """Return bytes, for which JSON has no word, in hexadecimal."""
    return data.hex(" ")
