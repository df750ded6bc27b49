"""What a Modbus device reports about itself, and which profile that suggests.

The requests are, in this order and on one connection: *read device identification*
(0x2B / 0x0E, Modbus Application Protocol V1.1b3, 6.21), then a read of the SunSpec
marker at the three addresses where the common model may start (SunSpec Device
Information Model, 6.1). Each is harmless, and an exception is an answer too: the unit
is there.

pymodbus encodes and decodes the identification; the rest is registers.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
import struct
from typing import Final

from pymodbus.pdu import DecodePDU
from pymodbus.pdu.mei_message import (
    ReadDeviceInformationRequest,
    ReadDeviceInformationResponse,
)

from ..multiplexer import PROFILES

type Ask = Callable[[bytes], Awaitable[bytes | None]]
"""Sends unit identifier and PDU, and returns those of the answer; None: no answer."""

FURTHER_UNITS: Final = (1, 0, 255, 247, 3)
"""Unit identifiers that devices often have, to try if the expected one is silent."""

_VENDOR, _PRODUCT_CODE, _REVISION, _PRODUCT_NAME, _MODEL_NAME = 0, 1, 2, 4, 5
_SUNSPEC: Final = (40000, 50000, 0)
_MARKER: Final = b"SunS"
_COMMON_MODEL: Final = 1
# Of the common model, from the marker on: manufacturer, model, version, serial number.
_FIELDS: Final = ((4, 16), (20, 16), (44, 8), (52, 16))


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What a device reports about itself; empty if it does not say."""

    unit: int
    """The unit that answered."""
    manufacturer: str = ""
    model: str = ""
    version: str = ""
    serial: str = ""

    @property
    def name(self) -> str:
        """Manufacturer and model, without saying the manufacturer twice."""
        if self.model.lower().startswith(self.manufacturer.lower()):
            return self.model
        return f"{self.manufacturer} {self.model}".strip()

    @property
    def profile(self) -> str | None:
        """The device profile that this suggests."""
        words = f"{self.manufacturer} {self.model}".lower()
        for name, profile in PROFILES.items():
            if profile.signs and all(sign in words for sign in profile.signs):
                return name
        return None


async def identify(ask: Ask, units: Sequence[int]) -> Identity | None:
    """Identify the first of `units` that answers; None: none does."""
    for unit in dict.fromkeys(units):
        answer = await ask(bytes((unit, *_IDENTIFICATION)))
        if answer is None:
            continue
        found = _read_identification(unit, answer) or await _read_sunspec(ask, unit)
        return found or Identity(unit=unit)
    return None


_REQUEST: Final = ReadDeviceInformationRequest(read_code=2)
_IDENTIFICATION: Final = bytes((_REQUEST.function_code,)) + _REQUEST.encode()


def _read_identification(unit: int, answer: bytes) -> Identity | None:
    try:
        response = DecodePDU(is_server=False).decode(answer[1:])
    except struct.error:  # a response cut short
        return None
    if not isinstance(response, ReadDeviceInformationResponse):
        return None
    said = {
        number: _text(value)
        for number, value in response.information.items()
        if isinstance(value, bytes)
    }
    model = (
        said.get(_MODEL_NAME) or said.get(_PRODUCT_NAME) or said.get(_PRODUCT_CODE, "")
    )
    if not (said.get(_VENDOR) or model):
        return None
    return Identity(
        unit=unit,
        manufacturer=said.get(_VENDOR, ""),
        model=model,
        version=said.get(_REVISION, ""),
    )


async def _read_sunspec(ask: Ask, unit: int) -> Identity | None:
    for base in _SUNSPEC:
        head = await _read(ask, unit, base, 4)
        if head[:4] != _MARKER or int.from_bytes(head[4:6]) != _COMMON_MODEL:
            continue
        texts = [_text(await _read(ask, unit, base + at, n)) for at, n in _FIELDS]
        manufacturer, model, version, serial = texts
        return Identity(
            unit=unit,
            manufacturer=manufacturer,
            model=model,
            version=version,
            serial=serial,
        )
    return None


async def _read(ask: Ask, unit: int, address: int, count: int) -> bytes:
    """Read holding registers; return their bytes, empty if there is no such answer."""
    answer = await ask(struct.pack(">BBHH", unit, 3, address, count))
    if answer is None or answer[1:3] != bytes((3, 2 * count)):
        return b""
    return answer[3:]


def _text(data: bytes) -> str:
    """Decode a text that is padded with zeros or blanks."""
    text = data.partition(b"\0")[0].decode("ascii", "replace").strip()
    return "".join(letter for letter in text if letter.isprintable())
