"""Puts an installed engine in the place of this checkout's, for all that tests import.

`script/test --compiled` says in TESTED_ENGINE where one is installed. Its modules know
each other by the name that it is installed by, so each is also given the name by which
tests import it.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
import sys
from types import ModuleType
from typing import override

INSTALLED = "tcp_multiplexer"
TESTED = "custom_components.tcp_multiplexer.multiplexer"


class _Alias(Loader):
    """Loads a module that has another name already."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    @override
    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """Finds the installed engine where tests look for this checkout's."""

    @override
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != TESTED and not fullname.startswith(f"{TESTED}."):
            return None
        module = import_module(INSTALLED + fullname.removeprefix(TESTED))
        return spec_from_loader(fullname, _Alias(module))


def use(folder: str) -> None:
    """Test the engine that is installed in `folder`."""
    sys.path.insert(0, folder)
    sys.meta_path.insert(0, _Finder())
    engine = import_module(INSTALLED)
    assert Path(engine.__file__ or "").is_relative_to(folder), engine
