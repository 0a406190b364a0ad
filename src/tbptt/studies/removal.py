"""Remove a study: its trials, its folder, its runs with their checkpoints, models and what is pending of them.

The order makes an interrupted removal one that can be given again: the runs go first, and the study itself, which knows
them, goes last. All of it happens under the study's lock, so no worker takes a trial meanwhile.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import optuna

from tbptt.runs.removing import (
    InUse,
    folder_with,
    held,
    registered,
    remove_run,
    runs_tagged,
    size_of,
)
from tbptt.runs.tracking import Run, Store
from tbptt.studies.found import folder_of
from tbptt.studies.living import workers_of
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study


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
    return [*(each.run for each in below), *(each.run for each in tagged if each.run.id == parent)]


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
        for done, run in enumerate(goes.runs):
            assert store is not None
            store.retry(partial(remove_run, store, run))
            tell(done + 1, len(goes.runs))
        if (folder := folder_of(study.name)) is not None:
            shutil.rmtree(folder)
        optuna.delete_study(study_name=study.name, storage=study.storage)
    study.close()
    if study.path is not None:
        (study.path.parent / f".{study.name}.lock").unlink(missing_ok=True)
    return goes
