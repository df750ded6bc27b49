"""Where tapes are kept: one a line, as hexadecimal digits, by target.

A line that begins with # says what the tapes below it have found.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """Return the tapes that are kept for a target."""
    lines = (FOLDER / f"{target}.txt").read_text(encoding="ascii").splitlines()
    return [bytes.fromhex(line) for line in lines if not line.startswith("#")]


def keep(target: str, tapes: Iterable[bytes]) -> None:
    """Keep these tapes instead, the short ones first, behind what was found."""
    path = FOLDER / f"{target}.txt"
    text = path.read_text(encoding="ascii") if path.exists() else ""
    found = text[: text.find(BEGIN)] if BEGIN in text else text
    ordered = sorted(set(tapes), key=lambda tape: (len(tape), tape))
    lines = "".join(f"{tape.hex()}\n" for tape in ordered)
    path.write_text(f"{found}{BEGIN}{lines}", encoding="ascii")


BEGIN: Final = "# Tapes that reach what no other does\n"
