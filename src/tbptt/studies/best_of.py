"""The best points of a study, trained again with seeds that played no part in choosing them.

The best of many trials is also the luckiest: its loss is lower than the average loss at its point.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tbptt.config.compose import CommandError
from tbptt.studies.folds import data_fingerprint
from tbptt.studies.found import takes
from tbptt.studies.plan import Plan, differences
from tbptt.studies.ranking import best_first, complete
from tbptt.studies.records import ChosenTrial
from tbptt.studies.study import Study

ALLOW = "takes the command that began it, or study.allow_changed=true"


@dataclass(frozen=True)
class Chosen:
    """The chosen trials, the best first, and the seeds that were used to choose them."""

    trials: list[ChosenTrial] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    @property
    def points(self) -> list[dict[str, Any]]:
        return [c["point"] for c in self.trials]

    def after(self, before: Sequence[ChosenTrial]) -> "Chosen":
        """Keep the trials that were chosen before, and add new ones up to the number of trials here. Earlier choices
        stay, even if other trials have become better since."""
        known = [c["point"] for c in before]
        more = [c for c in self.trials if c["point"] not in known]
        return Chosen([*before, *more[: max(0, len(self.trials) - len(before))]], self.seeds)


def best_of(plan: Plan) -> Chosen:
    """Choose the trials that ``study.best_of`` asks for.

    Raises CommandError if that study does not exist, is another search, used one of the seeds, or has no complete
    trial.
    """
    name, seeds = plan.settings.best_of, plan.settings.seeds or []
    assert name is not None
    study = existing_study("study.best_of", name, plan.settings.storage)
    record = study.record
    spec = record.spec
    lines = [
        f"study.best_of: {line}; takes the space of study {name}" for line in differences(spec, plan.spec, "space")
    ]
    if not plan.settings.allow_changed:
        lines += [f"study.best_of: {line}; {ALLOW}" for line in differences(spec, plan.spec, "config")]
    if study.objectives != plan.objectives:
        lines.append(f"objective: got {plan.objectives}; takes that of study {name}, {study.objectives}")
    if known_seeds := sorted(set(study.seeds_used()) & set(seeds)):
        lines.append(f"study.seeds: got {known_seeds}, by which study {name} was searched; takes others")
    if record.data is not None and not lines:
        data = data_fingerprint(plan.cfg)
        if data != record.data and not plan.settings.allow_changed:
            lines.append(f"study.best_of: the data are not those of study {name}; {ALLOW}")
    ranked = best_first(complete(study.trials()), *study.objectives)
    if not ranked:
        lines.append(f"study.best_of: got {name!r}, of which no trial is complete yet")
    used = study.seeds_used()
    study.close()
    if lines:
        raise CommandError(lines)
    chosen: list[ChosenTrial] = []
    for t in ranked:
        if t.params not in [c["point"] for c in chosen]:
            chosen.append({"trial": t.number, "value": t.values[0], "point": t.params})
    return Chosen(chosen[: plan.n_trials], used)


def existing_study(key: str, name: str, storage: str) -> Study:
    """Open an existing study. Raises CommandError that lists the existing studies, or names an objective that is
    missing."""
    try:
        return Study.existing(name, storage)
    except KeyError as error:
        raise CommandError([f"{key}: got {name!r}; {takes(name, error.args[0], storage)}"]) from None
    except ValueError as error:
        raise CommandError([f"{key}: {error}"]) from None
