"""The manual: README, its pages in docs/, and both in German.

It leaves nothing out, says the same in both languages, has the words of the dialogs,
and its examples are what Home Assistant takes.
"""

import argparse
from collections.abc import Iterator, Sequence
import json
from pathlib import Path
import re
import tomllib
from typing import Any, Final

from homeassistant.components.modbus import CONFIG_SCHEMA as MODBUS_SCHEMA
from homeassistant.core import HomeAssistant
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.entity import EntityDescription
from homeassistant.setup import async_setup_component
import pytest
import yaml

from custom_components.tcp_multiplexer.binary_sensor import BINARY_SENSORS
from custom_components.tcp_multiplexer.button import RECONNECT
from custom_components.tcp_multiplexer.client_entities import (
    CLIENT_BINARY_SENSORS,
    CLIENT_SENSORS,
)
from custom_components.tcp_multiplexer.event import UPSTREAM_AND_CLIENTS
from custom_components.tcp_multiplexer.multiplexer import PROFILES, PROTOCOLS
from custom_components.tcp_multiplexer.multiplexer.command_line.convert import convert
from custom_components.tcp_multiplexer.multiplexer.command_line.flags import add_flags
from custom_components.tcp_multiplexer.multiplexer.command_line.main import main
from custom_components.tcp_multiplexer.sensor import LISTEN_ADDRESS, SENSORS
from custom_components.tcp_multiplexer.switch import PAUSE
from script import reference

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
QUALITY_SCALE: Final = ROOT / "custom_components/tcp_multiplexer/quality_scale.yaml"
PAGES: Final = {
    page.relative_to(ROOT).as_posix(): language
    for language in reference.LANGUAGES
    for page in reference.pages(language)
}
MOST_LINES_OF_README: Final = 250
MOST_STEPS: Final = 7
"""To the first shared value."""


def text_of(language: str) -> str:
    """Return all pages of a language, one behind the other."""
    return "\n".join(page.read_text() for page in reference.pages(language))


def german(page: str) -> Path | None:
    """Return the German counterpart of an English page, if there is one."""
    path = Path(page)
    twin = (
        ROOT / "README.de.md"
        if page == "README.md"
        else DOCS / "de" / path.relative_to("docs")
    )
    return twin if twin.exists() else None


# ---- the same in both languages ----------------------------------------------------

TRANSLATED: Final = [
    page for page, language in PAGES.items() if language == "en" and german(page)
]


def shape(text: str) -> list[str]:
    """Return what two pages with the same content have in common, in order.

    That is the level of headings, the columns of each row of a table, items of lists,
    the beginnings of code, and pictures.
    """
    found = []
    code = False
    for line in text.split("\n"):
        if line.startswith("```"):
            code = not code
            found.append(line)
        elif code:
            continue
        elif match := re.match(r"(#+) |(\|)|( *(?:\*|\d+\.) )|!\[.*\]\((.*)\)", line):
            heading, row, item, picture = match.groups()
            if row:
                found.append("|" * line.replace(r"\|", "").count("|"))
            else:
                found.append(heading or item or Path(picture).name)
        elif match := re.fullmatch(r"<!-- (.*) -->", line):
            found.append(match[1])
    return found


@pytest.mark.parametrize("page", TRANSLATED)
def test_german_has_the_same_headings_tables_and_lists(page: str) -> None:
    twin = german(page)
    assert twin is not None
    assert shape(twin.read_text()) == shape((ROOT / page).read_text())


@pytest.mark.parametrize("page", TRANSLATED)
def test_german_leads_to_the_same_places(page: str) -> None:
    """Where there is a German page, to that one."""
    twin = german(page)
    assert twin is not None

    def targets(path: Path) -> Iterator[Path]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            yield (path.parent / target).resolve()

    wanted = []
    for target in targets(ROOT / page):
        inside = target.relative_to(ROOT).as_posix()
        other = german(inside) if PAGES.get(inside) == "en" else None
        wanted.append(other or target)
    # Two pages that name each other as the other language do not name themselves.
    assert {*targets(twin)} - {ROOT / page} == {*wanted} - {twin}


def test_german_has_what_an_owner_looks_up() -> None:
    """Fields, options, entities, events, actions, repairs, and what to do."""
    names = {Path(page).name for page in TRANSLATED}
    assert names >= {
        "README.md",
        "actions.md",
        "clients.md",
        "connections.md",
        "devices.md",
        "entities.md",
        "events.md",
        "options.md",
        "repairs.md",
        "setup.md",
        "tls.md",
        "troubleshooting.md",
        "write-rules.md",
    }


# ---- short enough, and all of it found ---------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "README.de.md"])
def test_readme_is_short(page: str) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= MOST_LINES_OF_README


@pytest.mark.parametrize(
    ("page", "heading"),
    [("README.md", "Setting it up"), ("README.de.md", "Einrichten")],
)
def test_first_value_takes_few_steps_and_no_file(page: str, heading: str) -> None:
    section = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2]
    section = section.partition("\n## ")[0]
    steps = re.findall(r"^\d+\. ", section, re.MULTILINE)
    assert 0 < len(steps) <= MOST_STEPS
    assert not re.findall(r"yaml|configuration", section.partition("| ---")[0])


@pytest.mark.parametrize(
    ("index", "language"), [("docs/README.md", "en"), ("docs/de/README.md", "de")]
)
def test_index_names_every_page(index: str, language: str) -> None:
    text = (ROOT / index).read_text()
    for page in reference.pages("en")[1:]:
        named = page
        if twin := german(page.relative_to(ROOT).as_posix()):
            named = twin if language == "de" else page
        if named == ROOT / index:
            continue
        path = Path(index).parent
        while not named.is_relative_to(ROOT / path):
            path = path.parent
        up = "../" * (len(Path(index).parent.parts) - len(path.parts))
        assert f"({up}{named.relative_to(ROOT / path)})" in text


NAMES_OF_LANGUAGES: Final = {
    "cs": ("Czech", "Tschechisch"),
    "de": ("German", "Deutsch"),
    "en": ("English", "Englisch"),
    "es": ("Spanish", "Spanisch"),
    "fr": ("French", "Französisch"),
    "it": ("Italian", "Italienisch"),
    "nl": ("Dutch", "Niederländisch"),
    "pl": ("Polish", "Polnisch"),
}


def test_readme_names_the_languages_of_the_dialogs() -> None:
    for path in reference.TRANSLATIONS.glob("*.json"):
        for page, name in zip(
            ("README.md", "README.de.md"), NAMES_OF_LANGUAGES[path.stem], strict=True
        ):
            assert name in (ROOT / page).read_text()


# ---- nothing is left out -----------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_tables_have_the_words_of_the_dialogs(page: str) -> None:
    """`script/manual` makes them anew."""
    text = (ROOT / page).read_text()
    assert reference.filled(text, PAGES[page]) == text


def flows(words: Any) -> list[Any]:
    """Return the words of all dialogs, by dialog."""
    return [words["config"], words["options"], *words["config_subentries"].values()]


@pytest.mark.parametrize("language", reference.LANGUAGES)
def test_manual_leaves_nothing_out(language: str) -> None:
    """Fields and options, entities, events, actions, repairs, profiles."""
    manual = text_of(language).lower()
    words = reference.words(language)
    names = {
        entity["name"]
        for entities in words["entity"].values()
        for entity in entities.values()
    }
    event = words["entity"]["event"]["upstream_and_clients"]["state_attributes"]
    for shown, name in event["event_type"]["state"].items():
        names |= {f"`{shown}`", name}
    names |= {f"`{attribute}`" for attribute in event if attribute != "event_type"}
    for action, said in words["services"].items():
        names |= {f"`tcp_multiplexer.{action}`", said["name"]}
        names |= {f"`{field}`" for field in said["fields"]}
    for issue in words["issues"].values():
        names.add(reference.with_examples(issue["title"], port="5020"))
    for flow in flows(words):
        for step in flow["step"].values():
            for part in (step, *step.get("sections", {}).values()):
                names |= set(part.get("data", {}).values())
    for selector in ("profile", "upstream", "tls_upstream", "tls_clients"):
        names |= set(words["selector"][selector]["options"].values())
    assert not {name for name in names if name.lower() not in manual}


def test_automations_name_every_blueprint() -> None:
    page = (DOCS / "automations.md").read_text()
    for blueprint in (ROOT / "blueprints").rglob("*.yaml"):
        assert f"[{blueprint.name}]" in page


def test_every_profile_and_protocol_is_described() -> None:
    page = (DOCS / "devices.md").read_text()
    for profile in PROFILES.values():
        assert profile.notes in page
    rows = re.findall(r"^\| .*\*\* .*\|$", page, re.MULTILINE)
    # Modbus has three rows more: two framings, and serial lines.
    assert len(rows) == len(PROTOCOLS) + 3


def test_command_line_has_every_flag() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    known = set(re.findall(r"(?<=[ ,])--[a-zA-Z][\w-]*", parser.format_help()))
    assert len(known) > 40
    page = (DOCS / "command-line.md").read_text()
    for flag in known - {"--help"}:
        # Of a switch, the side that differs from the default is enough.
        opposite = flag.replace("--no-", "--") if "--no-" in flag else f"--no{flag[1:]}"
        assert f"`{flag}`" in page or (opposite in known and f"`{opposite}`" in page), (
            flag
        )


MULTIPLEXER: Final[dict[str, Sequence[EntityDescription]]] = {
    "binary_sensor": BINARY_SENSORS,
    "button": [RECONNECT],
    "event": [UPSTREAM_AND_CLIENTS],
    "sensor": [*SENSORS, LISTEN_ADDRESS],
    "switch": [PAUSE],
}
CLIENT: Final[dict[str, Sequence[EntityDescription]]] = {
    "binary_sensor": CLIENT_BINARY_SENSORS,
    "sensor": CLIENT_SENSORS,
}
KINDS: Final = {
    "en": {
        "binary_sensor": "binary sensor",
        "button": "button",
        "event": "event",
        "sensor": "sensor",
        "switch": "switch",
        "config": ", configuration",
        "diagnostic": ", diagnostic",
        "None": "",
    },
    "de": {
        "binary_sensor": "Binärsensor",
        "button": "Taste",
        "event": "Ereignis",
        "sensor": "Sensor",
        "switch": "Schalter",
        "config": ", Konfiguration",
        "diagnostic": ", Diagnose",
        "None": "",
    },
}


@pytest.mark.parametrize(
    ("page", "heading", "device"),
    [
        ("docs/entities.md", "# Entities", MULTIPLEXER),
        ("docs/entities.md", "## Entities of clients", CLIENT),
        ("docs/de/entities.md", "# Entitäten", MULTIPLEXER),
        ("docs/de/entities.md", "## Entitäten der Clients", CLIENT),
    ],
)
def test_manual_says_of_entities_what_they_are(
    page: str, heading: str, device: dict[str, Sequence[EntityDescription]]
) -> None:
    """Their platform, their category, and whether they are disabled (a circle)."""
    language = PAGES[page]
    text = f"\n{(ROOT / page).read_text()}"
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", section, re.MULTILINE)[2:]
    said = {
        name: (kind, "○" in names)
        for names, kind in rows
        for name in names.removesuffix(" ○").split(", ")
    }
    words, kinds = reference.words(language)["entity"], KINDS[language]
    assert said == {
        words[platform][str(description.translation_key)]["name"]: (
            kinds[platform] + kinds[str(description.entity_category)],
            not description.entity_registry_enabled_default,
        )
        for platform, entities in device.items()
        for description in entities
    }


SECTIONS: Final = {
    "docs-actions": "docs/actions.md: Actions",
    "docs-configuration-parameters": "docs/options.md: Options",
    "docs-data-update": "docs/entities.md: How data is updated",
    "docs-examples": "docs/automations.md: Automations",
    "docs-high-level-description": "README.md: Do I need this?",
    "docs-installation-instructions": "README.md: Installation",
    "docs-installation-parameters": "docs/setup.md: Adding a device",
    "docs-known-limitations": "docs/limitations.md: Known limitations",
    "docs-removal-instructions": "docs/setup.md: Removal",
    "docs-supported-devices": "docs/devices.md: Devices and protocols",
    "docs-supported-functions": "docs/entities.md: Entities",
    "docs-troubleshooting": "docs/troubleshooting.md: When something is wrong",
    "docs-use-cases": "README.md: Use cases",
}
"""Where the manual does what a rule of the quality scale asks for."""


def test_manual_has_what_the_quality_scale_claims() -> None:
    rules = yaml.safe_load(QUALITY_SCALE.read_text())["rules"]
    for rule, status in rules.items():
        if rule.startswith("docs-") and status == "done":
            page, _, heading = SECTIONS[rule].partition(": ")
            text = (ROOT / page).read_text()
            assert heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE), rule


# ---- examples are what they are for ------------------------------------------------


def code(language: str) -> list[tuple[str, str]]:
    """Return the blocks of code in a language, with the page of each."""
    found = []
    for page in PAGES:
        for indent, block in re.findall(
            rf"^( *)```{language}\n(.*?)^ *```",
            (ROOT / page).read_text(),
            re.MULTILINE | re.DOTALL,
        ):
            found.append((page, re.sub(f"^{indent}", "", block, flags=re.MULTILINE)))
    assert found
    return found


def test_code_can_be_read() -> None:
    for page, block in code("json"):
        assert json.loads(block), page
    for page, block in code("python"):
        compile(
            f"async def f():\n{re.sub('^', '    ', block, flags=re.MULTILINE)}",
            page,
            "exec",
        )


async def test_home_assistant_takes_the_examples(hass: HomeAssistant) -> None:
    """Hubs, automations, and sequences of actions; what is not its own is skipped."""
    assert await async_setup_component(hass, "homeassistant", {})
    tried = set()
    for page, block in code("yaml"):
        example = yaml.safe_load(block)
        assert example, page
        if "modbus" in example:
            MODBUS_SCHEMA({"modbus": example["modbus"]})
            tried.add("modbus")
        automations = example.get("automation") or []
        if "triggers" in example:
            automations = [example]
        for automation in automations:
            for part, schema in (
                ("triggers", cv.TRIGGER_SCHEMA),
                ("conditions", cv.CONDITIONS_SCHEMA),
                ("actions", cv.SCRIPT_SCHEMA),
            ):
                if part in automation:
                    schema(automation[part])
            tried.add("automation")
        if "action" in example:
            cv.SCRIPT_SCHEMA([example])
            tried.add("action")
    assert tried == {"modbus", "automation", "action"}


def test_command_line_takes_the_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that convert are converted, and what comes of them is checked."""
    lines = [
        line.removeprefix("$ tcp-multiplexer ").split(" > ")[0].split()
        for _, block in code("console")
        for line in block.splitlines()
        if line.startswith("$ tcp-multiplexer ")
    ]
    parser = argparse.ArgumentParser()
    add_flags(parser)
    for command, *words in lines:
        match command, words:
            case "server", _:
                assert parser.parse_args(words)
            case "convert", ["server", *_]:
                file = tmp_path / "devices.toml"
                file.write_text(convert(words))
                assert tomllib.loads(file.read_text())
                assert main(["check", str(file)]) == 0
                assert "192.168.1.22:502" in capsys.readouterr().out
    assert {command for command, *_ in lines} >= {"server", "convert", "run"}
