"""What of a soak's measures is a leak."""

from collections.abc import Mapping
from typing import Final

ALLOWED: Final = {
    "memory": 4 << 20,
    "our tasks": 0,
    "our timers": 0,
    "sockets": 0,
    # Those of Home Assistant's own come and go.
    "tasks": 5,
    "timers": 5,
    "descriptors": 3,
}
"""How much more there may be at the end; memory in bytes."""


def leaks(settled: Mapping[str, int], end: Mapping[str, int]) -> list[str]:
    """Return in words what has grown further than it may."""
    return [
        f"{name}: {settled[name]:,} when settled, {end[name]:,} at the end"
        for name, allowed in ALLOWED.items()
        if end[name] - settled[name] > allowed
    ]
