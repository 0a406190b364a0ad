"""``python train.py resume=RUN_ID``: resume an interrupted run, in the same MLflow run."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from tbptt.config.checks import asks_for_gpu, problems
from tbptt.config.schema import TrackingConfig, typed
from tbptt.data.options import DataConfig
from tbptt.data.split import load_split
from tbptt.options.metrics import as_objectives
from tbptt.runs.load import network_of
from tbptt.runs.local_files import CHECKPOINTS, why_removed
from tbptt.runs.pending import RunTaken, claim_left_run, let_go, pending_folder
from tbptt.system.devices import why_no_gpu
from tbptt.system.stores import sqlite_path
from tbptt.tasks.options import TaskConfig
from tbptt.training.options import OptimizerConfig

if TYPE_CHECKING:
    from tbptt.runs.tracking import Run

log = logging.getLogger("tbptt")

# The keys that may change when a run is resumed; all others stay as they were.
MAY_CHANGE = ("epochs", "device", "progress", "resume")


def resume_problems(cfg: DictConfig, given: Sequence[str], wrong: bool) -> list[str]:
    """The problems that keep a run from being resumed, one line each. Reads the run's store, and writes nothing."""
    lines = [
        f"{key}: a resumed run keeps its own; beside resume only epochs, device, progress and tracking.* may be given"
        for key in given
        if key not in MAY_CHANGE and not key.startswith("tracking.")
    ]
    if lines or wrong:
        return lines
    path = sqlite_path(cfg.tracking.uri)
    if path is not None and not path.exists():
        return [f"resume: got {cfg.resume!r}; there is no store {path} yet"]
    if not re.fullmatch("[0-9a-f]{32}", cfg.resume):
        return [
            f"resume: got {cfg.resume!r}; takes the id of a run in {cfg.tracking.uri}, 32 digits and letters a to f"
        ]
    folder = pending_folder(path.parent if path else Path("mlruns").absolute(), cfg.resume)
    try:
        claim_left_run(folder)  # before the slow imports, as another command might take the run meanwhile
    except RunTaken:
        return [f"resume: got {cfg.resume!r}; that run is being trained by another process"]
    try:
        lines = _problems_of_run(cfg, given)
    except BaseException:
        let_go(folder)
        raise
    if lines:
        let_go(folder)
    return lines


def _problems_of_run(cfg: DictConfig, given: Sequence[str]) -> list[str]:
    """The problems that keep a run from being resumed; this process has claimed the run already."""
    from tbptt.runs.store_errors import how_to_restore
    from tbptt.runs.tracking import Store

    store = Store(cast(TrackingConfig, OmegaConf.to_object(cfg.tracking)))
    run = store.run(cfg.resume)
    if run is None:
        return [f"resume: got {cfg.resume!r}; takes the id of a run in {cfg.tracking.uri}"]
    if run.is_deleted:
        back = how_to_restore(cfg.tracking.uri, run.id)
        return [f"resume: got {cfg.resume!r}; that run was deleted in MLflow; restore it first: {back}"]
    try:
        state = run.last_state()
    except ValueError as error:
        return [f"resume: {error}"]
    if state is None:
        kept = run.tags().get(CHECKPOINTS)
        why = f"it has no checkpoint: {why_removed(kept)}" if kept else run.why_no_checkpoint()
        return [f"resume: got {cfg.resume!r}; {why}"]
    ended = state["stop_reason"]
    if ended and not (ended == "epochs" and "epochs" in given and cfg.epochs > state["epoch"] + 1):
        more = f"; epochs above {state['epoch'] + 1} would let it go on" if ended == "epochs" else ""
        return [f"resume: got {cfg.resume!r}; that run has ended ({ended}){more}"]
    return [f"resume: {line}" for line in _begun_problems(cfg, given, run, state)]


def _begun_problems(cfg: DictConfig, given: Sequence[str], run: "Run", state: dict[str, Any]) -> list[str]:
    """Problems with a run's original config that came up later: for example, its price file is gone or has changed."""
    try:
        begun = _changed(state, cfg, given)
    except ValueError as error:
        return [str(error)]
    if lines := problems(begun):
        return lines
    split = load_split(
        cast(DataConfig, OmegaConf.to_object(begun.data)), cast(TaskConfig, OmegaConf.to_object(begun.task))
    )
    try:
        if problem := _misfit(state, begun, split.length):
            return [f"its last checkpoint cannot be gone on from: {problem}"]
    except ValueError as error:
        return [str(error)]
    fingerprint = split.fingerprint()
    if fingerprint != run.tags().get("data.fingerprint"):
        return [f"the data are not those that the run was begun with (now {fingerprint[:12]}…)"]
    return []


def _misfit(state: dict[str, Any], begun: DictConfig, length: int) -> str | None:
    """The first part of a checkpoint that does not fit the other parts, or ``length`` steps; None if all fit.

    tbptt does not write a checkpoint that does not fit. Raises ValueError if its weights do not fit its model.
    """
    from tbptt.training.optimizers import state_problem

    optimizer = cast(OptimizerConfig, OmegaConf.to_object(begun.optimizer))
    if problem := state_problem(optimizer, network_of(state, begun), state["optimizer"]["state"]):
        return problem
    if (most := max(state["schedule"]["stages"])) > length:
        return f"its schedule has {most} chunks, and the longest series has {length} steps to train"
    if state["best"]["objectives"] != as_objectives(begun.objective):
        return f"its best epoch was told by {', '.join(state['best']['objectives'])}"
    if state["record"]["number"] != state["epoch"]:
        return "its last epoch is not the one that it was written after"
    return None


def resumed_config(cfg: DictConfig, given: Sequence[str]) -> DictConfig:
    """The run's original config with the newly given keys."""
    from tbptt.runs.tracking import Store

    run = Store(cast(TrackingConfig, OmegaConf.to_object(cfg.tracking))).run(cfg.resume)
    state = run.last_state() if run else None
    if state is None:
        raise ValueError(f"resume: run {cfg.resume} has no checkpoint any more")
    begun = _changed(state, cfg, given)
    was = state["config"]
    if left_out := [
        f"{k}={str(was[k]).lower()}" for k in ("precision", "cuda_graphs") if was.get(k, begun[k]) != begun[k]
    ]:
        log.warning("resume: it goes on on the CPU, without %s, which only GPUs have", " and ".join(left_out))
    return begun


def _changed(state: dict[str, Any], cfg: DictConfig, given: Sequence[str]) -> DictConfig:
    begun = typed(state["config"])
    for key in given:
        if key in ("epochs", "device", "progress"):
            OmegaConf.update(begun, key, OmegaConf.select(cfg, key))
    OmegaConf.update(begun, "tracking", cfg.tracking)
    if asks_for_gpu(begun) and (begun.device == "cpu" or (begun.device == "auto" and why_no_gpu())):
        if begun.precision == "tf32":
            begun.precision = 32
        if begun.cuda_graphs is True:
            begun.cuda_graphs = False
    return begun
