"""Many models at once: is the best of them better than a baseline, given how many were tried, and which ones cannot be
told from the best. Hansen's test and the model confidence set are ``arch``'s; this prepares what they are given."""

import warnings
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from tbptt.evaluation.chance import MOST_POINTS, REPS, Array, Evidence, thinned

CELLS = 200_000  # models × points: of more models fewer points are kept, 300 at least
FEWEST_POINTS = 300
DRAWS = 500_000  # models × resamplings, 250 at least: the confidence set costs models² × resamplings
FEWEST_DRAWS = 250
MOST_IN_PAIRS = 100  # models of which each two are compared


def superior(losses: ArrayLike, baseline: ArrayLike, block: float | None, seed: int = 0) -> float | None:
    """The p-value of "none of the models has a lower mean loss than the baseline" (Hansen's test of superior predictive
    ability, its consistent p-value). It allows for the number of models that were tried.

    ``losses``: (n, T), one row a model; ``baseline``: (T,); the same steps, in order. ``block``: steps that hang
    together, or ``None`` where each of the T is an independent series (see :class:`~tbptt.evaluation.chance.Evidence`).
    A model with a loss that is not finite is left out. 0.0 stands for less than one resampling in a thousand; 1.0 where
    no model is better than the baseline on the mean. ``None``: too short to tell, or the baseline is not finite.

    With few blocks it says "better" too often, the more the less the models have in common. Of 20 models that are AR(1)
    noise, ρ = 0.9, in 30 blocks of 20 steps, p was under 0.05 in 18 of 60 cases; in 10 of 60 where most of the noise
    was the baseline's.
    """
    rows, base = np.asarray(losses, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if not Evidence(base.size, block).enough or not np.isfinite(base).all():
        return None
    gains = np.unique(base - rows[_usable(rows)], axis=0)  # equal models count as one
    if not gains.size or gains.mean(axis=1).max() <= 0:  # arch would say 0 for a model equal to the baseline
        return 1.0
    from arch.bootstrap import SPA

    points, length, reps = _prepared(gains, block)
    points = _tamed(points)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        test = SPA(np.zeros(points.shape[1]), -points.T, block_size=cast(int, length), reps=reps, seed=seed)
        test.compute()
    return float(test.pvalues["consistent"])


def confidence_set(losses: ArrayLike, block: float | None, size: float = 0.05, seed: int = 0) -> set[int] | None:
    """The rows of ``losses`` (n, T) that cannot be told from the best one: the model confidence set of Hansen, Lunde
    and Nason, which holds the best with probability 1 - ``size``.

    ``block`` as in :func:`superior`. Equal models are in it together or not at all; a model with a loss that is not
    finite is not. ``None``: too short to tell.
    """
    rows = np.asarray(losses, dtype=np.float64)
    if not Evidence(rows.shape[1], block).enough:
        return None
    usable = np.flatnonzero(_usable(rows))
    if not usable.size:
        return set()
    different, which = np.unique(rows[usable], axis=0, return_inverse=True)
    if len(different) == 1:
        return set(usable.tolist())
    from arch.bootstrap import MCS

    points, length, reps = _prepared(different, block)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # Of 20 models of which one was better by 11 standard errors, "R" left that one, and "max" 19. "R" costs the
        # square of the models: of 100 models and 2,000 points 1.9 s, where "max" takes 0.4 s.
        method: Literal["R", "max"] = "R" if len(different) <= MOST_IN_PAIRS else "max"
        test = MCS(_shaken(points, seed).T, size, reps=reps, block_size=cast(int, length), method=method, seed=seed)
        test.compute()
    kept = np.isin(which.ravel(), np.array(test.included))
    return set(usable[kept].tolist())


def _usable(rows: Array) -> np.ndarray:
    """(n,) bool: rows that one can compute with: finite, their squares too."""
    with np.errstate(all="ignore"):
        return np.isfinite((rows**2).sum(axis=1))


def _prepared(rows: Array, block: float | None) -> tuple[Array, float, int]:
    """Rows of fewer points, the block length in them, and the number of resamplings: bounded in time and memory.

    The length need not be whole: arch begins a new block with a probability of one over it.
    Series that are independent are resampled one by one, which is what blocks of one are.
    """
    n = len(rows)
    reps = min(REPS, max(FEWEST_DRAWS, DRAWS // n))
    if block is None:
        return rows, 1.0, reps
    points, group = thinned(rows, min(MOST_POINTS, max(FEWEST_POINTS, CELLS // n)))
    return points, max(1.0, block / group), reps


def _tamed(points: Array) -> Array:
    """Rows, those that vary more than the median row brought down to it.

    arch takes the largest mean as it is, so the draws of one wild model would hide a better one. Hansen divides each by
    its standard error; but 30 blocks give it too badly, and noise was then called better nearly twice as often.
    """
    spread = points.std(axis=1, keepdims=True)
    usual = np.median(spread)
    return points * (usual / np.maximum(spread, usual)) if usual > 0 else points


def _shaken(points: Array, seed: int) -> Array:
    """Rows with noise of a ten billionth of their size.

    arch's elimination divides by the spread of differences. Where losses differ by a constant, or one is the mean of
    the others, this is 0 / 0, and it would never end.
    """
    noise = np.random.default_rng(seed).standard_normal(points.shape)
    return points + 1e-10 * np.abs(points).max(axis=1, keepdims=True) * noise
