"""CPU, memory and GPU of the machine while a run trains, as MLflow shows them (``tracking.system_metrics``).

MLflow's monitor measures, in a thread of its own. What it measures goes the way of the run's curves: into a file on
this machine, and from there into the store with the next epoch, at the run's end, or when the next run starts
(journal.py). So neither a locked store nor a server that is away holds a run up, and nothing is lost.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from mlflow.entities import Metric
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from tbptt.runs.pending import SYSTEM
from tbptt.system.files import open_own

if TYPE_CHECKING:
    from tbptt.runs.tracking import Run

log = logging.getLogger("tbptt")

SECONDS = 1  # between two samples, unless MLflow's environment variables say otherwise
SAMPLES = 10  # whose mean is one point; the first point is of one sample, so that a short run has a point too
LONGEST_END = 5.0  # seconds to wait for the last sample
MOST_METRICS = 1000  # the most that MLflow takes in one call


class _Monitor(SystemMetricsMonitor):
    """MLflow's monitor, which writes into a file in place of the store.

    Args:
        folder: of the run's journal.
    """

    def __init__(self, run: "Run", folder: Path):
        super().__init__(run.id, SECONDS, SAMPLES, tracking_uri=run.store.uri)
        self.path = folder / SYSTEM
        self._logging_step = sum(1 for _ in _lines(self.path))  # a resumed run goes on
        psutil.cpu_percent()  # a CPU's use is that since the last call

    def monitor(self) -> None:
        """Measure until :meth:`stop`."""
        samples, wanted = 0, 1
        try:
            while not self._shutdown_event.wait(self.sampling_interval):
                self.collect_metrics()
                samples += 1
                if samples >= wanted:
                    self.publish_metrics(self.aggregate_metrics())
                    samples, wanted = 0, self.samples_before_logging
            if wanted == 1 and not samples:
                self.collect_metrics()
                samples = 1
            if samples:
                self.publish_metrics(self.aggregate_metrics())
        except Exception as error:  # of a driver, or of the disk: the run trains on
            log.warning("run %s: its system metrics end here (%s)", self._run_id, str(error)[:200])

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write a point into the file."""
        named = {f"{self._metrics_prefix}{name}": value for name, value in metrics.items()}
        line = {"time": int(time.time() * 1000), "step": self._logging_step, "metrics": named}
        with os.fdopen(open_own(self.path, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(f"\n{json.dumps(line)}\n")  # a crash may have cut the line before
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()

    def stop(self) -> None:
        """Write the last point and end the thread. A driver that does not answer is not waited for."""
        self._shutdown_event.set()
        if self._process is not None:
            self._process.join(LONGEST_END)


@contextmanager
def monitored(run: "Run", folder: Path, wanted: bool) -> Iterator[None]:
    """Measure within this context, if ``wanted``. ``folder`` is the one of the run's journal."""
    if not wanted:
        yield
        return
    monitor = _Monitor(run, folder)
    monitor.start()
    try:
        yield
    finally:
        monitor.stop()


def send(run: "Run", folder: Path, sent: int = 0) -> int:
    """Send what was measured to the store. Raises the error if that fails.

    Args:
        sent: how many lines it has already.

    Returns:
        How many it has now.
    """
    lines = list(_lines(folder / SYSTEM))
    points = [
        Metric(name, value, line["time"], line["step"])
        for line in lines[sent:]
        for name, value in line["metrics"].items()
    ]
    for i in range(0, len(points), MOST_METRICS):
        run.store.client.log_batch(run.id, metrics=points[i : i + MOST_METRICS])
    return len(lines)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The points in a file; a line that a crash has cut is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            yield json.loads(line)
