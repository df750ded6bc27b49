"""The list of rules for writes in the form: what may be typed, and how it is stored."""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final

from homeassistant.helpers.selector import (
    ObjectSelector,
    ObjectSelectorConfig,
    ObjectSelectorField,
)

from ..const import CONF_WRITE_RULES
from ..entry_settings import networks_of
from ..multiplexer import (
    SettingsError,
    WriteAction,
    WriteRule,
    numbers_from,
    numbers_to_text,
    range_from,
)
from ..named_clients import NamedClient

_ACTION: Final = "action"
_CLIENTS: Final = "clients"
_UNITS: Final = "units"
_FUNCTIONS: Final = "functions"
_REGISTERS: Final = "registers"


class RowError(ValueError):
    """What was typed in a row cannot be used; `key` names the translated reason."""

    def __init__(self, row: int, condition: str, value: str) -> None:
        super().__init__(row, condition, value)
        self.key = f"invalid_rule_{condition}"
        self.placeholders = {"row": str(row), "value": value}


def _text(before: str = "", *, several: bool = False) -> ObjectSelectorField:
    """Return the field of a condition; `before` says in the list what it is."""
    return ObjectSelectorField(
        selector={"text": {"prefix": before, "multiple": several}}
    )


def _rows(fields: dict[str, ObjectSelectorField]) -> ObjectSelector:
    return ObjectSelector(
        ObjectSelectorConfig(
            multiple=True, translation_key=CONF_WRITE_RULES, fields=fields
        )
    )


_FIELDS: Final = {
    _ACTION: ObjectSelectorField(
        # Rows show what is chosen as it is, so these words have no others.
        selector={"select": {"options": [str(each) for each in WriteAction]}},
        required=True,
    ),
    _CLIENTS: _text(several=True),
    # These abbreviations are the same in every language.
    _UNITS: _text("Unit "),
    _FUNCTIONS: _text("FC "),
    _REGISTERS: _text("Reg. "),
}
WRITE_RULES: Final = _rows(_FIELDS)
CLIENT_WRITE_RULES: Final = _rows(
    {name: field for name, field in _FIELDS.items() if name != _CLIENTS}
)
"""The rules of one client."""


def _clients_from(texts: list[str]) -> list[str]:
    """Parse networks; what is none is the name of a client."""
    clients = []
    for text in filter(None, map(str.strip, texts)):
        try:
            clients.append(str(ip_network(text, strict=False)))
        except ValueError:
            clients.append(text)
    return clients


_READERS: Final[dict[str, Callable[[Any], list[Any]]]] = {
    _CLIENTS: _clients_from,
    _UNITS: numbers_from,
    _FUNCTIONS: numbers_from,
    _REGISTERS: lambda text: list(range_from(text)),
}
"""From what is typed to what is stored, by condition."""


def rules_to_store(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert what was typed to what is stored.

    Raises:
        RowError: a condition cannot be read, or a rule would never be reached.

    """
    stored = [_row_to_store(number, row) for number, row in enumerate(rows, 1)]
    for number, rule in enumerate(stored, 1):
        for before, earlier in enumerate(stored[: number - 1], 1):
            if _decides_first(earlier, rule):
                raise RowError(number, "order", str(before))
    return stored


def _decides_first(earlier: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    """Return whether no write that `rule` matches gets past the `earlier` one."""
    for condition in (_CLIENTS, _UNITS, _FUNCTIONS):
        asked, given = rule.get(condition), earlier.get(condition)
        if given and not (asked and set(asked) <= set(given)):
            return False
    if (given := earlier.get(_REGISTERS)) is None:
        return True
    # What lies partly outside of an *allow* gets past it (`WriteRule.matches`).
    return (
        earlier[_ACTION] != WriteAction.ALLOW
        and (asked := rule.get(_REGISTERS)) is not None
        and given[0] <= asked[0]
        and asked[1] <= given[1]
    )


def _row_to_store(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    stored: dict[str, Any] = {_ACTION: row[_ACTION]}
    for condition, read in _READERS.items():
        if not (typed := row.get(condition)):
            continue
        try:
            value = read(typed)
            if condition != _CLIENTS:
                WriteRule(action=WriteAction.DENY, **{condition: tuple(value)})
        except ValueError:
            raise RowError(number, condition, typed) from None
        if value:
            stored[condition] = value
    return stored


def check_clients(
    rules: Sequence[Mapping[str, Any]], clients: Sequence[NamedClient]
) -> None:
    """Check that every client of stored rules is a network, or one of `clients`.

    Raises:
        RowError: one is neither.

    """
    names = {client.name: client.networks for client in clients}
    for number, rule in enumerate(rules, 1):
        for client in rule.get(_CLIENTS, ()):
            try:
                networks_of(client, names)
            except SettingsError:
                raise RowError(number, _CLIENTS, client) from None


_SHOWN: Final[dict[str, Callable[[list[int]], str]]] = {
    _UNITS: numbers_to_text,
    _FUNCTIONS: numbers_to_text,
    _REGISTERS: lambda range_: "-".join(map(str, range_)),
}


def rules_to_show(rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert what is stored to the rows of the form."""
    return [
        {
            condition: show(value) if (show := _SHOWN.get(condition)) else value
            for condition, value in rule.items()
        }
        for rule in rules
    ]
