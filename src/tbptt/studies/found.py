"""Finding a study by what a user calls it, its name or its folder, and the store of its runs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tbptt.config.names import DEFAULT_STORAGE, STUDY_NAME, SWEEPS
from tbptt.config.schema import TrackingConfig
from tbptt.options.similar import did_you_mean
from tbptt.studies.study import Study
from tbptt.system.environment import DEFAULT_URI, uri_given
from tbptt.system.stores import OF_OPTUNA, SQLITE, foreign, sqlite_path, without_password

if TYPE_CHECKING:  # MLflow takes seconds to import, and who lists studies does not need it
    from tbptt.runs.tracking import Store

DATABASE, RUNS = "optuna.db", "mlruns/mlflow.db"  # in the folder of studies, and beside that folder


@dataclass(frozen=True)
class Named:
    """What a user calls a study.

    Attributes:
        storage: where it is kept.
        is_here: whether the folder, if one was given, is ``sweeps/NAME`` of the working folder.
        base: the folder from which the relative paths that the study has kept begin.
    """

    name: str
    storage: str
    is_here: bool
    base: Path = Path()


def named(what: str | Path, storage: str | None = None) -> Named:
    """What is meant by a study's name, or by its folder. Nothing needs to exist.

    Args:
        storage: where it is kept; the default is the command's, or ``optuna.db`` beside a folder that is elsewhere.
    """
    path = Path(what)
    if "/" not in str(what) or path.resolve() == (SWEEPS / path.name).resolve():
        return Named(path.name, storage or DEFAULT_STORAGE, True)
    there = path.parent / DATABASE
    base = path.resolve().parents[1] if len(path.resolve().parents) > 1 else Path()
    if storage or there.exists():
        return Named(path.name, storage or f"{SQLITE}{there}", False, base)
    return Named(path.name, DEFAULT_STORAGE, False, base)


def is_in_its_storage(it: Named, storage: str | None) -> bool:
    """Whether the study would be in the storage. A folder elsewhere is not taken for the study of its name here.

    Args:
        storage: the one that the user named.
    """
    return it.is_here or storage is not None or it.storage != DEFAULT_STORAGE


def names_in(storage: str) -> list[str]:
    """The names of a storage's studies. Raises ValueError if it is a database of something else."""
    path = sqlite_path(storage)
    if path is not None and (problem := foreign(path, OF_OPTUNA)):
        raise ValueError(f"studies: {problem}")
    return sorted(name for name, record in Study.records(storage).items() if record.objectives)


def study_called(what: str | Path, storage: str | None = None, key: str = "study", here: bool = False) -> Study:
    """An existing study.

    Args:
        what, storage: as for :func:`named`.
        key: what the user gave it as, for messages.
        here: whether its folder must be in ``sweeps/`` here.

    Raises ValueError, with a line that names similar ones, if there is no such study.
    """
    it = named(what, storage)
    if (here and not it.is_here) or not is_in_its_storage(it, storage):
        right = f"takes a study's name, or its folder {SWEEPS}/NAME"
        raise ValueError(f"{key}: got {str(what)!r}, which is not {SWEEPS / it.name} of the working folder; {right}")
    try:
        return Study.existing(it.name, it.storage)
    except KeyError as error:
        raise ValueError(f"{key}: got {it.name!r}; {takes(it.name, error.args[0], it.storage)}") from None
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def takes(name: str, known: list[str], storage: str) -> str:
    """What would be right instead of a study that does not exist."""
    return f"takes a study of {without_password(storage)}: {', '.join(known) or 'none yet'}{did_you_mean(name, known)}"


def uri_of_runs(study: Study, tracking_uri: str | None = None, base: Path = Path()) -> str:
    """The store of a study's runs: the one given, or the variable MLFLOW_TRACKING_URI, or the SQLite file that the
    study names, or the default.

    Args:
        base: the folder from which a relative path that the study names begins.

    Raises ValueError if the study names a server. It is not taken from a file: it would be sent the user's credentials.
    """
    if given := uri_given(tracking_uri):
        return given
    kept = study.record.tracking_uri or DEFAULT_URI
    path = sqlite_path(kept)
    if path is not None:
        return kept if base == Path() else f"{SQLITE}{base / kept.removeprefix(SQLITE)}"
    if kept.startswith("$"):  # a variable's, which was not kept
        return DEFAULT_URI
    raise ValueError(f"study {study.name}: its runs are in {without_password(kept)}; say so: tracking.uri={kept}")


def store_of(
    study: Study, tracking: TrackingConfig | None = None, uri: str | None = None, base: Path = Path()
) -> "Store":
    """The store of a study's runs, which is not made.

    Args:
        uri, base: as for :func:`uri_of_runs`.

    Raises ValueError if there is no such file.
    """
    from tbptt.runs.tracking import Store

    where = uri_of_runs(study, uri, base)
    path = sqlite_path(where)
    if path is not None and not path.exists():
        raise ValueError(f"there is no store {path}")
    return Store(replace(tracking, uri=where) if tracking else TrackingConfig(uri=where))


def opened(what: str | Path, tracking_uri: str | None, storage: str | None) -> "tuple[Study, Store]":
    """A study and the store of its runs, for Python. Raises ValueError if there is no such study or store."""
    study, base = study_called(what, storage), named(what, storage).base
    try:
        return study, store_of(study, uri=tracking_uri, base=base)
    except ValueError as error:
        study.close()
        raise ValueError(f"tracking_uri: {error}") from None


def folder_of(study: str) -> Path | None:
    """A study's folder; None if there is none. In a storage from elsewhere a study may be called ``..``, or be a path;
    and a link leads elsewhere."""
    folder = SWEEPS / study
    return folder if STUDY_NAME.test(study) and folder.is_dir() and not folder.is_symlink() else None
