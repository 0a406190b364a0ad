"""The points of a run's curves, as MLflow gets them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tbptt.runs.epoch import Epoch
from tbptt.runs.tracking import MOST_METRICS, Point, Run


def metric_points(epoch: Epoch, update_points: int) -> list[Point]:
    """The metric points of an epoch: (name, value, step)."""
    found = [(name, value, epoch.number) for name, value in epoch.metrics.items()]
    for i in thinned(len(epoch.losses), update_points):
        found.append(("train/chunk_loss", epoch.losses[i], epoch.first_update + i))
        found.append(("grad/norm", epoch.norms[i], epoch.first_update + i))
    return found


def grouped(epochs: Sequence[Epoch], update_points: int) -> Iterator[list[Epoch]]:
    """Epochs in groups whose points MLflow takes in one call, where an epoch alone has no more."""
    group: list[Epoch] = []
    count = 0
    for epoch in epochs:
        its = len(metric_points(epoch, update_points))
        if group and count + its > MOST_METRICS:
            yield group
            group, count = [], 0
        group.append(epoch)
        count += its
    if group:
        yield group


def log_epochs(run: Run, epochs: Sequence[Epoch], update_points: int) -> None:
    """Log the metric points of some epochs."""
    run.log_moments((metric_points(epoch, update_points), epoch.time) for epoch in epochs)


def best_points(best: Mapping[str, Any], epochs: Sequence[Epoch]) -> tuple[list[Point], int]:
    """The points of a run's best epoch, and its time: ``best/NAME`` of every metric, and ``best/epoch``, counted from
    1. There are no points if there is no best epoch.

    They serve to sort a table of runs, as MLflow's table shows only the last value of a curve. Their step is 0, so
    MLflow draws them as bars, one for each run.

    Args:
        best: of the last checkpoint; empty if there is none.
    """
    epoch = next((e for e in epochs if e.number == best.get("epoch")), None)
    if epoch is None:
        return [], 0
    found = {"epoch": epoch.number + 1.0, **epoch.metrics}
    return [(f"best/{name}", value, 0) for name, value in found.items()], epoch.time


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` of range(count), evenly spread, the last one always among them."""
    kept = min(count, most)
    return [(i + 1) * count // kept - 1 for i in range(kept)]
