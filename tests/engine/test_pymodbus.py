"""Somebody else's device and clients: pymodbus on both ends of a multiplexer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast, override

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
import pytest

from custom_components.tcp_multiplexer.multiplexer import Health, Multiplexer
from tests.waiting import until

from .conftest import Multiplex
from .devices import port_of


class OneSlot(ModbusTcpServer):
    """A server that accepts one connection, like most inverters."""

    refused = 0
    accepted = 0

    @override
    def callback_new_connection(self) -> Any:
        if self.active_connections:
            self.refused += 1
            return _Refused()
        self.accepted += 1
        return super().callback_new_connection()  # type: ignore[no-untyped-call]


class _Refused(asyncio.Protocol):
    """What becomes of a second connection."""

    unique_id = "refused"
    listener: Any = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.listener.active_connections.pop(self.unique_id)
        transport.close()


@pytest.fixture
async def inverter() -> AsyncGenerator[OneSlot]:
    """Have a pymodbus server with registers that hold their own address."""
    registers = SimData(0, values=list(range(100)), datatype=DataType.UINT16)
    server = OneSlot(SimDevice(1, simdata=[registers]), address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    yield server
    await server.shutdown()  # type: ignore[no-untyped-call]


def port_of_server(server: ModbusTcpServer) -> int:
    """Give the port that a server listens on."""
    listening = cast("asyncio.Server", server.transport)
    return listening.sockets[0].getsockname()[1]


@asynccontextmanager
async def clients_of(
    multiplexer: Multiplexer, count: int
) -> AsyncGenerator[list[AsyncModbusTcpClient]]:
    """Connect pymodbus clients to a multiplexer."""
    clients = [
        AsyncModbusTcpClient(
            "127.0.0.1", port=port_of(multiplexer), timeout=20, retries=0
        )
        for _ in range(count)
    ]
    try:
        for client in clients:
            assert await client.connect()
        yield clients
    finally:
        for client in clients:
            client.close()


async def test_several_clients_read_and_write_a_device_with_one_slot(
    inverter: OneSlot, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(port=port_of_server(inverter))
    async with clients_of(multiplexer, 4) as clients:

        async def use(number: int) -> None:
            client, own = clients[number], 90 + number
            for turn in range(25):
                address = (10 * number + turn) % 80
                got = await client.read_holding_registers(address, count=5)
                assert got.registers == list(range(address, address + 5))
                written = await client.write_register(own, 1000 * number + turn)
                assert not written.isError()
                got = await client.read_holding_registers(own, count=1)
                assert got.registers == [1000 * number + turn]

        await asyncio.gather(*(use(number) for number in range(4)))
        snapshot = multiplexer.snapshot()
        assert snapshot.requests == snapshot.responses == 4 * 25 * 3
        assert (snapshot.clients_peak, snapshot.health) == (4, Health.HEALTHY)
        assert (inverter.accepted, inverter.refused) == (1, 0)
        # Without the multiplexer there is no room for another.
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of_server(inverter)
        )
        assert await reader.read() == b""
        writer.close()
        assert inverter.refused == 1


async def test_device_s_own_exceptions_reach_the_client(
    inverter: OneSlot, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(port=port_of_server(inverter))
    async with clients_of(multiplexer, 1) as (client,):
        got = await client.read_holding_registers(5000, count=1)
        assert (got.isError(), got.exception_code) == (True, 2)
        assert multiplexer.snapshot().exceptions == 1
        await multiplexer.pause()
        got = await client.read_holding_registers(1, count=1)
        assert (got.isError(), got.exception_code) == (True, 0x0A)


async def test_slot_is_free_for_an_app_while_it_is_paused(
    inverter: OneSlot, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(port=port_of_server(inverter))
    async with clients_of(multiplexer, 1) as (client,):
        assert (await client.read_holding_registers(1, count=1)).registers == [1]
        await multiplexer.pause()
        await until(lambda: not inverter.active_connections)
        app = AsyncModbusTcpClient("127.0.0.1", port=port_of_server(inverter))
        assert await app.connect()
        assert (await app.read_holding_registers(2, count=1)).registers == [2]
        app.close()
        await until(lambda: not inverter.active_connections)
        multiplexer.resume()
        assert (await client.read_holding_registers(3, count=1)).registers == [3]
    assert inverter.refused == 0


async def test_device_that_restarts_loses_no_client(
    inverter: OneSlot, multiplex: Multiplex
) -> None:
    multiplexer = await multiplex(port=port_of_server(inverter), reconnect_backoff=0.1)
    async with clients_of(multiplexer, 3) as clients:
        for client in clients:
            assert (await client.read_holding_registers(1, count=1)).registers == [1]
        for connection in list(inverter.active_connections.values()):
            connection.close()
        await until(lambda: inverter.accepted == 2)
        for client in clients:
            assert client.connected
            assert (await client.read_holding_registers(2, count=1)).registers == [2]
    assert multiplexer.snapshot().clients_peak == 3
