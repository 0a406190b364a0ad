"""Finding a trained network by what a user calls it: a run, a study, a checkpoint, a registered model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_URI = "sqlite:///mlruns/mlflow.db"


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found.

    Attributes:
        content: what :func:`tbptt.runs.checkpoint.load` returns.
        said: words for it in messages, such as ``run 0123…``.
        why: a line that says which run was taken and why; empty if there was no choice.
        run_id: the run that trained it; None if that is not known.
    """

    content: dict[str, Any]
    said: str
    why: str = ""
    run_id: str | None = None


def find(what: str | Path, tracking_uri: str | None = None, which: str = "best", storage: str | None = None) -> Source:
    """Find a checkpoint.

    Args:
        what: MLflow's run id; a study's name or folder; the path of a checkpoint, such as ``sweeps/STUDY/best.ckpt``;
            or a registered model, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; or a model in MLflow by its id,
            ``models:/m-…``.
        tracking_uri: the store of runs and registered models. The default is that of the command: the variable
            MLFLOW_TRACKING_URI, or the store below the working directory.
        which: of a run: ``best`` (the epoch with the best objective) or ``last``.
        storage: the storage of studies; the default is that of the command.

    Raises:
        ValueError: nothing is called so, or it has no checkpoint that can be read. The message is one line.
    """
    from tbptt.runs import checkpoint, contents
    from tbptt.runs.load import checkpoint_of

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if str(what).startswith("models:"):
        return _of_a_model(str(what), uri)
    if Path(what).suffix == ".ckpt":
        return Source(checkpoint.load(Path(what), contents.OF_A_MODEL), str(what))
    return Source(checkpoint_of(str(what), uri, which), f"run {what}", run_id=str(what))


def _of_a_model(what: str, uri: str) -> Source:
    from tbptt.serving.registered import of_a_model

    return of_a_model(what, uri)
