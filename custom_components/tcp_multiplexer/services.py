"""The actions: what automations and users can do with a multiplexer.

Each acts on a config entry. Every user may read statistics and reconnect; to disconnect
clients, read requests or send one takes an administrator, and sending must be enabled
in the options as well. Responses are JSON: times as ISO 8601 in UTC, durations in
seconds, bytes as hexadecimal digits.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, NoReturn

from homeassistant.const import ATTR_CONFIG_ENTRY_ID
from homeassistant.core import (
    HomeAssistant,
    ServiceCall,
    ServiceResponse,
    SupportsResponse,
    callback,
)
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import config_validation as cv, service
from homeassistant.util import dt as dt_util
import voluptuous as vol

from .const import CONF_ALLOW_SEND_REQUEST, DOMAIN
from .coordinator import TcpMultiplexerConfigEntry, TcpMultiplexerCoordinator
from .multiplexer import PROTOCOLS, ClientSnapshot, RequestError, TraceRecord

ATTR_ADDRESS: Final = "address"
ATTR_DRAIN: Final = "drain"
ATTR_MESSAGE: Final = "message"
ATTR_LIMIT: Final = "limit"
ATTR_PCAP: Final = "pcap"
ATTR_PDU: Final = "pdu"
ATTR_UNIT_ID: Final = "unit_id"

MAX_TRACE: Final = 1000
"""The largest number of exchanges in one response."""

_SCHEMA: Final = vol.Schema({vol.Required(ATTR_CONFIG_ENTRY_ID): cv.string})
_RECONNECT_SCHEMA: Final = _SCHEMA.extend(
    {vol.Optional(ATTR_DRAIN, default=True): cv.boolean}
)
_DISCONNECT_CLIENT_SCHEMA: Final = _SCHEMA.extend(
    {vol.Optional(ATTR_ADDRESS): cv.string}
)
_GET_TRACE_SCHEMA: Final = _SCHEMA.extend(
    {
        vol.Optional(ATTR_LIMIT, default=MAX_TRACE): vol.All(
            vol.Coerce(int), vol.Range(1, MAX_TRACE)
        ),
        vol.Optional(ATTR_PCAP, default=False): cv.boolean,
    }
)
_SEND_REQUEST_SCHEMA: Final = _SCHEMA.extend(
    {
        vol.Optional(ATTR_UNIT_ID): vol.All(vol.Coerce(int), vol.Range(0, 255)),
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
    service.async_register_admin_service(
        hass,
        DOMAIN,
        "disconnect_client",
        _async_disconnect_client,
        _DISCONNECT_CLIENT_SCHEMA,
        SupportsResponse.OPTIONAL,
    )
    hass.services.async_register(
        DOMAIN,
        "get_clients",
        _async_get_clients,
        schema=_SCHEMA,
        supports_response=SupportsResponse.ONLY,
    )
    hass.services.async_register(
        DOMAIN,
        "get_statistics",
        _async_get_statistics,
        schema=_SCHEMA,
        supports_response=SupportsResponse.ONLY,
    )
    service.async_register_admin_service(
        hass,
        DOMAIN,
        "get_trace",
        _async_get_trace,
        _GET_TRACE_SCHEMA,
        SupportsResponse.ONLY,
    )
    hass.services.async_register(
        DOMAIN, "reset_statistics", _async_reset_statistics, schema=_SCHEMA
    )
    service.async_register_admin_service(
        hass,
        DOMAIN,
        "send_request",
        _async_send_request,
        _SEND_REQUEST_SCHEMA,
        SupportsResponse.ONLY,
    )


@callback
def _async_coordinator(call: ServiceCall) -> TcpMultiplexerCoordinator:
    """Return the coordinator of the entry that the call names.

    Raises:
        ServiceValidationError: there is no such entry, or it is not loaded.

    """
    entry: TcpMultiplexerConfigEntry = service.async_get_config_entry(
        call.hass, DOMAIN, call.data[ATTR_CONFIG_ENTRY_ID]
    )
    return entry.runtime_data


async def _async_reconnect(call: ServiceCall) -> None:
    await _async_coordinator(call).async_reconnect(drain=call.data[ATTR_DRAIN])


async def _async_disconnect_client(call: ServiceCall) -> ServiceResponse:
    """Close the connections of one client, known by address or name, or of all."""
    coordinator = _async_coordinator(call)
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
        _invalid("client_not_connected", client=wanted)
    return {"disconnected": sum(map(multiplexer.disconnect_client, addresses))}


async def _async_get_clients(call: ServiceCall) -> ServiceResponse:
    """Return the connected clients with their counters."""
    coordinator = _async_coordinator(call)
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
    snapshot = _async_coordinator(call).multiplexer.snapshot()
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
    coordinator = _async_coordinator(call)
    multiplexer = coordinator.multiplexer
    records = multiplexer.trace()[-call.data[ATTR_LIMIT] :]
    if call.data[ATTR_PCAP]:
        return {
            "exchanges": len(records),
            ATTR_PCAP: b64encode(multiplexer.pcap(records)).decode(),
        }
    return {"exchanges": [_exchange(coordinator, record) for record in records]}


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
    _async_coordinator(call).async_reset_statistics()


async def _async_send_request(call: ServiceCall) -> ServiceResponse:
    """Send a request to the device, through policy and queue like any client's."""
    coordinator = _async_coordinator(call)
    entry = coordinator.config_entry
    if not entry.options.get(CONF_ALLOW_SEND_REQUEST, False):
        _invalid("send_request_disabled", title=entry.title)
    has_units = PROTOCOLS[coordinator.multiplexer.settings.protocol].has_units
    payload = _modbus_request(call.data) if has_units else _message(call.data)
    try:
        response = await coordinator.multiplexer.request(payload)
    except ValueError as err:
        _invalid("invalid_request", err, error=str(err))
    except RequestError as err:
        raise HomeAssistantError(
            translation_domain=DOMAIN,
            translation_key=f"request_{err.failure.value}",
            translation_placeholders={"title": entry.title},
        ) from err
    if not has_units:
        return {ATTR_MESSAGE: response.hex(" ")}
    return {ATTR_UNIT_ID: response[0], ATTR_PDU: response[1:].hex(" ")}


def _modbus_request(data: Mapping[str, Any]) -> bytes:
    if ATTR_MESSAGE in data or ATTR_UNIT_ID not in data or ATTR_PDU not in data:
        _invalid("modbus_request_fields")
    return bytes((data[ATTR_UNIT_ID],)) + _from_hex(data[ATTR_PDU])


def _message(data: Mapping[str, Any]) -> bytes:
    if ATTR_MESSAGE not in data or ATTR_UNIT_ID in data or ATTR_PDU in data:
        _invalid("message_request_fields")
    return _from_hex(data[ATTR_MESSAGE])


def _from_hex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError as err:
        _invalid("not_hex", err, value=digits)


def _invalid(
    key: str, cause: Exception | None = None, /, **placeholders: str
) -> NoReturn:
    """Reject the call with a translated error."""
    raise ServiceValidationError(
        translation_domain=DOMAIN,
        translation_key=key,
        translation_placeholders=placeholders,
    ) from cause


def _time(seconds: float | None) -> str | None:
    """Format seconds since the epoch as ISO 8601."""
    return None if seconds is None else dt_util.utc_from_timestamp(seconds).isoformat()


def _by_text(counts: Mapping[int, int]) -> dict[str, int]:
    """Convert the keys to text, for JSON."""
    return {str(key): count for key, count in counts.items()}
