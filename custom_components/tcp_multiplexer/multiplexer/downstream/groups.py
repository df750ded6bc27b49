"""Counts clients in groups: those that the owner knows by one name.

Many programs connect anew for each request, from one address or several. What they
asked is counted for their group, whichever connections they asked it on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..observe.snapshot import GroupSnapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ..networks import Address, Network
    from .peer import Peer


class _Group:
    """Counters of the clients that have left, minus what others counted elsewhere."""

    __slots__ = ("failures", "last_request", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.last_request: float | None = None
        """When one that has left asked last (loop time)."""

    def add(self, client: Peer, sign: int = 1) -> None:
        """Add what a client has counted, or subtract it with a `sign` of -1."""
        self.requests += sign * client.requests
        self.failures += sign * client.failures


class Groups:
    """The groups of one multiplexer, by name."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._networks: list[tuple[Network, _Group]] = []
        """The narrowest first."""

    def change(
        self, networks: Mapping[str, Iterable[Network]], clients: Collection[Peer]
    ) -> None:
        """Have these groups from now on; `clients` are connected.

        What a client has asked so far stays with the group that it had then.
        """
        before = [(client, self._group_of(client.peer)) for client in clients]
        self._groups = {name: self._groups.get(name) or _Group() for name in networks}
        self._networks = sorted(
            (
                (network, self._groups[name])
                for name, several in networks.items()
                for network in several
            ),
            key=lambda each: -each[0].prefixlen,
        )
        for client, group in before:
            now = self._group_of(client.peer)
            if group is now:
                continue
            if group is not None:
                group.add(client)
            if now is not None:
                now.add(client, -1)

    def left(self, client: Peer) -> None:
        """Count what a client has asked, now that it is gone."""
        group = self._group_of(client.peer)
        if group is None:
            return
        group.add(client)
        group.last_request = _later(group.last_request, client.last_request)

    def reset(self, clients: Iterable[Peer]) -> None:
        """Set all counters to zero; `clients` are connected."""
        for group in self._groups.values():
            group.requests = group.failures = 0
        for client in clients:
            group_of = self._group_of(client.peer)
            if group_of is not None:
                group_of.add(client, -1)

    def snapshot(
        self, clients: Iterable[Peer], clock: float
    ) -> dict[str, GroupSnapshot]:
        """Return what each has counted, with the `clients` that are connected.

        `clock` turns loop time into time of day.
        """
        members: dict[_Group | None, list[Peer]] = {}
        for client in clients:
            members.setdefault(self._group_of(client.peer), []).append(client)
        return {
            name: _snapshot(group, members.get(group, []), clock)
            for name, group in self._groups.items()
        }

    def _group_of(self, address: Address) -> _Group | None:
        for network, group in self._networks:
            if address in network:
                return group
        return None


def _snapshot(group: _Group, members: list[Peer], clock: float) -> GroupSnapshot:
    last = group.last_request
    for client in members:
        last = _later(last, client.last_request)
    return GroupSnapshot(
        connected=len(members),
        requests=group.requests + sum(client.requests for client in members),
        failures=group.failures + sum(client.failures for client in members),
        last_request=None if last is None else last + clock,
    )


def _later(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
