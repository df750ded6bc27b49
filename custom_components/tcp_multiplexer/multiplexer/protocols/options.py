"""The settings that protocols read.

`Settings` has each of these under the same name, with its default and bounds; a
protocol gets the settings themselves. Choices are string enumerations, because config
entries and command lines hold strings.
"""

import enum
from typing import Protocol as Interface


class SettingsError(ValueError):
    """A setting is not valid; `field` names it, and the text says what to do."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Framing(enum.StrEnum):
    """How messages are framed, if a protocol knows several ways."""

    TCP = "tcp"
    """As the protocol frames them on TCP."""
    RTU = "rtu"
    """As Modbus RTU frames them on a serial line."""
    SOLARMAN = "solarman"
    """As Solarman V5 wraps the frames of Modbus RTU, for logger sticks."""


class Matching(enum.StrEnum):
    """How a response is matched to its request."""

    STRICT = "strict"
    """By the transaction identifier."""
    LENIENT = "lenient"
    """For devices that do not echo the transaction identifier."""


class OnFailure(enum.StrEnum):
    """What a client gets if its request has no response."""

    EXCEPTION = "exception"
    """A gateway exception."""
    CLOSE = "close"
    """Its connection is closed."""


class ProtocolOptions(Interface):
    """The settings that at least one protocol reads."""

    @property
    def host(self) -> str:
        """The device's host, for protocols that name it in their messages."""

    @property
    def port(self) -> int:
        """Its port, likewise."""

    @property
    def max_connections(self) -> int:
        """The maximum number of connections to the device."""

    @property
    def max_in_flight(self) -> int:
        """The maximum number of requests in flight on one connection."""

    @property
    def probe(self) -> bytes:
        """The message to probe with, if the protocol has no harmless one of its own."""

    @property
    def max_body(self) -> int:
        """The maximum body size in either direction, in bytes."""

    @property
    def framing(self) -> Framing:
        """How the device frames messages."""

    @property
    def logger_serial(self) -> int:
        """The serial number of the logger stick; 0: not known."""

    @property
    def check_logger_serial(self) -> bool:
        """Whether V5 clients must name that serial number."""

    @property
    def matching(self) -> Matching:
        """How responses are matched to requests."""

    @property
    def quiet(self) -> float:
        """Seconds of silence after a timeout, if responses name no request."""

    @property
    def on_failure(self) -> OnFailure:
        """What clients get instead of a response."""

    @property
    def unit_id(self) -> int:
        """The unit that a probe asks before any client has."""

    @property
    def unit_map(self) -> tuple[tuple[int, int], ...]:
        """Pairs of the unit that clients ask and the unit of the device."""

    @property
    def allowed_units(self) -> tuple[int, ...]:
        """Units of the device that are allowed; empty: all."""

    @property
    def allowed_functions(self) -> tuple[int, ...]:
        """Function codes that are allowed; empty: all."""

    @property
    def max_read_registers(self) -> int:
        """The maximum number of registers that one request may read."""
