"""Runs the command line: `python -m tcp_multiplexer`."""

from __future__ import annotations

import sys

from .command_line.main import main

sys.exit(main())
