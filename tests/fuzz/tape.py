"""What a fuzzed input is read with."""

from collections.abc import Sequence


class Tape:
    """Bytes from which decisions are taken, one after the other."""

    def __init__(self, data: bytes) -> None:
        """Begin at the first byte."""
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def number(self) -> int:
        """Return the next byte; 0 behind the end."""
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def choice[T](self, what: Sequence[T]) -> T:
        """Return one of several."""
        return what[self.number() % len(what)]

    def data(self) -> bytes:
        """Return so many of the next bytes as the one before them says."""
        length = self.number()
        at = self._at
        self._at = at + length
        return self._data[at : at + length]
