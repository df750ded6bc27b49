"""What reads cover: known of all that came, cut from responses, put together again."""

from __future__ import annotations

import os
from time import process_time

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.coverage import Coverage
from custom_components.tcp_multiplexer.multiplexer.protocols.base import Request
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.extent import (
    ModbusExtent,
    extent_of,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)

FUNCTIONS = st.sampled_from((1, 2, 3, 4))


def response(extent: ModbusExtent) -> bytes:
    """Give what a device answers whose values follow from their addresses."""
    bits = extent.area[1] < 3
    addresses = range(extent.first, extent.end)
    if bits:
        whole = sum((address * 7 % 3 == 0) << n for n, address in enumerate(addresses))
        data = whole.to_bytes((len(addresses) + 7) // 8, "little")
    else:
        data = b"".join((address * 7 % 65521).to_bytes(2) for address in addresses)
    return extent.area + bytes((len(data),)) + data


@given(FUNCTIONS, st.integers(0, 60_000), st.data())
def test_a_part_of_a_response_is_what_the_device_would_answer(
    function: int, first: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 2000 if function < 3 else 125))
    skip = data.draw(st.integers(0, count - 1))
    size = data.draw(st.integers(1, count - skip))
    area = bytes((7, function))
    whole = ModbusExtent(area, first, first + count)
    part = ModbusExtent(area, first + skip, first + skip + size)
    assert whole.covers(part)
    assert whole.is_whole(response(whole))
    assert whole.cut(response(whole), part) == response(part)


@given(FUNCTIONS, st.integers(0, 60_000), st.integers(1, 125), st.data())
def test_parts_make_up_the_whole(
    function: int, first: int, registers: int, data: st.DataObject
) -> None:
    bits = function < 3
    count = data.draw(st.integers(1, 2000 if bits else 125))
    whole = ModbusExtent(bytes((7, function)), first, first + count)
    parts = [extent_of(part) for part in whole.parts(registers)]
    if count <= registers * (16 if bits else 1):
        assert parts == []
        return
    sizes = [part.end - part.first for part in parts if part is not None]
    assert sum(sizes) == count
    assert max(sizes) <= registers * (16 if bits else 1)
    answers = [response(part) for part in parts if part is not None]
    assert whole.join(answers) == response(whole)


@pytest.mark.parametrize(
    "payload",
    [
        "01 05 0000 ff00",
        "01 17 0000 0001 0000 0001 02 0000",
        "01 03 0000 0001 00",
        "01 03 0000",
        "01 03 ffff 0002",
    ],
)
def test_other_requests_cover_nothing(payload: str) -> None:
    assert extent_of(bytes.fromhex(payload)) is None


@pytest.mark.parametrize(
    "answer",
    [
        "01 83 02",
        "01 03 02 1234",
        "01 03 08 1234567812345678",
        "01 03 04 123456",
        "01 03 04 1234567800",
        "01 04 04 12345678",
        "",
    ],
)
def test_what_brings_more_or_less_is_not_whole(answer: str) -> None:
    extent = extent_of(bytes.fromhex("01 03 0000 0002"))
    assert extent is not None
    assert extent.is_whole(bytes.fromhex("01 03 04 12345678"))
    assert extent.is_whole(bytes.fromhex("02 03 04 12345678"))  # leniently matched
    assert not extent.is_whole(bytes.fromhex(answer))


def read(first: int, count: int, function: int = 3) -> Request:
    """Give a read of unit 1."""
    payload = bytes((1, function)) + first.to_bytes(2) + count.to_bytes(2)
    return modbus_request(payload, None)


def known_to_cover(coverage: Coverage, request: Request) -> set[bytes]:
    """Give the reads that are known to cover a known one."""
    assert isinstance(request.share_key, bytes)
    return {key for key, _ in coverage.wider[request.share_key]}


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 10)), unique=True, max_size=17
    )
)
def test_of_all_reads_that_came_it_is_known_which_cover_which(
    reads: list[tuple[int, int]],
) -> None:
    coverage = Coverage()
    requests = [read(*one) for one in reads]
    coverage.learn(read(0, 100, function=4))  # another area
    for request in requests:
        coverage.learn(request)
    for request, (first, count) in zip(requests, reads, strict=True):
        assert known_to_cover(coverage, request) == {
            other.share_key
            for other, (its_first, its_count) in zip(requests, reads, strict=True)
            if other is not request
            and its_first <= first
            and first + count <= its_first + its_count
        }


def test_what_is_known_of_reads_is_bounded() -> None:
    coverage = Coverage()
    for first in range(5000):
        coverage.learn(read(first, 10))
    assert len(coverage.wider) <= 512
    wide, narrow = read(4990, 20), read(4995, 5)
    coverage.learn(narrow)
    coverage.learn(wide)
    assert wide.share_key in known_to_cover(coverage, narrow)


@pytest.mark.skipif(
    "TESTED_ENGINE" in os.environ, reason="compiled for tests, it is not optimized"
)
def test_a_turn_of_the_loop_stays_short_whatever_is_read() -> None:
    """The worst is that each read covers all before, and 64 come in one turn."""

    def seconds() -> float:
        coverage = Coverage()
        for count in range(1, 449):
            coverage.learn(read(0, count, function=1))
        began = process_time()
        for count in range(449, 513):
            coverage.learn(read(0, count, function=1))
        return process_time() - began

    assert min(seconds() for _ in range(15)) < 0.02


def test_an_extent_says_what_it_covers() -> None:
    assert repr(ModbusExtent(b"\1\3", 5, 7)) == r"<ModbusExtent b'\x01\x03' 5-6>"
