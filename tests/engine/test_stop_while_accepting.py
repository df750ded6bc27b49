"""Stopping while a client is being accepted: asyncio takes several turns for that."""

from __future__ import annotations

import asyncio
import socket

import pytest

from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings


@pytest.mark.parametrize("turns", range(6))
async def test_a_client_being_accepted_is_closed_too(turns: int) -> None:
    multiplexer = Multiplexer(
        Settings(
            host="127.0.0.1",
            port=1,
            listen_host="127.0.0.1",
            listen_port=0,
            connect_on_demand=True,
        )
    )
    await multiplexer.start()
    loop = asyncio.get_running_loop()
    with socket.create_connection(multiplexer.snapshot().listen_addresses[0]) as client:
        client.sendall(bytes.fromhex("0001 0000 0006 01 03 0000 0001"))
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        await multiplexer.stop()
        assert not multiplexer.snapshot().clients
        async with asyncio.timeout(5):
            try:
                while await loop.sock_recv(client, 100):
                    pass
            except ConnectionResetError:
                pass
