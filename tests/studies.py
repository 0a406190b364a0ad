"""Studies for the report's tests: of trials as a worker leaves them, without the training."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tbptt.studies.study import Study


class Away:
    """The client of an MLflow store that does not answer: it keeps no view of a study."""

    def get_experiment(self, experiment: str) -> Any:
        raise MlflowException("it is away")


STORAGE = "sqlite:///sweeps/optuna.db"
BEGAN = datetime.datetime(2024, 1, 1, 10)
HOSTILE = """<script>window.__pwned=1</script></script><img src=x onerror=alert(1)>"'{{ 7*7 }}%{y}"""


def made_trial(
    state: str = "COMPLETE",
    values: Sequence[float] = (),
    params: dict[str, Any] | None = None,
    curve: Sequence[float | None] = (2.0, 1.5, 1.2),
    chunks: Sequence[int] = (),
    by_seed: Sequence[float] = (),
    **attrs: Any,
) -> FrozenTrial:
    """A trial that took half a minute; ``curve`` is its held-out loss, ``by_seed`` its first objective by seed."""
    params = params or {}
    curves = {
        "train/loss": [None if v is None else 1.1 * v for v in curve],
        "val/loss": list(curve),
        "train/eval_loss": [v if i % 5 == 0 else None for i, v in enumerate(curve)],
        "schedule/chunks": list(chunks) or [10] * len(curve),
    }
    left: dict[str, Any] = {"worker": {"host": "here", "pid": 7, "started": "1"}}
    if state != "RUNNING":
        left["curves"] = curves
    if state in ("COMPLETE", "PRUNED"):
        left |= {"stop_reason": "epochs" if state == "COMPLETE" else "pruned", "baseline": 1.25, "best_epochs": [1]}
        left |= {"values_by_seed": [[v] for v in by_seed] or [list(values)], "run_ids": ["ab" * 16]}
    trial = create_trial(
        state=TrialState[state],
        values=list(values) if state == "COMPLETE" else None,
        params=params,
        distributions=spaces_of([params]),
        user_attrs={**left, **attrs},
        intermediate_values={i: v for i, v in enumerate(curve) if v is not None},
    )
    trial.datetime_start = BEGAN
    trial.datetime_complete = None if state == "RUNNING" else BEGAN + datetime.timedelta(seconds=30)
    return trial


def spaces_of(points: Sequence[Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """What the points may have been taken from: a range of their numbers, or a choice of their other values."""
    spaces: dict[str, BaseDistribution] = {}
    for name in dict.fromkeys(name for point in points for name in point):
        values = list(dict.fromkeys(point[name] for point in points if name in point))
        if all(isinstance(v, float) for v in values):
            spaces[name] = FloatDistribution(1e-6, 1e3, log=True)
        elif all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            spaces[name] = IntDistribution(0, 10**6)
        else:
            spaces[name] = CategoricalDistribution(values)
    return spaces


def numbered(trials: Sequence[FrozenTrial], **spaces: BaseDistribution) -> list[FrozenTrial]:
    """The trials of one study, from 0."""
    common = {**spaces_of([t.params for t in trials]), **spaces}
    for number, trial in enumerate(trials):
        trial.number = number
        trial.distributions = {name: common[name] for name in trial.params}
    return list(trials)


def made_study(
    trials: Sequence[FrozenTrial],
    objectives: Sequence[str] = ("val/loss",),
    name: str = "a-study",
    spaces: Mapping[str, BaseDistribution] | None = None,
    **attrs: Any,
) -> Study:
    """The study of these trials, in SQLite below the working directory."""
    Path("sweeps").mkdir(exist_ok=True)
    study = Study(name, STORAGE, list(objectives))
    study.optuna.add_trials(numbered(trials, **(spaces or {})))
    spec = {"space": {"clip": "interval(0.1, 10), log"}, "config": {"epochs": 3}, "seeds": None}
    for key, value in {"objectives": list(objectives), "spec": spec, "n_trials": len(trials), **attrs}.items():
        study.optuna.set_user_attr(key, value)
    return study
