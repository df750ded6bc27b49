"""The settings that protocols read.

`Settings` has each of these under the same name, with its default and bounds; a
protocol gets the settings themselves. Choices are string enumerations, because config
entries and command lines hold strings.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum
from ipaddress import ip_address
from typing import Protocol as Interface

SILENT_CHARACTERS = 3.5
"""So much silence stands before each frame (Modbus over Serial Line V1.02, 2.5.1.1)."""
_FAST = 19_200
"""Above this baud rate the silence does not become shorter."""
_SHORTEST_SILENCE = 0.00175
_SLOWEST, _FASTEST = 300, 4_000_000


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


class Parity(enum.StrEnum):
    """The parity bit of a character."""

    NONE = "none"
    EVEN = "even"
    ODD = "odd"


@dataclass(frozen=True, kw_only=True, slots=True)
class SerialLine:
    """The port of a serial line and its settings; a character has eight data bits.

    Raises:
        SettingsError: a setting is out of its bounds or unknown.

    """

    device: str
    """A path, such as `/dev/serial/by-id/…`, or a URL that serialx knows."""
    baudrate: int = 9600
    parity: Parity = Parity.NONE
    stopbits: int = 1

    def __post_init__(self) -> None:
        """Check everything, and convert a parity given by name."""
        if not self.device:
            raise SettingsError("serial", "names no port")
        if not _SLOWEST <= self.baudrate <= _FASTEST:
            message = f"baudrate must be between {_SLOWEST} and {_FASTEST}"
            raise SettingsError("serial", message)
        if self.parity not in {*Parity}:
            raise SettingsError("serial", f"parity must be {' or '.join(Parity)}")
        if self.stopbits not in {1, 2}:
            raise SettingsError("serial", "stopbits must be 1 or 2")
        object.__setattr__(self, "parity", Parity(self.parity))

    @property
    def name(self) -> str:
        """The port for people: without the keys and passwords that a URL may hold."""
        return self.device.partition("?")[0]

    @property
    def character(self) -> float:
        """Seconds that a character takes: start bit, data, parity, stop bits."""
        bits = 1 + 8 + (self.parity is not Parity.NONE) + self.stopbits
        return bits / self.baudrate

    @property
    def silence(self) -> float:
        """Seconds of silence before a frame (Modbus over Serial Line, 2.5.1.1)."""
        if self.baudrate > _FAST:
            return _SHORTEST_SILENCE
        return SILENT_CHARACTERS * self.character


@dataclass(frozen=True, kw_only=True, slots=True)
class DialIn:
    """The local port to which the device connects, instead of being connected to.

    Raises:
        SettingsError: the port or the device's address is none.

    """

    port: int
    host: str | None = None
    """The local address; None: all of IPv4 and IPv6."""
    device: str = ""
    """The only address that may dial in; empty: the first from which a device answers,
    which is then learned."""

    def __post_init__(self) -> None:
        """Check everything."""
        if not 0 <= self.port <= 65535:
            raise SettingsError("dial_in", "port must be between 0 and 65535")
        if self.device:
            try:
                ip_address(self.device)
            except ValueError as err:
                raise SettingsError("dial_in", str(err)) from err


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
    def serial(self) -> SerialLine | None:
        """The serial line of the device; None: it is reached over a network."""

    @property
    def dial_in(self) -> DialIn | None:
        """Where the device dials in; None: it is connected to."""

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
    def periodic_request(self) -> str:
        """What is asked of the device now and then, in words; empty: nothing."""

    @property
    def allowed_units(self) -> tuple[int, ...]:
        """Units of the device that are allowed; empty: all."""

    @property
    def allowed_functions(self) -> tuple[int, ...]:
        """Function codes that are allowed; empty: all."""

    @property
    def max_read_registers(self) -> int:
        """The maximum number of registers that one request may read."""


def check_one_in_flight(options: ProtocolOptions, what: str) -> None:
    """Check that only one request may be in flight on a connection.

    Raises:
        SettingsError: there may be more; `what` names what does not allow that.

    """
    if options.max_in_flight > 1:
        message = f"{what} can have only 1 request in flight at a time"
        raise SettingsError("max_in_flight", message)
