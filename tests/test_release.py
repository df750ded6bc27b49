"""A release: who has to agree on its version, and what is in its zip."""

from __future__ import annotations

import json
from pathlib import Path
import re
import subprocess
import sys
from typing import Final
from zipfile import ZipFile

import pytest
import yaml

from custom_components.tcp_multiplexer import multiplexer
from script.release import CHANGELOG, ENGINE, MANIFEST, build_zip, files, mistakes

ROOT: Final = Path(__file__).parents[1]
WORKFLOW: Final = ROOT / ".github" / "workflows" / "release.yml"
VERSION: Final = multiplexer.__version__
AGREED: Final = {
    "manifest": '{"version": "1.2.3"}',
    "engine": '"""Docs."""\n__version__ = "1.2.3"\n',
    "changelog": "# Changelog\n\n## 1.2.3 - 2026-12-24\n\n- More.\n\n## 1.2.2 - 2026-11-30\n",
}


def test_all_agree() -> None:
    assert mistakes("v1.2.3", **AGREED) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tag": "1.2.3"}, "tag 1.2.3 is not of the form"),
        ({"tag": "v1.2"}, "tag v1.2 is not of the form"),
        ({"manifest": '{"version": "1.2.2"}'}, "manifest.json says version 1.2.2"),
        ({"engine": '__version__ = "1.2.4"'}, "the package says version 1.2.4"),
        ({"engine": ""}, "the package says version none"),
        ({"changelog": "# Changelog\n"}, "has no section '## 1.2.3"),
        ({"changelog": "## 1.2.3 - unreleased\n\n- More."}, "1.2.3 - unreleased"),
        ({"changelog": "## 1.2.3 - 2026-12-24\n\n## 1.2.2\n"}, "nothing about 1.2.3"),
    ],
)
def test_who_disagrees_is_named(changed: dict[str, str], said: str) -> None:
    (found,) = mistakes(**{"tag": "v1.2.3", **AGREED, **changed})
    assert said in found


def test_a_beta_is_a_version() -> None:
    texts = {name: text.replace("1.2.3", "1.2.3b4") for name, text in AGREED.items()}
    assert mistakes("v1.2.3b4", **texts) == []


def test_only_the_day_is_missing_here() -> None:
    """Whatever is not released yet can be: nothing but its day is to be filled in."""
    texts = [path.read_text("utf-8") for path in (MANIFEST, ENGINE, CHANGELOG)]
    for mistake in mistakes(f"v{VERSION}", *texts):
        assert mistake.startswith(f"CHANGELOG.md dates {VERSION} with"), mistake


def test_command_says_what_is_wrong() -> None:
    process = subprocess.run(  # noqa: S603 - itself
        [sys.executable, ROOT / "script/release.py", "check", "v99.0.0"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr.startswith("script/release.py: manifest.json says version")


def test_zip_has_what_home_assistant_loads(tmp_path: Path) -> None:
    """The contents of the folder, not the folder; the manifest with the tag's version.

    A real Home Assistant starts with it in tests/integration/test_real_hass.py.
    """
    build_zip("v9.8.7b6", tmp_path / "a.zip")
    build_zip("v9.8.7b6", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        packed = json.loads(archive.read("manifest.json"))
        archive.extractall(tmp_path / "unpacked")
    assert packed == json.loads(MANIFEST.read_text()) | {"version": "9.8.7b6"}
    assert list(packed)[:2] == ["domain", "name"]
    assert {"__init__.py", "translations/en.json", "brand/icon.png"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name[0] in "/."]
    for path in files():
        name = path.relative_to(MANIFEST.parent)
        if path != MANIFEST:
            assert (tmp_path / "unpacked" / name).read_bytes() == path.read_bytes()


def test_hacs_finds_the_zip_that_the_workflow_makes() -> None:
    hacs = json.loads((ROOT / "hacs.json").read_text())
    assert hacs["zip_release"]
    assert f"dist/{hacs['filename']}" in WORKFLOW.read_text()


def test_nothing_is_published_before_all_has_passed() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]

    def before(job: str) -> set[str]:
        needs = jobs[job].get("needs", [])
        needed = {needs} if isinstance(needs, str) else set(needs)
        return needed.union(*map(before, needed))

    for name, job in jobs.items():
        writes = {
            right for right, kind in job["permissions"].items() if kind == "write"
        }
        assert not writes or before(name) >= {"zip", "everything", "wheels", "sdist"}
        assert ("contents" in writes) == (name == "publish")
    assert before("publish") == jobs.keys() - {"publish"}
    commands = [step.get("run", "") for step in jobs["zip"]["steps"]]
    assert 'python script/release.py check "$GITHUB_REF_NAME"' in commands
    # GitHub would put what a tag is called into the command.
    assert not re.search(r"run:.*\$\{\{ github\.", WORKFLOW.read_text())
