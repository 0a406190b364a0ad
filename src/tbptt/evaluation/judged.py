"""The evaluation of a trained network: measured on val, the part that chose it, and judged on test, against chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.evaluation import chance
from tbptt.evaluation.baselines import MEAN, baselines_of
from tbptt.evaluation.chance import Evidence, Verdict, against_chance, block_length, thinned
from tbptt.evaluation.losses import measure_and_predict
from tbptt.evaluation.results import Judged, PartResult
from tbptt.evaluation.steps import Aligned, aligned, step_losses
from tbptt.models.protocol import Network
from tbptt.options.metrics import measured
from tbptt.tasks.decisions import decisions
from tbptt.tasks.prepare import Prepared

Array = NDArray[np.float64]
SIDES: dict[str, Callable[[Tensor], Tensor]] = {  # the profit of a step without any prediction
    "long": lambda change: change,
    "short": lambda change: -change,
    "flat": torch.zeros_like,
}
PROFIT = "profit"
MOST_POINTS = 2000  # of what is kept a step


@dataclass(frozen=True)
class _Part:
    """A part's result, its values for each step, and the predictions of the last network.

    The values are ``loss``, the loss of each baseline, ``profit`` and the profit of each side.
    """

    result: PartResult
    steps: Aligned
    predictions: Tensor
    sequences: Sequences


def judge(networks: Sequence[Network], prepared: Prepared, with_test: bool) -> tuple[Judged, dict[str, Array]]:
    """Measure a network on val and, if ``with_test`` is set, judge it on test.

    Several networks, trained with different seeds, are judged by their average.

    Returns:
        The result, and the values of each step that reports need, by ``PART/NAME``: see :func:`_kept` and
        :func:`_drawn`.
    """
    val = _of_part(networks, prepared, prepared.val)
    best = min(val.result.baselines, key=lambda name: val.result.baselines[name])
    side = max(val.result.sides, key=lambda name: val.result.sides[name]) if val.result.sides else None
    found, kept = Judged(best, side, val.result, networks=len(networks)), _kept("val", val, prepared)
    sequences = prepared.test() if with_test else None
    if sequences is None:
        return found, kept
    test = _of_part(networks, prepared, sequences)
    skill = {name: _skill(prepared, test.steps, name) for name in dict.fromkeys((MEAN, best))}
    decision = None if side is None else _decision(prepared, test.steps, side)
    kept |= _kept("test", test, prepared) | _drawn(test, side)
    return replace(found, test=test.result, skill=skill, decision=decision), kept


@torch.no_grad()
def _of_part(networks: Sequence[Network], prepared: Prepared, part: Sequences) -> _Part:
    task = prepared.task
    part = part.to(next(networks[0].parameters()).device)
    values = {"loss": torch.zeros_like(part.targets[..., 0], dtype=torch.float64)}
    for name, prediction in baselines_of(prepared).predict(part).items():
        values[name] = step_losses(task, prediction, part.targets)
    baselines, sides = list(values)[1:], list(SIDES) if task.decides else []
    scale = part.change_std[:, None] if part.change_std is not None else torch.ones(1)
    if sides:
        assert part.changes is not None
        values |= {PROFIT: torch.zeros_like(part.changes)}
        values |= {name: of(part.changes) / scale for name, of in SIDES.items()}
    metrics: dict[str, float] = {}
    for network in networks:
        means, y = measure_and_predict(network, part, measured(task.name))
        values["loss"] += step_losses(task, y, part.targets) / len(networks)
        if sides:
            values[PROFIT] += decisions(y, part).profit / scale / len(networks)
        for metric, value in means.items():
            name = metric.removeprefix("val/")
            metrics[name] = metrics.get(name, 0.0) + float(value) / len(networks)
    for side in sides:  # the mean of equal profits must be equal to it: a rounding error would look like a difference
        same = torch.isclose(values[PROFIT], values[side], rtol=1e-12, atol=0)
        values[PROFIT] = torch.where(same, values[side], values[PROFIT])
    steps = aligned(part, **values)
    return _Part(_result(prepared, steps, metrics, baselines, sides), steps, y, part)


def _result(
    prepared: Prepared, steps: Aligned, metrics: dict[str, float], baselines: Sequence[str], sides: Sequence[str]
) -> PartResult:
    series, length = steps.present.shape
    total = float(steps.present.sum())
    block = _block(prepared, steps, MEAN, "loss")
    evidence = Evidence(series, None) if prepared.data.independent_series else Evidence(length, block)
    return PartResult(
        series=series,
        steps=length,
        block=block,
        observations=evidence.observations,
        metrics=metrics,
        baselines={name: float(steps.values[name].sum()) / total for name in baselines},
        sides={name: float(steps.values[name].sum()) / total for name in sides},
    )


def _skill(prepared: Prepared, steps: Aligned, baseline: str) -> Verdict:
    if prepared.data.independent_series:
        return chance.skill(steps.by_series("loss"), steps.by_series(baseline), None)
    block = _block(prepared, steps, baseline, "loss")
    return chance.skill(steps.sums("loss"), steps.sums(baseline), block)


def _decision(prepared: Prepared, steps: Aligned, side: str) -> Verdict:
    if prepared.data.independent_series:
        excess = steps.by_series(PROFIT) - steps.by_series(side)
        return against_chance(excess, steps.present.sum(axis=1), None)
    block = _block(prepared, steps, PROFIT, side)
    return against_chance(steps.sums(PROFIT) - steps.sums(side), steps.counts(), block)


def _block(prepared: Prepared, steps: Aligned, one: str, other: str) -> float:
    """About how many steps the difference of two values stays correlated.

    This is twice the overlap of the targets, the number of steps with targets from the same prices. It is more if the
    differences themselves are correlated for longer.
    """
    return block_length(steps.means(one) - steps.means(other), 2 * prepared.task.overlap)


def _kept(name: str, part: _Part, prepared: Prepared) -> dict[str, Array]:
    """The values of a part for a report: ``NAME/loss`` and each baseline's, ``NAME/profit`` and each side's.

    Each is (P,): the mean over the series present at a step, summed over groups of steps so that P is at most 2,000.
    For independent series it is (B,), the mean of each series. ``NAME/block`` is the block length in points, or 0 if
    each point is a series.
    """
    names = list(part.steps.values)
    if prepared.data.independent_series:
        counts = part.steps.present.sum(axis=1)
        rows, block = np.stack([part.steps.by_series(what) / counts for what in names]), 0.0
    else:
        rows, group = thinned(np.stack([part.steps.means(what) for what in names]), MOST_POINTS)
        block = max(1.0, part.result.block / group)
    return {**{f"{name}/{what}": row for what, row in zip(names, rows, strict=True)}, f"{name}/block": np.array(block)}


def _drawn(part: _Part, side: str | None) -> dict[str, Array]:
    """The data of the report's figures about test.

    For the first series that is scored: predictions and truth in price units, only the end of the part if it is long.
    As the mean over the series: the profit so far, and that of each side.
    """
    scaler, sequences = part.sequences.scaler, part.sequences
    assert scaler is not None
    warm = sequences.warm or [0] * sequences.batch
    row = next(i for i, steps in enumerate(sequences.steps) if steps > warm[i])
    last = sequences.steps[row]
    first = max(warm[row], last - MOST_POINTS)
    found = {
        "drawn/predicted": scaler.to_price_units(part.predictions)[row, first:last].cpu().numpy().astype(np.float64),
        "drawn/true": scaler.targets_in_prices(sequences.targets)[row, first:last].cpu().numpy().astype(np.float64),
    }
    if side is not None:
        at = np.unique(np.linspace(0, part.steps.present.shape[1] - 1, MOST_POINTS).astype(int))
        found["drawn/step"] = at.astype(np.float64)
        for name in (PROFIT, *SIDES):
            found[f"drawn/{name}"] = np.cumsum(part.steps.means(name))[at]
    return found
