"""MLflow: what a run leaves there. One batch of points an epoch, the true status whatever ends it."""

import contextlib
import json
import logging
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from tbptt.config import TrackingConfig
from tbptt.stores import absolute_uri, locked, sqlite_path

MOST_POINTS = 1000  # that MLflow takes in one call
MOST_PARAMS = 100
MODEL_TRAINING = "custom_model_development"  # the kind of experiment that opens in the UI's training view, with curves
PACKAGES = ("tbptt", "torch", "pytorch-lightning", "hydra-core", "optuna", "mlflow", "numpy")

for _name, _value in (
    ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
    ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),  # 7 by default, four minutes of silence; outbox.py tries again itself
    ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
    ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
):
    os.environ.setdefault(_name, _value)
for _name in ("mlflow", "alembic", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints a traceback of what it raises anyway


class Store:
    """An MLflow store and the experiment in it; both are made on first use, by one process at a time.

    Raises ConnectionError where a server does not answer, within seconds.
    """

    def __init__(self, tracking: TrackingConfig):
        path = sqlite_path(tracking.uri)
        self.uri = absolute_uri(tracking.uri)
        # What is not an artifact yet, or belongs to a store elsewhere, is kept in a folder beside it.
        self.folder = path.parent if path else Path("mlruns").absolute()
        self.is_local = path is not None
        with locked(self.folder / ".lock") if path else contextlib.nullcontext(), _said_shortly(tracking.uri):
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

    def run(self, run_id: str) -> "Run | None":
        """A run of this store; None where it has no such run."""
        try:
            info = self.client.get_run(run_id).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return Run(self, run_id, info.artifact_uri)

    def reopen_run(self, run_id: str) -> "Run | None":
        """A run of this store, RUNNING again; None where it has no such run."""
        run = self.run(run_id)
        if run is not None:
            self.client.update_run(run_id, status="RUNNING")
            with contextlib.suppress(MlflowException):  # it has none
                self.client.delete_tag(run_id, "stop.reason")
        return run

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
            this machine, and sent by :meth:`finish` where it is not.
    """

    def __init__(self, store: Store, run_id: str, artifact_uri: str):
        self.store, self.id = store, run_id
        self.is_local = artifact_uri.startswith("file:")
        self.folder = Path(local_file_uri_to_path(artifact_uri)) if self.is_local else store.folder / "pending" / run_id
        self.folder.mkdir(parents=True, exist_ok=True)

    def last_state(self) -> dict[str, Any] | None:
        """The run's last checkpoint, from this machine or its store; None where it has none. Raises ValueError for one
        that is damaged."""
        from tbptt import checkpoint

        state = checkpoint.load_newest(self.folder / "checkpoints" / "last.ckpt")
        if state is None and (copy := self.store.artifact(self.id, "checkpoints/last.ckpt")):
            state = checkpoint.load(copy, checkpoint.OF_A_RUN)
        return state

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Params, flattened already; lists and null as they are typed on the command line."""
        entities = [Param(name, as_text(value)) for name, value in params.items()]
        for part in _batches(entities, MOST_PARAMS):
            self.store.client.log_batch(self.id, params=part)

    def log_points(self, points: Iterable[tuple[str, float, int]], milliseconds: int) -> None:
        """Metric points (name, value, step) of one moment, in as few calls as MLflow allows."""
        for part in _batches([Metric(name, value, milliseconds, step) for name, value, step in points], MOST_POINTS):
            self.store.client.log_batch(self.id, metrics=part)

    def tags(self) -> dict[str, str]:
        return dict(self.store.client.get_run(self.id).data.tags)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self.store.client.log_batch(self.id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def finish(self, status: str, reason: str | None = None, leave_out: Sequence[str] = ()) -> None:
        """Send what is not in the store yet, then set ``stop.reason`` and the status: FINISHED, KILLED or FAILED."""
        if not self.is_local:
            for path in (p for p in self.folder.rglob("*") if p.is_file() and p.name not in leave_out):
                inner = path.parent.relative_to(self.folder)
                self.store.client.log_artifact(self.id, str(path), str(inner) if inner.parts else None)
        if reason:
            self.set_tags({"stop.reason": reason})
        self.store.client.set_terminated(self.id, status)


@contextlib.contextmanager
def _said_shortly(uri: str) -> Iterator[None]:
    """An error of the store as one line."""
    try:
        yield
    except MlflowException as error:
        raise ConnectionError(f"tracking.uri: {uri} does not answer") from error


def as_text(value: object) -> str:
    """A param's value, as it would be typed on the command line."""
    if isinstance(value, list | tuple | dict) or value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


@cache
def _code_tags() -> tuple[tuple[str, str], ...]:
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
    return tuple(tags.items())


def code_tags() -> dict[str, str]:
    """``git.*`` and ``versions.*``: which code this process runs."""
    return dict(_code_tags())


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]
