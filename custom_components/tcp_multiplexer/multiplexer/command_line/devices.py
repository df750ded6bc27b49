"""The devices that the program shares: started, changed and stopped by name.

Each has a multiplexer of its own, and runs in a context of its own, so that every line
of the log can name it. A change of one leaves the others alone.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from dataclasses import fields, replace
import logging
from typing import TYPE_CHECKING, Any

from ..logger_search import find_logger_serial
from ..multiplexer import Multiplexer
from ..networks import format_address
from ..protocols.options import Framing
from ..settings import Settings
from .file_values import reason
from .log import DEVICE, EventLog, name_of_setting
from .places import places

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping

LOGGER = logging.getLogger(__name__)


class StartError(ValueError):
    """A device cannot be shared; the text says why, and `device` and `field` where."""

    def __init__(self, device: str, err: Exception) -> None:
        if isinstance(err, OSError):
            super().__init__(f"cannot listen: {err.strerror or err}")
        else:
            super().__init__(reason(err))
        self.device = device
        self.field: str | None = getattr(err, "field", None)
        """The setting that is wrong, if it is one."""
        self.is_port = isinstance(err, OSError)
        """Another local port would do."""


def explained(error: StartError, setting: Callable[[str], str]) -> str:
    """Return why a device could not be started, with what to do.

    `setting` gives the name under which its owner knows a setting.
    """
    field = f"{setting(error.field)}: " if error.field else ""
    hint = f"; choose another port with {setting('listen_port')}"
    return f"{field}{error}{hint if error.is_port else ''}"


class Device:
    """One device that is shared."""

    multiplexer: Multiplexer

    def __init__(
        self, name: str, wanted: Settings, level: int, *, detailed: bool
    ) -> None:
        """Log under `name`, which is empty if there are no others, at `level`.

        `detailed` counts what metrics need.
        """
        self.name = name
        self.wanted = wanted
        """As they were given: those in force may have more, which was learned."""
        self._level = level
        self._detailed = detailed
        self._context = copy_context()
        self._context.run(DEVICE.set, name)

    @property
    def label(self) -> str:
        """Its name, or where it is."""
        return self.name or self.wanted.target

    async def _run[ResultT](self, action: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run something in the context of this device."""
        loop = asyncio.get_running_loop()
        return await loop.create_task(action, context=self._context)

    async def start(self) -> None:
        """Share the device.

        Raises:
            StartError: a local address cannot be opened, or a certificate not used.

        """
        await self._run(self._start())

    async def _start(self) -> None:
        settings = self.wanted
        if settings.framing is Framing.SOLARMAN and not settings.logger_serial:
            settings = await _with_logger_serial(settings)
        try:
            self.multiplexer = Multiplexer(settings, detailed=self._detailed)
            self.multiplexer.subscribe(EventLog(settings.target, self._level))
            await self.multiplexer.start()
        except (OSError, ValueError) as err:
            raise StartError(self.name, err) from err
        listening = self.multiplexer.snapshot().listen_addresses
        LOGGER.info(
            "Listening on %s; %s goes to %s",
            ", ".join(format_address(*address) for address in listening),
            settings.protocol,
            settings.target,
        )

    async def stop(self) -> None:
        """Close all of its sockets."""
        await self._run(self.multiplexer.stop())

    async def change(self, wanted: Settings) -> bool:
        """Apply changed settings; return False if it has to be started anew for them.

        Raises:
            StartError: a further local address cannot be opened.

        """
        changed = {
            each.name: getattr(wanted, each.name)
            for each in fields(Settings)
            if getattr(wanted, each.name) != getattr(self.wanted, each.name)
        }
        settings = replace(self.multiplexer.settings, **changed)
        try:
            done = await self._run(self.multiplexer.apply(settings))
        except (OSError, ValueError) as err:
            raise StartError(self.name, err) from err
        if done:
            self.wanted = wanted
            self._context.run(LOGGER.info, "Changed: %s", ", ".join(changed))
        return done


async def _with_logger_serial(settings: Settings) -> Settings:
    """Return the settings with the serial number that the stick tells, if it does."""
    serial = await find_logger_serial(settings.host) if settings.host else 0
    if serial:
        LOGGER.info("The logger's serial number is %d", serial)
    else:
        LOGGER.warning(
            "The logger at %s does not tell its serial number; give it with %s if "
            "there are no responses",
            settings.target,
            name_of_setting("logger_serial"),
        )
    return replace(settings, logger_serial=serial)


class Devices:
    """All devices that are shared, by name."""

    def __init__(self, level: int, *, detailed: bool) -> None:
        self._level = level
        self._detailed = detailed
        self._running: dict[str, Device] = {}

    def __iter__(self) -> Iterator[Device]:
        """Iterate over those that are shared."""
        return iter(self._running.values())

    async def start(self, wanted: Mapping[str, Settings]) -> list[StartError]:
        """Start sharing devices; return why some could not be."""
        devices = [
            Device(name, settings, self._level, detailed=self._detailed)
            for name, settings in wanted.items()
        ]
        errors = await _each(self._start(device) for device in devices)
        return [error for error in errors if error is not None]

    async def _start(self, device: Device) -> None:
        await device.start()
        self._running[device.name] = device

    async def stop(self) -> None:
        """Stop sharing."""
        await self._stop(tuple(self._running))

    async def _stop(self, names: Iterable[str]) -> None:
        gone = [self._running.pop(name) for name in names]
        await asyncio.gather(*(device.stop() for device in gone))

    async def change(self, wanted: Mapping[str, Settings]) -> list[StartError]:
        """Share other devices, or with other settings; leave all others alone.

        Returns why some devices could not be started. If a local address that is new
        cannot be opened, nothing at all is changed.
        """
        errors = await self._check_places(wanted)
        if errors:
            return errors
        anew, gone = {}, [name for name in self._running if name not in wanted]
        for name, settings in wanted.items():
            device = self._running.get(name)
            if device is None:
                anew[name] = settings
            elif settings != device.wanted:
                try:
                    if not await device.change(settings):
                        anew[name] = settings
                        gone.append(name)
                except StartError as err:
                    errors.append(err)
        if gone:
            await self._stop(gone)
            LOGGER.info("Stopped: %s", ", ".join(gone))
        return errors + await self.start(anew)

    async def _check_places(self, wanted: Mapping[str, Settings]) -> list[StartError]:
        """Try the local ports that are not open yet."""
        loop = asyncio.get_running_loop()
        ours = {
            port
            for device in self
            for _, _, port in places(device.multiplexer.settings)
        }
        errors = []
        for name, settings in wanted.items():
            for _, host, port in places(settings):
                if port in ours:
                    continue
                try:
                    server = await loop.create_server(
                        asyncio.Protocol, host, port, start_serving=False
                    )
                except OSError as err:
                    errors.append(StartError(name, err))
                else:
                    server.close()
        return errors


async def _each(
    actions: Iterable[Coroutine[Any, Any, None]],
) -> list[StartError | None]:
    """Run actions at the same time; return how each failed, if it did."""

    async def outcome(action: Coroutine[Any, Any, None]) -> StartError | None:
        try:
            await action
        except StartError as err:
            return err
        return None

    return await asyncio.gather(*(outcome(action) for action in actions))
