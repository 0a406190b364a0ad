"""From a study's config to Optuna's sampler and pruner."""

import warnings
from typing import Any, cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler

from tbptt.config.schema import MedianPruner as MedianConfig
from tbptt.config.schema import PrunerConfig, SamplerConfig

SAMPLERS: dict[str, Any] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "qmc": optuna.samplers.QMCSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
}


def build_sampler(config: SamplerConfig, trial: int) -> BaseSampler:
    """The sampler for one trial.

    Its seed is the config's seed plus the trial's number. So a resumed study, or several workers, draw what one
    uninterrupted worker would have drawn, instead of the same points again. QMC keeps one seed, since its sequence
    lives in the study.
    """
    settings = {name: value for name, value in vars(config).items() if name != "name"}
    if settings["seed"] is not None and config.name != "qmc":
        settings["seed"] += trial
    if config.name in ("qmc", "cmaes"):
        settings["warn_independent_sampling"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # QMC, in every version since 3.0
        return cast(BaseSampler, SAMPLERS[config.name](**settings))


def build_pruner(config: PrunerConfig, epochs: int, is_grid: bool) -> BasePruner:
    """The pruner. ``auto`` is the median pruner for a search, and none if every point is run."""
    settings = {name: value for name, value in vars(config).items() if name != "name"}
    if config.name == "none" or (config.name == "auto" and is_grid):
        return NopPruner()
    if config.name == "asha":
        return SuccessiveHalvingPruner(**settings)
    if config.name == "hyperband":
        return HyperbandPruner(max_resource=epochs, **settings)
    patience = settings.pop("patience", MedianConfig.patience)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Without patience the trial that ends best is often stopped while still getting better: benchmarks/pruning.py
        return PatientPruner(MedianPruner(**settings), patience) if patience else MedianPruner(**settings)
