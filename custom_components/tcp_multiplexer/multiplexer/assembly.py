"""Connects the parts that decide what goes upstream, and over which connections."""

from __future__ import annotations

from functools import partial
import random
from typing import TYPE_CHECKING, Any

from .dispatch.cache import Cache
from .dispatch.coalescing import Coalescer
from .dispatch.connections import Connections
from .dispatch.dispatcher import Dispatcher
from .dispatch.last_writes import LastWrites
from .dispatch.misfits import Misfits
from .dispatch.recorder import Recorder
from .dispatch.units import Units
from .upstream.connector import Connector
from .upstream.health_tracker import HealthTracker
from .upstream.periodic import PeriodicRequester
from .upstream.pool import UpstreamPool
from .upstream.prober import Prober
from .upstream.upkeep import Upkeep

if TYPE_CHECKING:
    from .dispatch.queue import RequestQueue
    from .dispatch.timer import Timer
    from .observe.events import Events
    from .observe.statistics import Statistics
    from .protocols.base import Protocol
    from .settings import Settings
    from .upstream.route import Route


def make_dispatcher(  # noqa: PLR0917 - the parts that it connects
    settings: Settings,
    protocol: Protocol[Any],
    queue: RequestQueue,
    statistics: Statistics,
    events: Events,
    timer: Timer,
    name: str,
) -> Dispatcher:
    """Make a dispatcher, without a supply yet; `name` is for logs."""
    recorder = Recorder(protocol, statistics, events)
    units = Units(
        queue,
        timer,
        settings.timeout,
        recorder.known,
        protocol.describe,
        events,
        name,
    )
    return Dispatcher(
        settings,
        protocol,
        queue,
        Connections(settings, queue, timer, units),
        Coalescer(
            Cache(timer, settings.cache_ttl),
            LastWrites(settings.repeated_write_ttl),
            share=settings.share_reads,
        ),
        recorder,
        Misfits(statistics, events, name),
        units,
        statistics,
        timer,
    )


def make_pool(  # noqa: PLR0917 - the parts that it connects
    settings: Settings,
    protocol: Protocol[Any],
    queue: RequestQueue,
    dispatcher: Dispatcher,
    route: Route,
    statistics: Statistics,
    events: Events,
    timer: Timer,
    *,
    rng: random.Random | None,
    paused: bool,
    name: str,
    trial_seconds: float,
) -> UpstreamPool:
    """Make the pool that supplies a dispatcher; the timer calls it from then on."""
    make = partial(route.make, dispatcher)
    connections = dispatcher.connections
    prober = Prober(queue)
    health = HealthTracker(rng or random.Random())  # noqa: S311 - no secret
    return UpstreamPool(
        settings,
        queue,
        connections,
        dispatcher,
        Connector(make, statistics, name, expects=route.expects),
        health,
        Upkeep(settings, queue, connections, dispatcher, prober, health),
        PeriodicRequester(protocol, queue, dispatcher, statistics, timer, name),
        statistics,
        events,
        timer,
        paused=paused,
        name=name,
        has_units=protocol.has_units,
        trial_seconds=trial_seconds,
    )
