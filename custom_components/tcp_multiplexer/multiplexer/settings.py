"""Every setting of a multiplexer: one row each, and nothing else knows a default.

A row says what a setting means, its default and bounds, and in which section it
belongs. The flag of the command line and the field of the form are made from it, by
its type. Times are seconds, sizes are bytes; a time of 0 turns the behaviour off that
it belongs to.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
import enum
from types import MappingProxyType
from typing import Any, Final

from .networks import DEFAULT_NETWORKS, Network
from .protocols import PROTOCOLS, Protocol
from .protocols.options import Framing, Matching, OnFailure, SettingsError
from .tls import TlsListener, TlsUpstream

__all__ = [
    "ROWS",
    "ListenerSettings",
    "Row",
    "Section",
    "Settings",
    "SettingsError",
    "WritePolicy",
    "make_protocol",
]


class WritePolicy(enum.StrEnum):
    """What becomes of a write."""

    ALLOW = "allow"
    DENY = "deny"
    """Refuse it (Modbus: exception 0x01)."""
    ACKNOWLEDGE = "acknowledge"
    """Answer it as if it had been carried out, unsent."""


class Section(enum.StrEnum):
    """Where forms and help show a setting, in their order."""

    CONNECTION = "connection"
    RECOVERY = "recovery"
    POOL = "pool"
    MODBUS = "modbus"
    ACCESS = "access"
    RECORD = "record"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is said of a setting beside its name, type and default."""

    section: Section | None = None
    """None: it is set in a way of its own, such as an address."""
    help: str = ""
    bounds: tuple[float, float] | None = None
    """The least and the most, of a number or of every number in a tuple."""
    unit: str = ""
    """Of a number of something other than seconds (`float`) or pieces (`int`)."""
    live: bool = False
    """It can change while the multiplexer runs, without dropping clients."""


def _row[ValueT](
    default: ValueT,
    section: Section | None = None,
    text: str = "",
    *,
    bounds: tuple[float, float] | None = None,
    unit: str = "",
    live: bool = False,
) -> ValueT:
    """Make a field with its row; of the type of its default, as `field` itself is."""
    row = Row(section=section, help=text, bounds=bounds, unit=unit, live=live)
    made: ValueT = field(default=default, metadata={"row": row})
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenerSettings:
    """One more port by which clients may come.

    Raises:
        SettingsError: there is no such framing.

    """

    host: str | None = None
    """The local address; None: all of IPv4 and IPv6."""
    port: int
    framing: Framing = Framing.TCP
    tls: TlsListener | None = None

    def __post_init__(self) -> None:
        """Take a framing by its name, as entries hold it."""
        choice = _chosen("more_listeners", Framing, self.framing)
        object.__setattr__(self, "framing", choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What one multiplexer shares, where it listens and how it behaves.

    A choice may be handed over by its name, as entries and command lines hold it.

    Raises:
        SettingsError: a value is out of its bounds.

    """

    protocol: str = "modbus"
    """A name in `PROTOCOLS`."""
    host: str
    """The device; a name is resolved anew at every connection attempt."""
    port: int = _row(502, bounds=(1, 65535))
    listen_host: str | None = None
    """The local address to listen on; None: all of IPv4 and IPv6."""
    listen_port: int = _row(5020, bounds=(0, 65535))
    """0 lets the system choose (tests)."""
    more_listeners: tuple[ListenerSettings, ...] = ()
    tls: TlsUpstream | None = None
    """Speak TLS with the device."""

    timeout: float = _row(
        5.0,
        Section.CONNECTION,
        "from a request to its response, waiting included",
        bounds=(0.1, 3600),
        live=True,
    )
    """From the request's last byte."""
    connect_delay: float = _row(
        0.0,
        Section.CONNECTION,
        "wait after connecting to the device before the first request",
        bounds=(0, 300),
        live=True,
    )
    request_delay: float = _row(
        0.0,
        Section.CONNECTION,
        "wait between one exchange with the device and the next",
        bounds=(0, 60),
        live=True,
    )
    """On each connection."""
    connect_on_demand: bool = _row(
        False,
        Section.CONNECTION,
        "connect with the first request, not at once",
        live=True,
    )
    idle_timeout: float = _row(
        0.0,
        Section.CONNECTION,
        "disconnect from a device that had no request for so long",
        bounds=(0, 86400),
        live=True,
    )
    max_lifetime: float = _row(
        0.0,
        Section.CONNECTION,
        "renew a connection to the device of this age",
        bounds=(0, 604800),
        live=True,
    )
    """Between two exchanges."""
    unit_id: int = _row(
        1,
        Section.CONNECTION,
        "Modbus: the unit to probe until a client asked one",
        bounds=(0, 255),
    )

    reconnect_backoff: float = _row(
        1.0,
        Section.RECOVERY,
        "first wait between attempts to connect; grows while they fail",
        bounds=(0.1, 300),
        live=True,
    )
    reconnect_backoff_max: float = _row(
        30.0, Section.RECOVERY, "longest such wait", bounds=(0.1, 3600), live=True
    )
    health_check_interval: float = _row(
        30.0,
        Section.RECOVERY,
        "probe a connected device that was silent for so long",
        bounds=(0, 86400),
        live=True,
    )
    probe: bytes = _row(
        b"",
        Section.RECOVERY,
        "a whole message to probe the device with, in hexadecimal, where the protocol "
        "has no harmless request (default: no probing)",
    )

    max_connections: int = _row(
        1, Section.POOL, "most connections at a time", bounds=(1, 64), live=True
    )
    max_in_flight: int = _row(
        1,
        Section.POOL,
        "Modbus: most requests under way at a time on one connection",
        bounds=(1, 64),
    )
    queue_size: int = _row(
        32,
        Section.POOL,
        "most requests that wait, over all clients",
        bounds=(1, 100_000),
        live=True,
    )
    """Each client may always place one."""
    on_failure: OnFailure = _row(
        OnFailure.EXCEPTION,
        Section.POOL,
        "Modbus: what a client gets when its request has no response",
    )
    max_body: int = _row(
        16 << 20,
        Section.POOL,
        "HTTP: longest body, either way",
        bounds=(1024, 1 << 30),
        unit="B",
    )

    framing: Framing = _row(
        Framing.TCP, Section.MODBUS, "how the device frames; rtu is RTU over TCP"
    )
    share_reads: bool = _row(
        True, Section.MODBUS, "answer identical reads with one response", live=True
    )
    cache_ttl: float = _row(
        0.0,
        Section.MODBUS,
        "answer a read with a response not older than this",
        bounds=(0, 3600),
        live=True,
    )
    writes_first: bool = _row(
        True, Section.MODBUS, "serve writes before reads, within bounds", live=True
    )
    """Serve clients whose next request is a write before others."""
    write_policy: WritePolicy = _row(
        WritePolicy.ALLOW,
        Section.MODBUS,
        "what becomes of writes; acknowledge answers them unsent",
        live=True,
    )
    write_networks: tuple[Network, ...] = _row(
        (),
        Section.MODBUS,
        "clients that may write whatever the policy (default: none)",
        live=True,
    )
    allowed_functions: tuple[int, ...] = _row(
        (),
        Section.MODBUS,
        "function codes that may pass (default: all)",
        bounds=(1, 255),
        live=True,
    )
    allowed_units: tuple[int, ...] = _row(
        (),
        Section.MODBUS,
        "units of the device that may be asked (default: all)",
        bounds=(0, 255),
        live=True,
    )
    max_read_registers: int = _row(
        125,
        Section.MODBUS,
        "refuse longer reads of registers without asking the device",
        bounds=(1, 125),
        live=True,
    )
    unit_map: tuple[tuple[int, int], ...] = _row(
        (),
        Section.MODBUS,
        "units that the device knows by other numbers (default: none)",
        bounds=(0, 255),
    )
    """Pairs of the unit that clients ask and the unit of the device."""
    matching: Matching = _row(
        Matching.STRICT,
        Section.MODBUS,
        "lenient serves devices that do not echo the transaction identifier",
    )
    quiet: float = _row(
        1.0,
        Section.MODBUS,
        "silence after a timeout, where nothing tells a late response from the next "
        "one's: rtu and lenient",
        bounds=(0, 60),
    )

    allowed_networks: tuple[Network, ...] = _row(
        DEFAULT_NETWORKS,
        Section.ACCESS,
        "who may connect (default: loopback, private, link-local and unique local "
        "addresses)",
        live=True,
    )
    max_clients: int = _row(
        1000, Section.ACCESS, "most clients at a time", bounds=(1, 100_000), live=True
    )
    client_idle_timeout: float = _row(
        0.0,
        Section.ACCESS,
        "disconnect clients that asked nothing for so long",
        bounds=(0, 604800),
        live=True,
    )

    trace_size: int = _row(
        200, Section.RECORD, "exchanges to remember", bounds=(0, 10_000)
    )

    def __post_init__(self) -> None:
        """Check every bound, and take choices by their names."""
        if self.protocol not in PROTOCOLS:
            names = ", ".join(PROTOCOLS)
            message = f"unknown protocol {self.protocol!r}; choose one of {names}"
            raise SettingsError("protocol", message)
        if not self.host:
            raise SettingsError("host", "is empty; give the device's name or address")
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(each.default, enum.StrEnum):
                choice = _chosen(each.name, type(each.default), value)
                object.__setattr__(self, each.name, choice)
            elif (row := ROWS.get(each.name)) is not None:
                _check_bounds(each.name, row, value)
        if self.reconnect_backoff_max < self.reconnect_backoff:
            message = "must not be less than reconnect_backoff"
            raise SettingsError("reconnect_backoff_max", message)
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


ROWS: Final = MappingProxyType(
    {
        each.name: row
        for each in fields(Settings)
        if (row := each.metadata.get("row")) is not None
    }
)
"""The rows of all settings that have one, by the names of their fields."""


def _chosen[ChoiceT: enum.StrEnum](
    name: str, choices: type[ChoiceT], value: str
) -> ChoiceT:
    try:
        return choices(value)
    except ValueError:
        message = f"must be {' or '.join(choices)}, is {value!r}"
        raise SettingsError(name, message) from None


def _check_bounds(name: str, row: Row, value: Any) -> None:
    if row.bounds is None:
        return
    low, high = row.bounds
    for number in _numbers_in(value):
        if not low <= number <= high:
            message = f"must be between {low:g} and {high:g}, is {number:g}"
            raise SettingsError(name, message)


def _numbers_in(value: Any) -> Iterator[float]:
    """Yield a number, or all of those in a tuple."""
    if isinstance(value, tuple):
        for part in value:
            yield from _numbers_in(part)
    else:
        yield value


def make_protocol(settings: Settings) -> Protocol[Any]:
    """Make the protocol that `settings` ask for, with what they say of it.

    Raises:
        SettingsError: the probe is not one whole message of the protocol.

    """
    try:
        return PROTOCOLS[settings.protocol](settings)
    except ValueError as err:  # the only setting that a protocol judges itself
        raise SettingsError("probe", str(err)) from err
