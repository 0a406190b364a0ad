"""The first lines of a study's report: the verdict on its best trial, that trial, how to rerun it, how certain it
is."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from tbptt.config.names import SWEEPS
from tbptt.options.metrics import VAL_LOSS
from tbptt.options.values import short_value, shown
from tbptt.reports import figures
from tbptt.reports.evidence import Tried
from tbptt.studies import judged_best
from tbptt.studies.next_steps import next_steps, with_other_seeds
from tbptt.studies.placebo import placebo_line
from tbptt.studies.ranking import (
    best_run,
    best_trial,
    complete,
    cost,
    epochs_run,
    folds_line,
    is_complete,
    pareto_front,
)
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study, state_of


def point_of(trial: FrozenTrial) -> str:
    """A trial's point in one line."""
    return ", ".join(f"{name}={short_value(value)}" for name, value in trial.params.items())


def answer(study: Study, trials: Sequence[FrozenTrial], verdict: judged_best.Answer, tried: Tried) -> dict[str, Any]:
    """What the first lines say.

    Args:
        verdict: on the best trial, by the test part, by which nothing was chosen.
        tried: how the trials compare on the validation part, by which they were chosen.

    Of its entries, ``commands`` are the next steps: what each does, in words, and the command. The study's own is the
    first, if it is known (``study.record.commands``).
    """
    best, objective = best_trial(trials, *study.objectives), study.objectives[0]
    front = pareto_front(trials, study.objectives) if len(study.objectives) > 1 else []
    ahead = _ahead(trials, best, objective)
    if best is None:
        says = [f"No trial is complete yet. {ahead}".strip()]
        return {"best": None, "says": says, "front": [], "commands": next_steps(study, trials)}
    has_config = (SWEEPS / study.name / "best.yaml").exists()
    return {
        "best": best.number,
        "headline": verdict.headline,
        "verdict": [_sentence(line) for line in verdict.lines],
        "tried": tried.lines,
        "chosen_by": study.objectives[0].startswith("val/"),
        "values": [(o, shown(v, 5)) for o, v in zip(study.objectives, best.values, strict=True)],
        "point": {name: short_value(value) for name, value in best.params.items()},
        "says": [line for line in (*_how_sure(study, trials, best), ahead) if line],
        "has_config": has_config,
        "commands": next_steps(study, trials),
        "luck": best_run(study, best)[1] if has_config else "",
        "front": [(t.number, [shown(v) for v in t.values], point_of(t)) for t in front],
        "complete": len(complete(trials)),
    }


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:] + ("" if line.endswith(".") else ".")


def _how_sure(study: Study, trials: Sequence[FrozenTrial], best: FrozenTrial) -> Iterator[str]:
    objective, of_study, of_best = study.objectives[0], study.record, TrialRecord.of(best)
    seeds, mean = of_best.by_seed(0), of_best.baseline
    if objective == VAL_LOSS and mean:
        yield f"Predicting the training mean has {shown(mean)} there; what was chosen by it looks better than it is."
    if len(seeds) > 1:
        yield (
            f"Mean of {len(seeds)} seeds, which range from {shown(min(seeds))} to {shown(max(seeds))} "
            f"(standard deviation {statistics.stdev(seeds):.2g})."
        )
    else:
        yield "One seed: how much of what sets trials apart is chance is not known."
    yield from (folds_line(best), placebo_line(study))
    if not of_study.chosen and len(trials) > 1:
        yield (
            "It is the best of several, so part of it is luck. What the best five are worth with other seeds, on "
            f"the same validation part: {_other_seeds(study)}."
        )
    for chosen in of_study.chosen:
        if chosen["point"] == best.params and of_study.best_of:
            before = f"{shown(chosen['value'])} with the seeds that it was chosen by"
            yield f"It was trial {chosen['trial']} of {of_study.best_of}, and had {before}."
    if len(study.objectives) == 1:
        yield _next_best(trials, best, objective)
    epochs = of_best.best_epochs
    if epochs and epochs[0] is not None and epochs[0] + 1 == epochs_run(best):
        yield f"Its last epoch, {epochs[0] + 1}, was its best: it may not have been at its end."


def _other_seeds(study: Study) -> str:
    """Where the command that trains the best points again is, or what to type."""
    if study.record.commands:
        return "one of the next steps below"
    return f"the same command with {' '.join(with_other_seeds(study))} behind it"


def _next_best(trials: Sequence[FrozenTrial], best: FrozenTrial, objective: str) -> str:
    """How far the next best trial is behind, and whether the seeds of the two trials keep them apart."""
    others = [t for t in trials if t.number != best.number]
    after = best_trial(others, objective)
    if after is None:
        return ""
    text = f"The next best, trial {after.number}, has {shown(after.values[0])}"
    seeds, its = ([cost(v, objective) for v in TrialRecord.of(t).by_seed(0)] for t in (best, after))
    if len(seeds) < 2 or len(its) < 2:
        return text + "."
    return text + (
        "; over their seeds the two overlap."
        if min(its) <= max(seeds)
        else "; over their seeds the two do not overlap."
    )


def _ahead(trials: Sequence[FrozenTrial], best: FrozenTrial | None, objective: str) -> str:
    """An incomplete trial that had a better value than the best complete trial; empty if there is none."""
    reached = [
        (cost(y, objective), epoch, y, t)
        for t in trials
        if not is_complete(t)
        for epoch, y in figures.curve_points(t, objective, objective).items()
    ]
    if not reached:
        return ""
    its_cost, epoch, value, trial = min(reached, key=lambda r: r[:2])
    first = TrialRecord.of(best).by_run(0) or best.values if best is not None else ()
    if first and its_cost >= cost(first[0], objective):  # incomplete trials reported only their first run
        return ""
    state = state_of(trial)
    if best is None:
        return f"The best value so far is {shown(value)}, of trial {trial.number} ({state}) at epoch {epoch}."
    return f"Trial {trial.number} ({state}) had a better {objective}, {shown(value)}, at epoch {epoch}."
