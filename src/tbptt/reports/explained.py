"""How much of the differences between a study's trials each key explains, how certain that is, and what chance gives.

Optuna's importances always add up to one. So if no key matters, some key still gets most of the importance. A share
here is a part of all differences, less what chance explains on average, so all shares may be zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from tbptt.reports.thinning import MOST_JUDGED, at_random
from tbptt.studies.ranking import by_seed, cost, is_complete
from tbptt.studies.records import is_number

FEWEST = 10  # with fewer trials, no shares are given
BINS = 4  # groups of a key with many numbers, with equally many trials each
BLOCKS = 100  # at most so many parts are left out in turn; with fewer trials, each part is one trial
SHUFFLES = 400
SEED = "seed"
TINY = 1e-12  # replaces a variance of zero

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Explained:
    """A key's share of the variance of the runs' ranks.

    Attributes:
        key: a parameter's name, or ``seed`` for the differences between runs of the same point.
        trials: the number of trials that have the key.
        low, high: the share's 95 % interval (jackknife: without one trial, or one block of 100, at a time).
        chance: the value below which the share of a key without effect stays in 19 of 20 studies; None for ``seed``.
    """

    key: str
    trials: int
    share: float
    low: float
    high: float
    chance: float | None

    @property
    def said(self) -> str:
        """The numbers in words."""
        return f"{self.share:.2f} ({self.low:.2f} to {self.high:.2f})"


def explained(trials: Sequence[FrozenTrial], i: int, objective: str) -> list[Explained]:
    """The share of each key on its own, among the trials that have it (epsilon squared, a one-way analysis of variance
    of ranks).

    A trial that was pruned or diverged ranks below every complete one, and the lower the sooner it stopped. If the
    sampler has learnt to vary a key along with another, the key gets the other's share too.

    Args:
        trials: of a study. Those complete, pruned or diverged count; of very many, a random sample.
        i, objective: the index of the objective, and its name.

    Returns:
        The largest share first, ``seed`` last if points have several seeds. Empty below ``FEWEST`` trials.
    """
    chosen, _ = judged(trials)
    if len(chosen) < FEWEST:
        return []
    scores, noises, runs = _ranks([_places(t, i, objective) for t in chosen])
    found = []
    for key in dict.fromkeys(name for t in chosen for name in t.params):
        at = np.array([n for n, t in enumerate(chosen) if key in t.params])
        groups = grouped([chosen[n].params[key] for n in at])
        if len(at) < FEWEST or not 1 < groups.shape[1] <= len(at) // 2:
            continue
        of, noise = scores[at, None], _between(noises[at], runs[at])
        shuffled = np.random.default_rng(0).permuted(np.repeat(of, SHUFFLES, axis=1), axis=0)
        chance = float(np.quantile(_shares(shuffled, groups, noise), 0.95))
        found.append(_with_interval(key, len(at), partial(_share_of_some, of, groups, noise), chance))
    found.sort(key=lambda e: -e.share)
    if (runs > 1).sum() > 1:
        found.append(_with_interval(SEED, len(chosen), partial(_share_of_seeds, scores, noises, runs), None))
    return found


def judged(trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The trials from which shares are computed, and the trials from which those were sampled."""
    every = [t for t in trials if is_complete(t) or t.state == TrialState.PRUNED]
    return at_random(every, MOST_JUDGED), every


def _places(trial: FrozenTrial, i: int, objective: str) -> list[tuple[float, ...]]:
    """The sort key of each run of a trial, the best first. The order is that of Optuna's samplers: stopped trials come
    after the complete ones, those that stopped later first, then by their last value."""
    if trial.state != TrialState.COMPLETE:
        steps = trial.intermediate_values
        return [(1.0, -max(steps), cost(steps[max(steps)], objective))] if steps else [(2.0,)]
    return [(0.0, cost(value, objective)) for value in by_seed(trial, i)]


def _ranks(places: Sequence[Sequence[tuple[float, ...]]]) -> tuple[Array, Array, Array]:
    """For each trial: the mean rank of its runs, from 0 to 1, where equal runs share a rank; the variance of these
    ranks; the number of runs."""
    import pandas as pd  # not scipy.stats: its import takes most of a second, at the end of every sweep

    runs = [place for of_trial in places for place in of_trial]
    order = {place: i for i, place in enumerate(sorted(set(runs)))}
    ranks = pd.Series([order[place] for place in runs]).rank(pct=True).to_numpy()
    parts = np.split(ranks, np.cumsum([len(of_trial) for of_trial in places])[:-1])
    return (
        np.array([part.mean() for part in parts]),
        np.array([part.var(ddof=1) if len(part) > 1 else 0.0 for part in parts]),
        np.array([float(len(part)) for part in parts]),
    )


def _between(noises: Array, runs: Array) -> float:
    """How much more a single run varies than a mean of several runs."""
    return float(np.mean(noises * (1 - 1 / runs)))


def grouped(values: Sequence[object]) -> Array:
    """(trials, groups) 1 where a trial is in a group. Each value is a group; if the values are many numbers, each group
    is a quarter of the trials."""
    if all(map(is_number, values)) and len(set(values)) > BINS:
        of = np.array(values, dtype=float)
        labels = np.searchsorted(np.quantile(of, np.arange(1, BINS) / BINS), of).astype(str)
    else:
        labels = np.array([repr(v) for v in values])
    return (labels[:, None] == np.unique(labels)).astype(float)


def _shares(scores: Array, groups: Array, noise: float) -> Array:
    """The share that the groups explain, beyond chance. It is a share of the variance of the scores and of what seeds
    add to it.

    Args:
        scores: (trials, columns), each column on its own.

    Returns:
        (columns,)
    """
    groups = groups[:, groups.any(axis=0)]
    counts = groups.sum(axis=0)[:, None]
    mean = scores.mean(axis=0)
    total = ((scores - mean) ** 2).sum(axis=0)
    between = (counts * ((groups.T @ scores) / counts - mean) ** 2).sum(axis=0)
    by_chance = (len(counts) - 1) * (total - between) / max(len(scores) - len(counts), 1)
    share: Array = (between - by_chance) / np.maximum(total + (len(scores) - 1) * noise, TINY)
    return share


def _share_of_some(scores: Array, groups: Array, noise: float, some: NDArray[np.intp]) -> float:
    return float(_shares(scores[some], groups[some], noise)[0])


def _share_of_seeds(scores: Array, noises: Array, runs: Array, some: NDArray[np.intp]) -> float:
    scores, noises, runs = scores[some], noises[some], runs[some]
    within = float(noises[runs > 1].mean()) if (runs > 1).any() else 0.0
    return within / max(float(np.var(scores, ddof=1)) + _between(noises, runs), TINY)


def _with_interval(
    key: str, trials: int, share_of: Callable[[NDArray[np.intp]], float], chance: float | None
) -> Explained:
    """A share and its interval. ``share_of`` computes the share of some of the trials."""
    everyone = np.arange(trials)
    blocks = np.array_split(everyone, min(trials, BLOCKS))
    without = np.array([share_of(np.delete(everyone, block)) for block in blocks])
    error = float(np.sqrt((len(blocks) - 1) * np.mean((without - without.mean()) ** 2)))
    share = share_of(everyone)
    low, high = (min(max(share + side * 1.96 * error, 0.0), 1.0) for side in (-1, 1))
    return Explained(key, trials, max(share, 0.0), low, high, chance)
