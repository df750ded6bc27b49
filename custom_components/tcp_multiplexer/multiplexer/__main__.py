"""Runs the command line: `python -m tcp_multiplexer`."""

import sys

from .command_line.main import main

sys.exit(main())
