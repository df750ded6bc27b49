"""Every setting of a multiplexer, its default and its bounds, in one place.

The command line, the config flow and the tests all build a `Settings`; nothing else
in the engine knows a default. Times are seconds, sizes are bytes; a time of 0 turns
the behaviour off that it belongs to.
"""

from dataclasses import dataclass

from .networks import DEFAULT_NETWORKS, Network
from .protocols import PROTOCOLS
from .tls import TlsListener, TlsUpstream


class SettingsError(ValueError):
    """A setting is out of its bounds; `field` names it, the text says what to do."""

    def __init__(self, field: str, message: str) -> None:
        """Name the field and say what it must be."""
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


RANGES: dict[str, tuple[float, float]] = {
    "port": (1, 65535),
    "listen_port": (0, 65535),
    "timeout": (0.1, 3600),
    "connect_delay": (0, 300),
    "request_delay": (0, 60),
    "idle_timeout": (0, 86400),
    "max_lifetime": (0, 604800),
    "reconnect_backoff": (0.1, 300),
    "reconnect_backoff_max": (0.1, 3600),
    "max_connections": (1, 64),
    "max_in_flight": (1, 64),
    "queue_size": (1, 100_000),
    "health_check_interval": (0, 86400),
    "unit_id": (0, 255),
    "quiet": (0, 60),
    "cache_ttl": (0, 3600),
    "max_read_registers": (1, 125),
    "max_clients": (1, 100_000),
    "max_body": (1024, 1 << 30),
    "trace_size": (0, 10_000),
}


_CHOICES: dict[str, tuple[str, ...]] = {
    "on_failure": ("exception", "close"),
    "framing": ("tcp", "rtu"),
    "matching": ("strict", "lenient"),
    "write_policy": ("allow", "deny", "acknowledge"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenerSettings:
    """One more port by which clients may come."""

    host: str | None = None
    """The local address; None: all of IPv4 and IPv6."""
    port: int
    framing: str = "tcp"
    """Modbus: `tcp`, or `rtu` for clients that only speak RTU over TCP."""
    tls: TlsListener | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What one multiplexer shares, where it listens and how it behaves.

    Raises:
        SettingsError: a value is out of its bounds.

    """

    protocol: str = "modbus"
    """A name in `PROTOCOLS`."""
    host: str
    """The device; a name is resolved anew at every connection attempt."""
    port: int = 502
    listen_host: str | None = None
    """The local address to listen on; None: all of IPv4 and IPv6."""
    listen_port: int = 5020
    """0 lets the system choose (tests)."""

    more_listeners: tuple[ListenerSettings, ...] = ()
    tls: TlsUpstream | None = None
    """Speak TLS with the device."""

    timeout: float = 5.0
    """From a request's last byte to its answer, waiting included."""
    connect_delay: float = 0.0
    """Between the opening of a connection and its first request."""
    request_delay: float = 0.0
    """Between the end of one exchange and the next, on each connection."""
    connect_on_demand: bool = False
    """Connect with the first request rather than at once."""
    idle_timeout: float = 0.0
    """Close an upstream connection that had no request for so long."""
    max_lifetime: float = 0.0
    """Renew an upstream connection of this age, between two exchanges."""
    reconnect_backoff: float = 1.0
    reconnect_backoff_max: float = 30.0

    max_connections: int = 1
    max_in_flight: int = 1
    """Requests in flight on one connection; more than 1 pipelines (Modbus only)."""
    queue_size: int = 32
    """Pending requests over all clients; each client may always place one."""

    health_check_interval: float = 30.0
    """Probe an open upstream that was silent for so long."""
    probe: bytes = b""
    """What to ask as a probe where the protocol has no harmless request."""
    unit_id: int = 1
    """The Modbus unit that a probe asks before any client has."""

    framing: str = "tcp"
    """Modbus: how the device frames, `tcp` or `rtu` (RTU over TCP)."""
    matching: str = "strict"
    """Modbus: `lenient` serves devices that do not echo the transaction identifier."""
    quiet: float = 1.0
    """After a timeout, how long to wait for a late response that nothing would tell
    from the next one's (RTU and lenient matching)."""

    share_reads: bool = True
    """Answer a read with the response to an identical one that is under way."""
    cache_ttl: float = 0.0
    """Answer a read with a response not older than this."""
    writes_first: bool = True
    """Serve clients whose next request is a write before others, within bounds."""
    write_policy: str = "allow"
    """`allow` writes, `deny` them (0x01), or `acknowledge` them unsent."""
    write_networks: tuple[Network, ...] = ()
    """Clients in these may write whatever the write policy."""
    allowed_functions: tuple[int, ...] = ()
    """Modbus function codes that may pass; none named: all."""
    allowed_units: tuple[int, ...] = ()
    """Units of the device that may be asked; none named: all."""
    max_read_registers: int = 125
    """Longer reads of registers are refused (0x03) without asking the device."""
    unit_map: tuple[tuple[int, int], ...] = ()
    """Pairs of the unit that clients ask and the unit of the device."""

    allowed_networks: tuple[Network, ...] = DEFAULT_NETWORKS
    max_clients: int = 1000

    on_failure: str = "exception"
    """Modbus: `exception` answers with a gateway exception, `close` hangs up."""
    max_body: int = 16 << 20
    """HTTP: the longest body, either way."""
    trace_size: int = 200
    """Exchanges kept for people to look at."""

    def __post_init__(self) -> None:
        """Check every bound."""
        if self.protocol not in PROTOCOLS:
            names = ", ".join(PROTOCOLS)
            message = f"unknown protocol {self.protocol!r}; choose one of {names}"
            raise SettingsError("protocol", message)
        if not self.host:
            raise SettingsError("host", "is empty; give the device's name or address")
        for field, (low, high) in RANGES.items():
            value = getattr(self, field)
            if not low <= value <= high:
                message = f"must be between {low:g} and {high:g}, is {value:g}"
                raise SettingsError(field, message)
        if self.reconnect_backoff_max < self.reconnect_backoff:
            message = "must not be less than reconnect_backoff"
            raise SettingsError("reconnect_backoff_max", message)
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                message = f"must be {' or '.join(choices)}, is {value!r}"
                raise SettingsError(field, message)
        self._check_numbers()
        self._check_listeners()
        self._check_correlation()

    def _check_correlation(self) -> None:
        """Check that no more is in flight than responses can be told apart."""
        if not PROTOCOLS[self.protocol].correlated:
            manner = self.protocol
        elif self.framing == "rtu":
            manner = "RTU over TCP"
            if self.max_connections > 1:
                # serial servers send what the line says to every connection
                message = "must be 1: a serial line carries one exchange at a time"
                raise SettingsError("max_connections", message)
        elif self.matching == "lenient":
            manner = "lenient matching"
        else:
            return
        if self.max_in_flight > 1:
            message = f"{manner} can have only 1 request in flight at a time"
            raise SettingsError("max_in_flight", message)

    def _check_listeners(self) -> None:
        """Check the ports, and that each framing has a protocol to frame."""
        low, high = RANGES["listen_port"]
        for listener in self.more_listeners:
            if not low <= listener.port <= high:
                message = f"port must be between {low:g} and {high:g}"
                raise SettingsError("more_listeners", message)
            choices = ("tcp", "rtu") if self.protocol == "modbus" else ("tcp",)
            if listener.framing not in choices:
                message = f"{self.protocol} has no framing {listener.framing!r}"
                raise SettingsError("more_listeners", message)

    def _check_numbers(self) -> None:
        """Check units and function codes, and that the unit map leads both ways."""
        client_units = [unit for unit, _ in self.unit_map]
        device_units = [unit for _, unit in self.unit_map]
        for field, values, low in (
            ("allowed_functions", self.allowed_functions, 1),
            ("allowed_units", self.allowed_units, 0),
            ("unit_map", (*client_units, *device_units), 0),
        ):
            for value in values:
                if not low <= value <= 255:
                    message = f"must be between {low} and 255, is {value}"
                    raise SettingsError(field, message)
        for units in (client_units, device_units):
            if len(set(units)) < len(units):
                message = "must not name a unit twice on the same side"
                raise SettingsError("unit_map", message)
