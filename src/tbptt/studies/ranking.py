"""Which trials of a study are better than others, which is the best, and which run of it."""

import math
import shlex
from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from tbptt.options.metrics import TRAIN_LOSS, sign
from tbptt.options.values import shown
from tbptt.studies.folds import runs_by_seed
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.system.command import command, use_command


def cost(value: float, objective: str) -> float:
    """A value of an objective, with the sign by which smaller is better. NaN is worse than any number."""
    return math.inf if math.isnan(value) else sign(objective) * value


def is_complete(trial: FrozenTrial) -> bool:
    """Whether a trial ended with a number for each objective. Optuna itself completes no other trial, but anybody can
    write into a storage."""
    return trial.state == TrialState.COMPLETE and bool(trial.values) and not any(map(_is_missing, trial.values))


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def complete(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that can be compared with each other, in their order."""
    return [t for t in trials if is_complete(t)]


def best_first(trials: Iterable[FrozenTrial], *objectives: str) -> list[FrozenTrial]:
    """Complete trials first, by the first objective and on ties by the next ones. The other trials follow, those with
    the most epochs first."""
    return sorted(trials, key=lambda t: _place(t, objectives))


def _place(trial: FrozenTrial, objectives: Sequence[str]) -> tuple[float, ...]:
    """What :func:`best_first` sorts by."""
    if is_complete(trial):
        return 0, *(cost(value, o) for o, value in zip(objectives, trial.values, strict=False))
    return 1, -epochs_run(trial)


def best_first_by(trials: Iterable[FrozenTrial], i: int, objective: str) -> list[FrozenTrial]:
    """Complete trials ordered by objective ``i`` of their study alone. Equal trials keep their order."""
    return sorted(complete(trials), key=lambda t: cost(t.values[i], objective))


def best_trial(trials: Iterable[FrozenTrial], *objectives: str) -> FrozenTrial | None:
    """The complete trial that is best by the first objective. The next objectives break ties, then the order of the
    trials."""
    return min(complete(trials), key=lambda t: _place(t, objectives), default=None)


def pareto_front(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> list[FrozenTrial]:
    """The complete trials that no other trial dominates, ordered by the first objective, the best first."""
    front: list[FrozenTrial] = []
    for t in best_first(complete(trials), *objectives):  # in this order, no trial is worse than a later one
        if not any(_dominates(other, t, objectives) for other in front):
            front.append(t)
    return front


def _dominates(a: FrozenTrial, b: FrozenTrial, objectives: Sequence[str]) -> bool:
    costs = [(cost(x, o), cost(y, o)) for o, x, y in zip(objectives, a.values, b.values, strict=True)]
    return all(x <= y for x, y in costs) and any(x < y for x, y in costs)


def epochs_run(trial: FrozenTrial) -> int:
    """The number of epochs that a trial ran with its first seed."""
    return len(TrialRecord.of(trial).curve(TRAIN_LOSS) or trial.intermediate_values)


def by_seed(trial: FrozenTrial, i: int = 0) -> list[float]:
    """A complete trial's values of objective ``i``, one per seed. With folds, each is the mean over the folds."""
    return TrialRecord.of(trial).by_seed(i) or [trial.values[i]]


def folds_line(trial: FrozenTrial) -> str:
    """For a study's report: how the folds of a trial differ. Empty if the trial has no folds."""
    record = TrialRecord.of(trial)
    of_runs, folds = record.by_run(0), record.folds
    if folds == 1 or len(of_runs) % folds:
        return ""
    means = [math.fsum(of_runs[k::folds]) * folds / len(of_runs) for k in range(folds)]
    said = ", ".join(map(shown, means))
    return f"Mean of {folds} folds, each validated on a later piece of the series: {said}, in the order of time."


def best_run(study: Study, trial: FrozenTrial) -> tuple[str | None, str]:
    """The run of a complete trial that ``best.yaml`` and ``best.ckpt`` come from, and words that tell it from the
    trial's other runs.

    Of several seeds it is the best one, which is better than the trial is. With folds it is the last fold of the seed
    with the best mean over all folds: that run saw the most data, and the test part comes next.
    """
    record, objective = TrialRecord.of(trial), study.objectives[0]
    runs, values = runs_by_seed(record), record.by_seed(0)
    if not values or len(runs) != len(values):
        return next(iter(record.run_ids), None), ""
    i = min(range(len(values)), key=lambda i: cost(values[i], objective))
    last = f"the last of {record.folds} folds" if record.folds > 1 else ""
    if len(values) == 1:
        its = f" of trial {trial.number}: {objective} {shown(record.by_run(0)[-1])}; the mean of all folds is"
        return runs[0][-1], f"{last}{its} {shown(trial.values[0])}" if last else ""
    of_study = study.record
    seeds = () if of_study.changes else of_study.seeds
    which = f"seed {seeds[i]}" if len(seeds) == len(values) else f"run {i + 1}"
    which = f"{last} of {which}" if last else which
    words = f"{which}, the luckiest of trial {trial.number}'s {len(values)} seeds: {objective} {shown(values[i])}"
    return runs[i][-1], f"{words}; their mean is {shown(trial.values[0])}"


def rerun_command(study: Study) -> str:
    """The command that trains a study's best trial again. It names the tracking server, because a server is never taken
    from a file."""
    uri = study.record.tracking_uri or ""
    quoted = f'"{uri}"' if uri.startswith("$") else shlex.quote(uri)  # a variable, for the shell
    server = f" tracking.uri={quoted}" if uri and not uri.startswith("sqlite") else ""
    return f"{command('train')} --config-dir {shlex.quote(f'sweeps/{study.name}')} --config-name best{server}"


def use_best_command(study: Study) -> str:
    """The command that predicts with the network of a study's best trial. The study names a store that is a file."""
    uri = study.record.tracking_uri or ""
    return use_command(study.name, "" if uri.startswith("sqlite") else uri)
