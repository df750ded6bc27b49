"""`python -m tcp_multiplexer` is the console script by another name."""

import sys

from .cli import main

sys.exit(main())
