"""Test a study against chance: is the best of so many trials better than a baseline, and which trials cannot be told
from the best? The tests use the losses on val, step by step, of all complete trials with the same targets and steps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from tbptt.config.names import SWEEPS
from tbptt.evaluation import study_words
from tbptt.evaluation.chance import FEWEST, FEWEST_SERIES, Evidence
from tbptt.reports.losses import FETCHED, Losses, files, of_trial, read_losses
from tbptt.studies.ranking import best_first, complete
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study

log = logging.getLogger("tbptt")

MOST_TRIALS = 2000  # trials whose losses are read
SECONDS, SECONDS_RUNNING = 60.0, 5.0  # to wait for files on a server: if the study is over, if it runs
MOST_NAMED = 10
NOT_THERE = "their losses of each step are not in the store, or did not come from it in time"


@dataclass(frozen=True)
class Tried:
    """The result of the comparison.

    Attributes:
        lines: p-values, how many trials cannot be told from the best, and which trials were left out.
        inside: by trial, whether it cannot be told from the best. Trials that were not compared are not in it.
    """

    lines: list[str] = field(default_factory=list)
    inside: Mapping[int, bool] = field(default_factory=dict)


def tried(study: Study, trials: Sequence[FrozenTrial], store: Any | None) -> Tried:
    """Compare the trials of a study.

    Args:
        store: the :class:`tbptt.runs.tracking.Store` of its runs; None compares nothing.
    """
    ranked = best_first(complete(trials), *study.objectives)
    if store is None or len(ranked) < 2:
        return Tried()
    running = any(t.state == TrialState.RUNNING for t in trials)
    found, left_out = _read(study, ranked[:MOST_TRIALS], store, SECONDS_RUNNING if running else SECONDS)
    if len(ranked) > MOST_TRIALS:
        left_out["only the best 2,000 are read"] = [t.number for t in ranked[MOST_TRIALS:]]
    if not found:
        return Tried(["Trials are not compared step by step: none of them has kept its losses where they can be read."])
    first = next(iter(found))
    others = [number for number, losses in found.items() if not losses.alike(found[first])]
    if others:
        left_out[f"other targets or other steps than trial {first} has"] = others
    same = {number: losses for number, losses in found.items() if number not in others}
    result = compared(same)
    return Tried([*result.lines, *_left_out(left_out)], result.inside)


def compared(trials: Mapping[int, Losses]) -> Tried:
    """Compare trials that have the same targets and steps. ``trials`` has their losses by number."""
    if len(trials) < 2:
        return Tried(["Only one trial has losses that can be compared step by step."])
    every = list(trials.values())
    rows = np.stack([losses.model for losses in every])
    block = float(np.median([losses.block for losses in every])) or None
    evidence = Evidence(rows.shape[1], block)
    if not evidence.enough:
        fewest = FEWEST_SERIES if block is None else FEWEST
        return Tried([study_words.too_short_line(evidence.observations, fewest)])
    from tbptt.evaluation.compared import confidence_set, superior

    mean = every[0].baselines["mean"]
    # Ridge regression may differ between trials, because their inputs may: take the best of all.
    best, of_best = min(
        ((name, values) for losses in every for name, values in losses.baselines.items()),
        key=lambda one: float(one[1].mean()),
    )
    of_mean = superior(rows, mean, block)
    against_best = of_mean if best == "mean" else superior(rows, of_best, block)
    inside = confidence_set(rows, block)
    assert of_mean is not None
    assert against_best is not None
    assert inside is not None
    lines = [
        study_words.superior_line(len(rows), of_mean, best, against_best),
        study_words.confidence_line(len(inside), len(rows)),
    ]
    return Tried(lines, {number: i in inside for i, number in enumerate(trials)})


def _read(
    study: Study, trials: Sequence[FrozenTrial], store: Any, seconds: float
) -> tuple[dict[int, Losses], dict[str, list[int]]]:
    """The losses of each trial by its number, in their order. Also the trials without losses, by the reason."""
    runs = {t.number: TrialRecord.of(t).run_ids for t in trials}
    folder = SWEEPS / study.name
    paths = files(store, [run for some in runs.values() for run in some], folder, seconds)
    found: dict[int, Losses] = {}
    left_out: dict[str, list[int]] = {}
    for number, some in runs.items():
        if not some or any(run not in paths for run in some):
            left_out.setdefault(NOT_THERE, []).append(number)
            continue
        try:
            found[number] = of_trial([read_losses(paths[run]) for run in some])
        except ValueError as error:
            log.debug("trial %s: %s", number, error)
            left_out.setdefault("their losses cannot be read", []).append(number)
            for path in (paths[run] for run in some):
                if path.parent == folder / FETCHED:
                    path.unlink(missing_ok=True)  # the download may be incomplete
    return found, left_out


def _left_out(reasons: Mapping[str, Sequence[int]]) -> list[str]:
    lines = []
    for reason, numbers in reasons.items():
        named = ", ".join(map(str, sorted(numbers)[:MOST_NAMED])) + (", …" if len(numbers) > MOST_NAMED else "")
        what = f"{len(numbers)} complete trials" if len(numbers) > 1 else "one complete trial"
        lines.append(f"Not compared: {what} ({named}); {reason}.")
    return lines
