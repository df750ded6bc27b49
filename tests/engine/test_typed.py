"""What people type or paste is read in the way in which they meant it."""

from __future__ import annotations

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    numbers_from,
    numbers_to_text,
    pairs_from,
    place_in,
    range_from,
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("http://192.168.1.20/", "192.168.1.20"),
        (" 192.168.1.20/ ", "192.168.1.20"),
        ("HTTPS://Inverter.local:8443/index.html?a#b", "Inverter.local:8443"),
        ("tcp://192.0.2.1:1502", "192.0.2.1:1502"),
        ("modbus+tcp://user@[fd00::5]:502", "[fd00::5]:502"),
        ("inverter.local:502", "inverter.local:502"),
        # what is no address of a device stays as it is, and is refused as that
        ("rfc2217://192.0.2.1:502", "rfc2217://192.0.2.1:502"),
        ("192.0.2.1/24", "192.0.2.1/24"),
        ("http://", "http:/"),
    ],
)
def test_pasted_url_is_the_place_in_it(text: str, place: str) -> None:
    assert place_in(text) == place


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        ("3, 4 0x10", [3, 4, 16]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("1 \N{EN DASH} 3,9", [1, 2, 3, 9]),
        ("7-7", [7]),
    ],
)
def test_lists_of_numbers_and_ranges(text: str, numbers: list[int]) -> None:
    assert numbers_from(text) == numbers


@pytest.mark.parametrize("text", ["5-1", "-5", "5-", "1-2-3", "a", "0-65536", "1.5"])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its text is nobody's business
        numbers_from(text)


@given(st.lists(st.integers(0, 300)))
def test_numbers_are_shown_as_they_can_be_typed(numbers: list[int]) -> None:
    assert numbers_from(numbers_to_text(numbers)) == numbers


def test_three_in_a_row_are_shown_as_a_range() -> None:
    assert numbers_to_text([1, 2, 4, 5, 6, 9, 8]) == "1, 2, 4-6, 9, 8"


def test_range_has_a_first_and_a_last() -> None:
    assert range_from("100-0x65") == (100, 101)
    assert range_from("100") == (100, 100)


@pytest.mark.parametrize("text", ["1=10, 2=11", "1:10,2:11", "1 : 10 2= 11"])
def test_pairs_have_either_sign(text: str) -> None:
    assert pairs_from(text) == [(1, 10), (2, 11)]


@pytest.mark.parametrize("text", ["1", "1=2=3", "1:2=3", "=1", "a=b", "1->2"])
def test_what_is_no_pair(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        pairs_from(text)
