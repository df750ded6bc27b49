"""What devices get wrong in the heads of their responses, put right.

Only where h11 refuses a head. What is done to it leaves no doubt where the response
ends: the reader of whom devices' makers think, curl, finds the same end. Where there is
doubt, it is an error.

* Space around a field's colon, and before and in the status line, is what it should be
  (RFC 9112 §5.1). Of a reason phrase, anything may be left.
* Another version than HTTP/1 in HTTP/1's form is taken for HTTP/1.0.
* A field whose name cannot be one is left out. Control characters in values become
  spaces (RFC 9110 §5.5).
* The transfer coding `identity`, which RFC 2616 had, is none, and `chunked` said more
  than once is `chunked`.
* What frames a body is left out, if it is invalid, where there is no body.
"""

from __future__ import annotations

from http import HTTPStatus
import re

from .syntax import CONTROL, TOKEN, MessageError

_STATUS_LINE = re.compile(
    rb"HTTP/(1\.[0-9]|2(?:\.0)?)[ \t]+([1-9][0-9]{2})(?![0-9])(.*)",
    re.IGNORECASE | re.DOTALL,
)
_FIELD = re.compile(rb"(%s)[ \t]*:(.*)" % TOKEN, re.DOTALL)
_FRAMING = re.compile(rb"content-length|transfer-encoding", re.IGNORECASE)
_BODILESS = frozenset((b"204", b"304"))


def tidy(raw: bytes, *, to_head: bool) -> bytes:
    """Write a response's head as it should be.

    Raises:
        MessageError: nobody can say what is meant.

    """
    if b"\0" in raw:
        raise _doubt("NUL in a head")
    start, *rest = [line.rstrip(b"\r") for line in raw.split(b"\n")[:-2]]
    status_line = _STATUS_LINE.fullmatch(start)
    if status_line is None:
        raise _doubt("invalid status line")
    version, status, reason = status_line.groups()
    as_it_is = start.startswith(b"HTTP/1.")
    bodiless = to_head or status in _BODILESS or status.startswith(b"1")
    fields = [field for line in _unfolded(rest) if (field := _field(line)) is not None]
    lines = [
        b"HTTP/%s %s %s" % (version if as_it_is else b"1.0", status, _clean(reason)),
        *(b"%s: %s" % field for field in _framed_once(fields, bodiless=bodiless)),
    ]
    return b"\r\n".join([*lines, b"", b""])


def _doubt(reason: str) -> MessageError:
    return MessageError(HTTPStatus.BAD_GATEWAY, reason)


def _clean(text: bytes) -> bytes:
    """Write spaces for control characters, and none around the text."""
    return CONTROL.sub(b" ", text).strip(b" \t")


def _unfolded(lines: list[bytes]) -> list[bytearray]:
    """Join lines that are continued (RFC 9112 §5.2).

    Raises:
        MessageError: a line is no field, nor continues one.

    """
    unfolded: list[bytearray] = []
    for line in lines:
        if line.startswith((b" ", b"\t")) and unfolded:
            unfolded[-1] += b" " + line.strip(b" \t")
        elif line.startswith((b" ", b"\t")) or b":" not in line:
            raise _doubt("a line that is no field")
        else:
            unfolded.append(bytearray(line))
    return unfolded


def _field(line: bytearray) -> tuple[bytes, bytes] | None:
    """Split a line; None if its name cannot be a field's.

    Raises:
        MessageError: the line is invalid, and may speak of the body's length.

    """
    field = _FIELD.fullmatch(line)
    doubtful = line if CONTROL.search(line) else line.partition(b":")[0]
    if (field is None or doubtful is line) and _FRAMING.search(doubtful):
        raise _doubt("an invalid line about the body's length")
    return None if field is None else (bytes(field[1]), _clean(field[2]))


def _framed_once(
    fields: list[tuple[bytes, bytes]], *, bodiless: bool
) -> list[tuple[bytes, bytes]]:
    """Say once how the body is framed, and nothing invalid of one that is not there."""
    names = [name.lower() for name, _ in fields]
    values = [value for _, value in fields]
    by_name = {
        wanted: {
            member.strip(b" \t")
            for name, value in zip(names, values, strict=True)
            if name == wanted
            for member in value.lower().split(b",")
        }
        for wanted in (b"transfer-encoding", b"content-length")
    }
    codings = by_name[b"transfer-encoding"] - {b"", b"identity"}
    lengths = by_name[b"content-length"]
    dropped = set()
    if bodiless or codings <= {b"chunked"}:
        dropped.add(b"transfer-encoding")
    if bodiless and not (len(lengths) == 1 and max(lengths).isdigit()):
        dropped.add(b"content-length")
    kept = [
        field for field, name in zip(fields, names, strict=True) if name not in dropped
    ]
    if codings == {b"chunked"} and not bodiless:
        kept.append((b"Transfer-Encoding", b"chunked"))
    return kept
