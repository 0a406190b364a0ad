"""Metric points a second into MLflow: one call an epoch, as here, against a call a point and Lightning's own logger.

    python benchmarks/logging_points.py [ROUNDS [UPDATES]]

One fresh SQLite store, a run for each way, the ways in turn. A round is what one epoch logs: ten metrics of the epoch,
loss and gradient norm of 50 updates. A call a point is `MlflowClient.log_metric`. Lightning's logger is called as its
Trainer calls it, `MLFlowLogger.log_metrics` once a step with all of that step's metrics.
"""

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import groupby

from machine import machine, spread
from pytorch_lightning.loggers import MLFlowLogger

from tbptt.config.schema import TrackingConfig
from tbptt.runs.epoch import Epoch
from tbptt.runs.points import metric_points
from tbptt.runs.tracking import Store

Points = list[tuple[str, float, int]]

METRICS = 10  # of an epoch
OURS = "Run.log_points"


def epoch_points(number: int, updates: int) -> Points:
    """What the pipeline logs of an epoch."""
    first = number * updates
    values = [1 + 1 / (1 + first + i) for i in range(updates)]
    metrics = {f"epoch/metric_{i}": values[-1] for i in range(METRICS)}
    return metric_points(
        Epoch(number, 0, 0, updates, metrics, first, values, values, values, None, False, False), updates
    )


def main(rounds: int = 10, updates: int = 50) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        store = Store(TrackingConfig(uri=uri))
        run, other = store.start_run("one call an epoch", {}), store.start_run("a call a point", {})
        logger = MLFlowLogger("lightning", tracking_uri=uri, artifact_location=f"{folder}/lightning")
        lightning_run = logger.run_id

        def one_by_one(of_epoch: Points) -> None:
            for name, value, step in of_epoch:
                store.client.log_metric(other.id, name, value, step=step)

        def by_lightning(of_epoch: Points) -> None:
            for step, same in groupby(of_epoch, key=lambda point: point[2]):
                logger.log_metrics({name: value for name, value, _ in same}, step)

        ways: dict[str, Callable[[Points], None]] = {
            OURS: lambda of_epoch: run.log_points(of_epoch, int(time.time() * 1000)),
            "MLFlowLogger.log_metrics": by_lightning,
            "MlflowClient.log_metric": one_by_one,
        }
        a_second: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            of_epoch = epoch_points(number, updates)
            for name, way in ways.items():
                began = time.perf_counter()
                way(of_epoch)
                a_second[name].append(len(of_epoch) / (time.perf_counter() - began))
        for run_id in (run.id, other.id, lightning_run):  # all three have left the same
            kept = store.client.get_metric_history(run_id, "train/chunk_loss")
            assert len(kept) == updates * (rounds + 1), f"{len(kept)} points of {updates * (rounds + 1)}"
    print(machine())
    print(f"points a second, {len(of_epoch)} points a round")
    for name, rates in a_second.items():
        print(f"{name:<31}{spread(rates[1:], 'points/s')}")  # the first round has connections and caches to set up
    for name in list(ways)[1:]:
        ratios = [a / b for a, b in zip(a_second[OURS][1:], a_second[name][1:], strict=True)]
        print(f"over {name:<26}{spread(ratios, 'times')}")
    share = len(of_epoch) / statistics.median(a_second[OURS][1:])
    print(f"an epoch's points          {1000 * share:8.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
