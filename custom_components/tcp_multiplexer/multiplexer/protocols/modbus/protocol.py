"""Modbus as a whole: its codecs, its manners, and the rules that it can judge by."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import override

from ..base import (
    DownstreamCodec,
    Failure,
    Protocol,
    Request,
    Rules,
    UpstreamCodec,
)
from ..options import (
    Framing,
    Matching,
    ProtocolOptions,
    SettingsError,
    check_one_in_flight,
)
from ..outline import Outline
from .extent import ModbusExtent, extent_of
from .lenient import LenientTransactions, LenientUpstream
from .logger_stick import SolarmanUpstream
from .matching import ModbusUpstream, Transactions
from .pdu import (
    EXCEPTION_BIT,
    describe,
    explain,
    explain_write,
    modbus_request,
    outline,
    registers_read,
    success_response,
)
from .quantities import MAX_REGISTERS
from .registration import Registration, leave_out
from .rtu import RtuDownstream, RtuUpstream
from .rtu_serial import RtuSerialUpstream
from .solarman import SolarmanDownstream, Stick
from .tcp import MAX_LENGTH, MIN_LENGTH, ModbusDownstream, frame_of
from .units import UnitMap
from .wording import payload_of


class ModbusRules(Rules):
    """Judges by unit, function and number of registers."""

    def __init__(self, options: ProtocolOptions) -> None:
        self._units = frozenset(options.allowed_units)
        self._functions = frozenset(options.allowed_functions)
        self._registers = options.max_read_registers
        self.active = (
            bool(self._units or self._functions) or self._registers < MAX_REGISTERS
        )
        """There is a rule that could stop a request."""

    @override
    def judge(self, payload: bytes) -> Failure | None:
        if self._units and payload[0] not in self._units:
            return Failure.REFUSED
        if self._functions and payload[1] not in self._functions:
            return Failure.REFUSED
        if (
            self._registers < MAX_REGISTERS
            and registers_read(payload) > self._registers
            and extent_of(payload) is None
        ):
            return Failure.TOO_LARGE  # nor can it be asked in parts
        return None

    @override
    def parts(self, request: Request) -> list[Request]:
        extent = request.extent
        if self._registers == MAX_REGISTERS or not isinstance(extent, ModbusExtent):
            return []
        return [modbus_request(part, None) for part in extent.parts(self._registers)]


class ModbusProtocol(Protocol[bytes]):
    """Modbus/TCP, RTU and Solarman V5, on either side."""

    name = "modbus"
    title = "Modbus/TCP"
    settings = frozenset(
        (
            "framing",
            "logger_serial",
            "matching",
            "quiet",
            "check_logger_serial",
            "serial",
            "unit_id",
            "unit_map",
            "allowed_units",
            "allowed_functions",
            "max_read_registers",
            "write_rules",
            "repeated_write_ttl",
            "writes_first",
            "share_reads",
            "periodic_request",
            "periodic_interval",
            "discard_first_read",
            "cache_ttl",
            "on_failure",
        )
    )
    framings = MappingProxyType(
        {
            Framing.TCP: "Modbus/TCP",
            Framing.RTU: "Modbus RTU over TCP",
            Framing.SOLARMAN: "Solarman V5",
        }
    )
    correlated = True
    drop_reads_at_eof = True
    read_while_held = 4096
    has_units = True
    counted_by = 2
    usual_port = 502

    @override
    @classmethod
    def check(cls, options: ProtocolOptions) -> None:
        if options.framing is not Framing.TCP:
            if options.max_connections > 1:
                # serial servers send what the line says to every connection
                message = "must be 1: a serial line carries one exchange at a time"
                raise SettingsError("max_connections", message)
            check_one_in_flight(options, cls.framings[options.framing])
        elif options.matching is Matching.LENIENT:
            check_one_in_flight(options, "lenient matching")
        if options.periodic_request:
            try:
                payload_of(options.periodic_request)
            except ValueError as err:
                raise SettingsError("periodic_request", str(err)) from None
        for units in zip(*options.unit_map, strict=True):
            if len(set(units)) < len(units):
                message = "must not name a unit twice on the same side"
                raise SettingsError("unit_map", message)

    def __init__(self, options: ProtocolOptions) -> None:
        super().__init__(options)
        self.transactions = Transactions()
        self.lenient_transactions = LenientTransactions()
        self.stick = Stick(options.logger_serial)

    @override
    def downstream(self, framing: Framing = Framing.TCP) -> DownstreamCodec[bytes]:
        options = self.options
        codec: DownstreamCodec[bytes]
        if framing is Framing.RTU:
            codec = RtuDownstream(options.on_failure)
        elif framing is Framing.SOLARMAN:
            codec = SolarmanDownstream(
                self.stick, options.on_failure, checks=options.check_logger_serial
            )
        else:
            codec = ModbusDownstream(options.on_failure)
        units = dict(options.unit_map)
        return UnitMap(codec, units, modbus_request) if units else codec

    @override
    def upstream(self) -> UpstreamCodec[bytes]:
        options = self.options
        if options.dial_in is not None:
            leave_out(self.transactions)
            leave_out(self.lenient_transactions)
        if options.serial is not None:
            return RtuSerialUpstream(options.quiet, options.serial)
        if options.framing is Framing.RTU:
            return RtuUpstream(options.quiet)
        if options.framing is Framing.SOLARMAN:
            return SolarmanUpstream(self.stick, self.time_of_day)
        if options.matching is Matching.LENIENT:
            return LenientUpstream(self.lenient_transactions, options.quiet)
        return ModbusUpstream(self.transactions)

    @override
    def greeting(self) -> Callable[[bytes], bytes] | None:
        return Registration().strip if self.options.framing is Framing.TCP else None

    @override
    def request(self, payload: bytes) -> Request:
        if not MIN_LENGTH <= len(payload) <= MAX_LENGTH:
            message = "give a unit identifier and a PDU of 1 to 253 bytes"
            raise ValueError(message)
        return modbus_request(payload, b"\0\0")

    @override
    def worded(self, words: str) -> Request:
        return modbus_request(payload_of(words), b"\0\0")

    @override
    def rules(self, options: ProtocolOptions) -> ModbusRules | None:
        rules = ModbusRules(options)
        return rules if rules.active else None

    @override
    def is_exception(self, response: bytes) -> bool:
        return response[1] & EXCEPTION_BIT != 0

    @override
    def acknowledge(self, request: Request) -> bytes | None:
        return success_response(request.payload)

    @override
    def explain_write(self, request: Request) -> dict[str, object]:
        return explain_write(request.payload)

    @override
    def probe(self, last_good: Request | None) -> Request:
        if last_good is not None:
            return last_good
        return modbus_request(bytes((self.options.unit_id, 3, 0, 0, 0, 1)), b"\0\0")

    @override
    def outline(self, payload: bytes, response: bytes | None) -> Outline:
        return outline(payload, response)

    @override
    def explain(self, payload: bytes, response: bytes | None) -> dict[str, object]:
        return explain(payload, response)

    @override
    def on_wire(self, payload: bytes, number: int) -> bytes:
        return frame_of(number.to_bytes(2), payload)

    @override
    def describe(self, payload: bytes, response: bytes | None) -> str:
        return describe(payload, response)
