"""Solarman V5: its frames against pysolarmanv5's, a bad stick, and real clients.

What a stick does wrong in all ways at once is in `logger_stick.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import given, strategies as st
from pymodbus.client import AsyncModbusTcpClient
from pysolarmanv5 import PySolarmanV5Async
import pytest
from umodbus.exceptions import GatewayTargetDeviceFailedToRespondError

from custom_components.tcp_multiplexer.multiplexer import (
    Event,
    EventType,
    Failure,
    ListenerSettings,
    Mismatch,
    Multiplexer,
    RequestError,
    Settings,
    SettingsError,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    Failed,
    Ignored,
    Request,
    SendBack,
    Unsolicited,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.logger_stick import (
    SolarmanUpstream,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.rtu import (
    BROADCAST,
    SILENCE,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.solarman import (
    SolarmanDownstream,
    Stick,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import (
    Framing,
    OnFailure,
)
from tests.solarman import (
    GREETING,
    NO_ANSWER,
    PUSHED,
    REFUSED,
    SERIAL,
    LoggerStick,
    acknowledging,
    asking,
    heartbeat,
    logger_stick,
    right,
    telling,
    v5,
)
from tests.waiting import until
from tests.wire import exception, read, values, write

from .logger_stick import Line
from .serial_line import with_crc
from .streams import options, pieces, received

NOW = 1_760_000_000
ASKED = b"\1" + read(7, 3)
SAID = b"\1" + values(7, 3)
NO_TARGET = b"\1" + exception(3, 0x0B)


class Asking:
    """An upstream codec that has asked something."""

    def __init__(self, payload: bytes = ASKED, serial: int = SERIAL) -> None:
        """Ask."""
        self.stick = Stick(serial)
        self.codec = SolarmanUpstream(self.stick, lambda: NOW + 0.5)
        self.ask(payload)

    def ask(self, payload: bytes = ASKED) -> Request:
        """Ask something more."""
        self.request = modbus_request(payload, None)
        self.sent = self.codec.send(self.request)
        return self.request

    @property
    def number(self) -> int:
        """The sequence byte of the last request."""
        return self.sent[5]

    def telling(self, said: bytes = SAID, **kind: Any) -> bytes:
        """Give the frame of the response."""
        return telling(self.number, with_crc(said), **kind)


def answers(events: list[UpstreamEvent[bytes]]) -> list[bytes]:
    """Give the responses among events."""
    return [event.response for event in events if isinstance(event, Answer)]


# ---- frames, by pysolarmanv5 ------------------------------------------------------


@given(
    payload=st.sampled_from((ASKED, b"\1" + write(3, 4), b"\x0b\x11")),
    serial=st.integers(1, 0xFFFFFFFF),
)
def test_requests_are_those_of_pysolarmanv5(payload: bytes, serial: int) -> None:
    oracle = PySolarmanV5Async("", serial)
    asking = Asking(payload, serial)
    oracle.sequence_number = asking.number - 1
    assert asking.sent == oracle._v5_frame_encoder(with_crc(payload))  # noqa: SLF001


def test_replies_are_read_by_pysolarmanv5() -> None:
    oracle = PySolarmanV5Async("", SERIAL)
    codec = SolarmanDownstream(Stick(0), OnFailure.EXCEPTION, checks=False)
    for _ in range(3):
        asked = oracle._v5_frame_encoder(with_crc(ASKED))  # noqa: SLF001
        (request,) = received(codec, bytes(asked))
        assert isinstance(request, Request)
        assert request.payload == ASKED
        reply = codec.reply(request, SAID)
        assert oracle._v5_frame_decoder(reply) == with_crc(SAID)  # noqa: SLF001


# ---- upstream -------------------------------------------------------------------


@given(data=st.data(), beside=st.lists(st.sampled_from(range(5)), max_size=4))
def test_what_a_stick_says_besides_is_no_response(
    data: st.DataObject, beside: list[int]
) -> None:
    asking = Asking()
    other = (asking.number + 1) & 0xFF
    kinds = (
        GREETING,
        heartbeat(asking.number),
        telling(other, with_crc(b"\1" + values(9, 3))),
        telling(asking.number, with_crc(b"\2" + values(7, 3))),
        telling(asking.number, with_crc(b"\1" + values(7, 4))),
    )
    before = data.draw(st.integers(0, len(beside)))
    stream = b"".join(kinds[kind] for kind in beside[:before])
    stream += asking.telling()
    stream += b"".join(kinds[kind] for kind in beside[before:])
    events = [
        event
        for piece in data.draw(pieces(stream))
        for event in asking.codec.feed(piece)
    ]
    assert answers(events) == [SAID]
    sent_back = [event for event in events if isinstance(event, SendBack)]
    assert len(sent_back) == beside.count(1)


@pytest.mark.parametrize("control", PUSHED, ids=hex)
@pytest.mark.parametrize("wrong", [0, 1])
def test_what_a_stick_pushes_is_acknowledged(control: int, wrong: int) -> None:
    pushed = v5(control, 0x21, b"\x81" + bytes(range(40)), count=0x33, wrong=wrong)
    asking = Asking()
    assert asking.codec.feed(pushed) == [SendBack(acknowledging(pushed, NOW))]
    assert not asking.codec.begun(asking.request)


@pytest.mark.parametrize("twice", [b"", b"\0\0"])
@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize("payload", [ASKED, b"\1" + read(0, 125), b"\1\x41\1\2"])
def test_doubled_crc_and_wrong_checksum(
    payload: bytes, wrong: int, twice: bytes
) -> None:
    said = b"\1" + values(0, 125) if payload[1] == 3 else b"\1\x41\7\7\7"
    said = SAID if payload == ASKED else said
    asking = Asking(payload)
    frame = telling(asking.number, with_crc(said) + twice, wrong=wrong)
    assert asking.codec.feed(frame) == [Answer(asking.request, said)]


@pytest.mark.parametrize("wrong", [0, 1])
def test_stick_that_got_nothing_from_the_inverter_says_so(wrong: int) -> None:
    asking = Asking()
    frame = telling(asking.number, NO_ANSWER, wrong=wrong)
    assert asking.codec.feed(frame) == [Answer(asking.request, NO_TARGET)]


def test_wrong_crc_ends_the_exchange_if_the_checksum_is_right() -> None:
    """Nothing else will come: the frame names the request."""
    asking = Asking()
    rtu = with_crc(SAID)[:-1] + b"\0"
    (event,) = asking.codec.feed(telling(asking.number, rtu))
    assert isinstance(event, Failed)
    assert event.failure is Failure.INVALID_RESPONSE
    asking.ask()
    (event,) = asking.codec.feed(telling(asking.number, rtu, wrong=1))
    assert isinstance(event, Unsolicited)
    assert asking.codec.begun(asking.request)


@pytest.mark.parametrize("cut", range(1, 37))
def test_begun_is_what_may_be_the_response(cut: int) -> None:
    asking = Asking()
    assert asking.codec.feed(asking.telling()[:cut]) == []
    assert asking.codec.begun(asking.request)
    asking = Asking()
    asking.codec.feed(telling(asking.number + 1, with_crc(SAID))[:cut])
    assert asking.codec.begun(asking.request) is (cut < 6)


def test_sequence_byte_of_a_late_response_is_not_used_again() -> None:
    asking = Asking()
    late = asking.telling()
    assert asking.codec.expire(asking.request)
    for _ in range(300):
        asking.ask()
        assert asking.number != late[5]
        (event,) = asking.codec.feed(late)
        assert isinstance(event, Unsolicited)
        assert event.late
        assert answers(asking.codec.feed(asking.telling())) == [SAID]


def test_late_response_on_the_next_connection_is_nobody_s() -> None:
    """Some sticks send every response on every connection."""
    asking = Asking()
    late = asking.telling()
    asking.codec = SolarmanUpstream(asking.stick, float)
    asking.ask()
    assert not answers(asking.codec.feed(late))
    assert answers(asking.codec.feed(asking.telling())) == [SAID]


def test_what_began_before_the_request_is_not_its_response() -> None:
    asking = Asking()
    bogus = b"\xa5\xff\x03\x10\x45"
    early = telling(asking.number + 1, NO_ANSWER)
    assert answers(asking.codec.feed(asking.telling() + bogus + early[:9])) == [SAID]
    asking.ask()
    assert asking.number == early[5]
    assert not asking.codec.begun(asking.request)
    asking.codec.feed(early[9:])
    assert not answers(asking.codec.tick(1.0))
    assert answers(asking.codec.feed(asking.telling())) == [SAID]


def test_sequence_bytes_keep_away_from_those_of_other_clients() -> None:
    """Which count on: theirs would be ours soon."""
    asking = Asking()
    for _ in range(500):
        theirs = (asking.number + 1) & 0xFF
        asking.codec.feed(telling(theirs, with_crc(SAID)))
        asking.codec.feed(asking.telling())
        asking.ask()
        assert (asking.number - theirs) & 0xFF > 16


def test_wrong_serial_number_is_told() -> None:
    asking = Asking(serial=SERIAL + 1)
    refused = telling(asking.number, REFUSED)
    (event,) = asking.codec.feed(refused)
    assert event == Unsolicited(
        f"the logger's serial number is {SERIAL}", refused, lenient=Mismatch.SERIAL
    )
    (event,) = asking.codec.feed(asking.telling())
    assert not isinstance(event, Answer)


@pytest.mark.parametrize("payload", [ASKED, b"\1" + write(7, 3)])
def test_unknown_serial_number_is_learned(payload: bytes) -> None:
    """What was refused did not reach the inverter, and is asked again."""
    asking = Asking(payload, serial=0)
    first = asking.number
    (event,) = asking.codec.feed(telling(first, REFUSED))
    assert isinstance(event, SendBack)
    again = event.data
    assert asking.stick.serial == SERIAL
    assert again[5] != first
    assert again == v5(0x4510, again[5], b"\2" + bytes(14) + with_crc(payload))
    said = SAID if payload == ASKED else payload
    assert answers(asking.codec.feed(telling(again[5], with_crc(said)))) == [said]


def test_response_to_an_unknown_serial_number_is_not_asked_twice() -> None:
    asking = Asking(b"\1" + write(7, 3), serial=0)
    assert answers(asking.codec.feed(asking.telling(b"\1" + write(7, 3)))) == [
        b"\1" + write(7, 3)
    ]
    assert asking.stick.serial == SERIAL


def test_what_the_inverter_may_have_got_is_not_asked_twice() -> None:
    """Not every stick minds the serial number: it is refused only if it says so."""
    asking = Asking(b"\1" + write(7, 3), serial=0)
    assert answers(asking.codec.feed(telling(asking.number, NO_ANSWER))) == [
        b"\1" + exception(6, 0x0B)
    ]


def test_confirmation_of_another_write_is_not_ours() -> None:
    asking = Asking(b"\1" + write(7, 3))
    (event,) = asking.codec.feed(asking.telling(b"\1" + write(7, 4)))
    assert isinstance(event, Unsolicited)
    assert answers(asking.codec.feed(asking.telling(b"\1" + write(7, 3))))


@pytest.mark.parametrize("said", [None, NO_ANSWER])
def test_broadcast_has_no_response(said: bytes | None) -> None:
    payload = b"\0" + write(1, 2)
    asking = Asking(payload)
    if said is not None:
        events = asking.codec.feed(telling(asking.number, said))
    else:
        at = asking.codec.deadline(5.0)
        assert at == 5.0 + BROADCAST
        assert asking.codec.tick(at - 0.01) == []
        events = asking.codec.tick(at)
    assert answers(events) == [payload]


def test_silence_ends_what_only_seems_to_be_a_frame() -> None:
    asking = Asking()
    bogus = b"\xa5\xff\x03\x10\x45"
    assert asking.codec.feed(bogus + asking.telling()) == []
    assert asking.codec.deadline(1.0) == 1.0 + SILENCE
    assert answers(asking.codec.tick(1.0 + SILENCE)) == [SAID]
    assert asking.codec.deadline(2.0) is None


def test_bad_stick() -> None:
    line = Line(seed=4)
    line.run(6000)
    assert not line.wrong
    assert line.tally["none: answered"] > 3000
    assert line.tally["no answer: answered"] > 200


# ---- downstream -----------------------------------------------------------------


def facing(serial: int = SERIAL, *, checks: bool = False) -> SolarmanDownstream:
    """Make a codec that faces a client."""
    return SolarmanDownstream(Stick(serial), OnFailure.EXCEPTION, checks=checks)


@pytest.mark.parametrize(
    ("serial", "checks", "heard"),
    [
        (SERIAL, True, SERIAL),
        (1, False, 1),
        (1, True, None),
        (0, False, SERIAL),
        (0, True, None),
    ],
)
def test_serial_number_of_clients(serial: int, checks: bool, heard: int | None) -> None:
    codec = facing(checks=checks)
    (event,) = received(codec, asking(0xFE, with_crc(ASKED), serial))
    if heard is None:
        assert event == Ignored(f"for the logger {serial}, not {SERIAL}")
        return
    assert isinstance(event, Request)
    for count in (1, 2):
        reply = codec.reply(event, SAID)
        payload = b"\2\1" + bytes(12) + with_crc(SAID)
        assert reply == v5(0x1510, 0xFE, payload, serial=heard, count=count)


def test_client_that_sends_something_else() -> None:
    codec = facing()
    wrong = asking(1, with_crc(ASKED))
    wrong = wrong[:-2] + bytes((wrong[-2] ^ 1, 0x15))
    stream = wrong + heartbeat() + asking(3, with_crc(ASKED)[:-1] + b"\0")
    one, two, three = received(codec, stream)
    assert one == Ignored("a Solarman V5 frame with a wrong checksum")
    assert two == Ignored("a Solarman V5 frame that asks nothing")
    assert isinstance(three, Ignored)
    assert three.reply[5:6] + three.reply[25:-2] == b"\3" + NO_ANSWER
    assert isinstance(received(codec, b"GET")[0], Close)
    assert isinstance(received(facing(), asking(1, b"")[:-1] + b"\0")[0], Close)


def test_refusals() -> None:
    codec = facing()
    (request,) = received(codec, asking(9, with_crc(ASKED)))
    assert isinstance(request, Request)
    reply = codec.refuse(request, Failure.BUSY)
    assert reply is not None
    assert reply[25:-2] == with_crc(b"\1" + exception(3, 6))
    closing = SolarmanDownstream(Stick(0), OnFailure.CLOSE, checks=False)
    assert closing.refuse(request, Failure.BUSY) is None
    assert closing.refuse(request, Failure.REFUSED) is not None


@pytest.mark.parametrize("setting", ["max_connections", "max_in_flight"])
def test_one_exchange_at_a_time(setting: str) -> None:
    with pytest.raises(SettingsError) as error:
        options(framing=Framing.SOLARMAN, **{setting: 2})
    assert error.value.field == setting


# ---- real clients ---------------------------------------------------------------


@asynccontextmanager
async def sharing(port: int, **settings: Any) -> AsyncGenerator[Multiplexer]:
    """Share a stick among clients of Modbus/TCP (first port) and of V5."""
    listener = ListenerSettings(host="127.0.0.1", port=0, framing=Framing.SOLARMAN)
    defaults: dict[str, Any] = {
        "framing": Framing.SOLARMAN,
        "logger_serial": SERIAL,
        "more_listeners": (listener,),
    }
    multiplexer = Multiplexer(
        Settings(
            host="127.0.0.1",
            port=port,
            listen_host="127.0.0.1",
            listen_port=0,
            **defaults | settings,
        )
    )
    await multiplexer.start()
    try:
        yield multiplexer
    finally:
        await multiplexer.stop()


def ports(multiplexer: Multiplexer) -> tuple[int, int]:
    """Give the ports for Modbus/TCP and for V5."""
    (_, modbus), (_, solarman) = multiplexer.snapshot().listen_addresses
    return modbus, solarman


@asynccontextmanager
async def pysolarman(
    port: int, serial: int = SERIAL, **settings: Any
) -> AsyncGenerator[PySolarmanV5Async]:
    """Connect a pysolarmanv5 client."""
    client = PySolarmanV5Async("127.0.0.1", serial, port=port, **settings)
    await client.connect()
    try:
        yield client
    finally:
        await client.disconnect()


ROUNDS = 40


async def _read_by_v5(port: int, unit: int) -> None:
    async with pysolarman(port, mb_slave_id=unit, socket_timeout=20) as client:
        for i in range(ROUNDS):
            first, count = i * 21 % 200, i * 9 % 60 + 1
            got = await client.read_holding_registers(first, count)
            assert got == [unit * 1000 + first + at for at in range(count)]
            assert await client.write_holding_register(i, i) == i


async def _read_by_tcp(port: int, unit: int) -> None:
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=20, retries=0)
    assert await client.connect()
    try:
        for i in range(ROUNDS):
            first, count = i * 17 % 200, i * 7 % 60 + 1
            got = await client.read_input_registers(first, count=count, device_id=unit)
            assert got.registers == [unit * 1000 + first + at for at in range(count)]
    finally:
        client.close()


async def test_pysolarmanv5_and_pymodbus_share_a_stick_with_one_slot() -> None:
    """With heartbeats, doubled CRCs, joined frames, and responses to others."""

    def respond(sequence: int, request: bytes) -> bytes:
        said = right(sequence, request)
        rtu = said[25:-2]
        others = telling(sequence + 1 & 0xFF, with_crc(b"\1" + values(4000, 2)))
        wrong = telling(sequence, rtu + b"\0\0", wrong=1)
        return heartbeat(sequence) + others + wrong + heartbeat()

    async with logger_stick() as stick, sharing(stick.port) as multiplexer:
        await until(lambda: stick.slot)
        stick.say(GREETING)
        stick.respond = respond
        modbus, solarman = ports(multiplexer)
        await asyncio.gather(
            *(_read_by_v5(solarman, unit) for unit in (1, 2)),
            *(_read_by_tcp(modbus, unit) for unit in (1, 3)),
        )
        snapshot = multiplexer.snapshot()
        assert snapshot.requests == snapshot.responses == ROUNDS * (2 * 2 + 2)
        assert (stick.connections, stick.refused) == (1, 0)
        await until(lambda: len(stick.acknowledged) == 2 * len(stick.requests))


async def test_sleeping_inverter_is_told_in_v5() -> None:
    async with (
        logger_stick() as stick,
        sharing(stick.port) as multiplexer,
        pysolarman(ports(multiplexer)[1], mb_slave_id=20) as client,
    ):
        with pytest.raises(GatewayTargetDeviceFailedToRespondError):
            await client.read_holding_registers(0, 1)


@pytest.mark.parametrize("checks", [False, True])
async def test_client_with_another_serial_number(checks: bool) -> None:
    async with (
        logger_stick() as stick,
        sharing(stick.port, check_logger_serial=checks) as multiplexer,
        pysolarman(ports(multiplexer)[1], 7, socket_timeout=0.3) as client,
    ):
        if checks:
            with pytest.raises(TimeoutError):
                await client.read_holding_registers(0, 1)
            assert not stick.requests
            assert multiplexer.snapshot().invalid_requests == 1
        else:
            assert await client.read_holding_registers(0, 1) == [1000]


async def test_serial_number_that_the_stick_has_told_is_kept() -> None:
    async with (
        logger_stick() as stick,
        sharing(stick.port, logger_serial=0) as multiplexer,
    ):
        stick.refuses = True
        for connections in (1, 2):
            assert await multiplexer.request(ASKED) == SAID
            assert stick.connections == connections
            await multiplexer.reconnect()
        assert stick.requests == [ASKED, ASKED]


async def test_owner_is_told_of_a_wrong_serial_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Event] = []
    async with (
        logger_stick() as stick,
        sharing(stick.port, logger_serial=7, timeout=0.1) as multiplexer,
    ):
        stick.refuses = True
        multiplexer.subscribe(told.append)
        for _ in range(3):
            with pytest.raises(RequestError):
                await multiplexer.request(ASKED)
        assert not stick.requests
        assert Event(EventType.LENIENT_WOULD_HELP, reason=Mismatch.SERIAL) in told
        assert "has another serial number" in caplog.text


def test_stick_is_what_it_was() -> None:
    """The stick of these tests understands what pysolarmanv5 sends."""
    oracle = PySolarmanV5Async("", SERIAL)
    oracle.sequence_number = 4
    frame = oracle._v5_frame_encoder(with_crc(ASKED))  # noqa: SLF001
    assert frame == asking(5, with_crc(ASKED))
    oracle._v5_frame_decoder(right(5, ASKED))  # noqa: SLF001
    assert LoggerStick().serial == SERIAL
