"""What a read covers, so that a response may answer a part of it, or be one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, override

if TYPE_CHECKING:
    from collections.abc import Sequence


class Extent(ABC):
    """The addresses that a read covers: of one area, from `first` to before `end`."""

    __slots__ = ("area", "end", "first")

    def __init__(self, area: bytes, first: int, end: int) -> None:
        self.area = area
        """What has addresses of its own (Modbus: unit and function)."""
        self.first = first
        self.end = end

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.area!r} {self.first}-{self.end - 1}>"

    def covers(self, other: Extent) -> bool:
        """Return whether all of `other` lies within."""
        return (
            self.area == other.area
            and self.first <= other.first
            and other.end <= self.end
        )

    @abstractmethod
    def is_whole(self, response: Any) -> bool:
        """Return whether a response brings as much as was asked, and no exception."""

    @abstractmethod
    def cut(self, response: Any, part: Extent) -> Any:
        """Return what a whole response says of a part that it covers."""

    @abstractmethod
    def join(self, responses: Sequence[Any]) -> Any:
        """Return the response that whole ones to adjacent parts, in order, make up."""
