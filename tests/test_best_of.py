"""study.best_of: the best points of a study once more, with seeds that had no part in choosing them."""

import csv
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import CONF
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from studies import made_study, made_trial

from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.reports.page import write_report
from tbptt.studies.best_of import best_of
from tbptt.studies.dry_run import describe
from tbptt.studies.plan import Plan, make_plan
from tbptt.studies.study import Study

SEARCH = ["clip=tag(log,interval(0.1,10))", "study.n_trials=8", "epochs=3"]
AGAIN = ["study.best_of=search", "study.seeds=[10,11]"]
Planned = Callable[..., Plan]


@pytest.fixture
def plan(here: Path) -> Planned:
    register()

    def planned(*words: str) -> Plan:
        source = ConfigSource(CONF)
        with source.opened():
            return make_plan(source, parsed(words)[0])

    return planned


@pytest.fixture
def search(plan: Planned) -> Study:
    """Eight trials, the best of them by number 5, 2, 7, 0; one is a copy of 2, two are not complete."""
    clips, losses = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 3.0], [0.4, 0.9, 0.2, 0.0, 0.0, 0.1, 0.8, 0.3]
    trials = [
        made_trial("PRUNED" if i in (3, 4) else "COMPLETE", values=[v], params={"clip": c})
        for i, (c, v) in enumerate(zip(clips, losses, strict=True))
    ]
    return made_study(
        trials, name="search", spaces={"clip": FloatDistribution(0.1, 10, log=True)}, spec=plan(*SEARCH).spec
    )


def wrong(plan: Plan) -> list[str]:
    with pytest.raises(CommandError) as error:
        best_of(plan)
    return error.value.lines


@pytest.mark.usefixtures("search")
def test_the_best_complete_points_are_chosen_each_once(plan: Planned) -> None:
    found = best_of(plan(*SEARCH, *AGAIN, "study.n_trials=3"))
    assert found.seeds == [0]
    assert found.trials == [
        {"trial": 5, "value": 0.1, "point": {"clip": 6.0}},
        {"trial": 2, "value": 0.2, "point": {"clip": 3.0}},
        {"trial": 0, "value": 0.4, "point": {"clip": 1.0}},
    ]
    five = plan(SEARCH[0], "epochs=3", *AGAIN)
    assert five.n_trials == 5
    assert five.is_grid
    assert [c["trial"] for c in best_of(five).trials] == [5, 2, 0, 6, 1]
    assert plan("sweep=clip", *AGAIN).n_trials == 5  # whose file says 20
    assert plan("sweep=clip", *AGAIN, "study.n_trials=7").n_trials == 7
    assert five.name != plan(SEARCH[0], "epochs=3", "study.n_trials=5", "study.seeds=[10,11]").name


@pytest.mark.usefixtures("search")
def test_a_dry_run_shows_them(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbptt.studies.dry_run._seconds_an_epoch", lambda _: 3600.0)
    asked = plan(*SEARCH, *AGAIN, "study.n_trials=2")
    lines = describe(asked, best_of(asked).points).splitlines()
    assert lines[2:5] == ["  the best of study search:", "    clip=6.0", "    clip=3.0"]
    assert "2 trials × 2 seeds × 3 epochs, 1 at once: at least 12 hours" in lines[6]


@pytest.mark.usefixtures("search")
def test_what_would_not_be_the_same_search_is_refused_with_a_line_each(plan: Planned) -> None:
    search, *rest = SEARCH
    assert wrong(plan(search, "epochs=3", "study.best_of=none", "study.seeds=[10]")) == [
        "study.best_of: got 'none'; takes a study of sqlite:///sweeps/optuna.db: search"
    ]
    other_space = wrong(plan("clip=tag(log,interval(0.1,20))", *rest, *AGAIN))
    assert other_space == [
        "study.best_of: clip was interval(0.1, 10), log, is interval(0.1, 20), log; takes the space of study search"
    ]
    longer = plan(search, "epochs=9", *AGAIN)
    (line,) = wrong(longer)
    assert line.startswith("study.best_of: epochs was 3, is 9; takes the command that began it, or study.allow_changed")
    assert len(best_of(plan(search, "epochs=9", *AGAIN, "study.allow_changed=true")).trials) == 5
    (line,) = wrong(plan(*SEARCH, "study.best_of=search", "study.seeds=[0,1,3]"))
    assert line == "study.seeds: got [0], by which study search was searched; takes others"
    (line, _) = wrong(plan(*SEARCH, *AGAIN, "objective=train/loss"))
    assert "objective" in line
    with pytest.raises(CommandError, match=r"study\.seeds: missing; takes some that study search did not have"):
        plan(*SEARCH, "study.best_of=search")


def test_a_study_without_a_complete_trial_has_no_best(plan: Planned) -> None:
    made_study([made_trial("PRUNED", params={"clip": 1.0})], name="search", spec=plan(*SEARCH).spec)
    assert wrong(plan(*SEARCH, *AGAIN)) == ["study.best_of: got 'search', of which no trial is complete yet"]


def test_the_report_says_what_a_point_had_when_it_was_chosen(here: Path) -> None:
    chosen = [{"trial": 7, "value": 0.25, "point": {"clip": 2.0}}]
    spec: dict[str, Any] = {"space": {}, "config": {}, "seeds": [10, 11], "best_of": "search"}
    trials = [made_trial(values=[v], params={"clip": c}, by_seed=[v, v]) for c, v in ((1.0, 0.5), (2.0, 0.4))]
    text = write_report(made_study(trials, spec=spec, chosen=chosen)).read_text()
    assert "It was trial 7 of search, and had 0.25 with the seeds that it was chosen by." in text
    table = list(csv.DictReader(Path("sweeps/a-study/trials.csv").read_text().splitlines()))
    assert [(row["chosen_trial"], row["chosen_value"]) for row in table] == [("", ""), ("7", "0.25")]


def test_the_reports_advice_is_a_command_that_works(plan: Planned, search: Study) -> None:
    page = html.unescape(write_report(search).read_text())
    advice = re.search(r"the same command with (study\.best_of=\S+ .*) behind it", page)
    assert advice
    words = advice[1].split()
    assert words == ["study.best_of=search", "study.name=search-again", "study.n_trials=5", "study.seeds=[10,11,12]"]
    asked = plan(*SEARCH, "study.name=search", *words)
    assert len(best_of(asked).points) == asked.n_trials == 5


def test_seeds_that_chose_at_any_stage_are_refused(plan: Planned, search: Study) -> None:
    search.optuna.set_user_attr("seeds_used", [2, 7])
    assert wrong(plan(*SEARCH, "study.best_of=search", "study.seeds=[7,8]")) == [
        "study.seeds: got [7], by which study search was searched; takes others"
    ]
    assert best_of(plan(*SEARCH, *AGAIN)).seeds == [0, 2, 7]


@pytest.mark.usefixtures("search")
def test_what_was_chosen_once_stays_so_and_a_larger_total_adds_to_it(
    plan: Planned, search: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tbptt.runs.tracking import Store
    from tbptt.studies.sweep import _prepare, _spec

    def queued(n: int) -> list[float]:
        small = ["data.length=120", "data.window=8", "study.allow_changed=true"]
        asked = plan(*SEARCH, *AGAIN, f"study.n_trials={n}", "study.name=again", *small)
        chosen = best_of(asked)
        again = Study("again", asked.settings.storage, asked.objectives)
        _prepare(again, asked, Store(asked.cfg.tracking), chosen.points, chosen, _spec(asked))
        trials = again.trials()
        assert {t.state for t in trials} == {TrialState.WAITING}
        return [t.system_attrs["fixed_params"]["clip"] for t in trials]

    with monkeypatch.context() as killed:
        enqueue = optuna.Study.enqueue_trial

        def once(study: optuna.Study, *args: Any, **more: Any) -> None:
            if study.trials:
                raise KeyboardInterrupt
            enqueue(study, *args, **more)

        killed.setattr(optuna.Study, "enqueue_trial", once)
        with pytest.raises(KeyboardInterrupt):
            queued(2)
    assert queued(2) == [6.0, 3.0]
    assert queued(2) == [6.0, 3.0]
    better = made_trial(values=[0.05], params={"clip": 9.0})
    better.distributions = {"clip": FloatDistribution(0.1, 10, log=True)}
    search.optuna.add_trial(better)
    assert queued(2) == [6.0, 3.0]
    assert queued(3) == [6.0, 3.0, 9.0]
    assert Study.existing("again", "sqlite:///sweeps/optuna.db").record.seeds_used == [0, 10, 11]
