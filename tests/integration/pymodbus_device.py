"""A device made of somebody else's code: pymodbus' server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


@asynccontextmanager
async def pymodbus_device(
    *values: int,
    address: int = 0,
    unit: int = 1,
    framer: FramerType = FramerType.SOCKET,
) -> AsyncGenerator[int]:
    """Serve registers from `address` on; gives the port."""
    data = SimData(address, values=list(values), datatype=DataType.UINT16)
    server = ModbusTcpServer(
        SimDevice(unit, simdata=[data]), framer=framer, address=("127.0.0.1", 0)
    )
    await server.serve_forever(background=True)
    assert isinstance(server.transport, asyncio.Server)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()
