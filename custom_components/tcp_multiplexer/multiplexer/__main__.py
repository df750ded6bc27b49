"""`python -m tcp_multiplexer` is the console script by another name."""

import sys

from .command_line.main import main

sys.exit(main())
