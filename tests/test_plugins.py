"""Users' files as plug-ins: each has its own modules, and a digest of what it really imports."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.identity import file_digest
from bench.plugins import loading, moved
from bench.plugins.loading import digest, load
from bench.registry import UnknownName, describe, revive, task_class
from bench.run.plan import experiment
from bench.run.schema import CellConfig, from_plain, to_plain
from bench.run.store import cell_config, cell_from
from bench.task import Task, source_digest

ROOT = Path(__file__).resolve().parent.parent


def write(folder: Path, **files: str) -> Path:
    """Python files in a folder, `_IN_` in a name for a slash. The folder."""
    for name, content in files.items():
        path = folder / (name.replace("_IN_", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def of(*files: Path) -> str:
    return " ".join(file_digest(file) for file in files)


def test_two_plugins_have_each_the_module_beside_them(tmp_path: Path) -> None:
    source = (
        "import helper\ndef late():\n    import deep.inner as d\n    return d.WHO, helper.WHO\n"
    )
    one, two = (
        load(write(tmp_path / who, plugin=source, helper=f"WHO = {who!r}",
                   deep_IN_inner=f"from helper import WHO as A\nWHO = A + {who!r}") / "plugin.py")
        for who in ("a", "b")
    )  # fmt: skip
    assert one.late() == ("aa", "a")
    assert two.late() == ("bb", "b")
    assert not {"helper", "deep", "deep.inner"} & set(sys.modules)
    assert str(tmp_path / "a") not in sys.path


def test_the_digest_is_that_of_the_real_imports(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        plugin="import numpy, json\nfrom used import x\ndef f():\n    from pack.sub import leaf\n",
        used="x = 1\nimport second",
        second="import plugin",  # a circle
        unused="y = 2",
        pack_IN___init__="",
        pack_IN_sub_IN___init__="from . import twig",
        pack_IN_sub_IN_leaf="from ..root import z",
        pack_IN_sub_IN_twig="",
        pack_IN_root="z = 3",
        pack_IN_other="",
    )
    names = ("pack/__init__", "pack/root", "pack/sub/__init__", "pack/sub/leaf", "pack/sub/twig")
    files = [folder / f"{name}.py" for name in ("plugin", *names, "second", "used")]
    assert digest(folder / "plugin.py") == of(*files)


@pytest.mark.parametrize(
    "line",
    [
        "import helper",
        "import helper as h",
        "from helper import X",
        "from . import helper",
        "from .helper import X",
        "from helper import *",
        "try:\n    import helper\nexcept ImportError:\n    pass",
        "class A:\n    def f(self):\n        import os, helper",
    ],
)
def test_every_form_of_import_is_seen_and_run(tmp_path: Path, line: str) -> None:
    folder = write(tmp_path, plugin=line, helper="X = 1\n")
    assert digest(folder / "plugin.py") == of(folder / "plugin.py", folder / "helper.py")
    module = load(folder / "plugin.py")
    if hasattr(module, "A"):
        module.A().f()
    assert f"{module.__package__}.helper" in sys.modules


def test_a_plugin_inside_a_package_imports_as_the_package_does(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        proj_IN___init__="NAME = 'proj'",
        proj_IN_top="T = 1",
        proj_IN_sub_IN___init__="",
        proj_IN_sub_IN_near="N = 2",
        proj_IN_sub_IN_plugin="from ..top import T\nfrom proj import NAME\n"
        "from proj.sub.near import N\n"
        "import near\nfrom .near import N as again\n",
    )  # fmt: skip
    module = load(folder / "proj/sub/plugin.py")
    assert (module.T, module.NAME, module.N, module.near.N, module.again) == (1, "proj", 2, 2, 2)
    names = ("sub/plugin", "__init__", "sub/__init__", "sub/near", "top")
    assert digest(folder / "proj/sub/plugin.py") == of(*(folder / f"proj/{n}.py" for n in names))


def test_a_folder_is_no_library_and_a_file_does_not_mean_itself(tmp_path: Path) -> None:
    folder = write(
        tmp_path, plugin="import numpy\nimport spaces.one\n", numpy_IN_run="", spaces_IN_one=""
    )
    write(tmp_path, safetensors="from safetensors.torch import save\n")
    module = load(folder / "plugin.py")
    assert module.numpy is sys.modules["numpy"]
    assert digest(folder / "plugin.py") == of(folder / "plugin.py", folder / "spaces/one.py")
    assert load(folder / "safetensors.py").save is sys.modules["safetensors.torch"].save
    assert digest(folder / "safetensors.py") == of(folder / "safetensors.py")


def test_what_lies_beside_comes_first_for_the_plugin_alone(tmp_path: Path) -> None:
    import statistics

    folder = write(tmp_path, plugin="import statistics\n", statistics="MINE = True")
    assert load(folder / "plugin.py").statistics.MINE
    assert sys.modules["statistics"] is statistics
    assert not hasattr(statistics, "MINE")


def test_the_suite_is_never_part_of_it_whatever_is_called_so(tmp_path: Path) -> None:
    source = "import bench.space\nimport benchmarks.mine\n"
    folder = write(tmp_path, plugin=source, bench_IN_space="",
                   benchmarks_IN___init__="", benchmarks_IN_mine="")  # fmt: skip
    assert load(folder / "plugin.py").bench.space.Axis
    mine = [folder / f"{name}.py" for name in ("plugin", "benchmarks/__init__", "benchmarks/mine")]
    assert digest(folder / "plugin.py") == of(*mine)


def test_a_plugin_among_the_suites_files_has_its_own_digest_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in the repository's root, where `bench` and `run_bench.py` lie beside it."""
    home = write(tmp_path, bench_IN___init__="", run_bench="", benchmarks_IN_x="", helper="",
                 plugin="import bench, run_bench, benchmarks.x, helper\n")  # fmt: skip
    monkeypatch.setattr(loading, "HOME", home / "bench")
    monkeypatch.setattr(loading, "SUITE_PLACES", (home / "bench", home / "benchmarks"))
    assert digest(home / "plugin.py") == of(home / "plugin.py", home / "helper.py")


def test_new_code_of_the_same_second_and_size_is_run(tmp_path: Path) -> None:
    code = (
        "import sys; from bench.plugins.loading import *; print(load(Path(sys.argv[1])).helper.X)"
    )
    folder = write(tmp_path, plugin="import helper")
    for value in (1, 2):
        (folder / "helper.py").write_text(f"X = {value}")
        os.utime(folder / "helper.py", (1e9, 1e9))
        done = subprocess.run(
            [sys.executable, "-c", code, folder / "plugin.py"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == str(value)


TOY = (ROOT / "bench" / "tasks" / "toy.py").read_text()
TASK = (
    TOY.replace("from bench import", "import helper\nfrom bench import")
    .replace('= "toy"', "= helper.NAME")
    .replace("y = model(batch)", "from late import factor\n        y = factor() * model(batch)")
)


def test_an_id_is_one_everywhere(tmp_path: Path) -> None:
    """Whatever was imported before, from whichever folder, in whichever order of the path."""
    folder = write(
        tmp_path / "p", mine=TASK, helper="NAME = 'mine'", late="def factor(): return 2."
    )
    (cell,) = experiment(str(folder / "mine.py"), "smoke", ["yoto"]).cells
    config = json.dumps(to_plain(cell_config(cell, "smoke")))
    code = (
        "import json, sys; {before}; from bench.run.store import cell_from; "
        "from bench.run.schema import CellConfig, from_plain; "
        "print(cell_from(from_plain(json.loads(sys.argv[1]), CellConfig)).id)"
    )
    for before, cwd in (
        ("pass", ROOT),
        (f"sys.path.insert(0, {str(folder)!r}); import helper, late", tmp_path),
        ("import run_bench, bench.cli, benchmarks, tests.conftest", folder),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(before=before), config],
            cwd=cwd, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "5"},
        )  # fmt: skip
        assert done.stdout.strip() == cell.id


def test_a_plugins_objects_survive_a_description_and_a_pickle(tmp_path: Path) -> None:
    folder = write(tmp_path, mine=TASK, helper="NAME = 'mine'", late="")
    kind = task_class(str(folder / "mine.py"))
    task = kind.presets()["smoke"].task
    assert revive(json.loads(json.dumps(describe(task))), Task) == task
    assert pickle.loads(pickle.dumps(task)) == task
    assert source_digest(kind).split() == [
        hashlib.sha256((folder / f"{name}.py").read_bytes()).hexdigest()
        for name in ("mine", "helper", "late")
    ]
    (cell,) = experiment(f"{folder / 'mine.py'}", "smoke", ["yoto"]).cells
    assert cell_from(from_plain(to_plain(cell_config(cell, "smoke")), CellConfig)).id == cell.id


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import nowhere_at_all", "nowhere_at_all"),
        ("from . import gone", "gone"),
        ("import helper.gone", r"helper\.gone"),
        ("def (", "invalid syntax"),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path: Path, content: str, says: str) -> None:
    folder = write(tmp_path, plugin=content, helper="")
    with pytest.raises(UnknownName, match=rf"plugin\.py cannot be imported: .*{says}") as caught:
        task_class(str(folder / "plugin.py"))
    assert loading.PREFIX not in str(caught.value)


def test_names_that_are_no_modules(tmp_path: Path) -> None:
    for name in ("my task", "my-task", "my.task", "1st", "größe"):
        (tmp_path / f"{name}.py").write_text("import helper\nWHO = __file__")
    (tmp_path / "helper.py").write_text("")
    found = {load(tmp_path / f"{name}.py").WHO for name in ("my task", "my-task", "my.task", "1st")}
    assert len(found) == 4


# What the suite offers them, and what it offered by other names


def test_no_public_name_is_missing_and_results_need_no_torch() -> None:
    code = (
        "import sys, bench\n"
        "from bench import load_results\n"
        "load_results(sys.argv[1])\n"
        "assert 'torch' not in sys.modules\n"
        "for name in bench.__all__: getattr(bench, name)\n"
        "assert {*bench.__all__} < {*dir(bench)}\n"
        "from bench import *\n"
        "assert Task is bench.task.Task\n"
        "assert not hasattr(bench, 'nothing')\n"
    )
    results = ROOT / "results" / "reference" / "small-cpu-amd-epyc"
    subprocess.run([sys.executable, "-c", code, results], cwd=ROOT, check=True)


def test_the_template_imports_from_bench_alone() -> None:
    nodes = [node for node in ast.walk(ast.parse(TOY)) if isinstance(node, ast.ImportFrom)]
    assert {node.module for node in nodes if str(node.module).startswith("bench")} == {"bench"}


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("from bench.data import Examples", "from bench import Examples"),
        ("from bench.data import Examples as E, Pictures",
         "from bench import Examples as E, Pictures"),
        ("from bench.conditioning import FiLM, modulate", "from bench import FiLM, modulate"),
        ("from bench.conditioning import own_parameters",
         "from bench import own_parameters"),
        ("from bench.conditioning import FiLM, unfoldable",
         "from bench import FiLM` and `from bench.modulation import unfoldable"),
        ("from bench.runner import experiment", "from bench import experiment"),
        ("from bench.records import write_atomic", "from bench.files import write_atomic"),
        ("from bench import data", "from bench.pictures import data"),
        ("import bench.measures as m", "from bench.pictures import measures as m"),
        ("from bench.task import Pictures", "from bench import Pictures"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beside", [False, True])
def test_an_import_by_an_old_name_is_answered_with_the_line_to_write(
    tmp_path: Path, line: str, instead: str, beside: bool
) -> None:
    """In the plug-in, or in what lies beside it."""
    file = tmp_path / ("helper.py" if beside else "plugin.py")
    write(tmp_path, plugin="import helper\n", helper="")
    file.write_text(f'"""Mine."""\nfrom bench import Task\n{line}\n')
    with pytest.raises(UnknownName) as caught:
        task_class(str(tmp_path / "plugin.py"))
    assert f"line 3 of {file} is `{line}`: write `{instead}`" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    exec(instead.replace("` and `", "\n"), {})


def test_every_old_import_of_a_file_is_answered_at_once(tmp_path: Path) -> None:
    """Those inside functions, too, which would else fail in the middle of a training."""
    write(
        tmp_path,
        plugin="from bench.data import (\n    Examples,\n)\n"
        "def f():\n    from bench.measures import psnr\n    from bench.space import Axis\n",
        late="def f():\n    from bench.conditioning import FiLM\n",
        guarded="try:\n    from bench.data import Examples\nexcept ImportError:\n"
        "    from bench import Examples\n",
        typo="from bench import Exampels\n",
    )
    with pytest.raises(UnknownName) as caught:
        task_class(str(tmp_path / "plugin.py"))
    first, second = str(caught.value).splitlines()
    assert first.endswith("`from bench.data import Examples`: write `from bench import Examples`")
    assert second.startswith(f"line 5 of {tmp_path / 'plugin.py'} is")
    with pytest.raises(ImportError, match=r"line 2 of .*late\.py .* `from bench import FiLM`"):
        load(tmp_path / "late.py").f()
    assert load(tmp_path / "guarded.py").Examples is bench.Examples
    with pytest.raises(UnknownName, match=r"line 1 of .*'Exampels': did you mean Examples"):
        task_class(str(tmp_path / "typo.py"))


def test_what_moved_is_where_it_is_looked_for() -> None:
    for old, homes in moved.MOVED.items():
        assert not (ROOT / old.replace(".", "/")).with_suffix(".py").exists()
        assert all(importlib.util.find_spec(home) for home in homes)


def test_a_copied_file_does_not_take_the_place_of_the_first(tmp_path: Path) -> None:
    code = "from bench import Yoto\nclass Mine(Yoto):\n    pass\n"
    file = str(write(tmp_path, mine=code) / "mine.py")
    assert list(experiment("toy", "smoke", [file, "fixed_grid"]).methods) == ["yoto", "fixed_grid"]
    with pytest.raises(ValueError, match="two methods are called 'yoto': give one another `name`"):
        experiment("toy", "smoke", [file, "yoto"])
