"""The state of a running server as one line of JSON, for diagnosing a problem.

It has the fields of a `Snapshot` and, as `trace`, the last exchanges. It is printed by

    kill -USR1 PID
"""

from dataclasses import asdict
import enum
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..multiplexer import Multiplexer


def report(multiplexer: Multiplexer) -> str:
    """Return the state and the last exchanges of a multiplexer as JSON."""
    state = asdict(multiplexer.snapshot())
    state["trace"] = [
        {**record._asdict(), **multiplexer.explain(record)}
        for record in multiplexer.trace()
    ]
    return json.dumps(state, default=_plain)


def _plain(value: Any) -> str:
    """Return what JSON has no type for: an enumeration's value, bytes in hex."""
    if isinstance(value, enum.Enum):
        return str(value.value)
    return bytes(value).hex(" ")
