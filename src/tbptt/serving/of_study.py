"""The checkpoint of a study's best trial, found by the study's name or folder."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tbptt.config.names import SWEEPS
from tbptt.options.similar import similar
from tbptt.serving.source import Source, of_run
from tbptt.system.stores import without_password

if TYPE_CHECKING:
    from tbptt.studies.found import Named


def of_study(what: str, tracking_uri: str | None, which: str, storage: str | None) -> Source:
    """The checkpoint of a study's best trial.

    Args:
        what: the study's name, or its folder. A study that is not in the storage, such as one that somebody sent, has
            the ``best.ckpt`` in its folder.
        tracking_uri, which, storage: as for :func:`tbptt.serving.source.find`. The store of the study's runs is the
            one given, or the SQLite file that the study names, or the default. The server that a study names is not
            asked unless the user names it too.

    Raises:
        ValueError: there is no such study, or none of its trials can be used.
    """
    from tbptt.studies.found import is_in_its_storage, named, names_in

    it = named(what, storage)
    name, where = it.name, it.storage
    known = names_in(where)
    if is_in_its_storage(it, storage) and name in known:
        return _best(it, tracking_uri, which)
    folder = _folder(what)
    if folder is not None and (folder / "best.ckpt").is_file():
        return _of_folder(folder, name, where, which)
    if folder is not None:
        raise ValueError(f"{what} has no best.ckpt, and {_said(where)} has no study {name!r}; {_takes(name, known)}")
    raise ValueError(f"got {what!r}: {_said(where)} has no such study; {_takes(name, known)}")


def _folder(what: str) -> Path | None:
    """The folder that was meant: a path, or a name in ``sweeps/``."""
    if not what.strip("/. "):
        return None
    given = [Path(what)] if "/" in what else [SWEEPS / what, Path(what)]
    found = next((path for path in given if path.is_dir()), None)
    return Path(what) if found is None and "/" in what else found


def _takes(name: str, known: list[str]) -> str:
    from tbptt.serving.next_file import listed

    names = listed(map(repr, known))
    there = f"are {names}" if len(known) > 1 else f"is {names}" if known else "is none"
    near = similar(name, known)
    hint = f"; did you mean {near}?" if near else ""
    return f"takes a run's id, a study (there {there}), a file .ckpt, or a registered model models:/NAME@ALIAS{hint}"


def _said(storage: str) -> str:
    return without_password(storage)


def _best(it: "Named", tracking_uri: str | None, which: str) -> Source:
    from tbptt.options.values import shown
    from tbptt.studies.found import uri_of_runs
    from tbptt.studies.ranking import best_run, best_trial, complete
    from tbptt.studies.study import Study

    name = it.name
    study = Study.existing(name, it.storage)
    try:
        trials = study.read()
        best = best_trial(trials, *study.objectives)
        if best is None:
            raise ValueError(f"study {name}: none of its {len(trials)} trials is complete yet")
        if study.record.placebo_of:
            raise ValueError(f"study {name} is a placebo of {study.record.placebo_of}: none of its trials is chosen")
        run_id, words = best_run(study, best)
        count, objective = len(complete(trials)), study.objectives[0]
        if run_id is None:
            raise ValueError(f"study {name}: its best trial, {best.number}, names no run")
        uri = uri_of_runs(study, tracking_uri, it.base)
    finally:
        study.close()
    found = of_run(run_id, uri, which)
    of = f"the best of {count} complete trials" if count > 1 else "the only complete trial"
    why = f"study {name}: trial {best.number}, {of} by {objective} ({shown(best.values[0])}); run {run_id}"
    return replace(found, said=f"study {name}", why=f"{why}, {words}" if words else why)


def _of_folder(folder: Path, name: str, storage: str, which: str) -> Source:
    from tbptt.runs import checkpoint, contents

    if which != "best":
        raise ValueError(
            f"{folder} has the best checkpoint only: got {which!r}, and {_said(storage)} has no such study"
        )
    path = folder / "best.ckpt"
    why = f"{path}, as {_said(storage)} has no study {name!r}: which trial it is of is not known"
    return Source(checkpoint.load(path, contents.OF_A_RUN), str(path), why)
