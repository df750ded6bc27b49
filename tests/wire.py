"""Modbus as tests write it: PDUs, and frames of Modbus/TCP.

Nothing here is the engine's: what tests it must not be wrong in the same way.

What a register holds is its own address until somebody writes to it, and the unit
is added to that times 1000: a response that went astray is seen.
"""

import struct
from typing import NamedTuple


def read(address: int = 0, count: int = 2) -> bytes:
    """Return the PDU that reads holding registers."""
    return struct.pack(">BHH", 3, address, count)


def values(address: int = 0, count: int = 2, *, unit: int = 1) -> bytes:
    """Return the PDU that answers `read` where nothing was written."""
    words = [(unit * 1000 + address + i) & 0xFFFF for i in range(count)]
    return struct.pack(f">BB{count}H", 3, 2 * count, *words)


def write(address: int, value: int) -> bytes:
    """Return the PDU that writes one register; a device answers the same."""
    return struct.pack(">BHH", 6, address, value)


def exception(function: int, code: int) -> bytes:
    """Return the PDU of an exception."""
    return bytes((function | 0x80, code))


class Frame(NamedTuple):
    """What a Modbus/TCP frame says."""

    transaction: int
    unit: int
    pdu: bytes

    def encoded(self) -> bytes:
        """Return the frame as it is on the wire."""
        header = struct.pack(">HHHB", self.transaction, 0, len(self.pdu) + 1, self.unit)
        return header + self.pdu


def cut_frames(buffer: bytearray) -> list[Frame]:
    """Take the complete frames from the beginning of `buffer`."""
    frames = []
    while len(buffer) >= 6:
        end = 6 + int.from_bytes(buffer[4:6])
        if len(buffer) < end:
            break
        frames.append(
            Frame(int.from_bytes(buffer[:2]), buffer[6], bytes(buffer[7:end]))
        )
        del buffer[:end]
    return frames
