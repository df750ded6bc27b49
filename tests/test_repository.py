"""What the repository promises as a whole.

The validators of Home Assistant (hassfest) and of HACS run on GitHub only; their rules
are small and stand here again, so that they fail before a push does. The rest are
rules of this project: which floor may import what, and that words and code agree.
"""

import ast
from collections.abc import Iterator, Mapping
import importlib
from importlib.metadata import version
from importlib.util import find_spec
import json
from pathlib import Path
import re
import subprocess
import sys
import tomllib
from typing import Any, Final

import homeassistant
from homeassistant.bootstrap import CORE_INTEGRATIONS
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import config_validation as cv
from homeassistant.setup import async_setup_component
from PIL import Image
import pytest
import voluptuous as vol
import yaml

from custom_components.tcp_multiplexer import multiplexer
from custom_components.tcp_multiplexer.const import DOMAIN
from custom_components.tcp_multiplexer.multiplexer.protocols.base import Failure

from .imports import circle, import_graph, longest_chain, merged, names_imported

ROOT: Final = Path(__file__).parents[1]
INTEGRATION: Final = ROOT / "custom_components" / DOMAIN
ENGINE: Final = INTEGRATION / "multiplexer"
PROTOCOLS: Final = ENGINE / "protocols"
LANGUAGES: Final = sorted(
    (path.stem for path in (INTEGRATION / "translations").glob("*.json")),
    key=lambda language: (language != "en", language),  # English is the measure
)


def load(path: str) -> Any:
    """Read a JSON or YAML file of the integration."""
    text = (INTEGRATION / path).read_text()
    return json.loads(text) if path.endswith(".json") else yaml.safe_load(text)


def modules(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Give the modules in a folder and below, with their syntax trees."""
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(), str(path))


def imports(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Give what a module imports, with how many floors up that is (0: absolute)."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                (node.level, ".".join(filter(None, (node.module, alias.name))))
                for alias in node.names
            )


def shell_modules() -> Iterator[tuple[Path, ast.Module]]:
    """Give the modules that know Home Assistant."""
    for path, module in modules(INTEGRATION):
        if ENGINE not in path.parents:
            yield path, module


# The manifest, and who has to agree with it


def test_manifest() -> None:
    manifest = load("manifest.json")
    https = vol.Match(r"https://\S+$")
    vol.Schema(
        {
            vol.Required("domain"): DOMAIN,
            vol.Required("name"): str,
            vol.Required("codeowners"): vol.All([vol.Match(r"@\S+$")], vol.Length(1)),
            vol.Required("config_flow"): True,
            vol.Required("documentation"): https,
            vol.Required("integration_type"): "service",
            vol.Required("iot_class"): "local_push",
            vol.Required("issue_tracker"): https,
            vol.Required("quality_scale"): "platinum",
            vol.Required("requirements"): [vol.Match(r"[\w-]+[=>]=[\d.]+$")],
            vol.Required("version"): vol.Match(r"\d+\.\d+\.\d+$"),
            vol.Optional("after_dependencies"): [str],
            vol.Optional("dependencies"): [str],
        }
    )(manifest)
    keys = list(manifest)
    assert keys[:2] == ["domain", "name"]
    assert keys[2:] == sorted(keys[2:])
    assert (INTEGRATION / "config_flow.py").is_file()


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    version = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert version == "tcp_multiplexer.__version__"
    assert load("manifest.json")["version"] == multiplexer.__version__


def test_requirements_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = load("manifest.json")["requirements"]
    assert {entry.removesuffix(".0") for entry in requirements} >= {
        *project["dependencies"]
    }
    # Home Assistant pins what many integrations need; who names a ceiling collides.
    assert all(">=" in entry for entry in requirements)


def test_components_imported_are_dependencies() -> None:
    manifest = load("manifest.json")
    known = {
        *Platform,
        *manifest.get("dependencies", ()),
        *manifest.get("after_dependencies", ()),
        *CORE_INTEGRATIONS,
    }
    prefix = "homeassistant.components."
    for path, module in shell_modules():
        for _, name in imports(module):
            if name.startswith(prefix):
                component = name.removeprefix(prefix).split(".")[0]
                # diagnostics.py may import diagnostics: that is who calls it.
                assert component in known | {path.stem}, path


def test_hacs_file() -> None:
    hacs = json.loads((ROOT / "hacs.json").read_text())
    vol.Schema(
        {
            vol.Required("name"): load("manifest.json")["name"],
            vol.Required("homeassistant"): vol.Match(r"\d{4}\.\d+\.\d+$"),
            # What a release has for it: tests/test_release.py
            vol.Required("zip_release"): True,
            vol.Required("filename"): f"{DOMAIN}.zip",
        }
    )(hacs)


def test_everybody_names_the_same_oldest_home_assistant() -> None:
    promised = json.loads((ROOT / "hacs.json").read_text())["homeassistant"]
    release = promised.removesuffix(".0")
    tried = (ROOT / "requirements_minimum.txt").read_text()
    assert f"\nhomeassistant=={promised}\n" in tried
    for readme, said in (
        ("README.md", f"Home Assistant {release} or newer is required."),
        ("README.de.md", f"Home Assistant {release} oder neuer ist nötig."),
    ):
        assert said in (ROOT / readme).read_text()
    for path in (ROOT / "blueprints").rglob("*.yaml"):
        assert f"min_version: {promised}\n" in path.read_text(), path


def test_oldest_and_current_home_assistant_are_tried_wherever_it_is_pushed() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    job = workflow["jobs"]["tests"]
    assert job["strategy"]["matrix"]["homeassistant"] == ["minimum", "current"]
    step = job["steps"][-1]
    assert step["run"] == 'script/test --homeassistant "$HOMEASSISTANT"'
    assert step["env"] == {"HOMEASSISTANT": "${{ matrix.homeassistant }}"}


def test_engine_is_tried_on_every_python_that_it_promises() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(
        r":: Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE
    )
    assert project["requires-python"] == f">={promised[0]}"
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    assert workflow["jobs"]["engine"]["strategy"]["matrix"]["python"] == promised


def test_engine_is_tried_with_the_same_libraries() -> None:
    pins = (ROOT / "requirements_test.txt").read_text().splitlines()
    named = {line.split("==")[0].split("[")[0] for line in pins if "==" in line}
    for line in (ROOT / "requirements_engine.txt").read_text().splitlines():
        if line.split("==")[0] in named:
            assert line in pins


def test_libraries_are_those_that_home_assistant_pins() -> None:
    """Of the Home Assistant that these tests run on, whichever that is."""
    for name in ("modbus", "solaredge_modbus"):
        manifest = (
            Path(homeassistant.__file__).parent / f"components/{name}/manifest.json"
        )
        if not manifest.exists():  # before 2026.10
            continue
        for requirement in json.loads(manifest.read_text())["requirements"]:
            library, _, pinned = requirement.partition("==")
            assert version(library.split("[")[0]) == pinned


def home_assistant_names() -> Iterator[tuple[Path, str, str]]:
    """Give what is imported of Home Assistant: by whom, the module, and the name."""
    for folder in (INTEGRATION, ROOT / "tests", ROOT / "script"):
        for path, module in modules(folder):
            for node in ast.walk(module):
                match node:
                    case ast.ImportFrom(module=str(source), names=names, level=0):
                        found = [(source, alias.name) for alias in names]
                    case ast.Import(names=names):
                        found = [(alias.name, "") for alias in names]
                    case _:
                        continue
                for source, name in found:
                    if source.split(".")[0] == "homeassistant":
                        yield path, source, name


NOT_EVERYWHERE: Final = {"async_get_connection_info"}
"""Names that only newer releases have, and that the code can do without."""


def test_what_is_imported_of_home_assistant_is_there() -> None:
    for path, source, name in home_assistant_names():
        module = importlib.import_module(source)
        if name and name not in NOT_EVERYWHERE and not hasattr(module, name):
            assert find_spec(f"{source}.{name}"), f"{path}: {name}"


def test_what_hacs_looks_for() -> None:
    folders = [
        path
        for path in (ROOT / "custom_components").iterdir()
        if path.is_dir() and not path.name.startswith((".", "_"))
    ]
    assert folders == [INTEGRATION]
    assert (ROOT / "README.md").is_file()
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")


@pytest.mark.parametrize("shade", ["", "dark_"])
@pytest.mark.parametrize(("image", "height"), [("icon", 256), ("logo", 128)])
def test_brand(shade: str, image: str, height: int) -> None:
    sizes = []
    for suffix in ("", "@2x"):
        with Image.open(INTEGRATION / "brand" / f"{shade}{image}{suffix}.png") as file:
            assert file.format == "PNG"
            assert file.mode in {"RGBA", "LA", "P"}, "no transparency"
            sizes.append(file.size)
    (width, small), large = sizes
    assert small == height
    assert large == (2 * width, 2 * height)
    assert image == "logo" or width == height


def test_workflows_pin_what_they_use() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"^\s*(?:- )?uses: (\S+)", path.read_text(), re.MULTILINE)
        assert used
        for action in used:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), f"{path}: {action}"


# Words


def leaves(words: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Give every text of a translation with where it stands."""
    if isinstance(words, str):
        yield ".".join(path), words
        return
    for key, value in words.items():
        yield from leaves(value, (*path, key))


def placeholders(text: str) -> set[str]:
    """Give what stands in braces."""
    return set(re.findall(r"{(\w+)}", text))


text = vol.All(str, vol.Length(1))
named = {vol.Required("name"): text, vol.Required("description"): text}
fields = {
    vol.Optional("data"): {str: text},
    vol.Optional("data_description"): {str: text},
}
flow_step = {
    vol.Required("title"): text,
    vol.Optional("description"): text,
    **fields,
    vol.Optional("sections"): {str: {**named, **fields}},
    vol.Optional("menu_options"): {str: text},
    vol.Optional("menu_option_descriptions"): {str: text},
}
flow = {
    vol.Required("step"): {str: flow_step},
    vol.Optional("abort"): {str: text},
    vol.Optional("create_entry"): {str: text},
    vol.Optional("error"): {str: text},
    vol.Optional("progress"): {str: text},
}
attribute = {vol.Optional("name"): text, vol.Optional("state"): {str: text}}
TRANSLATION: Final = vol.Schema(
    {
        vol.Required("common"): {str: text},
        vol.Required("config"): flow,
        vol.Required("config_subentries"): {
            str: {
                **flow,
                vol.Required("entry_type"): text,
                vol.Required("initiate_flow"): {
                    vol.Required("user"): text,
                    vol.Required("reconfigure"): text,
                },
            }
        },
        vol.Required("options"): flow,
        vol.Required("entity"): {
            vol.In([platform.value for platform in Platform]): {
                str: {
                    vol.Required("name"): text,
                    vol.Optional("state"): {str: text},
                    vol.Optional("state_attributes"): {str: attribute},
                    vol.Optional("unit_of_measurement"): text,
                }
            }
        },
        vol.Required("common"): {str: text},
        vol.Required("exceptions"): {str: {vol.Required("message"): text}},
        vol.Required("issues"): {
            str: vol.Any(
                {vol.Required("title"): text, vol.Required("description"): text},
                {vol.Required("title"): text, vol.Required("fix_flow"): flow},
            )
        },
        vol.Required("selector"): {
            str: {
                vol.Optional("options"): {str: text},
                vol.Optional("fields"): {str: named},
            }
        },
        vol.Required("services"): {
            str: {**named, vol.Optional("fields"): {str: named}}
        },
        vol.Required("system_health"): {vol.Required("info"): {str: text}},
    }
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_translation_is_as_hassfest_wants_it(language: str) -> None:
    words = load(f"translations/{language}.json")
    TRANSLATION(words)
    for path, text in leaves(words):
        for key in path.split("."):
            assert re.fullmatch(r"[a-z0-9]+(?:[_-][a-z0-9]+)*", key), path
        assert text == text.strip(), path
        assert not re.search(r"https?:|www\.", text), f"{path}: an address"
        assert not re.search(r"</?[a-z]", text), f"{path}: HTML"
        assert not re.search(r"'{\w+}'", text), f"{path}: a placeholder in quotes"


def flows(words: Any) -> list[Any]:
    """Give the words of all dialogs, by dialog."""
    return [words["config"], words["options"], *words["config_subentries"].values()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_field_of_a_dialog_is_described(language: str) -> None:
    words = load(f"translations/{language}.json")
    for flow_words in flows(words):
        for name, step in flow_words["step"].items():
            for part in (step, *step.get("sections", {}).values()):
                described = part.get("data_description", {})
                assert part.get("data", {}).keys() == described.keys(), name


def texts_of(language: str) -> dict[str, str]:
    """Give every text of a language, by where it stands."""
    return dict(leaves(load(f"translations/{language}.json")))


ENGLISH: Final = texts_of("en")
OTHERS: Final = LANGUAGES[1:]


@pytest.mark.parametrize("language", OTHERS)
def test_languages_say_the_same(language: str) -> None:
    texts = texts_of(language)
    assert list(texts) == list(ENGLISH)  # in the same order, so that they compare
    for path, english in ENGLISH.items():
        text = texts[path]
        assert placeholders(text) == placeholders(english), path
        code = re.compile(r"`[^`]+`")
        assert sorted(code.findall(text)) == sorted(code.findall(english)), path
        lines = re.compile(r"^(?:[*] |[0-9]+[.] |$)", re.MULTILINE)
        assert lines.findall(text) == lines.findall(english), path


@pytest.mark.parametrize("language", OTHERS)
def test_no_sentence_is_left_in_english(language: str) -> None:
    """Names and technical terms may be the same: they are short."""
    for path, text in texts_of(language).items():
        sentence = text.endswith(".") or len(text.split()) > 4
        assert not sentence or text != ENGLISH[path], path


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_about_a_client_begins_with_it(language: str) -> None:
    """It may be "A client", in capitals as at the beginning."""
    about = [text for text in texts_of(language).values() if "{who}" in text]
    assert len(about) > 10
    assert all(text.startswith("{who}") for text in about)


def mentions(path: str, text: str) -> set[str]:
    """Give what a text says of other texts: emphasised, quoted, before its colon."""
    said = set(re.findall(r"(?<!\w)[*](\w[^*\n]*)[*]", text))
    said |= set(re.findall(r'"([^"]+)"', text))
    if ".error." in path and (field := re.match(r"([^:.]+): ", text)):
        said.add(field[1])
    return said


@pytest.mark.parametrize("language", OTHERS)
def test_what_a_text_mentions_is_called_as_it_is_shown(language: str) -> None:
    """A field, a choice, a state, an action: by the name that it has there."""
    texts = {
        path: re.sub("[\"'«»‘’‚“”„]", "", text)  # noqa: RUF001
        for path, text in texts_of(language).items()
    }
    mentioned = 0
    for path, english in ENGLISH.items():
        for name in mentions(path, english):
            shown = {texts[there] for there, text in ENGLISH.items() if text == name}
            assert not shown or any(each in texts[path] for each in shown), path
            mentioned += bool(shown)
    assert mentioned > 30


@pytest.mark.parametrize("language", OTHERS)
def test_buttons_and_menus_are_short(language: str) -> None:
    """They have one line on a phone: 24 letters, or 1.6 times the English."""
    texts = texts_of(language)
    pressed = {
        path
        for path in ENGLISH
        if re.search(r"[.]menu_options[.]|[.]initiate_flow[.]", path)
        or re.fullmatch(r"entity[.](button|switch)[.]\w+[.]name", path)
    }
    assert len(pressed) > 60
    for path in pressed:
        length = len(re.sub(r"{\w+}", "", texts[path]))
        english = len(re.sub(r"{\w+}", "", ENGLISH[path]))
        assert length <= max(24, 1.6 * english), path


def keyword_values(name: str) -> set[str]:
    """Give the strings that are handed over under a name, anywhere in the shell."""
    return {
        node.value.value
        for _, module in shell_modules()
        for node in ast.walk(module)
        if isinstance(node, ast.keyword)
        and node.arg == name
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def strings_in(module: str) -> set[str]:
    """Give all strings of a module of the shell."""
    return {
        node.value
        for node in ast.walk(ast.parse((INTEGRATION / module).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_translation_key_in_the_code_has_words() -> None:
    words = load("translations/en.json")
    known = {
        *words["exceptions"],
        *words["issues"],
        *words["selector"],
        *(key for entities in words["entity"].values() for key in entities),
    }
    assert keyword_values("translation_key") <= known


def test_every_failure_of_a_request_has_words() -> None:
    exceptions = load("translations/en.json")["exceptions"]
    assert {f"request_{failure.value}" for failure in Failure} <= exceptions.keys()


@pytest.mark.parametrize(
    ("section", "rooms"),
    [
        (
            "exceptions",
            (
                "__init__.py",
                "coordinator.py",
                "services/__init__.py",
                "services/calls.py",
                "services/captures.py",
                "services/registers.py",
                "services/values.py",
            ),
        ),
        ("issues", ("issues.py", "refused_clients.py")),
    ],
)
def test_no_words_are_left_over(section: str, rooms: tuple[str, ...]) -> None:
    used = set().union(*map(strings_in, rooms))
    used |= {f"request_{failure.value}" for failure in Failure}
    assert load("translations/en.json")[section].keys() <= used


# Entities and actions


def test_icons() -> None:
    words = load("translations/en.json")
    icons = load("icons.json")
    icon = vol.Match(r"mdi:[a-z0-9-]+$")
    of_entity = {vol.Optional("default"): icon, vol.Optional("state"): {str: icon}}
    vol.Schema(
        {
            vol.Required("entity"): {str: {str: of_entity}},
            vol.Required("services"): {str: {vol.Required("service"): icon}},
        }
    )(icons)
    assert icons["services"].keys() == words["services"].keys()
    for platform, entities in icons["entity"].items():
        for key, choice in entities.items():
            assert key in words["entity"][platform]
            assert choice.get("default") not in choice.get("state", {}).values(), key
    for platform, entities in words["entity"].items():
        assert entities.keys() == icons["entity"][platform].keys()


async def test_actions(hass: HomeAssistant, enable_custom_integrations: None) -> None:
    """What is registered, described, named in each language and drawn is the same."""
    assert await async_setup_component(hass, DOMAIN, {})
    registered = hass.services.async_services_for_domain(DOMAIN)
    described = load("services.yaml")
    assert registered.keys() == described.keys()
    for language in LANGUAGES:
        words = load(f"translations/{language}.json")["services"]
        assert words.keys() == described.keys()
        for name, description in described.items():
            wanted = description.get("fields", {}).keys()
            assert words[name].get("fields", {}).keys() == wanted, name
    target = {str(key) for key in cv.ENTITY_SERVICE_FIELDS}
    for name, service in registered.items():
        accepted = {str(key) for key in schema_of(service.schema)}
        assert accepted - target == described[name].get("fields", {}).keys(), name
        assert accepted >= target, name
        assert described[name]["target"] == {"entity": {"integration": DOMAIN}}


def schema_of(validator: Any) -> Mapping[Any, Any]:
    """Give the fields that an action accepts."""
    if isinstance(validator, vol.All):
        validator = validator.validators[0]
    assert isinstance(validator, vol.Schema)
    assert isinstance(validator.schema, Mapping)
    return validator.schema


# The quality scale

RULES: Final = re.findall(
    r"\S+",
    """
action-setup appropriate-polling brands common-modules config-flow
config-flow-test-coverage dependency-transparency docs-actions docs-conditions
docs-high-level-description docs-installation-instructions docs-removal-instructions
docs-triggers entity-event-setup entity-unique-id has-entity-name runtime-data
test-before-configure test-before-setup unique-config-entry
action-exceptions config-entry-unloading docs-configuration-parameters
docs-installation-parameters entity-unavailable integration-owner log-when-unavailable
parallel-updates reauthentication-flow test-coverage
devices diagnostics discovery discovery-update-info docs-data-update docs-examples
docs-known-limitations docs-supported-devices docs-supported-functions
docs-troubleshooting docs-use-cases dynamic-devices entity-category entity-device-class
entity-disabled-by-default entity-translations exception-translations icon-translations
reconfiguration-flow repair-issues stale-devices
async-dependency inject-websession strict-typing
""",
)


def test_quality_scale() -> None:
    assert len(RULES) == 54
    rules = load("quality_scale.yaml")["rules"]
    assert list(rules) == RULES
    comment = vol.All(str, vol.Length(20))
    vol.Schema(
        {
            str: vol.Any(
                "done",
                {"status": "done", "comment": comment},
                {"status": "exempt", "comment": comment},
                required=True,
            )
        }
    )(rules)


# The three floors


def test_engine_stands_alone() -> None:
    """It imports nothing of Home Assistant and nothing above itself."""
    for path, module in modules(ENGINE):
        depth = len(path.relative_to(ENGINE).parts)
        for level, name in imports(module):
            assert level <= depth, f"{path}: from {'.' * level}{name}"
            root = name.split(".")[0]
            if level == 0:
                assert root not in {"homeassistant", "custom_components"}, path
                assert root != DOMAIN, f"{path}: absolute import of itself"


def test_engine_needs_no_modbus_library() -> None:
    allowed = {*sys.stdlib_module_names, "aiohappyeyeballs", "h11"}
    allowed.add("mypy_extensions")  # for the compiler alone
    allowed.add("uvloop")  # only if it is there
    extras = {"convert": {"yaml"}, "metrics": {"prometheus_client"}}
    for path, module in modules(ENGINE):
        extra = (
            extras.get(path.stem, set()) if path.parent.name == "command_line" else ()
        )
        for level, name in imports(module):
            if level == 0:
                assert name.split(".")[0] in {*allowed, *extra}, f"{path}: {name}"


def test_protocols_do_no_io_and_know_no_clock() -> None:
    forbidden = {"asyncio", "select", "selectors", "socket", "threading", "time"}
    for path, module in modules(PROTOCOLS):
        for level, name in imports(module):
            if level == 0:
                assert name.split(".")[0] not in forbidden, f"{path}: {name}"
            else:
                # Not above their floor either
                depth = len(path.relative_to(PROTOCOLS).parts)
                assert level <= depth, f"{path}: from {'.' * level}{name}"


def asked_for_truth(module: ast.Module) -> Iterator[ast.expr]:
    """Give the expressions of a module that count as true or as false."""
    for node in ast.walk(module):
        match node:
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield test
            case ast.BoolOp(values=values):
                yield from values
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield operand


def test_nothing_that_may_be_none_counts_by_its_length() -> None:
    """Where it is compiled it would be true: mypyc does not ask `__len__` of that."""
    engine = list(modules(ENGINE))
    sized = {
        node.name
        for _, module in engine
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
        and {"__len__"} == {"__len__", "__bool__"} & set(map(_name, node.body))
    }
    assert "OrderedReplies" in sized
    for path, module in engine:
        optional = {
            ast.unparse(node.target)
            for node in ast.walk(module)
            if isinstance(node, ast.AnnAssign)
            and ast.unparse(node.annotation) in {f"{name} | None" for name in sized}
        }
        asked = {ast.unparse(expression) for expression in asked_for_truth(module)}
        assert not optional & asked, path


def _name(node: ast.stmt) -> str:
    return getattr(node, "name", "")


# Who may import whom

MOST_LAYERS: Final = 13


def is_engine(module: str) -> bool:
    """Tell whether a module of the integration is in the engine."""
    return module.partition(".")[0] == ENGINE.name


def part(module: str) -> str:
    """Name what counts as one layer: a sub-package, of the engine or beside it."""
    return ".".join(module.split(".")[: 2 if is_engine(module) else 1])


def test_imports_go_down_only() -> None:
    """Of two modules or sub-packages, one does not need the other, be it for types."""
    graph = import_graph(INTEGRATION)
    assert not circle(graph)
    parts = merged(graph, part)
    assert not circle(parts)
    assert len(longest_chain(parts)) <= MOST_LAYERS


def test_dispatch_knows_neither_side() -> None:
    """Clients and connections to the device stand on it, and it on interfaces."""
    parts = merged(import_graph(INTEGRATION / ENGINE.name), lambda m: m.split(".")[0])
    assert not parts["dispatch"] & {"downstream", "upstream"}
    assert "dispatch" in parts["downstream"] & parts["upstream"]


def test_integration_imports_the_interface_of_the_engine() -> None:
    for module, source, name in names_imported(INTEGRATION):
        imported = name if source == "__init__" else source
        if is_engine(imported) and not is_engine(module):
            where = f"{module}: from {source} import {name}"
            assert source == ENGINE.name, where
            assert name in multiplexer.__all__, where


def test_integration_imports_itself_relatively() -> None:
    """Absolute imports would escape the tests of this part."""
    for path, module in shell_modules():
        for level, name in imports(module):
            assert level or name.split(".")[0] != "custom_components", path


def test_nobody_imports_what_home_assistant_looks_for() -> None:
    """Platforms and dialogs stand on top: what others need has a module below."""
    looked_for = {*Platform, "config_flow", "diagnostics", "repairs", "system_health"}
    for module, imported in import_graph(INTEGRATION).items():
        assert not imported & looked_for, module


# The tree


def tracked() -> list[Path]:
    """Give the files of the repository."""
    names = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - wherever it is
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in names.split("\0") if (path := ROOT / name).is_file()]


DOCUMENTS: Final = sorted(
    path.relative_to(ROOT).as_posix() for path in tracked() if path.suffix == ".md"
)


def anchor(heading: str) -> str:
    """Return what a link to a heading says behind its #, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_lead_somewhere(document: str) -> None:
    """Links within the repository, and paths to modules, lead to what there is."""
    path = ROOT / document
    text = path.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, wanted = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if wanted:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert wanted in map(anchor, headings), target
    for name in re.findall(r"`([\w./]+/[\w.]+\.py|[\w./]+/)`", text):
        places = (ROOT, INTEGRATION, ENGINE)
        assert any((place / name).exists() for place in places), name


def test_tree_names_no_machine() -> None:
    """No path of somebody's machine, and no package index: both differ elsewhere."""
    machine = re.compile(
        rb"(?<![\w.~}])/(?:home|root|Users|work|farm|mnt|workspaces)/"
        rb"|\b(?:pypi|pythonhosted|npmjs)[.](?:org|com)\b"
    )
    found = [path for path in tracked() if machine.search(path.read_bytes())]
    assert not found
