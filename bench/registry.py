"""Names to plug-ins, imported late: a name in a table here, one that an installed package offers
(`bench/plugins/installed.py`), or a user's own Python file.

`bench` never imports a task or a method by itself. A configuration stored beside a result names
its plug-ins the same way, and `revive` makes the objects again.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from bench.files import expanded
from bench.plugins import installed, loading
from bench.plugins.fields import bracketed, changed, differing, shown
from bench.plugins.installed import Offer
from bench.plugins.names import UnknownName, near

TASKS = {
    "beta_vae_cifar10": "bench.tasks.beta_vae:Cifar10",
    "beta_vae_scenes": "bench.tasks.beta_vae:OurScenes",
    "beta_vae_shapes3d": "bench.tasks.beta_vae:Shapes3D",
    "compression": "bench.tasks.compression:Compression",
    "digits": "bench.tasks.digits:Digits",
    "fairness": "bench.tasks.fairness:Fairness",
    "quadratic": "bench.tasks.quadratic:Quadratic",
    "quantiles": "bench.tasks.quantiles:Quantiles",
    "registration": "bench.tasks.registration:Registration",
    "style": "bench.tasks.style:Style",
    "toy": "bench.tasks.toy:Toy",
}
METHODS = {
    "yoto": "bench.yoto:Yoto",
    "yoto_tuned": "baselines.yoto_tuned:YotoTuned",
    "yoto_warm": "baselines.yoto_warm:YotoWarm",
    "fixed_grid": "bench.fixed_grid:FixedGrid",
    "fixed_grid_tuned": "baselines.fixed_grid_tuned:FixedGridTuned",
    "warm_grid": "baselines.warm_grid:WarmGrid",
    "single_model": "baselines.single_model:SingleModel",
    "interpolation": "baselines.interpolation:Interpolation",
    "unconditioned": "baselines.unconditioned:Unconditioned",
    "concatenation": "baselines.concatenation:InputConcatenation",
    "instance_norm": "baselines.instance_norm:InstanceNorm",
    "gates": "baselines.gates:MultiRateGates",
    "gain_units": "baselines.gain_units:GainUnits",
    "gain_bank": "baselines.gain_bank:GainBank",
    "step_scaling": "baselines.step_scaling:StepScaling",
    "vbr": "baselines.vbr:VariableRate",
    "hypernetwork": "baselines.hypernetwork:ParetoHypernetwork",
    "subspace": "baselines.subspace:Subspace",
    "low_rank": "baselines.low_rank:LowRank",
    "kernel_mix": "baselines.kernel_mix:KernelMix",
    "several_outputs": "baselines.several_outputs:SeveralOutputs",
}
FILE = re.compile(r"(.*\.py)(?::([^:/]*))?", re.DOTALL)  # a path may hold colons, too
# The default run; the first two are small, with three seeds each, so that one answer comes soon.
DEFAULT_TASKS = ("quantiles", "digits", "compression", "style", "beta_vae_scenes")
EXAMPLE = "compression"  # in help, and what `time` times
# The order in which pages show tasks; others follow by name.
SHOWN_FIRST = ("compression", "style", "beta_vae_scenes")
# What a first run compares: those that cost little beside the grid. `--methods all` takes all.
DEFAULT_METHODS = (
    *("yoto", "yoto_tuned", "fixed_grid", "warm_grid", "single_model", "step_scaling"),
    "several_outputs",
)

Plugin = TypeVar("Plugin")

# What comes of building objects from values of wrong types; programs' own errors besides.
UNFIT = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


def task_class(name: str) -> type:
    """The Task subclass of a registered name or of a file (`mytask.py`, `mytask.py:Name`)."""
    from bench.task import Task

    return _find(name, "task", Task)


def method(name: str, **fields: Any) -> Any:
    """A method with its default fields (or `fields`) by registered name or file."""
    from bench.method import Method

    return _find(name, "method", Method)(**fields)


def offered(what: str) -> list[Offer]:
    """The tasks or the methods that have a name: the suite's, then those of installed packages.
    Nothing is imported."""
    known = {"task": TASKS, "method": METHODS}[what]
    ours = [Offer(what=what, name=name, target=target) for name, target in known.items()]
    return [*ours, *installed.offers(what)]


def registered(name: str, what: str) -> Offer | None:
    """What a name means, alone or with its package before it (`package:name`); None where nothing
    is called so. UnknownName where two packages offer it."""
    offers = [each for each in offered(what) if name in (each.name, each.whole_name)]
    if len(offers) > 1:
        clear = " or ".join(offer.whole_name for offer in offers)
        raise UnknownName(
            f"{len(offers)} packages offer a {what} called {name!r}: write {clear}, or take one "
            f"away with `pip uninstall {offers[-1].package}`"
        )
    return offers[0] if offers else None


def variants(text: str, presets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Methods by what tables call them, from one word of a command line.

    "yoto" is a method with its default fields, and those `presets` gives under its name or, where
    it gives none, under that of the method it is `like`;
    "yoto[stratified=true, hidden=64]" changes fields of it and is called just so; "all" is every
    registered method, those of installed packages too.
    """
    if text == "all":
        names = dict.fromkeys(offer.name for offer in offered("method"))
        return {label: each for name in names for label, each in variants(name, presets).items()}
    name, inside = bracketed(text)
    plain = method(name)
    usual = presets.get(plain.name, presets.get(plain.like, {}))
    variant, fields = changed(dataclasses.replace(plain, **usual), inside)
    return {f"{plain.name}[{shown(fields)}]" if fields else plain.name: variant}


def split_methods(text: str) -> list[str]:
    """A command line's list at its commas, but not at those inside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text)]


def preset(task: type, name: str) -> Any:
    """One preset of a task class, by name."""
    if not dataclasses.is_dataclass(task):
        raise ValueError(
            f"the task {task.__name__} is no dataclass, and its fields are the experiment: write "
            "`@dataclass(frozen=True, kw_only=True)` in the line above `class`"
        )
    presets = task.presets()  # type: ignore[attr-defined]
    if name not in presets:
        raise near(name, presets, f"preset of the task {task.name!r}")  # type: ignore[attr-defined]
    return presets[name]


def sized(text: str, name: str, locations: Mapping[str, str] | None = None) -> tuple[Any, str]:
    """The preset `name` of one word of a command line, and what tables call this size.

    "toy" is a task as the preset has it, "toy[dimension=8, training.steps=500]" one with fields
    changed, and its size is then called "quick[dimension=8, training.steps=500]". `locations` are
    taken where the task has such fields and the brackets do not give them; all of the task's
    become absolute, so that what is stored is found from any folder. Those that are the task's
    `options` count as fields changed.
    """
    word, inside = bracketed(text)
    kind = task_class(word)
    chosen = preset(kind, name)
    has = chosen.task.locations()
    flagged = {**has, **chosen.task.options()}
    placed = {key: value for key, value in (locations or {}).items() if key in flagged}
    task = dataclasses.replace(chosen.task, **placed)
    task, fields = changed(task, inside)
    fields = {key: value for key, value in placed.items() if key not in has} | fields
    return _sized(chosen, name, task, fields)


def sized_as(task: Any, name: str) -> tuple[Any, str]:
    """The same for a task object: the preset `name` of its class with its fields."""
    chosen = preset(type(task), name)
    return _sized(chosen, name, task, differing(task, chosen.task))


def _sized(chosen: Any, name: str, task: Any, fields: dict[str, Any]) -> tuple[Any, str]:
    """A preset with another task of its kind, and its name with the fields that were changed."""
    has = task.locations()
    lists = {each.name for each in dataclasses.fields(task) if each.metadata.get("several")}
    absolute = {key: _absolute_list if key in lists else _absolute for key in has}
    places = {key: absolute[key](place) for key, place in task.locations().items() if place}
    task = dataclasses.replace(task, **places)
    # A location's last part says enough: the rest is this machine's.
    fields = {key: _last(value) if key in has else value for key, value in fields.items()}
    size = f"{name}[{shown(dict(sorted(fields.items())))}]" if fields else name
    return dataclasses.replace(chosen, task=task), size


def _absolute(place: Any) -> Any:
    """A path made absolute; anything else that says where data lies (an address) as it is."""
    if not isinstance(place, str) or "://" in place:
        return place
    return str(Path(expanded(place)).absolute())


def _absolute_list(places: str) -> str:
    """The same for each entry of a list that is there; other words are names."""
    if Path(expanded(places)).exists():  # one, whose name may hold what stands between entries
        return str(_absolute(places))
    entries = [entry.strip() for entry in places.split(";")]
    known = (_absolute(each) if Path(expanded(each)).exists() else each for each in entries if each)
    return ";".join(known)


def _last(places: str) -> str:
    return ";".join(Path(place).name for place in places.split(";"))


def ships(kind: type) -> bool:
    """Whether a class is the suite's own, and no user's plug-in."""
    return kind.__module__.split(".")[0] in loading.SUITE


def describe(plugin: Any) -> dict[str, Any]:
    """A task or method as plain values: where its class is, and its fields."""
    from bench.identity import plain

    kind = type(plugin)
    target = installed.target_of(kind)
    if not ships(kind) and installed.offering(target) is None:
        target = f"{Path(inspect.getfile(kind)).resolve()}:{kind.__qualname__}"
    return {"class": target, "fields": plain(plugin)}


def revive(description: dict[str, Any], base: type[Plugin]) -> Plugin:
    """The inverse of `describe`. Only subclasses of `base` are made, of the suite's classes, of
    those that installed packages offer, and of those in a Python file of the user's, which is run.
    """
    try:
        target, fields = description["class"], description["fields"]
        place, _, name = target.rpartition(":")
    except (TypeError, KeyError, AttributeError):
        raise ValueError(f"no plug-in is described by {description!r}") from None
    kind: Any
    if place.endswith(".py"):
        kind = getattr(_module(Path(place)), name, None)
    elif place.split(".")[0] in loading.SUITE:
        try:
            kind = getattr(importlib.import_module(place), name, None)
        except ImportError as error:
            raise ValueError(f"{target!r} is no part of this version: {error}") from None
    elif offer := installed.offering(target):
        kind = _class(offer, base)
    else:
        raise ValueError(
            f"{target!r} is neither part of the suite, nor a Python file, nor what an installed "
            "package offers: install the package that it is from"
        )
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ValueError(f"{target!r} is no {base.__name__}: was it renamed since?")
    try:
        return _restore(kind, fields)
    except UNFIT as error:
        raise ValueError(f"{target!r} cannot be made of these fields: {error}") from error


def _restore(kind: type, fields: dict[str, Any]) -> Any:
    """A dataclass from JSON's types: lists become tuples, mappings the field's dataclass."""
    hints = typing.get_type_hints(kind)

    def value(item: Any, hint: Any) -> Any:
        if isinstance(item, dict):
            for choice in (hint, *typing.get_args(hint)):  # as in `Training | None`
                if dataclasses.is_dataclass(choice):
                    return _restore(choice, item)  # type: ignore[arg-type]
        return tuple(value(part, None) for part in item) if isinstance(item, list) else item

    return kind(**{name: value(item, hints.get(name)) for name, item in fields.items()})


def _find(name: str, what: str, base: type) -> Any:
    """The class of a registered name, or of a file: the one of its kind that is defined there."""
    if offer := registered(name, what):
        return _class(offer, base)
    parts = FILE.fullmatch(name)
    if parts is None:
        raise near(name, dict.fromkeys(each.name for each in offered(what)), what)
    file, attribute = parts.groups()
    module = _module(Path(expanded(file)))
    defined = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    }
    if attribute in defined:
        return defined[attribute]
    if attribute:
        raise near(attribute, defined, f"{what} in {file}")
    if len(defined) != 1:
        raise UnknownName(
            f"{file} has {len(defined)} {what}s ({', '.join(defined) or 'none'}): "
            f"it needs one, or name it as {file}:Name"
        )
    return next(iter(defined.values()))


def _class(offer: Offer, base: type) -> type:
    if not offer.origin:
        place, _, attribute = offer.target.partition(":")
        return getattr(importlib.import_module(place), attribute)
    try:
        return installed.load(offer, base)
    except loading.Unloadable as error:
        raise UnknownName(str(error)) from error


def _module(path: Path) -> ModuleType:
    try:
        return loading.load(path)
    except loading.Unloadable as error:
        raise UnknownName(str(error)) from error
