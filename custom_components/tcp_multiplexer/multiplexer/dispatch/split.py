"""A read that is asked in parts, because the device does not take it whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..protocols.base import Request
    from ..protocols.extent import Extent


class Split:
    """The parts of one read, and the responses to those that were answered."""

    __slots__ = ("_parts", "_responses", "since")

    def __init__(self, parts: list[Request]) -> None:
        """Begin with the first of `parts`."""
        self._parts = parts
        self._responses: list[Any] = []
        self.since = 0.0
        """When the first that was answered had been sent (loop time)."""

    @property
    def number(self) -> int:
        """Which part is asked now, from 1 on."""
        return len(self._responses) + 1

    @property
    def left(self) -> Request | None:
        """The part that is to be asked now; None: all are answered."""
        done = len(self._responses)
        return self._parts[done] if done < len(self._parts) else None

    def answered(self, response: Any, sent: float) -> None:
        """Keep the response to the part that was asked; when it was `sent`."""
        if not self._responses:
            self.since = sent
        self._responses.append(response)

    def joined(self, whole: Extent) -> Any:
        """Return the response to the whole read."""
        return whole.join(self._responses)
