"""A TCP multiplexer: one upstream connection shared by any number of clients.

This package is the engine. It knows nothing of Home Assistant, needs no more than the
standard library and h11, and also runs on its own (`tcp-multiplexer server`). What is
named here is its whole interface.
"""

from .dispatch.exchange import CloseReason, Upstream, UpstreamOwner
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
from .protocols import PROTOCOLS
from .protocols.base import Failure
from .settings import ListenerSettings, Settings, SettingsError
from .tls import TlsError, TlsListener, TlsUpstream

__all__ = [
    "DEFAULT_NETWORKS",
    "PROTOCOLS",
    "ClientRefusal",
    "ClientSnapshot",
    "CloseReason",
    "Event",
    "EventListener",
    "EventType",
    "Failure",
    "Health",
    "ListenerSettings",
    "Multiplexer",
    "Network",
    "RequestError",
    "ScopeSnapshot",
    "Settings",
    "SettingsError",
    "Snapshot",
    "TlsError",
    "TlsListener",
    "TlsUpstream",
    "TraceRecord",
    "Upstream",
    "UpstreamOwner",
    "__version__",
]

__version__ = "1.0.0"
