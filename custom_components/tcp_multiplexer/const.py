"""Names that several modules of the integration share.

Facts of the connection (host, port, protocol, where to listen) are in `entry.data`;
preferences are in `entry.options`, under the names of the fields of `Settings`, plus
those that only the integration uses. A key that is missing means the default. Named
clients and further local ports are subentries.
"""

import logging
from typing import Final

DOMAIN: Final = "tcp_multiplexer"
LOGBOOK_DOMAIN: Final = "logbook"
MODBUS_DOMAIN: Final = "modbus"
RECORDER_DOMAIN: Final = "recorder"
LOGGER: Final = logging.getLogger(__package__)

# entry.data, beside Home Assistant's CONF_HOST, CONF_PORT and CONF_PROTOCOL
# ... or its CONF_DEVICE, a serial port, with
CONF_BAUDRATE: Final = "baudrate"
CONF_PARITY: Final = "parity"
CONF_STOPBITS: Final = "stopbits"
# ... or where it dials in
CONF_DIAL_IN_PORT: Final = "dial_in_port"
CONF_DIAL_IN_DEVICE: Final = "dial_in_device"
"""The only address that may dial in; empty until it is learned."""
CONF_LISTEN_HOST: Final = "listen_host"
"""The local address to listen on; None: all of IPv4 and IPv6."""
CONF_LISTEN_PORT: Final = "listen_port"
CONF_PROFILE: Final = "profile"
"""A name in the engine's `PROFILES`; its settings are the entry's defaults."""
CONF_UPSTREAM: Final = "upstream"
"""How the device is reached: one of the `UPSTREAM_…` below."""
CONF_LOGGER_SERIAL: Final = "logger_serial"
"""The serial number of the logger stick; missing: it is asked for it."""
CONF_TLS: Final = "tls"
"""The fields of `TlsUpstream`; missing: the device does not speak TLS."""
CONF_IDENTITY: Final = "identity"
"""What the device reported about itself: the fields of `Identity` except the unit."""
CONF_PAUSED: Final = "paused"
"""Whether the device's slot was released; kept so that it survives a restart."""
CONF_LEFT_OUT: Final = "left_out"
"""The addresses of clients that are turned away and not named for it any more."""

# entry.options, beside the fields of Settings
CONF_UPDATE_INTERVAL: Final = "update_interval"
"""Seconds between two updates of the counter sensors."""
CONF_WRITE_RULES: Final = "write_rules"
"""The owner's rules for writes: lists of `clients` (networks, or client names), `units`
and `functions`, the first and last of the `registers`, and the `action`; a condition
that is missing fits all."""
CONF_ALLOW_SEND_REQUEST: Final = "allow_send_request"

# entry.subentries
SUBENTRY_CLIENT: Final = "client"
"""A client; its title is its name. It has `CONF_WRITE_RULES` of its own, without
`clients`, and ..."""
CONF_ADDRESSES: Final = "addresses"
"""Where it may be: networks."""
CONF_SILENT_MINUTES: Final = "silent_minutes"
"""How long after its last request it counts as asking."""
SUBENTRY_LOCAL_PORT: Final = "local_port"
"""A further local port: the fields of `ListenerSettings`; `tls` those of `TlsListener`,
or None."""

UPSTREAM_TCP: Final = "tcp"
UPSTREAM_RTU: Final = "rtu"
"""Modbus RTU frames over TCP, as serial servers speak."""
UPSTREAM_SOLARMAN: Final = "solarman"
"""Solarman V5, as logger sticks speak."""
UPSTREAM_SERIAL: Final = "serial"
"""Modbus RTU over a serial port: of this machine, or one that serialx reaches."""
UPSTREAM_DIAL_IN: Final = "dial_in"
"""The device connects to a local port."""
UPSTREAM_DIAL_IN_RTU: Final = "dial_in_rtu"
"""The same with Modbus RTU frames, as serial servers in client mode do."""
UPSTREAM_HOME_ASSISTANT: Final = "home_assistant"
"""The Modbus/TCP connection that Home Assistant shares among integrations."""
UPSTREAM_HOME_ASSISTANT_RTU: Final = "home_assistant_rtu"
"""The same with Modbus RTU frames over TCP."""
UPSTREAM_HOME_ASSISTANT_SERIAL: Final = "home_assistant_serial"
"""The serial port that Home Assistant shares among integrations."""
SHARED_UPSTREAMS: Final = frozenset(
    {
        UPSTREAM_HOME_ASSISTANT,
        UPSTREAM_HOME_ASSISTANT_RTU,
        UPSTREAM_HOME_ASSISTANT_SERIAL,
    }
)
"""Home Assistant opens and closes these connections."""
SERIAL_UPSTREAMS: Final = frozenset({UPSTREAM_SERIAL, UPSTREAM_HOME_ASSISTANT_SERIAL})
"""The device is on a serial port."""

HOME_ASSISTANT: Final = "Home Assistant"
"""What a client on this machine is called, unless one of those has a name."""

DEFAULT_UPDATE_INTERVAL: Final = 10
DEFAULT_SILENT_MINUTES: Final = 5
