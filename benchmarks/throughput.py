"""Finished trials an hour of a sweep, against the same sweep with Hydra, Lightning and MLflow alone.

    python benchmarks/throughput.py [--trials N] [--length STEPS] [--chunks N] [--epochs N] [--workers N] [--rounds N]
                                    [--full]

All are real commands in a temporary folder, start-up, stores and reports included, in turn: `python train.py -m` with
two workers, and benchmarks/peers/hydra_recipe.py, with as many threads as PyTorch takes by itself and with one. The
points, the data, the network, the epochs and the validations are the same; the peer keeps fewer curves and writes no
report. Seconds of CPU time, all processes together, are shown too: on a machine that does other work as well, the rates
say more about that. A quarter of the article's length and six epochs unless said otherwise, about five minutes; --full
is the article's length with 100 chunks and 20 epochs, hours.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine, spread
from mlflow import MlflowClient

HERE = Path(__file__).parent
FULL = {"length": 20000, "chunks": 100, "epochs": 20}


def clips(trials: int) -> str:
    """The values of ``clip`` that are tried, 0.1 to 10 on a log scale."""
    return "clip=" + ",".join(f"{10 ** (2 * i / max(trials - 1, 1) - 1):.4g}" for i in range(trials))


def ours(size: argparse.Namespace) -> list[str]:
    words = [
        f"data.length={size.length}",
        f"epochs={size.epochs}",
        "schedule=fixed",
        f"schedule.chunks=[{size.chunks}]",
    ]
    words += [f"study.workers={size.workers}", "study/pruner=none", "progress=none", "tracking.uri=sqlite:///mlflow.db"]
    return [str(HERE.parent / "train.py"), "-m", clips(size.trials), *words]


def peer(size: argparse.Namespace, threads: str = "null") -> list[str]:
    words = [f"length={size.length}", f"chunks={size.chunks}", f"epochs={size.epochs}", f"threads={threads}"]
    return [str(HERE / "peers" / "hydra_recipe.py"), "-m", clips(size.trials), *words]


def run(arguments: list[str], experiment: str, trials: int) -> tuple[float, float, float]:
    """Trials an hour, seconds of CPU time a trial, and the best held-out loss after a last epoch. Raises where not all
    trials finished."""
    with tempfile.TemporaryDirectory() as folder:
        cpu, began = cpu_of_children(), time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
        seconds, cpu = time.perf_counter() - began, cpu_of_children() - cpu
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        found = client.get_experiment_by_name(experiment)
        runs = client.search_runs([found.experiment_id], "attributes.status = 'FINISHED'") if found else []
        losses = [r.data.metrics["val/loss"] for r in runs if "val/loss" in r.data.metrics]
        if len(losses) != trials:
            raise RuntimeError(f"{' '.join(arguments)}: {len(losses)} of {trials} trials finished")
    return 3600 * trials / seconds, cpu / trials, min(losses)


def cpu_of_children() -> float:
    """Seconds that the processes started from here, and theirs, have computed."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="Finished trials an hour, against Hydra and Lightning alone.")
    parser.add_argument("--full", action="store_true", help=f"sizes as {FULL}")
    parser.add_argument("--length", type=int, default=5000)
    parser.add_argument("--chunks", type=int, default=25)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    size = parser.parse_args()
    if size.full:
        vars(size).update(FULL)
    ways = {
        f"train.py, {size.workers} workers": (ours(size), "tbptt"),
        "Hydra and Lightning": (peer(size), "recipe"),
        "the same, one thread": (peer(size, "1"), "recipe"),
    }
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(size.rounds):
        for name, (command, experiment) in ways.items():
            measured[name].append(run(command, experiment, size.trials))
    print(machine())
    print(f"{size.trials} trials of {size.epochs} epochs, {size.length} steps in {size.chunks} chunks")
    mine, *others = measured.values()
    for name, results in measured.items():
        rates, cpu, losses = zip(*results, strict=True)
        side = f"{statistics.median(cpu):.1f} s of CPU a trial, best held-out loss {min(losses):.3f}"
        print(f"{name:<26}{spread(rates, 'trials/h')}, {side}")
    for name, results in zip(list(ways)[1:], others, strict=True):
        print(f"over {name:<21}{spread([a[0] / b[0] for a, b in zip(mine, results, strict=True)], 'times')}")


if __name__ == "__main__":
    main()
