"""A simulated energy manager, as evcc and openWB are: a client that reads an inverter.

All of them ask on the full second, as programs with equal timers do. That is when a
multiplexer asks the device only once.
"""

import asyncio
from contextlib import suppress
import time

from pymodbus import ModbusException
from pymodbus.client import AsyncModbusTcpClient

from script.demo import inverter

SECONDS = 2


async def run(own_address: str, port: int) -> None:
    """Read the inverter at this port of this machine, from an address, until the end.

    While nobody listens it tries again and again.
    """
    client = AsyncModbusTcpClient(
        "127.0.0.1", port=port, source_address=(own_address, 0), retries=0
    )
    try:
        while True:
            await asyncio.sleep(SECONDS - time.time() % SECONDS)
            with suppress(ModbusException):
                if client.connected or await client.connect():
                    await client.read_holding_registers(
                        inverter.INVERTER, count=50, device_id=inverter.UNIT_ID
                    )
    finally:
        client.close()
