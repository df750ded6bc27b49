"""The local addresses of a device, with the settings that say them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..settings import Settings
    from .toml_lines import KeyPath


def places(settings: Settings) -> Iterator[tuple[KeyPath, str | None, int]]:
    """Yield the local addresses that a device needs, with the keys that set them."""
    yield ("listen_port",), settings.listen_host, settings.listen_port
    for position, listener in enumerate(settings.more_listeners):
        yield ("more_listeners", position, "port"), listener.host, listener.port
    if settings.dial_in is not None:
        yield ("dial_in", "port"), settings.dial_in.host, settings.dial_in.port
