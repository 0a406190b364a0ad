"""study.placebo_of: a study's best point on surrogates of its data, and how many of them do as well."""

import csv
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONF
from optuna.distributions import FloatDistribution
from studies import made_study, made_trial

from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.reports.page import write_report
from tbptt.studies import sweep, worker
from tbptt.studies.dry_run import describe
from tbptt.studies.placebo import Placebos, placebo_line, placebos, placebos_of
from tbptt.studies.plan import Plan, make_plan
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.system.runtime import StopSignals

SMALL = [
    *("data=prices", "data.path=prices.csv", "data.window=8", "data.warm_steps=20", "task=forecast"),
    *("task.horizons=[1]", "model.dense=[4]", "model.hidden=[4]", "schedule.chunks=[2,1]", "epochs=2", "progress=none"),
]
SEARCH = [*SMALL, "clip=tag(log,interval(0.1,10))", "study.n_trials=4", "study.name=search"]
CLIP = {"clip": FloatDistribution(0.1, 10, log=True)}
SPEC: dict[str, Any] = {"space": {}, "config": {}, "seeds": None}
Planned = Callable[..., Plan]


@pytest.fixture
def plan(here: Path) -> Planned:
    register()
    walk = 100 + np.random.default_rng(0).normal(size=300).cumsum()
    Path("prices.csv").write_text("\n".join(["close", *map(str, walk)]))

    def planned(*words: str) -> Plan:
        source = ConfigSource(CONF)
        with source.opened():
            return make_plan(source, parsed(words)[0])

    return planned


@pytest.fixture
def search(plan: Planned) -> Study:
    """Three trials, the best of them number 1."""
    trials = [made_trial(values=[v], params={"clip": c}) for c, v in ((1.0, 0.9), (2.0, 0.5), (3.0, 0.7))]
    return made_study(trials, name="search", spaces=CLIP, spec=sweep._spec(plan(*SEARCH)))


def wrong(planned: Planned, *words: str) -> list[str]:
    with pytest.raises(CommandError) as error:
        placebos_of(planned(*words))
    return error.value.lines


@pytest.mark.usefixtures("search")
def test_the_command_and_one_word_more_is_the_best_point_on_twenty_surrogates(plan: Planned) -> None:
    asked = plan(*[word for word in SEARCH if "n_trials" not in word], "study.placebo_of=search")
    assert (asked.n_trials, asked.is_grid, asked.cfg.data.surrogate) == (20, True, "shuffle")
    assert asked.name != "search"
    assert asked.spec["placebo_of"] == "search"
    assert asked.settings.pruner.name == "none"
    found = placebos_of(asked)
    assert found.points == [{"clip": 2.0, "data.surrogate_seed": i} for i in range(20)]
    assert {(c["trial"], c["value"]) for c in found.trials} == {(1, 0.5)}
    assert asked.space.overrides(found.points[3]) == ["clip=2.0", "data.surrogate_seed=3"]
    blocks = plan(*SEARCH, "study.placebo_of=search", "study.n_trials=2", "data.surrogate=blocks")
    assert blocks.cfg.data.surrogate == "blocks"
    assert len(placebos_of(blocks).points) == 2
    assert blocks.name not in (asked.name, "search")
    own = plan(*SEARCH, "study.placebo_of=search", "study.name=mine")
    assert own.name == "mine"


@pytest.mark.usefixtures("search")
def test_a_dry_run_shows_them(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbptt.studies.dry_run._seconds_an_epoch", lambda _: 3600.0)
    asked = plan(*SEARCH, "study.placebo_of=search", "study.n_trials=2")
    text = describe(asked, placebos_of(asked).points)
    assert "the best of study search on 2 surrogates (shuffle):\n    clip=2.0 data.surrogate_seed=0\n" in text


def test_what_would_not_be_the_same_search_is_refused_with_a_line_each(plan: Planned, search: Study) -> None:
    of = "study.placebo_of=search"
    assert wrong(plan, *SEARCH, "study.placebo_of=none") == [
        "study.placebo_of: got 'none'; takes a study of sqlite:///sweeps/optuna.db: search"
    ]
    (line,) = wrong(plan, *SEARCH, of, "study.best_of=search", "study.seeds=[7]")
    assert line == "study.placebo_of: got 'search' beside study.best_of; takes one of the two"
    (line,) = wrong(plan, *SEARCH, of, "data.surrogate=signs,blocks")
    assert line.startswith("data.surrogate: swept, and study.placebo_of trains on one kind")
    (line,) = wrong(plan, *SEARCH, of, "data.surrogate_seed=4")
    assert line.startswith("data.surrogate_seed: typed beside study.placebo_of")
    (line,) = wrong(plan, *SEARCH, of, "epochs=3")
    assert line.startswith("study.placebo_of: epochs was 2, is 3; takes the command that began it")
    (line,) = wrong(plan, *SEARCH, of, "study.seeds=[0,1]")
    assert line.startswith("study.placebo_of: seeds was None, is [0, 1]")
    (line,) = wrong(plan, *SEARCH, of, "study.folds=2")[:1]
    assert line.startswith("study.placebo_of: folds was None, is 2")
    (line,) = wrong(plan, *[w for w in SEARCH if "clip" not in w], "clip=tag(log,interval(0.1,20))", of)
    assert line.endswith("is interval(0.1, 20), log; takes the space of study search")
    Path("prices.csv").write_text(Path("prices.csv").read_text() + "\n101.5")
    (line,) = wrong(plan, *SEARCH, of)
    assert line.startswith("study.placebo_of: the data are not those of study search")
    assert len(placebos_of(plan(*SEARCH, of, "study.allow_changed=true")).points) == 4


def test_a_study_without_a_complete_trial_has_no_placebos(plan: Planned) -> None:
    trials = [made_trial("PRUNED", params={"clip": 1.0})]
    made_study(trials, name="search", spaces=CLIP, spec=sweep._spec(plan(*SEARCH)))
    assert wrong(plan, *SEARCH, "study.placebo_of=search") == [
        "study.placebo_of: got 'search', of which no trial is complete yet"
    ]


def test_what_was_chosen_once_stays_so_and_a_larger_total_adds_to_it() -> None:
    def points(trial: int, clip: float, n: int) -> Placebos:
        return Placebos(
            [{"trial": trial, "value": 0.5, "point": {"clip": clip, "data.surrogate_seed": i}} for i in range(n)]
        )

    before = points(1, 2.0, 2)
    assert points(7, 9.0, 3).after(before.trials) == points(1, 2.0, 3)
    assert points(7, 9.0, 1).after(before.trials) == before
    assert points(7, 9.0, 2).after([]) == points(7, 9.0, 2)


def made(skills: list[float], name: str = "placebo", kind: str = "shuffle", n: int = 0, **attrs: Any) -> Study:
    """A placebo study of trial 1 of ``search``."""
    trials = [
        made_trial(values=[9.0], params={"clip": 2.0, "data.surrogate_seed": i}, metrics={"val/skill": skill})
        for i, skill in enumerate(skills)
    ]
    chosen = [{"trial": 1, "value": 0.5, "point": t.params} for t in trials]
    spec = {**SPEC, "config": {"data.surrogate": kind}, "placebo_of": "search"}
    return made_study(trials, name=name, spec=spec, chosen=chosen, n_trials=n or len(trials), **attrs)


def real(values: dict[int, float | None], objective: str = "val/loss") -> Study:
    """Two trials; by number their skill, where it is known."""
    trials = [
        made_trial(values=[0.25 * (i + 1)], params={"clip": i + 1.0}, metrics={"val/skill": v} if v is not None else {})
        for i, v in values.items()
    ]
    return made_study(trials, [objective], name="search", spec=SPEC)


def test_the_report_says_what_share_does_as_well_by_the_skill(here: Path) -> None:
    study = real({0: 0.9, 1: 0.1})
    assert placebo_line(study) == ""
    made([-0.2, 0.1, 0.3, *[0.0] * 17])
    made([0.0, 0.0], "of-signs", "signs", n=5)
    says = (
        "2 of 20 surrogates (shuffle) do as well as trial 1 or better, by val/skill: p about 0.14 ((2+1)/(20+1)). "
        "It was chosen as the best of several and they were not, so p is too small. "
        "0 of 2 surrogates (signs) do as well as trial 1 or better, by val/skill: p about 0.33 ((0+1)/(2+1)); 3 more"
    )
    assert says in placebo_line(study)
    assert says in html.unescape(write_report(study).read_text())


def test_a_trial_of_before_there_was_skill_has_it_by_its_baseline(here: Path) -> None:
    study = real({0: None, 1: None})  # a loss of 0.5, where predicting the mean has 1.25
    made([0.59, 0.61])
    (compared,) = placebos(study)
    assert compared.real == pytest.approx(1 - 0.5 / 1.25)
    assert compared.as_well == 1


def test_another_objective_is_compared_by_itself_in_its_own_direction(here: Path) -> None:
    study = real({0: 0.0, 1: 0.0}, "val/right_sign")  # trial 1 has 0.5, and larger is better
    trials = [made_trial(values=[v], params={"data.surrogate_seed": i}) for i, v in enumerate((0.4, 0.5, 0.6))]
    trials.append(made_trial("PRUNED", params={"data.surrogate_seed": 3}, stop_reason="diverged"))
    chosen = [{"trial": 1, "value": 0.5, "point": t.params} for t in trials]
    spec = {**SPEC, "config": {"data.surrogate": "signs"}, "placebo_of": "search"}
    made_study(trials, ["val/right_sign"], name="placebo", spec=spec, chosen=chosen)
    (compared,) = placebos(study)
    assert (compared.as_well, len(compared.placebos)) == (2, 4)  # one that diverged is no better
    assert compared.p == pytest.approx(3 / 5)
    assert "by val/right_sign" in placebo_line(study)


def test_a_placebo_says_that_it_is_one(here: Path) -> None:
    study = made([0.1, 0.2])
    text = html.unescape(write_report(study).read_text())
    assert "A placebo: trial 1 of study search on surrogates (shuffle) of its data" in text
    assert "It was trial" not in text
    assert "study.best_of" not in text
    rows = list(csv.DictReader(Path("sweeps/placebo/trials.csv").read_text().splitlines()))
    assert [row["chosen_trial"] for row in rows] == ["1", "1"]


def test_placebos_are_trained_on_surrogates_each_on_its_own(plan: Planned) -> None:
    def swept(*words: str) -> Study:
        asked = plan(*words)
        chosen = placebos_of(asked) if asked.settings.placebo_of else None
        points = chosen.points if chosen else asked.points()
        study, store = sweep._opened(asked, asked.name, StopSignals())
        spec = sweep._spec(asked)
        parent = sweep._prepare(study, asked, store, points, chosen or sweep.Chosen(), spec)
        worker.work(sweep._worker_spec(asked, study.name, list(words), parent))
        return study

    command = [*SMALL, "clip=0.5,2", "study.folds=2", "study.name=search"]
    search = swept(*command)
    placebo = swept(*command, "study.placebo_of=search", "study.n_trials=3")
    best = search.optuna.best_trial
    trials = placebo.trials()
    assert [t.params for t in trials] == [{**best.params, "data.surrogate_seed": i} for i in range(3)]
    assert all(len(TrialRecord.of(t).run_ids) == 2 for t in trials)
    assert len({best.value, *(t.value for t in trials)}) == 4
    (compared,) = placebos(search)
    skills = [TrialRecord.of(t).metrics["val/skill"] for t in trials]
    assert compared.placebos == tuple(skills)
    assert compared.as_well == sum(skill >= TrialRecord.of(best).metrics["val/skill"] for skill in skills)
    assert placebo.record.placebo_of == "search"
