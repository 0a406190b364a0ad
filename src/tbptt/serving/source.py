"""Finding a trained network by what a user calls it: a run, a study, a checkpoint, a registered model."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tbptt.system.environment import uri_of

RUN_ID = re.compile("[0-9a-f]{32}")


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
        ValueError: nothing is called so, it has no checkpoint that can be read, or it is one epoch already, of which
            none can be chosen. The message is one line.
    """
    if not isinstance(what, str | Path) or not str(what):
        takes = "a run's id, a study's name or folder, the path of a checkpoint, or models:/NAME@ALIAS"
        raise ValueError(f"got {what!r} as what to load; takes {takes}")
    if which != "best" and (str(what).startswith("models:") or Path(what).suffix == ".ckpt"):
        raise ValueError(
            f"which: got {which!r}, and {what} is of one epoch; takes a run or a study to choose the epoch of"
        )
    if str(what).startswith("models:"):
        from tbptt.serving.registered import of_a_model

        return of_a_model(str(what), uri_of(tracking_uri))
    if Path(what).suffix == ".ckpt":
        return _of_file(Path(what))
    if RUN_ID.fullmatch(str(what)):
        return of_run(str(what), tracking_uri, which)
    from tbptt.serving.of_study import of_study

    return of_study(str(what), tracking_uri, which, storage)


def wrong_name(name: str) -> str | None:
    """The problem with what a registered model is to be called; None if MLflow takes it."""
    if re.search("[/:]", name) or not name.strip() or name == "." or name.startswith(".."):
        return f"got {name!r}; takes a name without / and :"
    return None


def wrong_alias(alias: str) -> str | None:
    """The problem with an alias of a registered model's version; None if MLflow takes it."""
    if not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE):
        return f"got {alias!r}; takes letters, digits, _ and -, and neither v1 nor latest"
    return None


def of_run(run_id: str, tracking_uri: str | None, which: str) -> Source:
    """A run's checkpoint. Raises ValueError as :func:`find`."""
    from tbptt.runs.load import checkpoint_of

    return Source(checkpoint_of(run_id, uri_of(tracking_uri), which), f"run {run_id}", run_id=run_id)


def _of_file(path: Path) -> Source:
    from tbptt.runs import checkpoint, contents

    return Source(checkpoint.load(path, contents.OF_A_MODEL), str(path))
