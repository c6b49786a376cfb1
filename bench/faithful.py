"""Whether what is stored, and measured, is what was trained: one batch is compared.

    faithful(cell, network, stored, device)      Unfaithful names the term, and how far

Finds layers that are called past their wrapper, tensors and values that a network needs and that
are not in its weights file, and whatever else makes the two differ. Random numbers are seeded
inside and are afterwards what they were.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from bench.conditioners import Network
from bench.method import Cell
from bench.space import Setting, format_setting
from bench.task import Task

CPU = torch.device("cpu")
NEAR = 1e-3  # relative difference that rounding may make, in a term of a few examples
TRIES = 3  # batches that must all differ: a number may lie just where a quantiser rounds
EXAMPLES = 8  # at most, in a batch that is compared

Terms = dict[str, Tensor]


class Unfaithful(RuntimeError):
    """A stored network answers otherwise than the one that was trained."""


@contextlib.contextmanager
def same_noise(device: torch.device = CPU, seed: int = 0) -> Iterator[None]:
    """Random numbers that are the same every time, and afterwards as if none had been drawn.

    Also without the kernels of attention that read layers' weights instead of calling them.
    """
    states = random.getstate(), numpy.random.get_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            random.seed(seed)
            numpy.random.seed(seed)
            torch.backends.mha.set_fastpath_enabled(False)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(states[0])
        numpy.random.set_state(states[1])


@torch.no_grad()
def faithful(
    cell: Cell, network: Network, stored: Callable[[], Network], device: torch.device
) -> None:
    """Raise Unfaithful where a trained network and the one that `stored` reads back from its file,
    folded as it is for measuring, have different losses for the same batch, noise and coefficients.

    What is compared is the cell's own network at a setting it was trained for, in evaluation mode,
    on a batch of training examples. `network` keeps its state.
    """
    setting = cell.trained_for[0] if cell.trained_for else cell.task.space.grid(2)[0]
    data = cell.task.data("train").to(device)
    count = min(cell.task.training.batch, EXAMPLES)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with same_noise(device):
        try:
            folded = stored().to(device).eval().at(setting)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            far = f"a new one cannot take its weights ({error})"
        else:
            far = differing(cell.task, network, folded, setting, data, count, device)
    network.load_state_dict(state)
    if far:
        raise Unfaithful(
            f"{cell.method.name} on {cell.task.name}: the network that would be measured is not "
            f"the one that was trained: {far}. Something that the network needs is not in its "
            "weights file: a tensor that is neither a parameter nor a persistent buffer, a value "
            "kept in Python, or a layer that is called past its wrapper; register it, as with "
            "register_buffer, then run again"
        )


def differing(
    task: Task,
    network: Network,
    folded: nn.Module,
    setting: Setting,
    data: Any,
    count: int,
    device: torch.device,
) -> str:
    """How far the losses of a plain model are from those of the network it was folded from, as the
    end of a sentence; "" where rounding explains it. Both see the same examples and noise.

    Several batches must differ: a value may lie where a quantiser rounds either way. What the
    network's own losses do without being changed, for noise that no seed governs, counts as none.
    """
    coefficients = torch.tensor([setting], device=device).repeat(count, 1)

    def losses(model: nn.Module, seed: int) -> Terms:
        batch = data.batch(count, torch.Generator().manual_seed(seed))
        with same_noise(device, seed):
            terms = task.losses(model, batch)
        return {name: term.detach().double().cpu() for name, term in terms.items()}

    def as_trained(seed: int) -> Terms:
        network.condition(coefficients)
        terms = losses(network.model, seed)
        network.release()
        return terms

    network.eval()
    folded.eval()
    worst = ""
    for seed in range(TRIES):
        trained, measured = as_trained(seed), losses(folded, seed)
        worst = _worst(trained, measured)
        if worst:
            worst = _worst(trained, measured, as_trained(seed))
        if not worst:
            return ""
    return f"on one batch at {format_setting(task.space.names, setting)}, {worst}"


def _worst(trained: Terms, measured: Terms, again: Terms | None = None) -> str:
    """The term that differs most, with how far; "" where none does by more than rounding, and more
    than three times as far as `again` does, which is `trained` once more."""
    differences = []
    for name, before in trained.items():
        both = torch.stack([before, measured[name]])
        if torch.equal(both.isfinite()[0], both.isfinite()[1]):
            both = both.nan_to_num(0.0, 0.0, 0.0)
        size = both.square().mean().sqrt()
        far = (both[1] - both[0]).abs().max()
        spread = 3 * (again[name] - before).abs().max() if again else 0.0
        if not far <= NEAR * size + 1e-5 + spread:
            one, two = before.mean().item(), measured[name].mean().item()
            share = f" ({100 * (two - one) / abs(one):+.3g} %)" if one else ""
            text = f"the term {name!r} is {one:.6g} as trained and {two:.6g} as measured{share}"
            differences.append(((far / size).item(), text))
    return max(differences)[1] if differences else ""
