"""A logger stick with which everything goes wrong, before the Solarman V5 codec alone.

Time is simulated and everything is drawn from a seed. The stick answers each request
once, but for faults; around its responses there are heartbeats and reports, responses
to other clients, text and noise, joined and torn in any way. Checksums are wrong, CRCs
doubled, and some responses come when they have been given up.

Two things no receiver could tell, and they are excluded by construction: the response
to another client whose sequence byte, unit, function and size are those of the request
in flight; and a frame that lacks just checksum and end, if the next frame's first bytes
could be these.

    python -m tests.engine.logger_stick 1000000 [seed]

runs so many exchanges, and prints what became of them.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
import sys
import time

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Failed,
    Request,
    SendBack,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.logger_stick import (
    SolarmanUpstream,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.solarman import (
    Stick,
)
from tests.solarman import (
    GREETING,
    NO_ANSWER,
    PUSHED,
    REFUSED,
    SERIAL,
    acknowledging,
    asking,
    telling,
    v5,
)

from .serial_line import acceptable, question, with_crc

CLOCK = 1_760_000_000

_FAULTS = {
    "none": 50,
    "no answer": 5,
    "late": 8,
    "lost": 2,
    "wrong crc": 4,
    "truncated": 3,
}
"""What becomes of the response itself."""
_BESIDE = ("pushed", "pushed", "other's", "other's", "greeting", "noise")
"""What comes beside it."""


class Line:
    """The stick, and who asks."""

    def __init__(self, seed: int) -> None:
        """Draw everything from `seed`."""
        self.rng = Random(seed)
        self.codec = SolarmanUpstream(Stick(SERIAL), lambda: CLOCK + 0.9)
        self.now = 0.0
        self.tally: Counter[str] = Counter()
        """Exchanges by what went wrong and what became of them."""
        self.wrong: list[str] = []
        """What should not have been."""
        self._late: list[bytes] = []
        """Responses that come during the next exchange."""
        self._owed: Counter[bytes] = Counter()
        """Acknowledgements that the stick awaits."""

    def run(self, exchanges: int) -> None:
        """Let so many requests be asked, one after the other."""
        for _ in range(exchanges):
            self._exchange()
        if any(self._owed.values()):
            self.wrong.append(f"never acknowledged: {+self._owed}")

    def _exchange(self) -> None:
        rng = self.rng
        asked, said = question(rng)
        request = modbus_request(asked, None)
        sent = self.codec.send(request)
        number = sent[5]
        if sent != asking(number, with_crc(asked)):
            self.wrong.append(f"asked {sent.hex()} for {asked.hex()}")
        fault = rng.choices(tuple(_FAULTS), tuple(_FAULTS.values()))[0]
        frames = self._late
        self._late = []
        frames += [self._beside(asked, number) for _ in range(rng.choice((0, 0, 1, 3)))]
        own = self._response(fault, number, said)
        if fault == "late":
            self._late.append(own)
        elif fault != "lost":
            frames.insert(rng.randrange(len(frames) + 1), own)
        expected = asked[:1] + bytes((asked[1] | 0x80, 0x0B))
        outcome = self._await(
            request, expected if fault == "no answer" else said, b"".join(frames)
        )
        self.tally[f"{fault}: {outcome}"] += 1
        if fault in {"none", "no answer"} and outcome != "answered":
            self.wrong.append(f"{fault}: {outcome} {asked.hex()} {said.hex()}")

    def _response(self, fault: str, number: int, said: bytes) -> bytes:
        rng = self.rng
        rtu = with_crc(said)
        if fault == "no answer":
            rtu = NO_ANSWER
        elif fault == "wrong crc":
            rtu = rtu[:-1] + bytes((rtu[-1] ^ rng.randrange(1, 256),))
        elif rng.random() < 0.3:
            rtu += b"\0\0"
        frame = telling(number, rtu, wrong=rng.choice((0, 0, 0, rng.randrange(256))))
        if fault == "truncated":
            return frame[: rng.randrange(1, len(frame) - 2)]
        return frame

    def _beside(self, asked: bytes, number: int) -> bytes:
        """Give something that is not the response."""
        rng = self.rng
        match rng.choice(_BESIDE):
            case "pushed":
                size = rng.choice((1, 1, 1, 60, 400))
                frame = v5(
                    rng.choice(PUSHED),
                    rng.choice((number, rng.randrange(256))),
                    bytes((rng.randrange(3),)) + rng.randbytes(size - 1),
                    count=rng.randrange(256),
                )
                self._owed[acknowledging(frame, CLOCK)] += 1
                return frame
            case "other's":
                return self._other(asked, number)
            case "greeting":
                return GREETING
            case _:
                return rng.choice(
                    (rng.randbytes(rng.randrange(1, 9)), b"\xa5", b"\xa5\x17\0\x10\x45")
                )

    def _other(self, asked: bytes, number: int) -> bytes:
        """Give the response to another client, which differs from ours in something."""
        rng = self.rng
        while True:
            _, said = question(rng)
            if rng.random() < 0.5:  # as like as can be
                said = asked[:2] + said[2:]
            rtu = rng.choice((with_crc(said), with_crc(said), NO_ANSWER, REFUSED))
            sequence = rng.choice((number, number, rng.randrange(256)))
            if sequence != number:
                return telling(sequence, rtu)
            if len(rtu) > 2 and not acceptable(rtu, asked):
                return telling(sequence, rtu)

    def _await(self, request: Request, said: bytes, stream: bytes) -> str:
        """Let the stick send; tell how the exchange has ended."""
        outcome = ""
        for data in self._cut(stream):
            outcome = self._feed(request, said, self.codec.feed(data), outcome)
            self.now += self.rng.choice((0.0, 0.001))
        while (at := self.codec.deadline(self.now)) is not None and not outcome:
            self.now = at
            outcome = self._feed(request, said, self.codec.tick(at), outcome)
        if not outcome:
            self.codec.expire(request)
        return outcome or "given up"

    def _cut(self, stream: bytes) -> list[bytes]:
        """Join and tear frames as networks do."""
        rng = self.rng
        if rng.random() < 0.2:
            return [stream[at : at + 1] for at in range(len(stream))]
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(4)))
        edges = [0, *cuts, len(stream)]
        return [stream[a:b] for a, b in pairwise(edges) if a < b]

    def _feed(
        self,
        request: Request,
        said: bytes,
        events: list[UpstreamEvent[bytes]],
        outcome: str,
    ) -> str:
        """Judge what the codec made of something; tell how the exchange has ended."""
        for event in events:
            if isinstance(event, SendBack):
                self._owed[event.data] -= 1
                if self._owed[event.data] < 0:
                    self.wrong.append(f"sent back {event.data.hex()}")
            elif isinstance(event, Failed):
                outcome = "failed"
            elif isinstance(event, Answer):
                if outcome or event.request is not request or event.response != said:
                    self.wrong.append(
                        f"{request.payload.hex()} -> {event.response.hex()}, "
                        f"not {said.hex()}"
                    )
                outcome = "answered"
        return outcome


def main(exchanges: int, seed: int) -> int:
    """Run, and print what came of it."""
    began = time.perf_counter()
    line = Line(seed)
    line.run(exchanges)
    took = time.perf_counter() - began
    print(f"{exchanges} exchanges, seed {seed}, {took:.0f} s")  # noqa: T201
    for what, count in sorted(line.tally.items()):
        print(f"  {what:34} {count:8}")  # noqa: T201
    for wrong in line.wrong[:10]:
        print(f"  WRONG {wrong}")  # noqa: T201
    print(f"  {len(line.wrong)} wrong")  # noqa: T201
    return bool(line.wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
