"""A TCP multiplexer: one upstream connection shared by any number of clients.

This package is the engine. It knows nothing of Home Assistant, needs only the standard
library and h11, and also runs on its own (`tcp-multiplexer server`). `__all__` is its
complete interface.
"""

from __future__ import annotations

from .dispatch.exchange import CloseReason, Exchange, Upstream, UpstreamOwner
from .logger_search import find_logger_serial
from .multiplexer import Multiplexer, RequestError
from .networks import DEFAULT_NETWORKS, Network
from .observe.events import ClientRefusal, Event, EventListener, EventType
from .observe.snapshot import (
    ClientSnapshot,
    GroupSnapshot,
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
    Request,
    SendBack,
    Unsolicited,
)
from .protocols.options import Framing
from .protocols.outline import Outline
from .settings import (
    ROWS,
    DialIn,
    ListenerSettings,
    Parity,
    Row,
    Section,
    SerialLine,
    Settings,
    SettingsError,
    WriteAction,
    WriteRule,
    make_protocol,
)
from .tls import TlsError, TlsListener, TlsUpstream
from .typed import (
    numbers_from,
    numbers_to_text,
    pairs_from,
    place_in,
    range_from,
    server_name_from,
)

__all__ = [  # noqa: RUF022 - grouped by what they are for
    "__version__",
    # A multiplexer, and the requests of the program that runs it
    "Multiplexer",
    "RequestError",
    "Failure",
    "Mismatch",
    # Its settings
    "Settings",
    "ListenerSettings",
    "TlsListener",
    "TlsUpstream",
    "SerialLine",
    "Parity",
    "DialIn",
    "Network",
    "WriteAction",
    "WriteRule",
    "SettingsError",
    "TlsError",
    # For forms: defaults and bounds of settings, device profiles, protocols
    "DEFAULT_NETWORKS",
    "ROWS",
    "Row",
    "Section",
    "Framing",
    "protocols_with",
    "make_protocol",
    "find_logger_serial",
    "PROFILES",
    "PROTOCOLS",
    # What people type in forms
    "numbers_from",
    "numbers_to_text",
    "pairs_from",
    "place_in",
    "range_from",
    "server_name_from",
    # What it reports
    "ClientRefusal",
    "Event",
    "EventListener",
    "EventType",
    "CloseReason",
    "Health",
    "Snapshot",
    "ClientSnapshot",
    "GroupSnapshot",
    "ScopeSnapshot",
    "TraceRecord",
    "Outline",
    # For an upstream other than a socket: `Multiplexer(make_upstream=…)`
    "Upstream",
    "UpstreamOwner",
    "Exchange",
    # A protocol alone, to probe a device without a multiplexer: its upstream codec
    # encodes requests and decodes responses
    "Protocol",
    "Request",
    "Answer",
    "SendBack",
    "Unsolicited",
]

__version__ = "1.0.0"
