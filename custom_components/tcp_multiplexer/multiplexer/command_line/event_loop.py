"""The event loop of the command line: uvloop's, where that is installed.

It comes with the extra `fast`. The engine runs on asyncio's own as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
import time

type _Factory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory() -> _Factory | None:
    """Return what makes the event loop; None: asyncio's own is made."""
    return _uvloop() if find_spec("uvloop") else None


# The tests run it where it is installed: script/test --compiled.
def _uvloop() -> _Factory:  # pragma: no cover
    import uvloop  # noqa: PLC0415 - it is optional, and there is none for Windows

    class Loop(uvloop.Loop):
        """A loop whose clock does not only tick in milliseconds, as uvloop's does.

        It is the same clock otherwise; response times are measured by it.
        """

        time = staticmethod(time.monotonic)

    return Loop
