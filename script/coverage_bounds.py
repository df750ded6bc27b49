"""Fail if the tests run too little of a module: reads `coverage json` from stdin.

The bound of the whole is in pyproject.toml (`fail_under`). A module far below it would
hide there behind the others.
"""

import json
import sys

PERCENT = 95
"""Home Assistant's quality scale (test-coverage) asks for more than this of each."""


def main() -> int:
    """Name the modules under the bound; give the exit status."""
    files = json.load(sys.stdin)["files"]
    under = {
        name: file["summary"]["percent_covered"]
        for name, file in files.items()
        if file["summary"]["percent_covered"] <= PERCENT
    }
    for name, percent in under.items():
        print(f"{name}: {percent:.1f} % covered, not above {PERCENT} %")
    return 1 if under or not files else 0


if __name__ == "__main__":
    sys.exit(main())
