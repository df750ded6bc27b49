"""A protocol that is registered, and nowhere else named, works end to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from custom_components.tcp_multiplexer.multiplexer import Multiplexer
from custom_components.tcp_multiplexer.multiplexer.command_line import main as cli
from custom_components.tcp_multiplexer.multiplexer.command_line.flags import (
    Parser,
    add_flags,
    make_settings,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Answer,
    Close,
    Ignored,
    SendBack,
    Unsolicited,
)
from tests.fixtures import sixth_protocol
from tests.fixtures.sixth_protocol import NAK, StxProtocol, framed
from tests.waiting import PATIENCE, until

from .devices import port_of
from .streams import options, received

BAD = framed(b"hello")[:-1] + b"?"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the protocol."""
    sixth_protocol.register(monkeypatch)


class NoisyDevice:
    """Answers every request first with a wrong LRC, and rightly once it gets NAK."""

    def __init__(self) -> None:
        self.naks = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                frame = await reader.readuntil(b"\x03") + await reader.readexactly(1)
                answer = framed(b"answer to " + frame[1:-2])
                writer.write(b"noise" + answer[:-1] + b"?")
                assert await reader.readexactly(1) == NAK
                self.naks += 1
                writer.write(answer)
        writer.close()


@pytest.fixture
async def noisy() -> AsyncGenerator[tuple[NoisyDevice, int]]:
    """Return a noisy device and its port."""
    device = NoisyDevice()
    server = await asyncio.start_server(device.serve, "127.0.0.1", 0)
    async with server:
        yield device, server.sockets[0].getsockname()[1]


@pytest.fixture
async def multiplexer(
    noisy: tuple[NoisyDevice, int],
) -> AsyncGenerator[Multiplexer]:
    """Return a multiplexer that the command line makes."""
    parser = Parser(prog="tcp-multiplexer server")
    add_flags(parser)
    assert "stx" in parser.format_help()
    _, port = noisy
    arguments = ["-p", "stx", "-t", f"127.0.0.1:{port}", "-l", "127.0.0.1:0"]
    multiplexer = Multiplexer(make_settings(parser.parse_args(arguments)))
    await multiplexer.start()
    yield multiplexer
    await multiplexer.stop()


def test_command_line_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert "* stx\n" in capsys.readouterr().out


def test_command_line_knows_what_means_something_to_it() -> None:
    parser = Parser(prog="tcp-multiplexer server")
    add_flags(parser)
    probe = framed(b"hello")
    given = parser.parse_args(["-p", "stx", "--probe", probe.hex()])
    assert make_settings(given).probe == probe
    given = parser.parse_args(["-p", "stx", "--share-reads"])
    with pytest.raises(ValueError, match="--share-reads: has no effect with stx"):
        make_settings(given)


async def test_several_clients_get_their_answers_over_a_noisy_line(
    noisy: tuple[NoisyDevice, int], multiplexer: Multiplexer
) -> None:
    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(multiplexer)
        )
        for turn in range(5):
            asked = b"%d.%d" % (number, turn)
            writer.write(framed(asked))
            right = framed(b"answer to " + asked)
            assert await reader.readexactly(len(right)) == right
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(client(number))
    device, _ = noisy
    assert device.naks == 20
    snapshot = multiplexer.snapshot()
    assert snapshot.responses == 20
    assert (
        snapshot.unsolicited_responses == 40
    )  # the noise and the frame with the wrong LRC
    assert snapshot.connection_attempts == 1


async def test_client_is_told_of_a_bad_frame_and_goes_on(
    multiplexer: Multiplexer,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(multiplexer))
    async with asyncio.timeout(PATIENCE):
        writer.write(b"noise" + BAD)
        assert await reader.readexactly(1) == NAK
        writer.write(framed(b"hello"))
        right = framed(b"answer to hello")
        assert await reader.readexactly(len(right)) == right
        assert multiplexer.snapshot().invalid_requests == 2
        writer.close()
        await writer.wait_closed()
        await until(lambda: not multiplexer.snapshot().clients)


def test_bad_frame_of_a_client_is_discarded_and_answered() -> None:
    codec = StxProtocol(options()).downstream()
    noise, bad, good = received(codec, b"?" + BAD + framed(b"hello"))
    assert noise == Ignored("bytes between frames")
    assert bad == Ignored("wrong LRC", NAK)
    assert good not in (noise, bad)


def test_bad_frame_of_a_device_is_discarded_and_the_response_awaited() -> None:
    codec = StxProtocol(options()).upstream()
    request = StxProtocol(options()).request(framed(b"?"))
    codec.send(request)
    assert codec.feed(BAD) == [Unsolicited("wrong LRC", BAD), SendBack(NAK)]
    assert codec.feed(framed(b"!")) == [Answer(request, framed(b"!"))]


def test_bad_frame_that_nobody_asked_for_is_no_answer_and_no_end() -> None:
    codec = StxProtocol(options()).upstream()
    assert not any(isinstance(event, Close) for event in codec.feed(b"noise"))
    assert not any(isinstance(event, Close) for event in codec.feed(BAD))
    request = StxProtocol(options()).request(framed(b"?"))
    codec.send(request)
    assert codec.feed(framed(b"!")) == [Answer(request, framed(b"!"))]


def test_what_a_protocol_need_not_say_has_a_default() -> None:
    protocol = StxProtocol(options())
    request = protocol.request(framed(b"?"))
    payload, response = request.payload, framed(b"!")
    assert not protocol.is_exception(response)
    assert protocol.rules(options()) is None
    assert protocol.acknowledge(request) is None
    assert protocol.probe(request) is None
    assert protocol.explain_write(request) == {}
    assert protocol.explain(payload, response) == {}
    assert protocol.outline(payload, response) == ({}, {})
    assert protocol.on_wire(payload, 1) == payload
    assert protocol.describe(payload, None) == "4 bytes 02 3f 03 3c"
    assert protocol.describe(payload, response).endswith("-> 4 bytes 02 21 03 22")


def test_bad_frame_is_no_request_of_the_host() -> None:
    with pytest.raises(ValueError, match="wrong LRC"):
        StxProtocol(options()).request(BAD)
