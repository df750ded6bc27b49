"""What all that read HTTP messages share: the grammar's letters, and the error."""

from __future__ import annotations

import re

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""A field name, for one (RFC 9110 §5.6.2)."""
TEXT = rb"[\t -~\x80-\xff]*"
"""A field value, with the white space around it (RFC 9110 §5.5)."""
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
"""A control character that no head may contain."""


class MessageError(Exception):
    """What arrived cannot be passed on; a client is told `status` and `reason`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
