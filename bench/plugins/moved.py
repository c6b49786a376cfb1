"""Where the modules of earlier versions are now, for plug-ins that import them as they were called.

print(rewritten(Path("mytask.py"), 15))
line 15 of mytask.py is `from bench.data import Examples`: write `from bench import Examples`
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from bench import HOMES
from bench.plugins.names import near

# By the old name, where to look.
MOVED = {
    "bench.artefacts": ("bench.pictures.downloads",),
    "bench.cluster": ("bench.run.cluster",),
    "bench.conditioning": ("bench.conditioners", "bench.modulation"),
    "bench.contract": ("bench.plugins.contract",),
    "bench.data": ("bench.pictures.data",),
    "bench.decode": ("bench.pictures.decode",),
    "bench.executors": ("bench.run.schedule",),
    "bench.fields": ("bench.plugins.fields",),
    "bench.lease": ("bench.run.lease",),
    "bench.measures": ("bench.pictures.measures",),
    "bench.naming": ("bench.plugins.names",),
    "bench.packing": ("bench.run.capacity",),
    "bench.perceptual": ("bench.pictures.perceptual",),
    "bench.progress": ("bench.run.board",),
    "bench.records": ("bench.run.records", "bench.files"),
    "bench.runner": ("bench.run.plan", "bench.run.work", "bench.run.runner"),
    "bench.scenes": ("bench.pictures.scenes",),
    "bench.store": ("bench.run.store",),
    "bench.timing": ("bench.run.timing",),
    "bench.untrusted": ("bench.files",),
    "bench.upkeep": ("bench.run.folders",),
}


def rewritten(file: Path, line: int) -> str:
    """The statement at a line of a plug-in's file that cannot import what it names, and every other
    one of a module that has moved: each as it is, and as it is to be written."""
    lines = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        asked = node.lineno <= line <= (node.end_lineno or line)
        if asked or _modules(node) & MOVED.keys():
            place = f"line {node.lineno} of {file} is `{ast.unparse(node)}`"
            lines.append((node.lineno, f"{place}: {_instead(node)}"))
    return "\n".join(text for _, text in sorted(lines))


def _modules(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = {alias.name for alias in node.names}
    if isinstance(node, ast.Import):
        return names
    return {str(node.module), *(f"{node.module}.{name}" for name in names)}


def _instead(node: ast.Import | ast.ImportFrom) -> str:
    """What to do about a statement: the line to write, or a name like the one that is not there."""
    statements: dict[str, list[ast.alias]] = {}
    for alias in node.names:
        full_name = (
            f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        )
        module, _, name = MOVED.get(full_name, (full_name,))[0].rpartition(".")
        if home := _home(module, name):
            handle = alias.asname or alias.name.rpartition(".")[2]
            renamed = handle if handle != name else None
            statements.setdefault(home, []).append(ast.alias(name, renamed))
        else:
            return f"{near(name, HOMES, 'part of the suite')} (`help(bench)` has them)"
    lines = [ast.unparse(ast.ImportFrom(home, names, 0)) for home, names in statements.items()]
    return f"write `{'` and `'.join(lines)}`"


def _home(module: str, name: str) -> str:
    """The module that has a name now: `bench` where it is public, "" where there is none."""
    if name in HOMES:
        return "bench"
    for place in MOVED.get(module, (module,)):
        try:
            if hasattr(importlib.import_module(place), name):
                return place
            importlib.import_module(f"{place}.{name}")
            return place
        except ImportError:
            continue
    return ""
