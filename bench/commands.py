"""What each command does, from the options of `bench/cli.py`: check, call, print.

Imports are late where a command can do without torch.
"""

from __future__ import annotations

import itertools
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench
from bench.continuing import changed, continuation, flags, program
from bench.files import printable, printable_lines

if TYPE_CHECKING:
    from bench.run.schema import CellConfig

# What `run --config` takes from the file and not from the command line, and what means nothing to
# the file of one cell.
OF_RUNS = ("dry", "again", "on", "per_device", "limit", "decide", "most", "budget", "log")
STUDIED = ("widths", "ranges", "coefficients")
REPLAYED = (
    *("tasks", "preset", "methods", "settings", "design", "seeds", "split", "lengths"),
    *STUDIED,
)


def run(options: Namespace) -> int:
    import torch

    from bench import growing
    from bench.run import folders, runner
    from bench.run.plan import experiment_from
    from bench.run.schedule import stopping
    from bench.run.schema import CellConfig

    root, asked = folders.usable(Path(options.out)), None
    listeners = _listeners(options, root)
    if options.decide or changed(options, "most", "budget"):  # it needs the report's answers
        from bench import decide

        asked = decide.asked(options)
    on, per_device, device = _place(options)
    if options.settings is not None and options.settings < 1:
        raise ValueError("--settings needs 1 or more")
    config = _stored(options) if options.config else None
    if isinstance(config, CellConfig):
        return _train(config, root, runner.choose_device(options.device))
    experiments = (
        _experiments(options) if config is None else [*map(experiment_from, config.experiments)]
    )
    if not options.limit > 0:
        raise ValueError("--limit needs more than 0 seconds")
    where = ""
    if on == "ray" and not options.dry:  # last: no cluster is started for a misspelt name
        from bench.run import cluster

        where = f", Ray at {cluster.connect(options.address)}"
        device = torch.device(cluster.device(options.device))
    how = root, experiments, device, on, per_device, options.limit
    run = runner.Run(*how) if asked is None else decide.Deciding(asked, *how)
    run.listeners += listeners
    if options.again and not options.dry:
        run.open_data()  # first: results are not deleted for what cannot be made again
        run.forget()
    config_path = run.save_config()
    jobs = run.train_jobs()
    if options.dry:
        for job in jobs:
            print(shlex.join([*program(), "cell", job.id, *flags(options, "device")]))
        return 0
    _announce(run, len(jobs), where)
    if not options.again and (jobs or run.record_jobs()):
        run.open_data()
    page = growing.GrowingReport(run)
    page.silent = page.silent or asked is not None  # whose looks are counted, and not in between
    with stopping() as stop, page:
        run.listeners.append(page)
        done = run.complete(stop)
    if not done:
        print("stopped, everything done so far is kept; to continue:")
        print(f"  {continuation(options, config_path)}")
        return 130
    return _ended(run)


def _listeners(options: Namespace, root: Path) -> list[Any]:
    """What is told of every event beside the progress table."""
    if not options.log:
        return []
    from bench.run.tensorboard import TensorBoard

    return [TensorBoard(root)]


def _stored(options: Namespace) -> Any:
    """The configuration of a run or cell that is to be replayed."""
    from bench.run.schema import CellConfig, RunConfig, read

    if given := [*changed(options, *REPLAYED), *options.locations]:
        raise ValueError(f"--config replays what is stored: leave out {', '.join(given)}")
    stored: Any = read(Path(options.config), CellConfig | RunConfig)  # type: ignore[arg-type]
    if isinstance(stored, CellConfig) and (given := changed(options, *OF_RUNS)):
        raise ValueError(f"{options.config} is of one cell: leave out {', '.join(given)}")
    return stored


def _experiments(options: Namespace) -> list[Any]:
    from bench.registry import DEFAULT_TASKS, split_methods
    from bench.run import plan, study

    methods = split_methods(options.methods) if options.methods else None
    seeds = _numbers(options.seeds, int, "--seeds {!r}: give whole numbers, as in 0,1,2")
    refusal = "--lengths {!r}: give shares of the steps, as in 0.25,0.5,1"
    lengths = _numbers(options.lengths, float, refusal)
    design, split, where = options.design, options.split, options.locations
    how = methods, options.settings, seeds, where, design, split, lengths
    refusal = "{0} {{!r}}: give numbers, as in {0} 1,2,4"
    studied = study.combinations(
        *(_numbers(vars(options)[name], float, refusal.format(f"--{name}")) for name in STUDIED)
    )
    experiments: list[Any] = []
    named = dict.fromkeys(options.tasks or DEFAULT_TASKS)
    for task, factors in itertools.product(named, studied):
        planned = plan.experiment(task, options.preset, *how, factors=factors)
        if planned not in experiments:  # "toy[dimension=8]" and "toy[ dimension = 8 ]" are one
            experiments.append(planned)
    return experiments


def _numbers(text: str | None, kind: type, refusal: str) -> list[Any] | None:
    try:
        return [kind(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ValueError(refusal.format(text)) from None


def _place(options: Namespace) -> tuple[str, int | None, Any]:
    """Where networks are trained, how many at once on a device (None for auto), and the device."""
    import torch

    from bench.run import runner

    on, per_device = options.on, _per_device(options.per_device, options.on)
    if options.address and on != "ray":
        raise ValueError("--address names a Ray cluster and needs --on ray")
    if on == "auto":
        on = "pool" if (per_device or 1) > 1 else runner.usual_place()
    device = torch.device("cpu") if on == "ray" else runner.choose_device(options.device)
    return on, per_device, device


def _per_device(text: str, on: str) -> int | None:
    """A number, or None for auto."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1 or (int(text) > 1 and on == "here"):
        raise ValueError(
            f"--per-device {text}: give auto, or how many cells run at once, which needs "
            "--on pool or --on ray"
        )
    return int(text)


def _announce(run: Any, missing: int, where: str) -> None:
    from rich.markup import escape

    console = terminal()
    for planned in run.experiments:
        task, training = planned.task, planned.task.training
        text = (
            f"({printable(planned.preset)}): {len(planned.settings)} settings, {_seeds(planned)}, "
            f"methods {printable(', '.join(planned.methods))}; {training.steps} steps of "
            f"{training.batch} per network; on {run.device}{where}"
        )
        name = escape(printable(task.title))
        console.print(f"[bold]{name}[/bold] {escape(text)}", highlight=False)
        for measure, reason in task.missing().items():
            console.print(f"{measure} is not measured:", style="yellow", markup=False, end=" ")
            console.print(reason, markup=False, highlight=False, soft_wrap=True)
    count = sum(len(planned.cells) for planned in run.experiments)
    print(f"networks: {count} planned, {count - missing} stored, {missing} to train")


def _seeds(planned: Any) -> str:
    return f"{len(planned.seeds)} seed{'s' * (len(planned.seeds) > 1)}"


def _ended(run: Any) -> int:
    """Say what failed, and write the report."""
    console, root = terminal(), run.store.root
    for failure in run.failures:
        console.print("failed:", style="red", end=" ")
        console.print(printable_lines(failure), markup=False, highlight=False, soft_wrap=True)
    if run.failures:
        log = root / "failures.log"
        details = f"details are in {log}; " if log.exists() else ""
        print(f"{details}run again to try these once more")
    _report([root], {(each.task.name, each.preset, each.id) for each in run.experiments})
    return 1 if run.failures else 0


def version() -> str:
    """The version, and the commit where this runs from a checkout."""
    from bench.identity import commit as checked_out

    commit = checked_out()
    checkout = "" if commit == "unknown" else f" (commit {commit})"
    return f"yoto-bench {bench.__version__}{checkout}"


def cell(options: Namespace) -> int:
    from bench.run import folders, layout, runner
    from bench.run.schema import CellConfig, read
    from bench.run.store import Store

    root = folders.usable(Path(options.out))
    config = read(Store(root).find(options.id) / layout.CONFIG, CellConfig)
    return _train(config, root, runner.choose_device(options.device))


def _train(config: CellConfig, root: Path, device: Any) -> int:
    from bench.run import runner
    from bench.run.schedule import stopping
    from bench.run.store import Store, cell_from

    cell = cell_from(config)
    if Store(root).result(cell) is not None:
        print(f"{cell.id} is done already")
        return 0
    run = runner.Run(root, [], device)
    jobs = []
    for link in cell.chain:  # what it starts from comes first, unless it is there
        if Store(root).result(link) is None:
            Store(root).prepare(link, config.preset)
            jobs.append(run.train_job(link, config.preset))
    with stopping() as stop:
        run.execute(jobs, "training", stop)
        if stop():
            print("stopped, its state is saved; give the same command again to continue")
            return 130
    for failure in run.failures:
        print(f"failed: {printable_lines(failure)}", file=sys.stderr)
    return 1 if run.failures else 0


def report(options: Namespace) -> int:
    roots = [Path(folder) for folder in options.folders or ["results"]]
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"there is no results folder {root}: name one, or `run` first")
    if options.explain:
        from bench.report.explain import explain
        from bench.report.load import load_results

        print(printable_lines(explain(load_results(*roots), options.explain)))
        return 0
    _report(roots, None, Path(options.out) if options.out else None, tables=options.tables)
    return 0


def _report(
    roots: Sequence[Path],
    only: set[tuple[str, str, str]] | None,
    out: Path | None = None,
    *,
    tables: bool = False,
) -> None:
    """Write the reports, and say the answers, a row or two per task, and where the page is."""
    from bench import report

    console = terminal()
    reports = report.build(*roots, out=out, only=only)
    for part in report.last_screen(reports, min(console.width, 100), tables=tables):
        console.print(part)
    if reports:
        if not tables:
            words = [*program(), "report", *map(str, roots), "--tables"]
            print(f"all tables: {printable(shlex.join(words))}")
        print(f"page: {printable(reports[0].folder.parent / 'index.html')}")


def terminal() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 100)


def status(options: Namespace) -> int:
    from bench.run import folders
    from bench.run.board import clock

    rows = folders.status(Path(options.folder))
    names = ("done", "running", "begun", "missing", "failed", "diverged")
    table = [["task", "method", *names, "trained", "left"]]
    for row in rows:
        left = "?" if row.left is None else clock(row.left)
        counts = [str(getattr(row, name)) for name in names]
        table.append(
            [printable(row.task), printable(row.method), *counts, clock(row.seconds), left]
        )
    task, method = (max(len(line[place]) for line in table) for place in (0, 1))
    for line in table:
        cells = [line[0].ljust(task), line[1].ljust(method), *(cell.rjust(8) for cell in line[2:])]
        print("  ".join(cells))
    totals = {name: sum(getattr(row, name) for row in rows) for name in names}
    listed = ", ".join(f"{count} {name}" for name, count in totals.items())
    print(f"\n{sum(totals.values())} networks: {listed}")
    print("left: training seconds of one network after another, at the pace of the finished ones")
    return 0


def merge(options: Namespace) -> int:
    from bench.run import folders

    out = folders.usable(Path(options.out))
    cells, records = folders.merge([Path(folder) for folder in options.folders], out)
    print(f"{cells} networks and {records} measurements copied into {out}")
    return 0


def clean(options: Namespace) -> int:
    from bench.run import folders

    root = Path(options.folder)
    if not root.is_dir():
        raise ValueError(f"there is no results folder {root}")
    folders.writable(root)
    files, freed = folders.clean(root)
    print(f"{files} files deleted, {freed / 2**20:.1f} MiB freed")
    return 0


def timed(options: Namespace) -> int:
    from bench.registry import sized
    from bench.run import runner, timing

    chosen, _ = sized(options.task, options.preset, options.locations)
    where = runner.choose_device(options.device)
    timing.compare(chosen.task, where, options.steps, options.rounds)
    return 0


def new(options: Namespace) -> int:
    target = Path(options.file)
    if target.suffix != ".py":
        raise ValueError(f"a task is a Python file: name it {target.with_suffix('.py')}")
    if target.exists():
        raise ValueError(f"{target} exists already: choose another name")
    text = (Path(__file__).parent / "tasks" / "toy.py").read_text(encoding="utf-8")
    kind = "".join(part.capitalize() for part in target.stem.replace("-", "_").split("_"))
    text = text.replace("class Toy(", f"class {kind}(").replace('= "toy"', f'= "{target.stem}"')
    text = text.replace("run toy --preset", f"run ./{target.name} --preset")
    target.write_text(text, encoding="utf-8", errors="surrogateescape")  # a name is in it
    print(f"{target} is a whole task: change it, then\n  python run_bench.py run {target}")
    return 0


def fetch(options: Namespace) -> int:
    from bench.pictures import downloads
    from bench.registry import near

    for name in options.names:
        if name not in downloads.ARTEFACTS:
            raise near(name, downloads.ARTEFACTS, "artefact")
    failed = 0
    for name, result in downloads.fetch_all(options.names or None):
        failed += isinstance(result, Exception)
        print(f"{name}: {result}")
    return 1 if failed else 0
