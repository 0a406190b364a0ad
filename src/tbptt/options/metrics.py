"""The table of all metrics of a run. Each metric is logged; it may be an objective, and it may be drawn in reports.

To add a metric of your own, write a function with the decorator :func:`metric` in a file in ``own/``.
"""

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import ListConfig

from tbptt.options.own import TABLES
from tbptt.options.takes import Takes

if TYPE_CHECKING:
    from torch import Tensor

# Takes predictions (B, K, O), targets (B, K, O) and mask (B, K), which is None if nothing is padded. Returns the sum
# over the valid steps, and the number to divide it by.
Measure = Callable[["Tensor", "Tensor", "Tensor | None"], "tuple[Tensor, Tensor | float]"]
MeasureAtOnce = Callable[["Tensor", Any], "tuple[Tensor, Tensor | float]"]  # (B, T, O) and data.sequences.Sequences
F = TypeVar("F", bound=Callable[..., Any])
DIRECTIONS = ("minimize", "maximize")
# The names of metrics that MLflow accepts (its validation.py). It would refuse all curves of a run with another name.
_STORED = re.compile(r"[/\w.\- :]{1,250}")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is logged, ``val/NAME`` for one of the held-out series.
        direction: ``minimize`` or ``maximize``; None if the metric cannot be an objective.
        label: its name in figures and tables.
        drawn: whether a study's report draws its curve.
        measure: computes it from held-out predictions, chunk by chunk; None for metrics that training records itself.
        in_prices: whether ``measure`` gets predictions and targets in price units. If not, it gets them standardised,
            as the network outputs them.
        task: the task that has this metric; None for all tasks.
        at_once: computes it from all held-out predictions (B, T, O) and their sequences, for what depends on the steps
            before, such as a decision; returns a sum and the number to divide it by. None if ``measure`` or training
            gives it.
    """

    name: str
    direction: str | None
    label: str
    drawn: bool = False
    measure: Measure | None = None
    in_prices: bool = False
    task: str | None = None
    at_once: "MeasureAtOnce | None" = None


# Metrics that the code refers to by name: the three losses, and the number of chunks into which a series was cut.
VAL_LOSS = "val/loss"  # held-out series, weights frozen
TRAIN_LOSS = "train/loss"  # while the weights move
TRAIN_EVAL_LOSS = "train/eval_loss"  # training series, weights frozen
CHUNKS = "schedule/chunks"
LOSSES = (VAL_LOSS, TRAIN_LOSS, TRAIN_EVAL_LOSS)

METRICS: dict[str, Metric] = {
    each.name: each
    for each in (
        Metric(VAL_LOSS, "minimize", "held-out, weights frozen", drawn=True),
        Metric(TRAIN_LOSS, "minimize", "training, online", drawn=True),
        Metric(TRAIN_EVAL_LOSS, "minimize", "training, weights frozen", drawn=True),
        Metric("train/chunk_loss_max", "minimize", "largest loss of a chunk"),
        Metric("grad/norm_max", "minimize", "largest norm of a gradient"),
        Metric("grad/norm_mean", "minimize", "mean norm of a gradient"),
        Metric("grad/clipped_fraction", "minimize", "share of gradients that were clipped"),
        Metric(CHUNKS, None, "chunks a sequence"),
        Metric("lr", None, "learning rate"),
        Metric("time/epoch_seconds", "minimize", "seconds an epoch"),
        Metric("time/train_seconds", "minimize", "seconds of training"),
        Metric("time/timesteps_per_second", "maximize", "steps trained a second"),
    )
}
TABLES.append(METRICS)


def metric(
    name: str,
    *,
    direction: str,
    label: str,
    drawn: bool = True,
    in_prices: bool = False,
    task: str | None = None,
    at_once: bool = False,
) -> Callable[[F], F]:
    """Add a function to the table of metrics; see :class:`Metric` for the arguments.

    The function gets one chunk of held-out steps: predictions and targets, (B, K, O) each, and a mask, (B, K) of 0 and
    1, or None. It returns the sum over the valid steps, and the number to divide it by. Both are added up over the
    chunks. With ``at_once`` it gets all predictions, (B, T, O) standardised, and their sequences instead.

    Raises:
        ValueError: the name is taken, is not of the form ``val/NAME``, or is refused by MLflow; or the direction is
            neither ``minimize`` nor ``maximize``.
    """
    if name in METRICS:
        raise ValueError(f"metric {name} is there already")
    if not name.startswith("val/") or not name.removeprefix("val/"):
        raise ValueError(f"metric {name!r}: takes a name like val/NAME, as it is measured on held-out series")
    if not _STORED.fullmatch(name) or posixpath.normpath(name) != name:
        takes = (
            "letters, digits, _ - . : / and spaces, at most 250 in all, and between slashes neither nothing, . nor .."
        )
        raise ValueError(f"metric {name[:300]!r}: MLflow takes no such name; takes {takes}")
    if direction not in DIRECTIONS:
        raise ValueError(f"metric {name}: direction: got {direction!r}; takes one of {', '.join(DIRECTIONS)}")

    def put(function: F) -> F:
        takes = {"at_once": function} if at_once else {"measure": function}
        METRICS[name] = Metric(name, direction, label, drawn, in_prices=in_prices, task=task, **takes)
        return function

    return put


def measured(task: str) -> list[Metric]:
    """The metrics of a task that are computed from held-out predictions."""
    return [each for each in METRICS.values() if (each.measure or each.at_once) and each.task in (None, task)]


def kept_curves(task: str) -> list[str]:
    """The metrics whose curves a study keeps with each trial for its report: those that are drawn, and the chunks."""
    return [*(m.name for m in METRICS.values() if m.drawn and m.task in (None, task)), CHUNKS]


def objectives_of(task: str | None = None) -> list[str]:
    """The names of metrics that can be objectives; with ``task``, only those that this task has."""
    return [m.name for m in METRICS.values() if m.direction and (task is None or m.task in (None, task))]


def _is_objective(value: object) -> bool:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple | ListConfig) or not names or not all(isinstance(n, str) for n in names):
        return False
    return set(names) <= set(objectives_of()) and len(set(names)) == len(names)


OBJECTIVE = Takes(lambda: f"a metric, one of {', '.join(objectives_of())}, or a list of them", _is_objective)


def direction(objective: str) -> str:
    """The direction of an objective: ``minimize`` or ``maximize``."""
    found = METRICS[objective].direction
    assert found is not None, f"{objective} is no objective"
    return found


def sign(objective: str) -> int:
    """1 if smaller values of an objective are better, else -1. Multiplied by it, smaller values are always better."""
    return 1 if direction(objective) == "minimize" else -1


def as_objectives(objective: str | Iterable[str]) -> list[str]:
    """The objectives of a config as a list. If there are several, the first is the leading one."""
    return [objective] if isinstance(objective, str) else list(objective)
