"""The commands. Nothing heavy is imported before it is known to be needed, so `--help` is instant.

python run_bench.py                       the default run, and its report
python run_bench.py run toy --preset smoke
python run_bench.py list
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import math
import os
import select
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.files import drawing_to_files, expanded, leading_out, printable, printable_lines

if TYPE_CHECKING:
    from bench.run.schema import CellConfig

DESCRIPTION = """\
One loss-conditional network (YOTO) against one network per loss coefficient: quality at matching
coefficients, and the compute each side cost. Without a command: `run`, the quick preset."""

# What `run --config` takes from the file and not from the command line.
LOCATIONS = ("train_data", "test_data", "validation_data", "style", "vgg_weights")
REPLAYED = (
    *("tasks", "preset", "methods", "settings", "design", "seeds", "split", "lengths"),
    *LOCATIONS,
)

FIELDS = (
    'any field of a task can be changed, as in "compression[width=32,training.steps=4000,'
    'training.milestones=0.5:0.8]": colons between the items of a tuple, quotes around commas'
)
BROKEN_PIPE = 141  # what a shell says of a program whose reader went away

COMMANDS = (*("run", "report", "list", "status", "merge", "clean", "time", "new", "fetch", "cell"),)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="run_bench.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, line: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=line, description=line, epilog=more)
        if name != "new":
            sub.add_argument(
                "--cache",
                type=place,
                metavar="DIR",
                help="folder for downloaded weights and pictures",
            )
        return sub

    def device(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")

    def out(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--out", default="results", type=place, metavar="DIR", help="results folder (results)"
        )

    run = command("run", "train what is missing, measure, and write the report", FIELDS)
    run.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="names, or your own file.py; TASK[field=value,...] changes fields",
    )
    run.add_argument("--preset", default="quick", help="smoke, quick (default), small, paper")
    run.add_argument(
        "--methods",
        metavar="A,B",
        help="names or files, A[field=value,...] to change a field, or all (the cheap ones)",
    )
    run.add_argument("--settings", type=int, metavar="N", help="points on the grid")
    run.add_argument(
        "--design",
        choices=("grid", "one-at-a-time", "random"),
        help="how settings are laid out (the task's own choice)",
    )
    run.add_argument("--seeds", metavar="0,1,2", help="comma-separated seeds")
    run.add_argument(
        "--lengths",
        metavar="0.25,0.5,1",
        help="train the reference and the networks under test for these shares of the steps, too, "
        "each with its whole schedule (the preset's choice)",
    )
    device(run)
    run.add_argument(
        "--on",
        default="here",
        choices=("here", "pool", "ray"),
        help="where cells run: one after another here (default), in several processes, or on a "
        "Ray cluster",
    )
    run.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the Ray cluster (RAY_ADDRESS, or else one started on this machine)",
    )
    run.add_argument(
        "--limit", type=float, default=math.inf, metavar="SECONDS", help="of one network (none)"
    )
    run.add_argument(
        "--per-device",
        default="auto",
        metavar="N",
        help="cells at once on a device, in a pool or on Ray; auto (default): as many as its free "
        "memory holds of the largest finished cell of the task and a quarter more, at most one a "
        "core; the first cell of a task runs alone to be measured",
    )
    out(run)
    folder: Any = {"type": place, "metavar": "DIR"}
    file: Any = {"type": place, "metavar": "FILE"}
    run.add_argument("--train-data", **folder, help="folder of training pictures")
    run.add_argument("--test-data", **folder, help="folder of test pictures")
    run.add_argument(
        "--validation-data", **folder, help="folder of pictures for --split validation"
    )
    run.add_argument(
        "--split",
        choices=("test", "validation"),
        default="test",
        help="what is measured on: choose by validation, report test (default)",
    )
    run.add_argument("--style", **file, help="painting (Wheat Field with Cypresses)")
    run.add_argument("--vgg-weights", **file, help="VGG-16 weights (fetched)")
    run.add_argument("--config", **file, help="replay a stored run or cell")
    run.add_argument("--dry", action="store_true", help="only print the commands of missing cells")
    run.add_argument("--again", action="store_true", help="delete what this run made; do it again")
    run.set_defaults(act=act_run)

    report = command("report", "rebuild tables and figures from the records")
    report.add_argument(
        "folders", nargs="*", **folder, help="results folders, read as one (results)"
    )
    report.add_argument("--out", **folder, help="where to write (DIR/report, of the first)")
    report.add_argument(
        "--explain",
        metavar="ROW",
        help="print what is behind a row, such as compression-quick/yoto/0.018",
    )
    report.set_defaults(act=act_report)

    listing = command("list", "tasks with their presets, and methods", FIELDS)
    listing.set_defaults(act=act_list)

    status = command("status", "what is done, running, failed and missing, and how long it takes")
    status.add_argument("folder", nargs="?", default="results", **folder)
    status.set_defaults(act=act_status)

    merge = command("merge", "join the results folders of several machines")
    merge.add_argument("folders", nargs="+", **folder)
    out(merge)
    merge.set_defaults(act=act_merge)

    clean = command("clean", "delete checkpoints and torn files of finished networks")
    clean.add_argument("folder", nargs="?", default="results", **folder)
    clean.set_defaults(act=act_clean)

    timing = command("time", "the harness against a bare loop, conditioned against fixed", FIELDS)
    timing.add_argument("task", nargs="?", default="compression", metavar="TASK")
    timing.add_argument("--preset", default="quick")
    timing.add_argument("--steps", type=int, default=30, help="steps per round (30)")
    timing.add_argument("--rounds", type=int, default=5, help="alternations (5)")
    timing.add_argument("--train-data", **folder, help="folder of training pictures")
    device(timing)
    timing.set_defaults(act=act_time)

    new = command("new", "write a new task file to start from")
    new.add_argument("file", **file, help="such as mytask.py")
    new.set_defaults(act=act_new)

    fetch = command("fetch", "download weights and pictures beforehand")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="artefacts (all)")
    fetch.set_defaults(act=act_fetch)

    cell = command("cell", "train one planned cell (see run --dry)")
    cell.add_argument("id", help="the beginning of a cell's id")
    out(cell)
    device(cell)
    cell.set_defaults(act=act_cell)
    return top


def place(path: str) -> str:
    """A path of a command line, with `~` written out: a shell leaves it in `--out=~/results`."""
    try:
        return expanded(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 something failed, 2 misuse, 130 stopped, 141
    where what reads the output went away, as `| head` does."""
    forgiving_streams()
    try:
        try:
            with drawing_to_files():  # by plug-ins and in workers, too
                return _main(arguments)
        finally:
            sys.stdout.flush()  # here, and not while the interpreter ends
    except BrokenPipeError:
        left = [stream for stream in (sys.stdout, sys.stderr) if _reader_left(stream)]
        for stream in left:  # what is still to be written goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not left:
            raise
        return BROKEN_PIPE
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # so rich ends a program
            return BROKEN_PIPE
        raise


def forgiving_streams() -> None:
    """Let characters that the terminal's encoding does not have be replaced, not be errors; the
    bytes of a path, which were no text of that encoding, go out as they came in."""

    def forgive(error: UnicodeError) -> tuple[bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        codes = map(ord, error.object[error.start : error.end])
        return bytes(c & 255 if 0xDC80 <= c <= 0xDCFF else ord("?") for c in codes), error.end

    codecs.register_error("forgiving", forgive)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="forgiving")


def _reader_left(stream: Any) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file
        return False


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "run")
    elif not words[0].startswith("-") and words[0] not in COMMANDS:
        return _fail(_near_command(words[0]))
    options = parser().parse_args(words)
    cache = os.environ.get("YOTO_BENCH_CACHE")
    if getattr(options, "cache", None):
        os.environ["YOTO_BENCH_CACHE"] = options.cache
    try:
        return int(options.act(options))
    except KeyboardInterrupt:
        print("stopped; give the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("YOTO_BENCH_TRACE"):
            raise
        return _fail(str(error))
    finally:  # the process may go on, as a notebook or a test does
        if cache is None:
            os.environ.pop("YOTO_BENCH_CACHE", None)
        else:
            os.environ["YOTO_BENCH_CACHE"] = cache


def _fail(message: str) -> int:
    print(f"run_bench.py: {printable_lines(message)}", file=sys.stderr)
    return 2


def _near_command(word: str) -> str:
    import difflib

    from bench.registry import TASKS

    close = difflib.get_close_matches(word, COMMANDS, n=2)
    if word.partition("[")[0] in TASKS or word.endswith(".py") or ".py[" in word:
        return f"to run a task write: run_bench.py run {word}"
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(COMMANDS)}"
    return f"no command is called {word!r}: {hint}"


def act_run(options: argparse.Namespace) -> int:
    _plain_warnings()
    import torch
    from rich.markup import escape

    from bench.registry import DEFAULT_TASKS, split_methods
    from bench.run import plan, runner
    from bench.run.schema import CellConfig, RunConfig, read

    console = terminal()
    root = Path(options.out)
    _no_link_out(root)
    _writable(root)
    per_device = _per_device(options.per_device, options.on)
    if options.address and options.on != "ray":
        raise ValueError("--address names a Ray cluster and needs --on ray")
    device = torch.device("cpu") if options.on == "ray" else runner.choose_device(options.device)
    if options.settings is not None and options.settings < 1:
        raise ValueError("--settings needs 1 or more")
    if options.config:
        given = [
            flag for flag in REPLAYED if getattr(options, flag) not in (None, [], "quick", "test")
        ]
        if given:
            raise ValueError(f"--config replays what is stored: leave out {', '.join(given)}")
        config: Any = read(Path(options.config), CellConfig | RunConfig)  # type: ignore[arg-type]
        if isinstance(config, CellConfig):
            return _train_config(config, root, runner.choose_device(options.device))
        experiments = [plan.experiment_from(each) for each in config.experiments]
    else:
        locations = {name: getattr(options, name) for name in LOCATIONS}
        methods = split_methods(options.methods) if options.methods else None
        experiments = [
            plan.experiment(
                task,
                options.preset,
                methods,
                options.settings,
                _seeds(options.seeds),
                {name: value for name, value in locations.items() if value},
                options.design,
                options.split,
                _lengths(options.lengths),
            )
            for task in dict.fromkeys(options.tasks or DEFAULT_TASKS)
        ]
        # "toy[dimension=8]" and "toy[ dimension = 8 ]" are one
        experiments = [e for i, e in enumerate(experiments) if e not in experiments[:i]]
        for name, value in locations.items():
            if value and not any(name in each.task.locations() for each in experiments):
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag}: no task of this run takes one")
    if not options.limit > 0:
        raise ValueError("--limit needs more than 0 seconds")
    where = ""
    if options.on == "ray" and not options.dry:  # last: no cluster is started for a misspelt name
        from bench.run import cluster

        where = f", Ray at {cluster.connect(options.address)}"
        device = torch.device(cluster.device(options.device))
    run = runner.Run(root, experiments, device, options.on, per_device, options.limit)
    if options.again and not options.dry:
        run.open_data()  # first: results are not deleted for what cannot be made again
        run.forget()
    config_path = run.save_config()
    jobs = run.train_jobs()
    if options.dry:
        flags = ["--out", str(root.absolute())]
        flags += ["--cache", os.path.abspath(options.cache)] if options.cache else []
        flags += ["--device", options.device] if options.device != "auto" else []
        for job in jobs:
            print(shlex.join([*program(), "cell", job["id"], *flags]))
        return 0
    planned = sum(len(each.cells) for each in experiments)
    for each in experiments:
        task = each.task
        console.print(
            f"[bold]{escape(printable(task.name))}[/bold] "
            f"({escape(printable(each.preset))}): "
            f"{len(each.settings)} settings, {len(each.seeds)} seed{'s' * (len(each.seeds) > 1)}, "
            f"methods {escape(printable(', '.join(each.methods)))}; {task.training.steps} steps of "
            f"{task.training.batch} per network; on {device}{where}",
            highlight=False,
        )
        for measure, reason in task.missing().items():
            console.print(f"{measure} is not measured:", style="yellow", markup=False, end=" ")
            console.print(reason, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"networks: {planned} planned, {planned - len(jobs)} stored, {len(jobs)} to train",
        highlight=False,
    )
    if jobs or run.record_jobs():
        run.open_data()
        jobs = run.train_jobs()
    with stopping() as stop:
        if jobs:
            run.execute(jobs, "training", stop)
        if not stop():
            measuring = run.record_jobs()
            if measuring:
                run.execute(measuring, "measuring", stop)
            else:
                console.print("records: all stored, nothing to measure")
        if stop():
            print("stopped, everything done so far is kept; to continue:")
            print(f"  {_continuation(options, config_path)}")
            return 130
    for failure in run.failures:
        console.print("failed:", style="red", end=" ")
        console.print(printable_lines(failure), markup=False, highlight=False, soft_wrap=True)
    if run.failures:
        log = root / "failures.log"
        details = f"details are in {log}; " if log.exists() else ""
        print(f"{details}run again to try these once more")
    _report([root], {(each.task.name, each.preset, each.id) for each in run.experiments}, console)
    return 1 if run.failures else 0


def program() -> list[str]:
    """The words before a command, as they work in any folder."""
    usual = shutil.which("python")
    same = usual and os.path.dirname(usual) == os.path.dirname(sys.executable)
    python = "python" if same else sys.executable
    script = Path(__file__).resolve().parent.parent / "run_bench.py"
    return [python, str(script)] if script.is_file() else [python, "-m", "run_bench"]


def _continuation(options: argparse.Namespace, config: Path) -> str:
    """The command that continues a run where and as it was running."""
    words = [*program(), "run", "--config", str(config.absolute())]
    words += ["--out", os.path.abspath(options.out)]
    words += ["--cache", os.path.abspath(options.cache)] if options.cache else []
    as_usual = parser().parse_args(["run"])
    for flag in ("device", "on", "address", "per_device", "limit"):
        if (value := getattr(options, flag)) != getattr(as_usual, flag):
            words += ["--" + flag.replace("_", "-"), str(value)]
    return shlex.join(words)


def act_report(options: argparse.Namespace) -> int:
    _plain_warnings()
    roots = [Path(folder) for folder in options.folders or ["results"]]
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"there is no results folder {root}: name one, or `run` first")
    if options.explain:
        from bench.report.explain import explain
        from bench.report.load import load_results

        print(printable_lines(explain(load_results(*roots), options.explain)))
        return 0
    _report(roots, None, terminal(), Path(options.out) if options.out else None)
    return 0


def terminal() -> Any:
    """A console; 100 columns wide where the output is no terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=100)


def _report(
    roots: Sequence[Path],
    only: set[tuple[str, str, str]] | None,
    console: Any,
    out: Path | None = None,
) -> None:
    from bench import report

    reports = report.build(*roots, out=out, only=only)
    for built in reports:
        for table in report.terminal_tables([built]):
            console.print()
            console.print(table)
        print(f"\nreport: {printable(built.folder / 'report.md')}")
    if reports:
        page = reports[0].folder.parent / "index.html"
        print(f"\nto look at: {printable(page)}")


def act_list(options: argparse.Namespace) -> int:
    from bench.registry import DEFAULT_METHODS, METHODS, TASKS, method, preset, task_class

    for name in TASKS:
        task: Any = task_class(name)
        print(f"{name}: {task.line}")
        for size, made in task.presets().items():
            seeds = len(made.seeds)
            counts = f"{made.settings} settings, {seeds} seed{'s' * (seeds > 1)}"
            print(f"    {size:12} {counts:22} {made.line}")
    print(f"\n{FIELDS}")
    print("\nmethods (*: in a run that names none)")
    for name in METHODS:
        star = "*" if name in DEFAULT_METHODS else " "
        print(f"  {star} {name:15} {method(name).line}")
    print("\nwhich applies to which task, at its quick preset")
    quick = {name: preset(task_class(name), "quick").task for name in TASKS}
    print(f"    {'':15} {'  '.join(TASKS)}")
    for name in METHODS:
        marks = [
            ("-" if method(name).refuses(task) else "yes").center(len(where))
            for where, task in quick.items()
        ]
        print(f"    {name:15} {'  '.join(marks)}".rstrip())
    return 0


def act_status(options: argparse.Namespace) -> int:
    from bench.run import folders
    from bench.run.board import clock

    rows = folders.status(Path(options.folder))
    for row in rows:
        row.task, row.method = printable(row.task), printable(row.method)
    names = ("done", "running", "begun", "missing", "failed", "diverged")
    heads = (*names, "trained", "left")
    wide = [max([len("task"), *(len(row.task) for row in rows)])]
    wide.append(max([len("method"), *(len(row.method) for row in rows)]))
    print(
        "  ".join(
            [*(t.ljust(w) for t, w in zip(("task", "method"), wide, strict=True))]
            + [head.rjust(8) for head in heads]
        )
    )
    for row in rows:
        left = "?" if row.left is None else clock(row.left)
        cells = [*(str(getattr(row, name)) for name in names), clock(row.seconds), left]
        print(
            "  ".join(
                [
                    row.task.ljust(wide[0]),
                    row.method.ljust(wide[1]),
                    *(cell.rjust(8) for cell in cells),
                ]
            )
        )
    counts = {name: sum(getattr(row, name) for row in rows) for name in names}
    print(
        f"\n{sum(counts.values())} networks: "
        + ", ".join(f"{count} {name}" for name, count in counts.items())
    )
    print("left: training seconds of one network after another, at the pace of the finished ones")
    return 0


def act_merge(options: argparse.Namespace) -> int:
    from bench.run import folders

    out = Path(options.out)
    _no_link_out(out)
    _writable(out)
    cells, records = folders.merge([Path(folder) for folder in options.folders], out)
    print(f"{cells} networks and {records} measurements copied into {out}")
    return 0


def act_clean(options: argparse.Namespace) -> int:
    from bench.run import folders

    root = Path(options.folder)
    if not root.is_dir():
        raise ValueError(f"there is no results folder {root}")
    _writable(root)
    files, freed = folders.clean(root)
    print(f"{files} files deleted, {freed / 2**20:.1f} MiB freed")
    return 0


def act_time(options: argparse.Namespace) -> int:
    from bench.registry import sized
    from bench.run import runner, timing

    _plain_warnings()
    locations = {"train_data": options.train_data} if options.train_data else {}
    chosen, _ = sized(options.task, options.preset, locations)
    device = runner.choose_device(options.device)
    timing.compare(chosen.task, device, options.steps, options.rounds)
    return 0


def act_new(options: argparse.Namespace) -> int:
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


def act_fetch(options: argparse.Namespace) -> int:
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


def act_cell(options: argparse.Namespace) -> int:
    from bench.run.runner import choose_device
    from bench.run.schema import CellConfig, read
    from bench.run.store import Store

    root = Path(options.out)
    _plain_warnings()
    _no_link_out(root)
    config = read(Store(root).find(options.id) / "config.json", CellConfig)
    return _train_config(config, root, choose_device(options.device))


def _train_config(config: CellConfig, root: Path, device: Any) -> int:
    from bench.run import runner
    from bench.run.store import Store, cell_from

    cell = cell_from(config)
    if Store(root).result(cell) is not None:
        print(f"{cell.id} is done already")
        return 0
    run = runner.Run(root, [], device)
    jobs = []
    for each in cell.chain:  # what it starts from comes first, unless it is there
        if Store(root).result(each) is None:
            what = each, config.preset, config.snapshots
            Store(root).prepare(*what)
            jobs.append(run.train_job(*what))
    with stopping() as stop:
        run.execute(jobs, "training", stop)
        if stop():
            print("stopped, its state is saved; give the same command again to continue")
            return 130
    for failure in run.failures:
        print(f"failed: {printable_lines(failure)}", file=sys.stderr)
    return 1 if run.failures else 0


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C once asks the work to finish its step and save; twice stops at once.

    SIGTERM, which a batch system sends a while before it kills, always asks to save, however often
    it comes: `timeout` sends it to the process and to its group.
    """
    asked, pressed = False, 0

    def ask(sign: int, _: object) -> None:
        nonlocal asked, pressed
        pressed += sign == signal.SIGINT
        if pressed > 1:
            raise KeyboardInterrupt
        if not asked or sign == signal.SIGINT:
            how = "Ctrl-C again" if pressed else "Ctrl-C twice"
            print(f"\nstopping after this step; {how} stops at once", file=sys.stderr)
        asked = True

    try:
        before = {sign: signal.signal(sign, ask) for sign in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


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


def _seeds(text: str | None) -> list[int] | None:
    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ValueError(f"--seeds {text!r}: give whole numbers, as in 0,1,2") from None


def _lengths(text: str | None) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ValueError(
            f"--lengths {text!r}: give shares of the steps, as in 0.25,0.5,1"
        ) from None


def _writable(root: Path) -> None:
    """OSError with the way out unless files can be written below `root`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to the results folder {root} ({error.strerror}): make it "
            "writable, or choose another with --out"
        ) from None
    if shutil.disk_usage(root).free < 50 * 2**20:
        warnings.warn(
            f"less than 50 MiB are free at {root}: a full disk stops the run", stacklevel=2
        )


def _no_link_out(root: Path) -> None:
    """ValueError where a link inside a results folder leads out of it: what looks at the folder
    follows none, so that what is written through one would never be seen again."""
    link = leading_out(root)
    if link is not None:
        raise ValueError(
            f"{printable(link)} is a link out of the results folder, and no command follows one: "
            f"make {printable(root)} itself the link, or name the other disk with --out"
        )


def _plain_warnings() -> None:
    """Our own warnings as one line each; libraries' deprecation notes are not for users."""
    warnings.formatwarning = (  # type: ignore[assignment]
        lambda message, *_, **__: f"note: {printable_lines(message)}\n"
    )
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
