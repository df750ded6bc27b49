"""HTTP/1.1 as the simulated peers speak it.

A question's body is its method and target, and behind a line's end what it posts. Its
number decides how it and its answer are framed: by a length, or in chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
import re
from typing import override

from .dialects import Ask, PlainDialect, Verdict

_NUMBER = re.compile(rb"/ask/(\d+)")
_CHUNK = 50


class HttpDialect(PlainDialect):
    """A client that gets and posts, and a device that says what it was told."""

    name = "http"
    excuses = True
    last_words = True

    @override
    def ask(self, rng: Random) -> Ask:
        self._asked += 1
        padding = b"x" * int(rng.random() ** 4 * 400)
        if rng.random() < 0.6:
            return Ask(b"GET /ask/%d?%s\n" % (self._asked, padding))
        return Ask(b"POST /ask/%d\n%s" % (self._asked, padding), retry_safe=False)

    @override
    def pack(self, tid: int, body: bytes) -> bytes:
        line, _, posted = body.partition(b"\n")
        head = line + b" HTTP/1.1\r\nHost: device\r\n"
        if not line.startswith(b"POST"):
            return head + b"\r\n"
        return head + _framed(posted, chunked=_in_chunks(line))

    @override
    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        for line, content in _messages(buffer):
            yield 0, line.rpartition(b" ")[0] + b"\n" + content

    @override
    def execute(self, body: bytes, now: float) -> bytes:
        return b"told " + body

    @override
    def pack_answer(self, tid: int, body: bytes) -> bytes:
        head = b"HTTP/1.1 200 OK\r\n"
        if body.startswith(b"told HEAD"):
            return head + b"\r\n"
        return head + _framed(body, chunked=not _in_chunks(body))

    @override
    def cut_answers(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        for line, content in _messages(buffer):
            status = line.split(b" ")[1]
            yield 0, content if status == b"200" else b"\0" + status

    @override
    def judge(self, body: bytes, answer: bytes, since: float, now: float) -> Verdict:
        if answer in {b"\x00502", b"\x00503", b"\x00504"}:
            return Verdict.GATEWAY
        return super().judge(body, answer, since, now)

    @override
    def gave_up(self, excuse: bytes) -> bool:
        return excuse != b"\x00503"

    @override
    def probes(self, unit: int) -> tuple[bytes, ...]:
        return (b"OPTIONS *\n", b"HEAD /\n")

    @override
    def unsolicited(self, rng: Random, size: int) -> bytes:
        told = b"told nobody %d" % rng.randrange(1000)
        return self.pack_answer(0, told + b"y" * size)

    @override
    def garbage(self, rng: Random) -> bytes:
        return b"\0\1" + rng.randbytes(20).replace(b"\n", b"\0") + b"\r\n\r\n"


def _in_chunks(body: bytes) -> bool:
    found = _NUMBER.search(body)
    return found is not None and int(found[1]) % 3 == 0


def _framed(content: bytes, *, chunked: bool) -> bytes:
    """Give the last fields, and the content."""
    if not chunked:
        return b"Content-Length: %d\r\n\r\n" % len(content) + content
    chunks = [content[at : at + _CHUNK] for at in range(0, len(content), _CHUNK)]
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"Transfer-Encoding: chunked\r\n\r\n" + data + b"0\r\n\r\n"


def _messages(buffer: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Take whole messages off a buffer: first line and content."""
    while (end := buffer.find(b"\r\n\r\n")) >= 0:
        head = bytes(buffer[:end])
        line, _, fields = head.partition(b"\r\n")
        end += 4
        length = re.search(rb"(?im)^content-length: *(\d+)", fields)
        if re.search(rb"(?im)^transfer-encoding: *chunked", fields):
            content, after = _unchunked(buffer, end)
            if after is None:
                return
            end = after
        else:
            size = int(length[1]) if length else 0
            content = bytes(buffer[end : end + size])
            end += size
            if len(buffer) < end:
                return
        del buffer[:end]
        yield line, content


def _unchunked(buffer: bytearray, at: int) -> tuple[bytes, int | None]:
    """Give the content of a chunked message, and where it ends, if that is there."""
    content = b""
    while (end := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:end].partition(b";")[0], 16)
        at = end + 2 + size + 2
        if len(buffer) < at:
            break
        if not size:
            return content, at
        content += buffer[end + 2 : at - 2]
    return content, None
