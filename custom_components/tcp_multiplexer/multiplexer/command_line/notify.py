"""Messages to systemd: when the program is ready, and that it still runs.

See sd_notify(3) and sd_watchdog_enabled(3): lines of text, as one datagram each, to the
socket that NOTIFY_SOCKET names. Without that variable, nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time


class Notifier:
    """Sends the service manager what it waits for."""

    def __init__(self) -> None:
        """Take over what the environment says."""
        path = os.environ.get("NOTIFY_SOCKET", "")
        # An abstract name begins with a zero byte, which an environment cannot hold.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._timer: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """Say that everything is started; tell from now on that the loop still runs."""
        self._send("READY=1")
        if self._timer is None and (interval := _watchdog_seconds()):
            self._tell_alive(asyncio.get_running_loop(), interval / 2)

    def reloading(self) -> None:
        """Say that the configuration is read again, until `ready`."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that it is about to end."""
        self._send("STOPPING=1")
        if self._timer is not None:
            self._timer.cancel()

    def _tell_alive(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self._send("WATCHDOG=1")
        self._timer = loop.call_later(interval, self._tell_alive, loop, interval)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with contextlib.suppress(OSError):  # nobody is there to hear it
                sender.sendto(message.encode(), self._address)


def _watchdog_seconds() -> float:
    """Return after which silence systemd takes the program for stuck; 0: never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    value = os.environ.get("WATCHDOG_USEC", "")
    return int(value) / 1e6 if value.isascii() and value.isdigit() else 0.0
