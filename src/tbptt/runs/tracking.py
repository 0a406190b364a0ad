"""A run's data in MLflow: one batch of points for each epoch, and the true status, whatever ends the run."""

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunInfo, RunTag, ViewType
from mlflow.exceptions import MlflowException

from tbptt import compat
from tbptt.config.compose import CommandError
from tbptt.config.schema import TrackingConfig
from tbptt.options.values import shortened
from tbptt.runs import local_files
from tbptt.runs.pending import OWNER, as_tag, pending_folder, this_owner
from tbptt.runs.store_errors import is_locked, is_outage, said_shortly, still_locked
from tbptt.system.files import is_own_file, make_folder, refuse_link, replaced, write_json
from tbptt.system.retry import retry
from tbptt.system.stores import absolute_uri, locked, sqlite_path
from tbptt.system.trouble import first_error

log = logging.getLogger("tbptt")

MOST_METRICS = 1000  # the most that MLflow takes in one call
MOST_PARAMS = 100
LOCKED = 60.0  # seconds to wait for a file that another process has locked, as for a study's
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000  # the most letters that MLflow takes
# The two places of a checkpoint in a store on another machine.
SLOTS = {
    "last": ("checkpoints/last.ckpt", "checkpoints/last.previous.ckpt"),
    "best": ("checkpoints/best.ckpt", "checkpoints/best.previous.ckpt"),
}
WORKER_TAG = "worker"
Point = tuple[str, float, int]  # of a metric: its name, value, step
T = TypeVar("T")
MODEL_TRAINING = "custom_model_development"  # the kind of experiment that opens in the UI's training view, with curves

for _name, _value in (
    ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
    ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),  # 7 by default, four minutes of silence; outbox.py tries again itself
    ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
    ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
):
    os.environ.setdefault(_name, _value)
for _name in ("mlflow", "alembic", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)
logging.getLogger(compat.MLFLOW_DATABASE_LOG).setLevel(logging.CRITICAL)


class Store:
    """An MLflow store and the experiment in it; each is made on first use, by one process at a time.

    Args:
        retry_seconds: how long calls to a server that is away are retried, at the start and in :meth:`retry`.
        check: called while waiting; may raise to stop.

    Raises ConnectionError if a server does not answer, by default within seconds, or the store cannot be used.
    """

    def __init__(self, tracking: TrackingConfig, retry_seconds: float = 0.0, check: Callable[[], None] = lambda: None):
        self.retry_seconds, self.check = retry_seconds, check
        self.path = sqlite_path(tracking.uri)
        self.uri = absolute_uri(tracking.uri)
        # This folder keeps what is not an artifact yet, and local data of a store on another machine.
        self.folder = self.path.parent if self.path else Path("mlruns").absolute()
        self.is_local = self.path is not None
        self.tracking = tracking
        with self._opening():
            self.client = self.retry(lambda: MlflowClient(tracking_uri=self.uri))
            self._found = self.retry(self._look)

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """A context in which no other process makes tables or experiments; the store's errors become one line."""
        lock = locked(self.folder / ".lock") if self.is_local else contextlib.nullcontext()
        with lock, said_shortly(self.tracking.uri):
            yield

    @cached_property
    def experiment(self) -> str:
        """The id of the experiment; it is created if it does not exist."""
        with self._opening():
            found = self._found or self.retry(self._make)
            self._bring_home(found)
        return found

    def _look(self) -> str | None:
        """The id of the experiment; None if there is none. Raises CommandError if it was deleted."""
        name = self.tracking.experiment
        found = self.client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            where = "MLFLOW_TRACKING_URI=" + shlex.quote(self.uri)
            advice = f"takes another name, or restore it first: {where} {restore}"
            raise CommandError([f"tracking.experiment: got {name!r}, which was deleted; {advice}"])
        return None if found is None else str(found.experiment_id)

    def _make(self) -> str:
        local = local_files.home(self.path).as_uri() if self.path else None
        try:
            return self.client.create_experiment(
                self.tracking.experiment, artifact_location=local, tags={"mlflow.experimentKind": MODEL_TRAINING}
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process has made it meanwhile
                raise
            return self._look() or self._make()

    def _bring_home(self, experiment: str) -> None:
        if self.path:
            local_files.bring_home(self.path, experiment)

    def retry(self, call: Callable[[], T]) -> T:
        """The result of ``call``, retried while the server is away or another process locks the file. Raises any other
        error of ``call``, and also these after too long."""
        if self.is_local:
            return retry(call, is_locked, LOCKED, self.check, at_the_end=lambda error: still_locked(self.tracking.uri))
        return retry(call, is_outage, self.retry_seconds, self.check)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context whose writes to a store on this machine are one transaction: each by itself waits for the disk
        several times. The store gets all of them, or none. What is sent to a server goes one by one."""
        with first_error(), compat.one_transaction(self.client) if self.is_local else contextlib.nullcontext():
            yield

    def start_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> "Run":
        """A new run, RUNNING."""
        name = shortened(name, LONGEST_NAME)
        all_tags = {"mlflow.runName": name, "mlflow.source.name": "train.py", **tags}
        all_tags = {key: shortened(value, LONGEST_TAG) for key, value in all_tags.items()}
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        experiment = self.experiment
        info = self.retry(lambda: self.client.create_run(experiment, tags=all_tags, run_name=name)).info
        run = Run(self, info)
        run.make_folder()
        return run

    def run(self, run_id: str) -> "Run | None":
        """A run of this store; None if it has no such run."""
        try:
            info = self.retry(lambda: self.client.get_run(run_id)).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return Run(self, info)

    def reopen_run(self, run_id: str) -> "Run | None":
        """A run of this store, RUNNING again; None if there is no such run, or it was deleted."""
        run = self.run(run_id)
        if run is not None and run.is_deleted:
            return None
        if run is not None:
            with self._opening():
                self._bring_home(run.experiment)
            run.make_folder()
            self.retry(lambda: self.client.update_run(run_id, status="RUNNING"))
            with contextlib.suppress(MlflowException):  # it has none
                self.client.delete_tag(run_id, "stop.reason")
        return run

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """The paths of a run's artifacts in a folder of theirs."""
        return [info.path for info in self.client.list_artifacts(run_id, folder) if not info.is_dir]

    def artifact(self, run_id: str, path: str, folder: Path | None = None) -> Path | None:
        """A run's artifact as a local file, or None if there is none. An artifact on another machine is downloaded into
        ``folder``, by default a temporary one."""
        try:
            run = self.run(run_id)
            if run is not None and run.is_local:
                return run.folder / path if (run.folder / path).exists() else None
            return Path(self.client.download_artifacts(run_id, path, None if folder is None else str(folder)))
        except (MlflowException, OSError):
            return None

    def artifact_here(self, run_id: str, path: str) -> Path | None:
        """A run's artifact in a store on this machine, found without a query, which takes some milliseconds. None if it
        cannot be found so."""
        if self.path is None or not re.fullmatch(r"[0-9a-f]{32}", run_id):
            return None
        found = local_files.folder_of(self.path, run_id) / path
        return found if found.exists() else None

    def tags_of_runs(self, tag: str, value: str) -> list[dict[str, str]] | None:
        """The tags of at most 1,000 runs that have a tag of this value, from all experiments and deleted runs, too.
        None if the store does not answer."""
        with contextlib.suppress(MlflowException, OSError):
            everywhere = [e.experiment_id for e in self.client.search_experiments(view_type=ViewType.ALL)]
            query = f"tags.`{tag}` = '{value}'"
            found = self.client.search_runs(everywhere, query, run_view_type=ViewType.ALL, max_results=1000)
            return [dict(run.data.tags) for run in found]
        return None

    def children(self, parent: str, status: str) -> list[Any]:
        """The runs under a parent that have a status."""
        query = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = '{status}'"
        return list(self.client.search_runs([self.experiment], query, max_results=1000))


class Run:
    """An open MLflow run.

    Attributes:
        id: MLflow's run id.
        folder: the run's artifacts as local files. Files written here are at once in a store on this machine;
            :meth:`finish` sends them to a store elsewhere.
    """

    def __init__(self, store: Store, info: RunInfo):
        self.store, self.id, self.experiment = store, str(info.run_id), str(info.experiment_id)
        self.is_deleted = info.lifecycle_stage == "deleted"  # in MLflow; `mlflow gc` would remove it for good
        if store.path:
            self.is_local = local_files.is_on_a_disk(info.artifact_uri)
        else:  # True for a server that shares its disk with this machine
            self.is_local = info.artifact_uri.startswith("file:")
        if not self.is_local:
            self.folder = pending_folder(store.folder, self.id)
        elif store.path:
            self.folder = local_files.folder_of_run(store.path, self.id, info.artifact_uri)
        else:
            self.folder = compat.path_of_file_uri(info.artifact_uri)
        self._newest = dict.fromkeys(SLOTS, 1)  # which of its two places in the store holds the newest checkpoint
        self._best_sent: float | None = None

    def make_folder(self) -> None:
        """Make :attr:`folder`. Raises ValueError if it, or its folder of checkpoints, is a link."""
        of_all_runs = self.folder.parents[1 if self.is_local else 0]
        make_folder(self.folder, of_all_runs)
        refuse_link(self.folder / "checkpoints")

    def last_state(self, take_over: bool = False) -> dict[str, Any] | None:
        """The run's last checkpoint, the later one of this machine's and the store's; None if it has none.
        Raises ValueError if there are checkpoints and none can be read.

        Args:
            take_over: first record in the store that this process resumes the run.
        """
        from tbptt.runs import checkpoint, contents

        here = self.folder / "checkpoints"
        if self.is_local:
            return checkpoint.load_newest(here / "last.ckpt")
        is_own = self.store.retry(self.is_own)
        if take_over:
            self.take_over()
        found: list[tuple[dict[str, Any], int | None]] = []
        damage: list[ValueError] = []
        with tempfile.TemporaryDirectory() as folder:
            copies = [(self._fetch(path, folder), i) for i, path in enumerate(SLOTS["last"])]
            # The checkpoints on this machine count only if no other machine has resumed the run since.
            own = [here / "last.ckpt", checkpoint.previous(here / "last.ckpt")] if is_own else []
            for path, place in [*copies, *((path, None) for path in own)]:
                if path is not None and path.exists():
                    try:
                        found.append((checkpoint.load(path, contents.OF_A_RUN), place))
                    except ValueError as error:
                        damage.append(error)
        if not found:
            if len(damage) > 1:
                raise damage[0]
            if damage:  # the upload of the first checkpoint was cut short: as if there were none
                log.warning("run %s: %s", self.id, damage[0])
            return None
        state, place = max(found, key=lambda one: (one[0]["epoch"], one[1] is None))
        self._newest["last"] = 1 if place is None else place
        if place is not None:
            self._fetch_best(state["best"]["epoch"])
        return state

    def why_no_checkpoint(self) -> str:
        """The message about a run for which :meth:`last_state` found no checkpoint."""
        if self.is_local and self.store.client.get_run(self.id).data.metrics:  # metrics are sent after each checkpoint
            return f"its files are not in {self.folder}, where they were expected: bring them there, or begin anew"
        return "that run has no checkpoint: it did not finish its first epoch"

    def is_own(self) -> bool:
        """Whether the owner in this folder is the last process that took the run over, according to the store. For a
        store on this machine it always is."""
        if self.is_local:
            return True
        owner = self.folder / OWNER
        return owner.exists() and self.tags().get(WORKER_TAG) == as_tag(owner)

    def take_over(self) -> None:
        """Record in the store that this process has the run now; other processes then send no more data for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / OWNER, this_owner())
        self.store.retry(lambda: self.set_tags({WORKER_TAG: as_tag(self.folder / OWNER)}))

    def _fetch(self, path: str, folder: str) -> Path | None:
        """A copy of an artifact; None if there is none. Raises an error if the store is away."""
        listed = self.store.retry(lambda: self.store.artifacts(self.id, str(Path(path).parent)))
        if path not in listed:
            return None
        return Path(self.store.retry(lambda: self.store.client.download_artifacts(self.id, path, folder)))

    def _fetch_best(self, epoch: int | None) -> None:
        """Copy the best epoch's checkpoint to this machine, if another machine's worker left it in the store."""
        from tbptt.runs import checkpoint, contents

        with tempfile.TemporaryDirectory() as folder:
            for place, path in enumerate(SLOTS["best"]):
                copy = self._fetch(path, folder)
                if copy is None:
                    continue
                with contextlib.suppress(ValueError):
                    if checkpoint.load(copy, contents.OF_A_RUN)["epoch"] == epoch:
                        make_folder(self.folder / "checkpoints", self.folder)
                        with replaced(self.folder / path) as beside:
                            shutil.copyfile(copy, beside)
                        self._newest["best"] = place

    def send_checkpoints(self) -> None:
        """Send the checkpoints, so that another machine can resume the run. Each has two places in the store and
        overwrites the older one, as an upload may be cut short."""
        best, last = self.folder / "checkpoints" / "best.ckpt", self.folder / "checkpoints" / "last.ckpt"
        with tempfile.TemporaryDirectory() as folder:
            copies = {}
            for what, path in (("last", last), ("best", best)):  # training goes on: the best of ``last`` exists already
                if is_own_file(path):
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
        """Log params, already flattened; lists and null are written as on the command line."""
        entities = [Param(name, shortened(as_text(value), LONGEST_PARAM)) for name, value in params.items()]
        for part in _batches(entities, MOST_PARAMS):
            self.store.client.log_batch(self.id, params=part)

    def log_points(self, points: Iterable[Point], milliseconds: int) -> None:
        """Log metric points (name, value, step) of one moment, in as few calls as MLflow allows."""
        self.log_moments([(points, milliseconds)])

    def log_moments(self, moments: Iterable[tuple[Iterable[Point], int]]) -> None:
        """The same for several moments, each with its time in milliseconds."""
        metrics = [Metric(name, value, time, step) for points, time in moments for name, value, step in points]
        for part in _batches(metrics, MOST_METRICS):
            self.store.client.log_batch(self.id, metrics=part)

    def tags(self) -> dict[str, str]:
        return dict(self.store.client.get_run(self.id).data.tags)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self.store.client.log_batch(
            self.id, tags=[RunTag(name, shortened(str(value), LONGEST_TAG)) for name, value in tags.items()]
        )

    def keep(self, path: Path) -> None:
        """Put a copy of a file among the run's artifacts."""
        if not self.is_local:
            self.store.client.log_artifact(self.id, str(path))
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with replaced(self.folder / path.name) as beside:
            shutil.copyfile(path, beside)

    def finish(self, status: str, reason: str | None = None, leave_out: Sequence[str] = ()) -> None:
        """Send what is not in the store yet, then set ``stop.reason`` and the status: FINISHED, KILLED or FAILED."""
        if not self.is_local:
            for path in (p for p in self.folder.rglob("*") if is_own_file(p) and p.name not in leave_out):
                inner = path.parent.relative_to(self.folder)
                self.store.client.log_artifact(self.id, str(path), str(inner) if inner.parts else None)
            with contextlib.suppress(OSError):  # the folder is empty for a run without files here, such as a parent
                self.folder.rmdir()
        if reason:
            self.set_tags({"stop.reason": reason})
        self.store.client.set_terminated(self.id, status)


def as_text(value: object) -> str:
    """A param's value, as a user would type it on the command line."""
    if isinstance(value, list | tuple | dict) or value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    yield from (items[i : i + size] for i in range(0, len(items), size))
