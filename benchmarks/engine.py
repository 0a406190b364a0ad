"""What the study's engine costs by itself: a trial that trains nothing, and a report of an objective.

    python benchmarks/engine.py [TRIALS]

A study on SQLite in a temporary folder; each trial is claimed, reports ten epochs and is told. Prints milliseconds a
trial (claim and tell) and a report, and how the first and the last trials differ.
"""

import contextlib
import statistics
import sys
import tempfile
import time

from machine import machine, spread

from tbptt.config.schema import MedianPruner, SamplerConfig
from tbptt.studies.space import Choice, Interval, Space
from tbptt.studies.study import Budget, Study

REPORTS = 10


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    space = Space(
        (Interval("clip", "clip", (), 0.1, 10.0, True), Choice("optimizer", "optimizer", (), ("adam", "rmsprop")))
    )
    sampler = SamplerConfig(name="random")  # what another sampler thinks is its own cost
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        study = Study("engine", f"sqlite:///{folder}/optuna.db", ["val/loss"])
        budget = Budget(trials, None, None, 1)
        cost, report = [], []
        for _ in range(trials):
            began = time.perf_counter()
            claimed = study.claim(space, budget, sampler, MedianPruner(name="median"), 50, False)
            claiming = time.perf_counter() - began
            assert claimed is not None
            trial, point = claimed
            for epoch in range(REPORTS):
                began = time.perf_counter()
                trial.report(float(point["clip"] or 0) + 1 / (epoch + 1), epoch)
                pruned = trial.should_prune()
                report.append(1000 * (time.perf_counter() - began))
            del pruned
            began = time.perf_counter()
            study.optuna.tell(trial, float(point["clip"] or 0))
            cost.append(1000 * (claiming + time.perf_counter() - began))
    print(machine())
    print(f"a trial             {spread(cost, 'ms')}")
    print(f"  the first tenth   {spread(cost[: trials // 10], 'ms')}")
    print(f"  the last tenth    {spread(cost[-(trials // 10) :], 'ms')}")
    print(f"a report            {spread(report, 'ms')}, median {statistics.median(report):.2f}")


if __name__ == "__main__":
    main()
