"""The codecs of a client and of a device, without sockets, clock or engine between.

Both are called as the engine calls them. What a client and a device send may be
anything; as long as it is what they ought to send, each request must get its own
response.
"""

from typing import Any, Final

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    DownstreamEvent,
    Failed,
    Failure,
    Ignored,
    Progress,
    Reply,
    Request,
    SendBack,
    Unsolicited,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.options import (
    Framing,
    Matching,
)
from tests.engine.streams import fed, options, received
from tests.engine.test_conformance import SPEAKERS, Speaker

from .tape import Tape

SPEAKING: Final = tuple(
    (speaker, options(**speaker.settings)) for speaker in SPEAKERS.values()
)
"""What is spoken, with its options: to check these takes longer than to play a tape."""
TIMES: Final = 24
"""How often a client or a device repeats itself."""
FRAMED_BY_SILENCE: Final = frozenset((Framing.RTU, Framing.SOLARMAN))
"""Where noise ends depends on when it comes."""
STEPS: Final = 64
"""What happens in one tape at most; more would only be slower."""


class Play:
    """A client's codec and a device's, and what was said to them so far."""

    def __init__(self, tape: Tape) -> None:
        """Let the tape choose what they speak."""
        self._tape = tape
        self.speaker: Speaker
        self.speaker, chosen = tape.choice(SPEAKING)
        self.protocol = self.speaker.protocol(chosen)
        self._framing = self.speaker.settings.get("framing", Framing.TCP)
        self._alone = (
            not self.protocol.correlated
            or self._framing in FRAMED_BY_SILENCE
            or chosen.matching is Matching.LENIENT
        )
        """Whether the engine has one request in flight at a time."""
        self._now = 1.0
        self._meet_client()
        self._meet_device()

    def _meet_client(self) -> None:
        self._client = self.protocol.downstream(self._framing)
        self._clean = True
        """Whether the client has sent whole requests only."""
        self._said = bytearray()
        self._taken: list[DownstreamEvent] = []
        self._theirs: set[int] = set()
        """The identities of the requests among them."""
        self._unsent: list[Request] = []
        self._numbers: dict[int, int] = {}
        """What was asked, by the identity of the request."""

    def _meet_device(self) -> None:
        self._device = self.protocol.upstream()
        self._honest = True
        """Whether the device has sent whole responses only, each to its request."""
        self._sent: dict[int, tuple[Request, bytes]] = {}
        """Requests in flight, by their identity, with their bytes."""

    def play(self) -> None:
        """Do all that the tape says."""
        steps = (
            self._client_sends,
            self._client_asks,
            self._send,
            self._device_sends,
            self._device_answers,
            self._device_answers_wrongly,
            self._expire,
            self._be_silent,
            self._refuse,
            self._client_repeats,
            self._device_repeats,
            self._end,
        )
        for _ in range(STEPS):
            if not self._tape.more:
                break
            self._tape.choice(steps)()
        self._end_of_client()
        self._device.eof()

    # The client

    def _client_sends(self) -> None:
        self._clean = False
        self._receive(self._tape.data())

    def _client_repeats(self) -> None:
        self._clean = False
        self._receive(self._tape.data() * TIMES)

    def _client_asks(self) -> None:
        number = self._tape.number()
        before, clean = len(self._unsent), self._clean
        self._receive(self.speaker.ask(number))
        if clean:
            assert len(self._unsent) == before + 1, "a request was not seen"
            self._numbers[id(self._unsent[-1])] = number

    def _receive(self, data: bytes) -> None:
        if not data:
            return
        self._said += data
        events = received(self._client, data)
        self._taken += events
        for event in events:
            match event:
                case Request():
                    assert isinstance(event.payload, bytes)
                    self._theirs.add(id(event))
                    self._unsent.append(event)
                case Close(_, data):
                    assert event is events[-1], "something came behind a close"
                    assert isinstance(data, bytes)
                    self._end_of_client()
                    return
                case _:
                    assert isinstance(event, (Reply, Ignored))
        assert 0 <= self._client.buffered <= self.speaker.limit

    def _end_of_client(self) -> None:
        """See that it is the same in one piece, and let another client come."""
        if not self._taken or not isinstance(self._taken[-1], Close):
            assert isinstance(self._client.eof(), Ignored | None)
        if self._clean or self._framing not in FRAMED_BY_SILENCE:
            self._see_same_in_one_piece()
        self._meet_client()

    def _see_same_in_one_piece(self) -> None:
        whole = self.protocol.downstream(self._framing)
        whole.receive_data(bytes(self._said))
        again: list[DownstreamEvent] = []
        while (event := whole.next_event()) is not None:
            if not isinstance(event, Progress):
                again.append(event)
            if isinstance(event, Close):
                break
        assert seen(again) == seen(self._taken)

    # The device

    def _send(self) -> None:
        """Send the oldest request, if the engine would."""
        if not self._device.reusable:
            self._meet_device()
        if self._unsent and not (self._alone and self._sent):
            request = self._unsent.pop(0)
            if request.expects_reply:
                self._sent[id(request)] = request, self._device.send(request)
            else:
                self._device.send(request)

    def _device_sends(self) -> None:
        self._honest = False
        self._feed(self._tape.data())

    def _device_repeats(self) -> None:
        self._honest = False
        self._feed(self._tape.data() * TIMES)

    def _response(self) -> bytes:
        """Return the response to one of the requests in flight."""
        if not self._sent:
            return b""
        request, sent = self._tape.choice(tuple(self._sent.values()))
        if id(request) not in self._numbers:
            self._honest = False
        try:
            return self.speaker.answer(sent)
        except AssertionError, IndexError, OverflowError:
            return b""  # Not one of the requests that the speaker knows

    def _device_answers(self) -> None:
        said = self._response()
        cut = self._tape.number() % (len(said) + 1)
        self._feed(said[:cut])
        self._feed(said[cut:])

    def _device_answers_wrongly(self) -> None:
        self._honest = False
        said = bytearray(self._response())
        for at in self._tape.data():
            if said:
                said[at % len(said)] ^= 1 << at % 8
        self._feed(bytes(said[: len(said) - self._tape.number() % 8]))

    def _feed(self, data: bytes) -> None:
        if not data:
            return
        device = self._device
        if not device.reusable and not self._sent:
            self._meet_device()
            return
        self._look(fed(device, data))
        if device is self._device:
            assert 0 <= device.buffered <= max(self.speaker.limit, 64 << 10)

    def _look(self, events: list[Any]) -> None:
        for event in events:
            match event:
                case Answer(request=request, response=response):
                    asked, _ = self._sent.pop(id(request))
                    assert asked is request, "nobody asked this"
                    self._hand_over(request, response)
                case Failed(request, failure, _):
                    assert self._sent.pop(id(request))[0] is request
                    assert isinstance(failure, Failure)
                case Close():
                    assert event is events[-1], "something came behind a close"
                    self._meet_device()
                case _:
                    assert isinstance(event, (Unsolicited, SendBack))

    def _hand_over(self, request: Request, response: Any) -> None:
        """See what the client gets of a response."""
        payload = bytes(response)
        self.protocol.outline(request.payload, payload)
        self.protocol.explain(request.payload, payload)
        self.protocol.describe(request.payload, payload)
        self.protocol.on_wire(payload, 1)
        number = self._numbers.pop(id(request), None)
        if id(request) in self._theirs:  # Else that client has left.
            reply = self._client.reply(request, response)
            assert isinstance(reply, bytes)
            if number is not None and self._honest:
                assert self.speaker.heard(number) in reply, "another one's response"

    def _expire(self) -> None:
        if not self._sent:
            return
        request, _ = self._tape.choice(tuple(self._sent.values()))
        del self._sent[id(request)]
        self._numbers.pop(id(request), None)
        self._honest &= not self._alone  # Its response may come for the next one.
        begun = self._device.begun(request)
        kept = self._device.expire(request)
        if not kept or begun:
            self._meet_device()

    def _be_silent(self) -> None:
        """Let time pass, as far as framing is told of it."""
        at = self._device.deadline(self._now)
        if at is not None:
            assert at >= self._now
            self._now = at
            self._look(self._device.tick(at))

    def _refuse(self) -> None:
        if self._unsent:
            request = self._unsent.pop(0)
            self._numbers.pop(id(request), None)
            if id(request) in self._theirs:
                refusal = self._client.refuse(request, self._tape.choice((*Failure,)))
                assert isinstance(refusal, bytes | None)

    def _end(self) -> None:
        """Let the device, or the client, send no more."""
        if self._tape.number() % 2:
            self._end_of_client()
        else:
            self._look(self._device.eof())
            self._meet_device()


def seen(events: list[DownstreamEvent]) -> list[tuple[object, ...]]:
    """Return what must be the same, however a client's bytes came.

    Noise may be discarded in pieces.
    """
    return [
        (event.payload, event.share_key, event.expects_reply, event.retry_safe)
        if isinstance(event, Request)
        else tuple(event)
        for event in events
        if not isinstance(event, Ignored) or event.reply
    ]


def play(data: bytes) -> None:
    """Play a tape to a pair of codecs.

    Raises:
        Exception: something that is promised did not hold.

    """
    Play(Tape(data)).play()
