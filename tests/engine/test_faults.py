"""docs/faults.md says what happens: all faults are played again, on real sockets."""

from __future__ import annotations

import pytest

from .faults import FAULTS, PAGE, PROTOCOLS, page, play_all, read_page


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_faults_are_as_the_page_says(protocol: str) -> None:
    said = read_page(PAGE.read_text("utf-8"))[protocol]
    assert await play_all(protocol) == said


def test_page_is_as_it_is_written() -> None:
    text = PAGE.read_text("utf-8")
    assert page(read_page(text)) == text


def test_no_fault_is_left_out() -> None:
    assert len(FAULTS) == 25
    assert all(fault.only for fault in FAULTS)
