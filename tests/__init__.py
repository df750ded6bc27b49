"""Tests of tcp_multiplexer."""

import os

if "TESTED_ENGINE" in os.environ:
    from . import compiled

    compiled.use(os.environ["TESTED_ENGINE"])
