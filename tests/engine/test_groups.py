"""Clients that are counted in groups, whichever connections they ask on."""

from __future__ import annotations

from ipaddress import ip_network
import time

from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Network
from tests.waiting import until
from tests.wire import read

from .conftest import Connect, Multiplex
from .devices import Client, Device, ignore, port_of

ALL, LOOPBACK = ip_network("0.0.0.0/0"), ip_network("127.0.0.0/8")
MANY, ONE = ip_network("127.0.0.0/30"), ip_network("127.0.0.1/32")
IPV6 = ip_network("::/0")


def group(multiplexer: Multiplexer, **networks: Network) -> None:
    """Have groups of one network each."""
    multiplexer.group_clients({name: (each,) for name, each in networks.items()})


def told(multiplexer: Multiplexer) -> dict[str, tuple[int, int, int]]:
    """Return of each group how many are connected, what was asked, and what failed."""
    return {
        name: (each.connected, each.requests, each.failures)
        for name, each in multiplexer.groups().items()
    }


async def asked(multiplexer: Multiplexer, times: int) -> None:
    """Connect, ask so often, and leave."""
    client = await Client.connect(port_of(multiplexer))
    for _ in range(times):
        await client.ask(read())
    client.close()
    await until(lambda: not multiplexer.snapshot().clients)


async def test_a_group_counts_those_that_have_left(
    multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    group(multiplexer, here=LOOPBACK, six=IPV6)
    assert told(multiplexer) == {"here": (0, 0, 0), "six": (0, 0, 0)}
    assert multiplexer.groups()["here"].last_request is None
    before = time.time()
    await asked(multiplexer, 2)
    left = multiplexer.groups()["here"].last_request
    assert left is not None
    assert before <= left <= time.time()
    await asked(multiplexer, 1)
    client = await connect(multiplexer)
    assert told(multiplexer)["here"] == (1, 3, 0)
    last = multiplexer.groups()["here"].last_request
    assert last is not None
    assert last > left
    await client.ask(read())
    assert told(multiplexer) == {"here": (1, 4, 0), "six": (0, 0, 0)}
    assert multiplexer.groups()["six"].last_request is None


async def test_failures_are_counted(
    device: Device, multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex(timeout=0.1, share_reads=False)
    group(multiplexer, here=LOOPBACK)
    device.respond = ignore
    client = await connect(multiplexer)
    await client.ask(read())
    assert told(multiplexer) == {"here": (1, 1, 1)}
    client.close()
    await until(lambda: not multiplexer.snapshot().clients)
    assert told(multiplexer) == {"here": (0, 1, 1)}


async def test_the_narrowest_network_decides(multiplex: Multiplex) -> None:
    multiplexer = await multiplex()
    for order in (("all", "one", "many"), ("many", "one", "all")):
        networks = {"all": ALL, "one": ONE, "many": MANY}
        group(multiplexer, **{name: networks[name] for name in order})
        await asked(multiplexer, 1)
    assert told(multiplexer) == {"many": (0, 0, 0), "one": (0, 2, 0), "all": (0, 0, 0)}


async def test_what_was_asked_stays_where_it_was_counted(
    multiplex: Multiplex, connect: Connect
) -> None:
    """A connected client that gets another name asks for that from then on."""
    multiplexer = await multiplex()
    client = await connect(multiplexer)
    await client.ask(read())
    group(multiplexer, old=LOOPBACK)
    assert told(multiplexer) == {"old": (1, 0, 0)}
    assert multiplexer.groups()["old"].last_request is not None
    await client.ask(read())
    group(multiplexer, old=LOOPBACK)
    await client.ask(read())
    group(multiplexer, old=LOOPBACK, new=ONE)
    assert told(multiplexer) == {"old": (0, 2, 0), "new": (1, 0, 0)}
    await client.ask(read())
    client.close()
    await until(lambda: not multiplexer.snapshot().clients)
    group(multiplexer, old=LOOPBACK, new=IPV6)
    assert told(multiplexer) == {"old": (0, 2, 0), "new": (0, 1, 0)}
    group(multiplexer, new=IPV6)
    group(multiplexer, new=IPV6, old=LOOPBACK)
    assert told(multiplexer) == {"new": (0, 1, 0), "old": (0, 0, 0)}


async def test_a_reset_sets_groups_to_zero_too(
    multiplex: Multiplex, connect: Connect
) -> None:
    multiplexer = await multiplex()
    group(multiplexer, here=LOOPBACK, six=IPV6)
    await asked(multiplexer, 1)
    client = await connect(multiplexer)
    await client.ask(read())
    multiplexer.reset_statistics()
    assert told(multiplexer) == {"here": (1, 0, 0), "six": (0, 0, 0)}
    await client.ask(read())
    client.close()
    await until(lambda: not multiplexer.snapshot().clients)
    assert told(multiplexer) == {"here": (0, 1, 0), "six": (0, 0, 0)}
    group(multiplexer, six=IPV6)
    await asked(multiplexer, 1)
    client = await connect(multiplexer)
    multiplexer.reset_statistics()  # of one that is in no group
    assert told(multiplexer) == {"six": (0, 0, 0)}
