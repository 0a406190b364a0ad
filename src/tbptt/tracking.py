"""MLflow: what a run leaves there. One batch of points an epoch, the true status whatever ends it."""

import contextlib
import json
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from tbptt.config import TrackingConfig
from tbptt.liveness import identity
from tbptt.stores import absolute_uri, locked, sqlite_path
from tbptt.trouble import causes

log = logging.getLogger("tbptt")

MOST_POINTS = 1000  # that MLflow takes in one call
MOST_PARAMS = 100
LONGEST_WAIT = 10.0  # seconds between two tries to reach a server
# A checkpoint's two places in a store that is elsewhere.
SLOTS = {
    "last": ("checkpoints/last.ckpt", "checkpoints/last.previous.ckpt"),
    "best": ("checkpoints/best.ckpt", "checkpoints/best.previous.ckpt"),
}
OWNER = "owner.json"  # who trains a run, in the folder of what is not in the store yet
WORKER_TAG = "worker"
T = TypeVar("T")
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

    Args:
        patience: seconds to wait for a server that is away, at the start and in :meth:`patiently`.
        check: called while waiting; may raise to stop.

    Raises ConnectionError where a server does not answer, by default within seconds.
    """

    def __init__(self, tracking: TrackingConfig, patience: float = 0.0, check: Callable[[], None] = lambda: None):
        self.patience, self.check = patience, check
        path = sqlite_path(tracking.uri)
        self.uri = absolute_uri(tracking.uri)
        # What is not an artifact yet, or belongs to a store elsewhere, is kept in a folder beside it.
        self.folder = path.parent if path else Path("mlruns").absolute()
        self.is_local = path is not None
        with locked(self.folder / ".lock") if path else contextlib.nullcontext(), _said_shortly(tracking.uri):
            self.client = MlflowClient(tracking_uri=self.uri)
            self.experiment = self.patiently(lambda: self._experiment(tracking.experiment))

    def _experiment(self, name: str) -> str:
        """The id of an experiment, which is made if need be."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = (self.folder / "artifacts").as_uri() if self.is_local else None
        try:
            return self.client.create_experiment(
                name, artifact_location=local, tags={"mlflow.experimentKind": MODEL_TRAINING}
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another process, meanwhile
                raise
            return self._experiment(name)

    def patiently(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, once the server is there. Raises what it raises otherwise, or after too long."""
        began, wait = time.monotonic(), 0.5
        while True:
            try:
                return call()
            except Exception as error:
                if self.is_local or not is_outage(error) or time.monotonic() - began >= self.patience:
                    raise
            until = time.monotonic() + wait
            while time.monotonic() < until:
                self.check()
                time.sleep(0.1)
            wait = min(2 * wait, LONGEST_WAIT)

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

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """The paths of a run's artifacts in a folder of theirs."""
        return [info.path for info in self.client.list_artifacts(run_id, folder) if not info.is_dir]

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
        self._newest = dict.fromkeys(SLOTS, 1)  # which of its two places in the store a checkpoint took last
        self._best_sent: float | None = None

    def last_state(self, take_over: bool = False) -> dict[str, Any] | None:
        """The run's last checkpoint, from this machine or its store, whichever went further; None where it has none.
        Raises ValueError where there are some and none can be read.

        Args:
            take_over: say in the store first that this process goes on with the run.
        """
        from tbptt import checkpoint

        here = self.folder / "checkpoints"
        if self.is_local:
            return checkpoint.load_newest(here / "last.ckpt")
        is_own = self.store.patiently(self.is_own)
        if take_over:
            self.take_over()
        found: list[tuple[dict[str, Any], int | None]] = []
        damage: list[ValueError] = []
        with tempfile.TemporaryDirectory() as folder:
            copies = [(self._fetch(path, folder), i) for i, path in enumerate(SLOTS["last"])]
            # Those here count where no other machine has gone on since.
            own = [here / "last.ckpt", checkpoint.previous(here / "last.ckpt")] if is_own else []
            for path, place in [*copies, *((path, None) for path in own)]:
                if path is not None and path.exists():
                    try:
                        found.append((checkpoint.load(path, checkpoint.OF_A_RUN), place))
                    except ValueError as error:
                        damage.append(error)
        if not found:
            if len(damage) > 1:
                raise damage[0]
            if damage:  # the first that was sent, and cut: as if there were none
                log.warning("run %s: %s", self.id, damage[0])
            return None
        state, place = max(found, key=lambda one: (one[0]["epoch"], one[1] is None))
        self._newest["last"] = 1 if place is None else place
        if place is not None:
            self._fetch_best(state["best"]["epoch"])
        return state

    def is_own(self) -> bool:
        """Whether this folder's owner is the last that the store knows to have been at this run; of a store on this
        machine nobody else can be."""
        if self.is_local:
            return True
        owner = self.folder / OWNER
        return owner.exists() and self.tags().get(WORKER_TAG) == as_tag(owner)

    def take_over(self) -> None:
        """Say in the store who is at this run from now on: what others had of it is not sent any more."""
        (self.folder / OWNER).write_text(json.dumps(identity()))
        self.store.patiently(lambda: self.set_tags({WORKER_TAG: as_tag(self.folder / OWNER)}))

    def _fetch(self, path: str, folder: str) -> Path | None:
        """A copy of an artifact; None where there is none. Raises where the store is away."""
        listed = self.store.patiently(lambda: self.store.artifacts(self.id, str(Path(path).parent)))
        if path not in listed:
            return None
        return Path(self.store.patiently(lambda: self.store.client.download_artifacts(self.id, path, folder)))

    def _fetch_best(self, epoch: int | None) -> None:
        """Bring the checkpoint of the best epoch to this machine, where another machine's worker left it."""
        from tbptt import checkpoint

        with tempfile.TemporaryDirectory() as folder:
            for place, path in enumerate(SLOTS["best"]):
                copy = self._fetch(path, folder)
                if copy is None:
                    continue
                with contextlib.suppress(ValueError):
                    if checkpoint.load(copy, checkpoint.OF_A_RUN)["epoch"] == epoch:
                        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(copy, self.folder / path)
                        self._newest["best"] = place

    def send_checkpoints(self) -> None:
        """Let another machine go on from here. Each goes to the one of its two places in the store that does not have
        the newest, as an upload may be cut."""
        best, last = self.folder / "checkpoints" / "best.ckpt", self.folder / "checkpoints" / "last.ckpt"
        with tempfile.TemporaryDirectory() as folder:
            copies = {}
            for what, path in (("last", last), ("best", best)):  # training goes on: the last's best is there already
                if path.exists():
                    copies[what] = Path(folder) / Path(SLOTS[what][1 - self._newest[what]]).name
                    shutil.copy2(path, copies[what])
            if "best" in copies and (changed := copies["best"].stat().st_mtime) != self._best_sent:
                self._send("best", copies["best"])
                self._best_sent = changed
            if "last" in copies:
                self._send("last", copies["last"])

    def _send(self, what: str, copy: Path) -> None:
        self.store.client.log_artifact(self.id, str(copy), "checkpoints")
        self._newest[what] = 1 - self._newest[what]

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
            with contextlib.suppress(OSError):  # one that kept nothing here, as a parent
                self.folder.rmdir()
        if reason:
            self.set_tags({"stop.reason": reason})
        self.store.client.set_terminated(self.id, status)


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the server was away, or in trouble itself, so that the same call may do later."""
    for each in causes(error):
        if isinstance(each, requests.RequestException):
            return True
        if isinstance(each, MlflowException):
            # The last two: more ask MLflow than it has connections to its database; two set one tag at the same moment.
            signs = ("failed with exception", "failed with error code 5", "QueuePool limit", "duplicate key value")
            return any(sign in str(each) for sign in signs) or each.error_code in (
                "INTERNAL_ERROR",
                "TEMPORARILY_UNAVAILABLE",
            )
    return False


@contextlib.contextmanager
def _said_shortly(uri: str) -> Iterator[None]:
    """An error of the store as one line."""
    try:
        yield
    except MlflowException as error:
        raise ConnectionError(f"tracking.uri: {uri} does not answer") from error


def as_tag(owner: Path) -> str:
    """A process, as a tag's value."""
    who = json.loads(owner.read_text())
    return f"{who['host']} {who['pid']} {who['started']}"


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
