"""Print what the installed Home Assistant would install while the demo starts.

As Home Assistant does it: the requirements in the manifests of the integrations that
are set up, and of those on which they depend, now or if they are set up as well.
`script/setup --demo` installs them beforehand, so that no start needs the internet.
"""

import json
from pathlib import Path
import re

import homeassistant
from homeassistant.bootstrap import (
    CORE_INTEGRATIONS,
    DEFAULT_INTEGRATIONS,
)

DEMO = Path(__file__).parent
FOLDERS = (
    Path(homeassistant.__file__).parent / "components",
    DEMO.parents[1] / "custom_components",
)
ADDED_IN_TESTS = ("solaredge_modbus", "tcp_multiplexer")
STOOD_IN = re.compile(r"pymicro-vad|pyspeex-noise")
"""For microphones, and to be compiled: `stand_ins` has what is imported of them."""


def main() -> None:
    """Print them, one on a line."""
    configured = re.findall(
        r"^(\w+):", (DEMO / "configuration.yaml").read_text(), re.MULTILINE
    )
    wanted = [*CORE_INTEGRATIONS, *DEFAULT_INTEGRATIONS, *configured, *ADDED_IN_TESTS]
    seen: set[str] = set()
    requirements: set[str] = set()
    while wanted:
        domain = wanted.pop()
        if domain in seen:
            continue
        seen.add(domain)
        for folder in FOLDERS:
            if (path := folder / domain / "manifest.json").is_file():
                manifest = json.loads(path.read_text())
                requirements |= set(manifest.get("requirements", ()))
                wanted += manifest.get("dependencies", ())
                wanted += manifest.get("after_dependencies", ())
    print(*sorted(r for r in requirements if not STOOD_IN.match(r)), sep="\n")


if __name__ == "__main__":
    main()
