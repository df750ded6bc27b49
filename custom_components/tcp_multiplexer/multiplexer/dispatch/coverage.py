"""Which reads cover which: learned from those that come.

Clients ask the same again and again. So what covers a read is worked out when it first
comes, and looked up from then on: that costs the same however many are waiting.
"""

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocols.base import Request, ShareKey
    from ..protocols.extent import Extent

_MOST = 512
"""Reads that are known; for one more, all are forgotten."""
_MOST_WIDER = 16
"""Of those that cover one read, the first so many are kept."""

type Wider = tuple[tuple[ShareKey, Extent], ...]
"""Reads that cover another, each with what it covers."""


class Coverage:
    """The reads that have come, each with those that cover it."""

    def __init__(self) -> None:
        self.wider: dict[ShareKey, Wider] = {}
        """Of each known read, those known that cover it and more."""
        self._asked: dict[ShareKey, tuple[float, Request]] = {}
        """When clients last asked each (loop time), while there is a cache."""
        self._areas: dict[bytes, list[tuple[ShareKey, Extent]]] = {}

    def learn(self, request: Request) -> Wider:
        """Note a read that is not known, and is asked whole; return what covers it."""
        key, extent = request.share_key, request.extent
        if key is None or extent is None:
            return ()
        if len(self.wider) >= _MOST:
            self.clear()
        area = self._areas.setdefault(extent.area, [])
        covering = (known for known in area if known[1].covers(extent))
        wider = tuple(islice(covering, _MOST_WIDER))
        this = (key, extent)
        for narrower, its_extent in area:
            if extent.covers(its_extent) and len(self.wider[narrower]) < _MOST_WIDER:
                self.wider[narrower] += (this,)
        area.append(this)
        self.wider[key] = wider
        return wider

    def asked(self, request: Request, now: float) -> None:
        """Note that a client asks a read, if it is known."""
        if request.share_key in self.wider:
            self._asked[request.share_key] = (now, request)

    def asked_since(self, key: ShareKey, moment: float) -> Request | None:
        """Return a read if a client has asked it after a moment (loop time)."""
        asked, request = self._asked.get(key, (moment, None))
        return request if asked > moment else None

    def clear(self) -> None:
        """Forget all reads."""
        self.wider.clear()
        self._asked.clear()
        self._areas.clear()
