"""The trained networks of a results folder, and those that ship with the suite (`zoo/`).

    from bench import load
    network = load("compression/yoto_tuned")    of the zoo; load("toy/yoto", "results") of a folder
    codec = network.at(0.018)                   a plain CompressAI model for λ = 0.018

What is trained is told from the configurations that runs leave behind. Training data need not be
where it was: weights are checked by their hashes, and nothing is planned anew.

Nothing in a folder is run: what is shown is made by the suite and by installed packages that offer
tasks and methods. A task in a Python file of somebody's, and methods in files, are loaded where the
caller names this task, as in `demo DIR mytask`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bench.conditioners import Network
from bench.files import expanded, files_in, printable
from bench.method import Cell, Method
from bench.plugins.fields import bracketed
from bench.plugins.names import near
from bench.registry import SHOWN_FIRST, TASKS, describe, offered, registered
from bench.run import layout
from bench.run.plan import Experiment, experiment_from
from bench.run.schema import CellConfig, Done, ExperimentConfig, Plugin, RunConfig, read
from bench.run.store import cell_from, stored_network
from bench.space import Setting
from bench.task import Task

USUAL = Path("results")
MOST = 1e30  # a coefficient is less
ZOO = Path(__file__).resolve().parent.parent.parent / "zoo"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A finished network: where it lies and what `done.json` says of it."""

    folder: Path
    done: Done


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method's trained networks for one seed, as many as it needs for every setting."""

    task: Task
    method: Method
    label: str  # as tables call it
    cells: tuple[Cell, ...]
    stored: tuple[Stored, ...]  # of each cell

    @property
    def bytes(self) -> int:
        """Of all its networks' files."""
        return sum(int(each.done.ledger.bytes or 0) for each in self.stored)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What its networks were trained for; none where they were told theirs."""
        return tuple(cell.trained_for[0] for cell in self.cells if cell.trained_for)

    @property
    def whole(self) -> Cell | None:
        """The cell whose network, told its coefficients or folded, is all that answers; None where
        there are several, or a method makes its answers otherwise."""
        usual = type(self.method).at is Method.at
        return self.cells[0] if usual and len(self.cells) == 1 else None

    def nearest(self, setting: Setting) -> Setting:
        """The setting of its networks that lies nearest, for a method that has one for each."""
        return min(self.settings, key=lambda each: self.task.space.distance(each, setting))

    def network(self, cell: Cell) -> Network:
        """A new copy of one network on the CPU, in evaluation mode. Raises Damaged."""
        stored = self.stored_of(cell)
        return stored_network(cell, stored.folder, stored.done)

    def stored_of(self, cell: Cell) -> Stored:
        return self.stored[self.cells.index(cell)]

    def used(self, setting: Setting) -> list[Cell]:
        """The cells whose networks answer at a setting."""
        return self.method.cells_at(self.task, self.cells, setting)

    def at(self, *values: float, **named: float) -> nn.Module:
        """The plain model for one value per coefficient, in the order of the task's axes or by
        name (those left out are at the middle of their range), on the CPU, in evaluation mode. Of a
        grid it is the network trained nearest to these, as it is.

        Raises ValueError for a number of values that the task does not have, Damaged for weights
        that are not those that were stored.
        """
        setting = setting_of(self.task, values, named)
        cells = self.used(setting)
        model = self.method.at(self.task, cells, [self.network(c) for c in cells], setting).eval()
        self.task.ready(model)
        return model


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A task at one size with the methods that were trained on it, for one seed."""

    task: Task
    preset: str
    seed: int
    settings: tuple[Setting, ...]
    methods: dict[str, Entry]
    root: Path

    @property
    def reference(self) -> Entry | None:
        """The grid of fixed networks: the tuned one where the networks told theirs are, too."""
        grids = [each for each in self.methods.values() if each.method.role == "reference"]
        grids.sort(key=lambda each: not each.method.tuned)
        return grids[0] if grids else None


def load(name: str, root: str | Path = ZOO, seed: int | None = None) -> Entry:
    """The networks of "TASK/METHOD" in a results folder, or of those that ship with the suite.

    Of several sizes of a task the first. A task in a file of yours is run where you name it so.
    Raises ValueError that says what there is.
    """
    task, _, label = name.partition("/")
    exhibits = catalogue(Path(root), task, seed)
    with_it = [each for each in exhibits if label in each.methods]
    if not with_it:
        known = {label: None for each in exhibits for label in each.methods}
        raise near(label, known, f"trained method of the task {task!r}")
    return with_it[0].methods[label]


def exhibited(folder: str | Path | None, task: str, seed: int | None) -> list[Exhibit]:
    """See `catalogue`, of a results folder; where none is named, of `results` and of those that
    ship with the suite. Tasks of the user's come first, then the default ones. An unknown name is
    an error that has the nearest ones."""
    word = bracketed(task)[0] if task else ""
    if not (not word or folder or ".py" in word or _has_runs(USUAL) or registered(word, "task")):
        names = dict.fromkeys(offer.name for offer in offered("task"))
        raise near(word, names, "task or results folder")
    exhibits: list[Exhibit] = []
    reasons = []
    roots = [Path(folder)] if folder else [each for each in (USUAL, ZOO) if _has_runs(each)]
    for root in roots:
        try:
            exhibits += catalogue(root, task, seed)
        except ValueError as error:
            reasons.append(str(error))
    if not exhibits:
        raise ValueError(
            "\n".join(reasons)
            or f"there are no trained networks in {USUAL}, and {ZOO} is missing: `run` first, or "
            "name a results folder"
        )
    known = {name: place for place, name in enumerate(dict.fromkeys((*SHOWN_FIRST, *TASKS)))}
    return sorted(exhibits, key=lambda each: known.get(each.task.name, -1))


def _has_runs(root: Path) -> bool:
    return (root / "runs").is_dir()


def setting_of(task: Task, values: Sequence[float], named: dict[str, float]) -> Setting:
    """One value per coefficient; see `Entry.at`."""
    names = task.space.names
    if values and named:
        raise ValueError("give values in the order of the axes or by name, and not both")
    for name in named:
        if name not in names:
            raise near(name, dict.fromkeys(names), f"coefficient of the task {task.name!r}")
    if named:
        (middle,) = task.space.grid(1)
        values = tuple(named.get(n, value) for n, value in zip(names, middle, strict=True))
    if len(values) != len(names):
        raise ValueError(
            f"{task.name} has {len(names)} coefficients ({', '.join(names)}): give a value for "
            f"each in this order, or some by name, as {names[0]}={task.space.grid(1)[0][0]:g}"
        )
    if not all(isinstance(value, int | float) and 0 < value < MOST for value in values):
        raise ValueError(f"coefficients are numbers above 0, not {', '.join(map(str, values))}")
    return tuple(float(value) for value in values)


def catalogue(root: Path, task: str = "", seed: int | None = None) -> list[Exhibit]:
    """What was trained in a results folder, a task and size each; of `task` alone where it is
    named, by its name or file, for the given seed or the first that is finished.

    What cannot be shown is left out with a warning that says why. ValueError where nothing is
    left, or where there is no such folder.
    """
    if not _has_runs(root):
        raise ValueError(
            f"there are no trained networks in {root}: name a results folder, or `run` first"
        )
    stored = _finished(root, task)
    exhibits: dict[str, Exhibit] = {}
    for planned in _experiments(root, task):
        try:
            shown = _exhibit(root, planned, stored, seed)
        except Exception as error:  # of values of any kind, in a file of anybody's
            name = printable(planned.task.name)
            warnings.warn(f"{name} in {root} is left out: {printable(error)}", stacklevel=2)
            continue
        if shown is not None:
            key = json.dumps([describe(shown.task), shown.preset, shown.seed])
            known = exhibits.setdefault(key, shown)
            for label, entry in shown.methods.items():  # of a grid that grew, the larger one
                before = known.methods.get(label, entry)
                known.methods[label] = max(before, entry, key=lambda each: len(each.cells))
    if not exhibits:
        of = f" of {task!r}" if task else ""
        of += "" if seed is None else f" and seed {seed}"
        there = sorted({path.name for path in (root / "runs").iterdir()})
        raise ValueError(
            f"no network{of} in {root} is finished; it has {printable(', '.join(there))}, of which "
            f"`python run_bench.py status {root}` shows more, and `run` trains others"
        )
    return list(exhibits.values())


# What a folder holds -----------------------------------------------------------------------------


def _asked(task: str, plugin: Plugin) -> bool:
    """Whether a stored task is the one that was asked for, by its name or its file; any for ""."""
    place, _, _ = plugin.target.rpartition(":")
    word = bracketed(task)[0] if task else ""
    offer = registered(word, "task")
    if offer or not place.endswith(".py"):
        return not word or (offer is not None and plugin.target == offer.target)
    file = word if word.endswith(".py") else word.rpartition(":")[0]
    if file:
        return Path(expanded(file)).resolve() == Path(place).resolve()
    return not word or Path(place).stem == word


def _trusted(task: str) -> bool:
    """Whether files may be run that a folder names: where a task is asked for that is in one."""
    return bool(task) and registered(bracketed(task)[0], "task") is None


def _files(*plugins: Plugin | None) -> list[str]:
    """The Python files that these would run."""
    places = [each.target.rpartition(":")[0] for each in plugins if each is not None]
    return [printable(place) for place in places if place.endswith(".py")]


def _experiments(root: Path, task: str) -> Iterator[Experiment]:
    """What runs in a folder compared, of the task that is asked for; see `catalogue`."""
    for path in files_in(root, layout.CONFIGS):
        try:
            configs = read(path, RunConfig).experiments
        except (ValueError, OSError) as error:
            warnings.warn(f"{path} is left out: {printable(error)}", stacklevel=3)
            continue
        for config in configs:
            if _asked(task, config.task) and _without_files(config, root, task):
                try:
                    yield experiment_from(config)
                except Exception as error:  # of values of any kind, in a file of anybody's
                    where = printable(f"{config.task.target} in {root}")
                    warnings.warn(f"{where} is left out: {printable(error)}", stacklevel=3)


def _without_files(config: ExperimentConfig, root: Path, task: str) -> bool:
    """Take out of a stored experiment what would run a file that is not trusted, with a warning;
    False where it is the task itself."""
    if _trusted(task):
        return True
    no_part = "is no part of the suite and is not run"
    for label, plugin in list(config.methods.items()):
        for file in _files(plugin):
            warnings.warn(f"{file} {no_part}: its methods are left out", stacklevel=4)
            del config.methods[label]
    for file in _files(config.task):
        warnings.warn(
            f"{file} {no_part}: name the task where you trust the file, as in `{root} "
            f"{Path(file).stem}`",
            stacklevel=4,
        )
        return False
    return True


def _finished(root: Path, task: str) -> dict[str, Stored]:
    """Every finished network of the task that is asked for, by what it is (`_key`)."""
    stored = {}
    for path in files_in(root, layout.FINISHED):
        try:
            done = read(path, Done)
            config = read(path.with_name(layout.CONFIG), CellConfig)
            parts = [(config.task, config.method), *((e.task, e.method) for e in config.before)]
            if done.status != "done" or not _asked(task, config.task):
                continue
            if _files(*itertools.chain(*parts)) and not _trusted(task):
                continue
            if not stat.S_ISREG(path.with_name(layout.WEIGHTS).lstat().st_mode):
                raise ValueError(f"its {layout.WEIGHTS} is no ordinary file")
            stored[_key(cell_from(config, checked=False))] = Stored(folder=path.parent, done=done)
        except Exception as error:  # of values of any kind, in a file of anybody's
            warnings.warn(f"{path.parent} is left out: {printable(error)}", stacklevel=3)
    return stored


def _key(cell: Cell) -> str:
    """What a cell is, without the content of its training data, which may not be here."""
    parts = [
        [describe(each.task), describe(each.method), each.seed, each.trained_for]
        for each in cell.chain
    ]
    return json.dumps(parts, sort_keys=True)


def _exhibit(
    root: Path, planned: Experiment, stored: dict[str, Stored], seed: int | None
) -> Exhibit | None:
    """What of an experiment is finished, for the first seed that has something."""
    task = _with_data_here(planned.task)
    for each in planned.seeds if seed is None else [seed]:
        methods = {}
        for label, method in planned.methods.items():
            cells = method.plan(planned.task, planned.settings, each)
            there = {cell: stored[key] for cell in cells if (key := _key(cell)) in stored}
            if there and (len(there) == len(cells) or method.role == "reference"):
                methods[label] = Entry(
                    task=task,
                    method=method,
                    label=label,
                    cells=tuple(there),
                    stored=tuple(there.values()),
                )
        if methods:
            constants = next(iter(methods.values())).stored[0].done.ledger.constants or {}
            task.showing().recall(constants)
            return Exhibit(
                task=task, preset=planned.preset, seed=each, settings=planned.settings,
                methods=methods, root=root,
            )  # fmt: skip
    return None


def _with_data_here(task: Task) -> Task:
    """The task without what lies at places that this machine does not have: its own examples then
    stand for them. For what the network was trained towards, as a painting, nothing does."""
    gone = {
        name: ""
        for name, place in task.surroundings().items()
        if place and "://" not in place and not Path(place).exists()
    }
    return dataclasses.replace(task, **gone) if gone else task  # type: ignore[type-var]
