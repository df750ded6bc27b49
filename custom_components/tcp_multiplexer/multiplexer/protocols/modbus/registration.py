"""What a SolaX dongle says first when it dials in.

Each connection begins with frames that nobody asked for: one that registers the dongle,
and an exception. Both have the transaction identifier 1, which no request of ours has
then. Source: wills106/homeassistant-solax-modbus#2336.
"""

from __future__ import annotations

from .matching import Transactions
from .tcp import PREFIX

_HEADER = b"\0\x01\0\0"
"""Identifier 1, protocol 0; the length follows."""
_LONGEST = 1024
"""Bytes of a registration, at most."""
_LAST = 0xFF00
"""A connection begins with lower identifiers, so that 1 does not come up soon."""


class Registration:
    """Takes away whole frames with identifier 1, up to the first other byte."""

    def __init__(self) -> None:
        self._buffer = b""
        self._over = False

    def strip(self, data: bytes) -> bytes:
        """Return what of `data` is not part of them; keep what may be."""
        if self._over:
            return data
        data = self._buffer + data
        while _HEADER.startswith(data[: len(_HEADER)]):
            length = int.from_bytes(data[4:PREFIX].ljust(2, b"\0"))
            if length > _LONGEST:
                break
            if len(data) < PREFIX + length:
                self._buffer = data
                return b""
            data = data[PREFIX + length :]
        self._over = True
        return data


def leave_out(transactions: Transactions) -> None:
    """Leave identifier 1 to the registration that begins a new connection."""
    if not 1 <= transactions.last < _LAST:
        transactions.last = 1
