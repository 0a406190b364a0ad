"""The best points of a study, to be trained again with seeds that had no part in choosing them.

Of many trials the best is also the luckiest: its loss is lower than what its point gives on average.
"""

from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState

from tbptt.compose import CommandError
from tbptt.config import OBJECTIVES, flatten
from tbptt.plan import Plan
from tbptt.study import Study

ALLOW = "takes the command that began it, or study.allow_changed=true"


def best_of(plan: Plan) -> list[dict[str, Any]]:
    """What ``study.best_of`` asks for, the best first: of each trial its ``trial`` number, ``value`` and ``point``.

    Raises CommandError where that study is not there, is another search, or had one of the seeds.
    """
    name, seeds = plan.settings.best_of, plan.settings.seeds or []
    assert name is not None
    try:
        study = Study.existing(name, plan.settings.storage)
    except KeyError as error:
        known = ", ".join(error.args[0]) or "none yet"
        raise CommandError(
            [f"study.best_of: got {name!r}; takes a study of {plan.settings.storage}: {known}"]
        ) from None
    spec = study.attrs["spec"]
    lines = [
        f"study.best_of: {line}; takes the space of study {name}" for line in differences(spec, plan.spec, "space")
    ]
    if not plan.settings.allow_changed:
        lines += [f"study.best_of: {line}; {ALLOW}" for line in differences(spec, plan.spec, "config")]
    if study.objectives != plan.objectives:
        lines.append(f"objective: got {plan.objectives}; takes that of study {name}, {study.objectives}")
    before = spec["seeds"] or [spec["config"].get("seed")]
    if known_seeds := sorted(set(before) & set(seeds)):
        lines.append(f"study.seeds: got {known_seeds}, by which study {name} was searched; takes others")
    sign = 1 if OBJECTIVES[study.objectives[0]] == "minimize" else -1
    complete = [t for t in study.trials() if t.state == TrialState.COMPLETE]
    if not complete:
        lines.append(f"study.best_of: got {name!r}, of which no trial is complete yet")
    study.close()
    if lines:
        raise CommandError(lines)
    chosen: list[dict[str, Any]] = []
    for t in sorted(complete, key=lambda t: sign * t.values[0]):
        if t.params not in [c["point"] for c in chosen]:
            chosen.append({"trial": t.number, "value": t.values[0], "point": t.params})
    return chosen[: plan.n_trials]


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *parts: str) -> list[str]:
    """What changed between two specs, or in some parts of them, a line each."""
    flat_before, flat_now = (flatten({p: spec[p] for p in parts or spec if p in spec}) for spec in (before, now))
    return [
        f"{name.removeprefix('config.').removeprefix('space.')} was {flat_before.get(name)}, is {flat_now.get(name)}"
        for name in dict.fromkeys([*flat_before, *flat_now])
        if flat_before.get(name) != flat_now.get(name)
    ]
