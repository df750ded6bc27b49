"""Ports for tests that have to name one beforehand."""

from contextlib import suppress
import random
import socket


def free_port() -> int:
    """Give a port that nobody listens on.

    It is none of those that the system gives to clients: one of theirs would be in the
    way now and then.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with suppress(OSError), socket.create_server(("", port)):
            return port
