"""What a running server knows, for who looks into a problem: one line of JSON.

    kill -USR1 PID

has it printed: everything of a `Snapshot` and, as `trace`, the last exchanges.
"""

from dataclasses import asdict
import enum
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..multiplexer import Multiplexer


def report(multiplexer: Multiplexer) -> str:
    """Give the state and the last exchanges of a multiplexer, as JSON."""
    told = asdict(multiplexer.snapshot())
    told["trace"] = [
        {**record._asdict(), **multiplexer.explain(record)}
        for record in multiplexer.trace()
    ]
    return json.dumps(told, default=_plain)


def _plain(value: Any) -> str:
    """Give what JSON has no word for: an enumeration's value, bytes in hex."""
    if isinstance(value, enum.Enum):
        return str(value.value)
    return bytes(value).hex(" ")
