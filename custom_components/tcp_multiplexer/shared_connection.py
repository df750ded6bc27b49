"""An upstream over the Modbus connection that Home Assistant shares.

Integrations that use `modbus.async_get_unit` share one connection per device. With
this kind of upstream the multiplexer is one of them: external clients and those
integrations use the same connection, and none needs another address.

`shared_unit.py` translates frames into calls. The connection is Home Assistant's: it is
never closed, and its timing is never changed from here.

The `modbus` integration is imported when the first entry of this kind is set up, so
that no other entry pays for it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, override

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.requirements import async_get_integration_with_requirements

from .multiplexer import CloseReason, Exchange, Failure, Upstream, UpstreamOwner
from .shared_unit import ILLEGAL_VALUE, SERVER_FAILURE, Unit, ask, refusal


async def async_prepare(hass: HomeAssistant) -> None:
    """Make sure that the `modbus` integration can be imported.

    Raises:
        RequirementsNotFound: its requirements cannot be installed.

    """
    await async_get_integration_with_requirements(hass, "modbus")
    await hass.async_add_import_executor_job(import_connection)


def import_connection() -> Any:
    """Return the module of the `modbus` integration that shares connections."""
    from homeassistant.components.modbus import connection  # noqa: PLC0415

    return connection


class Units:
    """The units of one device that an entry holds on the shared connection.

    `async_prepare` must have been awaited before `get`.
    """

    def __init__(self, hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
        self._hass = hass
        self._entry = entry
        self._units: dict[int, Unit] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """Requests in flight. They outlive an upstream that gave them up: cancelling
        one could cost the other integrations their connection."""

    def get(self, number: int) -> Unit:
        """Return a unit, held until the entry is unloaded.

        Raises:
            HomeAssistantError: the device is already used with other link settings.

        """
        unit = self._units.get(number)
        if unit is None:
            from modbus_connection import ModbusTcpParams  # noqa: PLC0415

            data = self._entry.data
            params = ModbusTcpParams(host=data["host"], port=data["port"])
            unit = self._units[number] = import_connection().async_get_unit(
                self._hass, self._entry, params, number
            )
        return unit


class SharedConnectionUpstream(Upstream):
    """Carries exchanges over Home Assistant's connection, each in a task."""

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
        self.in_flight[exchange.request] = exchange
        self.sent += 1
        self.owner.statistics.bytes_to_upstream += len(exchange.request.payload)
        task = self._loop.create_task(self._carry(exchange))
        self._units.tasks.add(task)
        task.add_done_callback(self._units.tasks.discard)

    async def _carry(self, exchange: Exchange) -> None:
        from modbus_connection import (  # noqa: PLC0415
            ModbusConnectionError,
            ModbusError,
            ModbusExceptionError,
        )

        payload = exchange.request.payload
        failure = None
        response = b""
        try:
            response = await ask(self._units.get(payload[0]), payload)
        except ModbusExceptionError as err:
            response = refusal(payload, err.exception_code or SERVER_FAILURE)
        except ValueError:
            response = refusal(payload, ILLEGAL_VALUE)
        except ModbusConnectionError:
            failure = Failure.NO_CONNECTION
            self.draining = self.draining or CloseReason.RESET
        except ModbusError, TimeoutError:
            failure = Failure.NO_RESPONSE
        if self._closed or self.in_flight.pop(exchange.request, None) is None:
            return  # no longer awaited
        if failure is not None:
            self.owner.unanswerable(self, exchange, failure)
            return
        self.received = True
        self.responses += 1
        self.timeouts_in_a_row = 0
        self.last_received = self._loop.time()
        self.owner.statistics.bytes_from_upstream += len(response)
        self.owner.answered(self, exchange, response)

    @override
    def begun(self, exchange: Exchange) -> bool:
        return False

    @override
    def expire(self, exchange: Exchange) -> bool:
        del self.in_flight[exchange.request]
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
