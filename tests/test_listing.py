"""`list` as text and as JSON, and `--version`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import bench
from bench.cli import main
from bench.identity import commit
from bench.listing import KEYS
from bench.registry import (
    DEFAULT_METHODS,
    DEFAULT_TASKS,
    METHODS,
    TASKS,
    method,
    preset,
    task_class,
)

ROOT = Path(__file__).resolve().parent.parent


def listed(capsys, *flags: str) -> str:
    capsys.readouterr()
    assert main(["list", *flags]) == 0
    return capsys.readouterr().out


def test_json_has_every_task_and_method_as_they_are(capsys) -> None:
    known = json.loads(listed(capsys, "--json"))
    assert known["version"] == bench.__version__
    tasks, methods = ({each["name"]: each for each in known[kind]} for kind in ("tasks", "methods"))
    assert list(tasks) == list(TASKS)
    assert list(methods) == list(METHODS)
    assert {name for name, each in tasks.items() if each["default"]} == set(DEFAULT_TASKS)
    assert {name for name, each in methods.items() if each["default"]} == set(DEFAULT_METHODS)
    assert {each["package"] for each in (*tasks.values(), *methods.values())} == {None}
    for name in ("compression", "quantiles"):
        task = preset(task_class(name), "quick").task
        entry = tasks[name]
        sizes = {each["name"]: each for each in entry["presets"]}
        assert list(sizes) == list(task.presets())
        assert (
            sizes["quick"]["steps"] == task.training.steps == entry["fields"]["training"]["steps"]
        )
        assert [axis["name"] for axis in entry["coefficients"]] == list(task.space.names)
        assert set(entry["measures"]) == set(task.measures)
        assert {flag.lstrip("-").replace("-", "_") for flag in entry["flags"]} == {
            *task.locations(),
            *task.options(),
        }
    for name, each in methods.items():
        fits = [t for t in TASKS if not method(name).refuses(preset(task_class(t), "quick").task)]
        assert each["tasks"] == fits


def test_the_help_names_the_keys(capsys) -> None:
    known = json.loads(listed(capsys, "--json"))
    named = set(re.findall(r"`(\w+)`", KEYS))
    assert named >= {*known, *known["tasks"][0], *known["methods"][0]}
    assert named >= {*known["tasks"][0]["presets"][0], *known["tasks"][0]["coefficients"][0]}


def test_text_has_them_too(capsys) -> None:
    lines = listed(capsys).splitlines()
    assert all(any(line.startswith(f"{name}: ") for line in lines) for name in TASKS)
    assert sum(line.startswith("  * ") for line in lines) == len(DEFAULT_METHODS)


def test_the_version_and_the_commit_of_a_checkout_without_torch(capsys) -> None:
    assert main(["--version"]) == 0
    said = capsys.readouterr().out.strip()
    behind = "" if commit() == "unknown" else f" (commit {commit()})"
    assert said == f"yoto-bench {bench.__version__}{behind}"
    code = (
        "import sys\nfrom bench.cli import main\nmain(['--version'])\n"
        "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_without_a_checkout_it_is_the_version_alone(monkeypatch, capsys) -> None:
    monkeypatch.setattr("bench.identity.commit", lambda: "unknown")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"yoto-bench {bench.__version__}\n"
