"""The engine as a whole: clients and a device that may say and do anything.

Clock and network are those of the simulation, so that a tape is played the same each
time and no time is spent waiting. Whatever has happened: nothing was raised, nobody
is left waiting beyond the deadline, and nothing is left when the multiplexer stops.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
import logging
from typing import Any, Final, override

from custom_components.tcp_multiplexer.multiplexer import Framing, ListenerSettings
from tests.engine.test_conformance import SPEAKERS, Speaker, modbus_frame
from tests.fixtures.sixth_protocol import StxProtocol
from tests.simulation.device import HOST, PORT
from tests.simulation.network import Conditions, Link, Refusal
from tests.simulation.questions import Violation
from tests.simulation.world import World
from tests.wire import cut_frames

from .tape import Tape

SPEAKING: Final = tuple(
    speaker for speaker in SPEAKERS.values() if speaker.protocol is not StxProtocol
)
EXACT: Final = Conditions(latency=(0.0, 0.0), jitter=0.0, split=0.0, merge=0.0)
TIMEOUT: Final = 1.0
STEPS: Final = 48
"""What happens in one tape at most; more would only be slower."""
MOST_CLIENTS: Final = 6
TURN_LIMIT: Final = 60_000
"""Steps of the loop that one tape may take; more would be a loop without an end."""
MODBUS_EXTRAS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"max_in_flight": 4, "max_connections": 2},
    {"cache_ttl": 1.0, "repeated_write_ttl": 1.0},
    {"max_read_registers": 20, "queue_size": 1},
    {"discard_first_read": True, "health_check_interval": 0.5},
    {"on_failure": "close", "share_reads": False},
    {
        "more_listeners": (
            ListenerSettings(host="127.0.0.1", port=5021, framing=Framing.RTU),
        )
    },
    {"connect_on_demand": True, "idle_timeout": 0.5, "request_delay": 0.02},
)
EXTRAS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"queue_size": 1},
    {"connect_on_demand": True, "idle_timeout": 0.5},
    {"max_clients": 2, "request_delay": 0.02},
)
ALONE: Final = frozenset((Framing.RTU, Framing.SOLARMAN))
"""Framings with which one request is in flight."""
PAUSES: Final = (0.0, 0.001, 0.02, 0.06, 0.3, 0.6, 1.1, 5.0)


class Peer(asyncio.Protocol):
    """A client of the multiplexer, or one connection that the device accepted."""

    def __init__(self, request: Callable[[int], bytes] | None = None) -> None:
        """Begin with nothing received; a client is told how it asks."""
        self._request = request
        self.heard: list[bytes] = []
        self.asked = 0
        """Whole requests that it has sent, as long as it sent nothing else."""
        self._clean = True
        self._ended = False
        self._link: Link
        self._side: asyncio.Transport

    def prepare(self, link: Link) -> None:
        """Be told of the connection."""
        self._link = link

    def refused(self) -> None:
        """Be told that there is none."""
        self._ended = True

    def say(self, data: bytes) -> None:
        """Send bytes, as long as there is somebody to send them to."""
        if not self._ended:
            self._side.write(data)

    def ask(self, number: int) -> None:
        """Send a whole request."""
        assert self._request is not None
        self.asked += 1
        self.say(self._request(number))

    def babble(self, data: bytes) -> None:
        """Send anything."""
        self._clean = False
        self.say(data)

    @property
    def waits(self) -> bool:
        """Whether it is connected, and has got less than it must have."""
        if self._ended or not self._clean:
            return False
        if self._request is modbus_frame:
            return len(cut_frames(bytearray(b"".join(self.heard)))) != self.asked
        return bool(self.asked) and not self.heard

    def end(self, tape: Tape) -> None:
        """End it in one of the ways there are."""
        if not self._ended:
            side, link = self._side, self._link
            self._ended = True
            tape.choice((side.close, side.write_eof, link.reset, link.vanish))()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._side = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True


class Play(World):
    """A multiplexer between a device and clients that a tape leads."""

    def __init__(self, tape: Tape) -> None:
        """Let the tape choose what they speak, and the settings."""
        self._tape = tape
        self._speaker: Speaker = tape.choice(SPEAKING)
        is_modbus = self._speaker.protocol.has_units
        self._ask = modbus_frame if is_modbus else self._speaker.ask
        extras = tape.choice(MODBUS_EXTRAS if is_modbus else EXTRAS)
        settings = {
            "protocol": self._speaker.protocol.name,
            "timeout": TIMEOUT,
            **extras,
            **self._speaker.settings,
        }
        if settings.get("framing") in ALONE or "matching" in settings:
            settings.pop("max_in_flight", None)
            settings.pop("max_connections", None)
        super().__init__("fuzz", conditions=EXACT, **settings)
        self.loop.step = self._look
        self.network.on_dial = self.network.on_refused = None
        self.network.hosts[HOST, PORT] = self._accept
        self._clients: list[Peer] = []
        self._lines: list[Peer] = []
        self._manner: Refusal | None = None
        self._orders: list[asyncio.Task[None]] = []

    def _accept(self, link: Link) -> asyncio.Protocol | Refusal:
        if self._manner is not None:
            return self._manner
        line = Peer()
        line.prepare(link)
        self._lines.append(line)
        return line

    def play(self) -> None:
        """Do all that the tape says, and see how it ends."""
        steps = (
            self._client_comes,
            self._client_sends,
            self._client_asks,
            self._device_sends,
            self._device_answers,
            self._device_answers_wrongly,
            self._client_goes,
            self._device_ends,
            self._device_refuses,
            self._let_pass,
            self._order,
        )
        self.start(paused=False)
        self._client_comes()
        for _ in range(STEPS):
            if not self._tape.more:
                break
            self._tape.choice(steps)()
        self._see_all_ended()
        self.stop()

    def _look(self) -> None:
        """See that it does not go on for ever, at a moment that does not pass."""
        if self.loop.steps > TURN_LIMIT:
            message = f"{self.loop.steps} steps of the loop for one tape"
            raise Violation(message)

    def _see_all_ended(self) -> None:
        """See that nothing waits beyond its deadline."""
        self.run_for(TIMEOUT)  # A pause may wait so long for what is in flight.
        self.run(self._resume())
        self.run_for(2 * TIMEOUT)
        if not all(order.done() for order in self._orders):
            message = "an order of the owner's does not end"
            raise Violation(message)
        for client in self._clients:
            if client.waits:
                message = f"left waiting: {client.asked} asked, {client.heard} heard"
                raise Violation(message)

    # What clients do

    def _client_comes(self) -> None:
        if len(self._clients) == MOST_CLIENTS:
            return
        addresses = self.mux.snapshot().listen_addresses
        address = self._tape.choice(addresses)
        client = Peer(
            SPEAKERS["modbus rtu"].ask if address != addresses[0] else self._ask
        )
        self.network.dial(
            client,
            *address,
            source=f"192.168.1.{len(self._clients) % 2 + 1}",
            prepare=client.prepare,
            refused=client.refused,
        )
        self._clients.append(client)
        self.run_for(0.0005)

    def _client(self) -> Peer:
        return self._tape.choice(self._clients)

    def _client_sends(self) -> None:
        self._client().babble(self._tape.data())
        self.run_for(0.0)

    def _client_asks(self) -> None:
        number = self._tape.number()
        self._client().ask(number)
        self.run_for(0.0001)

    def _client_goes(self) -> None:
        self._client().end(self._tape)
        self.run_for(0.0)

    # What the device does

    def _line(self) -> Peer | None:
        return self._tape.choice(self._lines[-3:]) if self._lines else None

    def _device_says(self, data: bytes) -> None:
        line = self._line()
        if line is not None and data:
            line.say(data)
        self.run_for(0.0)

    def _device_sends(self) -> None:
        self._device_says(self._tape.data())

    def _response(self) -> bytes:
        """Return the response to what a connection has heard last, or before."""
        line = self._line()
        if line is None or not line.heard:
            return b""
        with suppress(AssertionError, IndexError, OverflowError):
            return self._speaker.answer(self._tape.choice(line.heard[-3:]))
        return b""  # Not one of the requests that the speaker knows

    def _device_answers(self) -> None:
        said = self._response()
        cut = self._tape.number() % (len(said) + 1)
        self._device_says(said[:cut])
        self._device_says(said[cut:])

    def _device_answers_wrongly(self) -> None:
        said = bytearray(self._response())
        for at in self._tape.data():
            if said:
                said[at % len(said)] ^= 1 << at % 8
        self._device_says(bytes(said[: len(said) - self._tape.number() % 8]))

    def _device_ends(self) -> None:
        line = self._line()
        if line is not None:
            line.end(self._tape)
        self.run_for(0.0)

    def _device_refuses(self) -> None:
        self._manner = self._tape.choice((None, Refusal.REFUSED, Refusal.IGNORED))

    # What else happens

    def _let_pass(self) -> None:
        self.run_for(self._tape.choice(PAUSES))

    def _order(self) -> None:
        """Do what an owner may do."""
        orders = (self.mux.pause, self.mux.reconnect, self._resume)
        self._orders.append(self.loop.create_task(self._tape.choice(orders)()))
        self.run_for(0.0)

    async def _resume(self) -> None:
        self.mux.resume()


def play(data: bytes) -> None:
    """Play a tape to an engine.

    Raises:
        Exception: something that is promised did not hold.

    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a line for each of its connections
    try:
        with Play(Tape(data)) as world:
            world.play()
    finally:
        logging.disable(disabled)
