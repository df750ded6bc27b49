"""Which modules of a package import which, read from the files.

Every import counts, in functions and under `if TYPE_CHECKING` too: of two modules that
need each other's types, neither can be understood alone. A module is named by its path
from the package, with dots; a package by its folder, and the outermost `__init__`.
"""

import ast
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

_INIT: Final = "__init__"

type Graph = dict[str, set[str]]
"""Each module with those that it imports."""


def _modules(package: Path) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(
            f".{_INIT}"
        ): path
        for path in sorted(package.rglob("*.py"))
    }


def names_imported(package: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each module, a module or package that it imports from, and a name there.

    Absolute imports are not followed: a package imports its own modules relatively.
    """
    for module, path in _modules(package).items():
        folder = path.relative_to(package).parent.parts
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.ImportFrom) and node.level:
                parts = [*folder[: len(folder) + 1 - node.level]]
                parts += node.module.split(".") if node.module else []
                source = ".".join(parts) or _INIT
                yield from ((module, source, alias.name) for alias in node.names)


def import_graph(package: Path) -> Graph:
    """Return which modules of a package import which."""
    graph: Graph = {module: set() for module in _modules(package)}
    for module, source, name in names_imported(package):
        inner = name if source == _INIT else f"{source}.{name}"
        graph[module].add(inner if inner in graph else source)
    return graph


def merged(graph: Graph, part: Callable[[str], str]) -> Graph:
    """Return the graph between parts; `part` names the one that a module is in."""
    parts: Graph = {part(module): set() for module in graph}
    for module, imported in graph.items():
        parts[part(module)] |= {part(each) for each in imported} - {part(module)}
    return parts


def circle(graph: Graph) -> list[str]:
    """Return a circle of imports, its first module last again; empty: there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        found: list[str] = err.args[1]
        return found
    return []


def longest_chain(graph: Graph) -> list[str]:
    """Return the longest way down the imports, from top to bottom."""
    chains: dict[str, list[str]] = {}
    for module in TopologicalSorter(graph).static_order():
        below = (chains[imported] for imported in graph.get(module, ()))
        chains[module] = [module, *max(below, key=len, default=[])]
    return max(chains.values(), key=len)
