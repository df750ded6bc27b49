"""A simulated solar inverter that accepts one Modbus/TCP connection.

Its registers are a SunSpec map as inverters have it at 40000: the common model (1), a
three-phase inverter (103), whose values follow a sky with clouds, and the immediate
controls (123), of which the power limit works. Like the devices that a multiplexer is
for, it closes any further connection at once while it has one.

    python -m script.demo.inverter 1502
"""

import asyncio
from contextlib import suppress
import math
import sys
import time
from typing import override

from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

UNIT_ID = 1
RATED_WATTS = 8000
RESPONSE_SECONDS = 0.02
"""What such a device needs for an answer."""

BASE = 40000
INVERTER = BASE + 71
"""Where the points of model 103 begin."""
POWER = INVERTER + 12
CONTROLS = BASE + 123
"""Where those of model 123 begin."""
LIMIT_PERCENT = CONTROLS + 3
LIMIT_ENABLED = CONTROLS + 7

_NOT_IMPLEMENTED = 0x8000
_IDENTITY = ("Sunny Side Up", "SSU 8000", "1.4.2")
"""Maker, model and version."""


def _text(text: str, registers: int) -> list[int]:
    data = text.encode().ljust(2 * registers, b"\0")
    return [int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2)]


def _signed(value: float) -> int:
    return round(value) & 0xFFFF


def _map(serial: str) -> list[int]:
    """Give the registers from `BASE` on, as they are before the sun comes up."""
    maker, model, version = _IDENTITY
    registers = [
        *_text("SunS", 2),
        *(1, 65),
        *_text(maker, 16),
        *_text(model, 16),
        *_text("", 8),
        *_text(version, 8),
        *_text(serial, 16),
        UNIT_ID,
        *(103, 50),
        *[_NOT_IMPLEMENTED] * 50,
        *(123, 24),
        *[_NOT_IMPLEMENTED] * 24,
        *(0xFFFF, 0),
    ]
    for point, value in {
        INVERTER + 4: -2,  # scale factors: A
        INVERTER + 11: -1,  # V
        INVERTER + 13: 0,  # W
        INVERTER + 15: -2,  # Hz
        INVERTER + 24: 0,  # Wh
        INVERTER + 26: -2,  # DC A
        INVERTER + 28: -1,  # DC V
        INVERTER + 30: 0,  # DC W
        INVERTER + 35: -1,  # °C
        INVERTER + 36: 4,  # state: producing at its maximum power point
        INVERTER + 37: 0,
        CONTROLS + 2: 1,  # connected
        LIMIT_PERCENT: 50,
        LIMIT_ENABLED: 0,
        CONTROLS + 21: 0,  # scale factor of the limit
    }.items():
        registers[point - BASE] = _signed(value)
    return registers


class Inverter:
    """What the registers say at a moment."""

    def __init__(self) -> None:
        """Begin with the energy of some years."""
        self._watt_hours = 23_456_000.0
        self._updated = time.monotonic()

    async def access(
        self,
        _function: int,
        start: int,
        _address: int,
        _count: int,
        registers: list[int],
        _values: list[int] | list[bool] | None,
    ) -> None:
        """Bring the registers up to date before they are read or written."""
        await asyncio.sleep(RESPONSE_SECONDS)
        limited = registers[LIMIT_ENABLED - start] == 1
        limit = registers[LIMIT_PERCENT - start] / 100 if limited else 1.0
        now = time.monotonic()
        sky = 0.62 + 0.25 * math.sin(now / 90) + 0.1 * math.sin(now / 7)
        share = min(sky + 0.02 * math.sin(now * 2), limit)
        watts = RATED_WATTS * share
        self._watt_hours += watts * (now - self._updated) / 3600
        self._updated = now
        volts = [230 + 2 * math.sin(now / 11 + phase) for phase in (0, 2, 4)]
        direct = watts / 0.97
        direct_volts = 600 + 40 * share
        amperes = [watts / 3 / phase_volts for phase_volts in volts]
        values: dict[int, float] = {
            0: sum(amperes) * 100,
            1: amperes[0] * 100,
            2: amperes[1] * 100,
            3: amperes[2] * 100,
            8: volts[0] * 10,
            9: volts[1] * 10,
            10: volts[2] * 10,
            12: watts,
            14: 5000 + 2 * math.sin(now / 5),
            22: int(self._watt_hours) >> 16,
            23: int(self._watt_hours) & 0xFFFF,
            25: direct / direct_volts * 100,
            27: direct_volts * 10,
            29: direct,
            31: (28 + 22 * share) * 10,
            32: (31 + 27 * share) * 10,
            36: 5 if limited and sky > limit else 4,  # throttled
        }
        for point, value in values.items():
            registers[INVERTER - start + point] = _signed(value)


class _OnlyConnection(ServerRequestHandler):
    """Serves a connection if there is no other."""

    @override
    def callback_connected(self) -> None:
        super().callback_connected()
        if self.server.served is None:
            self.server.served = self
        else:
            self.transport.close()

    @override
    def callback_disconnected(self, exc: Exception | None) -> None:
        super().callback_disconnected(exc)
        if self.server.served is self:
            self.server.served = None


class OneConnectionServer(ModbusTcpServer):
    """pymodbus' server, with one slot."""

    served: _OnlyConnection | None = None

    @override
    def callback_new_connection(self) -> ServerRequestHandler:
        return _OnlyConnection(
            self, self.trace_packet, self.trace_pdu, self.trace_connect
        )


def port_of(server: OneConnectionServer) -> int:
    """Give the port that an inverter listens on."""
    _, port = server.comm_params.source_address or ("", 0)
    return port


def make(serial: str) -> SimDevice:
    """Make an inverter with this serial number, for a server of pymodbus."""
    return SimDevice(
        id=0,  # it does not mind which unit it is addressed as
        simdata=[SimData(BASE, values=_map(serial), datatype=DataType.UINT16)],
        action=Inverter().access,
    )


async def start(host: str, port: int) -> OneConnectionServer:
    """Serve an inverter; `shutdown` of what is returned ends it.

    Raises:
        RuntimeError: the port cannot be had.

    """
    maker, model, version = _IDENTITY
    identity = ModbusDeviceIdentification(
        info_name={
            "VendorName": maker,
            "ProductCode": model,
            "MajorMinorRevision": version,
            "ProductName": model,
            "ModelName": model,
        }
    )
    server = OneConnectionServer(make("0042"), identity=identity, address=(host, port))
    await server.serve_forever(background=True)
    return server


async def _serve(port: int) -> None:
    server = await start("127.0.0.1", port)
    print(f"inverter: 127.0.0.1:{port}, unit {UNIT_ID}, one connection", flush=True)
    await server.serving


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 1502))
