"""Which tapes reach code of the engine that those before them do not."""

from collections.abc import Callable, Iterable
from pathlib import Path
import sys
from types import CodeType
from typing import Final

from custom_components.tcp_multiplexer import multiplexer

ENGINE: Final = str(Path(multiplexer.__file__).parent)
_EVENTS: Final = sys.monitoring.events
_TOOL: Final = 4
"""An identifier that no debugger, profiler or coverage has."""
_WATCHED: Final = (_EVENTS.LINE, _EVENTS.BRANCH_LEFT, _EVENTS.BRANCH_RIGHT)


class Reach:
    """Notes lines and branches of the engine the first time that they are reached."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self._new = 0

    def _note(self, code: CodeType, *_: int) -> object:
        self._new += code.co_filename.startswith(ENGINE)
        return sys.monitoring.DISABLE  # At this place, once is enough.

    def useful(
        self, play: Callable[[bytes], None], tapes: Iterable[bytes]
    ) -> list[bytes]:
        """Return those tapes that reach something new, one after the other."""
        monitoring, tool = sys.monitoring, _TOOL
        monitoring.use_tool_id(tool, "reach")
        try:
            for event in _WATCHED:
                monitoring.register_callback(tool, event, self._note)
            monitoring.set_events(tool, sum(_WATCHED))
            return [tape for tape in tapes if self._reaches_more(play, tape)]
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)
            monitoring.restart_events()

    def _reaches_more(self, play: Callable[[bytes], None], tape: bytes) -> bool:
        before = self._new
        play(tape)
        return self._new > before
