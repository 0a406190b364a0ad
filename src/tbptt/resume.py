"""``python train.py resume=RUN_ID``: go on with an interrupted run, in the same MLflow run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from tbptt.checks import problems
from tbptt.config import DataConfig, TrackingConfig, typed
from tbptt.parts import load_parts

if TYPE_CHECKING:
    from tbptt.tracking import Run

# What a resumed run may be given anew; all else is as it was begun.
MAY_CHANGE = ("epochs", "device", "progress", "resume")


def resume_problems(cfg: DictConfig, given: Sequence[str], wrong: bool) -> list[str]:
    """What keeps a run from being resumed, a line each. Reads its store, and writes nothing."""
    lines = [
        f"{key}: a resumed run keeps its own; beside resume only epochs, device, progress and tracking.* may be given"
        for key in given
        if key not in MAY_CHANGE and not key.startswith("tracking.")
    ]
    if lines or wrong:
        return lines
    from tbptt.outbox import is_being_trained
    from tbptt.stores import sqlite_path
    from tbptt.tracking import Store

    path = sqlite_path(cfg.tracking.uri)
    if path is not None and not path.exists():
        return [f"resume: got {cfg.resume!r}; there is no store {path} yet"]
    store = Store(cast(TrackingConfig, OmegaConf.to_object(cfg.tracking)))
    run = store.run(cfg.resume)
    if run is None:
        return [f"resume: got {cfg.resume!r}; takes the id of a run in {cfg.tracking.uri}"]
    if is_being_trained(store, cfg.resume):
        return [f"resume: got {cfg.resume!r}; that run is being trained by another process"]
    try:
        state = run.last_state()
    except ValueError as error:
        return [f"resume: {error}"]
    if state is None:
        return [f"resume: got {cfg.resume!r}; {run.why_no_checkpoint()}"]
    ended = state["stop_reason"]
    if ended and not (ended == "epochs" and "epochs" in given and cfg.epochs > state["epoch"] + 1):
        more = f"; epochs above {state['epoch'] + 1} would let it go on" if ended == "epochs" else ""
        return [f"resume: got {cfg.resume!r}; that run has ended ({ended}){more}"]
    return [f"resume: {line}" for line in _begun_problems(cfg, given, run, state)]


def _begun_problems(cfg: DictConfig, given: Sequence[str], run: "Run", state: dict[str, Any]) -> list[str]:
    """What has become wrong with the config that a run was begun with: its file of prices is gone, or another."""
    try:
        begun = _changed(state, cfg, given)
    except ValueError as error:
        return [str(error)]
    if lines := problems(begun):
        return lines
    fingerprint = load_parts(cast(DataConfig, OmegaConf.to_object(begun.data))).fingerprint()
    if fingerprint != run.tags().get("data.fingerprint"):
        return [f"the data are not those that the run was begun with (now {fingerprint[:12]}…)"]
    return []


def resumed_config(cfg: DictConfig, given: Sequence[str]) -> DictConfig:
    """The config that the run was begun with, and what was given anew."""
    from tbptt.tracking import Store

    run = Store(cast(TrackingConfig, OmegaConf.to_object(cfg.tracking))).run(cfg.resume)
    state = run.last_state() if run else None
    if state is None:
        raise ValueError(f"resume: run {cfg.resume} has no checkpoint any more")
    return _changed(state, cfg, given)


def _changed(state: dict[str, Any], cfg: DictConfig, given: Sequence[str]) -> DictConfig:
    begun = typed(state["config"])
    for key in given:
        if key in ("epochs", "device", "progress"):
            OmegaConf.update(begun, key, OmegaConf.select(cfg, key))
    OmegaConf.update(begun, "tracking", cfg.tracking)
    return begun
