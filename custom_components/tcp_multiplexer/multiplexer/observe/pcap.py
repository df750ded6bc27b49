"""Writes exchanges as a packet capture, for Wireshark.

The multiplexer sees messages, not packets, so the packets are synthetic: raw IP (link
type 101) with one TCP segment per message, from the client to the device and back, with
consistent sequence numbers so that Wireshark can follow the streams. Timestamps are
those of the exchange. A request that was refused or never answered appears alone.

Format: draft-ietf-opsawg-pcap, with nanosecond timestamps.
"""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Address, IPv6Address, ip_address
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..networks import Address
    from .snapshot import TraceRecord

_MAGIC_NANOSECONDS = 0xA1B23C4D
_LINKTYPE_RAW = 101
_SNAPLEN = 65535
_TCP = 6
_PUSH_ACK = 0x18
_HOST = IPv4Address("127.0.0.1")


def to_pcap(
    records: Iterable[TraceRecord],
    device: tuple[str, int],
    frame: Callable[[bytes, int], bytes],
) -> bytes:
    """Return `records` as a capture file of traffic with `device` (host, port).

    `frame(payload, number)` returns a payload as it is on the wire; `number` counts
    exchanges. A device given by name appears as 192.0.2.1 (RFC 5737).
    """
    parts = [
        struct.pack("<IHHiIII", _MAGIC_NANOSECONDS, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_RAW)
    ]
    sequence: defaultdict[tuple[str, bool], int] = defaultdict(lambda: 1)
    for number, record in enumerate(records, 1):
        client = _endpoint(record.client)
        server = (_address(device[0], IPv4Address("192.0.2.1")), device[1])
        if client[0].version != server[0].version:
            client = (_as_ipv6(client[0]), client[1])
            server = (_as_ipv6(server[0]), server[1])
        taken = record.response_seconds or 0.0
        messages = [(record.time - taken, True, record.request)]
        if record.response is not None:
            messages.append((record.time, False, record.response))
        for at, asked, payload in messages:
            if not payload:
                continue
            data = frame(payload, number & 0xFFFF)
            source, target = (client, server) if asked else (server, client)
            own, other = (record.client, asked), (record.client, not asked)
            packet = _packet(source, target, sequence[own], sequence[other], data)
            sequence[own] = sequence[own] + len(data) & 0xFFFFFFFF
            seconds, rest = divmod(round(at * 1e9), 10**9)
            size = len(packet)
            parts += (
                struct.pack("<IIII", seconds & 0xFFFFFFFF, rest, size, size),
                packet,
            )
    return b"".join(parts)


def _endpoint(name: str) -> tuple[Address, int]:
    """Return the address and port of a client from its name in a trace."""
    host, _, port = name.rpartition(":")
    if not port.isdecimal():
        return _HOST, 0
    return _address(host.strip("[]"), _HOST), int(port)


def _address(text: str, otherwise: Address) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        return otherwise


def _as_ipv6(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def _packet(
    source: tuple[Address, int],
    target: tuple[Address, int],
    sequence: int,
    acknowledged: int,
    data: bytes,
) -> bytes:
    """Return an IP packet with one TCP segment."""
    addresses = source[0].packed + target[0].packed
    size = 20 + len(data)
    pseudo = addresses + struct.pack(">II", size, _TCP)
    ports = struct.pack(">HHII", source[1], target[1], sequence, acknowledged)
    rest = struct.pack(">BBH", 5 << 4, _PUSH_ACK, 0xFFFF)
    checksum = _checksum(pseudo + ports + rest + b"\0\0\0\0" + data)
    segment = ports + rest + struct.pack(">HH", checksum, 0) + data
    if source[0].version == 6:
        return struct.pack(">IHBB", 6 << 28, size, _TCP, 64) + addresses + segment
    head = struct.pack(">BBHHHBB", 0x45, 0, 20 + size, 0, 0, 64, _TCP)
    checksum = _checksum(head + b"\0\0" + addresses)
    return head + struct.pack(">H", checksum) + addresses + segment


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    words: tuple[int, ...] = struct.unpack(
        f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)
    )
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
