"""Tasks and methods of installed packages: found by entry points, imported when used, their code
part of every id."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.live.networks import catalogue
from bench.method import Method
from bench.plugins import installed, loading
from bench.registry import UnknownName, describe, method, offered, registered, revive, task_class
from bench.run import folders
from bench.run.plan import experiment
from bench.run.schema import CellConfig, read
from bench.run.store import cell_from
from bench.task import Task, source_digest

ROOT = Path(__file__).resolve().parent.parent
TOY = (ROOT / "bench" / "tasks" / "toy.py").read_text("utf-8")
METHOD = "from bench import Levers\nclass Mine(Levers):\n    name = 'mine'\n    line = 'mine'\n"


def toy(name: str, extra: str = "") -> str:
    return extra + TOY.replace("from __future__ import annotations\n", "").replace(
        '= "toy"', f'= "{name}"'
    )


Package = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Makes an installed package of these files, whose entry points are lines by group."""
    tops: set[str] = set()

    def make(
        name: str, files: dict[str, str], tasks: str = "", methods: str = "", version: str = "1.0"
    ) -> Path:
        place = tmp_path / f"site-{name}"
        shutil.rmtree(place, ignore_errors=True)
        for path, content in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(content)
            tops.add(Path(path).parts[0].removesuffix(".py"))
        about = place / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        about.joinpath("METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        about.joinpath("entry_points.txt").write_text(
            f"[yoto_bench.tasks]\n{tasks}\n[yoto_bench.methods]\n{methods}\n"
        )
        monkeypatch.syspath_prepend(str(place))
        return place

    yield make
    for module in [each for each in sys.modules if each.partition(".")[0] in tops]:
        del sys.modules[module]


def test_a_name_is_known_without_an_import_and_used_with_one(package: Package) -> None:
    files = {"acme/__init__.py": "", "acme/shrink.py": toy("shrink"), "acme/m.py": METHOD}
    package("acme-tasks", files, "shrink = acme.shrink:Toy", "mine = acme.m:Mine")
    offer = registered("shrink", "task")
    assert (offer.package, offer.version, offer.target) == ("acme-tasks", "1.0", "acme.shrink:Toy")
    assert offer.origin == "acme-tasks 1.0"
    assert registered("yoto", "method").origin == ""
    assert "acme" not in sys.modules
    assert task_class("shrink").__module__ == "acme.shrink"
    assert task_class("acme-tasks:shrink") is task_class("shrink")
    assert method("mine").name == "mine"
    with pytest.raises(UnknownName, match="did you mean shrink"):
        task_class("shrank")


@pytest.mark.parametrize(
    ("files", "entry", "says"),
    [
        ({"acme.py": "import nowhere_at_all"}, "acme:Toy", "No module named 'nowhere_at_all'"),
        ({"acme.py": "1 / 0"}, "acme:Toy", "ZeroDivisionError"),
        ({"acme.py": "def ("}, "acme:Toy", "SyntaxError"),
        ({"acme.py": "raise SystemExit(3)"}, "acme:Toy", "SystemExit"),
        ({"acme.py": ""}, "acme:Toy", "has no attribute 'Toy'"),
        ({"acme.py": "class Toy:\n    pass"}, "acme:Toy", "acme:Toy is no whole Task"),
        ({"acme.py": "from bench import Task as Toy"}, "acme:Toy", "is no whole Task"),
        ({"acme.py": toy("other")}, "acme:Toy", "its class is called 'other'"),
        ({"acme.py": "from there import Toy", "there.py": toy("shrink")}, "acme:Toy",
         "the entry point must be 'there:Toy'"),
        ({}, "acme:Toy", "No module named 'acme'"),
        ({"acme.py": ""}, "acme", "ValueError|AttributeError"),
    ],
)  # fmt: skip
def test_a_broken_one_is_listed_and_says_why_when_it_is_used(
    package: Package, files: dict[str, str], entry: str, says: str, capsys
) -> None:
    package("acme-tasks", files, f"shrink = {entry}")
    with pytest.raises(UnknownName, match=says) as caught:
        task_class("shrink")
    assert "'shrink' of the installed package acme-tasks cannot be used" in str(caught.value)
    assert "pip uninstall acme-tasks" in str(caught.value)
    assert main(["run", "shrink", "--dry"]) == 2
    assert "installed package acme-tasks" in capsys.readouterr().err
    assert main(["list", "--json"]) == 0
    (entry,) = (e for e in json.loads(capsys.readouterr().out)["tasks"] if e["package"])
    assert entry == {
        **{"name": "shrink", "package": "acme-tasks 1.0", "default": False},
        "error": str(caught.value),
    }
    assert main(["list"]) == 0
    assert "shrink [acme-tasks 1.0]: the task 'shrink' of the" in capsys.readouterr().out


def test_two_of_one_name_are_refused_until_one_says_which(package: Package) -> None:
    for name, top in (("one-tasks", "one"), ("two-tasks", "two")):
        package(name, {f"{top}.py": toy("shrink")}, f"shrink = {top}:Toy")
    package("over", {"over.py": toy("toy")}, "toy = over:Toy")
    for word, clear in (
        ("shrink", "one-tasks:shrink or two-tasks:shrink"),
        ("toy", "yoto-bench:toy or over:toy"),
    ):
        with pytest.raises(UnknownName, match=f"2 packages offer a task called '{word}': write"):
            task_class(word)
        with pytest.raises(UnknownName, match=clear):
            registered(word, "task")
    assert task_class("one-tasks:shrink").__module__ == "one"
    assert task_class("two-tasks:shrink").__module__ == "two"
    assert task_class("yoto-bench:toy").__module__ == "bench.tasks.toy"
    assert task_class("over:toy").__module__ == "over"
    plan = experiment("two-tasks:shrink[dimension=3]", "smoke", ["yoto"])
    assert (plan.task.dimension, plan.preset) == (3, "smoke[dimension=3]")


def fresh(kind: str = "shrink") -> Any:
    """The class as a new process would have it."""
    loading.digest.cache_clear()
    loading._beside.cache_clear()
    for name in [each for each in sys.modules if each.partition(".")[0] in ("acme", "helper")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return task_class(kind)


def test_changed_code_is_another_task(package: Package) -> None:
    """Of the class, of what it imports from its package, near or far, and of nothing else."""
    files = {
        "acme/__init__.py": "",
        "acme/unused.py": "",
        "acme/deep/__init__.py": "",
        "acme/deep/shrink.py": toy("shrink", "from acme.near import X\nfrom ..far import Y\n"),
        "acme/near.py": "from acme import nearest\nX = 1\n",
        "acme/nearest.py": "",
        "acme/far.py": "Y = 1",
        "helper.py": "",
    }
    entry = "shrink = acme.deep.shrink:Toy"
    place = package("acme-tasks", files, entry)
    first = source_digest(fresh())
    assert len(first.split()) == 6  # all but the unused and the other module
    (cell,) = experiment("shrink", "smoke", ["yoto"]).cells
    for file in ("near", "nearest", "far", "__init__", "deep/__init__", "deep/shrink"):
        path = place / f"acme/{file}.py"
        path.write_text(path.read_text() + "\n")
        assert source_digest(fresh()) != first
        (other,) = experiment("shrink", "smoke", ["yoto"]).cells
        assert other.id != cell.id
        path.write_text(path.read_text()[:-1])
    assert source_digest(fresh()) == first
    for file in ("acme/unused.py", "helper.py"):
        (place / file).write_text("Z = 1")
    assert source_digest(fresh()) == first
    # Wherever it is installed, by whatever version's number.
    shutil.rmtree(place)
    package("acme-tasks", files, entry, version="2.0").rename(place.with_name("elsewhere"))
    sys.path.insert(0, str(place.with_name("elsewhere")))
    try:
        assert source_digest(fresh()) == first
    finally:
        sys.path.remove(str(place.with_name("elsewhere")))


def test_a_module_of_its_own_has_its_own_digest_alone(package: Package) -> None:
    package(
        "acme-tasks",
        {"acme.py": toy("shrink", "import helper, numpy\n"), "helper.py": ""},
        "shrink = acme:Toy",
    )
    assert len(source_digest(fresh()).split()) == 1


def test_a_package_without_an_init_and_one_in_the_interpreters_folder(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"acme/sub/shrink.py": toy("shrink", "from acme.other import X\n"), "acme/other.py": ""}
    files["acme/other.py"] = "X = 1"
    place = package("acme-tasks", files, "shrink = acme.sub.shrink:Toy")
    monkeypatch.setattr(loading, "INSTALLED", (place.resolve(),))
    assert len(source_digest(fresh()).split()) == 2


def test_a_stored_one_is_named_by_its_module_and_made_only_where_it_is_offered(
    package: Package,
) -> None:
    package("acme-tasks", {"acme.py": toy("shrink")}, "shrink = acme:Toy")
    task = task_class("shrink").presets()["smoke"].task
    stored = describe(task)
    assert stored["class"] == "acme:Toy"
    assert revive(stored, Task) == task
    # A class that is there, in a package that offers another, is not imported.
    package("other", {"sly.py": toy("sly", "import os\nos.environ['RAN'] = '1'\n")}, "s = nix:Toy")
    with pytest.raises(ValueError, match="nor what an installed package offers: install"):
        revive({**stored, "class": "sly:Toy"}, Task)
    assert "sly" not in sys.modules
    with pytest.raises(ValueError, match="is no whole Method"):
        revive(stored, Method)


def test_looking_at_results_imports_no_plug_in(package: Package, tmp_path: Path, capsys) -> None:
    """Where it is installed, where it is not, and in a process that never saw it."""
    files = {"acme/__init__.py": "", "acme/shrink.py": toy("shrink"), "acme/m.py": METHOD}
    place = package("acme-tasks", files, "shrink = acme.shrink:Toy", "mine = acme.m:Mine")
    out = tmp_path / "results"
    words = ["run", "shrink", "--preset", "smoke", "--methods", "mine,fixed_grid"]
    assert main([*words, "--out", str(out)]) == 0
    capsys.readouterr()
    config = read(next(out.glob("runs/shrink/mine/*/config.json")), CellConfig)
    assert config.task.target == "acme.shrink:Toy"
    assert cell_from(config).id == config.id
    code = (
        "import sys; sys.path[:0] = {places}\n"
        "from bench.cli import main\n"
        "for words in (['report'], ['status'], ['clean']):\n"
        "    assert main([*words, {out!r}]) == 0, words\n"
        "assert not {{'acme', 'torch'}} & set(sys.modules)\n"
    )
    for places in ([], [str(place)]):
        shutil.rmtree(out / "report")
        done = subprocess.run(
            [sys.executable, "-c", code.format(places=places, out=str(out))],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "mine" in (out / "report/shrink-smoke/report.md").read_text("utf-8")
    # The page shows it where the package is there, and says that it is not where it is gone.
    (shown,) = catalogue(out, "shrink", None)
    assert set(shown.methods) == {"mine", "fixed_grid"}
    sys.path.remove(str(place))
    with (
        pytest.warns(UserWarning, match="install the package"),
        pytest.raises(ValueError, match="no network in"),
    ):
        catalogue(out, "", None)
    with pytest.raises(ValueError, match="install the package that it is from"):
        cell_from(config)
    assert folders.status(out)


def test_a_pool_trains_it(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = package("acme-tasks", {"acme.py": toy("shrink")}, "shrink = acme:Toy")
    monkeypatch.setenv("PYTHONPATH", f"{place}:{ROOT}")
    words = ["run", "shrink", "--preset", "smoke", "--methods", "fixed_grid", "--on", "pool"]
    assert main([*words, "--per-device", "2", "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("runs/shrink/fixed_grid/*/done.json"))) == 3


def test_a_folder_does_not_make_its_own_files_run_by_the_name_of_a_plug_in(
    package: Package, root: Path, tmp_path: Path
) -> None:
    """As with a task of the suite: a name is no leave to run files of the folder."""
    from bench.files import sealed

    package("acme-tasks", {"acme.py": toy("shrink")}, "shrink = acme:Toy")
    mark, file = tmp_path / "ran", tmp_path / "shrink.py"
    file.write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    for path in [*root.glob("runs/*/*/*/config.json"), *root.glob("configs/*.json")]:
        text = path.read_text().replace('"bench.tasks.toy:Toy"', json.dumps(f"{file}:Toy"))
        path.write_text(sealed(json.loads(text)))
    with pytest.raises(ValueError, match="no network of 'shrink'"):
        catalogue(root, "shrink", None)
    assert not mark.exists()


def test_every_method_takes_those_of_packages_in(package: Package) -> None:
    package("acme-tasks", {"acme.py": METHOD}, methods="mine = acme:Mine")
    assert "mine" in experiment("toy", "smoke", ["all"]).methods
    assert "mine" not in experiment("toy", "smoke").methods
    assert {offer.name for offer in installed.offers("method")} == {"mine"}
    assert [offer.origin for offer in offered("method")][-1] == "acme-tasks 1.0"
