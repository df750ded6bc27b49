"""The command line as a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
import os
import re
import signal
import sys
import time
from typing import Self

from tests.waiting import PATIENCE

STARTING = 60.0
"""Seconds after which a test gives up a process, on however busy a machine."""

MODULE = ("-m", "tcp_multiplexer")


class Program:
    """A running `tcp-multiplexer`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        """What it has logged."""
        self._news = asyncio.Event()
        self.ended = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, *arguments: str, how: tuple[str, ...] = MODULE, **environment: str
    ) -> Self:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, *how, *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | environment,
            )
        )

    async def _read(self) -> int:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            self._news.set()
        status = await self.process.wait()
        self._news.set()
        return status

    def logged(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, "".join(self.lines))

    async def logs(self, pattern: str) -> re.Match[str]:
        """Wait until it logs that."""
        async with asyncio.timeout(STARTING):
            while not (found := self.logged(pattern)):
                assert not self.ended.done(), self.lines
                self._news.clear()
                await self._news.wait()
        return found

    async def port(self, device: str = "") -> int:
        """Give the port that it listens on, once it does."""
        name = f"INFO {device}: " if device else ""
        return int((await self.logs(rf"{name}Listening on 127\.0\.0\.1:(\d+);"))[1])

    async def end(self) -> int:
        """Wait for its end; give the exit status."""
        async with asyncio.timeout(PATIENCE):
            return await self.ended

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop it cleanly; give how long that took, in seconds."""
        started = time.monotonic()
        self.process.send_signal(number)
        assert await self.end() == 0, self.lines
        assert not self.logged("Traceback"), self.lines
        return time.monotonic() - started


@asynccontextmanager
async def program(
    *arguments: str, how: tuple[str, ...] = MODULE
) -> AsyncGenerator[Program]:
    """Run the server on a free port; nothing is left of it in the end."""
    async with started("server", "-l", "127.0.0.1:0", *arguments, how=how) as running:
        yield running


@asynccontextmanager
async def started(
    *arguments: str, how: tuple[str, ...] = MODULE, **environment: str
) -> AsyncGenerator[Program]:
    """Run a command; nothing is left of it in the end."""
    running = await Program.start(*arguments, how=how, **environment)
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.process.kill()
        await running.ended


async def output(*arguments: str) -> tuple[int | None, str, str]:
    """Run a command to its end; give exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(STARTING):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
