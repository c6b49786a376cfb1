"""Whether a task and its methods keep the contract, asked with a few examples before any training.

    check(experiment)        ContractError names the hook, the term or the layer, and the way out

`bench/task.py` and `bench/method.py` say what is asked; nothing that is trained depends on having
been checked.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.conditioners import Conditioner, Modulating, Network
from bench.faithful import CPU, differing, same_noise
from bench.identity import plain
from bench.measuring import mixed_up
from bench.method import Cell
from bench.modulation import BEFORE, Modulation, unfoldable
from bench.plugins.names import near
from bench.registry import ships
from bench.space import Space
from bench.task import Task

COUNT = 3  # examples in a batch; one fewer, and one, elsewhere: no other dimension is as long


class ContractError(ValueError):
    """What does not keep the contract of `bench/task.py` or `bench/method.py`."""


def check(experiment: Any) -> None:
    """Raise ContractError where the task or one of the methods of an `Experiment`
    (`bench/run/plan.py`) does not do what it must: every different model is called once, and every
    different conditioner is put on it, steered and folded; `measure` is called once. A second or so
    on the CPU. Tasks and methods that ship with the suite are asked by its tests, together, and not
    again."""
    steered = set[Any]()
    models: dict[str, dict[str, int]] = {}  # how often each layer is called, by the model
    for (seed, label), cells in experiment.plans.items():
        shipped = ships(type(experiment.task)) and ships(type(experiment.methods[label]))
        if seed != experiment.seeds[0] or not cells or shipped:
            continue
        with same_noise():
            trial = _Trial(label, cells[0])
            if trial.signature not in models:
                calls = _check_losses(trial)
                if not models:
                    _check_measure(trial, experiment.split)
                models[trial.signature] = calls
            if (conditioner := trial.conditioner()) is None:
                continue
            sites = list(getattr(conditioner, "sites", []))
            kind = (trial.signature, type(conditioner), tuple(sites))
            if kind not in steered:
                _check_conditioner(trial, conditioner, sites, models[trial.signature])
                steered.add(kind)


class _Trial:
    """One cell's method on its task, with an untrained model."""

    def __init__(self, label: str, cell: Cell) -> None:
        self.label, self.cell, self.task = label, cell, cell.task
        torch.manual_seed(cell.seed)
        self.model = _hook(cell.task, "model()", lambda: cell.method.model(cell.task))
        _check_model(cell.task, self.model)

    @functools.cached_property
    def signature(self) -> str:
        """The same for models that are made alike."""
        shapes = {name: list(p.shape) for name, p in self.model.named_parameters()}
        return json.dumps([str(self.model), shapes, plain(self.task.training.batch)])

    def conditioner(self) -> Conditioner | None:
        torch.manual_seed(self.cell.seed + 1)
        try:
            return self.cell.method.whole_conditioner(self.task, self.model)
        except Exception as error:
            raise self.fault(_site_fault(self.task, self.model) or _reason(error)) from error

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """Those of the same few examples under the same noise, as the task returns them."""
        data = self.task.data("train").to(CPU)
        with same_noise():
            return self.task.losses(model, data.batch(COUNT, torch.Generator().manual_seed(0)))

    def draw(self, count: int) -> Tensor:
        """What the method draws: (count, K). ContractError where it is something else."""
        try:
            drawn: Any = self.cell.method.draw(self.cell, count, torch.Generator().manual_seed(1))
        except Exception as error:
            raise self.fault(f"draw() failed: {_reason(error)}") from error
        wanted = (count, len(self.task.space.axes))
        if not isinstance(drawn, Tensor) or drawn.shape != wanted or drawn.dtype != torch.float32:
            raise self.fault(f"draw() returns {_shape(drawn)}, not a float32 tensor of {wanted}")
        if not (drawn.isfinite() & (drawn > 0)).all():
            raise self.fault("draw() returns coefficients that are not finite or not above 0")
        return drawn

    def fault(self, reason: str) -> ContractError:
        task = f"the task {self.task.name!r}"
        return ContractError(f"{self.label} cannot be used on {task}: {reason}")


def _check_model(task: Task, model: Any) -> None:
    """That a model can be trained, stored and copied."""
    what = f"model() of the task {task.name!r}"
    if not isinstance(model, nn.Module):
        raise ContractError(f"{what} returns {_shape(model)}, not a torch.nn.Module")
    if lazy := [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]:
        raise ContractError(
            f"{what}: {lazy[0]!r} has no weights before its first call, so that its size is no "
            "part of the model: give the layer its number of inputs"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ContractError(f"{what} returns a model of which no parameter is trained")
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                raise ContractError(
                    f"{what}: the layer {name!r} keeps in {key!r} a tensor computed from others, "
                    "as torch.nn.utils.weight_norm does, which can neither be copied nor stored: "
                    "use torch.nn.utils.parametrizations"
                )
    try:
        copy.deepcopy(model)
    except Exception as error:
        raise ContractError(f"{what} returns a model that cannot be copied: {error}") from error


@torch.no_grad()
def _check_losses(trial: _Trial) -> dict[str, int]:
    """That `losses` returns every term, and no other, as one finite number per example; how often
    it calls each layer of the plain model in training."""
    trial.draw(COUNT)
    trial.model.train()
    names = [name for name, _ in trial.model.named_modules(remove_duplicate=False) if name]
    calls, terms = _hook(trial.task, "losses()", lambda: _calls(trial, names))
    _check_terms(trial.task, terms)
    return calls


def _check_terms(task: Task, terms: Any) -> None:
    what = f"losses() of the task {task.name!r} returns"
    _check_values(what, terms, task.terms, COUNT)
    for name, term in terms.items():
        if name not in task.terms:
            raise ContractError(
                f"{what} {name!r}, which `terms` does not name: all that is returned is trained on"
            )
        if term.dtype != torch.float32:
            raise ContractError(f"{what} the term {name!r} as {term.dtype}: add .float()")
        if not term.isfinite().all():
            values = f"as {term.tolist()} from an untrained model: it must be finite"
            raise ContractError(f"{what} the term {name!r} {values}")


@torch.no_grad()
def _check_measure(trial: _Trial, split: str) -> None:
    """That `measure` returns every term, and that and `measure_at` known measures, one number for
    one example, which is the same among several where the task takes them at once."""
    task, model = trial.task, copy.deepcopy(trial.model).eval()
    _hook(task, "ready()", lambda: task.ready(model))
    _, example = next(iter(task.data(split).to(CPU).examples()))
    setting = task.settings(1)[0]
    for hook, measured, needed in (
        ("measure()", lambda: task.measure(model, example), task.terms),
        ("measure_at()", lambda: task.measure_at(model, example, setting), ()),
    ):
        values = _hook(task, hook, measured)
        what = f"{hook} of the task {task.name!r} returns"
        _check_values(what, values, needed, 1)
        for name in values:
            if name not in task.measures:
                reason = near(name, task.measures, "entry of `measures`")
                raise ContractError(f"{what} {name!r}: {reason}")
    examples = task.data(split).to(CPU).examples()
    if reason := _hook(task, "measure()", lambda: mixed_up(task, model, examples)):
        raise ContractError(reason)


def _check_values(what: str, values: Any, terms: Sequence[str], count: int) -> None:
    """That these are numbers by name, one per example of a batch of `count`, every term's too."""
    if not isinstance(values, dict):
        raise ContractError(f"{what} {_shape(values)}, not its numbers by name")
    if missing := [name for name in terms if name not in values]:
        raise ContractError(f"{what} {list(values)}, without the loss term {missing[0]!r}")
    for name, value in values.items():
        if not isinstance(value, Tensor) or value.shape != (count,):
            raise ContractError(
                f"{what} {_shape(value)} for {name!r} of a batch of {count}: it must be one number "
                f"per example, ({count},), since every example has coefficients of its own; "
                "average over all dimensions but the first, as .flatten(1).mean(1)"
            )


@torch.no_grad()
def _check_conditioner(
    trial: _Trial, conditioner: Conditioner, sites: Sequence[str], calls: dict[str, int]
) -> None:
    """That every site is called, follows its own example's coefficients alone, and can be folded.

    At scales and shifts that matter, since a conditioner may start at ones and zeros.
    """
    model = trial.model.train()
    names = list(dict.fromkeys(site.removeprefix(BEFORE) for site in sites))
    if uncalled := [name for name in names if not calls[name]]:
        raise trial.fault(
            f"the layer {uncalled[0]!r} is never called by losses(): its weights are read by what "
            "is around it, as nn.MultiheadAttention does with its out_proj, or it is not used; a "
            "scale or shift of its output has no place: leave it out of sites()"
        )
    try:
        draws = trial.draw(COUNT)
        network = Network(model, conditioner)
        _strengthen(conditioner, trial.task.space, draws)
        network.condition(draws)
        again, _ = _calls(trial, names)
        network.release()
        if past := [name for name in names if again[name] != calls[name]]:
            raise trial.fault(
                f"the layer {past[0]!r} is also called past what is put around it: something keeps "
                "the layer outside the model's attributes, as in a list; call the attribute"
            )
        _check_independence(trial, network, draws)
        setting = trial.task.space.grid(2)[0]
        folded = copy.deepcopy(network).at(setting)
        data = trial.task.data("train").to(CPU)
        if far := differing(trial.task, network, folded, setting, data, COUNT - 1, CPU):
            raise trial.fault(
                f"folded into its layers' weights, its conditioner does something else: {far}; is "
                "there a layer that changes its weights when it is called, as by standardising "
                "them?"
            )
    except ContractError:
        raise
    except Exception as error:
        raise trial.fault(_read_past(model, error) or _reason(error)) from error


def _calls(trial: _Trial, names: Sequence[str]) -> tuple[dict[str, int], Any]:
    """How often a batch's losses call each layer, and the losses."""
    counts = Counter(dict.fromkeys(names, 0))
    with contextlib.ExitStack() as hooks:
        for name in names:
            layer = trial.model.get_submodule(name)
            hook = layer.register_forward_hook(lambda *_, name=name: counts.update([name]))
            hooks.callback(hook.remove)
        return counts, trial.losses(trial.model)


def _strengthen(conditioner: Conditioner, space: Space, draws: Tensor) -> None:
    """Let a conditioner do something that shows, whatever it starts with: one that modulates gets
    scales between 0.6 and 1.4 and shifts up to 0.1 that follow the coefficients."""
    if not isinstance(conditioner, Modulating):
        for parameter in conditioner.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        return
    waves = [
        [None if part is None else 3 * torch.randn(len(space.axes), part.shape[1]) for part in pair]
        for pair in conditioner(draws)
    ]
    if len(waves) != len(conditioner.sites):
        raise ValueError(f"{len(waves)} modulations for {len(conditioner.sites)} sites")

    def wave(coefficients: Tensor, centre: float, height: float, to: Tensor | None) -> Any:
        return to if to is None else centre + height * (space.encode(coefficients) @ to + 1).sin()

    def forward(coefficients: Tensor) -> list[Modulation]:
        at = functools.partial(wave, coefficients)
        return [(at(1.0, 0.4, scale), at(0.0, 0.1, shift)) for scale, shift in waves]

    conditioner.forward = forward  # type: ignore[method-assign]


def _check_independence(trial: _Trial, network: Network, draws: Tensor) -> None:
    """That an example's losses follow its own coefficients and no other example's."""
    network.eval()
    conditioner, space = network.conditioner, trial.task.space
    per_example = isinstance(conditioner, Modulating) or bool((draws != draws[:1]).any())
    ends = torch.tensor(space.grid(2))
    other = ends[(space.encode(ends) - space.encode(draws[:1])).abs().sum(1).argmax()]
    moved = draws.clone()
    moved[0 if per_example else slice(None)] = other

    def losses(coefficients: Tensor) -> Tensor:
        with same_noise():
            network.condition(coefficients)
            terms = trial.losses(network.model)
            network.release()
        _check_terms(trial.task, terms)
        return torch.stack([terms[name] for name in trial.task.terms]).double()  # (terms, B)

    one, two = losses(draws), losses(moved)
    size = 1e-6 * (one.abs() + two.abs()).amax(1, keepdim=True)
    change = ((two - one).abs() - size).clamp(min=0) / size.clamp(min=1e-30)
    if not change[:, 0].any():  # a quantiser may hide it before training, but not from gradients
        network.train()
        if torch.equal(losses(draws), losses(moved)):
            raise trial.fault("the losses of an example do not follow its coefficients at all")
        return
    if per_example and (change[:, 1:] > 1e-3 * change[:, :1].amax()).any():
        if ((losses(draws) - one).abs() > size).any():
            return  # noise that no seed governs: nothing can be told apart
        raise trial.fault(
            "the coefficients of one example change the losses of others in its batch: is there a "
            f"layer among {', '.join(getattr(conditioner, 'sites', []))} whose first dimension is "
            "not the batch, as in a sequence with time first, or a loss that mixes examples?"
        )


# What errors mean


def _hook(task: Task, name: str, call: Callable[[], Any]) -> Any:
    """What a method of the task returns; ContractError with the place of its own where it fails."""
    try:
        return call()
    except ContractError:
        raise
    except Exception as error:
        file = getattr(sys.modules.get(type(task).__module__), "__file__", "")
        places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        line = f" (line {places[-1].lineno} of {file})" if places else ""
        raise ContractError(
            f"{name} of the task {task.name!r} failed on a few examples and an untrained model: "
            f"{_reason(error)}{line}"
        ) from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _site_fault(task: Task, model: nn.Module) -> str:
    """What is wrong with a task's sites; "" where nothing is."""
    sites = _hook(task, "sites()", lambda: task.sites(model))
    layers = dict(model.named_modules(remove_duplicate=False))
    for site in sites:
        if site.removeprefix(BEFORE) not in layers:
            return f"sites(): {near(str(site), filter(None, layers), 'layer of the model')}"
        if reason := unfoldable(layers[site.removeprefix(BEFORE)]):
            return f"the layer {site!r} cannot be modulated: {reason}"
    return ""


def _read_past(model: nn.Module, error: Exception) -> str:
    """The layer around which something was put, and of which an attribute is read; or ""."""
    owner, attribute = (getattr(error, name, None) for name in ("obj", "name"))
    name = next((name for name, module in model.named_modules() if module is owner), "")
    return name and (
        f"the model reads {attribute!r} of the layer {name!r} instead of calling it, so what "
        "scales and shifts its output is passed by: call the layer, or leave it out of sites()"
    )


def _shape(value: Any) -> str:
    kind = type(value).__name__
    return f"a {kind} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {kind}"
