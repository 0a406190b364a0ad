"""Checks of a user's own task or metric on a few numbers, before a run begins with it."""

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tbptt.options.metrics import Metric
from tbptt.options.own import said_of
from tbptt.tasks.options import Array, TaskConfig

SERIES, STEPS = 2, 12
TAKEN = ("mean", "zero", "ridge", "clock", "loss", "block", "profit", "long", "short", "flat")  # names in results


def targets_of(task: TaskConfig, prices: Array, change_std: Array, length: int) -> Array:
    """A task's targets, (B, length, O) float64.

    Args:
        prices, change_std: as :meth:`TaskConfig.targets` takes them.
        length: steps that need targets.

    Raises:
        ValueError: the task raises an error, or returns something else; the message is a line that names the task.
    """
    with said_of(type(task), f"task={task.name}: targets"):
        given = np.asarray(task.targets(prices, change_std), dtype=np.float64)
    if given.ndim != 3 or len(given) != len(prices) or given.shape[1] < length or given.shape[2] != task.outputs:
        takes = f"({len(prices)}, {length} or more, {task.outputs}), as it looks {task.ahead} prices ahead"
        raise ValueError(f"task={task.name}: targets gives {given.shape} for prices {prices.shape}; takes {takes}")
    given = np.ascontiguousarray(given[:, :length])
    if not np.isfinite(given).all():
        raise ValueError(f"task={task.name}: targets gives something that is not finite")
    return given


def mixing_of(task: TaskConfig) -> Array | None:
    """A task's mixing, (O, O) float64; None if its outputs are its targets.

    Raises:
        ValueError: the task raises an error, or returns something else; the message is a line that names the task.
    """
    with said_of(type(task), f"task={task.name}: mixing"):
        given = task.mixing()
        mixing = None if given is None else np.array(given, dtype=np.float64)
    if mixing is None:
        return None
    if mixing.shape != (task.outputs, task.outputs):
        raise ValueError(f"task={task.name}: mixing gives {mixing.shape}; takes {(task.outputs, task.outputs)}")
    if not np.isfinite(mixing).all() or np.linalg.matrix_rank(mixing) < task.outputs:
        raise ValueError(f"task={task.name}: mixing has no inverse, so the targets cannot be told from the outputs")
    return mixing


def try_task(task: TaskConfig) -> None:
    """Raises ValueError with a line if a task's outputs, mixing, targets, loss or baseline cannot be used."""
    with said_of(type(task), f"task={task.name}"):
        outputs, ahead = task.outputs, task.ahead
    for name, value, least in (("outputs", outputs, 1), ("ahead", ahead, 0)):
        if type(value) is not int or value < least:
            raise ValueError(f"task={task.name}: {name} is {value!r}; takes a whole number from {least}")
    if task.decides and outputs != 2:
        raise ValueError(f"task={task.name}: decides with {outputs} outputs; takes 2, of being long and being short")
    mixing_of(task)
    prices = 100 + np.random.default_rng(0).standard_normal((SERIES, STEPS + ahead)).cumsum(1)
    target = torch.from_numpy(targets_of(task, prices, np.ones(SERIES), STEPS)).float()
    for mask in (None, torch.ones(SERIES, STEPS)):
        y = torch.zeros(SERIES, STEPS, outputs, requires_grad=True)
        with said_of(type(task), f"task={task.name}: loss"):
            loss = task.loss_sum(y, target, mask)
        if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.requires_grad:
            got = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise ValueError(
                f"task={task.name}: loss gives {got}; takes the sum over valid steps, a scalar with a gradient"
            )
        with said_of(type(task), f"task={task.name}: baseline"):
            baseline = task.baseline(target, mask)
        if not isinstance(baseline, Tensor) or tuple(baseline.shape) != (outputs,):
            raise ValueError(f"task={task.name}: baseline gives {baseline!r}; takes a tensor of ({outputs},)")


def try_metric(metric: Metric, outputs: int) -> None:
    """Raises ValueError with a line if a metric does not return a sum and its divisor."""
    y, target = torch.randn(2, SERIES, STEPS, outputs, generator=torch.Generator().manual_seed(0)).unbind()
    for mask in (None, torch.ones(SERIES, STEPS)):
        measured(metric, y, target, mask)


def own_baselines(task: TaskConfig, x: Tensor) -> dict[str, Tensor]:
    """What :meth:`TaskConfig.baselines` gives of inputs (B, K, F). Raises ValueError with a line naming the task."""
    with said_of(type(task), f"task={task.name}: baselines"):
        given = dict(task.baselines(x))
    for name, y in given.items():
        if not isinstance(name, str) or name in TAKEN or not re.fullmatch(r"[\w.\-]{1,60}", name):
            raise ValueError(
                f"task={task.name}: baselines: got the name {name!r}; takes another one, of letters and digits"
            )
        takes = (*x.shape[:2], task.outputs)
        if not isinstance(y, Tensor) or tuple(y.shape) != takes:
            got = tuple(y.shape) if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise ValueError(f"task={task.name}: baselines gives {got} for {name}; takes a tensor of {takes}")
    return given


def measured(metric: Metric, *of: Any) -> tuple[Tensor, Tensor | float]:
    """The result of a metric, a sum and a count.

    ``of`` is one chunk (predictions, targets, mask) or the whole part (predictions, sequences). Raises ValueError with
    a line that names the metric.
    """
    function = metric.measure or metric.at_once
    assert function is not None
    with said_of(function, f"metric {metric.name}"):
        given = function(*of)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"metric {metric.name}: gives a {type(given).__name__}; takes a sum and what to divide it by")
    for what, value in zip(("sum", "count"), given, strict=True):
        if not isinstance(value, int | float) and not (isinstance(value, Tensor) and value.dim() == 0):
            raise ValueError(f"metric {metric.name}: its {what} is {value!r}; takes a number, or a tensor of one")
    return given[0], given[1]
