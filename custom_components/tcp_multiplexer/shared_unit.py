"""Modbus requests, translated into calls to a unit of Home Assistant's connection.

The API of that connection has registers, coils and records, not frames. pymodbus
decodes the requests and encodes the responses (Modbus Application Protocol V1.1b3,
section 6). Functions that the API does not have get exception 0x01 (illegal function),
and requests that contradict themselves 0x03 (illegal data value).

Where a response says more than the API does:

* Device identification (0x2B / 0x0E): the API has the basic objects. So this is a
  device of basic conformity, whatever more the real one has.
* Event log (0x0C): status and counts are asked for one by one; they are those of
  0x0B and of diagnostics (6.10).
* Server ID (0x11): the run indicator is always ON, and there is nothing behind it.
"""

from collections.abc import Awaitable, Callable
import struct
from typing import Any, Final

from pymodbus.constants import DeviceInformation
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadCoilsResponse,
    ReadDiscreteInputsRequest,
    ReadDiscreteInputsResponse,
    WriteMultipleCoilsRequest,
    WriteMultipleCoilsResponse,
    WriteSingleCoilRequest,
)
from pymodbus.pdu.diag_message import DiagnosticBase
from pymodbus.pdu.file_message import (
    FileRecord,
    ReadFifoQueueRequest,
    ReadFifoQueueResponse,
    ReadFileRecordResponse,
    WriteFileRecordRequest,
)
from pymodbus.pdu.mei_message import (
    ReadDeviceInformationRequest,
    ReadDeviceInformationResponse,
)
from pymodbus.pdu.other_message import (
    GetCommEventCounterRequest,
    GetCommEventCounterResponse,
    GetCommEventLogRequest,
    GetCommEventLogResponse,
    ReadExceptionStatusRequest,
    ReadExceptionStatusResponse,
    ReportDeviceIdRequest,
    ReportDeviceIdResponse,
)
from pymodbus.pdu.register_message import (
    MaskWriteRegisterRequest,
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersRequest,
    ReadInputRegistersResponse,
    ReadWriteMultipleRegistersRequest,
    ReadWriteMultipleRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
)

_ILLEGAL_FUNCTION: Final = 0x01
_ILLEGAL_ADDRESS: Final = 0x02
_ILLEGAL_VALUE: Final = 0x03
_SERVER_FAILURE: Final = 0x04

_BUS_MESSAGE_COUNT: Final = 0x0B
"""The sub-function of diagnostics that returns it (6.8)."""
_FILE_REFERENCE: Final = 0x06
_MAX_FILE_BYTES: Final = 0xF5
"""In the response to a read of file records (6.14)."""
_BASIC_CONFORMITY: Final = 0x81
"""With individual access to each object (6.21)."""

type Unit = Any
"""A `modbus_connection.ModbusUnit`; that package is installed only when needed."""

type _Call = Callable[[Unit, bytes], Awaitable[ModbusPDU]]
"""Takes what follows the function code. A ValueError means that it is malformed."""


async def ask(unit: Unit, payload: bytes) -> bytes:
    """Send the request in `payload` to a unit. Both ways: unit identifier and PDU.

    Exceptions are responses, too: the device's, and those of this module.

    Raises:
        ModbusError: the connection failed, or the device did not answer.

    """
    from modbus_connection import ModbusExceptionError  # noqa: PLC0415

    function = payload[1]
    try:
        response = await _CALLS.get(function, _unknown)(unit, payload[2:])
    except ModbusExceptionError as err:
        response = ExceptionResponse(function, err.exception_code or _SERVER_FAILURE)
    except _RefusedError as err:
        response = ExceptionResponse(function, err.code)
    except ValueError:
        response = ExceptionResponse(function, _ILLEGAL_VALUE)
    return bytes((payload[0], response.function_code)) + response.encode()


class _RefusedError(Exception):
    """What is asked gets an exception response with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def _unknown(_unit: Unit, _data: bytes) -> ModbusPDU:
    raise _RefusedError(_ILLEGAL_FUNCTION)


def _decode[RequestT: ModbusPDU](kind: type[RequestT], data: bytes) -> RequestT:
    """Decode a request of which nothing is lost.

    pymodbus overlooks what is too much or contradicts itself; encoding it again shows
    that. (Its `DecodePDU` would log whatever a client sends.)
    """
    request = kind()
    try:
        request.decode(data)
        encoded = request.encode()
    except (struct.error, IndexError, ModbusException) as err:
        raise ValueError("the request is cut short") from err
    # Bits behind the last coil mean nothing.
    end = len(data) - (kind is WriteMultipleCoilsRequest)
    if len(encoded) != len(data) or encoded[:end] != data[:end]:
        raise ValueError("the request contradicts itself")
    return request


# ---- registers and coils --------------------------------------------------------


async def _read_coils(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(ReadCoilsRequest, data)
    bits = await unit.read_coils(request.address, request.count)
    return ReadCoilsResponse(bits=bits)


async def _read_discrete_inputs(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(ReadDiscreteInputsRequest, data)
    bits = await unit.read_discrete_inputs(request.address, request.count)
    return ReadDiscreteInputsResponse(bits=bits)


async def _read_holding_registers(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(ReadHoldingRegistersRequest, data)
    words = await unit.read_holding_registers(request.address, request.count)
    return ReadHoldingRegistersResponse(registers=words)


async def _read_input_registers(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(ReadInputRegistersRequest, data)
    words = await unit.read_input_registers(request.address, request.count)
    return ReadInputRegistersResponse(registers=words)


async def _write_coil(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(WriteSingleCoilRequest, data)
    await unit.write_coil(request.address, request.bits[0])
    return request


async def _write_register(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(WriteSingleRegisterRequest, data)
    await unit.write_register(request.address, request.registers[0])
    return request


async def _write_coils(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(WriteMultipleCoilsRequest, data)
    # pymodbus fills up the last byte.
    await unit.write_coils(request.address, request.bits[: request.count])
    return WriteMultipleCoilsResponse(address=request.address, count=request.count)


async def _write_registers(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(WriteMultipleRegistersRequest, data)
    await unit.write_registers(request.address, request.registers)
    return WriteMultipleRegistersResponse(address=request.address, count=request.count)


async def _mask_write_register(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(MaskWriteRegisterRequest, data)
    await unit.mask_write_register(request.address, request.and_mask, request.or_mask)
    return request


async def _read_write_registers(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(ReadWriteMultipleRegistersRequest, data)
    if request.write_byte_count != 2 * request.write_count:
        raise ValueError("the request announces another number of values than it has")
    words = await unit.read_write_registers(
        request.read_address,
        request.read_count,
        request.write_address,
        request.write_registers,
    )
    return ReadWriteMultipleRegistersResponse(registers=words)


# ---- files and queues -----------------------------------------------------------


async def _read_file_records(unit: Unit, data: bytes) -> ModbusPDU:
    """Read one record after the other: the API has no call for several."""
    records = []
    for file, record, length in _file_references(data):
        words = await unit.read_file_record(file, record, length)
        record_data = struct.pack(f">{len(words)}H", *words)
        records.append(FileRecord(record_data=record_data))
    return ReadFileRecordResponse(records=records)


def _file_references(data: bytes) -> list[tuple[int, int, int]]:
    """Return file, record and length in registers of each record that is asked for.

    pymodbus takes the lengths for bytes.
    """
    if not data or data[0] != len(data) - 1 or not data[0] or data[0] % 7:
        raise ValueError("the request announces another number of records than it has")
    references = list(struct.iter_unpack(">BHHH", data[1:]))
    if any(kind != _FILE_REFERENCE for kind, *_ in references):
        raise ValueError("the request refers to something else than files")
    if sum(2 + 2 * length for *_, length in references) > _MAX_FILE_BYTES:
        raise ValueError("the response would be too long")
    return [(file, record, length) for _, file, record, length in references]


async def _write_file_record(unit: Unit, data: bytes) -> ModbusPDU:
    """Write one record. Several, one call each, might end half written."""
    request = _decode(WriteFileRecordRequest, data)
    if len(request.records) > 1:
        raise _RefusedError(_ILLEGAL_FUNCTION)
    for record in request.records:
        words = struct.unpack(f">{record.record_length}H", record.record_data)
        await unit.write_file_record(
            record.file_number, record.record_number, list(words)
        )
    return request


async def _read_fifo_queue(unit: Unit, data: bytes) -> ModbusPDU:
    request = _decode(ReadFifoQueueRequest, data)
    return ReadFifoQueueResponse(values=await unit.read_fifo_queue(request.address))


# ---- about the device -----------------------------------------------------------


async def _read_exception_status(unit: Unit, data: bytes) -> ModbusPDU:
    _decode(ReadExceptionStatusRequest, data)
    return ReadExceptionStatusResponse(status=await unit.read_exception_status())


async def _diagnostics(unit: Unit, data: bytes) -> ModbusPDU:
    if len(data) != 4:
        raise ValueError("the API has one word of data; echoes may have more")
    sub_function, word = struct.unpack(">HH", data)
    response = DiagnosticBase(await unit.diagnostics(sub_function, word))
    response.sub_function_code = sub_function
    return response


async def _get_comm_event_counter(unit: Unit, data: bytes) -> ModbusPDU:
    _decode(GetCommEventCounterRequest, data)
    ready, count = await unit.get_comm_event_counter()
    return GetCommEventCounterResponse(status=ready, count=count)


async def _get_comm_event_log(unit: Unit, data: bytes) -> ModbusPDU:
    _decode(GetCommEventLogRequest, data)
    events = await unit.get_comm_event_log()
    ready, event_count = await unit.get_comm_event_counter()
    message_count = await unit.diagnostics(_BUS_MESSAGE_COUNT)
    return GetCommEventLogResponse(ready, message_count, event_count, list(events))


async def _report_server_id(unit: Unit, data: bytes) -> ModbusPDU:
    _decode(ReportDeviceIdRequest, data)
    return ReportDeviceIdResponse(await unit.report_server_id())


async def _read_device_identification(unit: Unit, data: bytes) -> ModbusPDU:
    """Answer from the basic objects, with the read code and object that are asked."""
    if data[:1] != bytes((ReadDeviceInformationRequest.sub_function_code,)):
        raise _RefusedError(_ILLEGAL_FUNCTION)
    request = _decode(ReadDeviceInformationRequest, data)
    code = DeviceInformation(request.read_code)
    objects: dict[int, bytes] = await unit.read_device_identification()
    first = request.object_id
    if code is DeviceInformation.SPECIFIC:
        if first not in objects:
            raise _RefusedError(_ILLEGAL_ADDRESS)
        wanted = {first: objects[first]}
    else:  # a stream from this object on; from the first if there is none (6.21)
        start = first if first in objects else 0
        wanted = {each: objects[each] for each in sorted(objects) if each >= start}
    response = ReadDeviceInformationResponse(code, wanted)
    response.conformity = _BASIC_CONFORMITY
    return response


_CALLS: Final[dict[int, _Call]] = {
    0x01: _read_coils,
    0x02: _read_discrete_inputs,
    0x03: _read_holding_registers,
    0x04: _read_input_registers,
    0x05: _write_coil,
    0x06: _write_register,
    0x07: _read_exception_status,
    0x08: _diagnostics,
    0x0B: _get_comm_event_counter,
    0x0C: _get_comm_event_log,
    0x0F: _write_coils,
    0x10: _write_registers,
    0x11: _report_server_id,
    0x14: _read_file_records,
    0x15: _write_file_record,
    0x16: _mask_write_register,
    0x17: _read_write_registers,
    0x18: _read_fifo_queue,
    0x2B: _read_device_identification,
}
