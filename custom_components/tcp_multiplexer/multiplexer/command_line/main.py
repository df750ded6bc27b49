"""The command line: `tcp-multiplexer server`, `run` and their companions.

`server` is compatible with that of the Go program of the same name, and has a flag for
every setting; `run` shares several devices, as a file says. Logs go to stderr, one line
each. The exit status is 0 after a clean stop, and 2 if it could not start, with a line
for each reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import logging
from pathlib import Path
import sys
import textwrap

from .. import __version__
from ..dispatch.dispatcher import Dispatcher
from ..networks import format_address
from ..profiles import PROFILES
from ..protocols import PROTOCOLS
from ..settings import Settings
from .event_loop import loop_factory
from .flags import Parser, add_flags, add_program_flags, make_settings
from .log import configure_logging
from .places import places
from .server import serve

PROGRAM = "tcp-multiplexer"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "server":
            return _server(given)
        case "run":
            return _run(given)
        case "check":
            return _check(given)
        case "convert":
            return _convert(given)
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
        dest="command", required=True, metavar="server|run|check|convert|list|version"
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
    run = commands.add_parser(
        "run",
        help="share the devices that a file names",
        description="Share several devices, as a TOML file says. SIGHUP reads it again, "
        "and applies what has changed; SIGUSR1 prints statistics and the last exchanges "
        "as JSON.",
        epilog=f"example: {PROGRAM} run /etc/tcp-multiplexer.toml -v",
    )
    _add_file(run)
    add_program_flags(run)
    check = commands.add_parser(
        "check", help="say what is wrong in such a file, or what it shares"
    )
    _add_file(check)
    other = commands.add_parser(
        "convert",
        usage=f"{PROGRAM} convert FILE\n       {PROGRAM} convert server [flags]",
        help="make such a file from that of modbus-proxy, or from a command line",
        description="Print the file for the run command that does what a file of "
        "modbus-proxy does (YAML, TOML or JSON), or a command line of the Go program.",
        epilog=f"example: {PROGRAM} convert modbus-config.yml > devices.toml",
    )
    other.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    commands.add_parser("list", help="list the protocols and device profiles")
    commands.add_parser("version", help="print the version")
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the TOML file")


def _server(given: argparse.Namespace) -> int:
    return _share(given, lambda: {"": make_settings(given)})


def _run(given: argparse.Namespace) -> int:
    return _share(given, lambda: _read(given.file), given.file)


def _read(file: Path) -> dict[str, Settings]:
    """Read the file of the devices.

    Raises:
        ValueError: it cannot be used.

    """
    # (What `server` does not need is imported late, so that it starts sooner.)
    from .configuration import read_configuration  # noqa: PLC0415

    return read_configuration(file)


def _share(
    given: argparse.Namespace,
    read: Callable[[], dict[str, Settings]],
    file: Path | None = None,
) -> int:
    """Share devices until a signal comes; return the exit status."""
    level = logging.WARNING
    if "debug" in given:
        level = logging.DEBUG
    elif "verbose" in given:
        level = logging.INFO
    try:
        wanted = read()
        configure_logging(level)
        serve(wanted, level, file=file, metrics=vars(given).get("metrics"))
    except ValueError as err:
        _complain(given, err)
        return 2
    return 0


def _check(given: argparse.Namespace) -> int:
    """Say what is wrong in a configuration, or what it shares."""
    try:
        devices = _read(given.file)
    except ValueError as err:
        _complain(given, err)
        return 2
    for name, settings in devices.items():
        listen = [
            format_address(host or "*", port) for _, host, port in places(settings)
        ]
        print(
            f"{name}: {', '.join(listen)}; {settings.protocol} goes to {settings.target}"
        )
    return 0


def _convert(given: argparse.Namespace) -> int:
    """Print the configuration that does what another program's does."""
    from .convert import convert  # noqa: PLC0415

    try:
        print(convert(given.words), end="")
    except ValueError as err:
        _complain(given, err)
        return 2
    return 0


def _complain(given: argparse.Namespace, err: ValueError) -> None:
    """Print why a command cannot be done, each reason in a line."""
    for line in str(err).split("\n"):
        print(f"{PROGRAM} {given.command}: {line}", file=sys.stderr)
