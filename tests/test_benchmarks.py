"""The benchmark: clients see wrong responses, and its plots are fit to be shown."""

from pathlib import Path
import socket
from threading import Thread

import pytest

from benchmarks.peers import Client, ask, body, serve, table_of_bodies

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def measured(bodies: dict[bytes, bytes]) -> list[Client]:
    """Return clients that have asked a device that answers with these bodies."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        clients, threads = [], []
        for number in range(2):
            clients.append(Client(port, number))
            link, _ = server.accept()
            threads.append(Thread(target=serve, args=(link, bodies)))
            threads[-1].start()
    assert ask(clients, 1, 0.05)
    for client in clients:
        client.socket.close()
    for thread in threads:
        thread.join()
    return clients


@pytest.mark.usefixtures("socket_enabled")
def test_right_responses_are_right() -> None:
    assert [client.wrong for client in measured(table_of_bodies())] == [0, 0]


@pytest.mark.usefixtures("socket_enabled")
@pytest.mark.parametrize(
    "wrong",
    [body(1, 7), body(1, 0)[:-1] + b"\1", b"\0\0\0\3\1\x83\x0b"],
    ids=["of another", "one byte", "exception"],
)
def test_wrong_responses_are_seen(wrong: bytes) -> None:
    bodies = table_of_bodies()
    asked = next(request for request, right in bodies.items() if right == body(1, 0))
    bodies[asked] = wrong
    first, second = measured(bodies)
    assert first.wrong
    assert not second.wrong


def test_plots_are_small_and_say_no_date() -> None:
    plots = [*IMAGES.glob("*.svg")]
    assert plots
    for plot in plots:
        text = plot.read_text()
        assert len(text) < 60_000
        assert "<dc:date>" not in text
