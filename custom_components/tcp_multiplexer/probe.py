"""Try what the user typed, and say what came of it.

Nothing is predicted. Whether a port can be had is found out by binding it, whether
an address is this machine's likewise, and whether a device answers by asking it what
its protocol's health check would ask. What fails is classified by what a person can
do about it; the words are the translations' business. Nothing here knows Home
Assistant.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
import enum
import errno
import socket
import ssl
from typing import Any, Final, NamedTuple

from .identify import FURTHER_UNITS, Ask, Identity, identify
from .multiplexer import Multiplexer, RequestError
from .multiplexer.protocols.base import Answer, Request, SendBack, Stray, UpstreamCodec
from .multiplexer.settings import Settings, make_protocol
from .multiplexer.tls import TlsUpstream

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
"""A person waits: what takes longer is no answer, whatever the timeout may be."""
_UNIT_SECONDS: Final = 2.0
"""How long a unit may take that is asked because another one was silent."""
_NO_ANSWER: Final = "no answer"
_HUNG_UP: Final = "connection closed"
_UNPRIVILEGED = 1024
_PORTS = 65536
_CHUNK = 4096


class ListenProblem(enum.StrEnum):
    """Why a local port cannot be had."""

    NOT_PERMITTED = "port_not_permitted"
    IN_USE = "port_in_use"
    NOT_HERE = "address_not_here"
    OTHER = "cannot_listen"


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


# The local port


async def try_listen(host: str | None, port: int) -> ListenProblem | None:
    """Bind a local port as the listener would, and let it go; None if that works."""
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            asyncio.Protocol, host, port, start_serving=False
        )
    except OSError as err:
        return _listen_problem(err)
    server.close()
    return None


def _listen_problem(err: OSError) -> ListenProblem:
    match err.errno:
        case errno.EACCES | errno.EPERM:
            return ListenProblem.NOT_PERMITTED
        case errno.EADDRINUSE:
            return ListenProblem.IN_USE
    # asyncio takes EADDRNOTAVAIL for a family that is switched off and, when no
    # address is left, raises an error without a number.
    if err.errno is None or isinstance(err, socket.gaierror):
        return ListenProblem.NOT_HERE
    return ListenProblem.OTHER


async def next_free_port(host: str | None, port: int, taken: Collection[int]) -> int:
    """Give the first port from `port` on that can be had and is not in `taken`."""
    while port in taken or await try_listen(host, port) in (
        ListenProblem.IN_USE,
        ListenProblem.NOT_PERMITTED,
    ):
        port = max((port + 1) % _PORTS, _UNPRIVILEGED)
    return port


async def own_addresses(host: str) -> set[str]:
    """Give those addresses of `host` that are this machine's: those one can bind."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError, UnicodeError:  # unknown, or too long for a name
        return set()
    own: set[str] = set()
    for family, kind, number, _, address in found:
        try:
            with socket.socket(family, kind, number) as probe:
                probe.bind(address)
        except OSError:
            continue
        own.add(str(address[0]))
    return own


# The device


class Meeting(NamedTuple):
    """What came of asking a device."""

    answer: str | None = None
    """Question and answer as a text; None: the protocol knows no question."""
    identity: Identity | None = None
    """Who it is; None: it did not say."""


async def ask_device(settings: Settings, units: Sequence[int] = ()) -> Meeting:
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
            return Meeting()
        await asyncio.sleep(settings.connect_delay)
        codec = protocol.upstream()
        seconds = min(settings.timeout, ANSWER_SECONDS)
        loop = asyncio.get_running_loop()
        end = loop.time() + ANSWER_SECONDS

        async def ask(payload: bytes) -> bytes | None:
            await asyncio.sleep(settings.request_delay)
            asked = protocol.request(payload)
            left = min(seconds, _UNIT_SECONDS, end - loop.time())
            try:
                return await _ask(reader, writer, codec, asked, left)
            except DeviceError as err:
                if err.problem is not DeviceProblem.SILENT or not codec.expire(asked):
                    raise
                return None

        try:
            response = await _ask(reader, writer, codec, request, seconds)
        except DeviceError as err:
            if err.problem is DeviceProblem.CLOSED and settings.tls is not None:
                # TLS 1.3 refuses a client, or its want of a certificate, only now.
                raise DeviceError(DeviceProblem.NO_TLS, _HUNG_UP) from None
            others = [*units, *FURTHER_UNITS]
            if (
                err.problem is not DeviceProblem.SILENT
                or not protocol.correlated
                or not codec.expire(request)
                or (found := await _identify(ask, others)) is None
            ):
                raise
            return Meeting(f"unit {found.unit}", found)
        answer = protocol.describe(request.payload, response)
        if not protocol.has_units:
            return Meeting(answer)
        return Meeting(answer, await _identify(ask, [request.payload[0]]))
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask_running(multiplexer: Multiplexer, units: Sequence[int]) -> Meeting:
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
            return Meeting(identity=await identify(ask, answering or others))
    return Meeting()


async def _identify(ask: Ask, units: Sequence[int]) -> Identity | None:
    """Ask a device who it is, while that takes no longer than people wait."""
    with suppress(DeviceError):
        return await identify(ask, units)
    return None


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


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    codec: UpstreamCodec[Any],
    request: Request,
    seconds: float,
) -> bytes:
    """Give the response; what comes before it is passed over."""
    writer.write(codec.send(request))
    strange: DeviceProblem | None = None
    data = None
    try:
        async with asyncio.timeout(seconds):
            while data != b"":
                try:
                    data = await reader.read(_CHUNK)
                except OSError:
                    data = b""
                for event in codec.feed(data) if data else codec.eof():
                    match event:
                        case Answer(response=response):  # nothing else is in flight
                            return bytes(response)
                        case SendBack(data=owed):
                            writer.write(owed)
                        case Stray():
                            strange = DeviceProblem.NOT_UNDERSTOOD
                        case _:
                            raise DeviceError(DeviceProblem.NOT_UNDERSTOOD)
    except TimeoutError:
        raise DeviceError(strange or DeviceProblem.SILENT) from None
    raise DeviceError(strange or DeviceProblem.CLOSED)
