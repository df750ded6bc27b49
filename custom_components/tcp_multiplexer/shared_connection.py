"""An upstream over the Modbus connections that Home Assistant shares.

Integrations that use `modbus.async_get_unit` share one connection per device: over
TCP, over a serial port, or with RTU frames over TCP. With this kind of upstream the
multiplexer is one of them: external clients and those integrations use the same
connection, and none needs another address.

`shared_unit.py` translates frames into calls. The connection is Home Assistant's: it is
never closed, and its timing is never changed from here.

The `modbus` integration is imported when the first entry of this kind is set up, so
that no other entry pays for it.
"""

import asyncio
from collections.abc import Callable, Iterable
import logging
import os
from typing import Any, Final, cast, override

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.requirements import async_get_integration_with_requirements

from .addresses import format_endpoint
from .const import LOGGER, MODBUS_DOMAIN
from .multiplexer import (
    CloseReason,
    Exchange,
    Failure,
    Framing,
    Request,
    Settings,
    Upstream,
    UpstreamOwner,
)
from .shared_unit import Unit, ask

_SOCKET_BAUDRATE: Final = 115200
"""What integrations give for RTU over TCP, where it means nothing: all of them must
give the same."""

type Params = Any
"""A `modbus_connection.ModbusTcpParams` or `ModbusSerialParams`."""


async def async_prepare(hass: HomeAssistant) -> None:
    """Make sure that the `modbus` integration can be imported.

    Raises:
        RequirementsNotFound: its requirements cannot be installed.

    """
    await async_get_integration_with_requirements(hass, MODBUS_DOMAIN)
    await hass.async_add_import_executor_job(import_connection)


def import_connection() -> Any:
    """Return the module of the `modbus` integration that shares connections."""
    from homeassistant.components.modbus import connection  # noqa: PLC0415

    return connection


def link(settings: Settings) -> Params:
    """Return what Home Assistant knows the connection to this device by.

    `async_prepare` must have been awaited before.
    """
    from modbus_connection import ModbusSerialParams, ModbusTcpParams  # noqa: PLC0415

    if (line := settings.serial) is not None:
        return ModbusSerialParams(
            device=line.device,
            baudrate=line.baudrate,
            parity=cast(Any, line.parity.value[0].upper()),
            stopbits=cast(Any, line.stopbits),
        )
    if settings.framing is Framing.RTU:
        device = f"socket://{format_endpoint(settings.host, settings.port)}"
        return ModbusSerialParams(device=device, baudrate=_SOCKET_BAUDRATE)
    return ModbusTcpParams(host=settings.host, port=settings.port)


@callback
def async_shared_connections(hass: HomeAssistant) -> Iterable[Any]:
    """Return the connections that are shared: endpoint, units by entry, connected.

    Home Assistant 2026.9 does not tell.
    """
    if MODBUS_DOMAIN not in hass.config.components:
        return ()
    tell = getattr(import_connection(), "async_get_connection_info", None)
    return tell(hass) if tell else ()


async def async_name_in_use(hass: HomeAssistant, device: str) -> str:
    """Return the name by which Home Assistant already shares this serial port.

    A port has several names, and Home Assistant would open it once for each.
    """
    names = [
        each.endpoint[1]
        for each in async_shared_connections(hass)
        if each.endpoint[0] == "serial"
    ]
    return await hass.async_add_executor_job(_same_port, device, names)


def _same_port(device: str, names: Iterable[str]) -> str:
    port = os.path.realpath(device)
    return next((name for name in names if os.path.realpath(name) == port), device)


class Units:
    """The units of one device that an entry holds on the shared connection.

    `async_prepare` must have been awaited before `get`.
    """

    def __init__(
        self, hass: HomeAssistant, entry: ConfigEntry[Any], settings: Settings
    ) -> None:
        self._hass = hass
        self._entry = entry
        self._settings = settings
        self._units: dict[int, Unit] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """Requests in flight. They outlive an upstream that gave them up: cancelling
        one could cost the other integrations their connection."""
        self._surprised = False

    def get(self, number: int) -> Unit:
        """Return a unit, held until the entry is unloaded.

        Raises:
            HomeAssistantError: the device is already used with other link settings.

        """
        unit = self._units.get(number)
        if unit is None:
            unit = self._units[number] = import_connection().async_get_unit(
                self._hass, self._entry, link(self._settings), number
            )
        return unit

    def surprised(self) -> None:
        """Log an unknown failure; the first one so that people see it."""
        level = logging.DEBUG if self._surprised else logging.ERROR
        self._surprised = True
        LOGGER.log(level, "Home Assistant's Modbus connection failed", exc_info=True)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Which units are held, whether they are connected, and who else holds some."""
        endpoint = link(self._settings).endpoint
        holders = [
            self._hass.config_entries.async_get_entry(entry_id)
            for each in async_shared_connections(self._hass)
            if each.endpoint == endpoint
            for entry_id in each.units
        ]
        return {
            "connected": any(unit.connected for unit in self._units.values()),
            "units": sorted(self._units),
            "shared_with": sorted(
                entry.domain for entry in holders if entry and entry != self._entry
            ),
        }


class SharedConnectionUpstream(Upstream):
    """Carries exchanges over Home Assistant's connection, each in a task."""

    reaches_device = False

    def __init__(self, owner: UpstreamOwner, units: Units) -> None:
        super().__init__(owner)
        self._units = units
        self._loop = asyncio.get_running_loop()
        self._closed = False

    @override
    async def open(self) -> None:
        """Open nothing: Home Assistant connects at the first request."""
        self.opened_at = self.last_used = self.last_received = self._loop.time()

    @override
    def send(self, exchange: Exchange) -> None:
        self.in_flight[exchange.asked] = exchange
        self.sent += 1
        self.owner.statistics.bytes_to_upstream += len(exchange.asked.payload)
        task = self._loop.create_task(self._carry(exchange))
        self._units.tasks.add(task)
        task.add_done_callback(self._units.tasks.discard)

    async def _carry(self, exchange: Exchange) -> None:
        request = exchange.asked
        outcome: bytes | Failure = Failure.NO_RESPONSE
        try:
            outcome = await self._ask(request)
        finally:  # whatever happens, a cancellation too: its client is told at once
            self._end(exchange, request, outcome)

    async def _ask(self, request: Request) -> bytes | Failure:
        """Return the response, or why there is none."""
        from modbus_connection import (  # noqa: PLC0415
            ModbusConnectionError,
            ModbusError,
        )

        payload = request.payload
        try:
            return await ask(self._units.get(payload[0]), payload)
        except ModbusConnectionError:
            self.draining = self.draining or CloseReason.RESET
            # Nothing tells whether it was sent; only reads may be asked again.
            safe = request.retry_safe
            return Failure.NO_CONNECTION if safe else Failure.CONNECTION_LOST
        except ModbusError, TimeoutError:
            return Failure.NO_RESPONSE
        except HomeAssistantError:  # other link settings by now; it was not sent
            return Failure.NO_CONNECTION
        except Exception:  # noqa: BLE001 - whatever the library has not foreseen
            self._units.surprised()
            return Failure.NO_RESPONSE

    def _end(
        self, exchange: Exchange, request: Request, outcome: bytes | Failure
    ) -> None:
        if self._closed or self.in_flight.pop(request, None) is None:
            return  # no longer awaited
        if isinstance(outcome, Failure):
            self.owner.unanswerable(self, exchange, outcome)
            return
        self.received = True
        self.responses += 1
        self.timeouts_in_a_row = 0
        self.last_received = self._loop.time()
        self.owner.statistics.bytes_from_upstream += len(outcome)
        self.owner.answered(self, exchange, outcome)

    @override
    def begun(self, exchange: Exchange) -> bool:
        return False

    @override
    def expire(self, exchange: Exchange) -> bool:
        del self.in_flight[exchange.asked]
        return True

    @override
    def close(self, reason: CloseReason, detail: str = "") -> None:
        if not self._closed:
            self._closed = True
            if reason is CloseReason.STOPPED:
                for task in self._units.tasks:
                    task.cancel()
            self.owner.lost(self, reason, detail)


def make_upstream(units: Units) -> Callable[[UpstreamOwner], Upstream]:
    """Return a factory of such upstreams, for a multiplexer."""
    return lambda owner: SharedConnectionUpstream(owner, units)
