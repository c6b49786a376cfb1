"""Test examples measured together: as many at once as a task takes, with a number for each.

    for names, batch in alike(data.examples(), task.measured_at_once):
        values = measures(task, model, batch, setting, len(names))

On a GPU the time of a small example is that of starting its kernels, and on a CPU that of Python:
a batch of 256 takes about as long as one. The number is the task's, not the machine's: a network
library may sum in another order in a batch of another size, so that the last digits follow it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.space import Setting
from bench.task import Task

FEW = 3  # examples that are measured together and alone
# Of the largest value of a measure. Sums in another order make 1e-6 of it; examples that are
# mixed up differ by about as much as any two of them do.
ROUNDING = 1e-4


def alike(examples: Iterable[tuple[str, Any]], count: int) -> Iterator[tuple[list[str], Any]]:
    """Examples by name, each a batch of one, as batches of up to `count` in the same order: the
    names, and the batch. Only neighbours of one shape are put together, and only tensors and tuples
    of tensors; others stay alone. ValueError for a count below 1.

    >>> rows = [("a", torch.zeros(1, 2)), ("b", torch.ones(1, 2)), ("c", torch.ones(1, 3))]
    >>> [(names, tuple(batch.shape)) for names, batch in alike(rows, 2)]
    [(['a', 'b'], (2, 2)), (['c'], (1, 3))]
    """
    if count < 1:
        raise ValueError(f"measured_at_once {count}: use 1 or more")
    for _, neighbours in itertools.groupby(examples, lambda example: _shape(example[1])):
        while together := list(itertools.islice(neighbours, count)):
            yield [name for name, _ in together], _joined([batch for _, batch in together])


def _shape(batch: Any) -> Any:
    """Equal for batches of one that can be joined."""
    if isinstance(batch, Tensor) and batch.shape[:1] == (1,):
        return batch.shape, batch.dtype
    return tuple(map(_shape, batch)) if type(batch) is tuple else object()


def _joined(batches: Sequence[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], Tensor):
        return torch.cat(list(batches))
    return tuple(map(_joined, zip(*batches, strict=True)))


def measures(
    task: Task, model: nn.Module, batch: Any, setting: Setting, count: int
) -> dict[str, Tensor]:
    """`Task.measure` and `Task.measure_at` of a batch of `count` examples, by name: (count,) each.
    ValueError where one has not a number for each example."""
    values: dict[str, Tensor] = {}
    for hook, measured in (
        ("measure", task.measure(model, batch)),
        ("measure_at", task.measure_at(model, batch, setting)),
    ):
        for name, value in measured.items():
            if value.numel() != count:
                raise ValueError(
                    f"{hook}() of the task {task.name!r} returns {tuple(value.shape)} for {name!r} "
                    f"of a batch of {count}: it must be one number per example, ({count},); "
                    + ("take the mean over all dimensions but the first" if count == 1 else ALONE)
                )
            values[name] = value if value.dim() == 1 else value.reshape(count)
    return values


ALONE = "or set measured_at_once = 1 in its class, and it is given one example at a time"


def kept(values: Tensor) -> Tensor:
    """A copy: a task may fill the same tensors anew. As doubles, which hold what is an int64 of one
    example and a float of another."""
    return values.detach().to(torch.float64, copy=True)


def rows(
    batches: Sequence[tuple[Sequence[str], dict[str, Tensor]]],
) -> list[tuple[str, str, float]]:
    """(example, measure, value) of batches, in the order of the examples, from their names and the
    `kept` numbers of `measures`. Waits for the device once a measure, and not once a number."""
    names = dict.fromkeys(name for _, values in batches for name in values)
    numbers = {
        name: iter(torch.cat([values[name] for _, values in batches if name in values]).tolist())
        for name in names
    }
    return [
        (example, name, next(numbers[name]))
        for examples, values in batches
        for example in examples
        for name in values
    ]


@torch.no_grad()
def mixed_up(task: Task, model: nn.Module, examples: Iterable[tuple[str, Any]]) -> str:
    """How the measures of examples follow from what is in the batch beside them, as a sentence
    with the way out; "" where they are those of the examples alone, but for rounding. Asked of the
    first few, as far as the task takes them together."""
    setting, few = task.settings(1)[0], list(itertools.islice(examples, FEW))
    for names, batch in alike(few, task.measured_at_once):
        if len(names) == 1:
            continue
        together = measures(task, model, batch, setting, len(names))
        alone = [measures(task, model, x, setting, 1) for name, x in few if name in names]
        for name, values in together.items():
            single = torch.cat([each[name] for each in alone]).double()
            far = (values.double() - single).abs().nan_to_num(torch.inf)
            far[(single == values) | (single.isnan() & values.isnan())] = 0
            size = single.nan_to_num(0, 0, 0).abs().max()
            if far.max() > ROUNDING * size + 1e-6:
                place = int(far.argmax())
                return (
                    f"the task {task.name!r} measures {name!r} of the example {names[place]!r} as "
                    f"{single[place]:.6g} alone and as {values[place]:.6g} among {len(names)}: in "
                    "measure() and measure_at() no example's numbers may follow from another's, as "
                    f"by a mean over the batch, or from noise drawn for the batch; {ALONE}"
                )
    return ""
