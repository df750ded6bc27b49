"""What may go wrong at a device."""

from __future__ import annotations

import enum


class Fault(enum.Enum):
    """What may go wrong."""

    REFUSED = "refused"
    """The connection is refused."""
    IGNORED = "ignored"
    """The connection attempt is not answered at all."""
    RESET = "reset"
    HALF_OPEN = "half_open"
    """The device is silently gone; what is written to it vanishes."""
    LATE = "late"
    """The response comes after the deadline."""
    LOST = "lost"
    """There is no response."""
    SPLIT = "split"
    """The response comes in pieces."""
    MERGED = "merged"
    """The response comes in one piece with something that nobody asked for."""
    TRUNCATED = "truncated"
    """The end of the response is missing."""
    GARBAGE = "garbage"
    WRONG_TID = "wrong_tid"
    WRONG_UNIT = "wrong_unit"
    WRONG_FUNCTION = "wrong_function"
    DUPLICATE = "duplicate"
    UNSOLICITED = "unsolicited"
    EXCEPTION = "exception"
    NOISE = "noise"
    """Bytes that are no frame come before the response."""
    ODD_EXCEPTION = "odd_exception"
    """An exception whose header says another length, or that is a byte too long."""
    OTHER_WRITE = "other_write"
    """The confirmation of another write comes before that of a write."""
    CLOSE_INSTEAD = "close_instead"
    CLOSE_AFTER = "close_after"


CONNECT_FAULTS = (Fault.REFUSED, Fault.IGNORED)
PLAIN_FAULTS = (
    Fault.RESET,
    Fault.HALF_OPEN,
    Fault.LATE,
    Fault.LOST,
    Fault.SPLIT,
    Fault.MERGED,
    Fault.TRUNCATED,
    Fault.GARBAGE,
    Fault.CLOSE_INSTEAD,
    Fault.CLOSE_AFTER,
)
MODBUS_FAULTS = (
    *PLAIN_FAULTS,
    Fault.WRONG_TID,
    Fault.WRONG_UNIT,
    Fault.WRONG_FUNCTION,
    Fault.DUPLICATE,
    Fault.UNSOLICITED,
    Fault.EXCEPTION,
    Fault.NOISE,
    Fault.ODD_EXCEPTION,
    Fault.OTHER_WRITE,
)
RTU_FAULTS = (
    *PLAIN_FAULTS,
    Fault.WRONG_UNIT,
    Fault.WRONG_FUNCTION,
    Fault.EXCEPTION,
    Fault.NOISE,
    Fault.OTHER_WRITE,
)
LENIENT_FAULTS = (
    *PLAIN_FAULTS,
    Fault.WRONG_UNIT,
    Fault.EXCEPTION,
    Fault.OTHER_WRITE,
)
"""Not what cannot be told from an answer there."""
