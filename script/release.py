"""What a release is made of: see .github/workflows/release.yml.

    python script/release.py check v1.0.0         do all agree on that version?
    python script/release.py notes v1.0.0         what has changed, for the release
    python script/release.py zip v1.0.0 FILE      what HACS installs

Only the standard library is needed.
"""

import argparse
import json
from pathlib import Path
import re
import subprocess
import sys
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parents[1]
INTEGRATION = ROOT / "custom_components" / "tcp_multiplexer"
MANIFEST = INTEGRATION / "manifest.json"
ENGINE = INTEGRATION / "multiplexer" / "__init__.py"
CHANGELOG = ROOT / "CHANGELOG.md"
TAG = re.compile(r"v(\d+\.\d+\.\d+(?:b\d+)?)")
"""A beta is a release before that release: GitHub calls it a pre-release."""
MADE = (2026, 1, 1, 0, 0, 0)
"""The date of every file in the zip, so that the same content is the same zip."""


class ReleaseError(Exception):
    """A release cannot be made of this, and why."""


def version_of(tag: str) -> str:
    """Return the version that a tag names.

    Raises:
        ReleaseError: it names none.

    """
    found = TAG.fullmatch(tag)
    if found is None:
        raise ReleaseError(f"tag {tag} is not of the form v1.2.3 or v1.2.3b4")
    return found[1]


def section(version: str, changelog: str) -> tuple[str, str]:
    """Return the heading and the text that a changelog has for a version.

    Raises:
        ReleaseError: it has none.

    """
    parts = re.split(r"^## (.+)$", changelog, flags=re.MULTILINE)
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        if heading.split()[0] == version:
            return heading, text.strip()
    raise ReleaseError(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'")


def mistakes(tag: str, manifest: str, engine: str, changelog: str) -> list[str]:
    """Return where tag, manifest, package and changelog disagree, in words."""
    try:
        version = version_of(tag)
    except ReleaseError as error:
        return [str(error)]
    found = []
    said = json.loads(manifest)["version"]
    if said != version:
        found.append(f"manifest.json says version {said}, and the tag {version}")
    packaged = re.search(r'^__version__ = "(.+)"$', engine, re.MULTILINE)
    if packaged is None or packaged[1] != version:
        says = packaged[1] if packaged else "none"
        found.append(f"the package says version {says}, and the tag {version}")
    try:
        heading, text = section(version, changelog)
    except ReleaseError as error:
        return [*found, str(error)]
    if not re.fullmatch(r"\S+ - \d{4}-\d\d-\d\d", heading):
        found.append(f"CHANGELOG.md dates {version} with '{heading}', not YYYY-MM-DD")
    if not text:
        found.append(f"CHANGELOG.md says nothing about {version}")
    return found


def check(tag: str) -> None:
    """See that everything names the version of the tag.

    Raises:
        ReleaseError: something does not.

    """
    texts = (path.read_text("utf-8") for path in (MANIFEST, ENGINE, CHANGELOG))
    if found := mistakes(tag, *texts):
        raise ReleaseError("; ".join(found))


def files() -> list[Path]:
    """Return the files of the integration that git knows."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--", INTEGRATION],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [ROOT / name for name in sorted(names.split("\0")) if name]


def build_zip(tag: str, target: Path) -> None:
    """Put the contents of the integration's folder into a zip, as HACS wants it.

    The manifest gets the version of the tag.

    Raises:
        ReleaseError: the tag names no version.

    """
    version = version_of(tag)
    with ZipFile(target, "w") as archive:
        for path in files():
            content = path.read_bytes()
            if path == MANIFEST:
                manifest = json.loads(content) | {"version": version}
                content = f"{json.dumps(manifest, indent=2)}\n".encode()
            entry = ZipInfo(path.relative_to(INTEGRATION).as_posix(), MADE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, ZIP_DEFLATED)


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="script/release.py")
    parser.add_argument("what", choices=("check", "notes", "zip"))
    parser.add_argument("tag")
    parser.add_argument("file", type=Path, nargs="?")
    given = parser.parse_args()
    try:
        if given.what == "check":
            check(given.tag)
        elif given.what == "notes":
            changelog = CHANGELOG.read_text("utf-8")
            print(section(version_of(given.tag), changelog)[1])
        elif given.file is None:
            parser.error("zip needs a file to write")
        else:
            build_zip(given.tag, given.file)
    except ReleaseError as error:
        print(f"script/release.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
