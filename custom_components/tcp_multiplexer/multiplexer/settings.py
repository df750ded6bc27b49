"""Every setting of a multiplexer: one row each, the only place that has its default.

A row states what a setting means, its default and bounds, and the section to which it
belongs. The command line's flag and the form's field are generated from it, by its
type. Times are seconds, sizes are bytes; a time of 0 turns its feature off.
"""

from dataclasses import dataclass, fields
import enum
import time
from types import MappingProxyType
from typing import Any, Final

from .checks import check_bounds, chosen
from .networks import DEFAULT_NETWORKS, Network, format_address
from .protocols import PROTOCOLS, Protocol
from .protocols.modbus.quantities import MAX_REGISTERS
from .protocols.options import (
    DialIn,
    Framing,
    Matching,
    OnFailure,
    Parity,
    SerialLine,
    SettingsError,
)
from .rows import Row, Section, setting
from .tls import TlsListener, TlsUpstream
from .write_rules import WriteAction, WriteRule

__all__ = [
    "ROWS",
    "DialIn",
    "ListenerSettings",
    "Parity",
    "Row",
    "Section",
    "SerialLine",
    "Settings",
    "SettingsError",
    "WriteAction",
    "WriteRule",
    "make_protocol",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenerSettings:
    """One more address on which to listen for clients.

    Raises:
        SettingsError: the framing is unknown.

    """

    host: str | None = None
    """The local address; None: all of IPv4 and IPv6."""
    port: int
    framing: Framing = Framing.TCP
    """How its clients frame their messages."""
    tls: TlsListener | None = None
    """Use TLS with its clients."""

    def __post_init__(self) -> None:
        """Convert a framing given by name, as config entries store it."""
        choice = chosen("more_listeners", Framing, self.framing)
        object.__setattr__(self, "framing", choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The device of one multiplexer, where it listens, and how it behaves.

    A choice may be given by its name, as config entries and command lines have it.

    Raises:
        SettingsError: a value is out of its bounds, unknown, or rules another out.

    """

    protocol: str = "modbus"
    """A name in `PROTOCOLS`."""
    host: str = ""
    """The device; a name is resolved again at every attempt to connect."""
    port: int = setting(502, bounds=(1, 65535))
    listen_host: str | None = None
    """The local address to listen on; None: all of IPv4 and IPv6."""
    listen_port: int = setting(5020, bounds=(0, 65535))
    """0 lets the system choose, for tests."""
    more_listeners: tuple[ListenerSettings, ...] = ()
    tls: TlsUpstream | None = None
    """Use TLS with the device."""
    serial: SerialLine | None = None
    """The device is on this serial line, not at a host and port."""
    dial_in: DialIn | None = None
    """The device connects to this local port."""
    logger_serial: int = setting(0, bounds=(0, 0xFFFFFFFF))
    """The serial number of a logger stick with Solarman V5. 0: asked of the stick, but
    not every one tells it."""

    timeout: float = setting(
        5.0,
        Section.CONNECTION,
        "time from a request to its response, including the wait",
        bounds=(0.1, 3600),
        live=True,
    )
    """Counted from the request's last byte."""
    connect_delay: float = setting(
        0.0,
        Section.CONNECTION,
        "wait after connecting to the device before the first request",
        bounds=(0, 300),
        live=True,
    )
    request_delay: float = setting(
        0.0,
        Section.CONNECTION,
        "wait between two exchanges with the device",
        bounds=(0, 60),
        live=True,
    )
    """Per connection; implies one request in flight."""
    connect_on_demand: bool = setting(
        False,
        Section.CONNECTION,
        "connect for the first request rather than at once",
        live=True,
    )
    idle_timeout: float = setting(
        0.0,
        Section.CONNECTION,
        "disconnect from the device after this long without requests",
        bounds=(0, 86400),
        live=True,
    )
    max_lifetime: float = setting(
        0.0,
        Section.CONNECTION,
        "renew a connection to the device at this age",
        bounds=(0, 604800),
        live=True,
    )
    """Renewed between two exchanges."""
    unit_id: int = setting(
        1,
        Section.CONNECTION,
        "Modbus: the unit to probe until a client has asked one",
        bounds=(0, 255),
        live=True,
    )

    reconnect_backoff: float = setting(
        1.0,
        Section.RECOVERY,
        "first wait between attempts to connect; it grows while they fail",
        bounds=(0.1, 300),
        live=True,
    )
    reconnect_backoff_max: float = setting(
        30.0,
        Section.RECOVERY,
        "longest wait between attempts to connect",
        bounds=(0.1, 3600),
        live=True,
    )
    health_check_interval: float = setting(
        30.0,
        Section.RECOVERY,
        "probe a connected device that was silent for this long",
        bounds=(0, 86400),
        live=True,
    )
    probe: bytes = setting(
        b"",
        Section.RECOVERY,
        "a complete message to probe the device with, in hexadecimal, if the protocol "
        "has no harmless request of its own (default: no probing)",
    )

    max_connections: int = setting(
        1,
        Section.POOL,
        "maximum number of connections to the device",
        bounds=(1, 64),
        live=True,
    )
    max_in_flight: int = setting(
        1,
        Section.POOL,
        "Modbus: maximum number of requests in flight on one connection",
        bounds=(1, 64),
        live=True,
    )
    queue_size: int = setting(
        32,
        Section.POOL,
        "maximum number of waiting requests, over all clients",
        bounds=(1, 100_000),
        live=True,
    )
    """Each client may always place one request."""
    on_failure: OnFailure = setting(
        OnFailure.EXCEPTION,
        Section.POOL,
        "Modbus: what a client gets if its request has no response",
        live=True,
    )
    max_body: int = setting(
        16 << 20,
        Section.POOL,
        "HTTP: maximum body size, in either direction",
        bounds=(1024, 1 << 30),
        unit="B",
    )

    framing: Framing = setting(
        Framing.TCP,
        Section.MODBUS,
        "how the device frames; rtu is RTU over TCP, solarman is Solarman V5",
    )
    share_reads: bool = setting(
        True,
        Section.MODBUS,
        "answer reads of the same, or of a part, with one response",
        live=True,
    )
    cache_ttl: float = setting(
        0.0,
        Section.MODBUS,
        "reuse a response for the same reads, and parts of them, for this long",
        bounds=(0, 3600),
        live=True,
    )
    writes_first: bool = setting(
        True, Section.MODBUS, "serve writes before reads, within bounds", live=True
    )
    """Clients whose next request is a write are served before others."""
    write_rules: tuple[WriteRule, ...] = setting(
        (),
        Section.MODBUS,
        "what to do with some writes, such as 'deny 192.168.1.0/24 unit=1 "
        "function=6,16 registers=100-200'; or allow, or acknowledge, which answers "
        "without sending. The first rule that matches decides; what matches none is "
        "allowed. May be repeated",
        live=True,
    )
    repeated_write_ttl: float = setting(
        0.0,
        Section.MODBUS,
        "confirm a write without sending it if it repeats the last one of its unit, "
        "for this long after that was confirmed",
        bounds=(0, 3600),
        live=True,
    )
    allowed_functions: tuple[int, ...] = setting(
        (),
        Section.MODBUS,
        "function codes that are allowed (default: all)",
        bounds=(1, 255),
        live=True,
    )
    allowed_units: tuple[int, ...] = setting(
        (),
        Section.MODBUS,
        "units of the device that are allowed (default: all)",
        bounds=(0, 255),
        live=True,
    )
    max_read_registers: int = setting(
        MAX_REGISTERS,
        Section.MODBUS,
        "ask for reads of more registers in parts of so many",
        bounds=(1, MAX_REGISTERS),
        live=True,
    )
    """Less than the default implies one request in flight on a connection."""
    unit_map: tuple[tuple[int, int], ...] = setting(
        (),
        Section.MODBUS,
        "units that have other numbers at the device (default: none)",
        bounds=(0, 255),
    )
    """Pairs of the unit that clients ask and the unit of the device."""
    discard_first_read: bool = setting(
        False,
        Section.MODBUS,
        "read something after connecting to the device, before the first request, and "
        "ignore what comes of it",
        live=True,
    )
    periodic_request: str = setting(
        "",
        Section.MODBUS,
        "ask this of the device every --periodic-interval: 'unit=1 read=40608', or "
        "'unit=1 write=49999 value=1'; function= and, of a read, count= may be added "
        "(default: nothing)",
        live=True,
    )
    periodic_interval: float = setting(
        60.0,
        Section.MODBUS,
        "time from one --periodic-request to the next",
        bounds=(1, 86400),
        live=True,
    )
    matching: Matching = setting(
        Matching.STRICT,
        Section.MODBUS,
        "lenient is for devices that do not echo the transaction identifier",
    )
    quiet: float = setting(
        1.0,
        Section.MODBUS,
        "silence after a timeout with rtu and lenient, where a late response could be "
        "taken for the next one",
        bounds=(0, 60),
    )
    check_logger_serial: bool = setting(
        False,
        Section.MODBUS,
        "ignore Solarman V5 clients that name another serial number than the stick's",
    )

    allowed_networks: tuple[Network, ...] = setting(
        DEFAULT_NETWORKS,
        Section.ACCESS,
        "networks from which clients may connect (default: loopback, private, "
        "link-local and unique local addresses)",
        live=True,
    )
    max_clients: int = setting(
        1000,
        Section.ACCESS,
        "maximum number of clients",
        bounds=(1, 100_000),
        live=True,
    )
    client_idle_timeout: float = setting(
        0.0,
        Section.ACCESS,
        "disconnect clients that asked nothing for so long",
        bounds=(0, 604800),
        live=True,
    )

    trace_size: int = setting(
        200,
        Section.RECORD,
        "exchanges to keep for the report",
        bounds=(0, 10_000),
        live=True,
    )

    def __post_init__(self) -> None:
        """Check everything, and convert choices given by name."""
        if self.protocol not in PROTOCOLS:
            names = ", ".join(PROTOCOLS)
            message = f"unknown protocol {self.protocol!r}; choose one of {names}"
            raise SettingsError("protocol", message)
        if not (self.host or self.serial or self.dial_in):
            raise SettingsError("host", "is empty; give the device's name or address")
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(each.default, enum.StrEnum):
                choice = chosen(each.name, type(each.default), value)
                object.__setattr__(self, each.name, choice)
            elif (row := ROWS.get(each.name)) is not None:
                check_bounds(each.name, row.bounds, value)
        if self.reconnect_backoff_max < self.reconnect_backoff:
            message = "must not be less than reconnect_backoff"
            raise SettingsError("reconnect_backoff_max", message)
        if self.serial is not None:
            self._check_serial()
        if self.dial_in is not None and (self.tls or self.max_connections > 1):
            message = "there is one connection, without TLS"
            raise SettingsError("dial_in", message)
        protocol = PROTOCOLS[self.protocol]
        for listener in self.more_listeners:
            low, high = ROWS["listen_port"].bounds or (0, 0)
            if not low <= listener.port <= high:
                message = f"port must be between {low:g} and {high:g}"
                raise SettingsError("more_listeners", message)
            if listener.framing not in (protocol.framings or (Framing.TCP,)):
                message = f"{self.protocol} has no framing {listener.framing.value!r}"
                raise SettingsError("more_listeners", message)
        protocol.check(self)

    def _check_serial(self) -> None:
        framings = PROTOCOLS[self.protocol].framings
        if self.framing is not Framing.RTU or Framing.RTU not in framings:
            raise SettingsError("serial", "needs the protocol modbus and framing rtu")
        if self.tls is not None:
            raise SettingsError("tls", "is not spoken on a serial line")

    @property
    def splits_reads(self) -> bool:
        """Whether there are reads that are asked in parts."""
        return self.max_read_registers < MAX_REGISTERS

    @property
    def target(self) -> str:
        """The device for people."""
        if self.serial is not None:
            return self.serial.name
        if self.dial_in is not None:
            return f"{self.dial_in.device or 'a device'} on port {self.dial_in.port}"
        return format_address(self.host, self.port)


ROWS: Final = MappingProxyType(
    {
        each.name: row
        for each in fields(Settings)
        if (row := each.metadata.get("row")) is not None
    }
)
"""The rows of all settings that have one, by the name of their field."""


def make_protocol(settings: Settings) -> Protocol[Any]:
    """Make the protocol that `settings` name, with its options from them.

    Raises:
        SettingsError: the probe is not one complete message of the protocol.

    """
    try:
        protocol = PROTOCOLS[settings.protocol](settings)
    except ValueError as err:  # the probe is the only setting that a protocol parses
        raise SettingsError("probe", str(err)) from err
    protocol.time_of_day = time.time
    return protocol
