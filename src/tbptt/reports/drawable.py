"""A copy of a study, made for Optuna's plots.

It has rounded numbers, escaped names, and values as they are typed. It has one objective at a time, because Optuna
takes every objective to be minimized if a function is the target. It has no curves, because Optuna would write them
into its figures.
"""

import contextlib
import html
from collections.abc import Container, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tbptt.options.metrics import direction
from tbptt.options.values import Value, short_value


class _Copy(optuna.Study):
    """A study of trials that are in no storage and keep their numbers."""

    def __init__(self, trials: Sequence[FrozenTrial], directions: Sequence[Any]):
        storage = optuna.storages.InMemoryStorage()
        super().__init__(optuna.create_study(storage=storage, directions=directions).study_name, storage)
        self._drawn = list(trials)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [t for t in self._drawn if states is None or t.state in states]


def drawable(trials: Sequence[FrozenTrial], objectives: Sequence[str], *which: int) -> optuna.Study:
    """A study in memory of complete trials, in the order of their numbers, with the values of the objectives
    ``which``."""
    ordered = sorted(trials, key=lambda t: t.number)
    return _Copy([_drawable(t, which) for t in ordered], [cast(Any, direction(o)) for o in objectives])


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
    made = create_trial(state=TrialState.COMPLETE, params=params, distributions=distributions, values=values)
    made.number = trial.number
    return made


def _category_texts(choices: Sequence[Value]) -> list[Any]:
    """Numbers stay numbers, and so keep their order. Other choices become text, as they are typed."""
    if all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices):
        return [rounded(c, 6) if isinstance(c, float) else c for c in choices]
    return [html.escape(short_value(c), quote=False) for c in choices]


def numbers_first(text: Any) -> tuple[bool, float, str]:
    with contextlib.suppress(ValueError):
        return False, float(text), ""
    return True, 0.0, text


def rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
