"""How much of the differences between a study's trials each key explains, how sure that is, and what chance would do.

Optuna's importances are shares that add up to one whatever they rest on: where nothing matters, some key still has most
of it. A share here is of all that differs, less what chance explains on average, so that all of them may be nothing.
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

FEWEST = 10  # trials, below which nothing is said
BINS = 4  # of a key with many numbers, each with as many trials
BLOCKS = 100  # at most so many parts are left out in turn; up to here each is one trial
SHUFFLES = 400
SEED = "seed"
TINY = 1e-12  # instead of a variance of nothing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Explained:
    """A key's share of the variance of the runs' ranks.

    Attributes:
        key: a parameter's name, or ``seed``: what differs between runs of the same point.
        trials: those that have the key.
        low, high: the share's 95 % interval (jackknife: without one trial, or one block of 100, at a time).
        chance: what a key that does nothing stays below in 19 of 20 studies; None for ``seed``.
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
    """Each key on its own, among the trials that have it (epsilon squared, a one-way analysis of variance of ranks).

    A trial that was pruned or diverged is worse than any complete one, and the worse the sooner. A key that differs
    along with another, because the sampler had learnt so, gets the other's share too.

    Args:
        trials: of a study; those complete, pruned or diverged count, of very many some at random.
        i, objective: which of the objectives, and its name.

    Returns:
        The largest share first, ``seed`` last where points were trained with several; empty below ``FEWEST`` trials.
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
    """The trials from which shares are reckoned, and those that they are chosen from."""
    every = [t for t in trials if is_complete(t) or t.state == TrialState.PRUNED]
    return at_random(every, MOST_JUDGED), every


def _places(trial: FrozenTrial, i: int, objective: str) -> list[tuple[float, ...]]:
    """Of each of a trial's runs what it is sorted by, the best first. As Optuna's samplers see it, those that were
    stopped come after the complete ones, the later stopped first, then by their last value."""
    if trial.state != TrialState.COMPLETE:
        steps = trial.intermediate_values
        return [(1.0, -max(steps), cost(steps[max(steps)], objective))] if steps else [(2.0,)]
    return [(0.0, cost(value, objective)) for value in by_seed(trial, i)]


def _ranks(places: Sequence[Sequence[tuple[float, ...]]]) -> tuple[Array, Array, Array]:
    """Of each trial its runs' mean rank, from 0 to 1, equal ones sharing theirs; their variance; how many they are."""
    import pandas as pd  # not scipy.stats: that takes most of a second to import, at the end of every sweep

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
    """What a single run varies by more than a mean of several does."""
    return float(np.mean(noises * (1 - 1 / runs)))


def grouped(values: Sequence[object]) -> Array:
    """(trials, groups) 1 where a trial is in a group: one a value, or a quarter of the trials where they are many
    numbers."""
    if all(map(is_number, values)) and len(set(values)) > BINS:
        of = np.array(values, dtype=float)
        labels = np.searchsorted(np.quantile(of, np.arange(1, BINS) / BINS), of).astype(str)
    else:
        labels = np.array([repr(v) for v in values])
    return (labels[:, None] == np.unique(labels)).astype(float)


def _shares(scores: Array, groups: Array, noise: float) -> Array:
    """What the groups explain beyond chance of the variance of the scores and of what seeds add to it.

    Args:
        scores: (trials, columns), each column for itself.

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
    """A share and its interval; ``share_of`` gives that of some of the trials."""
    everyone = np.arange(trials)
    blocks = np.array_split(everyone, min(trials, BLOCKS))
    without = np.array([share_of(np.delete(everyone, block)) for block in blocks])
    error = float(np.sqrt((len(blocks) - 1) * np.mean((without - without.mean()) ** 2)))
    share = share_of(everyone)
    low, high = (min(max(share + side * 1.96 * error, 0.0), 1.0) for side in (-1, 1))
    return Explained(key, trials, max(share, 0.0), low, high, chance)
