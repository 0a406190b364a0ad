"""Remove a study: its trials, its folder, its runs with their checkpoints, models and what is pending of them.

The order makes an interrupted removal one that can be given again: the runs go first, and the study itself, which knows
them, goes last. All of it happens under the study's lock, so no worker takes a trial meanwhile.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna

from tbptt.runs.local_files import is_run_id, size_of
from tbptt.runs.removing import (
    InUse,
    folder_with,
    held,
    registered,
    remove_run,
    runs_tagged,
)
from tbptt.runs.tracking import Run, Store
from tbptt.studies import saved_view
from tbptt.studies.found import folder_of, uri_of_runs
from tbptt.studies.living import is_swept, workers_of
from tbptt.studies.records import StudyRecord, TrialRecord
from tbptt.studies.study import Study
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path, without_password


@dataclass(frozen=True)
class Goes:
    """What a removal removes.

    Attributes:
        runs: the study's runs, its parent run last; empty if they are kept.
        bytes: of its folder and of its runs' files on this machine.
    """

    trials: int
    runs: list[Run]
    bytes: int

    @property
    def said(self) -> str:
        return f"{self.trials} trials, {len(self.runs)} runs, {self.bytes / 1e6:.1f} MB of files"


def what_goes(study: Study, store: Store | None) -> Goes:
    """What the removal of a study removes.

    Args:
        store: of its runs; None keeps them.

    Raises:
        InUse: a process runs one of its trials or has one of its runs, or one of its models is registered.
    """
    if workers := workers_of(study.living()):
        raise InUse(f"study {study.name} runs ({'; '.join(workers)}); stop it first")
    parent = study.record.parent_run
    if parent and is_run_id(parent) and (its := _folder_of_runs(study, store)) and is_swept(its, parent):
        raise InUse(f"study {study.name} runs (its sweep is at work on this machine); stop it first")
    runs = [] if store is None else _runs_of(study, store)
    folder = folder_of(study.name)
    count = size_of(folder) if folder else 0
    ids = {run.id for run in runs}
    for version in store.client.search_model_versions() if store is not None else ():
        if version.run_id in ids:
            raise InUse(registered(version))
    for run in runs:
        assert store is not None
        with held(store, run.id, whole=False):
            pass
        its = folder_with(store, run)
        count += size_of(its) if its else 0
    return Goes(len(study.optuna.get_trials(deepcopy=False)), runs, count)


def _runs_of(study: Study, store: Store) -> list[Run]:
    """All runs of a study that its store has, the parent run last.

    They have the study's name, and the study knows them or they are below its parent run: another study of this name
    may be kept elsewhere. Raises InUse if a run on a server is RUNNING: another machine may train it.
    """
    parent = study.record.parent_run
    recorded = {r for t in study.optuna.get_trials(deepcopy=False) for r in _known(TrialRecord.of(t))}
    tagged = store.retry(lambda: runs_tagged(store, study.name))
    below = [each for each in tagged if each.run.id in recorded or (parent and each.parent == parent)]
    for each in below:
        if each.is_running and not store.is_local:
            how = "give the study's command again, which closes the runs that no process trains"
            raise InUse(f"run {each.run.id} is RUNNING on the server, and another machine may train it; {how}")
    if not study.record.removal_begun:
        _refuse_missing(study, store, recorded | ({parent} if parent else set()), {each.run.id for each in tagged})
    return [*(each.run for each in below), *(each.run for each in tagged if each.run.id == parent)]


def _folder_of_runs(study: Study, store: Store | None) -> Path | None:
    """The folder of the store of a study's runs; None if they are on a server."""
    if store is not None:
        return store.folder if store.is_local else None
    with suppress(ValueError):
        path = sqlite_path(uri_of_runs(study))
        return path.parent if path else None
    return None


def _refuse_missing(study: Study, store: Store, recorded: set[str], there: set[str]) -> None:
    """Raise InUse if the store lacks runs that the study names: it is another, and once the study is gone, nothing
    would tell which runs were the study's."""
    named = {run for run in recorded if is_run_id(run)}
    lost = [run for run in sorted(named - there) if store.retry(partial(store.run, run)) is None]
    if not lost:
        return
    kept = without_password(hide(study.record.tracking_uri or ""))
    where = f" (the study names {kept})" if kept and kept != store.tracking.uri else ""
    lack = f"{len(lost)} of its {len(named)} runs are not in {without_password(hide(store.tracking.uri))}{where}"
    raise InUse(f"{lack}; takes tracking.uri=URI of the store that has them, or --keep-runs")


def _known(record: TrialRecord) -> set[str]:
    return {*record.run_ids, *record.resume}


def remove(study: Study, store: Store | None, tell: Callable[[int, int], None] = lambda done, of: None) -> Goes:
    """Remove a study.

    Args:
        store: of its runs; None keeps them.
        tell: called with how many runs are removed, and of how many.

    Raises InUse as :func:`what_goes` does; unless a run was resumed just now, nothing is removed then.
    """
    with study.locked():
        goes = what_goes(study, store)
        if goes.runs:
            StudyRecord.removal_begun.write(study.optuna, True)  # given again, it does not miss the runs that are gone
        for done, run in enumerate(goes.runs):
            assert store is not None
            store.retry(partial(remove_run, store, run))
            tell(done + 1, len(goes.runs))
        if store is not None:
            saved_view.remove(study.name, store)
        if (folder := folder_of(study.name)) is not None:
            shutil.rmtree(folder)
        optuna.delete_study(study_name=study.name, storage=study.storage)
    study.close()
    if study.path is not None:
        (study.path.parent / f".{study.name}.lock").unlink(missing_ok=True)
    return goes
