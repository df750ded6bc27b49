"""setuptools, and what it needs to compile the engine where that is asked for."""

import os

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks of PEP 517


def get_requires_for_build_wheel(
    config_settings: build_meta._ConfigSettings = None,
) -> list[str]:
    """Return what to install before a wheel is built."""
    requires: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    if os.environ.get("TCP_MULTIPLEXER_COMPILE", "") not in {"", "0"}:
        requires.append("mypy[mypyc]==2.4.1")
    return requires
