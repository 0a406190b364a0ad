"""Folds of a study: each trial is trained once per fold, and each fold is validated on a later piece of the series.

The series before the test part is cut into one piece more than there are folds. Fold k is validated on piece k + 1 and
trains on all pieces before that. With ``study.fold_window=rolling`` it trains on one piece (data/split.py).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from tbptt.config.schema import StudyConfig
from tbptt.data.options import DataConfig, SplitData, as_folds
from tbptt.data.split import load_split
from tbptt.tasks.options import TaskConfig

if TYPE_CHECKING:
    from tbptt.studies.records import TrialRecord


def fold_problems(cfg: DictConfig) -> list[str]:
    """The errors in the fold settings of a point's config, one line each. Whether each fold is long enough is one of
    the checks of every config (config/checks.py)."""
    folds, window = cfg.study.folds, cfg.study.fold_window
    if folds is None:
        if window == "expanding":
            return []
        return [f"study.fold_window: got {window!r}, and there are no folds; takes study.folds=K beside it"]
    if not issubclass(cast(type, OmegaConf.get_type(cfg.data)), SplitData):
        why = f"data={cfg.data.name} holds whole series out, and folds are cut from a series in its time order"
        return [f"study.folds: got {folds}; takes null: {why}"]
    lines = []
    if cfg.data.fold is not None:
        lines.append(f"data.fold: got {cfg.data.fold!r}, which study.folds={folds} sets for each run; takes null")
    if cfg.data.fold_window not in ("expanding", window):
        lines.append(f"data.fold_window: got {cfg.data.fold_window!r}; takes study.fold_window, which sets it")
    return lines


def runs_of(settings: StudyConfig) -> list[dict[str, Any]]:
    """The settings that differ between the runs of a trial, by key, in the order of the runs: all folds of the first
    seed come first."""
    by_seed: list[dict[str, Any]] = [{"seed": seed} for seed in settings.seeds or []] or [{}]
    if settings.folds is None:
        return by_seed
    by_fold = [
        {"data.fold": f"{k}/{settings.folds}", "data.fold_window": settings.fold_window}
        for k in range(1, settings.folds + 1)
    ]
    return [{**of_seed, **of_fold} for of_seed in by_seed for of_fold in by_fold]


def runs_by_seed(record: "TrialRecord") -> list[list[str]]:
    """The ids of a trial's runs, one list per seed. A list has one run per fold, in time order; without folds it has a
    single run. The last list is shorter if the trial was stopped before its last fold."""
    runs, folds = list(record.run_ids), record.folds
    return [runs[i : i + folds] for i in range(0, len(runs), folds)]


def fold_data(data: DataConfig, settings: StudyConfig) -> Sequence[DataConfig]:
    """The data of each fold; without folds, the data as they are."""
    if settings.folds is None or not isinstance(data, SplitData):
        return [data]
    return as_folds(data, settings.folds, settings.fold_window)


def data_fingerprint(cfg: DictConfig) -> str:
    """The fingerprint of the whole series, with or without folds. A surrogate has its own fingerprint. Raises
    ValueError if the data cannot be used."""
    try:
        return _fingerprint(cfg)
    except ValueError:
        if cfg.study.folds is None:
            raise
        # Too short for data.val_fraction, which folds do not use. The last fold has the whole series.
        whole = cfg.copy()
        OmegaConf.update(whole, "data.fold", f"{cfg.study.folds}/{cfg.study.folds}")
        OmegaConf.update(whole, "data.fold_window", "expanding")
        return _fingerprint(whole)


def _fingerprint(cfg: DictConfig) -> str:
    data, task = OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)
    return load_split(cast(DataConfig, data), cast(TaskConfig, task)).fingerprint()
