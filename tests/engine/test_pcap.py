"""Captures, read by a reader of our own that trusts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
import struct
from typing import NamedTuple

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer import TraceRecord
from custom_components.tcp_multiplexer.multiplexer.observe.pcap import to_pcap
from tests.wire import Frame, read, values, write

from .conftest import Connect, Multiplex
from .devices import Device, ignore


class Packet(NamedTuple):
    """A TCP segment in a capture."""

    time: float
    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    acknowledged: int
    data: bytes


def ones_sum(data: bytes) -> int:
    """Give the ones' complement sum: 0xFFFF over data with a right checksum."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"))
        total = (total & 0xFFFF) + (total >> 16)
    return total


def packets(capture: bytes) -> Iterator[Packet]:
    """Read a capture, and check all that can be checked in it."""
    magic, major, minor, _, _, longest, kind = struct.unpack_from("<IHHiIII", capture)
    assert (magic, major, minor, kind) == (0xA1B23C4D, 2, 4, 101)
    at = 24
    while at < len(capture):
        seconds, nano, size, whole = struct.unpack_from("<IIII", capture, at)
        assert size == whole <= longest
        assert nano < 10**9
        packet = capture[at + 16 : at + 16 + size]
        assert len(packet) == size
        at += 16 + size
        if packet[0] >> 4 == 4:
            assert packet[0] & 15 == 5
            assert int.from_bytes(packet[2:4]) == size
            assert packet[9] == 6
            assert ones_sum(packet[:20]) == 0xFFFF
            ends = [str(IPv4Address(packet[i : i + 4])) for i in (12, 16)]
            addresses, segment = packet[12:20], packet[20:]
        else:
            assert int.from_bytes(packet[4:6]) == size - 40
            assert packet[6] == 6
            ends = [str(IPv6Address(packet[i : i + 16])) for i in (8, 24)]
            addresses, segment = packet[8:40], packet[40:]
        pseudo = addresses + struct.pack(">II", len(segment), 6)
        assert ones_sum(pseudo + segment) == 0xFFFF
        source, target, sequence, acknowledged, offset = struct.unpack_from(
            ">HHIIB", segment
        )
        assert offset >> 4 == 5
        yield Packet(
            seconds + nano / 1e9,
            (ends[0], source),
            (ends[1], target),
            sequence,
            acknowledged,
            segment[20:],
        )


def record(
    time: float, client: str, request: bytes, response: bytes | None, took: float | None
) -> TraceRecord:
    """Make a record of an exchange."""
    return TraceRecord(time, client, request, response, "?", 0.0, took)


def bare(payload: bytes, number: int) -> bytes:
    """Frame a payload with nothing but its number."""
    return bytes((number,)) + payload


def test_exchange_is_a_segment_each_way_and_tcp_counts_them() -> None:
    capture = to_pcap(
        [
            record(1000.5, "192.0.2.9:4000", b"ask", b"answer", 0.25),
            record(1001.0, "192.0.2.8:4001", b"other", None, None),
            record(1002.0, "192.0.2.9:4000", b"again", b"", 0.5),
        ],
        ("192.0.2.1", 502),
        bare,
    )
    device, one, two = ("192.0.2.1", 502), ("192.0.2.9", 4000), ("192.0.2.8", 4001)
    assert list(packets(capture)) == [
        Packet(1000.25, one, device, 1, 1, b"\1ask"),
        Packet(1000.5, device, one, 1, 5, b"\1answer"),
        Packet(1001.0, two, device, 1, 1, b"\2other"),
        Packet(1001.5, one, device, 5, 8, b"\3again"),
    ]


@pytest.mark.parametrize(
    ("client", "device", "source", "target"),
    [
        ("[2001:db8::9]:7", "2001:db8::1", "2001:db8::9", "2001:db8::1"),
        ("192.0.2.9:7", "2001:db8::1", "::ffff:192.0.2.9", "2001:db8::1"),
        ("[2001:db8::9]:7", "192.0.2.1", "2001:db8::9", "::ffff:192.0.2.1"),
        ("192.0.2.9:7", "inverter.local", "192.0.2.9", "192.0.2.1"),
        ("elsewhere:7", "192.0.2.1", "127.0.0.1", "192.0.2.1"),
    ],
)
def test_addresses_are_of_one_version(
    client: str, device: str, source: str, target: str
) -> None:
    capture = to_pcap([record(1, client, b"?", None, None)], (device, 502), bare)
    (packet,) = packets(capture)
    assert packet.source == (str(_address(source)), 7)
    assert packet.target == (str(_address(target)), 502)


def _address(text: str) -> IPv4Address | IPv6Address:
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def test_own_requests_and_strays_have_a_place() -> None:
    capture = to_pcap(
        [
            record(1, "host", b"ask", b"answer", 0.0),
            record(2, "device", b"", b"unsolicited", None),
        ],
        ("192.0.2.1", 502),
        bare,
    )
    *_, answered, stray = packets(capture)
    assert answered.target == ("127.0.0.1", 0)
    assert (stray.source, stray.data) == (("192.0.2.1", 502), b"\2unsolicited")


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=600), max_size=5),
    time=st.floats(0, 4e9),
)
def test_any_payloads_make_a_capture_that_can_be_read(
    payloads: list[bytes], time: float
) -> None:
    capture = to_pcap(
        [record(time, "192.0.2.9:4000", p, p, 0.0) for p in payloads],
        ("192.0.2.1", 502),
        lambda payload, _: payload,
    )
    read = list(packets(capture))
    assert [packet.data for packet in read[::2]] == payloads
    assert [packet.data for packet in read[1::2]] == payloads
    assert all(abs(packet.time - time) < 1e-6 * max(1, time) for packet in read)


async def test_trace_can_be_captured_and_explained(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.2)
    client = await connect(multiplexer)
    await client.ask(read(1), unit=3)
    device.script.append(ignore)
    await client.ask(write(4, 5))
    asked, answered, lost = packets(multiplexer.pcap(multiplexer.trace()))
    assert asked.source == answered.target == client.address
    assert asked.target == answered.source == ("127.0.0.1", 502)  # for Wireshark
    assert asked.data == Frame(1, 3, read(1)).encoded()
    assert answered.data == Frame(1, 3, values(1, unit=3)).encoded()
    assert lost.data == Frame(2, 1, write(4, 5)).encoded()
    assert asked.time <= answered.time <= lost.time
    told = [multiplexer.explain(record) for record in multiplexer.trace()]
    assert [t["description"] for t in told] == [
        multiplexer.describe(record) for record in multiplexer.trace()
    ]
    assert told[0]["values"] == [3001, 3002]
    assert (told[1]["address"], told[1]["value"]) == (4, 5)
