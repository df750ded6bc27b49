"""What a Modbus PDU means: which requests change something, and words for people.

Source: Modbus Application Protocol V1.1b3. A payload here is a unit identifier and a
PDU, as requests carry it; response payloads likewise.
"""

from __future__ import annotations

from typing import Final, override

from ..base import Failure, Request, Written
from ..outline import Outline
from .extent import ModbusExtent, extent_of
from .quantities import MAX_REGISTERS, is_possible

EXCEPTION_BIT: Final = 0x80
EXCEPTION_SIZE: Final = 3
"""Bytes of an exception: unit identifier, function and code (V1.1b3, section 7)."""

# What a gateway may say (7).
_SERVER_BUSY = 0x06
_GATEWAY_PATH_UNAVAILABLE = 0x0A
_GATEWAY_TARGET_FAILED = 0x0B
_ILLEGAL_FUNCTION = 0x01
_ILLEGAL_DATA_VALUE = 0x03
_EXCEPTION_CODES = {
    Failure.NO_CONNECTION: _GATEWAY_PATH_UNAVAILABLE,
    Failure.PAUSED: _GATEWAY_PATH_UNAVAILABLE,
    Failure.CONNECTION_LOST: _GATEWAY_TARGET_FAILED,
    Failure.NO_RESPONSE: _GATEWAY_TARGET_FAILED,
    Failure.SILENT: _GATEWAY_TARGET_FAILED,
    Failure.INVALID_RESPONSE: _GATEWAY_TARGET_FAILED,
    Failure.BUSY: _SERVER_BUSY,
    Failure.REFUSED: _ILLEGAL_FUNCTION,
    Failure.TOO_LARGE: _ILLEGAL_DATA_VALUE,
}

_LAST_REGISTER = 0xFFFF
_DIAGNOSTICS = 0x08
_ENCAPSULATED = 0x2B
_READ_DEVICE_IDENTIFICATION = 0x0E

# 1-4 reads, 7 exception status, 0x0B and 0x0C event counter and log, 0x11 server id,
# 0x14 file record, 0x18 FIFO queue.
_READS = frozenset((1, 2, 3, 4, 7, 0x0B, 0x0C, 0x11, 0x14, 0x18))
PLAIN_READS: Final = frozenset((1, 2, 3, 4))
PLAIN_QUANTITIES: Final = frozenset(
    count.to_bytes(2) for count in range(1, MAX_REGISTERS + 1)
)
"""Those that any of these may have; bits may be more."""
# The event counter and log change by being asked; a FIFO may be emptied by reading.
_RETRY_SAFE = _READS - {0x0B, 0x0C, 0x18}
# Diagnostics that only return something (6.8): echo, register and the counters.
_HARMLESS_DIAGNOSTICS = frozenset((0, 2, *range(11, 19)))

FUNCTION_NAMES = {
    1: "read coils",
    2: "read discrete inputs",
    3: "read holding registers",
    4: "read input registers",
    5: "write single coil",
    6: "write single register",
    7: "read exception status",
    8: "diagnostics",
    0x0B: "get comm event counter",
    0x0C: "get comm event log",
    0x0F: "write multiple coils",
    0x10: "write multiple registers",
    0x11: "report server ID",
    0x14: "read file record",
    0x15: "write file record",
    0x16: "mask write register",
    0x17: "read/write multiple registers",
    0x18: "read FIFO queue",
    0x2B: "encapsulated interface transport",
}

EXCEPTION_NAMES = {
    0x01: "illegal function",
    0x02: "illegal data address",
    0x03: "illegal data value",
    0x04: "server device failure",
    0x05: "acknowledge",
    0x06: "server device busy",
    0x08: "memory parity error",
    0x0A: "gateway path unavailable",
    0x0B: "gateway target device failed to respond",
}

# Functions whose request starts with an address and a count, or an address and a value.
_WITH_COUNT = frozenset((1, 2, 3, 4, 0x0F, 0x10))
_WITH_VALUE = frozenset((5, 6))
_WITH_ADDRESS = _WITH_COUNT | _WITH_VALUE | {0x16, 0x17}
_BIT_READS = frozenset((1, 2))
_REGISTER_READS = frozenset((3, 4, 0x17))


class ModbusRequest(Request):
    """A request to a unit."""

    __slots__ = ()

    @property
    @override
    def unit(self) -> int:
        return self.payload[0]

    @property
    @override
    def subject(self) -> bytes:
        return self.payload[:4]  # unit, function and address

    @property
    @override
    def written(self) -> Written:
        unit, function = self.payload[:2]
        return Written(unit, function, registers_written(self.payload))

    @property
    @override
    def extent(self) -> ModbusExtent | None:
        return None if self.share_key is None else extent_of(self.payload)

    @property
    @override
    def shape(self) -> tuple[bytes, bytes] | None:
        extent, payload = self.extent, self.payload
        return None if extent is None else (payload[:2], payload[4:])


class PlainRead(ModbusRequest):
    """A request of functions 1 to 4, as nearly all are: made in half the time."""

    __slots__ = ()

    def __init__(self, payload: bytes, context: object) -> None:
        """Keep what a codec read."""
        self.payload = self.share_key = payload
        self.context = context
        self.retry_safe = self.expects_reply = True
        self.writes = None

    @property
    @override
    def shape(self) -> tuple[bytes, bytes]:
        # (Beyond address 65535 it covers nothing, which is seen once that matters.)
        return self.payload[:2], self.payload[4:]


class VendorRequest(ModbusRequest):
    """A request of a function that is not the specification's: a login, perhaps."""

    __slots__ = ()

    may_log_in = True


class ImpossibleRequest(ModbusRequest):
    """A request for a quantity beyond those of the specification."""

    __slots__ = ()

    flaw = Failure.TOO_LARGE


def modbus_request(payload: bytes, context: object) -> Request:
    """Make a request of a unit identifier and a PDU.

    What writes to unit 0 is a broadcast, to which devices on a serial line are silent.
    """
    if payload[1] in PLAIN_READS and payload[4:] in PLAIN_QUANTITIES:  # as a rule
        return PlainRead(payload, context)
    retry_safe = is_retry_safe(payload)
    writes = payload[0] if is_write(payload) else None
    if not is_possible(payload):
        return ImpossibleRequest(payload, context, expects_reply=writes != 0)
    kind = ModbusRequest if payload[1] in FUNCTION_NAMES else VendorRequest
    return kind(
        payload,
        context,
        retry_safe=retry_safe,
        share_key=payload if retry_safe else None,
        writes=writes,
        expects_reply=writes != 0,
    )


def exception_response(payload: bytes, failure: Failure) -> bytes:
    """Return the unit and PDU of the exception that tells `failure`."""
    code = _EXCEPTION_CODES[failure]
    return bytes((payload[0], payload[1] | EXCEPTION_BIT, code))


def registers_read(payload: bytes) -> int:
    """Return how many registers a request reads; 0 for other functions."""
    if payload[1] not in _REGISTER_READS:
        return 0
    return int.from_bytes(payload[4:6])


def registers_written(payload: bytes) -> tuple[int, int] | None:
    """Return the first and the last register, or coil, that a write changes.

    None if its function names none. What is cut short, or reaches beyond the last
    register, may change any.
    """
    function = payload[1]
    at = 6 if function == 0x17 else 2
    count = 1
    if function in {0x0F, 0x10, 0x17}:
        count = int.from_bytes(payload[at + 2 : at + 4])
    elif function not in {5, 6, 0x16}:
        return None
    first = int.from_bytes(payload[at : at + 2])
    last = first + count - 1
    if len(payload) < at + 4 or last > _LAST_REGISTER:
        return 0, _LAST_REGISTER
    return first, last


def is_retry_safe(payload: bytes) -> bool:
    """Return whether asking twice does the device nothing."""
    function = payload[1]
    if function == _ENCAPSULATED:
        return payload[2:3] == bytes((_READ_DEVICE_IDENTIFICATION,))
    return function in _RETRY_SAFE


def is_write(payload: bytes) -> bool:
    """Return whether a request may change the device; unknown functions may."""
    function = payload[1]
    if function in _READS:
        return False
    if function == _DIAGNOSTICS:
        return int.from_bytes(payload[2:4]) not in _HARMLESS_DIAGNOSTICS
    if function == _ENCAPSULATED:
        return payload[2:3] != bytes((_READ_DEVICE_IDENTIFICATION,))
    return True


def byte_count(payload: bytes) -> int | None:
    """Return the byte count that the response to a read must have, if that is known."""
    function = payload[1]
    if function not in _BIT_READS | _REGISTER_READS or len(payload) < 6:
        return None
    count = int.from_bytes(payload[4:6])
    return (count + 7) // 8 if function in _BIT_READS else count * 2


def may_answer(payload: bytes, response: bytes) -> bool:
    """Return whether `response` fits the request `payload`, whatever its unit.

    By its function, the byte count of what was read, and what it confirms. An exception
    has a code (MODBUS Application Protocol 7).
    """
    if response[1] != payload[1]:
        return response[1] == payload[1] | EXCEPTION_BIT and len(response) > 2
    return byte_count(payload) in {None, *response[2:3]} and not confirms_another(
        payload, response
    )


# Where that ends what a confirmation repeats of its request: address, and value,
# quantity or masks (6.5, 6.6, 6.11, 6.12, 6.15, 6.16).
_REPEATED = {5: 6, 6: 6, 0x0F: 6, 0x10: 6, 0x15: 256, 0x16: 8}


def confirms_another(payload: bytes, response: bytes) -> bool:
    """Return whether `response` confirms another write than the request `payload`.

    One that is too short to name what was written confirms no other.
    """
    if response[1] != payload[1]:
        return False
    end = _REPEATED.get(payload[1], 2)  # mypyc has no slice that ends before it begins
    return not payload[2:end].startswith(response[2:end])


def register_width(payload: bytes, head: bytes) -> int:
    """Return how wide the registers of a response are, as a multiple of two bytes.

    Some devices have registers of four bytes, and more. `head` is its first bytes, up
    to the byte count. 0: these are not the registers that were asked for.
    """
    size = byte_count(payload)
    if payload[1] not in {3, 4} or head[1:2] != payload[1:2] or not size:
        return 0
    times, rest = divmod(head[2] if len(head) > 2 else 0, size)
    return 0 if rest else times


# The responses that repeat their request, and those that repeat address and quantity.
_ECHOED = frozenset((5, 6, 0x15, 0x16))
_COUNTED = frozenset((0x0F, 0x10))


def success_response(payload: bytes) -> bytes | None:
    """Return the response of a device that carried out a write, where it is known.

    Those of functions 5, 6, 15, 16, 21 and 22 follow from the request alone.
    """
    if payload[1] in _ECHOED:
        return payload
    return payload[:6] if payload[1] in _COUNTED else None


def explain_write(payload: bytes) -> dict[str, object]:
    """Return unit, function, address and value of a write, as far as it has them."""
    unit, function = payload[0], payload[1]
    told: dict[str, object] = {"unit": unit, "function": function}
    if function in _ECHOED | _COUNTED | {0x17} and function != 0x15:
        at = 6 if function == 0x17 else 2
        told["address"] = int.from_bytes(payload[at : at + 2])
    if function == 5:
        told["value"] = payload[4:6] == b"\xff\0"
    elif function == 6:
        told["value"] = int.from_bytes(payload[4:6])
    elif function == 0x0F:
        count, bits = int.from_bytes(payload[4:6]), payload[7:]
        told["value"] = [
            bool(bits[i // 8] >> i % 8 & 1) for i in range(min(count, 8 * len(bits)))
        ]
    elif function in {0x10, 0x17}:
        words = payload[7 if function == 0x10 else 11 :]
        told["value"] = [
            int.from_bytes(words[i : i + 2]) for i in range(0, len(words) - 1, 2)
        ]
    elif function == 0x16:
        told["value"] = payload[4:8].hex()
    else:
        told["value"] = payload[2:].hex()
    return told


def _second_place(payload: bytes) -> dict[str, int]:
    """Return where a request that reads and writes does the second, and how much."""
    if payload[1] != 0x17 or len(payload) < 10:
        return {}
    return {
        "write_address": int.from_bytes(payload[6:8]),
        "write_count": int.from_bytes(payload[8:10]),
    }


def outline(payload: bytes, response: bytes | None) -> Outline:
    """Return unit, function, address and count of a request, and its exception."""
    asked: dict[str, int] = {}
    if len(payload) >= 2:
        unit, function = payload[:2]
        asked = {"unit": unit, "function": function}
        if function in _WITH_ADDRESS:
            asked["address"] = int.from_bytes(payload[2:4])
        if function in _WITH_COUNT | {0x17}:
            asked["count"] = int.from_bytes(payload[4:6])
        asked |= _second_place(payload)
    answered: dict[str, int] = {}
    if response is not None and len(response) > 2 and response[1] & EXCEPTION_BIT:
        answered["exception"] = response[2]
    return Outline(asked, answered)


def explain(payload: bytes, response: bytes | None) -> dict[str, object]:
    """Return unit, function, address, count and values or exception of an exchange.

    `payload` is empty where a response came that nobody had asked for.
    """
    told: dict[str, object] = {}
    if len(payload) >= 2:
        function = payload[1]
        told["unit"] = payload[0]
        told["function"] = function
        told["function_name"] = FUNCTION_NAMES.get(function)
        if is_write(payload):
            told.update(explain_write(payload))
        if len(payload) >= 6 and function in _WITH_COUNT | {0x17}:
            told["address"] = int.from_bytes(payload[2:4])
            told["count"] = int.from_bytes(payload[4:6])
        told.update(_second_place(payload))
    if response is not None and payload and len(response) > 2:
        if response[1] & EXCEPTION_BIT:
            told["exception"] = response[2]
            told["exception_name"] = EXCEPTION_NAMES.get(response[2])
        elif response[1] in _REGISTER_READS:
            data = response[3:]
            told["values"] = [
                int.from_bytes(data[at : at + 2]) for at in range(0, len(data) - 1, 2)
            ]
        elif response[1] in _BIT_READS:
            data = response[3:]
            count = min(int.from_bytes(payload[4:6]), 8 * len(data))
            bits = int.from_bytes(data, "little")
            told["values"] = [bool(bits >> at & 1) for at in range(count)]
    return told


def describe(payload: bytes, response: bytes | None) -> str:
    """Say in one line what was asked and what was answered."""
    text = describe_request(payload)
    return text if response is None else f"{text} -> {describe_response(response)}"


def describe_request(payload: bytes) -> str:
    """Say what a request asks: unit, function, address, count or value."""
    if len(payload) < 2:
        return "nobody asked"
    unit, function = payload[0], payload[1]
    name = FUNCTION_NAMES.get(function, f"function 0x{function:02x}")
    text = f"unit {unit} {name}"
    if len(payload) >= 6:
        first = int.from_bytes(payload[2:4])
        second = int.from_bytes(payload[4:6])
        if function in _WITH_COUNT:
            return f"{text} {first} count {second}"
        if function in _WITH_VALUE:
            return f"{text} {first} value {second}"
        if also := _second_place(payload):
            where, count = also.values()
            return f"{text} read {first} count {second} write {where} count {count}"
    return f"{text} {payload[2:].hex(' ')}".rstrip()


def describe_response(response: bytes) -> str:
    """Say what a response answers: values, an exception, or the bare bytes."""
    if len(response) < 2:
        return response.hex()
    function = response[1]
    if function & EXCEPTION_BIT:
        code = response[2] if len(response) > 2 else 0
        return f"exception 0x{code:02x} {EXCEPTION_NAMES.get(code, '')}".rstrip()
    data = response[3:]
    whole = len(response) > 2 and len(data) == response[2]
    if function in _REGISTER_READS and whole and len(data) % 2 == 0:
        values = (int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
        return "values " + " ".join(map(str, values))
    return response[2:].hex(" ")
