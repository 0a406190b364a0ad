"""MLflow: what a run leaves there. One batch of points an epoch, the true status whatever ends it."""

import contextlib
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from tbptt.config import TrackingConfig
from tbptt.module import Epoch
from tbptt.stores import absolute_uri, locked, sqlite_path

MOST_POINTS = 1000  # that MLflow takes in one call
MOST_PARAMS = 100
MODEL_TRAINING = "custom_model_development"  # the kind of experiment that opens in the UI's training view, with curves
PACKAGES = ("tbptt", "torch", "pytorch-lightning", "hydra-core", "optuna", "mlflow", "numpy")

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Store:
    """An MLflow store and the experiment in it; both are made on first use, by one process at a time."""

    def __init__(self, tracking: TrackingConfig):
        path = sqlite_path(tracking.uri)
        self.uri = absolute_uri(tracking.uri)
        # What is not an artifact yet, or belongs to a store elsewhere, is kept in a folder beside it.
        self.folder = path.parent if path else Path("mlruns").absolute()
        with locked(self.folder / ".lock") if path else contextlib.nullcontext():
            self.client = MlflowClient(tracking_uri=self.uri)
            found = self.client.get_experiment_by_name(tracking.experiment)
            if found is None:
                local = (self.folder / "artifacts").as_uri() if path else None
                self.experiment: str = self.client.create_experiment(
                    tracking.experiment, artifact_location=local, tags={"mlflow.experimentKind": MODEL_TRAINING}
                )
            else:
                self.experiment = found.experiment_id

    def start_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> "Run":
        """A new run, RUNNING."""
        all_tags = {"mlflow.runName": name, "mlflow.source.name": "train.py", **tags}
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        info = self.client.create_run(self.experiment, tags=all_tags, run_name=name).info
        return Run(self, info.run_id, info.artifact_uri)

    def reopen_run(self, run_id: str) -> "Run | None":
        """A run of this store, RUNNING again; None where it has no such run."""
        try:
            info = self.client.get_run(run_id).info
        except MlflowException:
            return None
        self.client.update_run(run_id, status="RUNNING")
        return Run(self, run_id, info.artifact_uri)

    def artifact(self, run_id: str, path: str) -> Path | None:
        """A local copy of a run's artifact, or None where it has none."""
        try:
            return Path(self.client.download_artifacts(run_id, path))
        except (MlflowException, OSError):
            return None

    def children(self, parent: str, status: str) -> list[Any]:
        """The runs under a parent that have a status."""
        query = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = '{status}'"
        return list(self.client.search_runs([self.experiment], query, max_results=1000))


class Run:
    """An open MLflow run.

    Attributes:
        id: MLflow's.
        folder: local files that are the run's artifacts: written here, they are in the store at once where it is on
            this machine, and sent by :meth:`close` where it is not.
    """

    def __init__(self, store: Store, run_id: str, artifact_uri: str):
        self.store, self.id = store, run_id
        self.is_local = artifact_uri.startswith("file:")
        self.folder = Path(local_file_uri_to_path(artifact_uri)) if self.is_local else store.folder / "pending" / run_id
        self.folder.mkdir(parents=True, exist_ok=True)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Params, flattened already; lists and null as they are typed on the command line."""
        entities = [Param(name, as_text(value)) for name, value in params.items()]
        for part in _batches(entities, MOST_PARAMS):
            self.store.client.log_batch(self.id, params=part)

    def log_points(self, points: Iterable[tuple[str, float, int]]) -> None:
        """Metric points (name, value, step), in as few calls as MLflow allows."""
        now = int(time.time() * 1000)
        for part in _batches([Metric(name, value, now, step) for name, value, step in points], MOST_POINTS):
            self.store.client.log_batch(self.id, metrics=part)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self.store.client.log_batch(self.id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def close(self, status: str, reason: str | None = None) -> None:
        """Send what is not in the store yet, then set ``stop.reason`` and the status: FINISHED, KILLED or FAILED."""
        try:
            if not self.is_local:
                self.store.client.log_artifacts(self.id, str(self.folder))
            if reason:
                self.set_tags({"stop.reason": reason})
        finally:
            self.store.client.set_terminated(self.id, status)


class Curves:
    """A run's curves: one batch of points an epoch to the store, every update to the artifact ``updates.parquet``."""

    COLUMNS = ("update", "epoch", "chunks", "loss", "grad_norm", "clipped")

    def __init__(self, run: Run, update_points: int):
        self.run, self.update_points = run, update_points
        self._updates: dict[str, list[float]] = {name: [] for name in self.COLUMNS}

    def add(self, epoch: Epoch) -> None:
        points = [(name, value, epoch.number) for name, value in epoch.metrics.items()]
        for i in thinned(len(epoch.losses), self.update_points):
            points.append(("train/chunk_loss", epoch.losses[i], epoch.first_update + i))
            points.append(("grad/norm", epoch.norms[i], epoch.first_update + i))
        self.run.log_points(points)
        count = len(epoch.losses)
        columns: tuple[Iterable[float], ...] = (
            range(epoch.first_update, epoch.first_update + count),
            [epoch.number] * count,
            [epoch.chunks] * count,
            epoch.losses,
            epoch.norms,
            epoch.clipped,
        )
        for name, values in zip(self.COLUMNS, columns, strict=True):
            self._updates[name].extend(values)

    def close(self) -> None:
        """Write ``updates.parquet``."""
        import pyarrow as pa
        from pyarrow import parquet

        types = (pa.int64(), pa.int32(), pa.int32(), pa.float32(), pa.float32(), pa.bool_())
        arrays = [pa.array(v).cast(t) for v, t in zip(self._updates.values(), types, strict=True)]
        parquet.write_table(pa.table(arrays, names=list(self.COLUMNS)), self.run.folder / "updates.parquet")


def as_text(value: object) -> str:
    """A param's value, as it would be typed on the command line."""
    if isinstance(value, list | tuple | dict) or value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` of range(count), evenly spread, the last one always among them."""
    kept = min(count, most)
    return [(i + 1) * count // kept - 1 for i in range(kept)]


def code_tags() -> dict[str, str]:
    """``git.*`` and ``versions.*``: which code ran."""
    tags = {f"versions.{name}": version(name) for name in PACKAGES}
    tags["versions.python"] = platform.python_version()
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["git.sha"] = subprocess.check_output(
            [*git, "rev-parse", "HEAD"], stderr=subprocess.DEVNULL, text=True
        ).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no"], text=True)
        tags["git.dirty"] = str(bool(changed.strip())).lower()
    return tags


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]
