"""A copy of a study that is made to be drawn by Optuna.

It has rounded numbers, escaped names, values as they are typed, one objective at a time (with a function as target
Optuna takes every objective to be minimized), and none of the curves, which Optuna would write into its figures.
"""

import contextlib
import html
from collections.abc import Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tbptt.config import OBJECTIVES
from tbptt.space import Value, short_value


def drawable(trials: Sequence[FrozenTrial], objectives: Sequence[str], *which: int) -> optuna.Study:
    """A study in memory of complete trials and some of their values; numbers stay, other trials' places are blank."""
    study = optuna.create_study(directions=[cast(Any, OBJECTIVES[o]) for o in objectives])
    by_number = {t.number: t for t in trials}
    for number in range(max(by_number, default=-1) + 1):
        t = by_number.get(number)
        study.add_trial(_drawable(t, which) if t else create_trial(state=TrialState.FAIL))
    return study


def _drawable(trial: FrozenTrial, which: Sequence[int]) -> FrozenTrial:
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for name, value in trial.params.items():
        key, given = html.escape(name, quote=False), trial.distributions[name]
        if isinstance(given, CategoricalDistribution):
            texts = _category_texts(given.choices)
            params[key] = texts[int(given.to_internal_repr(value))]
            distributions[key] = CategoricalDistribution(sorted(set(texts), key=numbers_first))
        elif isinstance(given, FloatDistribution):
            params[key] = min(max(rounded(value, 4), given.low), given.high)
            distributions[key] = FloatDistribution(given.low, given.high, log=given.log)
        else:
            params[key], distributions[key] = value, given
    values = [rounded(trial.values[i], 6) for i in which]
    return create_trial(state=TrialState.COMPLETE, params=params, distributions=distributions, values=values)


def _category_texts(choices: Sequence[Value]) -> list[Any]:
    """Numbers stay numbers, and so in their order; others are as they are typed."""
    if all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices):
        return [rounded(c, 6) if isinstance(c, float) else c for c in choices]
    return [html.escape(short_value(c), quote=False) for c in choices]


def numbers_first(text: Any) -> tuple[bool, float, str]:
    with contextlib.suppress(ValueError):
        return False, float(text), ""
    return True, 0.0, text


def rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
