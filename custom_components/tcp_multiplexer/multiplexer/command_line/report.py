"""What a running server knows, for who looks into a problem: one line of JSON.

    kill -USR1 PID

has it printed: everything of a `Snapshot` and, as `trace`, the last exchanges.
"""

from dataclasses import asdict
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..multiplexer import Multiplexer


def report(multiplexer: Multiplexer) -> str:
    """Give the state and the last exchanges of a multiplexer, as JSON."""
    told = asdict(multiplexer.snapshot())
    told["trace"] = [
        {**record._asdict(), **multiplexer.explain(record)}
        for record in multiplexer.trace()
    ]
    return json.dumps(told, default=_hex)


def _hex(data: bytes) -> str:
    """Return bytes, for which JSON has no word, in hexadecimal."""
    return data.hex(" ")
