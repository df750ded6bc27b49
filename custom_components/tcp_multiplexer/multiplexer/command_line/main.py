"""The command line: `tcp-multiplexer server`, `list` and `version`.

It is compatible with that of the Go program of the same name, and has a flag for every
setting. Logs go to stderr, one line each. SIGUSR1 prints a report to stdout. The exit
status is 0 after a clean stop, and 2 with one line that says why if it could not start.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
import gc
import logging
import os
import signal
import sys
import textwrap
import threading
from types import FrameType

from .. import __version__
from ..dispatch.dispatcher import Dispatcher
from ..logger_search import find_logger_serial
from ..multiplexer import Multiplexer
from ..networks import format_address
from ..observe.events import ClientRefusal, Event, EventType
from ..profiles import PROFILES
from ..protocols import PROTOCOLS
from ..protocols.options import Framing
from ..settings import Settings, SettingsError
from .event_loop import loop_factory
from .flags import Parser, add_flags, flag_of, make_settings
from .report import report

PROGRAM = "tcp-multiplexer"
_GC_THRESHOLD = 5_000
"""Objects until the collector looks for cycles: some 200 connections make as many."""
LOGGER = logging.getLogger(__name__)

STOP_SECONDS = 1.5
"""A stop that takes longer is cut short by exiting."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "server":
            return _server(given)
        case "list":
            _list()
        case "version":
            print(f"{PROGRAM} {__version__} ({_variant()})")
    return 0


def _variant() -> str:
    """Return how this was built, and on which event loop it runs."""
    source = sys.modules[Dispatcher.__module__].__file__ or ""
    engine = "pure Python" if source.endswith(".py") else "compiled"
    return f"{engine}, {'asyncio' if loop_factory() is None else 'uvloop'}"


def _list() -> None:
    """Print the protocols, and the device profiles with what they cannot fix."""
    for name in PROTOCOLS:
        print(f"* {name}")
    print("\ndevice profiles:")
    for name, profile in PROFILES.items():
        print(f"* {name}: {profile.title}")
        for line in textwrap.wrap(profile.notes, break_on_hyphens=False):
            print(f"    {line}")
    print(f"\nusage for example: {PROGRAM} server -p echo")


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Share one TCP connection to a device among many clients.",
        epilog=f"All settings: {PROGRAM} server --help",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="server|list|version"
    )
    server = commands.add_parser(
        "server",
        usage=f"{PROGRAM} server [flags]",
        help="accept clients, and pass their requests to the device",
        description="Accept any number of clients, and pass their requests to one "
        "device over one connection, or a few. SIGUSR1 prints statistics and the last "
        "exchanges as JSON.",
        epilog=f"example: {PROGRAM} server -p modbus -t 192.168.1.22:502 -l 5020 -v",
    )
    add_flags(server)
    commands.add_parser("list", help="list the protocols and device profiles")
    commands.add_parser("version", help="print the version")
    return parser


def _server(given: argparse.Namespace) -> int:
    try:
        settings = make_settings(given)
        level = _configure_logging(given)
        # Serving requests makes no reference cycles, so the collector would only scan
        # what was imported, over and over. Closed connections are cycles, of asyncio's.
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        asyncio.run(_serve(settings, level), loop_factory=loop_factory())
    except ValueError as err:
        print(f"{PROGRAM} server: {err}", file=sys.stderr)
        return 2
    return 0


def _configure_logging(given: argparse.Namespace) -> int:
    """Log to stderr at the level that the flags ask for; return that level."""
    level = logging.WARNING
    if "debug" in given:
        level = logging.DEBUG
    elif "verbose" in given:
        level = logging.INFO
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    engine = __name__.removesuffix(".command_line.main")
    logging.getLogger(engine).setLevel(level)
    LOGGER.setLevel(min(level, logging.INFO))  # the start is always logged
    return level


async def _serve(settings: Settings, level: int) -> None:
    """Run until SIGINT or SIGTERM.

    Raises:
        ValueError: it cannot start; the text says why and what to do.

    """
    target = settings.target
    stop = _stop_signal()
    if settings.framing is Framing.SOLARMAN and not settings.logger_serial:
        settings = await _with_logger_serial(settings)
    try:
        multiplexer = Multiplexer(settings)
    except SettingsError as err:
        message = f"{flag_of(err.field)}: {err.message}"
        raise ValueError(message) from err
    multiplexer.subscribe(_EventLog(target, level))
    _report_on_signal(multiplexer)
    try:
        await multiplexer.start()
    except OSError as err:
        message = f"cannot listen: {err.strerror or err}; choose another port with -l"
        raise ValueError(message) from err
    listening = multiplexer.snapshot().listen_addresses
    LOGGER.info(
        "Listening on %s; %s goes to %s",
        ", ".join(format_address(*address) for address in listening),
        settings.protocol,
        target,
    )
    name = await stop
    await multiplexer.stop()
    if level < logging.WARNING:
        LOGGER.info("Stopped by %s", name)


async def _with_logger_serial(settings: Settings) -> Settings:
    """Return the settings with the serial number that the stick tells, if it does."""
    serial = await find_logger_serial(settings.host) if settings.host else 0
    if serial:
        LOGGER.info("The logger's serial number is %d", serial)
    else:
        LOGGER.warning(
            "The logger at %s does not tell its serial number; give it with "
            "--logger-serial if there are no responses",
            settings.target,
        )
    return replace(settings, logger_serial=serial)


def _stop_signal() -> asyncio.Future[str]:
    """Return a future of the signal, SIGINT or SIGTERM; a second signal kills."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal(number: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        # Nothing may delay the exit. Name resolution could: it runs in a thread, and
        # Python waits for threads.
        timer = threading.Timer(STOP_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()
        loop.call_soon_threadsafe(stop.set_result, signal.Signals(number).name)

    for each in signals:
        # Not `loop.add_signal_handler`: that would wait for a loop that is stuck.
        signal.signal(each, on_signal)
    return stop


def _report_on_signal(multiplexer: Multiplexer) -> None:
    """Print a report at SIGUSR1, on systems that have that signal."""
    number = getattr(signal, "SIGUSR1", None)
    if number is not None:
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: print(report(multiplexer), flush=True)
        )


class _EventLog:
    """Logs the events that the engine itself does not log at this level."""

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
        elif self._level == logging.INFO:  # at DEBUG, the engine logs these itself
            if event.type is EventType.CONNECTION_OPENED:
                LOGGER.info("Connected to %s", self._target)
            elif event.type is EventType.CONNECTION_CLOSED:
                LOGGER.info("Disconnected from %s: %s", self._target, event.reason)

    def _log_refused(self, event: Event) -> None:
        """Warn once per address: refused clients keep trying."""
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
