"""Which trials of a study are better than others, and which is the best."""

import shlex
from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from tbptt.options.metrics import sign
from tbptt.options.values import shown
from tbptt.studies.study import Study


def best_first(trials: Iterable[FrozenTrial], *objectives: str) -> list[FrozenTrial]:
    """Complete trials by the first objective, ties by the next ones; then the others by how far they came."""
    return sorted(trials, key=lambda t: rank(t, objectives))


def rank(trial: FrozenTrial, objectives: Sequence[str]) -> tuple[float, ...]:
    """What :func:`best_first` sorts by."""
    if trial.state == TrialState.COMPLETE:
        return 0, *(sign(o) * value for o, value in zip(objectives, trial.values, strict=False))
    return 1, -epochs_run(trial)


def epochs_run(trial: FrozenTrial) -> int:
    """Of its first seed."""
    return len(trial.user_attrs.get("curves", {}).get("train/loss", trial.intermediate_values))


def best_trial(trials: Sequence[FrozenTrial], *objectives: str) -> FrozenTrial | None:
    """The complete trial that is best by the first objective; of equal ones by the next, then the first of them."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return min(complete, key=lambda t: rank(t, objectives), default=None)


def best_run(study: Study, trial: FrozenTrial) -> tuple[str | None, str]:
    """The run of a complete trial whose config and checkpoint are kept, and what sets it apart where there are several:
    the best of a few seeds is better than the trial is."""
    runs, values, objective = trial.user_attrs.get("run_ids", []), seed_values(trial), study.objectives[0]
    if len(values) < 2 or len(runs) != len(values):
        return next(iter(runs), None), ""
    i = values.index(min(values, key=lambda value: sign(objective) * value))
    seeds = [] if study.attrs.get("changes") else study.attrs.get("spec", {}).get("seeds") or []
    which = f"seed {seeds[i]}" if len(seeds) == len(values) else f"run {i + 1}"
    words = f"{which}, the luckiest of trial {trial.number}'s {len(values)} seeds: {objective} {shown(values[i])}"
    return runs[i], f"{words}; their mean is {shown(trial.values[0])}"


def rerun_command(study: Study) -> str:
    """What trains a study's best trial again. A server is not taken from a file, so it is in the command."""
    uri = study.attrs.get("tracking_uri", "")
    quoted = f'"{uri}"' if uri.startswith("$") else shlex.quote(uri)  # a variable, for the shell
    server = f" tracking.uri={quoted}" if uri and not uri.startswith("sqlite") else ""
    return f"python train.py --config-dir {shlex.quote(f'sweeps/{study.name}')} --config-name best{server}"


def seed_values(trial: FrozenTrial) -> list[float]:
    """The first objective of each of a trial's runs."""
    return [values[0] for values in trial.user_attrs.get("values_by_seed", []) if values]
