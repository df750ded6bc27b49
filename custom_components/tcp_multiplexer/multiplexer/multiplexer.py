"""The multiplexer: owns the parts of the engine, and is the interface to them.

    client ─▶ Client ─▶ RequestQueue ─▶ Dispatcher ─▶ SocketUpstream ─▶ device
       ▲                                    │  ▲
       └──────────── the response ──────────┘  └─ UpstreamPool: the connections

Everything runs in one event loop, in plain calls. The only tasks are one connection
attempt at a time and what the owner awaits.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
import random
import time
from typing import TYPE_CHECKING, Any, override

from .assembly import make_dispatcher, make_pool
from .dispatch.exchange import Exchange, Requester
from .dispatch.queue import RequestQueue
from .dispatch.timer import Timer
from .downstream.listener import Listener
from .limits import LIMITS, Limits
from .memory import Memory
from .observe.detail import DetailedStatistics
from .observe.events import Event, Events, EventType
from .observe.pcap import to_pcap
from .observe.snapshot import Snapshot, TraceRecord
from .observe.statistics import Statistics, percentile
from .settings import ROWS, make_protocol
from .upstream.dial_in import DialInRoute
from .upstream.route import GivenRoute, NetworkRoute
from .upstream.serial_upstream import SerialRoute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .dispatch.exchange import Upstream, UpstreamOwner
    from .networks import Network
    from .observe.events import EventListener
    from .observe.snapshot import Detail, GroupSnapshot, Health
    from .protocols.base import Failure
    from .protocols.outline import Outline
    from .settings import Settings
    from .upstream.route import Route


class RequestError(Exception):
    """A request of the host program got no response; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value.replace("_", " "))
        self.failure = failure


class Multiplexer:
    """Shares one connection to a device, or a small pool of them, among clients."""

    _stopped = False

    def __init__(
        self,
        settings: Settings,
        *,
        paused: bool = False,
        name: str | None = None,
        make_upstream: Callable[[UpstreamOwner], Upstream] | None = None,
        rng: random.Random | None = None,
        limits: Limits = LIMITS,
        detailed: bool = False,
    ) -> None:
        """Construct the parts; must be called in the event loop that will run them.

        `paused` starts it without connecting. `name` stands for the upstream in logs,
        else the device's address. `make_upstream` makes connections in a way that is no
        setting. `rng` is the source of the reconnect jitter: seed it to repeat a run.
        `detailed` counts response times and clients in detail, for `detail`.

        Raises:
            SettingsError: the probe is not a valid message of the protocol.

        """
        self._settings = settings
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._events = Events()
        statistics = DetailedStatistics if detailed else Statistics
        self._statistics = statistics(settings.trace_size, self._loop.time())
        self._queue = RequestQueue(
            settings.queue_size, writes_first=settings.writes_first
        )
        self._protocol = make_protocol(settings)
        name = name or settings.target
        timer = Timer()
        self._dispatcher = make_dispatcher(
            settings,
            self._protocol,
            self._queue,
            self._statistics,
            self._events,
            timer,
            name,
        )
        self._connections = self._dispatcher.connections
        self._memory = Memory(settings.timeout, limits.buffer)
        self._route = GivenRoute(make_upstream) if make_upstream else self._make_route()
        self._pool = self._dispatcher.supply = make_pool(
            settings,
            self._protocol,
            self._queue,
            self._dispatcher,
            self._route,
            self._statistics,
            self._events,
            timer,
            rng=rng,
            paused=paused,
            name=name,
            trial_seconds=limits.trial,
        )
        self._listener = Listener(
            settings,
            self._protocol,
            self._queue,
            self._dispatcher,
            self._statistics,
            self._events,
            self._memory,
            limits,
        )
        self._hosts: set[_Host] = set()

    def _make_route(self) -> Route:
        settings = self._settings
        if settings.serial is not None:
            return SerialRoute(settings.serial, self._protocol, self._limits)
        if settings.dial_in is not None:
            return DialInRoute(
                settings.dial_in,
                lambda: self._settings,
                self._protocol,
                self._learned,
                self._memory,
            )
        return NetworkRoute(
            lambda: self._settings, self._protocol, self._limits, self._memory
        )

    def _learned(self, address: str) -> None:
        """Take over the address of a device that dials in."""
        if (dial_in := self._settings.dial_in) is not None:
            dial_in = replace(dial_in, device=address)
            self._settings = replace(self._settings, dial_in=dial_in)
        self._events.emit(Event(EventType.DEVICE_LEARNED, detail=address))

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def paused(self) -> bool:
        """Whether it is paused: it leaves the device alone."""
        return self._pool.paused

    @property
    def health(self) -> Health:
        """The health of the upstream."""
        return self._pool.status

    async def start(self) -> None:
        """Start listening and connecting; the device need not be reachable.

        Raises:
            OSError: the local port cannot be opened.
            TlsError: a certificate or key cannot be used.

        """
        await self._route.start()
        await self._listener.start()
        self._pool.connect()

    async def stop(self) -> None:
        """Close every socket, and end every timer and task; may be called again."""
        if self._stopped:
            return
        self._stopped = True
        await self._listener.stop_accepting()
        await self._pool.stop()
        await self._listener.stop()
        await self._route.stop()
        self._events.close()
        await asyncio.sleep(0)  # the closed sockets leave the loop

    async def reconnect(self, *, drain: bool = True) -> None:
        """Close the upstream connections and connect again; pending requests survive.

        With `drain`, exchanges in flight may finish first, up to their deadlines.
        Returns when the old connections are closed. Does nothing while paused.
        """
        if not self.paused:
            await self._pool.reconnect(drain=drain)

    async def pause(self) -> None:
        """Leave the device alone until `resume`; requests are refused meanwhile.

        Exchanges in flight may finish. Returns when the connections are closed.
        """
        await self._pool.pause()

    def resume(self) -> None:
        """Use the device again."""
        self._pool.resume()

    async def request(self, payload: bytes) -> bytes:
        """Send the device a request, as one more client would; return the response.

        For Modbus, `payload` and the response are a unit identifier and a PDU, and an
        exception is a response; for other protocols they are whole messages.

        Raises:
            ValueError: `payload` is not exactly one valid request.
            RequestError: no response; its `failure` says why.

        """
        request = self._protocol.request(payload)
        now = self._loop.time()
        host = _Host(self._loop.create_future())
        self._queue.join(host)
        self._hosts.add(host)
        self._statistics.gone.requests += 1
        deadline = now + self._settings.timeout
        self._dispatcher.submit(Exchange(request, host, now, deadline))
        self._dispatcher.dispatch(now)
        try:
            return await host.result
        finally:
            host.gone = True
            self._hosts.discard(host)
            self._dispatcher.unanswered.leave(host, self._loop.time())

    def disconnect_client(self, address: str | None = None) -> int:
        """Close the client connections from `address`, or all; return how many.

        `address` is with or without a port.
        """
        clients = [
            client
            for client in self._listener.clients
            if address is None or address in (client.address, client.name)
        ]
        for client in clients:
            client.abort()
        return len(clients)

    def reset_statistics(self) -> None:
        """Set all counters to zero; the trace is kept."""
        self._statistics.reset(self._loop.time())
        for client in self._listener.clients:
            self._statistics.gone.add(client, -1)
        self._listener.groups.reset(self._listener.clients)
        self._queue.peak = self._queue.depth
        self._statistics.clients_peak = len(self._listener.clients)

    async def apply(self, settings: Settings) -> bool:
        """Apply changed settings without dropping clients, if that is possible.

        Returns False, and changes nothing, if a restart is needed. Further ports are
        opened and closed last; what raises has left the other settings applied.

        Raises:
            OSError: a further port cannot be opened.
            TlsError: a certificate or key cannot be used.

        """
        changed = {
            field
            for field in settings.__dataclass_fields__
            if getattr(settings, field) != getattr(self._settings, field)
        }
        ports = _PORTS in changed
        changed.discard(_PORTS)
        if not all(field in ROWS and ROWS[field].live for field in changed):
            return False
        self._settings = self._protocol.options = settings
        self._dispatcher.recorder.keep(settings.trace_size)
        self._listener.apply(settings)
        self._queue.size = settings.queue_size
        self._queue.writes_first = settings.writes_first
        self._pool.apply(settings)
        self._queue.admit()
        if ports:
            await self._listener.change_ports()
        return True

    def group_clients(self, groups: Mapping[str, Iterable[Network]]) -> None:
        """Count clients in groups from now on, as well as each for itself.

        A client belongs to the group with the narrowest network that contains its
        address. A group that there was before keeps what it has counted.
        """
        self._listener.groups.change(groups, self._listener.clients)

    def groups(self) -> dict[str, GroupSnapshot]:
        """Return what each group has counted so far."""
        return self._listener.groups.snapshot(self._listener.clients, self._clock)

    def subscribe(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` for each event; return a function that unsubscribes it."""
        return self._events.subscribe(listener)

    def snapshot(self) -> Snapshot:
        """Return the state at this moment."""
        statistics, pool, queue = self._statistics, self._pool, self._queue
        clock = self._clock
        health = pool.status
        opened = [upstream.opened_at for upstream in self._connections.open]
        waits, took = statistics.times.recent(self._loop.time())
        last = self._dispatcher.last_response
        traffic = statistics.gone.including(self._listener.clients)
        return Snapshot(
            health=health,
            health_reason=pool.reason,
            connections=len(opened),
            connected_since=min(opened) + clock if opened else None,
            last_response=None if last is None else last + clock,
            listen_addresses=self._listener.addresses,
            clients=tuple(client.snapshot(clock) for client in self._listener.clients),
            clients_peak=statistics.clients_peak,
            queue_depth=queue.depth,
            queue_peak=queue.peak,
            in_flight=sum(
                len(upstream.in_flight) for upstream in self._connections.open
            ),
            requests=traffic.requests,
            responses=statistics.times.count,
            exceptions=statistics.exceptions,
            failures={key.value: n for key, n in statistics.failures.items()},
            timeouts=statistics.timeouts,
            reads_shared=statistics.reads_shared,
            reads_cached=statistics.reads_cached,
            writes_refused=statistics.writes_refused,
            writes_acknowledged=statistics.writes_acknowledged,
            writes_repeated=statistics.writes_repeated,
            late_responses=statistics.late_responses,
            unsolicited_responses=statistics.unsolicited_responses,
            would_match_leniently=statistics.would_match_leniently,
            invalid_requests=statistics.invalid_requests,
            clients_refused=statistics.clients_refused,
            connection_attempts=statistics.connection_attempts,
            reconnects=statistics.reconnects,
            bytes_from_clients=traffic.bytes_in,
            bytes_to_clients=traffic.bytes_out,
            bytes_from_upstream=statistics.bytes_from_upstream,
            bytes_to_upstream=statistics.bytes_to_upstream,
            response_seconds_median=percentile(took, 0.5),
            response_seconds_p95=percentile(took, 0.95),
            wait_seconds_median=percentile(waits, 0.5),
            wait_seconds_p95=percentile(waits, 0.95),
            units=statistics.units.snapshot(),
            silent_units=self._dispatcher.silent_units,
            since=statistics.since + clock,
        )

    def detail(self) -> Detail | None:
        """Return what was counted in detail; None unless it is `detailed`."""
        return self._statistics.detail(self._listener.clients)

    def trace(self) -> tuple[TraceRecord, ...]:
        """Return the last exchanges, the oldest first."""
        clock = self._clock
        return tuple(
            TraceRecord(
                ended + clock,
                client,
                request,
                response,
                outcome.value,
                (ended if sent is None else sent) - arrived,
                None if sent is None else ended - sent,
            )
            for client, request, response, outcome, moments in self._statistics.trace
            for arrived, sent, ended in (moments,)
        )

    def describe(self, record: TraceRecord) -> str:
        """Return request and response as one line of text, for people."""
        return self._protocol.describe(record.request, record.response)

    def explain(self, record: TraceRecord) -> dict[str, object]:
        """Return request and response decoded by the protocol, by names."""
        decoded = self._protocol.explain(record.request, record.response)
        return {"description": self.describe(record), **decoded}

    def outline(self, record: TraceRecord) -> Outline:
        """Return what was requested and how it ended, without any values."""
        return self._protocol.outline(record.request, record.response)

    def pcap(self, records: Iterable[TraceRecord]) -> bytes:
        """Return exchanges as a packet capture, for Wireshark."""
        port = self._protocol.usual_port or self._settings.port
        device = (self._settings.host, port)
        return to_pcap(records, device, self._protocol.on_wire)

    @property
    def _clock(self) -> float:
        """Seconds to add to loop time for the time of day."""
        return time.time() - self._loop.time()


_PORTS = "more_listeners"


class _Host(Requester):
    """The host program, for one request; `result` gets its response."""

    __slots__ = ("result",)

    def __init__(self, result: asyncio.Future[bytes]) -> None:
        super().__init__("host")
        self.result = result

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        if not self.result.done():
            self.result.set_result(bytes(response))

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        if not self.result.done():
            self.result.set_exception(RequestError(failure))
