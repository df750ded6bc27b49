"""Whether the device answers, tried by asking it.

It is asked what its protocol's health check would ask. What fails is classified by what
a person can do about it; the words are the translations' business. Nothing here knows
Home Assistant.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
import enum
import socket
import ssl
from typing import Any, Final, NamedTuple

from ..multiplexer import (
    PROTOCOLS,
    Answer,
    Multiplexer,
    Protocol,
    ProtocolOptions,
    Request,
    RequestError,
    SendBack,
    Settings,
    Stray,
    TlsUpstream,
)
from .identify import FURTHER_UNITS, Identity, identify

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
"""A person waits: what takes longer is no answer, whatever the timeout may be."""
_UNIT_SECONDS: Final = 2.0
"""How long a unit may take that is asked because another one was silent."""
_NO_ANSWER: Final = "no answer"
_HUNG_UP: Final = "connection closed"
_CHUNK: Final = 4096


class DeviceProblem(enum.StrEnum):
    """Why there is no answer from the device."""

    UNKNOWN_HOST = "unknown_host"
    """The name cannot be resolved."""
    UNREACHABLE = "unreachable"
    """No answer to the connection attempt, or no way there."""
    REFUSED = "refused"
    """The host is there and nothing listens on that port."""
    CLOSED = "closed"
    """The connection was ended without an answer: somebody else may hold the slot."""
    SILENT = "silent"
    """Connected, asked, and no answer came."""
    NOT_UNDERSTOOD = "not_understood"
    """An answer came that is not the protocol's."""
    OTHER_SETTINGS = "other_settings"
    """Home Assistant's own connection to it has other link settings."""
    NO_TLS = "no_tls"
    """The TLS handshake failed."""
    NOT_TRUSTED = "not_trusted"
    """The device's certificate is not accepted."""


class DeviceError(Exception):
    """The device did not answer; `problem` says how."""

    def __init__(self, problem: DeviceProblem, detail: str | None = None) -> None:
        """Name the problem; `detail` is what is known of it beyond that."""
        super().__init__(problem)
        self.problem = problem
        self.detail = detail


def make_protocol(settings: Settings) -> Protocol[Any]:
    """Give the protocol as these settings want it.

    Raises:
        ValueError: the question that they contain is not one whole message.

    """
    # Options have the names of the settings that they come from.
    options = {
        each.name: getattr(settings, each.name) for each in fields(ProtocolOptions)
    }
    return PROTOCOLS[settings.protocol](ProtocolOptions(**options))


class ProbeResult(NamedTuple):
    """What came of asking a device."""

    answer: str | None = None
    """Question and answer as a text; None: the protocol knows no question."""
    identity: Identity | None = None
    """Who it is; None: it did not say."""


async def ask_device(settings: Settings, units: Sequence[int] = ()) -> ProbeResult:
    """Connect, ask what a health check asks, and a Modbus device who it is.

    If the unit in `settings` is silent, others are asked: `units`, then the usual
    ones. All of that happens on one connection, with the gaps in `settings`.

    Raises:
        DeviceError: it did not answer.

    """
    protocol = make_protocol(settings)
    request = protocol.probe(None)
    reader, writer = await _connect(settings.host, settings.port)
    if settings.tls is not None:
        await _secure(writer, settings.tls, settings.host)
    try:
        # Nobody waits for minutes in front of a form: then the connection must do.
        if request is None or settings.connect_delay > ANSWER_SECONDS:
            return ProbeResult()
        await asyncio.sleep(settings.connect_delay)
        return await _Conversation(settings, protocol, reader, writer).probe(
            request, units
        )
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask_running(multiplexer: Multiplexer, units: Sequence[int]) -> ProbeResult:
    """Ask a Modbus device who it is through a multiplexer that holds it.

    It may have one slot only, and clients. Those units come first that answer them; if
    none does, `units`. Where there is no answer within a time that people wait, or the
    owner's rules let no question pass, nothing is found.
    """
    settings = multiplexer.settings
    answering = [
        number
        for number, unit in multiplexer.snapshot().units.items()
        if unit.responses
    ]
    answering.sort(key=lambda number: number != settings.unit_id)

    async def ask(payload: bytes) -> bytes | None:
        with suppress(RequestError):
            return await multiplexer.request(payload)
        return None

    others = [settings.unit_id, *units, *FURTHER_UNITS]
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            return ProbeResult(identity=await identify(ask, answering or others))
    return ProbeResult()


async def _connect(
    host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_connection(host, port, all_errors=True)
    except socket.gaierror, UnicodeError:  # unknown, or too long for a name
        problem = DeviceProblem.UNKNOWN_HOST
    except ExceptionGroup as errors:  # one for each address that the name has
        refused = errors.subgroup(ConnectionRefusedError)
        problem = DeviceProblem.REFUSED if refused else DeviceProblem.UNREACHABLE
    except OSError:  # mostly a TimeoutError
        problem = DeviceProblem.UNREACHABLE
    raise DeviceError(problem)


async def _secure(writer: asyncio.StreamWriter, tls: TlsUpstream, host: str) -> None:
    """Go on in TLS; a connection on which that fails is closed."""
    context = await asyncio.get_running_loop().run_in_executor(None, tls.context)
    done = False
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await writer.start_tls(context, server_hostname=tls.server_name or host)
        done = True
    except ssl.SSLCertVerificationError as err:
        raise DeviceError(DeviceProblem.NOT_TRUSTED, err.verify_message) from None
    except ssl.SSLError as err:
        raise DeviceError(DeviceProblem.NO_TLS, err.reason) from None
    except TimeoutError:  # what speaks no TLS waits for more
        raise DeviceError(DeviceProblem.NO_TLS, _NO_ANSWER) from None
    except OSError:
        raise DeviceError(DeviceProblem.NO_TLS, _HUNG_UP) from None
    finally:
        if not done:  # who waits for the end of half a handshake waits forever
            writer.transport.abort()


class _Conversation:
    """Questions to a device, one after the other on one connection."""

    def __init__(
        self,
        settings: Settings,
        protocol: Protocol[Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._settings = settings
        self._protocol = protocol
        self._reader = reader
        self._writer = writer
        self._codec = protocol.upstream()
        self._seconds = min(settings.timeout, ANSWER_SECONDS)
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + ANSWER_SECONDS

    async def probe(self, request: Request, units: Sequence[int]) -> ProbeResult:
        """Ask `request`, and who the device is; if it is silent, at other units.

        Raises:
            DeviceError: it did not answer.

        """
        try:
            response = await self._ask(request, self._seconds)
        except DeviceError as err:
            if err.problem is DeviceProblem.CLOSED and self._settings.tls is not None:
                # TLS 1.3 refuses a client, or its want of a certificate, only now.
                raise DeviceError(DeviceProblem.NO_TLS, _HUNG_UP) from None
            others = [*units, *FURTHER_UNITS]
            if (
                err.problem is not DeviceProblem.SILENT
                or not self._protocol.correlated
                or not self._codec.expire(request)
                or (found := await self._identify(others)) is None
            ):
                raise
            return ProbeResult(f"unit {found.unit}", found)
        answer = self._protocol.describe(request.payload, response)
        if not self._protocol.has_units:
            return ProbeResult(answer)
        return ProbeResult(answer, await self._identify([request.payload[0]]))

    async def _identify(self, units: Sequence[int]) -> Identity | None:
        """Ask a device who it is, while that takes no longer than people wait."""
        with suppress(DeviceError):
            return await identify(self._ask_unit, units)
        return None

    async def _ask_unit(self, payload: bytes) -> bytes | None:
        """Give unit and PDU of the answer to `payload`; None: the unit is silent."""
        await asyncio.sleep(self._settings.request_delay)
        request = self._protocol.request(payload)
        left = min(self._seconds, _UNIT_SECONDS, self._end - self._loop.time())
        try:
            return await self._ask(request, left)
        except DeviceError as err:
            if err.problem is DeviceProblem.SILENT and self._codec.expire(request):
                return None
            raise

    async def _ask(self, request: Request, seconds: float) -> bytes:
        """Give the response; what comes before it is passed over."""
        self._writer.write(self._codec.send(request))
        strange: DeviceProblem | None = None
        data = None
        try:
            async with asyncio.timeout(seconds):
                while data != b"":
                    data = await self._read()
                    for event in self._codec.feed(data) if data else self._codec.eof():
                        match event:
                            case Answer(response=response):  # nothing else in flight
                                return bytes(response)
                            case SendBack(data=owed):
                                self._writer.write(owed)
                            case Stray():
                                strange = DeviceProblem.NOT_UNDERSTOOD
                            case _:
                                raise DeviceError(DeviceProblem.NOT_UNDERSTOOD)
        except TimeoutError:
            raise DeviceError(strange or DeviceProblem.SILENT) from None
        raise DeviceError(strange or DeviceProblem.CLOSED)

    async def _read(self) -> bytes:
        """Give what comes next; nothing: the connection has ended."""
        try:
            return await self._reader.read(_CHUNK)
        except OSError:
            return b""
