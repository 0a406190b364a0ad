"""What a report costs: seconds to write it and its size, of a study over a space with conditional keys.

    python benchmarks/report_time.py [TRIALS [EPOCHS [ROUNDS]]]

1,000 trials of 100 epochs unless said otherwise, a third of them pruned; `100000 4 1` is a very large study. Each time
the study is opened anew, as `python report.py` does; reading it from SQLite is part of the time.
"""

import contextlib
import datetime
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy
from machine import machine, spread
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from tbptt.compat import optuna_tables, study_id
from tbptt.reports.page import write_report
from tbptt.studies.study import Study

models = optuna_tables()
STORAGE, OBJECTIVES = "sqlite:///sweeps/optuna.db", ["val/loss"]
SPACES: dict[str, BaseDistribution] = {
    "clip": FloatDistribution(0.05, 20, log=True),
    "clip_mode": CategoricalDistribution(["norm", "tensor_norm", "value", "std"]),
    "optimizer": CategoricalDistribution(["rmsprop", "adam", "adagrad", "adadelta"]),
    "schedule": CategoricalDistribution(["article", "geometric"]),
    "schedule.chunks": CategoricalDistribution(["[100, 50, 10, 2, 1]", "[50, 10, 1]", "[10]", "[2]", "[1]"]),
    "schedule.start": IntDistribution(2, 401, log=True),
    "schedule.stages": IntDistribution(2, 6),
}


def point(rng: random.Random) -> dict[str, object]:
    drawn = {
        "clip": math.exp(rng.uniform(math.log(0.05), math.log(20))),
        **{name: rng.choice(d.choices) for name, d in SPACES.items() if isinstance(d, CategoricalDistribution)},
        "schedule.start": rng.randint(2, 401),
        "schedule.stages": rng.randint(2, 6),
    }
    absent = ("schedule.start", "schedule.stages") if drawn["schedule"] == "article" else ("schedule.chunks",)
    return {name: value for name, value in drawn.items() if name not in absent}


def trial(number: int, epochs: int, rng: random.Random) -> FrozenTrial:
    """As a worker leaves it."""
    params, is_pruned = point(rng), number % 3 == 2
    curve = [1 + 2 * math.exp(-e / 12) + 0.1 * rng.random() for e in range(epochs // 4 if is_pruned else epochs)]
    curves = {
        "train/loss": [1.1 * y for y in curve],
        "val/loss": curve,
        "train/eval_loss": [y if e % 5 == 0 else None for e, y in enumerate(curve)],
        "schedule/chunks": [100 if e < 20 else 10 if e < 40 else 1 for e in range(len(curve))],
    }
    made = create_trial(
        state=TrialState.PRUNED if is_pruned else TrialState.COMPLETE,
        value=None if is_pruned else min(curve),
        params=params,
        distributions={name: SPACES[name] for name in params},
        intermediate_values=dict(enumerate(curve)),
        user_attrs={
            "curves": curves,
            "values_by_seed": [[min(curve)]],
            "best_epochs": [curve.index(min(curve))],
            "stop_reason": "pruned" if is_pruned else "epochs",
            "run_ids": [f"{number:032x}"],
            "baseline": 1.25,
            "worker": {"host": "here", "pid": number % 2, "started": "1"},
        },
    )
    made.datetime_start = datetime.datetime(2024, 1, 1) + datetime.timedelta(minutes=number // 2)
    made.datetime_complete = made.datetime_start + datetime.timedelta(seconds=55)
    return made


def fill(study: Study, trials: Iterable[FrozenTrial]) -> None:
    """Put trials into a study's tables, a thousand at a time: Optuna's way takes 10 ms each."""
    rows: dict[type, list[dict[str, object]]] = {}

    def add(model: type, **row: object) -> None:
        rows.setdefault(model, []).append(row)

    def write() -> None:
        with study.storage.engine.begin() as connection:
            for model, those in rows.items():
                connection.execute(sqlalchemy.insert(model), those)
        rows.clear()

    for number, t in enumerate(trials):
        i = number + 1
        times = {"datetime_start": t.datetime_start, "datetime_complete": t.datetime_complete}
        add(models.TrialModel, trial_id=i, number=number, study_id=study_id(study.optuna), state=t.state, **times)
        for name, d in t.distributions.items():
            value = d.to_internal_repr(t.params[name])
            json_ = distribution_to_json(d)
            add(models.TrialParamModel, trial_id=i, param_name=name, param_value=value, distribution_json=json_)
        for key, attr in t.user_attrs.items():
            add(models.TrialUserAttributeModel, trial_id=i, key=key, value_json=json.dumps(attr))
        for objective, value in enumerate(t.values or ()):
            finite = models.TrialValueModel.TrialValueType.FINITE
            add(models.TrialValueModel, trial_id=i, objective=objective, value=value, value_type=finite)
        for step, value in t.intermediate_values.items():
            kind = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
            row = {"intermediate_value": value, "intermediate_value_type": kind}
            add(models.TrialIntermediateValueModel, trial_id=i, step=step, **row)
        if number % 1000 == 999:
            write()
    write()


def main(trials: int = 1000, epochs: int = 100, rounds: int = 3) -> None:
    rng = random.Random(0)
    print(machine())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("sweeps").mkdir()
        fill(Study("benchmark", STORAGE, OBJECTIVES), (trial(i, epochs, rng) for i in range(trials)))
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            study = Study("benchmark", STORAGE, OBJECTIVES)
            study.read()
            read = time.perf_counter() - began
            path = write_report(study)
            seconds.append(time.perf_counter() - began)
        size = path.stat().st_size / 1e6
    print(f"{trials} trials of {epochs} epochs: {spread(seconds, 's')}, {read:.1f} s of it to read them, {size:.1f} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
