"""The actions that read and write registers and coils, in plain terms.

What they send takes its turn like any client's requests, and obeys the same rules.
"""

from typing import Any, Final, NoReturn

from homeassistant.core import ServiceCall, ServiceResponse
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import config_validation as cv
import voluptuous as vol

from ..const import CONF_ALLOW_SEND_REQUEST, DOMAIN
from ..coordinator import TcpMultiplexerCoordinator
from ..multiplexer import PROTOCOLS, make_protocol
from .calls import SCHEMA, async_ask, async_coordinator, invalid
from .values import (
    WRITABLE,
    DataType,
    Table,
    UnfitError,
    WordOrder,
    decode,
    encode,
    read_request,
    write_request,
)

ATTR_UNIT_ID: Final = "unit_id"
ATTR_TABLE: Final = "table"
ATTR_ADDRESS: Final = "address"
ATTR_COUNT: Final = "count"
ATTR_VALUES: Final = "values"
ATTR_DATA_TYPE: Final = "data_type"
ATTR_WORD_ORDER: Final = "word_order"
ATTR_SEVERAL: Final = "write_multiple"

UNIT: Final = vol.All(vol.Coerce(int), vol.Range(0, 255))


def _place(*tables: Table) -> dict[vol.Marker, Any]:
    """Return the fields that say which values are meant, and what they are."""
    return {
        vol.Optional(ATTR_UNIT_ID): UNIT,
        vol.Optional(ATTR_TABLE, default=Table.HOLDING_REGISTERS.value): vol.All(
            vol.In(tuple(tables)), vol.Coerce(Table)
        ),
        vol.Required(ATTR_ADDRESS): vol.All(vol.Coerce(int), vol.Range(0, 0xFFFF)),
        vol.Optional(ATTR_DATA_TYPE, default=DataType.UINT16.value): vol.All(
            vol.In(tuple(DataType)), vol.Coerce(DataType)
        ),
        vol.Optional(ATTR_WORD_ORDER, default=WordOrder.BIG.value): vol.All(
            vol.In(tuple(WordOrder)), vol.Coerce(WordOrder)
        ),
    }


def _values(given: Any) -> str | list[Any]:
    return given if isinstance(given, str) else cv.ensure_list(given)


READ_REGISTERS_SCHEMA: Final = SCHEMA.extend(
    {
        **_place(*Table),
        vol.Optional(ATTR_COUNT, default=1): vol.All(
            vol.Coerce(int), vol.Range(1, 2000)
        ),
    }
)
WRITE_REGISTERS_SCHEMA: Final = SCHEMA.extend(
    {
        **_place(*WRITABLE),
        vol.Required(ATTR_VALUES): _values,
        vol.Optional(ATTR_SEVERAL, default=False): cv.boolean,
    }
)


async def async_read_registers(call: ServiceCall) -> ServiceResponse:
    """Read values; return them as numbers, and as they came."""
    coordinator = await _async_modbus(call)
    data = call.data
    unit, table, address = _where(coordinator, call)
    try:
        payload = read_request(
            unit, table, address, data[ATTR_COUNT], data[ATTR_DATA_TYPE]
        )
    except UnfitError as err:
        _reject(err)
    response = await _async_answer(coordinator, payload)
    values = decode(
        response[3:],
        table,
        data[ATTR_COUNT],
        data[ATTR_DATA_TYPE],
        data[ATTR_WORD_ORDER],
    )
    if values is None:
        _fail(coordinator, "request_invalid_response")
    return {
        ATTR_UNIT_ID: unit,
        ATTR_TABLE: table.value,
        ATTR_ADDRESS: address,
        ATTR_VALUES: [*values],
        "raw": response[3:].hex(" "),
    }


async def async_write_registers(call: ServiceCall) -> ServiceResponse:
    """Write values; return where, and what was sent."""
    coordinator = await _async_modbus(call)
    entry, data = coordinator.config_entry, call.data
    if not entry.options.get(CONF_ALLOW_SEND_REQUEST, False):
        invalid("send_request_disabled", title=entry.title)
    unit, table, address = _where(coordinator, call)
    try:
        encoded = encode(
            data[ATTR_VALUES], table, data[ATTR_DATA_TYPE], data[ATTR_WORD_ORDER]
        )
        payload = write_request(
            unit, table, address, encoded, several=data[ATTR_SEVERAL]
        )
    except UnfitError as err:
        _reject(err)
    await _async_answer(coordinator, payload)
    return {
        ATTR_UNIT_ID: unit,
        ATTR_TABLE: table.value,
        ATTR_ADDRESS: address,
        "raw": payload[1:].hex(" "),
    }


async def _async_modbus(call: ServiceCall) -> TcpMultiplexerCoordinator:
    """Return the coordinator of the multiplexer that is meant, if it has registers."""
    coordinator = await async_coordinator(call)
    if not PROTOCOLS[coordinator.multiplexer.settings.protocol].has_units:
        invalid("no_registers", title=coordinator.config_entry.title)
    return coordinator


def _where(
    coordinator: TcpMultiplexerCoordinator, call: ServiceCall
) -> tuple[int, Table, int]:
    usual = coordinator.multiplexer.settings.unit_id
    data = call.data
    return data.get(ATTR_UNIT_ID, usual), data[ATTR_TABLE], data[ATTR_ADDRESS]


async def _async_answer(
    coordinator: TcpMultiplexerCoordinator, payload: bytes
) -> bytes:
    """Return the response to a request, unit and PDU, unless it is an exception.

    Raises:
        HomeAssistantError: it is, or there is none.

    """
    response = await async_ask(coordinator, payload)
    protocol = make_protocol(coordinator.multiplexer.settings)
    said = protocol.explain(payload, response)
    if "exception" in said:
        _fail(
            coordinator,
            "modbus_exception",
            code=f"0x{said['exception']:02X}",
            name=str(said["exception_name"] or "-"),
        )
    return response


def _reject(problem: UnfitError) -> NoReturn:
    invalid(problem.key, problem, **problem.placeholders)


def _fail(
    coordinator: TcpMultiplexerCoordinator, key: str, /, **placeholders: str
) -> NoReturn:
    """Raise a translated error that names the multiplexer."""
    raise HomeAssistantError(
        translation_domain=DOMAIN,
        translation_key=key,
        translation_placeholders={
            "title": coordinator.config_entry.title,
            **placeholders,
        },
    )
