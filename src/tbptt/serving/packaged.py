"""A network as a folder that MLflow loads and serves, without a store."""

import os
import shutil
from pathlib import Path

from tbptt.runs.model import write as write_model
from tbptt.serving.source import Source


def write(source: Source, folder: Path) -> Path:
    """Write a network as an MLflow model of the flavor python_function.

    It holds the checkpoint, the user's own files that the network needs, a signature, an input example and what is to
    be installed; tbptt itself has to be installed where it is loaded.

    Args:
        folder: a folder that does not exist; it is there complete or not at all.

    Returns:
        ``folder``.

    Raises:
        ValueError: there is something of this name already, or the network's config does not fit.
    """
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"{folder} exists already; takes the name of a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        return write_model(source.content, beside, source.run_id).rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
