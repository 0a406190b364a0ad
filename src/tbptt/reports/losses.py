"""The losses that a study's runs keep of each step of val: those of their networks and of the baselines.

On a server these are files to be fetched, one per run. Each is kept in the study's folder, so that it is fetched once.
A file that does not come in time is left out, and comes with a later report.
"""

import math
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np

from tbptt.evaluation.results import STEPS
from tbptt.evaluation.words import SIDES
from tbptt.reports.arrays import Array, read_arrays
from tbptt.system.files import make_folder

FETCHED = "steps"  # the folder of files that came from a server
AT_ONCE = 8  # files fetched at once
NO_BASELINE = {"loss", "block", "profit", *SIDES}


@dataclass(frozen=True)
class Losses:
    """(P,) losses of a network and of each baseline at P points. A point is a step, as the mean over some series, or a
    series.

    ``block``: how many points hang together; 0 if each point is an independent series.
    """

    model: Array
    baselines: dict[str, Array]
    block: float

    def alike(self, other: "Losses") -> bool:
        """Whether both have the same steps and targets. If so, predicting the mean, or zero, has the same losses in
        both, but for rounding."""
        if len(self.model) != len(other.model) or (self.block == 0) != (other.block == 0):
            return False
        shared = [name for name in ("mean", "zero") if name in self.baselines and name in other.baselines]
        return all(_close(self.baselines[name], other.baselines[name]) for name in shared)


def _close(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-4 * float(np.abs(one).mean())))


def read_losses(path: Path) -> Losses:
    """The losses in a run's file. Raises ValueError with one line if the file is invalid."""
    found = {name.removeprefix("val/"): a for name, a in read_arrays(path, lambda n: n.startswith("val/")).items()}
    model, block = found.get("loss", np.empty(0)), found.get("block", np.empty(0))
    baselines = {name: values for name, values in found.items() if name not in NO_BASELINE and name.isprintable()}
    if "mean" not in baselines or any(a.shape != (model.size,) for a in (model, *baselines.values())):
        raise ValueError(f"{path.name} cannot be read: its losses are not those of the same steps")
    if model.size < 2 or not all(np.isfinite(values).all() for values in baselines.values()):
        raise ValueError(f"{path.name} cannot be read: its baselines' losses are not all numbers")
    if block.shape != () or not (block == 0 or (math.isfinite(block) and block >= 1)):
        raise ValueError(f"{path.name} cannot be read: its blocks have no length")
    return Losses(model, baselines, float(block))


def of_trial(runs: Sequence[Losses]) -> Losses:
    """The losses of a trial, from its runs. Runs of the same steps differ by their seeds: their mean is taken. Runs of
    other steps are other folds: they are put one after the other."""
    folds: list[list[Losses]] = []
    for run in runs:
        same = next((fold for fold in folds if fold[0].alike(run)), None)
        if same is None:
            folds.append([run])
        else:
            same.append(run)
    names = [name for name in runs[0].baselines if all(name in run.baselines for run in runs)]
    return Losses(
        np.concatenate([np.mean([run.model for run in fold], axis=0) for fold in folds]),
        {name: np.concatenate([fold[0].baselines[name] for fold in folds]) for name in names},
        float(np.median([run.block for run in runs])),
    )


# --- the files ------------------------------------------------------------------------------------------------------


def files(store: Any, runs: Sequence[str], folder: Path, seconds: float) -> dict[str, Path]:
    """The file of each run, if the run has one and it is here or comes within ``seconds``.

    Args:
        store: the :class:`tbptt.runs.tracking.Store` of the runs.
        folder: the study's folder.
    """
    found = {run: path for run in runs if (path := store.artifact_here(run, STEPS))}
    kept = folder / FETCHED
    if not store.is_local:
        runs = [run for run in runs if re.fullmatch(r"[0-9a-f]{32}", run)]  # they become names of files here
        found |= {run: path for run in runs if (path := kept / f"{run}.npz").is_file()}
    missing = [run for run in runs if run not in found]
    if not missing:
        return found
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        fetched = _fetched(store, missing, Path(temporary), seconds)
        for run, path in fetched.items():
            if Path(temporary) in path.parents:
                with suppress(OSError, ValueError):  # on a full disk, or with a link in its place, it is not kept
                    path = path.rename(make_folder(kept, folder) / f"{run}.npz")
            if path.is_file():
                found[run] = path
    return found


def _fetched(store: Any, runs: Sequence[str], folder: Path, seconds: float) -> dict[str, Path]:
    """Fetch the file of each run, several at once if the store is a server. Files that do not come within ``seconds``
    are left out, as the server may be away."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for run in runs:
        waiting.put(run)
    found: dict[str, Path] = {}
    over = Event()

    def fetch() -> None:
        while not over.is_set():
            try:
                run = waiting.get_nowait()
            except Empty:
                return
            with suppress(Exception):  # an error of the server, or of its files
                to = folder / run if not store.is_local else None
                if to is not None:
                    to.mkdir()
                if path := store.artifact(run, STEPS, to):
                    found[run] = path

    end = time.monotonic() + seconds
    threads = [Thread(target=fetch, daemon=True) for _ in range(1 if store.is_local else min(AT_ONCE, len(runs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    over.set()
    return dict(found)
