"""Finished trials an hour with one worker and with two, the same study, in turn, in one run.

    python benchmarks/workers.py [TRIALS] [OVERRIDE ...]

The real command in a temporary folder, start-up included. A quarter of the article's length and six epochs a trial.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

TRAIN = Path(__file__).parents[1] / "train.py"


def trials_an_hour(workers: int, trials: int, overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(TRAIN), "-m", "clip=tag(log,interval(0.1,10))", "data.length=5000", "epochs=6"]
        command += ["schedule=fixed", "schedule.chunks=[25]", "study/pruner=none", f"study.n_trials={trials}"]
        command += [f"study.workers={workers}", "progress=none", *overrides]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return 3600 * trials / (time.perf_counter() - began)


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    print(machine())
    one, two = (trials_an_hour(workers, trials, sys.argv[2:]) for workers in (1, 2))
    print(f"one worker   {one:8.0f} trials an hour")
    print(f"two workers  {two:8.0f} trials an hour, {two / one:.2f} times as many")


if __name__ == "__main__":
    main()
