"""Imports go down only: a file imports from floors below its own, and `bench` never names
`baselines` (the registry holds strings)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "bench": 10,  # the way in from Python; nothing is imported before it is asked for
    "bench.files": -1,
    "bench.run.schema": 7.2,
    "bench.run": -1,
    "bench.run.layout": -1,
    "bench.run.older": -1,
    "bench.pictures": -1,
    "bench.fields": -1,
    "bench.pictures.decode": 0,
    "bench.space": 0,
    "bench.identity": 0,
    "bench.plugins": 0,
    "bench.run.records": 0,
    "bench.cost": 0,
    "bench.run.lease": 7.3,
    "bench.heap": -1,
    "bench.pictures.downloads": 1,
    "bench.pictures.data": 1,
    "bench.pictures.scenes": 1,
    "bench.conditioners": 1,
    "bench.pictures.perceptual": 2,
    "bench.pictures.measures": 3,
    "bench.task": 4,
    "bench.train": 5,
    "bench.method": 6,
    "bench.yoto": 7,
    "bench.tasks.*": 7,
    "baselines.*": 8,
    "bench.registry": 7,
    "bench.run.schedule": 7.5,
    "bench.run.capacity": 7.3,
    "bench.naming": 7.5,
    "bench.run.cluster": 8,
    "bench.run.nodes": 9.5,
    "bench.contract": 7.6,
    "bench.faithful": 7,
    "bench.run.store": 8,
    "bench.run.board": 8,
    "bench.run.folders": 8,
    "bench.run.plan": 8,
    "bench.run.work": 9,
    "bench.run.runner": 10,
    "bench.modulation": 0,
    "bench.run.timing": 10,
    "bench.report.*": 9,
    "bench.commands": 10.5,
    "bench.cli": 11,
    "run_bench": 12,
    "benchmarks": 12,
    "benchmarks.*": 12,
}
SAME_FLOOR = {
    ("bench.cost", "bench.identity"),
    ("bench.pictures.data", "bench.pictures.downloads"),
    ("bench.yoto", "bench.registry"),
    ("baselines.*", "baselines.*"),
    ("bench.report.*", "bench.report.*"),
    ("benchmarks.*", "benchmarks.*"),
}
FILES = [
    *ROOT.glob("bench/**/*.py"),
    *ROOT.glob("baselines/*.py"),
    *ROOT.glob("benchmarks/*.py"),
    ROOT / "run_bench.py",
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """The entry of FLOORS a module belongs to."""
    if module in FLOORS:
        return module
    for parts in range(module.count(".") + 1, 0, -1):
        pattern = ".".join(module.split(".")[:parts]) + ".*"
        if pattern in FLOORS:
            return pattern
    raise AssertionError(f"{module} has no floor: give it one in tests/test_floors.py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                inside = (ROOT / (whole.replace(".", "/") + ".py")).exists()
                names.add(whole if inside else str(node.module))
    return {
        name
        for name in names
        if name.split(".")[0] in ("bench", "baselines", "benchmarks", "run_bench")
    }


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_imports_only_from_the_floors_below(path: Path) -> None:
    own = room(module_name(path))
    for name in imported(path):
        other = room(name)
        lower = FLOORS[other] < FLOORS[own]
        assert lower or (own, other) in SAME_FLOOR or other == "bench", f"{own} imports {other}"


def test_bench_never_imports_a_baseline() -> None:
    for path in ROOT.glob("bench/**/*.py"):
        assert not [name for name in imported(path) if name.startswith("baselines")], path


def test_an_upward_import_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from bench.cli import main\n    import baselines.fixed_grid\n")
    assert imported(file) == {"bench.cli", "baselines.fixed_grid"}
