"""Lets the engine be imported without Home Assistant, which no life needs.

The engine's package lies in the integration's, whose own module imports Home Assistant:
of a program that lives a single life, that took most of the time.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import module_from_spec
import sys

import custom_components

_INTEGRATION = "custom_components.tcp_multiplexer"

if _INTEGRATION not in sys.modules:
    _spec = PathFinder.find_spec(_INTEGRATION, custom_components.__path__)
    assert _spec is not None
    # As a mere folder: it never runs.
    sys.modules[_INTEGRATION] = module_from_spec(_spec)
