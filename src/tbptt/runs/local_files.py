"""The place of run files in a store on this machine: beside its database, also after both were copied or moved.

MLflow stores the absolute path of the files when it creates an experiment or a run. After a project was copied or
moved, this path is a folder of another project, or does not exist any more.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from tbptt import compat
from tbptt.system.files import is_own_file
from tbptt.system.stores import without_password

CHECKPOINTS = "checkpoints"  # a run's folder of them, and the tag that says which of them were removed: removing.py
OBJECT_STORES = ("s3", "gs", "wasb", "wasbs", "abfs", "abfss", "r2", "oss")  # of a cloud, which knows its own users
PATHS = ("", "file")
ON_A_DISK = (*PATHS, "mlflow-artifacts")  # the last, without a host: an experiment that was made in the UI


def home(database: Path) -> Path:
    """The folder of all runs' files."""
    return database.parent / "artifacts"


def folder_of(database: Path, run_id: str) -> Path:
    """The folder of one run's files."""
    return home(database) / run_id / "artifacts"


def folder_of_model(database: Path, model_id: str, uri: str | None = None) -> Path:
    """The folder of one logged model's files: beside the database, if it exists there or the database names no other
    folder, ``uri``, that exists."""
    here = home(database) / "models" / model_id / "artifacts"
    there = _path(uri) if uri and is_on_a_disk(uri) else here
    return there if there != Path() and there.is_dir() and not here.exists() else here


def folder_of_run(database: Path, run_id: str, uri: str | None) -> Path:
    """The folder of a run's files, if the database names ``uri`` as their place.

    It is the folder beside the database if that exists. Otherwise it is ``uri``, but only if ``uri`` is a folder that
    somebody chose for an experiment, and not one of another project.
    """
    here = folder_of(database, run_id)
    if here.exists() or not uri or not is_on_a_disk(uri):
        return here
    there = _path(uri)
    is_chosen = len(there.parents) > 2 and there.exists() and not (there.parents[2] / ".lock").exists()
    return there if is_chosen else here


def is_on_a_disk(uri: str | None) -> bool:
    """Whether the files of a run are on this machine's disk if a database names ``uri`` as their place.

    They are not in an object store (S3, …). If it names a server, they are beside the database: it may have come from
    elsewhere, and MLflow would send the user's token to any server that it names.
    """
    return urlsplit(uri or "").scheme not in OBJECT_STORES


def why_removed(kept: str) -> str:
    """Why a run has no checkpoint, and what to do.

    Args:
        kept: the run's tag :data:`CHECKPOINTS`.
    """
    if "tracking.keep=last" in kept:
        last = "its study kept only the last checkpoint of trials that are beaten (tracking.keep=last), which is there"
        return f"{last}: takes which=last"
    what = "takes the study's name, which means its best trial, or train this one again"
    return f"its study kept only its best trial's checkpoints (tracking.keep=best): {what}"


def server_problem(place: str) -> str | None:
    """What is wrong with a place of files that a database names; None if it is on a disk or in an object store."""
    parts = urlsplit(place)
    if parts.scheme in OBJECT_STORES or (parts.scheme in ON_A_DISK and (parts.scheme in PATHS or not parts.netloc)):
        return None
    shown = without_password(place)[:100]
    return f"its files are at {shown}, and a SQLite store does not decide which server is asked for files"


def bring_home(database: Path, experiment: str) -> None:
    """Correct the place of an experiment's files in the database, for MLflow's UI and client.

    Other experiments with the same recorded place were moved together with this one, so their places are corrected,
    too. A run or a model keeps its old place if its files were left behind there.
    """
    here = home(database)
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        said = compat.place_of_experiment(opened, experiment)
        if not is_on_a_disk(said) or _is_same(said, here):
            return
        for each in compat.experiments_at(opened, said):
            compat.move_experiment(opened, each, here.as_uri())
            compat.move_runs(opened, _moved(database, compat.places_of_runs(opened, each), folder_of))
            compat.move_models(opened, _moved(database, compat.places_of_models(opened, each), folder_of_model))


def _moved(
    database: Path, places: Iterable[tuple[str, str]], folder: Callable[[Path, str], Path]
) -> list[tuple[str, str]]:
    """The runs or models whose files are beside the database now, or nowhere: the id and the new place of each."""
    return [
        (name, folder(database, name).as_uri())
        for name, uri in places
        if is_on_a_disk(uri) and (folder(database, name).exists() or not _path(uri).exists())
    ]


def _path(uri: str) -> Path:
    return compat.path_of_file_uri(uri) if urlsplit(uri).scheme in PATHS else Path()


def _is_same(uri: str, folder: Path) -> bool:
    """Whether ``uri`` is ``folder``, by this or another of its names."""
    if urlsplit(uri).scheme not in PATHS:
        return False
    path = _path(uri)
    return path == folder or (path.exists() and folder.exists() and path.samefile(folder))


def is_run_id(text: str) -> bool:
    """Whether a text has the form of MLflow's run ids. Folders are named after runs, and in a database from elsewhere
    an id may be ``..``."""
    return bool(re.fullmatch(r"[0-9a-f]{32}", text))


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder; links are not followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if is_own_file(path))
