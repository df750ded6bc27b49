"""Requests in words, as owners write them."""

from __future__ import annotations

import pytest

from custom_components.tcp_multiplexer.multiplexer import Settings, SettingsError
from custom_components.tcp_multiplexer.multiplexer.protocols import PROTOCOLS
from custom_components.tcp_multiplexer.multiplexer.settings import make_protocol


@pytest.mark.parametrize(
    ("words", "payload"),
    [
        ("unit=1 read=40608", "01 03 9e a0 00 01"),
        ("read=0x10  count=2 function=4 unit=0xF7", "f7 04 00 10 00 02"),
        ("unit=1 read=0 count=2000 function=1", "01 01 00 00 07 d0"),
        ("unit=1 write=49999 value=1", "01 06 c3 4f 00 01"),
        ("unit=1 write=1 value=1,0xFFFF", "01 10 00 01 00 02 04 00 01 ff ff"),
        ("unit=1 write=1 value=7 function=16", "01 10 00 01 00 01 02 00 07"),
        ("unit=2 write=1 value=1 function=5", "02 05 00 01 ff 00"),
        ("unit=2 write=1 value=0 function=5", "02 05 00 01 00 00"),
    ],
)
def test_words_say_a_request(words: str, payload: str) -> None:
    protocol = make_protocol(Settings(host="x", periodic_request=words))
    assert protocol.worded(words).payload == bytes.fromhex(payload)


@pytest.mark.parametrize(
    "words",
    [
        "hello",
        "read=1",
        "unit=1",
        "unit=256 read=1",
        "unit=1,2 read=1",
        "unit=1 read=65536",
        "unit=1 read=-1",
        "unit=1 read=x",
        "unit=1 read=1 count=126",
        "unit=1 read=1 count=0",
        "unit=1 read=1 function=6",
        "unit=1 read=1 value=1",
        "unit=1 read=1 read=2",
        "unit=1 read=1 write=2",
        "unit=1 read=1 pace=2",
        "unit=1 write=1",
        "unit=1 write=1 value=65536",
        "unit=1 write=1 value=2 function=5",
        "unit=1 write=1 value=1,2 function=6",
        "unit=1 write=1 value=1 function=300",
        "unit=1 write=1 value=1 function=3",
    ],
)
def test_other_words_are_refused_with_an_example(words: str) -> None:
    with pytest.raises(SettingsError, match="write 'unit=1 read=40608'") as caught:
        Settings(host="x", periodic_request=words)
    assert caught.value.field == "periodic_request"


def test_other_protocols_have_no_words() -> None:
    for name in set(PROTOCOLS) - {"modbus"}:
        with pytest.raises(ValueError, match="unit=1 read=1"):
            make_protocol(Settings(host="x", protocol=name)).worded("unit=1 read=1")
