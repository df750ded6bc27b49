"""What is known of a setting, besides its name, type and default: its row."""

from __future__ import annotations

from dataclasses import dataclass, field
import enum


class Section(enum.StrEnum):
    """The sections of forms and help, in order."""

    CONNECTION = "connection"
    RECOVERY = "recovery"
    POOL = "pool"
    MODBUS = "modbus"
    ACCESS = "access"
    RECORD = "record"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is known of a setting besides its name, type and default."""

    section: Section | None = None
    """None: forms and the command line handle it separately, such as an address."""
    help: str = ""
    """The text in the command line's help."""
    bounds: tuple[float, float] | None = None
    """Minimum and maximum of a number, or of every number in a tuple."""
    unit: str = ""
    """The unit of a number, if not seconds (`float`) or a plain count (`int`)."""
    live: bool = False
    """Whether it can be changed without a restart, which would drop clients."""


def setting[ValueT](
    default: ValueT,
    section: Section | None = None,
    text: str = "",
    *,
    bounds: tuple[float, float] | None = None,
    unit: str = "",
    live: bool = False,
) -> ValueT:
    """Return a field with its row, typed as its default, like `dataclasses.field`."""
    row = Row(section=section, help=text, bounds=bounds, unit=unit, live=live)
    made: ValueT = field(default=default, metadata={"row": row})
    return made
