"""A network as a folder that MLflow loads and serves, without a store."""

import os
import shutil
from pathlib import Path

from tbptt.runs.model import write as write_model
from tbptt.serving.source import Source


def write(source: Source, folder: Path, replace: bool = False) -> Path:
    """Write a network as an MLflow model of the flavor python_function.

    It holds the checkpoint, the user's own files that the network needs, a signature, an input example and what is to
    be installed; tbptt itself has to be installed where it is loaded.

    Args:
        folder: a folder that does not exist; it is there complete or not at all.
        replace: take the place of a folder of this name, which goes once the new one is complete.

    Returns:
        ``folder``.

    Raises:
        ValueError: there is something of this name already, or the network's config does not fit.
    """
    if folder.is_symlink() or (folder.exists() and not (replace and folder.is_dir())):
        raise ValueError(f"{folder} exists already; takes the name of a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        written = write_model(source.content, beside, source.run_id)
        if replace and folder.is_dir():
            shutil.rmtree(folder)
        return written.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
