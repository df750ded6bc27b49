"""Which reads cover which: learned from those that come.

Clients ask the same again and again. So what covers a read is worked out when it first
comes, and looked up from then on: that costs the same however many are waiting. Some
always ask something else. So the first time has to be cheap, too: reads that are as
long cannot cover each other, so they are only put down until one of another length
comes; and then they are found by where they are.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocols.base import Request, ShareKey
    from ..protocols.extent import Extent

_MOST = 512
"""Reads that are known; for one more, all are forgotten."""
_MOST_WIDER = 16
"""Of those that cover one read, the first so many are kept."""

_STRETCH = 256
"""Addresses in a stretch: reads are found by the stretches that they touch."""

type Shape = tuple[bytes, bytes]
"""The area of a read, and how long it is."""
type Wider = tuple[tuple[ShareKey, Extent], ...]
"""Reads that cover another, each with what it covers."""


class Coverage:
    """The reads that have come, each with those that cover it."""

    def __init__(self) -> None:
        self.wider: dict[ShareKey, Wider] = {}
        """Of each known read, those known that cover it and more."""
        self._asked: dict[ShareKey, tuple[float, Request]] = {}
        """When clients last asked each (loop time), while there is a cache."""
        self._near: dict[tuple[bytes, int], dict[int, list[tuple[ShareKey, Extent]]]]
        self._near = {}
        """By area and stretch: the reads that touch it, by how long they are."""
        self._alike: dict[Shape, list[Request]] = {}
        """By area and length: reads that are not in there yet, since all reads of their
        area are as long."""
        self._length: dict[bytes, bytes | None] = {}
        """By area: how long all of its reads are; None if that differs."""

    def learn(self, request: Request) -> Wider:
        """Note a read that is not known, and is asked whole; return what covers it."""
        key, shape, wider = request.share_key, request.shape, self.wider
        if len(wider) >= _MOST:
            self.clear()
        alike = self._alike.get(shape)  # type: ignore[arg-type]
        if alike is None or key is None:
            return self._learn_length(request)
        alike.append(request)
        wider[key] = ()
        return ()

    def _learn_length(self, request: Request) -> Wider:
        """Note a read that is the first of its area, or not as long as all others."""
        key, shape = request.share_key, request.shape
        if key is None or shape is None:
            return ()
        area, size = shape
        if area not in self._length:
            self._length[area] = size
            self._alike[shape] = [request]
            self.wider[key] = ()
            return ()
        length = self._length[area]
        if length is not None:
            self._length[area] = None
            for other in self._alike.pop((area, length)):
                self._place(other)
        return self._place(request)

    def _place(self, request: Request) -> Wider:
        """Put a read where it is found; return what covers it."""
        key, extent = request.share_key, request.extent
        if key is None or extent is None:
            return ()
        this, size = (key, extent), extent.end - extent.first
        stretches = range(extent.first // _STRETCH, (extent.end - 1) // _STRETCH + 1)
        near = [self._near.setdefault((extent.area, n), {}) for n in stretches]
        # (What covers it has its first address, too.)
        covering = (
            known
            for length, reads in (near[0].items() if near else ())
            if length > size
            for known in reads
            if known[1].covers(extent)
        )
        wider = self.wider
        wider[key] = tuple(islice(covering, _MOST_WIDER))
        for stretch in near:
            # Most have enough that cover them: that is looked at first, and here, since
            # there may be hundreds of lengths.
            for length, reads in stretch.items():
                if length < size:
                    for other, known in reads:
                        if (
                            len(wider[other]) < _MOST_WIDER
                            and extent.covers(known)
                            and this not in wider[other]  # found in the stretch before
                        ):
                            wider[other] += (this,)
            stretch.setdefault(size, []).append(this)
        return wider[key]

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
        self._near.clear()
        self._alike.clear()
        self._length.clear()
