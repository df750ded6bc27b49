"""The upstream that Home Assistant already has: its own shared Modbus connection.

Integrations that use `modbus.async_get_unit` share one connection per device. With
this kind of upstream the multiplexer is one more of them: external clients and those
integrations use the same connection, and nobody needs to be pointed elsewhere.

The API speaks of registers and coils, not of frames, so a request is taken apart and
its response put together here (Modbus Application Protocol V1.1b3, section 6). Only
functions that the API knows pass; others get exception 0x01. The connection is Home
Assistant's: it is never closed, and its timing is never changed from here.

The `modbus` integration is imported when the first entry of this kind is set up:
nobody else pays for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
import struct
from typing import Any, Final, override

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.requirements import async_get_integration_with_requirements

from .identify import identify
from .multiplexer import CloseReason, Failure, Upstream, UpstreamOwner
from .multiplexer.dispatch.exchange import Exchange
from .multiplexer.settings import Settings
from .probe import ANSWER_SECONDS, DeviceError, DeviceProblem, Meeting, make_protocol

_EXCEPTION: Final = 0x80
_ILLEGAL_FUNCTION: Final = 0x01
_ILLEGAL_VALUE: Final = 0x03
_SERVER_FAILURE: Final = 0x04
_COIL: Final = {b"\xff\0": True, b"\0\0": False}

type _Unit = Any
"""A `modbus_connection.ModbusUnit`: that package is there only once it is needed."""


async def async_prepare(hass: HomeAssistant) -> None:
    """Make sure that the `modbus` integration can be imported.

    Raises:
        RequirementsNotFound: its requirements cannot be installed.

    """
    await async_get_integration_with_requirements(hass, "modbus")
    await hass.async_add_import_executor_job(_import)


def _import() -> Any:
    from homeassistant.components.modbus import connection  # noqa: PLC0415

    return connection


class Units:
    """The units of one device that an entry holds on the shared connection."""

    def __init__(self, hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
        """Hold nothing yet; `async_prepare` must have been awaited."""
        self._hass = hass
        self._entry = entry
        self._units: dict[int, _Unit] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """Requests under way. They outlive a connection of ours that gave them up:
        to cancel one could cost the others their connection."""

    def get(self, number: int) -> _Unit:
        """Give a unit, held until the entry is unloaded.

        Raises:
            HomeAssistantError: others use the device with other link settings.

        """
        unit = self._units.get(number)
        if unit is None:
            from modbus_connection import ModbusTcpParams  # noqa: PLC0415

            data = self._entry.data
            params = ModbusTcpParams(host=data["host"], port=data["port"])
            unit = self._units[number] = _import().async_get_unit(
                self._hass, self._entry, params, number
            )
        return unit


async def async_ask_shared(hass: HomeAssistant, settings: Settings) -> Meeting:
    """Ask what a health check asks, and the device who it is.

    Raises:
        DeviceError: the device did not answer, or others use it with other settings.

    """
    await async_prepare(hass)
    from modbus_connection import (  # noqa: PLC0415
        ModbusConnectionError,
        ModbusError,
        ModbusExceptionError,
        ModbusTcpParams,
    )

    protocol = make_protocol(settings)
    request = protocol.probe(None)
    if request is None:
        raise DeviceError(DeviceProblem.NOT_UNDERSTOOD)
    payload = request.payload
    params = ModbusTcpParams(host=settings.host, port=settings.port)
    identity = None
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            _import().async_get_temporary_unit(hass, params, payload[0]) as unit,
        ):
            response = await ask(unit, payload)

            async def again(payload: bytes) -> bytes | None:
                return await ask(unit, payload)

            with suppress(ModbusError, ValueError):
                identity = await identify(again, payload[:1])
    except ModbusExceptionError as err:
        response = _refusal(payload, err.exception_code or _SERVER_FAILURE)
    except ModbusConnectionError as err:
        raise DeviceError(DeviceProblem.UNREACHABLE) from err
    except (ModbusError, TimeoutError) as err:
        raise DeviceError(DeviceProblem.SILENT) from err
    except HomeAssistantError as err:
        raise DeviceError(DeviceProblem.OTHER_SETTINGS) from err
    return Meeting(protocol.describe(payload, response), identity)


class SharedConnectionUpstream(Upstream):
    """Carries exchanges over Home Assistant's connection, each by a task."""

    def __init__(self, owner: UpstreamOwner, units: Units) -> None:
        """Ask `units`."""
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
            response = _refusal(payload, err.exception_code or _SERVER_FAILURE)
        except ValueError:
            response = _refusal(payload, _ILLEGAL_VALUE)
        except ModbusConnectionError:
            failure = Failure.NO_CONNECTION
            self.draining = self.draining or CloseReason.RESET
        except ModbusError, TimeoutError:
            failure = Failure.NO_RESPONSE
        if self._closed or self.in_flight.pop(exchange.request, None) is None:
            return  # nobody waits for it any more
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
        self.timeouts_in_a_row += 1
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
    """Give what makes connections of this kind for a multiplexer."""
    return lambda owner: SharedConnectionUpstream(owner, units)


async def ask(unit: _Unit, payload: bytes) -> bytes:
    """Ask a unit what `payload` (unit and PDU) asks; give unit and PDU of the response.

    Raises:
        ValueError: the request is malformed, or its numbers are out of range.
        ModbusError: the device or the connection failed.

    """
    handler = _HANDLERS.get(payload[1])
    if handler is None:
        return _refusal(payload, _ILLEGAL_FUNCTION)
    try:
        return payload[:2] + await handler(unit, payload[2:])
    except struct.error as err:
        message = "the request is cut short"
        raise ValueError(message) from err


def _refusal(payload: bytes, code: int) -> bytes:
    return bytes((payload[0], payload[1] | _EXCEPTION, code))


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))


def _from_words(words: list[int]) -> bytes:
    return struct.pack(f">{len(words)}H", *words)


def _from_bits(bits: list[bool]) -> bytes:
    number = sum(bit << at for at, bit in enumerate(bits))
    return number.to_bytes((len(bits) + 7) // 8, "little")


def _values(data: bytes, at: int, size: int) -> bytes:
    """Give the values of a write, of which there must be as many as announced."""
    values = data[at + 1 :]
    if len(values) != size or data[at : at + 1] != bytes((size,)):
        message = "the request announces another number of values than it has"
        raise ValueError(message)
    return values


async def _read_coils(unit: _Unit, data: bytes) -> bytes:
    bits = _from_bits(await unit.read_coils(*struct.unpack(">HH", data)))
    return bytes((len(bits),)) + bits


async def _read_discrete_inputs(unit: _Unit, data: bytes) -> bytes:
    bits = _from_bits(await unit.read_discrete_inputs(*struct.unpack(">HH", data)))
    return bytes((len(bits),)) + bits


async def _read_holding_registers(unit: _Unit, data: bytes) -> bytes:
    words = _from_words(await unit.read_holding_registers(*struct.unpack(">HH", data)))
    return bytes((len(words),)) + words


async def _read_input_registers(unit: _Unit, data: bytes) -> bytes:
    words = _from_words(await unit.read_input_registers(*struct.unpack(">HH", data)))
    return bytes((len(words),)) + words


async def _write_coil(unit: _Unit, data: bytes) -> bytes:
    address, raw = struct.unpack(">H2s", data)
    if raw not in _COIL:
        message = "a coil is 0xFF00 or 0x0000"
        raise ValueError(message)
    await unit.write_coil(address, _COIL[raw])
    return data


async def _write_register(unit: _Unit, data: bytes) -> bytes:
    await unit.write_register(*struct.unpack(">HH", data))
    return data


async def _write_coils(unit: _Unit, data: bytes) -> bytes:
    address, count = struct.unpack_from(">HH", data)
    number = int.from_bytes(_values(data, 4, (count + 7) // 8), "little")
    await unit.write_coils(address, [bool(number >> at & 1) for at in range(count)])
    return data[:4]


async def _write_registers(unit: _Unit, data: bytes) -> bytes:
    address, count = struct.unpack_from(">HH", data)
    await unit.write_registers(address, _words(_values(data, 4, 2 * count)))
    return data[:4]


async def _mask_write_register(unit: _Unit, data: bytes) -> bytes:
    await unit.mask_write_register(*struct.unpack(">HHH", data))
    return data


async def _read_write_registers(unit: _Unit, data: bytes) -> bytes:
    read_address, read_count, address, count = struct.unpack_from(">HHHH", data)
    values = _words(_values(data, 8, 2 * count))
    words = _from_words(
        await unit.read_write_registers(read_address, read_count, address, values)
    )
    return bytes((len(words),)) + words


async def _read_fifo_queue(unit: _Unit, data: bytes) -> bytes:
    words = await unit.read_fifo_queue(*struct.unpack(">H", data))
    return struct.pack(">HH", 2 + 2 * len(words), len(words)) + _from_words(words)


_HANDLERS: Final[dict[int, Callable[[_Unit, bytes], Awaitable[bytes]]]] = {
    0x01: _read_coils,
    0x02: _read_discrete_inputs,
    0x03: _read_holding_registers,
    0x04: _read_input_registers,
    0x05: _write_coil,
    0x06: _write_register,
    0x0F: _write_coils,
    0x10: _write_registers,
    0x16: _mask_write_register,
    0x17: _read_write_registers,
    0x18: _read_fifo_queue,
}
