"""Try a device: connect, and send the request that a health check sends.

Failures are classified by what the user can do about them; the texts are in the
translations. Nothing here knows Home Assistant.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
import enum
import socket
import ssl
from typing import Any, Final, NamedTuple

from ..multiplexer import (
    Answer,
    Framing,
    Mismatch,
    Multiplexer,
    Protocol,
    Request,
    RequestError,
    SendBack,
    Settings,
    TlsUpstream,
    Unsolicited,
    make_protocol,
)
from .identify import FURTHER_UNITS, Identity, identify

CONNECT_SECONDS: Final = 5.0
"""For the connection, and again for a TLS handshake."""
ANSWER_SECONDS: Final = 10.0
"""A user waits: what takes longer is no answer, whatever the timeout is."""
UNIT_SECONDS: Final = 2.0
"""How long each further unit may take, and each request to identify a device."""
_NO_ANSWER: Final = "no answer"
_HUNG_UP: Final = "connection closed"
_CHUNK: Final = 4096


class DeviceProblem(enum.StrEnum):
    """Why there is no answer from the device."""

    UNKNOWN_HOST = "unknown_host"
    """The name cannot be resolved."""
    UNREACHABLE = "unreachable"
    """No answer to the connection attempt, or no route."""
    REFUSED = "refused"
    """The host is there and nothing listens on that port."""
    NO_PORT = "no_port"
    """The serial port cannot be opened."""
    NOT_DIALLED = "not_dialled"
    """The device has not dialled in yet."""
    CLOSED = "closed"
    """The device closed the connection without an answer: its slot may be taken."""
    SILENT = "silent"
    """It accepted the connection and did not answer."""
    SILENT_LOGGER = "silent_logger"
    """The same of a logger stick, which does so if its serial number is another."""
    WRONG_SERIAL = "wrong_serial"
    """A logger stick says that its serial number is another."""
    NOT_UNDERSTOOD = "not_understood"
    """The answer is not one of the protocol."""
    OTHER_SETTINGS = "other_settings"
    """Home Assistant's own connection to it uses other link settings."""
    NOT_INSTALLED = "not_installed"
    """Home Assistant's own connection lacks its libraries."""
    NO_TLS = "no_tls"
    """The TLS handshake failed."""
    NOT_TRUSTED = "not_trusted"
    """The device's certificate is not accepted."""


class Stage(enum.StrEnum):
    """What is being done to get an answer."""

    CONNECTING = "connecting"
    WAITING = "waiting"
    """For a device that dials in."""
    ASKING = "asking"
    """The unit in the settings, and who the device is."""
    TRYING_UNITS = "trying_units"


type Report = Callable[[Stage], None]


def _tell_nobody(_stage: Stage) -> None:
    """Report to nobody."""


class DeviceError(Exception):
    """The device did not answer; `problem` says why, `detail` what else is known."""

    def __init__(self, problem: DeviceProblem, detail: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.detail = detail


class ProbeResult(NamedTuple):
    """What a device answered."""

    answer: str | None = None
    """Request and response as a text; None: nothing was asked."""
    identity: Identity | None = None
    """What it reported about itself; None: nothing."""


async def ask_device(
    settings: Settings,
    units: Sequence[int] = (),
    report: Report = _tell_nobody,
    *,
    connect_seconds: float = CONNECT_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> ProbeResult:
    """Connect, send what a health check sends, and identify a Modbus device.

    If the unit in `settings` does not answer, others are tried: `units`, then the usual
    ones. All on one connection, with the delays in `settings`.

    Raises:
        DeviceError: it did not answer.

    """
    protocol = make_protocol(settings)
    request = protocol.probe(None)
    report(Stage.CONNECTING)
    reader, writer = await _connect(settings.host, settings.port, connect_seconds)
    if settings.tls is not None:
        await _secure(writer, settings.tls, settings.host, connect_seconds)
    try:
        # No user waits minutes for a form: then the connection is enough.
        if request is None or settings.connect_delay > answer_seconds:
            return ProbeResult()
        report(Stage.ASKING)
        await asyncio.sleep(settings.connect_delay)
        conversation = _Conversation(settings, protocol, reader, writer, answer_seconds)
        return await conversation.probe(request, units, report)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask_running(
    multiplexer: Multiplexer, units: Sequence[int], *, seconds: float = ANSWER_SECONDS
) -> ProbeResult:
    """Identify a Modbus device through the multiplexer that holds its connection.

    The units that have answered before are tried; if there are none, the one in the
    settings, `units`, and the usual ones. The result is empty if there is no answer
    within `seconds`, or if the allowed functions and units refuse the requests.
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
        async with asyncio.timeout(seconds):
            return ProbeResult(identity=await identify(ask, answering or others))
    return ProbeResult()


async def _connect(
    host: str, port: int, seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.open_connection(host, port, all_errors=True)
    except socket.gaierror, UnicodeError:  # unknown, or too long for a name
        problem = DeviceProblem.UNKNOWN_HOST
    except ExceptionGroup as errors:  # one for each address of the name
        refused = errors.subgroup(ConnectionRefusedError)
        problem = DeviceProblem.REFUSED if refused else DeviceProblem.UNREACHABLE
    except OSError:  # mostly a TimeoutError
        problem = DeviceProblem.UNREACHABLE
    raise DeviceError(problem)


async def _secure(
    writer: asyncio.StreamWriter, tls: TlsUpstream, host: str, seconds: float
) -> None:
    """Start TLS; a connection on which that fails is closed."""
    context = await asyncio.get_running_loop().run_in_executor(None, tls.context)
    done = False
    try:
        async with asyncio.timeout(seconds):
            await writer.start_tls(context, server_hostname=tls.server_name or host)
        done = True
    except ssl.SSLCertVerificationError as err:
        raise DeviceError(DeviceProblem.NOT_TRUSTED, err.verify_message) from None
    except ssl.SSLError as err:
        raise DeviceError(DeviceProblem.NO_TLS, err.reason) from None
    except TimeoutError:  # without TLS, the device waits for more
        raise DeviceError(DeviceProblem.NO_TLS, _NO_ANSWER) from None
    except OSError:
        raise DeviceError(DeviceProblem.NO_TLS, _HUNG_UP) from None
    finally:
        if not done:  # half a handshake never ends by itself
            writer.transport.abort()


class _Conversation:
    """Requests to a device, one after the other on one connection."""

    def __init__(
        self,
        settings: Settings,
        protocol: Protocol[Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seconds: float,
    ) -> None:
        self._settings = settings
        self._protocol = protocol
        self._reader = reader
        self._writer = writer
        self._codec = protocol.upstream()
        self._seconds = min(settings.timeout, seconds)
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds

    async def probe(
        self, request: Request, units: Sequence[int], report: Report
    ) -> ProbeResult:
        """Send `request` and identify the device; if it is silent, try other units.

        Raises:
            DeviceError: it did not answer.

        """
        try:
            response = await self._ask(request, self._seconds)
        except DeviceError as err:
            if err.problem is DeviceProblem.CLOSED and self._settings.tls is not None:
                # TLS 1.3 refuses a client, or its lack of a certificate, only now.
                raise DeviceError(DeviceProblem.NO_TLS, _HUNG_UP) from None
            others = [*units, *FURTHER_UNITS]
            if (
                err.problem is not DeviceProblem.SILENT
                or not self._protocol.correlated
                or not self._codec.expire(request)
            ):
                raise
            report(Stage.TRYING_UNITS)
            if (found := await self._identify(others)) is None:
                raise
            return ProbeResult(f"unit {found.unit}", found)
        answer = self._protocol.describe(request.payload, response)
        if not self._protocol.has_units:
            return ProbeResult(answer)
        return ProbeResult(answer, await self._identify([request.payload[0]]))

    async def _identify(self, units: Sequence[int]) -> Identity | None:
        """Identify the device; None if it fails or takes too long."""
        with suppress(DeviceError):
            return await identify(self._ask_unit, units)
        return None

    async def _ask_unit(self, payload: bytes) -> bytes | None:
        """Return unit identifier and PDU of the answer; None: the unit is silent."""
        await asyncio.sleep(self._settings.request_delay)
        request = self._protocol.request(payload)
        left = min(self._seconds, UNIT_SECONDS, self._end - self._loop.time())
        try:
            return await self._ask(request, left)
        except DeviceError as err:
            if err.problem is DeviceProblem.SILENT and self._codec.expire(request):
                return None
            raise

    async def _ask(self, request: Request, seconds: float) -> bytes:
        """Return the response; what comes before it is ignored."""
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
                            case Unsolicited(lenient=Mismatch.SERIAL, reason=reason):
                                raise DeviceError(DeviceProblem.WRONG_SERIAL, reason)
                            case Unsolicited():
                                strange = DeviceProblem.NOT_UNDERSTOOD
                            case _:
                                raise DeviceError(DeviceProblem.NOT_UNDERSTOOD)
        except TimeoutError:
            if self._settings.framing is Framing.SOLARMAN:  # it talks unasked, too
                raise DeviceError(DeviceProblem.SILENT_LOGGER) from None
            raise DeviceError(strange or DeviceProblem.SILENT) from None
        raise DeviceError(strange or DeviceProblem.CLOSED)

    async def _read(self) -> bytes:
        """Return the next bytes; none: the connection was closed."""
        try:
            return await self._reader.read(_CHUNK)
        except OSError:
            return b""
