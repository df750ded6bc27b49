"""What every test has at hand."""

from importlib.util import find_spec
from pathlib import Path
import sys
from types import ModuleType
from typing import Literal

from hypothesis import settings
import pytest
import pytest_socket

# Before any Home Assistant is started: it puts a folder with other custom components
# first on sys.path, and would not look for ours any more.
import custom_components

if find_spec("homeassistant") is None:
    # The engine alone (`script/test --python`): the package around it, which needs Home
    # Assistant, is not run.
    package = ModuleType("custom_components.tcp_multiplexer")
    package.__path__ = [
        f"{folder}/tcp_multiplexer" for folder in custom_components.__path__
    ]
    sys.modules[package.__name__] = package

# How long an example takes says more about the machine than about the code.
# (Where CI is set, Hypothesis draws the same examples in every run.)
settings.register_profile("tcp_multiplexer", parent=settings(), deadline=None)
settings.load_profile("tcp_multiplexer")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `script/test` and `script/browser` say what is started as a process."""
    parser.addoption(
        "--homeassistant",
        default="newest",
        help="what script/homeassistant calls the one to start (default: newest)",
    )
    parser.addoption("--chromium", help="the browser for the tests in tests/browser")
    parser.addoption(
        "--pictures", action="store_true", help="renew the pictures in docs/images"
    )


def pytest_ignore_collect(
    collection_path: Path, config: pytest.Config
) -> Literal[True] | None:
    """Leave out what needs a browser unless there is one: `script/browser` has it."""
    needs_browser = collection_path == Path(__file__).parent / "browser"
    return True if needs_browser and config.getoption("--chromium") is None else None


@pytest.fixture(autouse=True)
def loopback_sockets(socket_enabled: None) -> None:
    """Allow sockets, and connections that stay on this machine.

    The test plugin of Home Assistant forbids sockets, and any other fixture, marker
    or setting that allows them loses against it.
    """
    pytest_socket.socket_allow_hosts(["127.0.0.0/8", "::1"], allow_unix_socket=True)
