"""What a report costs: seconds to write it and its size, of a study over a space with conditional keys.

    python benchmarks/report_time.py [TRIALS [EPOCHS]]

1,000 trials of 100 epochs unless said otherwise, a third of them pruned. Each time the study is opened anew, as
`python report.py` does; reading it from SQLite is part of the time.
"""

import contextlib
import datetime
import math
import random
import sys
import tempfile
import time
from pathlib import Path

from machine import machine, spread
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tbptt.report import write_report
from tbptt.study import Study

STORAGE, OBJECTIVES, ROUNDS = "sqlite:///sweeps/optuna.db", ["val/loss"], 3
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


def main(trials: int = 1000, epochs: int = 100) -> None:
    rng = random.Random(0)
    print(machine())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("sweeps").mkdir()
        study = Study("benchmark", STORAGE, OBJECTIVES)
        study.optuna.add_trials([trial(i, epochs, rng) for i in range(trials)])
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            path = write_report(Study("benchmark", STORAGE, OBJECTIVES))
            seconds.append(time.perf_counter() - began)
        size = path.stat().st_size / 1e6
    print(f"{trials} trials of {epochs} epochs: {spread(seconds, 's')}, {size:.1f} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
