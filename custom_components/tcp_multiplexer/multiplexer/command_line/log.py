"""The log of the program: one line each on stderr, with the name of its device.

Everything that happens for a device runs in a context in which `DEVICE` is set: asyncio
hands the context on to whatever is begun in it, such as connections and timers.
"""

from __future__ import annotations

from contextvars import ContextVar
import logging

from ..observe.events import ClientRefusal, Event, EventType
from .flags import flag_of

DEVICE: ContextVar[str] = ContextVar("device", default="")
"""The name of the device for which something happens, if there are several."""
LOGGER = logging.getLogger(__name__)
_PACKAGE = __name__.rpartition(".")[0]


def configure_logging(level: int) -> None:
    """Log to stderr what the engine tells at this level, and always the start."""
    handler = logging.StreamHandler()
    handler.addFilter(_add_device)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(device)s%(message)s", handlers=[handler]
    )
    logging.getLogger(_PACKAGE.rpartition(".")[0]).setLevel(level)
    logging.getLogger(_PACKAGE).setLevel(min(level, logging.INFO))


def _add_device(record: logging.LogRecord) -> bool:
    name = DEVICE.get()
    record.device = f"{name}: " if name else ""
    return True


def name_of_setting(field: str) -> str:
    """Return how people set a setting: by a flag, or in the file with the devices."""
    return field if DEVICE.get() else flag_of(field)


class EventLog:
    """Logs the events that the engine itself does not log at this level."""

    def __init__(self, target: str, level: int) -> None:
        self._target = target
        self._level = level
        self._refused: set[str | None] = set()

    def __call__(self, event: Event) -> None:
        """Log an event."""
        why = event.detail or event.reason
        if event.type is EventType.CLIENT_REFUSED:
            self._log_refused(event)
        elif self._level == logging.WARNING:
            if event.type is EventType.UPSTREAM_LOST:
                LOGGER.warning("%s is unavailable: %s", self._target, why)
            elif event.type is EventType.UPSTREAM_BACK:
                LOGGER.warning("%s is back", self._target)
        elif event.type is EventType.HEALTH_CHANGED:
            detail = f": {event.detail}" if event.detail else ""
            LOGGER.info("%s is %s%s", self._target, event.reason, detail)
        elif event.type is EventType.CONNECTION_FAILED:
            LOGGER.info("Could not connect to %s: %s", self._target, why)
        elif self._level == logging.INFO:  # at DEBUG, the engine logs these itself
            if event.type is EventType.CONNECTION_OPENED:
                LOGGER.info("Connected to %s", self._target)
            elif event.type is EventType.CONNECTION_CLOSED:
                LOGGER.info("Disconnected from %s: %s", self._target, event.reason)

    def _log_refused(self, event: Event) -> None:
        """Warn once per address: refused clients keep trying."""
        first = event.client not in self._refused and len(self._refused) < 100
        if first:
            self._refused.add(event.client)
        level = logging.WARNING if first else logging.DEBUG
        reason = (event.reason or "").replace("_", " ")
        if event.reason is ClientRefusal.NOT_ALLOWED:
            reason += f"; see {name_of_setting('allowed_networks')}"
        LOGGER.log(level, "Client %s refused: %s", event.client, reason)
