"""Removing what a run left: its checkpoints and models, or the whole run. A run in use is never touched.

A run is in use if a process has claimed it (``pending/RUN``), if its store lacks some of its data, if MLflow says that
it is RUNNING, or if one of its models is registered.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tbptt import compat
from tbptt.runs import local_files
from tbptt.runs.local_files import CHECKPOINTS, is_run_id, size_of
from tbptt.runs.pending import CLAIM, JOURNAL, RunTaken, claim_left_run, let_go, pending_folder
from tbptt.runs.tracking import SLOTS, Run, Store
from tbptt.system.claims import is_held_here
from tbptt.system.files import is_own_file
from tbptt.system.stores import without_password

REMOVES = {"last": SLOTS["best"], "none": (*SLOTS["best"], *SLOTS["last"])}  # by what is kept: the files that are not
MOST_RUNS = 1000  # in one answer of MLflow's


class InUse(Exception):
    """A run is in use. The message says by what."""


class CannotRemove(Exception):
    """The place of a run's files does not let them be removed."""


@dataclass(frozen=True)
class Known:
    """A run of a study, as MLflow has it.

    Attributes:
        kept: its tag CHECKPOINTS.
        parent: the run above it.
    """

    run: Run
    is_running: bool
    kept: str | None
    parent: str | None


def said(keep: str) -> str:
    """The tag of a run whose checkpoints were removed, by ``tracking.keep``."""
    return f"kept: {'last.ckpt' if keep == 'last' else 'none'} (tracking.keep={keep})"


def runs_tagged(store: Store, study: str) -> list[Known]:
    """All runs of a study that its store has, from all experiments, deleted ones too; the parent run is one of them."""
    everywhere = [e.experiment_id for e in store.client.search_experiments(view_type=ViewType.ALL)]
    quote, token = '"' if "'" in study else "'", None
    query = "" if quote in study else f"tags.`study.name` = {quote}{study}{quote}"
    found: list[Known] = []
    while True:
        page = store.client.search_runs(everywhere, query, ViewType.ALL, MOST_RUNS, page_token=token)
        for run in page:
            if run.data.tags.get("study.name") != study or not is_run_id(run.info.run_id):
                continue
            tags, is_running = run.data.tags, run.info.status == "RUNNING"
            found.append(Known(Run(store, run.info), is_running, tags.get(CHECKPOINTS), tags.get("mlflow.parentRunId")))
        token = page.token
        if not token:
            return found


# --- runs in use ----------------------------------------------------------------------------------------------------


@contextmanager
def held(store: Store, run_id: str, whole: bool = True) -> Iterator[Path]:
    """A context in which no other process trains or resumes a run, with the run's ``pending`` folder.

    Args:
        whole: whether the store must have all data of the run.

    Raises InUse if another process does, this process does, or data are missing.
    """
    folder = pending_folder(store.folder, run_id)
    if is_held_here(folder / CLAIM):
        raise InUse(f"run {run_id} is being trained by this process")
    try:
        claim_left_run(folder)
    except RunTaken as taken:
        raise InUse(str(taken)) from None
    try:
        if whole and (folder / JOURNAL).exists():
            raise InUse(f"run {run_id} may still be resumed, or its store does not have all of it yet")
        yield folder
    finally:
        let_go(folder)


def refuse_registered(store: Store, run_id: str) -> None:
    """Raise InUse if a version of a registered model comes from a run."""
    for version in store.client.search_model_versions(f"run_id = '{run_id}'"):
        raise InUse(registered(version))


def registered(version: Any) -> str:
    """Why the run of a version of a registered model stays."""
    call = f"MlflowClient(URI).delete_model_version({version.name!r}, {str(version.version)!r})"
    how = f"on the model's page in MLflow or by {call}"
    which = f"model {version.name}, version {version.version}"
    return f"run {version.run_id} is registered as {which}; delete that first, {how}"


# --- a run's checkpoints --------------------------------------------------------------------------------------------


def drop_checkpoints(store: Store, run_id: str, keep: str) -> int:
    """Remove a run's checkpoints, and the models that were made of them; the tag CHECKPOINTS then says so.

    Args:
        keep: ``last`` leaves the last epoch's; ``best`` leaves none, as the run is not the best one.

    Returns:
        The bytes that were freed, as far as they are known.

    Raises:
        InUse: nothing is removed.
        CannotRemove: the place of its files does not let them be removed.
    """
    if not is_run_id(run_id):
        return 0
    try:
        found = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return 0
    run = Run(store, found.info)
    if run.is_deleted or found.data.tags.get(CHECKPOINTS) in (said("best"), said(keep)):
        return 0
    if found.info.status == "RUNNING":
        raise InUse(f"run {run_id} is RUNNING")
    refuse_registered(store, run_id)
    with held(store, run_id):
        freed = _remove_files(store, run, found.info.artifact_uri, REMOVES["last" if keep == "last" else "none"])
        freed += sum(remove_model(store, model) for model in models_of(store, run))
        run.set_tags({CHECKPOINTS: said(keep)})  # last: if this is interrupted, it is done again
    return freed


def _remove_files(store: Store, run: Run, uri: str, paths: Sequence[str]) -> int:
    freed = 0
    if store.path and (
        local_files.server_problem(uri) or not run.is_local
    ):  # it may have come from elsewhere, and name any server
        where = without_password(uri)[:100]
        raise InUse(f"run {run.id} keeps its files at {where}: a SQLite store does not decide where any are removed")
    if run.is_local:
        if store.path and folder_with(store, run) is None and run.folder.exists():
            raise InUse(f"run {run.id} keeps its files: {run.folder} is no folder of its own")
        if (run.folder / CHECKPOINTS).is_symlink():
            raise CannotRemove(f"{run.folder / CHECKPOINTS} is a link")
        for file in (run.folder / each for each in paths):
            freed += file.stat().st_size if is_own_file(file) else 0
            file.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty, or not there
            (run.folder / CHECKPOINTS).rmdir()
        return freed
    listed = {info.path: info.file_size or 0 for info in store.client.list_artifacts(run.id, CHECKPOINTS)}
    for path in (path for path in paths if path in listed):
        _remove_from(store, uri, path)
        freed += listed[path]
    return freed


def _remove_from(store: Store, uri: str, path: str | None = None) -> None:
    """Remove an artifact, or all of them, from a place on another machine."""
    try:
        get_artifact_repository(uri, tracking_uri=store.uri).delete_artifacts(path)
    except NotImplementedError as error:
        raise CannotRemove(f"files cannot be removed from {uri.partition(':')[0]}:") from error


# --- a run's models -------------------------------------------------------------------------------------------------


def models_of(store: Store, run: Run) -> list[Any]:
    """MLflow's logged models that were made by a run."""
    query = f"source_run_id = '{run.id}'"
    return list(store.client.search_logged_models([run.experiment], filter_string=query))


def remove_model(store: Store, model: Any, for_good: bool = False) -> int:
    """Remove a logged model with its files. Returns the bytes that were freed.

    Args:
        for_good: remove its rows from the database too, which is only possible without a server.
    """
    folder, freed = _folder_of_model(store, model), 0
    if folder is not None:
        freed = size_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
    elif not model.artifact_location.startswith("file:") and store.path is None:
        listed = get_artifact_repository(model.artifact_location, tracking_uri=store.uri).list_artifacts()
        freed = sum(info.file_size or 0 for info in listed)
        _remove_from(store, model.artifact_location)
    store.client.delete_logged_model(model.model_id)
    if for_good:
        compat.remove_model_for_good(store.client, model.model_id)
    return freed


def _folder_of_model(store: Store, model: Any) -> Path | None:
    """The folder of a model's files, if they are on this machine and nothing else is in it. A database may have come
    from elsewhere, and name any folder."""
    if store.path is None or not re.fullmatch(r"m-[0-9a-f]{32}", model.model_id):
        return None
    here = local_files.home(store.path) / "models" / model.model_id
    return here if here.is_dir() and not here.is_symlink() else None


# --- whole runs -----------------------------------------------------------------------------------------------------


def folder_with(store: Store, run: Run) -> Path | None:
    """The folder with all files of a run in a store on this machine, and nothing else; None if there is none."""
    if store.path is None or not run.is_local:
        return None
    folder = run.folder.parent
    is_its_own = run.folder.name == "artifacts" and folder.name == run.id
    return folder if is_its_own and folder.is_dir() and not folder.is_symlink() else None


def remove_run(store: Store, run: Run) -> None:
    """Remove a run with its models and what is pending of it. Interrupted, it can be called again.

    From a store on this machine it goes for good, files and rows, as with ``mlflow gc``. On a server it gets the state
    "deleted", and ``mlflow gc`` there removes the rest.

    Raises InUse if another process has the run; nothing is removed then.
    """
    assert is_run_id(run.id)
    with held(store, run.id, whole=False) as pending:
        for model in models_of(store, run) if not run.is_deleted or store.path else ():
            if store.path:
                remove_model(store, model, for_good=True)
            else:
                store.client.delete_logged_model(model.model_id)
        if not run.is_deleted:
            store.client.delete_run(run.id)
        if (folder := folder_with(store, run)) is not None:
            shutil.rmtree(folder)
        if pending.is_dir() and not pending.is_symlink():
            for path in pending.rglob("*"):
                if path.name != CLAIM and not path.is_dir():
                    path.unlink(missing_ok=True)
        if store.path:
            compat.remove_run_for_good(store.client, run.id)
    if pending.is_dir() and not pending.is_symlink():
        shutil.rmtree(pending, ignore_errors=True)  # empty folders
