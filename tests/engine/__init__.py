"""Tests of the engine: codecs, queue, pool, real sockets. No Home Assistant."""
