"""A user's Python file as a module, with what it imports from beside it, and the digest of both.

    module = load(Path("mytask.py"))     runs the file, once a process
    digest(Path("mytask.py"))            hashes it and what it imports, without running anything

What lies beside a plug-in comes first, for that plug-in alone: its folder is a package of its own
with a private name, so two plug-ins that both import a `helper` get each their own, whatever the
process imported before and wherever it was started. Where the folder belongs to a package (it has
an `__init__.py`), the package's own name and relative imports work, too. `bench` and `baselines`
always mean the suite; its files and those of installed packages are never part of a digest.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

SUITE = ("bench", "baselines")
HOME = Path(__file__).resolve().parent  # of `bench`
SUITE_PLACES = (HOME, *(HOME.parent / name for name in ("baselines", "benchmarks", "tests")))
INSTALLED = tuple(
    Path(sysconfig.get_path(kind)).resolve()
    for kind in ("stdlib", "platstdlib", "purelib", "platlib")
)
PREFIX = "plugin_"
SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)  # as Python looks for them


class Unloadable(ValueError):
    """A plug-in that is not there or cannot be imported; the message says why."""


# Where modules lie


def _foreign(file: Path) -> bool:
    """Whether a file is the suite's or an installed package's."""
    file = file.resolve()
    if file == HOME.parent / "run_bench.py":
        return True
    return any(file.is_relative_to(place) for place in (*SUITE_PLACES, *INSTALLED))


def _roots(path: Path) -> tuple[Path, ...]:
    """Where a plug-in's imports are looked for: its folder and, where that is part of a package,
    the folder that the outermost package lies in."""
    folder = outermost = path.parent
    while (outermost / "__init__.py").is_file():
        outermost = outermost.parent
    return tuple(dict.fromkeys([folder, outermost]))


def _module_file(root: Path, dotted: str) -> Path | None:
    """The file of a module below `root`, a package's `__init__`; None where there is none."""
    place = root.joinpath(*dotted.split("."))
    for stem in (place / "__init__", place):
        for suffix in SUFFIXES:
            if (file := stem.with_name(stem.name + suffix)).is_file():
                return file
    return None


@functools.cache
def _beside(
    roots: tuple[Path, ...], name: str, wanted: tuple[str, ...], importer: Path
) -> Path | None:
    """The root below which `import name`, or `from name import wanted`, in the file `importer`
    finds a module; None where it means another one.

    A folder without an `__init__` counts only where a module asked for lies in it: one called
    `wandb`, which that library makes, is not the library. A module never means itself: a plug-in
    may be called after the library that it brings.
    """
    top = name.partition(".")[0]
    if top in SUITE:
        return None
    for root in roots:
        file = _module_file(root, top)
        if file is None and (root / top).is_dir():
            asked = [name, *(f"{name}.{part}" for part in wanted)]
            file = next(filter(None, (_module_file(root, each) for each in asked)), None)
        itself = file == importer and importer.stem != "__init__"
        if file is not None and not itself and not _foreign(file):
            return root
    return None


# The digest


@functools.cache
def digest(path: Path) -> str:
    """SHA-256 of a plug-in's file and of every file it imports from beside it, its own first, the
    others in the order of their names; as the files are when this is first asked for."""
    path = path.resolve()
    files = _closure(path)
    outermost = _roots(path)[-1]
    others = sorted(files.keys() - {path}, key=lambda file: file.relative_to(outermost).as_posix())
    return " ".join(hashlib.sha256(files[file]).hexdigest() for file in (path, *others))


def _closure(path: Path) -> dict[Path, bytes]:
    """A plug-in's file and all that it imports from beside it, directly or not, with content."""
    roots, found, open_files = _roots(path), {}, [path]
    while open_files:
        file = open_files.pop()
        if file in found or (file != path and _foreign(file)):
            continue
        found[file] = file.read_bytes()
        if file.suffix == ".py":
            open_files += _imported(file, found[file], roots)
    return found


def _imported(file: Path, content: bytes, roots: tuple[Path, ...]) -> Iterator[Path]:
    """The files beside a plug-in that one of its files imports, inside functions too."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # running it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if root := _beside(roots, alias.name, (), file):
                    yield from _along(root, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            wanted = tuple(alias.name for alias in node.names)
            if node.level == 0 and node.module:
                if root := _beside(roots, node.module, wanted, file):
                    yield from _along(root, node.module, wanted)
            elif node.level:
                package = file.parent
                for _ in range(node.level - 1):
                    package = package.parent
                root = next((r for r in reversed(roots) if package.is_relative_to(r)), None)
                if root is not None:
                    parts = (*package.relative_to(root).parts, *filter(None, [node.module]))
                    yield from _along(root, ".".join(parts), wanted)


def _along(root: Path, name: str, wanted: Sequence[str]) -> Iterator[Path]:
    """The files that are run when `name`, or `wanted` from it, is imported: packages on the way,
    the module, and those of `wanted` that are modules."""
    parts = name.split(".") if name else []
    for count in range(1, len(parts) + 1):
        if file := _module_file(root, ".".join(parts[:count])):
            yield file
    for each in wanted:
        if each == "*":
            yield from sorted(root.joinpath(*parts).glob("*.py")) if parts else ()
        elif file := _module_file(root, ".".join([*parts, each])):
            yield file


# Running it


def load(path: Path) -> ModuleType:
    """The module of a plug-in's file, which is run unless it was. Raises Unloadable."""
    path = path.resolve()
    if not path.is_file():
        raise Unloadable(f"there is no file {path}")
    roots = _roots(path)
    space = _space(path, roots)
    package = ".".join([space, *path.parent.relative_to(roots[-1]).parts])
    stem = path.stem
    if "." in stem:  # no module's name has a dot
        stem = f"{stem.replace('.', '_')}_{hashlib.sha256(stem.encode()).hexdigest()[:8]}"
    name = f"{package}.{stem}"
    if name in sys.modules:
        return sys.modules[name]
    importlib.invalidate_caches()  # a file may have come since
    digest(path)  # of the files that are run now, not of what they are changed to later
    loader = _Loader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        parent = importlib.import_module(package)
        sys.modules[name] = module
        loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        sys.modules.pop(name, None)
        reason = str(error).replace(space + ".", "").replace(space, str(path.parent))
        raise Unloadable(f"{path} cannot be imported: {reason}") from error
    except BaseException:
        sys.modules.pop(name, None)
        raise
    setattr(parent, stem, module)
    return module


def _space(path: Path, roots: Sequence[Path]) -> str:
    """The private package for a plug-in's folder, made where it is not yet there. Its name is the
    same in every process, so that what is pickled in one can be read in another that loaded the
    plug-in."""
    name = PREFIX + hashlib.sha256(str(path.parent).encode()).hexdigest()[:12]
    if name not in sys.modules:
        package = ModuleType(name, f"What lies beside the plug-ins in {path.parent}.")
        package.__path__ = [str(root) for root in roots]
        sys.modules[name] = package
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    return name


class _Finder:
    """Finds the modules of the private packages, and has them loaded by `_Loader`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith(PREFIX) or "." not in name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Runs a file of a plug-in, so that its imports, late ones too, look beside it first.

    Always from the source: bytecode kept of an earlier version with the same second and size would
    be run under the digest of the new one.
    """

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        space = module.__name__.partition(".")[0]
        own = {**vars(builtins), "__import__": _importing(space, Path(self.path))}
        vars(module)["__builtins__"] = own  # functions defined in it keep them
        super().exec_module(module)


def _importing(space: str, file: Path) -> Any:
    """`__import__` for one file of a plug-in."""
    roots = tuple(Path(root) for root in sys.modules[space].__path__)

    def plugin_import(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not _beside(roots, name, tuple(fromlist or ()), file):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        private = f"{space}.{name}"
        if fromlist:
            return builtins.__import__(private, globals, locals, fromlist, 0)
        importlib.import_module(private)
        return sys.modules[f"{space}.{name.partition('.')[0]}"]

    return plugin_import
