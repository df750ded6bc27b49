"""The command line: `tcp-multiplexer server`, `list` and `version`.

It reads as that of the Go program of the same name did, and goes on: there is a flag
for everything that can be set. What is logged goes to stderr, one line each; SIGUSR1
asks for a report, which goes to stdout. Exit status: 0 after a clean stop, 2 when it
could not start, with one line that says why.
"""

import argparse
import asyncio
from collections.abc import Sequence
import gc
import logging
import os
import signal
import sys
import threading
from types import FrameType

from .. import __version__
from ..multiplexer import Multiplexer
from ..observe.events import ClientRefusal, Event, EventType
from ..protocols import PROTOCOLS
from ..settings import Settings, SettingsError
from .flags import Parser, add_flags, flag_of, make_settings
from .report import report

PROGRAM = "tcp-multiplexer"
_GC_THRESHOLD = 50_000
LOGGER = logging.getLogger(__name__)

STOP_SECONDS = 1.5
"""A stop that takes longer is cut short."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "server":
            return _server(given)
        case "list":
            for name in PROTOCOLS:
                print(f"* {name}")
            print(f"\nusage for example: {PROGRAM} server -p echo")
        case "version":
            print(f"{PROGRAM} {__version__}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Share one TCP connection to a device among many clients.",
        epilog=f"All that can be set: {PROGRAM} server --help",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="server|list|version"
    )
    server = commands.add_parser(
        "server",
        usage=f"{PROGRAM} server [flags]",
        help="accept clients, and carry their requests to the device",
        description="Accept any number of clients, and carry their requests to one "
        "device over one connection, or a few. SIGUSR1 prints statistics and the last "
        "exchanges as JSON.",
        epilog=f"example: {PROGRAM} server -p modbus -t 192.168.1.22:502 -l 5020 -v",
    )
    add_flags(server)
    commands.add_parser("list", help="name the application protocols")
    commands.add_parser("version", help="say which version this is")
    return parser


def _server(given: argparse.Namespace) -> int:
    try:
        settings = make_settings(given)
        level = _configure_logging(given)
        # Nothing on the way of a request makes cycles: the collector would only look
        # for some, over and over, among all that was imported.
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        asyncio.run(_serve(settings, level))
    except ValueError as err:
        print(f"{PROGRAM} server: {err}", file=sys.stderr)
        return 2
    return 0


def _configure_logging(given: argparse.Namespace) -> int:
    """Log to stderr what was asked for; give the level of that."""
    level = logging.WARNING
    if "debug" in given:
        level = logging.DEBUG
    elif "verbose" in given:
        level = logging.INFO
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    engine = __name__.removesuffix(".command_line.main")
    logging.getLogger(engine).setLevel(level)
    LOGGER.setLevel(min(level, logging.INFO))  # the start is told in any case
    return level


async def _serve(settings: Settings, level: int) -> None:
    """Run until a signal says stop.

    Raises:
        ValueError: it cannot start; the text says why and what to do.

    """
    target = _address(settings.host, settings.port)
    try:
        multiplexer = Multiplexer(settings, name=target)
    except SettingsError as err:
        message = f"{flag_of(err.field)}: {err.message}"
        raise ValueError(message) from err
    multiplexer.subscribe(_EventLog(target, level))
    stop = _stop_signal()
    _report_on_signal(multiplexer)
    try:
        await multiplexer.start()
    except OSError as err:
        message = f"cannot listen: {err.strerror or err}; choose another port with -l"
        raise ValueError(message) from err
    listening = multiplexer.snapshot().listen_addresses
    LOGGER.info(
        "Listening on %s; %s goes to %s",
        ", ".join(_address(*address) for address in listening),
        settings.protocol,
        target,
    )
    name = await stop
    await multiplexer.stop()
    if level < logging.WARNING:
        LOGGER.info("Stopped by %s", name)


def _stop_signal() -> asyncio.Future[str]:
    """Give what SIGINT or SIGTERM will end, in time; a second one kills."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal(number: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        # Nothing may hold the exit up, such as a name that is being resolved: that
        # runs in a thread, which Python would wait for.
        timer = threading.Timer(STOP_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()
        loop.call_soon_threadsafe(stop.set_result, signal.Signals(number).name)

    for each in signals:
        # Not the loop's own way: that would wait for a loop that is stuck.
        signal.signal(each, on_signal)
    return stop


def _report_on_signal(multiplexer: Multiplexer) -> None:
    """Print a report at SIGUSR1, on systems that have it."""
    number = getattr(signal, "SIGUSR1", None)
    if number is not None:
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: print(report(multiplexer), flush=True)
        )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _EventLog:
    """Logs events that the engine itself does not log at this level."""

    def __init__(self, target: str, level: int) -> None:
        self._target = target
        self._level = level
        self._refused: set[str | None] = set()

    def __call__(self, event: Event) -> None:
        why = event.detail or event.reason
        if event.type is EventType.CLIENT_REFUSED:
            self._log_refused(event)
        elif self._level == logging.WARNING:
            if event.type is EventType.UPSTREAM_LOST:
                LOGGER.warning("%s is unavailable: %s", self._target, why)
            elif event.type is EventType.UPSTREAM_BACK:
                LOGGER.warning("%s is back", self._target)
        elif event.type is EventType.HEALTH_CHANGED:
            detail = f": {event.detail}" if event.detail else ""
            LOGGER.info("%s is %s%s", self._target, event.reason, detail)
        elif event.type is EventType.CONNECTION_FAILED:
            LOGGER.info("Could not connect to %s: %s", self._target, why)
        elif self._level == logging.INFO:  # these the engine logs for debugging
            if event.type is EventType.CONNECTION_OPENED:
                LOGGER.info("Connected to %s", self._target)
            elif event.type is EventType.CONNECTION_CLOSED:
                LOGGER.info("Disconnected from %s: %s", self._target, event.reason)

    def _log_refused(self, event: Event) -> None:
        """Warn of each address once: who is refused tries again and again."""
        first = event.client not in self._refused and len(self._refused) < 100
        if first:
            self._refused.add(event.client)
        level = logging.WARNING if first else logging.DEBUG
        reason = (event.reason or "").replace("_", " ")
        hint = (
            "; see --allowed-networks"
            if event.reason is ClientRefusal.NOT_ALLOWED
            else ""
        )
        LOGGER.log(level, "Client %s refused: %s%s", event.client, reason, hint)
