"""The search for a logger stick: who is asked, and whose answer counts."""

from __future__ import annotations

from collections import Counter
import socket
import threading
import time
from typing import NoReturn

import pytest

from custom_components.tcp_multiplexer.multiplexer import find_logger_serial
from tests.solarman import SERIAL, searchable

OWN = b"127.0.0.1,34EAE7D9EC04,%d" % SERIAL
OTHER = b"127.0.0.2,34EAE7D9EC05,77"


@pytest.mark.parametrize(
    ("answers", "serial"),
    [
        ([OWN], SERIAL),
        ([OWN + b"\r\n\0"], SERIAL),
        ([b"0.0.0.0,34EAE7D9EC04,%d" % SERIAL], SERIAL),  # its sender is known
        ([b"127.0.0.1", b"\xff\xfe,,1a", b",,0", b",,4294967296", OWN], SERIAL),
        ([OWN, b"127.0.0.1,x,5"], SERIAL),
        ([], 0),
    ],
)
async def test_answers(answers: list[bytes], serial: int) -> None:
    async with searchable(*answers) as (port, asked):
        found = await find_logger_serial(
            "127.0.0.1", broadcast="127.0.0.1", port=port, seconds=0.2
        )
    assert found == serial
    if not serial:  # each of two addresses, twice
        assert Counter(asked) == {b"WIFIKIT-214028-READ": 4, b"HF-A11ASSISTHREAD": 4}


async def test_another_stick_is_not_taken_for_the_one_that_is_meant() -> None:
    """All that hear the broadcast answer."""
    async with searchable(OTHER, OWN) as (port, asked):
        found = await find_logger_serial(
            "127.0.0.3", broadcast="127.0.0.1", port=port, seconds=0.2
        )
        assert not found
        found = await find_logger_serial(
            "127.0.0.2", broadcast="127.0.0.1", port=port, seconds=0.2
        )
    assert found == 77
    assert asked


async def test_a_name_that_nobody_resolves_takes_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dialog waits for it: two seconds without a sign are what people bear."""
    asked = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: asked.wait(10))
    before = time.monotonic()
    try:
        assert not await find_logger_serial("stick", broadcast="127.0.0.1", seconds=0.1)
        assert time.monotonic() - before < 5
    finally:
        asked.set()


async def test_host_without_an_ipv4_address_is_no_stick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert not await find_logger_serial("::1", broadcast="127.0.0.1", seconds=0.1)
