"""What lenient matching learns of a device's way with transaction identifiers."""

from __future__ import annotations

from itertools import count

import pytest

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Request,
    Unsolicited,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.lenient import (
    LenientUpstream,
    Manner,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.protocol import (
    ModbusProtocol,
)
from tests.wire import Frame, read, values, write

from .streams import options


class Asker:
    """Asks one thing after the other on one connection, at times of its own."""

    def __init__(self) -> None:
        """Open a connection to a device of which nothing is known."""
        self.protocol = ModbusProtocol(options(matching="lenient"))
        self.now = 0.0
        self.addresses = count(1)
        self.connect()

    @property
    def manner(self) -> Manner:
        """What is known of the device."""
        return self.protocol.lenient_transactions.manner

    def connect(self) -> None:
        """Open another connection to it."""
        codec = self.protocol.upstream()
        assert isinstance(codec, LenientUpstream)
        self.codec = codec

    def ask(self, pdu: bytes | None = None) -> int:
        """Ask, for something new unless told; return the identifier."""
        self.address = next(self.addresses)
        self.request: Request = self.protocol.request(
            b"\1" + (read(self.address) if pdu is None else pdu)
        )
        data = self.codec.send(self.request)
        self.codec.deadline(self.now)
        return int.from_bytes(data[:2])

    def hear(self, number: int, pdu: bytes | None = None) -> list[UpstreamEvent[bytes]]:
        """Let the device respond, with the right values unless told."""
        said = values(self.address) if pdu is None else pdu
        events = self.codec.feed(Frame(number, 1, said).encoded())
        self.codec.deadline(self.now)
        return events

    def right(self, pdu: bytes | None = None) -> Answer[bytes]:
        """Return the right answer."""
        said = values(self.address) if pdu is None else pdu
        return Answer(self.request, b"\1" + said)

    def silence(self) -> tuple[float, list[UpstreamEvent[bytes]]]:
        """Let nothing come until the codec decides; return how long that took."""
        began = self.now
        at = self.codec.deadline(self.now)
        assert at is not None
        self.now = at
        return at - began, self.codec.tick(at)


def learned(*, echoes: bool) -> Asker:
    """Return an asker who has found out."""
    asker = Asker()
    assert asker.ask() == 0
    asker.now += 0.01
    assert asker.hear(0) == [asker.right()]
    number = asker.ask()
    assert number
    if echoes:
        assert asker.hear(number) == [asker.right()]
        assert asker.manner is Manner.ECHOES
    else:
        assert asker.hear(0) == []
        assert asker.silence()[1] == [asker.right()]
        assert asker.manner is Manner.IGNORES
    return asker


def test_first_identifier_is_0_and_the_next_is_not() -> None:
    asker = Asker()
    assert asker.ask() == 0
    assert asker.hear(0) == [asker.right()]
    assert asker.ask() not in {0, 1, 2}
    assert asker.manner is Manner.ANSWERS_ZERO


def test_only_a_read_like_the_first_finds_out() -> None:
    """So that no write is lost by it, and a unit that is off proves nothing."""
    asker = Asker()
    asker.ask()
    asker.hear(0)
    for pdu in (write(1, 2), b"\4\0\0\0\1"):
        assert asker.ask(pdu) == 0
        asker.codec.expire(asker.request)
    assert asker.manner is Manner.ANSWERS_ZERO
    assert asker.ask() != 0


def test_device_that_needs_0_gets_0_from_then_on() -> None:
    asker = Asker()
    asker.ask()
    asker.hear(0)
    assert asker.ask() != 0
    assert asker.codec.expire(asker.request)
    assert asker.manner is Manner.NEEDS_ZERO
    for _ in range(3):
        assert asker.ask() == 0
        assert asker.hear(0) == [asker.right()]
        asker.connect()


def test_silent_device_shows_nothing() -> None:
    asker = Asker()
    for _ in range(3):
        assert asker.ask() == 0
        assert asker.codec.expire(asker.request)
    assert asker.manner is Manner.UNKNOWN


@pytest.mark.parametrize("took", [0.01, 1.5])
def test_copy_of_the_first_response_is_not_taken_for_the_second(took: float) -> None:
    asker = Asker()
    asker.ask()
    asker.now += took
    first = values(asker.address)
    assert asker.hear(0) == [asker.right()]
    number = asker.ask()
    assert asker.hear(0, first) == []
    assert asker.codec.begun(asker.request)
    due = asker.codec.deadline(asker.now)
    assert due == pytest.approx(asker.now + max(0.25, 1.3 * took))
    stray, answered = asker.hear(number)
    assert isinstance(stray, Unsolicited)
    assert answered == asker.right()


@pytest.mark.parametrize("connection", ["the same", "another"])
def test_older_identifier_is_late_once_one_was_echoed(connection: str) -> None:
    asker = learned(echoes=True)
    if connection == "another":
        asker.connect()
    older = [asker.ask()]
    assert asker.hear(older[0]) == [asker.right()]
    for _ in range(5):
        number = asker.ask()
        for old in older:
            (stray,) = asker.hear(old)
            assert isinstance(stray, Unsolicited)
            assert stray.late
        assert asker.hear(number) == [asker.right()]
        older.append(number)
    # what is no older one of ours is taken as before
    asker.ask()
    assert asker.hear(7) == [asker.right()]


def test_identifier_0_is_older_where_it_was_ours() -> None:
    asker = learned(echoes=True)
    number = asker.ask()
    (stray,) = asker.hear(0)
    assert isinstance(stray, Unsolicited)
    assert asker.hear(number) == [asker.right()]
    asker.connect()
    asker.ask()
    assert asker.hear(0) == [asker.right()]


def test_older_identifiers_are_known_across_their_wrap_around() -> None:
    asker = learned(echoes=True)
    asker.protocol.lenient_transactions.last = 0xFFFE
    older = asker.ask()
    assert asker.hear(older) == [asker.right()]
    assert older == 0xFFFF
    assert asker.ask() == 1
    (stray,) = asker.hear(older)
    assert isinstance(stray, Unsolicited)


def test_echo_by_chance_is_unlearned() -> None:
    """A device that always says the same says the right one some day."""
    asker = learned(echoes=False)
    constant = asker.ask()
    assert asker.hear(constant) == [asker.right()]
    assert asker.manner is Manner.ECHOES
    for _ in range(2):
        asker.ask()
        asker.hear(constant)
        asker.codec.expire(asker.request)
    asker.ask()
    assert asker.hear(constant) == [asker.right()]


def test_late_responses_in_a_row_unlearn_nothing() -> None:
    asker = learned(echoes=True)
    late = asker.ask()
    asker.codec.expire(asker.request)
    for _ in range(4):
        number = asker.ask()
        asker.hear(late)
        asker.codec.expire(asker.request)
        late = number
    assert asker.manner is Manner.ECHOES


def test_registers_of_four_bytes_are_taken_after_a_silence() -> None:
    asker = learned(echoes=False)
    asker.ask(read(7))
    wide = b"\3\x08" + bytes(range(8))
    assert asker.hear(0, wide) == []
    took, events = asker.silence()
    assert took == pytest.approx(0.05)
    assert events == [asker.right(wide)]
    # The value stays the same: from now on that is no copy, of whatever register.
    for address in (7, 9):
        asker.ask(read(address))
        assert asker.hear(0, wide) == []
        assert asker.silence()[1] == [asker.right(wide)]
    # neither is three times as much, nor what has something behind it
    asker.ask(read(8))
    (stray,) = asker.hear(0, b"\3\x0c" + bytes(12))
    assert isinstance(stray, Unsolicited)
    assert asker.hear(0, b"\3\x08" + bytes(8)) == []
    events = asker.hear(0, values(8))
    assert [type(event) for event in events] == [Unsolicited, Answer]
