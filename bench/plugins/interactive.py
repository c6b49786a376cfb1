"""A class that was defined in a notebook, or in the script that runs, as a file of its own.

    kind = in_a_file(Denoising, Path("results/tasks"))      the same class, of a file written there

A result must be traced to what made it, and another process must be able to make it again. So the
class is written out with what it uses: imports, functions, other classes, plain values, tensors and
arrays. The file's content is part of the networks' ids, as that of every plug-in's file is: an
edited cell trains anew, the same cell finds what is stored. A file is written once and never
changed.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import linecache
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from bench.files import read_ordinary, write_atomic
from bench.plugins import loading

MAIN = "__main__"
TENSORS = "tensors.safetensors"
HEAD = '"""{}, as a notebook or a script had it."""\n\nfrom __future__ import annotations\n\n'
LOADED = (
    "from pathlib import Path as _Path\n\nfrom safetensors.torch import load_file as _load_file\n\n"
    f'_tensors = _load_file(_Path(__file__).with_name("{TENSORS}"))  # SHA-256 {{}}\n'
)
ARRAYS = (("torch", "Tensor"), ("numpy", "ndarray"))
Definition = ast.ClassDef | ast.FunctionDef


def in_a_file(kind: type, folder: Path, stem: str) -> type:
    """The class of a file: `kind` itself, unless it was defined in a notebook or in the script that
    runs; then that of `folder`/<digest>/<stem>.py. ValueError where it uses what cannot be written,
    with the way out."""
    if kind.__module__ != MAIN:
        return kind
    text, tensors = _Writer(kind).written()
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:12] / f"{stem}.py"
    wanted = {TENSORS: tensors} if tensors else {}
    wanted[place.name] = text.encode()  # last: what lies beside it is then whole
    place.parent.mkdir(parents=True, exist_ok=True)
    for name, content in wanted.items():
        file = place.parent / name
        if not file.exists():
            write_atomic(file, content)
        elif read_ordinary(file, len(content) + 1) != content:
            raise ValueError(f"{file} is not what this class is kept as: delete it")
    if strange := [each.name for each in place.parent.glob("*.py") if each.name not in wanted]:
        raise ValueError(f"{place.parent} has {strange[0]}, which is none of ours: delete it")
    return getattr(loading.load(place), kind.__name__)  # type: ignore[no-any-return]


class _Writer:
    """Collects what a class uses, in the order in which a file must have it."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.main = vars(sys.modules[MAIN])
        self.imports: dict[str, str] = {}  # by name, the line
        self.local: dict[str, str] = {}  # the user's modules that are imported, and their digests
        self.values: dict[str, str] = {}
        self.tensors: dict[str, Any] = {}
        self.definitions: dict[str, str] = {}

    def written(self) -> tuple[str, bytes]:
        """The file's text, and the tensors that lie beside it."""
        self._define(self.kind.__name__, self.kind)
        stored, lines = b"", sorted(self.imports.values())
        if self.tensors:
            from safetensors.torch import save

            stored = save({name: self._tensor(value) for name, value in self.tensors.items()})
            lines.append(LOADED.format(hashlib.sha256(stored).hexdigest()))
        for name, value in self.tensors.items():
            array = "" if type(value).__module__ == "torch" else ".numpy()"
            lines.append(f'{name} = _tensors["{name}"]{array}')
        lines += [f"{name} = {text}" for name, text in self.values.items()]
        lines += [f"# {name}.py: SHA-256 {digest}" for name, digest in self.local.items()]
        parts = ["\n".join(lines), *self.definitions.values()]
        return HEAD.format(self.kind.__name__) + "\n\n\n".join(parts) + "\n", stored

    @staticmethod
    def _tensor(value: Any) -> Any:
        import torch

        return torch.as_tensor(value).detach().cpu().contiguous().clone()

    def _define(self, name: str, value: Any) -> None:
        """Take a class or function, after what it uses."""
        if name in self.definitions:
            return
        text, node = self._source(name, value)
        self.definitions[name] = ""  # two functions may call each other
        for used in _names(node):
            if used in self.main and used != name:
                self._use(used, self.main[used])
        del self.definitions[name]
        self.definitions[name] = text

    def _use(self, name: str, value: Any) -> None:
        if getattr(builtins, name, None) is value:
            return
        if line := self._import(name, value):
            self.imports[name] = line
        elif _is_definition(inspect.unwrap(value)):
            self._define(name, value)
        elif _is_plain(value):
            self.values[name] = repr(value)
        elif f"{type(value).__module__}.{type(value).__name__}" in (
            "torch.Tensor",
            "numpy.ndarray",
        ):
            self.tensors[name] = value
        else:
            raise self._refusal(f"uses {name!r}, a {type(value).__name__}, from outside the class")

    def _import(self, name: str, value: Any) -> str:
        """The line that imports just this value under this name; "" where none of ours does."""
        for _, text in self._texts():
            for node in ast.walk(_parsed(text)):
                if not isinstance(node, ast.Import | ast.ImportFrom):
                    continue
                for alias in node.names:
                    line, module = _imported(node, alias, name, value)
                    if line:
                        self._note_local(module)
                        return line
        return ""

    def _note_local(self, module: str) -> None:
        """The digest of a module of the user's is part of the file: an edited one trains anew."""
        top = module.partition(".")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        if not file or not file.endswith(".py") or top in loading.SUITE:
            return
        if not loading.foreign(Path(file)):
            self.local[module] = loading.digest(Path(file))

    def _source(self, name: str, value: Any) -> tuple[str, ast.AST]:
        """The text and the syntax of a definition."""
        files = _files(value)
        for file, text in self._texts():
            if files and file not in files:
                continue  # it may have another definition of this name
            for node in reversed(_parsed(text).body):
                if isinstance(node, Definition) and node.name == name:
                    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                    return "\n".join(text.splitlines()[first - 1 : node.end_lineno]), node
        raise self._refusal(f"uses {name!r}, and no `class` or `def` of this name is there to read")

    def _texts(self) -> Iterator[tuple[str, str]]:
        """What ran in `__main__`, the last first, by the name that Python has for each file."""
        if file := self.main.get("__file__"):
            yield file, "".join(linecache.getlines(file))
        cells = [name for name in linecache.cache if _is_cell(name)]
        yield from ((name, "".join(linecache.getlines(name))) for name in reversed(cells))

    def _refusal(self, reason: str) -> ValueError:
        name = self.kind.__name__
        return ValueError(
            f"the task {name} {reason}. A task's networks are stored under what made them, so "
            "everything it uses must be an import, a function, a class, a plain value, a tensor or "
            "an array. Make it inside the class, or write the task to a file, in a notebook with "
            f"`%%writefile {name.lower()}.py` as the cell's first line, and "
            f'compare("{name.lower()}.py")'
        )


def _is_definition(value: Any) -> bool:
    return isinstance(value, type | FunctionType) and value.__module__ == MAIN


def _is_cell(name: str) -> bool:
    return "ipykernel" in name or name.startswith("<ipython-input")


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _files(value: Any) -> set[str]:
    """Where the code of a function, or of a class's methods, was compiled from."""
    members = vars(value).values() if isinstance(value, type) else [value]
    functions = [getattr(each, "fget", getattr(each, "__func__", each)) for each in members]
    codes = [getattr(inspect.unwrap(each), "__code__", None) for each in functions if each]
    return {code.co_filename for code in codes if code}


def _names(node: ast.AST) -> list[str]:
    """The names that a definition takes from outside, and no variable or argument of its own."""
    left = [symtable.symtable(ast.unparse(node), "<definition>", "exec")]
    outer: set[str] = set()
    while left:
        table = left.pop()
        left += table.get_children()
        whole = table.get_type() == "module"
        for symbol in table.get_symbols():
            given = not symbol.is_assigned() if whole else symbol.is_global()
            if symbol.is_referenced() and given:
                outer.add(symbol.get_name())
    names = (each.id for each in ast.walk(node) if isinstance(each, ast.Name))
    return list(dict.fromkeys(name for name in names if name in outer))


def _imported(
    node: ast.Import | ast.ImportFrom, alias: ast.alias, name: str, value: Any
) -> tuple[str, str]:
    """The line and the module, where this part of a statement imports just this value."""
    if isinstance(node, ast.Import):
        bound = alias.asname or alias.name.partition(".")[0]
        module = alias.name if alias.asname else bound
        if bound == name and isinstance(value, ModuleType) and value is sys.modules.get(module):
            return ast.unparse(ast.Import([alias])), alias.name
        return "", ""
    module, wanted = str(node.module), name if alias.name == "*" else alias.name
    here = sys.modules.get(module)
    if node.level or name != (wanted if alias.name == "*" else alias.asname or alias.name):
        return "", ""
    if here is None or getattr(here, wanted, here) is not value:
        return "", ""
    asked = ast.alias(wanted, name if name != wanted else None)
    return ast.unparse(ast.ImportFrom(module, [asked], 0)), module


def _is_plain(value: Any) -> bool:
    """Whether a value is what its text says."""
    try:
        again = ast.literal_eval(repr(value))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return type(again) is type(value) and again == value
