"""Web pages that send requests to a port which does not speak HTTP.

Any page may have its visitor's browser POST a body of the page's choice to any address
in the visitor's network. Where a protocol skips noise, or takes any bytes for a
message, that body would reach the device. How the request begins, no page can choose.
"""

from __future__ import annotations

import re

_REQUEST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9](?:\.[0-9])?\r?\n")
_METHODS = b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PRI"
_BEGINNINGS = tuple(method + b" " for method in _METHODS.split())
_LONGEST = 64 << 10
"""Bytes of a request line after which its end is not awaited."""


def begins_http(data: bytes) -> bool | None:
    """Return whether the first bytes of a connection begin an HTTP request.

    None while they are too few to decide.
    """
    if b"\n" in data:
        return _REQUEST_LINE.match(data) is not None
    if not any(data.startswith(begin[: len(data)]) for begin in _BEGINNINGS):
        return False
    return True if len(data) >= _LONGEST else None
