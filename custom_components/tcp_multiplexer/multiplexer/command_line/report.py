"""The state of a running server as one line of JSON, for diagnosing a problem.

It has the fields of a `Snapshot` and, as `trace`, the last exchanges. It is printed by

    kill -USR1 PID
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..multiplexer import Multiplexer


def report(multiplexer: Multiplexer) -> str:
    """Return the state and the last exchanges of a multiplexer as JSON."""
    import json  # noqa: PLC0415 - 3 ms of a start

    state = asdict(multiplexer.snapshot())
    state["trace"] = [
        {**record._asdict(), **multiplexer.explain(record)}
        for record in multiplexer.trace()
    ]
    return json.dumps(state, default=_hex)


def _hex(data: bytes) -> str:
    """Return bytes, for which JSON has no word, in hexadecimal."""
    return data.hex(" ")
