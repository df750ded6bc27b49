"""The event loop of the command line: uvloop's, where that is installed.

It comes with the extra `fast`. The engine runs on asyncio's own as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import time


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop; None: asyncio's own is made."""
    try:
        import uvloop  # noqa: PLC0415 - it is optional, and there is none for Windows
    except ImportError:
        return None

    class Loop(uvloop.Loop):
        """A loop whose clock does not only tick in milliseconds, as uvloop's does.

        It is the same clock otherwise; response times are measured by it.
        """

        time = staticmethod(time.monotonic)

    return Loop
