"""Clients that stay with their connection, because they may have logged in there.

A login, as functions outside the specification may be one, lives in the connection that
carried it. So whoever used such a function is sent over no other connection, and is
dismissed when that one is lost: it logs in again only if it notices the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .exchange import Requester, Upstream


def pin(requester: Requester, upstream: Upstream) -> None:
    """Let a requester stay with a connection."""
    requester.pinned = requester.upstream = upstream


def unpin(upstream: Upstream, requesters: Iterable[Requester]) -> list[Requester]:
    """Release those of `requesters` that stay with a connection; return them."""
    pinned = [requester for requester in requesters if requester.pinned is upstream]
    for requester in pinned:
        requester.pinned = None
        if not requester.in_flight:
            requester.upstream = None
    return pinned


def release(upstream: Upstream, requesters: Iterable[Requester]) -> None:
    """Let none of `requesters` wait for a lost connection with the parts of a read."""
    for requester in requesters:
        if requester.upstream is upstream:
            requester.upstream = None
