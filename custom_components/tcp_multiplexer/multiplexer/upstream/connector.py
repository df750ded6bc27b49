"""Opens connections to the device, one at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..dispatch.exchange import Upstream
    from ..observe.statistics import Statistics

LOGGER = logging.getLogger(__name__)


class Connector:
    """Makes one attempt to connect at a time, or waits for the device to connect."""

    def __init__(
        self,
        make_upstream: Callable[[], Upstream],
        statistics: Statistics,
        name: str,
        *,
        expects: bool = False,
    ) -> None:
        self.expects = expects
        """The device connects to us: there are no attempts, and so none that fail."""
        self._make_upstream = make_upstream
        self._statistics = statistics
        self._name = name
        """For logs."""
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether an attempt is under way."""
        return self._task is not None

    def begin(
        self, opened: Callable[[Upstream], None], failed: Callable[[str], None]
    ) -> None:
        """Start an attempt; it calls `opened`, or `failed` with the reason."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._open(opened, failed))

    async def _open(
        self, opened: Callable[[Upstream], None], failed: Callable[[str], None]
    ) -> None:
        # A connection just closed is gone only after an iteration of the loop, and a
        # device with one slot must see its end before the next connection begins.
        await asyncio.sleep(0)
        self._statistics.connection_attempts += not self.expects
        upstream = self._make_upstream()
        reason = None
        try:
            await upstream.open()
        except (OSError, ValueError) as err:
            reason = str(err) or type(err).__name__
        except Exception as err:
            # A faulty resolver or `make_upstream` must not prevent the next attempt.
            LOGGER.exception("Connecting to %s failed in an unexpected way", self._name)
            reason = type(err).__name__
        self._task = None
        if reason is None:
            opened(upstream)
        else:
            failed(reason)

    async def cancel(self) -> None:
        """Cancel the attempt, if there is one; return once it has ended."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
