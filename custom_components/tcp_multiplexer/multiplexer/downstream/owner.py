"""The interface between clients and their listener, which they do not import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..protocols.compiled import mypyc_attr

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import Callable

    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.queue import RequestQueue
    from ..limits import Limits
    from ..memory import Memory
    from ..protocols.base import Protocol
    from ..settings import Settings


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientOwner(ABC):
    """What a client needs of its listener.

    Every `client` is a `ClientConnection`, which this module may not import.
    """

    settings: Settings
    limits: Limits
    protocol: Protocol[Any]
    queue: RequestQueue
    dispatcher: Dispatcher
    memory: Memory
    clock: Callable[[], float]
    """Tells the loop time, in seconds."""
    read_buffer: memoryview
    """As large as what is read of a client at a time; used by all of them."""

    @abstractmethod
    def admit(self, client: Any, sock: TransportSocket | None) -> bool:
        """Count a client in that came by `sock`, or tell that it may not come."""

    @abstractmethod
    def forget(self, client: Any) -> None:
        """Count a client out: its connection is gone."""

    @abstractmethod
    def complain(self, client: Any, reason: str) -> None:
        """Note bytes of a client's that are no request."""
