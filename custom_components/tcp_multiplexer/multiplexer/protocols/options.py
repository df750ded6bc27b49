"""What protocols read of the settings of their multiplexer.

`Settings` has every one of these, under the same name, with its default and bounds;
a protocol is handed the settings themselves. Choices are enumerations of strings,
because entries and command lines hold strings.
"""

import enum
from typing import Protocol as Interface


class SettingsError(ValueError):
    """A setting is out of its bounds; `field` names it, the text says what to do."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Framing(enum.StrEnum):
    """How messages are framed, where a protocol knows several ways."""

    TCP = "tcp"
    """As the protocol frames them on TCP."""
    RTU = "rtu"
    """As Modbus RTU frames them on a serial line."""


class Matching(enum.StrEnum):
    """How a response is matched to its request."""

    STRICT = "strict"
    LENIENT = "lenient"
    """For devices that do not echo the transaction identifier."""


class OnFailure(enum.StrEnum):
    """What a client gets when its request has no response."""

    EXCEPTION = "exception"
    """A gateway exception."""
    CLOSE = "close"


class ProtocolOptions(Interface):
    """The settings that some protocol reads."""

    @property
    def host(self) -> str:
        """The device, for protocols that name it in their messages."""

    @property
    def port(self) -> int:
        """Its port, likewise."""

    @property
    def max_connections(self) -> int:
        """Connections to the device at a time."""

    @property
    def max_in_flight(self) -> int:
        """Requests in flight on one connection."""

    @property
    def probe(self) -> bytes:
        """The message to probe with, where the protocol has no harmless one."""

    @property
    def max_body(self) -> int:
        """The longest body, either way, in bytes."""

    @property
    def framing(self) -> Framing:
        """How the device frames."""

    @property
    def matching(self) -> Matching:
        """How responses are matched."""

    @property
    def quiet(self) -> float:
        """Seconds of silence after a timeout, where responses name no request."""

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
        """Units of the device that may be asked; none named: all."""

    @property
    def allowed_functions(self) -> tuple[int, ...]:
        """Function codes that may pass; none named: all."""

    @property
    def max_read_registers(self) -> int:
        """The most registers that one request may read."""
