"""A serial line in which everything goes wrong, before the RTU codec alone.

Time is simulated and everything is drawn from a seed. Beside the codec runs the least
of a pool: it asks one thing after the other, gives up at the deadline, and is quiet
after that as long as the codec asks for. The device answers each request once, in full
or in pieces, early or late; around its frames there is noise, and frames of others.

Three things no receiver could tell, and they are excluded by construction: bytes on
the line that form, by chance, a frame that answers the request in flight; a corrupt
frame that does; and a response later than the quiet time. What is such a frame, is
decided with pymodbus' CRC and lengths.

    python -m tests.engine.serial_line 1000000 [seed]

runs so many exchanges, and prints what became of them.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from itertools import pairwise
from random import Random
import sys
import time

from pymodbus.framer.rtu import FramerRTU
from pymodbus.pdu import DecodePDU

from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Request,
    UpstreamEvent,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.pdu import (
    modbus_request,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.rtu import (
    RtuUpstream,
)

TIMEOUT = 1.0
QUIET = 0.5
UNITS = (1, 3, 0x11)
_UNKNOWN = 0x41
_OF_RESPONSES = DecodePDU(is_server=False)


def with_crc(data: bytes) -> bytes:
    """Give the frame of a unit and a PDU, as pymodbus does."""
    return data + FramerRTU.compute_CRC(data).to_bytes(2)


# ---- what is asked and answered -------------------------------------------------


def question(rng: Random) -> tuple[bytes, bytes]:
    """Give unit and PDU of a request, and of the device's response to it."""
    unit = rng.choice(UNITS)
    function = rng.choice(_FUNCTIONS)
    words = rng.randbytes
    if function in {3, 4, 0x17}:
        count = rng.choice((1, 2, 2, 2, 10, 40, 125))
        asked = words(2) + count.to_bytes(2)
        if function == 0x17:
            asked += words(2) + b"\0\x01\x02" + words(2)
        said = bytes((2 * count,)) + words(2 * count)
    elif function in {1, 2}:
        count = rng.choice((1, 8, 12, 2000))
        size = (count + 7) // 8
        asked, said = words(2) + count.to_bytes(2), bytes((size,)) + words(size)
    elif function in {5, 6, 8, 0x16}:
        asked = said = words(6 if function == 0x16 else 4)
    elif function in {0x0F, 0x10}:
        said = words(2) + b"\0\x02"
        asked = said + (b"\x01\x03" if function == 0x0F else b"\x04" + words(4))
    elif function == 0x15:
        asked = said = b"\x09\x06" + words(4) + b"\0\x01" + words(2)
    elif function == 0x18:
        count = rng.randrange(32)
        asked = words(2)
        said = (2 * count + 2).to_bytes(2) + count.to_bytes(2) + words(2 * count)
    elif function == 0x2B:
        asked = b"\x0e\x01\0"
        objects = [(i, words(rng.randrange(20))) for i in range(rng.randrange(1, 8))]
        said = b"\x0e\x01\x01\0\0" + bytes((len(objects),))
        said += b"".join(bytes((i, len(text))) + text for i, text in objects)
    elif function == 7:
        asked, said = b"", words(1)
    elif function == 0x0B:
        asked, said = b"", words(4)
    else:  # a byte count of the device's own, or (unknown) anything
        asked = b"" if function in {0x0C, 0x11} else words(7)
        said = words(rng.randrange(2, 60))
        if function != _UNKNOWN:
            said = bytes((len(said),)) + said
    head = bytes((unit, function))
    if rng.random() < 0.06:
        said = bytes((rng.randrange(1, 12),))
        return head + asked, bytes((unit, function | 0x80)) + said
    return head + asked, head + said


_FUNCTIONS = (
    *(3,) * 10,
    *(4,) * 4,
    *(1, 2, 5, 6, 6, 7, 8, 0x0B, 0x0C, 0x0F, 0x10, 0x10, 0x11),
    *(0x14, 0x15, 0x16, 0x17, 0x18, 0x2B, _UNKNOWN),
)


def acceptable(stream: bytes, asked: bytes) -> list[tuple[int, int]]:
    """Give the places (from, to) of all frames in `stream` that could answer `asked`.

    To read functions only frames of the byte count asked for are such, or of a multiple
    of it, whose registers would be wider; to the unknown one, frames of any length.
    """
    unit, function = asked[:2]
    found: list[tuple[int, int]] = []
    at = stream.find(unit)
    while at != -1:
        rest = stream[at : at + 256]
        ends = range(0)
        if rest[1:2] == bytes((function | 0x80,)):
            ends = range(5, 6)
        elif rest[1:2] == bytes((function,)) and len(rest) > 2:
            ends = _lengths(rest, asked)
        found.extend(
            (at, at + end)
            for end in ends
            if end <= len(rest) and with_crc(rest[: end - 2]) == rest[:end]
        )
        at = stream.find(unit, at + 1)
    return found


def _lengths(rest: bytes, asked: bytes) -> range:
    function = rest[1]
    if function in {_UNKNOWN, 8, 0x18}:  # (pymodbus counts FIFO queues wrong)
        return range(4, len(rest) + 1)
    if function in {1, 2, 3, 4, 0x17}:
        count = int.from_bytes(asked[4:6])
        size = (count + 7) // 8 if function < 3 else 2 * count
        if not size:
            return range(0)  # it asks for nothing
        times, odd = divmod(rest[2], size)
        if odd or not times or (times > 1 and function not in {3, 4}):
            return range(0)
        return range(rest[2] + 5, rest[2] + 6)  # registers may be wider, too
    kind = _OF_RESPONSES.lookupPduClass(rest)
    try:
        size = kind.calculateRtuFrameSize(rest) if kind else 0
    except IndexError:
        size = 0  # it is not all here
    return range(size, size + 1) if size else range(0)


# ---- what goes wrong ------------------------------------------------------------


def _noise(rng: Random, asked: bytes) -> bytes:
    """Give bytes that are no answer, some of which look like one's beginning."""
    head = asked[:2]
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(1, 12))
        case 1:
            return bytes((rng.choice((0, 0xFF)),)) * rng.randrange(1, 4)
        case 2:  # the beginning of an answer
            count = int.from_bytes(asked[4:6]) * 2 & 0xFF
            return head + bytes((count,)) + rng.randbytes(rng.randrange(6))
        case 3:  # another's frame
            other = bytes((head[0] ^ rng.choice((0, 2)), rng.choice((3, 4, 6))))
            return with_crc(other + b"\x04" + rng.randbytes(4))
        case 4:  # an exception's head, or the unit alone
            return (head[:1] + bytes((head[1] | 0x80,)))[: rng.randrange(1, 3)]
        case _:  # a part of an echo
            return with_crc(asked)[: rng.randrange(1, 8)]


def _corrupt(rng: Random, frame: bytes) -> bytes:
    """Give a frame that was spoiled on its way."""
    at = rng.randrange(len(frame))
    match rng.randrange(4):
        case 0:
            spoiled = bytes((frame[at] ^ 1 << rng.randrange(8),))
            return frame[:at] + spoiled + frame[at + 1 :]
        case 1:
            burst = rng.randbytes(rng.randrange(1, 6))
            return frame[:at] + burst + frame[at + len(burst) :]
        case 2:
            return frame[:at] + frame[at + 1 :]
        case _:
            return frame[:at] + rng.randbytes(1) + frame[at:]


_FAULTS = {
    "none": 40,
    "noise before": 12,
    "noise behind": 10,
    "noise around": 6,
    "corrupt": 10,
    "corrupt, noise around": 4,
    "truncated": 4,
    "late": 8,
    "lost": 2,
    "lost, noise": 4,
}
_KINDS = tuple(_FAULTS)
_WEIGHTS = tuple(_FAULTS.values())


class Line:
    """The line, the device at its end, and who asks."""

    def __init__(self, seed: int) -> None:
        """Draw everything from `seed`."""
        self.rng = Random(seed)
        self.codec = RtuUpstream(QUIET)
        self.now = 0.0
        self.tally: Counter[str] = Counter()
        """Exchanges by what went wrong and what became of them."""
        self.wrong: list[str] = []
        """Answers that were not the device's to the request."""
        self._last = b""
        self._earlier: set[bytes] = set()
        """The last frames of the device: to see them again is its receiver's fault."""
        self._coming: list[tuple[float, int, bytes]] = []
        """What will arrive, and when."""
        self._pieces = 0

    def run(self, exchanges: int) -> None:
        """Let so many requests be asked, one after the other."""
        for _ in range(exchanges):
            self._exchange()

    def _exchange(self) -> None:
        rng = self.rng
        asked, said = question(rng)
        fault = rng.choices(_KINDS, _WEIGHTS)[0]
        true = with_crc(said)
        intact = fault.startswith("no")
        harmless = {true, *self._earlier} if intact else self._earlier
        for _ in range(20):
            pieces = self._plan(fault, asked, true)
            carried = self._carried(pieces)
            found = acceptable(carried, asked)
            if all(carried[a:b] in harmless for a, b in found):
                break
        else:
            pieces = []
            self._coming.clear()
            fault = "nothing"
        if intact and true not in carried:
            fault = f"torn by what came before; {fault}"
        self._earlier = {true, self._last}
        self._last = true
        for at, data in pieces:
            heappush(self._coming, (at, self._pieces, data))
            self._pieces += 1
        request = modbus_request(asked, None)
        sent = self.codec.send(request)
        if sent != with_crc(asked):
            self.wrong.append(f"asked {sent.hex()} for {asked.hex()}")
        outcome = self._await(request, said)
        self.tally[f"{fault}: {outcome}"] += 1
        if outcome != "answered":
            self._let_pass(self.now + self.codec.quiet)
        elif rng.random() < 0.3:
            self._let_pass(self.now + rng.uniform(0, 0.2))

    def _plan(
        self, fault: str, asked: bytes, frame: bytes
    ) -> list[tuple[float, bytes]]:
        """Give what the line will carry because of a request, and when."""
        rng = self.rng
        at = self.now + rng.uniform(0.001, 0.4)
        pieces: list[tuple[float, bytes]] = []
        if "before" in fault or "around" in fault or fault == "lost, noise":
            pieces.append((at, _noise(rng, asked)))
            at += rng.choice((0.0, 0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)))
        if fault == "late":
            at = self.now + TIMEOUT + rng.uniform(-0.1, QUIET * 0.9)
        if "corrupt" in fault:
            frame = _corrupt(rng, frame)
        elif fault == "truncated":
            frame = frame[: rng.randrange(len(frame))]
        if "lost" not in fault:
            for data in self._cut(frame):
                pieces.append((at, data))
                at += rng.choice((0.0, 0.001, 0.02, rng.uniform(0, 0.09)))
        if "behind" in fault or "around" in fault:
            at += rng.choice((0.0, 0.0, rng.uniform(0, 0.3)))
            pieces.append((at, _noise(rng, asked)))
        return pieces

    def _cut(self, frame: bytes) -> list[bytes]:
        """Cut a frame as serial servers and networks do."""
        if self.rng.random() < 0.6:
            return [frame]
        cuts = sorted(
            self.rng.randrange(len(frame) + 1) for _ in range(self.rng.randrange(1, 4))
        )
        edges = [0, *cuts, len(frame)]
        return [frame[a:b] for a, b in pairwise(edges) if a < b]

    def _carried(self, pieces: list[tuple[float, bytes]]) -> bytes:
        """Give all that will arrive before the deadline."""
        until = self.now + TIMEOUT
        coming = [
            *self._coming,
            *((at, self._pieces + i, data) for i, (at, data) in enumerate(pieces)),
        ]
        return b"".join(data for at, _, data in sorted(coming) if at < until)

    def _await(self, request: Request, said: bytes) -> str:
        """Let the line speak until the exchange has ended; tell how it did."""
        codec = self.codec
        deadline = self.now + TIMEOUT
        tick = codec.deadline(self.now)
        while True:
            at = min(deadline, self._coming[0][0] if self._coming else deadline)
            if tick is not None and tick < at:
                self.now = tick
                events = codec.tick(tick)
            elif at >= deadline:
                self.now = deadline
                codec.expire(request)
                return "given up"
            else:
                self.now = at
                events = codec.feed(heappop(self._coming)[2])
            tick = codec.deadline(self.now)
            outcome = self._judge(events, request, said)
            if outcome:
                return outcome

    def _judge(
        self, events: list[UpstreamEvent[bytes]], request: Request, said: bytes
    ) -> str:
        outcome = ""
        for event in events:
            if isinstance(event, Answer):
                outcome = "answered"
                if event.request is not request or event.response != said:
                    self.wrong.append(
                        f"{request.payload.hex()} -> {event.response.hex()}, "
                        f"not {said.hex()}"
                    )
        return outcome

    def _let_pass(self, until: float) -> None:
        """Ask nothing until then; what arrives must be nobody's."""
        while self._coming and self._coming[0][0] <= until:
            events = self.codec.feed(heappop(self._coming)[2])
            if any(isinstance(event, Answer) for event in events):
                self.wrong.append("an answer to nothing")
        self.now = until


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
