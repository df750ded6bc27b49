"""What a soak calls a leak."""

from .verdict import ALLOWED, leaks

SETTLED = dict.fromkeys(ALLOWED, 100 << 20)


def test_what_stays_as_it_is_is_no_leak() -> None:
    assert leaks(SETTLED, SETTLED) == []
    less = {name: value - 1000 for name, value in SETTLED.items()}
    assert leaks(SETTLED, less) == []


def test_whatever_grows_is_named() -> None:
    for name, allowed in ALLOWED.items():
        assert leaks(SETTLED, SETTLED | {name: SETTLED[name] + allowed}) == []
        (found,) = leaks(SETTLED, SETTLED | {name: SETTLED[name] + allowed + 1})
        assert found.startswith(f"{name}: 104,857,600 when settled")
