"""What is shipped: the version, the citation, the licences, a wheel, and a package of plug-ins that
is installed beside the suite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import bench

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def tracked() -> list[str]:
    """The files of the checkout; without one they are unknown."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no checkout")
    words = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(words, capture_output=True, check=True)
    return [name for name in done.stdout.decode().split("\0") if name and (ROOT / name).exists()]


# The citation


def citation() -> dict[str, Any]:
    import yaml

    return yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))


def test_the_citation_is_of_this_version_and_of_who_holds_the_copyright() -> None:
    cited = citation()
    assert str(cited["version"]) == bench.__version__
    assert cited["license"] == PROJECT["project"]["license"]
    (holder,) = re.findall(r"Copyright \(c\) \d+ (.+)", (ROOT / "LICENSE").read_text())
    assert [author["name"] for author in cited["authors"]] == [holder]


def test_the_citation_keeps_the_format() -> None:
    """What the schema of the Citation File Format 1.2.0 asks for, of the keys that are used."""
    text = (str,)
    person, entity = {"family-names": text, "given-names": text}, {"name": text}
    known: dict[str, Any] = {
        **dict.fromkeys(("cff-version", "message", "title", "abstract", "license"), text),
        **{"type": text, "version": text, "authors": list, "keywords": list, "references": list},
    }
    cited = citation()
    assert {"cff-version", "message", "title", "authors"} <= set(cited) <= set(known)
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] in ("software", "dataset")
    assert all(isinstance(value, known[name]) for name, value in cited.items())
    assert all(isinstance(word, str) for word in cited["keywords"])
    assert len(set(cited["keywords"])) == len(cited["keywords"])
    for work in (cited, *cited["references"]):
        assert work["authors"]
        for author in work["authors"]:
            assert set(author) in (set(person), set(entity))
            assert all(isinstance(value, str) for value in author.values())
    for work in cited["references"]:
        assert {"type", "title", "authors"} <= set(work)
        assert set(work) <= {"type", "title", "authors", "year", "conference"}
        assert isinstance(work.get("year"), int)
        assert set(work["conference"]) == {"name"}


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (\S+)", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert bench.__version__ in versions


# Licences


def rows() -> list[tuple[list[str], str]]:
    """Of each row of LICENSES.md the patterns, and the licence."""
    text = (ROOT / "LICENSES.md").read_text("utf-8")
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", row[0]), row[-1].strip()) for row in cells]


def test_every_file_has_a_licence() -> None:
    patterns = [pattern for row, licence in rows() for pattern in row if licence]
    missing = [name for name in tracked() if not any(fnmatch(name, each) for each in patterns)]
    assert not missing, f"LICENSES.md has no row for {missing[:5]}: what are they, and whose?"


def test_every_row_is_of_files_that_are_there() -> None:
    names = tracked()
    later = {"*.ipynb", "*.yml", "*.sh"}  # may come
    for pattern in (pattern for row, _ in rows() for pattern in row if pattern not in later):
        assert any(fnmatch(name, pattern) for name in names), pattern


def test_nothing_but_what_is_named_is_no_text_of_ours() -> None:
    """Pictures, weights and archives have a row that is neither code nor text in general."""
    special = [pattern for row, _ in rows()[1:] for pattern in row]
    for name in tracked():
        if Path(name).suffix in (".jpg", ".png", ".safetensors", ".xz", ".csv", ".json"):
            assert any(fnmatch(name, pattern) for pattern in special), name


# A wheel


def built(source: Path, out: Path) -> Path:
    """The wheel of a copy of a folder: building leaves traces."""
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*words, "--no-index", "-w", str(out), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("checkout") / "suite"
    for name in tracked():
        if name.split("/")[0] in ("bench", "baselines", "zoo") or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    return built(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the suite and the example of a package of plug-ins, as pip installs them."""
    target = tmp_path_factory.mktemp("installed")
    example = tmp_path_factory.mktemp("example") / "plugin"
    shutil.copytree(ROOT / "examples" / "plugin", example)
    plugin = built(example, tmp_path_factory.mktemp("plugin"))
    words = ["install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    files = [str(wheel), str(plugin)]
    subprocess.run([sys.executable, "-m", "pip", *words, *files], check=True)
    return target


def ran(installed: Path, folder: Path, *words: str, code: int = 0) -> str:
    """The installed program in another folder than the checkout."""
    program = "import sys, bench\nfrom bench.cli import main\nassert bench.__file__.startswith(sys"
    program += ".argv.pop(1)), bench.__file__\nraise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, str(installed), *words],
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_has_every_file_of_its_packages(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = [name for name in tracked() if name.split("/")[0] in ("bench", "baselines", "zoo")]
    assert not [name for name in ours if name not in inside]
    assert wheel.name.startswith(f"yoto_bench-{bench.__version__}-")
    licences = {name.rpartition("/")[2] for name in inside if "/licenses/" in name}
    assert licences == {"LICENSE", "LICENSES.md"}


def test_the_installed_suite_works_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert ran(installed, tmp_path, "--version").split() == ["yoto-bench", bench.__version__]
    assert "--static" in ran(installed, tmp_path, "demo", "--help")
    entries = json.loads(ran(installed, tmp_path, "list", "--json"))
    assert {entry["error"] for kind in ("tasks", "methods") for entry in entries[kind]} == {None}
    assert "mytask.py" in ran(installed, tmp_path, "new", "mytask.py")
    code = "from bench import load; print(type(load('digits/yoto_tuned').at(0.2)).__name__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)


# A package of plug-ins


def test_a_package_of_plug_ins_is_listed_trained_and_reported(
    installed: Path, tmp_path: Path
) -> None:
    listed = ran(installed, tmp_path, "list")
    assert "smoothing [yoto-bench-smoothing 0.1.0]: " in listed
    assert "linear_gains [yoto-bench-smoothing 0.1.0] " in listed
    methods = ["--methods", "linear_gains,fixed_grid,single_model"]
    ran(installed, tmp_path, "run", "smoothing", "--preset", "smoke", *methods)
    page = tmp_path / "results" / "report"
    shutil.rmtree(page)
    ran(installed, tmp_path, "report")
    assert "linear gains" in (page / "smoothing-smoke" / "report.md").read_text("utf-8")
    again = ran(installed, tmp_path, "run", "smoothing", "--preset", "smoke", *methods)
    assert re.search(r"\d+ planned, (\d+) stored, 0 to train", again)


def test_its_own_test_passes(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "plugin" / "tests", tmp_path / "tests")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
