"""How the file descriptors of a process are told to run out."""

from __future__ import annotations

import resource
import sys
from types import SimpleNamespace

import pytest

from custom_components.tcp_multiplexer.multiplexer.sockets import is_one_too_many


@pytest.mark.parametrize(
    ("limit", "last"),
    [
        (1024, 959),  # 64 stay free
        (100_000, 99_935),
        (64, 47),  # a quarter does where the limit is low
    ],
)
def test_a_few_descriptors_stay_free_for_the_device(
    monkeypatch: pytest.MonkeyPatch, limit: int, last: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert not is_one_too_many(SimpleNamespace(fileno=lambda: last))
    assert is_one_too_many(SimpleNamespace(fileno=lambda: last + 1))


def test_without_a_limit_none_is_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    assert not is_one_too_many(SimpleNamespace(fileno=lambda: 1_000_000))


def test_where_there_is_no_such_limit_none_is_one_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(sys, "platform", "win32")
    assert not is_one_too_many(SimpleNamespace(fileno=lambda: 1_000_000))
