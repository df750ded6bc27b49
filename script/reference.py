"""Fill the tables of the manual with the words of the dialogs.

A page of the manual has places for what the translations say already: fields, actions,
events, repairs, device profiles. They stand between a line that says what belongs there
and one that ends it:

    <!-- fields: options preferences connection -->
    <!-- end -->

So the manual and the dialogs use the same words, in every language that the manual is
written in. `script/manual` calls this; a test sees that all places are current.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
import json
from pathlib import Path
import re
import sys
from typing import Any, Final

from custom_components.tcp_multiplexer.flow.fields import DEFAULTS, FIELDS, to_show
from custom_components.tcp_multiplexer.multiplexer import PROFILES
from custom_components.tcp_multiplexer.telling import SHOWN_TYPES

ROOT: Final = Path(__file__).parents[1]
TRANSLATIONS: Final = ROOT / "custom_components/tcp_multiplexer/translations"
LANGUAGES: Final = ("en", "de")
"""Those that the manual is written in; the dialogs have more."""

_PLACE: Final = re.compile(
    r"(?P<start><!-- (?P<kind>[a-z]+):? ?(?P<what>[\w ]*) -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)
_EXAMPLES: Final = {
    "who": "evcc (192.168.1.5)",
    "title": "Inverter",
    "neighbour": "SolarEdge",
    "host": "192.168.1.20",
    "port": "502",
    "local_host": "127.0.0.1",
    "local_port": "5020",
    "error": "Permission denied",
    "clients": "* evcc (192.168.1.5)",
    "network": "2001:db8:1:2::/64",
    **{f"client_{number}": f"192.168.1.{number + 4}" for number in range(1, 6)},
}
"""What stands for the placeholders of texts."""
_LISTEN_PORT: Final = {"cannot_listen": "5020", "port_taken": "5020"}
"""Repairs whose port is not the device's."""

_OWN_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "field": "Field",
        "option": "Option",
        "default": "Default",
        "does": "What it does",
        "enter": "What to enter",
        "type": "Type",
        "name": "Name",
        "row": "In the logbook",
        "on": "on",
        "off": "off",
        "nothing": "-",
        "value": "Value",
        "source": "Source",
        "units": "Units asked first",
        "choices": "Choices",
        "fix": "The repair offers",
        "as_generic": "The defaults.",
    },
    "de": {
        "field": "Feld",
        "option": "Option",
        "default": "Vorgabe",
        "does": "Was sie bewirkt",
        "enter": "Was hineingehört",
        "type": "Typ",
        "name": "Name",
        "row": "Im Logbuch",
        "on": "an",
        "off": "aus",
        "nothing": "-",
        "value": "Wert",
        "source": "Quelle",
        "units": "Zuerst gefragte Units",
        "choices": "Auswahl",
        "fix": "Die Reparatur bietet an",
        "as_generic": "Die Vorgaben.",
    },
}
"""The words of the manual that no dialog has."""

_SAID_ELSEWHERE: Final = {"allowed_networks", "max_body"}
"""Options whose default is better said than shown."""


@cache
def words(language: str) -> Any:
    """Return the translations of a language."""
    return json.loads((TRANSLATIONS / f"{language}.json").read_text())


def pages(language: str) -> list[Path]:
    """Return the pages of the manual in a language, the README first."""
    english = language == "en"
    readme = ROOT / ("README.md" if english else f"README.{language}.md")
    folder = ROOT / "docs" / ("" if english else language)
    found = [*folder.glob("*.md"), *folder.glob("recipes/*.md")]
    return [readme, *sorted(page for page in found if page.name != "design.md")]


def with_examples(text: str, **others: str) -> str:
    """Replace the placeholders of a text by examples."""
    text = text.replace(" ({detail})", "")
    return text.format_map({**_EXAMPLES, "detail": "2", **others})


def table(*rows: tuple[str, ...]) -> Iterator[str]:
    """Return the lines of a table; the first row is its head."""
    for number, row in enumerate(rows):
        cells = (" ".join(cell.split()).replace("|", r"\|") for cell in row)
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{' --- |' * len(row)}"


# ---- what may stand in a place -----------------------------------------------------


def fields(language: str, what: str) -> Iterator[str]:
    """Return the fields of a step, or of a section of it: `config user tls`."""
    own = _OWN_WORDS[language]
    match what.split():
        case ["subentry", kind, step]:
            part = words(language)["config_subentries"][kind]["step"][step]
        case ["subentry", kind, step, section]:
            steps = words(language)["config_subentries"][kind]["step"]
            part = steps[step]["sections"][section]
        case [flow, step]:
            part = words(language)[flow]["step"][step]
        case [flow, step, section]:
            part = words(language)[flow]["step"][step]["sections"][section]
        case _:
            raise KeyError(what)
    described = part["data_description"]
    if what.startswith("options "):
        yield from table(
            (own["option"], own["default"], own["does"]),
            *(
                (label, _default(language, name), described[name])
                for name, label in part["data"].items()
            ),
        )
    else:
        yield from table(
            (own["field"], own["enter"]),
            *((label, described[name]) for name, label in part["data"].items()),
        )


def _default(language: str, name: str) -> str:
    """Return the default of an option, as its form shows it."""
    own = _OWN_WORDS[language]
    choices = words(language)["selector"].get(name, {}).get("options", {})
    value = to_show(name, DEFAULTS[name])
    if name in _SAID_ELSEWHERE or value in ("", [], None):
        return own["nothing"]
    return str(choices[value]) if value in choices else _shown(language, name, value)


def _shown(language: str, name: str, value: Any) -> str:
    """Return a value of a field with its unit, or a switch as on or off."""
    own = _OWN_WORDS[language]
    if isinstance(value, bool):
        return own["on" if value else "off"]
    selector = getattr(FIELDS[name], "validators", [FIELDS[name]])[0]
    unit = selector.config.get("unit_of_measurement", "")
    return f"{value:g} {unit}".strip()


def choices(language: str, what: str) -> Iterator[str]:
    """Return what can be chosen in a field."""
    for text in words(language)["selector"][what]["options"].values():
        yield f"* {text}"


def rules(language: str, what: str) -> Iterator[str]:
    """Return the parts of a rule for writes."""
    own = _OWN_WORDS[language]
    parts = words(language)["selector"][what]["fields"].values()
    yield from table(
        (own["field"], own["enter"]),
        *((part["name"], part["description"]) for part in parts),
    )


def events(language: str, _what: str) -> Iterator[str]:
    """Return the types of events, with what the logbook says."""
    own = _OWN_WORDS[language]
    entity = words(language)["entity"]["event"]["upstream_and_clients"]
    names = entity["state_attributes"]["event_type"]["state"]
    rows = words(language)["common"]
    yield from table(
        (own["type"], own["name"], own["row"]),
        *(
            (f"`{shown}`", names[shown], with_examples(rows[f"event_{shown}"]))
            for shown in SHOWN_TYPES
        ),
    )


def actions(language: str, _what: str) -> Iterator[str]:
    """Return the actions, each with its fields."""
    own = _OWN_WORDS[language]
    for name, action in words(language)["services"].items():
        yield f"### {action['name']}"
        yield ""
        yield f"`tcp_multiplexer.{name}`: {action['description']}"
        yield ""
        yield from table(
            (own["field"], own["name"], own["enter"]),
            *(
                (f"`{field}`", text["name"], text["description"])
                for field, text in action["fields"].items()
            ),
        )
        yield ""


def repairs(language: str, _what: str) -> Iterator[str]:
    """Return the repairs, each as its dialog says it."""
    own = _OWN_WORDS[language]
    for key, issue in words(language)["issues"].items():
        examples = {"port": _LISTEN_PORT[key]} if key in _LISTEN_PORT else {}
        yield f"## {with_examples(issue['title'], **examples)}"
        yield ""
        if "description" in issue:
            yield with_examples(issue["description"], **examples)
            yield ""
            continue
        first = next(iter(issue["fix_flow"]["step"].values()))
        yield with_examples(first["description"], **examples)
        yield ""
        if menu := first.get("menu_options"):
            yield f"{own['fix']}:"
            yield ""
            for choice in menu.values():
                yield f"* {with_examples(choice)}"
            yield ""


def profiles(language: str, _what: str) -> Iterator[str]:
    """Return the device profiles, with what each sets and why."""
    own = _OWN_WORDS[language]
    text = words(language)
    labels = {
        "framing": text["config"]["step"]["user"]["data"]["upstream"],
        **{
            name: label
            for section in text["options"]["step"]["preferences"]["sections"].values()
            for name, label in section["data"].items()
        },
    }
    for name, profile in PROFILES.items():
        yield f"### {text['selector']['profile']['options'][name]}"
        yield ""
        if not profile.advice:
            yield own["as_generic"]
            yield ""
            continue
        rows = [
            (labels[setting], _advised(language, setting, advice.value), advice.source)
            for setting, advice in profile.advice.items()
        ]
        if profile.units != (1,):
            rows.append((own["units"], ", ".join(map(str, profile.units)), ""))
        yield from table(("", own["value"], own["source"]), *rows)
        yield ""
        if profile.notes:
            yield profile.notes
            yield ""


def _advised(language: str, name: str, value: Any) -> str:
    """Return what a profile sets, as the form shows it."""
    if name == "framing":
        return str(words(language)["selector"]["upstream"]["options"][value])
    return _shown(language, name, value)


_KINDS: Final[Mapping[str, Callable[[str, str], Iterator[str]]]] = {
    "actions": actions,
    "choices": choices,
    "events": events,
    "fields": fields,
    "profiles": profiles,
    "repairs": repairs,
    "rules": rules,
}


def filled(text: str, language: str) -> str:
    """Return a page with all of its places filled.

    Raises:
        KeyError: a place names something that the translations do not have.

    """

    def fill(place: re.Match[str]) -> str:
        lines = _KINDS[place["kind"]](language, place["what"])
        content = "\n".join(lines).strip("\n")
        return f"{place['start']}\n{content}\n\n{place['end']}"

    return _PLACE.sub(fill, text)


def main(arguments: list[str]) -> int:
    """Fill all pages; with --check, only say which are not current."""
    stale = [
        (page, text)
        for language in LANGUAGES
        for page in pages(language)
        if (text := filled(old := page.read_text(), language)) != old
    ]
    for page, text in stale:
        print(page.relative_to(ROOT))
        if "--check" not in arguments:
            page.write_text(text)
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
