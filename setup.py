"""Builds a wheel whose engine is compiled by mypyc, if it is asked to.

    TCP_MULTIPLEXER_COMPILE=1 pip wheel --no-deps .

Without that variable, or with an editable installation, the wheel is pure Python, from
the same source. Home Assistant always runs that.

Compiled is every module but those named below, and those that contain coroutines, since
Python 3.14 objects to how compiled ones are cancelled. No class that is compiled can be
subclassed by one that is not, unless it says so (see `protocols/compiled.py`).
"""

import ast
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
import os
from pathlib import Path
import shutil
from typing import Any, override

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
ENGINE = ROOT / "custom_components" / "tcp_multiplexer" / "multiplexer"
PACKAGE = "tcp_multiplexer"
"""The name that the engine is installed by."""
OPTIMIZE = os.environ.get("TCP_MULTIPLEXER_OPTIMIZE", "3")
"""The level of the C compiler."""
INTERPRETED = (
    # What is run once, or only when somebody looks
    "__main__.py",
    "assembly.py",
    "checks.py",
    "command_line",
    "limits.py",
    "networks.py",
    "observe/pcap.py",
    "observe/snapshot.py",
    "profiles.py",
    "protocols/modbus/wording.py",
    "protocols/options.py",
    "protocols/outline.py",
    "rows.py",
    "settings.py",
    "tls.py",
    "typed.py",
    "write_rules.py",
    # What modules that are not compiled use
    "protocols/compiled.py",
)
"""Files and folders of the engine that stay as they are."""


def is_compiled(path: Path) -> bool:
    """Return whether a module of the engine is to be compiled."""
    name = path.relative_to(ENGINE)
    if path.name == "__init__.py" or any(name.is_relative_to(i) for i in INTERPRETED):
        return False
    tree = ast.parse(path.read_bytes())
    return not any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree))


def compile_engine(folder: Path) -> list[Extension]:
    """Translate the engine to C in `folder`; return what has to be built of that.

    mypyc names modules by their folders, so the engine is copied to where it has the
    name that it is installed by.
    """
    from mypyc.build import mypycify  # noqa: PLC0415 - it is there only if needed

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        ENGINE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
    )
    before = Path.cwd()
    os.chdir(folder)
    try:
        modules = [
            str(Path(PACKAGE, path.relative_to(ENGINE)))
            for path in sorted(ENGINE.rglob("*.py"))
            if is_compiled(path)
        ]
        extensions = mypycify(
            ["--ignore-missing-imports", *modules],
            opt_level=OPTIMIZE,
            debug_level="0",
            # For tests, files that are compiled side by side; one that is optimized as
            # a whole otherwise.
            multi_file=OPTIMIZE == "0",
            target_dir="c",
            group_name=PACKAGE,
        )
    finally:
        os.chdir(before)
    for extension in extensions:
        extension.sources = _within_root(folder, extension.sources)
        extension.depends = _within_root(folder, extension.depends)
        extension.include_dirs.append(str(folder / "c"))
    return extensions


def _within_root(folder: Path, paths: list[str]) -> list[str]:
    """Return paths as setuptools wants them, which are relative to `folder` so far."""
    return [str((folder / path).relative_to(ROOT)) for path in paths]


class BuildCompiled(build_ext):
    """Compiles the engine when extensions are built, and not before."""

    @override
    def finalize_options(self) -> None:
        self.distribution.ext_modules = compile_engine(ROOT / "build" / "engine")
        super().finalize_options()
        for suffix in EXTENSION_SUFFIXES:  # an earlier build's would be packed as well
            for left in Path(self.build_lib).rglob(f"*{suffix}"):
                left.unlink(missing_ok=True)

    @override
    def build_extensions(self) -> None:
        """Build them, with one compiler on each processor."""
        compiler: Any = self.compiler
        one = compiler.compile

        def side_by_side(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.process_cpu_count()) as pool:
                compiled = pool.map(lambda source: one([source], **options), sources)
                return [file for files in compiled for file in files]

        compiler.compile = side_by_side
        super().build_extensions()


class CompiledDistribution(Distribution):
    """A distribution for one kind of machine."""

    @override
    def has_ext_modules(self) -> bool:
        return True


if os.environ.get("TCP_MULTIPLEXER_COMPILE", "") not in {"", "0"}:
    setup(
        distclass=CompiledDistribution,
        cmdclass={"build_ext": BuildCompiled},
    )
else:
    setup()
