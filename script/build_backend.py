"""setuptools, and what it needs to compile the engine where that is asked for."""

import os

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks of PEP 517

COMPILE = "TCP_MULTIPLEXER_COMPILE"


def get_requires_for_build_wheel(
    config_settings: build_meta._ConfigSettings = None,
) -> list[str]:
    """Return what to install before a wheel is built."""
    # setup.py would compile, for which what is asked for here must be there.
    compiled = os.environ.pop(COMPILE, None)
    requires: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    if compiled is not None:
        os.environ[COMPILE] = compiled
        if compiled not in {"", "0"}:
            requires.append("mypy[mypyc]==2.4.1")
    return requires
