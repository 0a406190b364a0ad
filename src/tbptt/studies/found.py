"""Finding a study by what a user calls it: its name, or its folder."""

import difflib
import os
from pathlib import Path

from tbptt.config.names import STUDY_NAME, SWEEPS
from tbptt.config.schema import TrackingConfig
from tbptt.runs.tracking import Store
from tbptt.studies.study import Study
from tbptt.system.stores import SQLITE, sqlite_path, without_password

DATABASE, RUNS = "optuna.db", "mlruns/mlflow.db"  # in the folder of studies, and beside that folder
DEFAULT_STORAGE, DEFAULT_URI = f"{SQLITE}{SWEEPS / DATABASE}", f"{SQLITE}{RUNS}"


def study_called(what: str | Path, storage: str | None = None) -> Study:
    """An existing study.

    Args:
        what: its name, or its folder, such as ``sweeps/NAME``.
        storage: where it is kept; the default is the command's, or ``optuna.db`` beside the study's folder.

    Raises ValueError, with a line that names similar ones, if there is no such study.
    """
    name, uri = Path(what).name, storage or _beside(what, DATABASE) or DEFAULT_STORAGE
    try:
        return Study.existing(name, uri)
    except KeyError as error:
        raise ValueError(f"study: got {name!r}; {takes(name, error.args[0], uri)}") from None


def takes(name: str, known: list[str], storage: str) -> str:
    """What would be right instead of a study that does not exist."""
    return f"takes a study of {without_password(storage)}: {', '.join(known) or 'none yet'}{did_you_mean(name, known)}"


def did_you_mean(name: str, known: list[str]) -> str:
    """The similar name in brackets, behind a list of known ones; empty if there is none."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def store_of(what: str | Path, tracking_uri: str | None = None) -> Store:
    """The store of a study's runs.

    Args:
        what: as for :func:`study_called`.
        tracking_uri: the default is the variable MLFLOW_TRACKING_URI, or the store beside the folder of studies.

    Raises ValueError if there is no such file.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _beside(what, f"../{RUNS}") or DEFAULT_URI
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise ValueError(f"tracking_uri: there is no store {path}")
    return Store(TrackingConfig(uri=uri))


def folder_of(study: str) -> Path | None:
    """A study's folder; None if there is none. In a storage from elsewhere a study may be called ``..``, or be a path;
    and a link leads elsewhere."""
    folder = SWEEPS / study
    return folder if STUDY_NAME.test(study) and folder.is_dir() and not folder.is_symlink() else None


def _beside(what: str | Path, name: str) -> str | None:
    """The URI of a database beside a study's folder; None if ``what`` is a name, or if there is no such file."""
    there = Path(what).parent / name
    return f"{SQLITE}{there}" if Path(what).parent != Path() and there.exists() else None
