"""What is measured of a run, in one table: each metric is logged, may be an objective, and where it says so is drawn.

A metric of your own is a function in a file in ``own/`` with :func:`metric` above it; it is in the table then.
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

# Predictions, targets (B, K, O) and mask (B, K), or None where nothing is padded -> the sum over valid steps, and what
# it is to be divided by.
Measure = Callable[["Tensor", "Tensor", "Tensor | None"], "tuple[Tensor, Tensor | float]"]
MeasureAtOnce = Callable[["Tensor", Any], "tuple[Tensor, Tensor | float]"]  # (B, T, O) and data.sequences.Sequences
F = TypeVar("F", bound=Callable[..., Any])
DIRECTIONS = ("minimize", "maximize")
# What MLflow takes as the name of a metric (its validation.py), which else would refuse a run's curves for ever.
_STORED = re.compile(r"[/\w.\- :]{1,250}")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is logged, ``val/NAME`` for one of the held-out series.
        direction: which way is better, ``minimize`` or ``maximize``; None for what is no objective.
        label: what a figure or table calls it.
        drawn: whether a study's report has its curve.
        measure: of held-out predictions, chunk by chunk; None for what training gives itself.
        in_prices: whether ``measure`` takes predictions and targets in price units; else standardised, as the network
            has them.
        task: the task that has it; None for all.
        at_once: of all held-out predictions (B, T, O) and their sequences, for what no chunk knows by itself, as a
            decision that depends on the one before it; a sum, and what it is divided by. None for what ``measure`` or
            training gives.
    """

    name: str
    direction: str | None
    label: str
    drawn: bool = False
    measure: Measure | None = None
    in_prices: bool = False
    task: str | None = None
    at_once: "MeasureAtOnce | None" = None


# Metrics that the code asks for by name: the three losses, and how many chunks a series was cut into.
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
    """Put a function into the table of metrics; see :class:`Metric`.

    The function takes predictions and targets, (B, K, O), and a mask, (B, K) of 0 and 1 or None, of one chunk of
    held-out steps, and returns a sum over the valid ones and what to divide it by. Both are added up over the chunks.
    With ``at_once`` it takes all predictions, (B, T, O) standardised, and their sequences.

    Raises ValueError where the name is there already, is not ``val/NAME`` or none that MLflow takes, or the direction
    is none.
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
    """What is measured of held-out predictions of a task."""
    return [each for each in METRICS.values() if (each.measure or each.at_once) and each.task in (None, task)]


def kept_curves(task: str) -> list[str]:
    """Metrics whose values by epoch a study keeps with each trial, for its report: what is drawn, and the chunks."""
    return [*(m.name for m in METRICS.values() if m.drawn and m.task in (None, task)), CHUNKS]


def objectives_of(task: str | None = None) -> list[str]:
    """The names of metrics that can be made best; with ``task``, those that it has."""
    return [m.name for m in METRICS.values() if m.direction and (task is None or m.task in (None, task))]


def _is_objective(value: object) -> bool:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple | ListConfig) or not names or not all(isinstance(n, str) for n in names):
        return False
    return set(names) <= set(objectives_of()) and len(set(names)) == len(names)


OBJECTIVE = Takes(lambda: f"a metric, one of {', '.join(objectives_of())}, or a list of them", _is_objective)


def direction(objective: str) -> str:
    """``minimize`` or ``maximize``."""
    found = METRICS[objective].direction
    assert found is not None, f"{objective} is no objective"
    return found


def sign(objective: str) -> int:
    """What makes a smaller value of an objective the better one: 1 or -1."""
    return 1 if direction(objective) == "minimize" else -1


def as_objectives(objective: str | Iterable[str]) -> list[str]:
    """The objectives of a config: one or several, the first leads."""
    return [objective] if isinstance(objective, str) else list(objective)
