"""The actions: what automations and users can do with a multiplexer.

Every user may reconnect once requests in flight have ended. What tells or changes more
than a state takes an administrator, or an automation, which runs without a user; what
may write must be enabled in the options as well. Responses are JSON: times as ISO 8601
in UTC, durations in seconds, bytes as hexadecimal digits.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from homeassistant.core import (
    HomeAssistant,
    ServiceCall,
    ServiceResponse,
    SupportsResponse,
    callback,
)
from homeassistant.helpers import config_validation as cv, service
from homeassistant.util import dt as dt_util
import voluptuous as vol

from ..const import CONF_ALLOW_SEND_REQUEST, DOMAIN
from ..coordinator import TcpMultiplexerCoordinator
from ..multiplexer import PROTOCOLS, ClientSnapshot, TraceRecord
from .calls import (
    SCHEMA,
    async_ask,
    async_coordinator,
    async_coordinators,
    async_require_admin,
    invalid,
)
from .captures import async_offer
from .registers import (
    ATTR_ADDRESS,
    ATTR_UNIT_ID,
    READ_REGISTERS_SCHEMA,
    UNIT,
    WRITE_REGISTERS_SCHEMA,
    async_read_registers,
    async_write_registers,
)

ATTR_DRAIN: Final = "drain"
ATTR_FILE: Final = "file"
ATTR_MESSAGE: Final = "message"
ATTR_LIMIT: Final = "limit"
ATTR_PCAP: Final = "pcap"
ATTR_PDU: Final = "pdu"

MAX_TRACE: Final = 1000
"""The largest number of exchanges in one response."""

_RECONNECT_SCHEMA: Final = SCHEMA.extend(
    {vol.Optional(ATTR_DRAIN, default=True): cv.boolean}
)
_DISCONNECT_CLIENT_SCHEMA: Final = SCHEMA.extend(
    {vol.Optional(ATTR_ADDRESS): cv.string}
)
_GET_TRACE_SCHEMA: Final = SCHEMA.extend(
    {
        vol.Optional(ATTR_LIMIT, default=MAX_TRACE): vol.All(
            vol.Coerce(int), vol.Range(1, MAX_TRACE)
        ),
        vol.Optional(ATTR_PCAP, default=False): cv.boolean,
        vol.Optional(ATTR_FILE, default=False): cv.boolean,
    }
)
_SEND_REQUEST_SCHEMA: Final = SCHEMA.extend(
    {
        vol.Optional(ATTR_UNIT_ID): UNIT,
        vol.Optional(ATTR_PDU): cv.string,
        vol.Optional(ATTR_MESSAGE): cv.string,
    }
)


@callback
def async_setup_services(hass: HomeAssistant) -> None:
    """Register the actions, once for all entries."""
    hass.services.async_register(
        DOMAIN, "reconnect", _async_reconnect, schema=_RECONNECT_SCHEMA
    )
    for name, action, schema, response in (
        (
            "disconnect_client",
            _async_disconnect_client,
            _DISCONNECT_CLIENT_SCHEMA,
            SupportsResponse.OPTIONAL,
        ),
        ("get_clients", _async_get_clients, SCHEMA, SupportsResponse.ONLY),
        ("get_statistics", _async_get_statistics, SCHEMA, SupportsResponse.ONLY),
        ("get_trace", _async_get_trace, _GET_TRACE_SCHEMA, SupportsResponse.ONLY),
        (
            "read_registers",
            async_read_registers,
            READ_REGISTERS_SCHEMA,
            SupportsResponse.ONLY,
        ),
        ("reset_statistics", _async_reset_statistics, SCHEMA, SupportsResponse.NONE),
        (
            "send_request",
            _async_send_request,
            _SEND_REQUEST_SCHEMA,
            SupportsResponse.ONLY,
        ),
        (
            "write_registers",
            async_write_registers,
            WRITE_REGISTERS_SCHEMA,
            SupportsResponse.OPTIONAL,
        ),
    ):
        service.async_register_admin_service(
            hass, DOMAIN, name, action, schema, response
        )


async def _async_reconnect(call: ServiceCall) -> None:
    drain = call.data[ATTR_DRAIN]
    if not drain:  # requests in flight are cut off
        await async_require_admin(call)
    for coordinator in await async_coordinators(call):
        await coordinator.async_reconnect(drain=drain)


async def _async_disconnect_client(call: ServiceCall) -> ServiceResponse:
    """Close the connections of one client, known by address or name, or of all."""
    coordinator = await async_coordinator(call)
    multiplexer = coordinator.multiplexer
    wanted: str | None = call.data.get(ATTR_ADDRESS)
    if wanted is None:
        return {"disconnected": multiplexer.disconnect_client(None)}
    addresses = {
        client.address
        for client in multiplexer.snapshot().clients
        if wanted in (client.address, coordinator.client_name(client.address))
    }
    if not addresses:
        invalid("client_not_connected", client=wanted)
    return {"disconnected": sum(map(multiplexer.disconnect_client, addresses))}


async def _async_get_clients(call: ServiceCall) -> ServiceResponse:
    """Return the connected clients with their counters."""
    coordinator = await async_coordinator(call)
    snapshot = coordinator.multiplexer.snapshot()
    return {"clients": [_client(coordinator, client) for client in snapshot.clients]}


def _client(
    coordinator: TcpMultiplexerCoordinator, client: ClientSnapshot
) -> dict[str, Any]:
    return {
        **asdict(client),
        "name": coordinator.client_name(client.address),
        "since": _time(client.since),
        "last_request": _time(client.last_request),
    }


async def _async_get_statistics(call: ServiceCall) -> ServiceResponse:
    """Return all counters, per unit too; clients have an action of their own."""
    snapshot = (await async_coordinator(call)).multiplexer.snapshot()
    return {
        **{
            key: value
            for key, value in asdict(snapshot).items()
            if key not in ("clients", "listen_addresses")
        },
        "health": snapshot.health.value,
        "clients": len(snapshot.clients),
        "connected_since": _time(snapshot.connected_since),
        "last_response": _time(snapshot.last_response),
        "since": _time(snapshot.since),
        "failures": dict(snapshot.failures),
        "units": {
            str(number): {**asdict(unit), "functions": _by_text(unit.functions)}
            for number, unit in snapshot.units.items()
        },
        "silent_units": list(snapshot.silent_units),
    }


async def _async_get_trace(call: ServiceCall) -> ServiceResponse:
    """Return the recent exchanges, the oldest first, or as a pcap capture."""
    coordinator = await async_coordinator(call)
    multiplexer = coordinator.multiplexer
    records = multiplexer.trace()[-call.data[ATTR_LIMIT] :]
    if not (call.data[ATTR_PCAP] or call.data[ATTR_FILE]):
        return {"exchanges": [_exchange(coordinator, record) for record in records]}
    response: dict[str, Any] = {"exchanges": len(records)}
    capture = multiplexer.pcap(records)
    if call.data[ATTR_PCAP]:
        response[ATTR_PCAP] = b64encode(capture).decode()
    if call.data[ATTR_FILE]:
        link, until = await async_offer(call.hass, coordinator.config_entry, capture)
        response |= {"link": link, "valid_until": until.isoformat()}
    return response


def _exchange(
    coordinator: TcpMultiplexerCoordinator, record: TraceRecord
) -> dict[str, Any]:
    address = record.client.rpartition(":")[0].strip("[]")
    took, response = record.response_seconds, record.response
    return {
        "time": _time(record.time),
        "client": record.client,
        "client_name": coordinator.client_name(address) if address else None,
        "outcome": record.outcome,
        "wait_seconds": round(record.wait_seconds, 6),
        "response_seconds": None if took is None else round(took, 6),
        **coordinator.multiplexer.explain(record),
        "request": record.request.hex(" "),
        "response": None if response is None else response.hex(" "),
    }


async def _async_reset_statistics(call: ServiceCall) -> None:
    for coordinator in await async_coordinators(call):
        coordinator.async_reset_statistics()


async def _async_send_request(call: ServiceCall) -> ServiceResponse:
    """Send a request to the device, through policy and queue like any client's."""
    coordinator = await async_coordinator(call)
    entry = coordinator.config_entry
    if not entry.options.get(CONF_ALLOW_SEND_REQUEST, False):
        invalid("send_request_disabled", title=entry.title)
    has_units = PROTOCOLS[coordinator.multiplexer.settings.protocol].has_units
    payload = _modbus_request(call.data) if has_units else _message(call.data)
    response = await async_ask(coordinator, payload)
    if not has_units:
        return {ATTR_MESSAGE: response.hex(" ")}
    return {ATTR_UNIT_ID: response[0], ATTR_PDU: response[1:].hex(" ")}


def _modbus_request(data: Mapping[str, Any]) -> bytes:
    if ATTR_MESSAGE in data or ATTR_UNIT_ID not in data or ATTR_PDU not in data:
        invalid("modbus_request_fields")
    return bytes((data[ATTR_UNIT_ID],)) + _from_hex(data[ATTR_PDU])


def _message(data: Mapping[str, Any]) -> bytes:
    if ATTR_MESSAGE not in data or ATTR_UNIT_ID in data or ATTR_PDU in data:
        invalid("message_request_fields")
    return _from_hex(data[ATTR_MESSAGE])


def _from_hex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError as err:
        invalid("not_hex", err, value=digits)


def _time(seconds: float | None) -> str | None:
    """Format seconds since the epoch as ISO 8601."""
    return None if seconds is None else dt_util.utc_from_timestamp(seconds).isoformat()


def _by_text(counts: Mapping[int, int]) -> dict[str, int]:
    """Convert the keys to text, for JSON."""
    return {str(key): count for key, count in counts.items()}
