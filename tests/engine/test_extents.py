"""What reads cover: found among many, cut from responses, put together again."""

from random import Random
from time import process_time

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.coverage import Coverage
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.extent import (
    ModbusExtent,
    extent_of,
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


@pytest.mark.parametrize("seed", range(50))
def test_what_is_found_covers_and_is_kept(seed: int) -> None:
    """What was kept last is found, unless a wider one was."""
    rng = Random(seed)
    coverage: Coverage[int] = Coverage()
    kept: dict[int, ModbusExtent] = {}
    area = b"\1\3"
    for number in range(300):
        first = rng.randrange(40)
        extent = ModbusExtent(area, first, first + rng.randrange(1, 20))
        if rng.random() < 0.3 and kept:
            gone = rng.choice(list(kept))
            coverage.remove(kept.pop(gone), gone)
        wider = coverage.find(extent)
        coverage.add(extent, number)
        kept[number] = extent
        found = coverage.find(extent)
        assert found is not None
        assert found[0].covers(extent)
        assert kept[found[1]] is found[0]
        assert found[1] == number or (wider == found and not extent.covers(found[0]))
        other = ModbusExtent(b"\1\4", first, first + 1)
        assert coverage.find(other) is None


def test_only_what_is_kept_is_removed() -> None:
    coverage: Coverage[str] = Coverage()
    narrow, wide = ModbusExtent(b"\1\3", 5, 7), ModbusExtent(b"\1\3", 5, 9)
    coverage.add(narrow, "narrow")
    coverage.add(wide, "wide")
    coverage.remove(narrow, "narrow")  # the wide one has taken its place
    coverage.remove(wide, "another")
    assert coverage.find(narrow) == (wide, "wide")
    coverage.remove(wide, "wide")
    assert coverage.find(narrow) is None
    coverage.remove(wide, "wide")


def test_it_costs_about_the_same_among_many() -> None:
    """Of thousands of reads that overlap, one is looked at."""

    def seconds(reads: int) -> float:
        coverage: Coverage[int] = Coverage()
        for number in range(reads):
            coverage.add(ModbusExtent(b"\1\3", number, number + 100), number)
        extent = ModbusExtent(b"\1\3", reads // 2, reads // 2 + 1)
        best = float("inf")
        for _ in range(20):
            before = process_time()
            for _ in range(200):
                assert coverage.find(extent) is not None
            best = min(best, process_time() - before)
        return best

    assert seconds(4096) < 5 * seconds(16)
