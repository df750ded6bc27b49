"""Tests of tcp_multiplexer."""
