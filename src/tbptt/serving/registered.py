"""The checkpoint of a registered model, or of a run's model in MLflow.

Such a model may be anybody's. Only our checkpoint is taken from it, and checked like any other; nothing else in it is
read, and no code of it is run.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tbptt.runs import checkpoint, contents, local_files
from tbptt.runs.model import CHECKPOINT
from tbptt.serving.source import Source
from tbptt.system.memory import too_large
from tbptt.system.stores import OF_MLFLOW, absolute_uri, foreign, sqlite_path, without_password

PREFIX = "models:/"
TAKES = f"takes {PREFIX}NAME@ALIAS, {PREFIX}NAME/VERSION or {PREFIX}ID, the id of a model"


def of_a_model(what: str, tracking_uri: str) -> Source:
    """The checkpoint of a model.

    Args:
        what: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or ``models:/m-…``, the id of a run's model.

    Raises:
        ValueError: there is no such model, or it is none of tbptt's, damaged or hostile. The message is one line.
    """
    path = sqlite_path(tracking_uri)
    if path is not None and not path.exists():
        raise ValueError(f"{what}: there is no store {path}")
    if path is not None and (problem := foreign(path, OF_MLFLOW)):
        raise ValueError(f"{what}: {problem}")
    uri = absolute_uri(tracking_uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        version = _version(client, what)
        model = client.get_logged_model(_model_id(what, version))
        with tempfile.TemporaryDirectory() as folder:
            content = checkpoint.load(_file(client, uri, path, model, Path(folder)), contents.OF_A_MODEL)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error.message if isinstance(error, MlflowException) else error).split())
        raise ValueError(f"{what} in {without_password(tracking_uri)}: {without_password(reason)[:300]}") from None
    except ValueError as error:
        raise ValueError(f"{what}: {str(error).removeprefix(f'{what}: ')}") from None
    run = model.source_run_id or None
    why = f"version {version.version} of {version.name}" + (f", of run {run}" if run else "") if version else ""
    return Source(content, what, why, run)


def _version(client: MlflowClient, what: str) -> Any | None:
    """The registered version that is meant; None if the id of a model is given."""
    rest = what.removeprefix(PREFIX)
    if re.fullmatch(r"m-[0-9a-f]{32}", rest):
        return None
    if found := re.fullmatch(r"([^/:]+)/(\d+)", rest):
        return client.get_model_version(found[1], found[2])
    if found := re.fullmatch(r"([^/:]+)@([^/:@]+)", rest):
        return client.get_model_version_by_alias(found[1], found[2])
    raise ValueError(TAKES)


def _model_id(what: str, version: Any | None) -> str:
    given = what if version is None else str(version.source)
    found = re.fullmatch(rf"{PREFIX}(m-[0-9a-f]{{32}})", given)
    if found is None:
        raise ValueError(f"is no model of tbptt, as its files are at {without_password(given)[:200]}")
    return found[1]


def _file(client: MlflowClient, uri: str, path: Path | None, model: Any, folder: Path) -> Path:
    """The checkpoint of a model as a local file.

    Args:
        uri: of the store.
        path: of the store's database, if it is on this machine.
        folder: for a file that comes from elsewhere.
    """
    place = str(model.artifact_location)
    if path is not None and (problem := local_files.server_problem(place)):
        raise ValueError(problem)
    if path is not None and local_files.is_on_a_disk(place):
        return _there(local_files.folder_of_model(path, model.model_id, place) / CHECKPOINT)
    listed = client.list_logged_model_artifacts(model.model_id, str(Path(CHECKPOINT).parent))
    size = next((info.file_size or 0 for info in listed if info.path == CHECKPOINT), None)
    if size is None:
        raise ValueError(f"is no model of tbptt: it has no {CHECKPOINT}")
    if problem := too_large(2 * size):  # before it is fetched
        raise ValueError(f"is too large: it {problem}")
    from mlflow.artifacts import download_artifacts

    return _there(Path(download_artifacts(f"{place}/{CHECKPOINT}", dst_path=str(folder), tracking_uri=uri)))


def _there(file: Path) -> Path:
    if not file.is_file():
        raise ValueError(f"is no model of tbptt: it has no {CHECKPOINT}")
    return file
