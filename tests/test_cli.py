"""The commands as a user gives them: results, second runs, kills, and what is said on misuse."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bench.cli import main, parsed, parser
from bench.continuing import continuation
from bench.run.schedule import stopping

ROOT = Path(__file__).parent.parent
TOY = ["run", "toy", "--preset", "smoke"]
NAME = "YOTO_BENCH_CACHE"


TINY = [*TOY, "--methods", "yoto,fixed_grid"]


def program(*words: str, **how: Any) -> subprocess.Popen:
    """In a process of its own, what it prints together."""
    how = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "cwd": ROOT, **how}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *words], **both, **how)


def printed(*words: str, code: int = 0) -> str:
    process = program(str(ROOT / "run_bench.py"), *words)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == code, output
    return output


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def weights(root: Path) -> dict[str, dict]:
    return {path.parent.name: load_file(path) for path in root.glob("runs/*/*/*/model.safetensors")}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        value.equal(other[cell][name])
        for cell, state in one.items()
        for name, value in state.items()
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished toy run."""
    out = tmp_path_factory.mktemp("toy") / "results"
    assert main([*TOY, "--out", str(out)]) == 0
    return out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom bench.cli import main\n"
        "for words in (['--help'], ['run', '--help']):\n"
        "    try: main(words)\n    except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'compressai', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    process = program("-c", code)
    text = process.communicate()[0]
    assert process.returncode == 0, text
    for command in ("run", "report", "list", "time", "new", "fetch", "cell"):
        assert f"\n    {command} " in text
    assert "name the tasks before --help" in " ".join(text.split())


def test_a_run_leaves_tables_figures_and_a_second_one_trains_nothing(done: Path, capsys) -> None:
    report = done / "report" / "toy-smoke"
    names = "summary.csv comparisons.csv savings.csv report.md gap.png gap.svg"
    assert all((report / name).stat().st_size > 0 for name in names.split())
    before = {path: path.stat().st_mtime_ns for path in done.glob("runs/**/*") if path.is_file()}
    assert main([*TOY, "--out", str(done)]) == 0
    said = capsys.readouterr().out
    assert "8 planned, 8 stored, 0 to train" in said
    assert "nothing is left to train or to measure" in said
    assert {p: p.stat().st_mtime_ns for p in done.glob("runs/**/*") if p.is_file()} == before


def test_a_finer_grid_keeps_the_networks_it_has(done: Path, tmp_path: Path, capsys) -> None:
    root = shutil.copytree(done, tmp_path / "results")
    few = ["--methods", "yoto,fixed_grid,single_model", "--settings", "5"]
    assert main([*TOY, *few, "--out", str(root), "--dry"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2  # the two new settings of the grid


def test_dry_lists_cells_and_cell_trains_one(done: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "results")
    assert main([*TOY, "--dry", "--out", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    words = lines[0].split()[2:]
    assert main(words) == 0
    assert main([*TOY, "--dry", "--out", out]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if " cell " in line]) == 7
    trained = weights(tmp_path / "results")
    assert same(trained, {cell: weights(done)[cell] for cell in trained})


def test_printed_commands_run_at_once_and_in_any_order_as_an_array_does(
    done: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "it's a folder"
    assert main([*TOY, "--methods", "warm_grid", "--dry", "--out", str(out)]) == 0
    (tmp_path / "cells.txt").write_text(capsys.readouterr().out)
    take = 'sed -n "${SLURM_ARRAY_TASK_ID}p" "$CELLS" | bash'  # as in the README
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    common = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    common["CELLS"] = str(tmp_path / "cells.txt")
    jobs = [
        subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", take],
            env={**common, "SLURM_ARRAY_TASK_ID": number},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number in "32"  # both start from the first, which they then train, once
    ]
    outputs = [job.communicate(timeout=300)[0].decode() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    trained = weights(out)
    assert len(trained) == 3
    assert same(trained, {cell: weights(done)[cell] for cell in trained})


def test_printed_commands_keep_the_flags_that_matter(tmp_path: Path, capsys) -> None:
    flags = ["--out", f"{tmp_path}/a b", "--cache", f"{tmp_path}/c", "--device", "cpu"]
    assert main([*TOY, "--methods", "single_model", "--dry", *flags]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert shlex.split(line)[4:] == flags


def test_configurations_replay_runs_and_cells(done: Path, tmp_path: Path, capsys) -> None:
    configs = [path for path in done.glob("configs/*.json") if '"settings"' in path.read_text()]
    config = min(configs, key=lambda path: len(path.read_text()))  # 3 settings, not 5
    assert main(["run", "--config", str(config), "--out", str(done)]) == 0
    assert "0 to train" in capsys.readouterr().out
    cell = next(done.glob("runs/toy/yoto/*/config.json"))
    assert main(["run", "--config", str(cell), "--out", str(tmp_path)]) == 0
    assert same(weights(tmp_path), {cell.parent.name: weights(done)[cell.parent.name]})


def test_a_pool_gives_the_same_bits(done: Path, tmp_path: Path) -> None:
    words = [*TOY, "--on", "pool", "--per-device", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    assert same(weights(tmp_path), weights(done))
    ledgers = [json.loads(p.read_text())["ledger"] for p in tmp_path.glob("runs/*/*/*/done.json")]
    assert all(ledger["shared_device"] for ledger in ledgers)


def test_ctrl_c_asks_once_and_ends_the_second_time() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_asks_however_often_it_comes() -> None:
    """`timeout` sends it twice within a moment, and neither may lose the state."""
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        for sign in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), sign)
            assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("before", [None, "/mine"])
def test_the_cache_of_one_command_is_not_that_of_the_next(
    before: str | None, tmp_path: Path, monkeypatch
) -> None:
    if before is None:
        monkeypatch.delenv(NAME, raising=False)
    else:
        monkeypatch.setenv(NAME, before)
    seen: list[str | None] = []
    see = lambda names: seen.append(os.environ.get(NAME)) or ()  # noqa: E731
    monkeypatch.setattr("bench.pictures.downloads.fetch_all", see)
    assert main(["fetch", "--cache", str(tmp_path)]) == 0
    assert seen == [str(tmp_path)]
    assert os.environ.get(NAME) == before
    assert main(["fetch", "nothing", "--cache", str(tmp_path)]) == 2  # an error, too
    assert os.environ.get(NAME) == before


def test_the_command_to_continue_says_where_and_how_it_ran() -> None:
    words = ["run", "toy", "--on", "pool", "--per-device", "2", "--out", "my results"]
    said = shlex.split(continuation(parsed(words), Path("c.json")))
    assert said[1] == str(ROOT / "run_bench.py")
    again = parser().parse_args(said[2:])
    assert again.config == os.path.abspath("c.json")
    assert again.out == os.path.abspath("my results")
    assert (again.on, again.per_device) == ("pool", "2")
    assert "--limit" not in said


def test_killed_at_any_moment_it_continues_to_the_same_bits(done: Path, tmp_path: Path) -> None:
    """SIGKILL after ever longer times; checkpoints every 50 ms instead of 20 s."""
    code = (
        "import sys, bench.train; bench.train.CHECKPOINT_SECONDS = 0.05; "
        "from bench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["-c", code, *TOY, "--out", str(tmp_path)]
    for patience in (0.3, 0.7, 1.2):
        process = program(*words)
        until = time.monotonic() + 120
        while not list(tmp_path.glob("runs/**/log.jsonl")) and time.monotonic() < until:
            time.sleep(0.02)  # imports are over once a log appears
        time.sleep(patience)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = program(*words)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert same(weights(tmp_path), weights(done))
    rows = {p.name: p.read_bytes() for p in done.glob("records/*/*/*.csv")}
    assert {p.name: p.read_bytes() for p in tmp_path.glob("records/*/*/*.csv")} == rows


def test_a_new_task_file_runs(tmp_path: Path, capsys) -> None:
    file = tmp_path / "my_task.py"
    assert main(["new", str(file)]) == 0
    words = ["run", str(file), *TINY[2:], "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "0.1" in (tmp_path / "out" / "report" / "my_task-smoke" / "summary.md").read_text()
    edit(file, "y.square().mean(1)", "2 * y.square().mean(1)")
    # In a process of its own: one that has run a file goes on with what it ran.
    assert len(printed(*words, "--dry").splitlines()) == 4  # an edited file is another task


NETWORK = """\
from torch import nn


class Twice(nn.Sequential):
    def __init__(self, n):
        super().__init__(nn.Linear(n, n), nn.Linear(n, n))
        self[1].weight = self[0].weight
"""


def test_a_task_may_import_what_lies_beside_it_and_that_counts(tmp_path: Path) -> None:
    file, model = tmp_path / "tied_task.py", tmp_path / "my_own_network.py"
    assert main(["new", str(file)]) == 0
    model.write_text(NETWORK)
    edit(file, "import torch\n", "import torch\nfrom my_own_network import Twice\n")
    plain = "nn.Sequential(nn.Linear(self.dimension, self.dimension))"
    edit(file, plain, "Twice(self.dimension)")
    words = ["run", str(file), *TINY[2:], "--out", str(tmp_path / "out")]
    printed(*words)  # tied weights are stored, too
    assert len(list(tmp_path.glob("out/runs/*/*/*/done.json"))) == 4
    assert printed(*words, "--dry") == ""
    edit(model, "self[1].weight = self[0].weight", "pass")
    assert len(printed(*words, "--dry").splitlines()) == 4
    model.write_text("import nothing_of_this_name\n")
    missing = "cannot be imported: No module named 'nothing_of_this_name'"
    assert missing in printed(*words, code=2)


def test_damage_is_noticed_and_named(done: Path, tmp_path: Path, capsys) -> None:
    root = shutil.copytree(done, tmp_path / "results")
    record = next(root.glob("records/toy/yoto/*.csv"))
    edit(record, "0", "1")
    with pytest.warns(UserWarning, match=record.name):
        assert main(["report", str(root)]) == 0
    assert "1 measurements are not what was written" in capsys.readouterr().out
    assert main([*TOY, "--out", str(root)]) == 0  # measured again
    assert record.read_bytes() == (done / "records/toy/yoto" / record.name).read_bytes()

    model = next(root.glob("runs/toy/yoto/*/model.safetensors"))
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    for table in root.glob("records/toy/yoto/*.csv"):
        table.unlink()
    assert main([*TOY, "--out", str(root)]) == 1
    said = capsys.readouterr().out
    assert "is damaged" in said
    assert "delete the folder" in said
    assert "failed" in (root / "report/toy-smoke/summary.md").read_text()
    shutil.rmtree(model.parent)
    assert main([*TOY, "--out", str(root)]) == 0
    assert same(weights(root), weights(done))


def test_a_diverged_cell_is_a_result_and_the_others_go_on(tmp_path: Path, capsys) -> None:
    file = tmp_path / "wild.py"
    assert main(["new", str(file)]) == 0
    wild = (
        "wild = hasattr(model[0], 'layer') and torch.is_grad_enabled()\n"
        "        y = model(batch) * (float('nan') if wild else 1)\n"
    )
    edit(file, "y = model(batch)\n", wild)
    words = ["run", str(file), *TINY[2:], "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert main(words) == 0
    assert "0 to train" in capsys.readouterr().out
    summary = (tmp_path / "out/report/wild-smoke/summary.md").read_text()
    assert summary.count(" diverged |") == 3 * 3
    assert "non-finite between steps" in summary


def test_list_shows_everything_with_a_line(capsys) -> None:
    from bench.registry import METHODS, TASKS

    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{name}: " in text for name in TASKS)
    assert all(f"    {name} " in text for name in METHODS)
