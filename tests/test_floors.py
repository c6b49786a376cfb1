"""The order of the house: imports go down only, nothing above the plug-ins knows one by name, and
no file or function is longer than one can read.

A new module gets its place in `ROOMS`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench import HOMES
from bench.registry import METHODS, TASKS

ROOT = Path(__file__).parent.parent
# From the ground up: a module imports from the rooms before its own and, in its own, from modules
# before itself. Plug-ins (`*`) may import one another; `bench` itself imports nothing by itself.
ROOMS = {
    "ground": ("bench", "files space identity"),
    "plug-ins: reading": ("bench.plugins", "names fields moved loading installed"),
    "pictures": (
        "bench.pictures",
        "measures folders sources archives decode scenes artefacts data downloads perceptual",
    ),
    "idea": (
        "bench",
        "showing cost modulation balance conditioners scaled weights checkpoint measure task "
        "measuring method levers capture train fixed_grid registry faithful yoto",
    ),
    "plug-ins: asking": ("bench.plugins", "contract interactive"),
    "tasks": ("bench.tasks", "*"),
    "baselines": ("baselines", "*"),
    "run": (
        "bench.run",
        "layout older study timing records schema looks capacity board tensorboard plan store "
        "lease cluster folders schedule work processes nodes runner",
    ),
    "report: results": ("bench.report", "pictures run load once text"),
    "report: answers": (
        "bench.report.answers",
        "stats spending fronts reference costs verdict knob compare lengths studies claims answer",
    ),
    "report: tables": (
        "bench.report",
        "sheet rendering headings tables cost_tables study_tables answer_table",
    ),
    "report: looks": ("bench.report", "appearance"),
    "report: figures": (
        "bench.report.figures",
        "look point_names panels films curves matrices tradeoffs studies",
    ),
    "report: document": (
        "bench.report",
        "figures explain notes sentence sections terminal sliders page stamps document",
    ),
    "live": (
        "bench.live",
        "networks rooms answers server check pieces places export static command",
    ),
    "entry": ("bench", "decide growing comparison continuing commands listing completion cli"),
    "program": ("", "run_bench"),
    "benchmarks": ("benchmarks", "*"),
}
ORDER = [
    f"{folder}.{name}".strip(".") for folder, names in ROOMS.values() for name in names.split()
]
# All that the report needs: results are read without torch and without a task or a method.
FOR_REPORT = {
    *("bench", "bench.files", "bench.identity", "bench.space", "bench.registry"),
    "bench.plugins.names",
    *("bench.run.layout", "bench.run.schema", "bench.run.records", "bench.run.looks"),
    "bench.run.study",
}
LINES, FUNCTION = 400, 60
READS_OLDER_FOLDERS = "bench.run.older"  # whose records have no role: it knows whose they were


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PRODUCT = sorted([*ROOT.glob("bench/**/*.py"), *ROOT.glob("baselines/*.py")])
ABOVE = [path for path in PRODUCT if module_name(path).startswith(("bench.run", "bench.report"))]
ABOVE += sorted((ROOT / "bench" / "live").glob("*.py"))
ABOVE += [ROOT / "bench" / "cli.py", ROOT / "bench" / "commands.py"]
WITH_PROGRAMS = [*PRODUCT, *sorted(ROOT.glob("benchmarks/*.py")), ROOT / "run_bench.py"]
by_file = pytest.mark.parametrize("path", PRODUCT, ids=module_name)


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports, inside functions too; of a public name of `bench`,
    the one it is in."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                public = HOMES.get(alias.name, "bench") if node.module == "bench" else node.module
                module = (ROOT / whole.replace(".", "/")).with_suffix(".py").exists()
                names.add(whole if module else str(public))
    ours = ("bench", "baselines", "benchmarks", "run_bench")
    return {name for name in names if name.split(".")[0] in ours}


def floor(module: str) -> int:
    """The place in ORDER; a package's own is that of its last module."""
    places = [module, f"{module.rpartition('.')[0]}.*"]
    places += [name for name in ORDER if name.startswith(f"{module}.")][-1:]
    found = [ORDER.index(place) for place in places if place in ORDER]
    assert found, f"{module} has no place: give it one in ROOMS of tests/test_floors.py"
    return found[0]


@pytest.mark.parametrize("path", WITH_PROGRAMS, ids=module_name)
def test_a_file_imports_only_from_below(path: Path) -> None:
    module = module_name(path)
    if module == "bench":
        return  # the way in: nothing is imported before it is asked for
    plug_ins = ORDER[floor(module)].endswith(".*")
    up = {
        name
        for name in imported(path) - {"bench", module}
        if floor(name) > floor(module) or (floor(name) == floor(module) and not plug_ins)
    }
    assert not up, f"{module} imports {', '.join(sorted(up))}"


def test_plug_ins_do_not_import_in_circles() -> None:
    graph = {module_name(path): imported(path) - {module_name(path)} for path in PRODUCT}

    def below(module: str, seen: tuple[str, ...]) -> None:
        assert module not in seen, f"a circle: {' → '.join([*seen, module])}"
        for name in graph[module]:
            if name.startswith(("baselines.", "bench.tasks.")):
                below(name, (*seen, module))

    for module in graph:
        below(module, ())


@pytest.mark.parametrize("path", ABOVE, ids=module_name)
def test_nothing_above_the_plug_ins_knows_one(path: Path) -> None:
    """Neither by an import nor by a registered name; see `role`, `tuned`, `label` of a Method."""
    module = module_name(path)
    assert not {name for name in imported(path) if name.startswith(("baselines", "bench.tasks"))}
    tree = ast.parse(path.read_text())
    literals = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in {*TASKS, *METHODS}
    }
    exempt = module == READS_OLDER_FOLDERS
    assert exempt or not literals, f"{module} names {', '.join(sorted(literals))}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("bench/report/**/*.py")), ids=module_name)
def test_the_report_needs_what_is_stored_alone(path: Path) -> None:
    others = {name for name in imported(path) if not name.startswith("bench.report")}
    assert others <= FOR_REPORT, others - FOR_REPORT


@by_file
def test_no_file_is_long(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LINES, f"{lines} lines"


@by_file
def test_no_function_is_long(path: Path) -> None:
    """From `def` to its last line."""
    long = {
        f"{node.name}: {length}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION
    }
    assert not long, long


def test_an_upward_import_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "def f():\n    from bench.cli import main\n    import baselines.fixed_grid\n"
        "    from bench import Task, experiment, files\n"
    )
    assert imported(file) == {
        *("bench.cli", "baselines.fixed_grid", "bench.task", "bench.run.plan", "bench.files")
    }
    assert floor("bench.run.plan") > floor("baselines.gates") > floor("bench.task")
    with pytest.raises(AssertionError, match="give it one in ROOMS"):
        floor("bench.new")
