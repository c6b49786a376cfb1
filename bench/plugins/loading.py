"""A user's Python file as a module, with what it imports from beside it, and the digest of both.

    module = load(Path("mytask.py"))     runs the file, once a process
    digest(Path("mytask.py"))            hashes it and what it imports, without running anything

What lies beside a plug-in comes first, for that plug-in alone: its folder is a package of its own
with a private name, so two plug-ins that both import a `helper` get each their own, whatever the
process imported before and wherever it was started. Where the folder belongs to a package (it has
an `__init__.py`), the package's own name and relative imports work, too. `bench` and `baselines`
always mean the suite; its files and those of installed packages are never part of a digest, but
of a plug-in that is in an installed package (`bench/plugins/installed.py`) those of that package.
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
from importlib import machinery
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.plugins import moved

SUITE = ("bench", "baselines")
HOME = Path(__file__).resolve().parents[1]  # `bench`
SUITE_PLACES = (HOME, *(HOME.parent / name for name in ("baselines", "benchmarks", "tests")))
INSTALLED = tuple(
    Path(sysconfig.get_path(kind)).resolve()
    for kind in ("stdlib", "platstdlib", "purelib", "platlib")
)
PREFIX = "plugin_"
SUFFIXES = (  # as Python looks for them
    *machinery.EXTENSION_SUFFIXES,
    *machinery.SOURCE_SUFFIXES,
    *machinery.BYTECODE_SUFFIXES,
)


class Unloadable(ValueError):
    """A plug-in that is not there or cannot be imported; the message says why."""


# Where modules lie


def foreign(file: Path, home: Path | None = None) -> bool:
    """Whether a file is the suite's or an installed package's; of a plug-in that is one itself,
    whether it is outside its package, `home`."""
    file = file.resolve()
    if home is not None:
        return not file.is_relative_to(home)
    places = (*SUITE_PLACES, *INSTALLED)
    return file == HOME.parent / "run_bench.py" or any(map(file.is_relative_to, places))


def _roots(path: Path) -> tuple[Path, ...]:
    """Where a plug-in's imports are looked for: its folder and, where that is part of a package,
    the folder that the outermost package lies in."""
    outermost = path.parent
    while (outermost / "__init__.py").is_file():
        outermost = outermost.parent
    return tuple(dict.fromkeys([path.parent, outermost]))


def _module_file(root: Path, dotted: str) -> Path | None:
    """The file of a module below `root`, a package's `__init__`; None where there is none."""
    place = root.joinpath(*dotted.split("."))
    files = (Path(f"{stem}{end}") for stem in (place / "__init__", place) for end in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _beside(
    roots: tuple[Path, ...],
    name: str,
    wanted: tuple[str, ...],
    importer: Path,
    home: Path | None = None,
) -> Path | None:
    """The root below which `import name`, or `from name import wanted`, in the file `importer`
    finds a module; None where it means another one.

    A folder without an `__init__` counts only where a module asked for lies in it: one called
    `wandb`, which that library makes, is not the library. A module never means itself: a plug-in
    may be called after the library that it brings.
    """
    top = name.partition(".")[0]
    for root in () if top in SUITE else roots:
        file = _module_file(root, top)
        if file is None and (root / top).is_dir():
            asked = [name, *(f"{name}.{part}" for part in wanted)]
            file = next(filter(None, (_module_file(root, each) for each in asked)), None)
        itself = file == importer and importer.stem != "__init__"
        if file is not None and not itself and not foreign(file, home):
            return root
    return None


# The digest


@functools.cache
def digest(path: Path, module: str = "") -> str:
    """SHA-256 of a plug-in's file and of every file it imports from beside it, directly or not,
    its own first, the others in the order of their names; as the files are when this is first asked
    for. `module` is the name it is imported by where it is in an installed package: beside it is
    then all of this package, wherever it lies, and nothing else."""
    path = path.resolve()
    roots, home = (_roots(path), None) if not module else _installed_at(path, module)
    contents, left = dict[Path, bytes](), [path]
    left += _along(roots[0], module, ()) if module else ()  # the packages it is in are run first
    while left:
        file = left.pop()
        if file in contents or (file != path and foreign(file, home)):
            continue
        contents[file] = file.read_bytes()
        if file.suffix == ".py":
            left += _imported(file, contents[file], roots, home)
    others = contents.keys() - {path}
    ordered = sorted(others, key=lambda file: file.relative_to(roots[-1]).as_posix())
    return " ".join(hashlib.sha256(contents[file]).hexdigest() for file in (path, *ordered))


def _installed_at(path: Path, module: str) -> tuple[tuple[Path, ...], Path]:
    """The folder that the package of a module lies in, as `_roots`, and the package."""
    parts = module.split(".")
    root = path.parents[len(parts) - (path.stem != "__init__")]
    single = path.parent == root  # a module by itself
    return (root,), path if single else root / parts[0]


def _imported(
    file: Path, content: bytes, roots: tuple[Path, ...], home: Path | None = None
) -> Iterator[Path]:
    """The files beside a plug-in that one of its files imports, inside functions too."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # running it will say so
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            asked: list[tuple[str, tuple[str, ...]]] = [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            asked = [(str(node.module), tuple(alias.name for alias in node.names))]
        elif isinstance(node, ast.ImportFrom):
            package = file.parents[node.level - 1]
            for top in [root for root in roots[::-1] if package.is_relative_to(root)][:1]:
                parts = (*package.relative_to(top).parts, *filter(None, [node.module]))
                yield from _along(top, ".".join(parts), [alias.name for alias in node.names])
            continue
        else:
            continue
        for name, wanted in asked:
            if root := _beside(roots, name, wanted, file, home):
                yield from _along(root, name, wanted)


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
    space = _space(path.parent, roots)
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
    except BaseException as error:
        sys.modules.pop(name, None)
        if not isinstance(error, ImportError | SyntaxError):
            raise
        reason = str(error).replace(space + ".", "").replace(space, str(path.parent))
        raise Unloadable(f"{path} cannot be imported: {reason}") from error
    setattr(parent, stem, module)
    return module


def _space(folder: Path, roots: Sequence[Path]) -> str:
    """The private package for a plug-in's folder, made where it is not yet there. Its name is the
    same in every process, so that what is pickled in one can be read in another that loaded the
    plug-in."""
    name = PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    if name not in sys.modules:
        package = ModuleType(name, f"What lies beside the plug-ins in {folder}.")
        package.__path__ = [str(root) for root in roots]
        sys.modules[name] = package
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    return name


class _Finder:
    """Finds the modules of the private packages, and has them loaded by `_Loader`."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith(PREFIX) or "." not in name:
            return None
        spec = machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, machinery.SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(machinery.SourceFileLoader):
    """Runs a file of a plug-in, so that its imports, late ones too, look beside it first.

    Always from the source: bytecode kept of an earlier version with the same second and size would
    be run under the digest of the new one.
    """

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        space, file = module.__name__.partition(".")[0], Path(self.path)
        roots = tuple(Path(root) for root in sys.modules[space].__path__)
        importing = functools.partial(_import, space, roots, file)
        # Functions defined in it keep them.
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": importing}
        super().exec_module(module)


def _import(
    space: str,
    roots: tuple[Path, ...],
    file: Path,
    name: str,
    globals: Mapping[str, object] | None = None,
    locals: Mapping[str, object] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` for one file of the plug-ins of a private package."""
    wanted = tuple(fromlist or ())
    if level == 0 and name.partition(".")[0] in SUITE:
        return _of_the_suite(name, wanted, file)
    if level or not _beside(roots, name, wanted, file):
        return builtins.__import__(name, globals, locals, wanted, level)
    if wanted:
        return builtins.__import__(f"{space}.{name}", globals, locals, wanted, 0)
    importlib.import_module(f"{space}.{name}")
    return sys.modules[f"{space}.{name.partition('.')[0]}"]


def _of_the_suite(name: str, wanted: tuple[str, ...], file: Path) -> ModuleType:
    """A module of the suite; ImportError with the line to write where a plug-in's line asks for
    what has moved or never was."""
    missing: Exception | None = None
    try:
        module = builtins.__import__(name, None, None, wanted, 0)
        if all(part == "*" or hasattr(module, part) for part in wanted):
            return module
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in SUITE:  # a library that is not installed
            raise
        missing = error
    line = sys._getframe(2).f_lineno  # of the statement, past `_import`
    raise ImportError(moved.rewritten(file, line)) from missing
