"""Pairs of trials that differ in one key only: what a value is worth if all else and the seed are the same."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from optuna.trial import FrozenTrial

from tbptt.options.metrics import sign
from tbptt.options.values import Value, short_value, shown
from tbptt.reports.thinning import MOST_PAIRED
from tbptt.studies.ranking import by_seed, complete

MOST = 12  # values of a key: a key with more is a range, for which the report has slices


@dataclass(frozen=True)
class Pair:
    """Two values of a key, compared over all pairs of runs that have the same seed and whose trials differ in nothing
    else.

    Attributes:
        better, worse: the two values, ordered by the mean difference.
        gains: of ``better`` over ``worse``, pair by pair, in units of the objective; positive if ``better`` is better.
    """

    key: str
    better: Value
    worse: Value
    gains: tuple[float, ...]

    @property
    def wins(self) -> int:
        return sum(gain > 0 for gain in self.gains)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.gains)

    @property
    def said(self) -> list[str]:
        """In words: the key, its two values, in how many runs the first is better, the mean gain, the range of the
        gains."""
        values, often = map(short_value, (self.better, self.worse)), f"{self.wins} of {len(self.gains)}"
        return [
            self.key,
            *values,
            often,
            shown(self.mean, 3),
            f"{shown(min(self.gains), 3)} to {shown(max(self.gains), 3)}",
        ]


def pairs(trials: Sequence[FrozenTrial], i: int, objective: str) -> list[Pair]:
    """Every two values of every key that can be compared in at least two pairs of runs. The largest gain of a key comes
    first.

    Complete trials count, and keys that have at most ``MOST`` values. A search over ranges has hardly any trials that
    differ in one key only; a grid has all of them. Of very many trials the first ones count: in a grid, they differ in
    one key.

    Args:
        trials: of a study.
        i, objective: the index of the objective, and its name.
    """
    beside = paired(trials)[0]
    found: list[Pair] = []
    for key in dict.fromkeys(name for t in beside for name in t.params):
        values: dict[str, Value] = {}
        runs: dict[str, dict[str, list[float]]] = {}  # by all other keys, then by this key's value
        for t in beside:
            if key in t.params:
                value = repr(t.params[key])
                values.setdefault(value, t.params[key])
                runs.setdefault(_all_but(key, t.params), {}).setdefault(value, by_seed(t, i))
        if len(values) > MOST:
            continue
        gains: dict[tuple[str, str], list[float]] = {}
        for by_value in runs.values():
            for a, b in combinations([value for value in values if value in by_value], 2):
                if len(by_value[a]) == len(by_value[b]):
                    both = zip(by_value[a], by_value[b], strict=True)
                    gains.setdefault((a, b), []).extend(sign(objective) * (y - x) for x, y in both)
        of_key = [_pair(key, values[a], values[b], of_both) for (a, b), of_both in gains.items() if len(of_both) > 1]
        found += sorted(of_key, key=lambda pair: -pair.mean)
    return found


def paired(trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The trials that are compared in pairs, and the trials from which those were taken."""
    found = complete(trials)
    return found[:MOST_PAIRED], found


def _pair(key: str, a: Value, b: Value, gains: Sequence[float]) -> Pair:
    return Pair(key, a, b, tuple(gains)) if sum(gains) >= 0 else Pair(key, b, a, tuple(-gain for gain in gains))


def _all_but(key: str, point: dict[str, Any]) -> str:
    return repr(sorted((name, repr(value)) for name, value in point.items() if name != key))
