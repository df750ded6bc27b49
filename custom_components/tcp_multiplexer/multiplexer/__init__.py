"""A TCP multiplexer: one upstream connection shared by any number of clients.

This package is the engine. It knows nothing of Home Assistant, needs no more than the
standard library and h11, and also runs on its own (`tcp-multiplexer server`). What is
named here is its whole interface.
"""

from .dispatch.exchange import CloseReason, Exchange, Upstream, UpstreamOwner
from .multiplexer import Multiplexer, RequestError
from .networks import DEFAULT_NETWORKS, Network
from .observe.events import ClientRefusal, Event, EventListener, EventType
from .observe.snapshot import (
    ClientSnapshot,
    Health,
    ScopeSnapshot,
    Snapshot,
    TraceRecord,
)
from .profiles import PROFILES
from .protocols import PROTOCOLS, Protocol, protocols_with
from .protocols.base import (
    Answer,
    Failure,
    Mismatch,
    Outline,
    Request,
    SendBack,
    Unsolicited,
)
from .protocols.options import Framing
from .settings import (
    ROWS,
    ListenerSettings,
    Row,
    Section,
    Settings,
    SettingsError,
    make_protocol,
)
from .tls import TlsError, TlsListener, TlsUpstream

__all__ = [  # noqa: RUF022 - grouped by what they are for
    "__version__",
    # One multiplexer, and the requests of the program that runs it
    "Multiplexer",
    "RequestError",
    "Failure",
    "Mismatch",
    # How it is set up
    "Settings",
    "ListenerSettings",
    "TlsListener",
    "TlsUpstream",
    "Network",
    "SettingsError",
    "TlsError",
    # What settings can be, for forms: defaults, bounds, device profiles, protocols
    "DEFAULT_NETWORKS",
    "ROWS",
    "Row",
    "Section",
    "Framing",
    "protocols_with",
    "make_protocol",
    "PROFILES",
    "PROTOCOLS",
    # What it reports
    "ClientRefusal",
    "Event",
    "EventListener",
    "EventType",
    "CloseReason",
    "Health",
    "Snapshot",
    "ClientSnapshot",
    "ScopeSnapshot",
    "TraceRecord",
    "Outline",
    # An upstream of another kind than a socket: `Multiplexer(make_upstream=…)`
    "Upstream",
    "UpstreamOwner",
    "Exchange",
    # A protocol alone, to ask a device without a multiplexer: its upstream codec turns
    # a request into bytes, and bytes into what they mean
    "Protocol",
    "Request",
    "Answer",
    "SendBack",
    "Unsolicited",
]

__version__ = "1.0.0"
