"""A study's best point trained on surrogates of its data, in which there is nothing to learn: what luck alone would
find."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omegaconf import OmegaConf
from optuna.trial import FrozenTrial

from tbptt.compat import study_id
from tbptt.config.compose import CommandError
from tbptt.options.metrics import VAL_LOSS
from tbptt.studies.best_of import ALLOW, Chosen, existing_study
from tbptt.studies.folds import data_fingerprint
from tbptt.studies.plan import Plan, differences
from tbptt.studies.ranking import best_trial, complete, cost
from tbptt.studies.reading import read_trials
from tbptt.studies.records import ChosenTrial, StudyRecord, TrialRecord
from tbptt.studies.study import Study
from tbptt.studies.surrogate_seeds import SURROGATE_SEED

SKILL = "val/skill"


# --- the trials of a placebo study ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placebos(Chosen):
    """One trial of another study, repeated once per surrogate. The points differ only in the surrogate's seed."""

    def after(self, before: Sequence[ChosenTrial]) -> "Placebos":
        """The placebos of the trial that was chosen before, if there is one. That choice stays, even if another trial
        has become the best since."""
        if not before:
            return self
        return _placebos(before[0], max(len(before), len(self.trials)))


def _placebos(of: ChosenTrial, n: int) -> Placebos:
    point = {name: value for name, value in of["point"].items() if name != SURROGATE_SEED}
    return Placebos([{**of, "point": {**point, SURROGATE_SEED: seed}} for seed in range(n)])


def placebos_of(plan: Plan) -> Placebos:
    """The placebos that ``study.placebo_of`` asks for.

    Raises CommandError if that study does not exist, is another search, or has no complete trial.
    """
    name = plan.settings.placebo_of
    assert name is not None
    assert plan.n_trials is not None
    study = existing_study("study.placebo_of", name, plan.settings.storage)
    record = study.record
    lines = [f"study.placebo_of: {line}; takes the space of study {name}" for line in _other_space(record, plan)]
    if not plan.settings.allow_changed:
        of_data = ("data.surrogate", SURROGATE_SEED)  # set in the placebo study only
        spec = {**plan.spec, "config": {k: v for k, v in plan.spec["config"].items() if k not in of_data}}
        changed = differences(record.spec, spec, "config", "seeds", "folds", "fold_window")
        lines += [f"study.placebo_of: {line}; {ALLOW}" for line in changed]
    if study.objectives != plan.objectives:
        lines.append(f"objective: got {plan.objectives}; takes that of study {name}, {study.objectives}")
    if record.data is not None and not lines and not plan.settings.allow_changed:
        real = plan.cfg.copy()
        OmegaConf.update(real, "data.surrogate", None)
        if data_fingerprint(real) != record.data:
            lines.append(f"study.placebo_of: the data are not those of study {name}; {ALLOW}")
    best = best_trial(study.trials(), *study.objectives)
    study.close()
    if best is None:
        lines.append(f"study.placebo_of: got {name!r}, of which no trial is complete yet")
    if lines or best is None:
        raise CommandError(lines)
    return _placebos({"trial": best.number, "value": best.values[0], "point": best.params}, plan.n_trials)


def _other_space(record: StudyRecord, plan: Plan) -> list[str]:
    """How the space of a study differs from the space of its placebos, one line per difference. The surrogate's seed
    does not count."""
    space = {name: words for name, words in plan.space.describe().items() if name != SURROGATE_SEED}
    return differences({"space": dict(record.space)}, {"space": space})


# --- what they say of the real one ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """A placebo study, compared with the real trial that it repeats.

    Attributes:
        study: the placebo study's name.
        kind: the kind of its surrogates: shuffle, blocks or signs.
        trial: the number of the real trial.
        measure: the metric that is compared. For a loss it is ``val/skill``, because other data have another baseline;
            else it is the objective.
        real: the real trial's value.
        placebos: the value of each placebo that has ended; None for one that diverged, which is worse than any value.
        asked: the number of placebos with which the study ends.
    """

    study: str
    kind: str
    trial: int
    measure: str
    real: float
    placebos: tuple[float | None, ...]
    asked: int

    @property
    def as_well(self) -> int:
        """How many placebos do as well as the real one, or better."""
        real = cost(self.real, self.measure)
        return sum(v is not None and cost(v, self.measure) <= real for v in self.placebos)

    @property
    def p(self) -> float:
        """The share of trials that do as well as the real one: (as_well + 1) / (placebos + 1). The real trial counts
        too, because its data are one of the possible arrangements of the changes."""
        return (self.as_well + 1) / (len(self.placebos) + 1)


def placebos(study: Study) -> list[Compared]:
    """The placebo studies of a study in the same storage. Those without an ended trial are left out."""
    found = []
    mine: dict[int, FrozenTrial] | None = None
    for other in study.storage.get_all_studies():
        record = StudyRecord.of(other)
        if record.placebo_of != study.name or not record.chosen:
            continue
        mine = mine if mine is not None else {t.number: t for t in complete(study.trials())}
        number = record.chosen[0]["trial"]
        objective = study.objectives[0]
        measure = SKILL if objective == VAL_LOSS else objective
        real = _measured(mine[number], measure) if number in mine else None
        trials = read_trials(study.storage, study_id(other))
        values = [_measured(t, measure) for t in complete(trials)]
        diverged = [None for t in trials if TrialRecord.of(t).stop_reason == "diverged"]
        if real is None or None in values or not (values or diverged):
            continue
        kind = str(record.config.get("data.surrogate", "surrogates"))
        asked = record.n_trials or len(trials)
        found.append(Compared(other.study_name, kind, number, measure, real, (*values, *diverged), asked))
    return found


def _measured(trial: FrozenTrial, measure: str) -> float | None:
    """A complete trial's value of ``measure``; None if it was not measured."""
    if measure != SKILL:
        return float(trial.values[0])
    record = TrialRecord.of(trial)
    if isinstance(skill := record.metrics.get(SKILL), int | float):
        return float(skill)
    return 1 - trial.values[0] / record.baseline if record.baseline else None  # of a trial older than this metric


def placebo_line(study: Study) -> str:
    """For the report: what the placebos say about a study, or for a placebo study what it is. Empty if there are
    none."""
    return " ".join(_lines(study))


def _lines(study: Study) -> Iterator[str]:
    record = study.record
    if record.placebo_of is not None:
        kind = record.config.get("data.surrogate")
        yield (
            f"A placebo: {_trial(record.chosen)} of study {record.placebo_of} on surrogates ({kind}) of its data, in "
            "which nothing is to be learnt. The report of that study says what comes of it; none of these is chosen."
        )
    several = record.placebo_of is None and len(complete(study.trials())) > 1
    for each in placebos(study):
        n, k, does = len(each.placebos), each.as_well, "does" if each.as_well == 1 else "do"
        yield (
            f"{k} of {n} surrogates ({each.kind}) {does} as well as trial {each.trial} or better, "
            f"by {each.measure}: p about {each.p:.2g} (({k}+1)/({n}+1))"
            + (f"; {each.asked - n} more are to come." if each.asked > n else ".")
            + (" It was chosen as the best of several and they were not, so p is too small." if several else "")
        )


def _trial(chosen: Sequence[ChosenTrial]) -> str:
    return f"trial {chosen[0]['trial']}" if chosen else "the best trial"
