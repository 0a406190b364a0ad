"""The report: the right answer, nothing lost in the table, nothing injected, nothing loaded."""

import html
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import CONF
from pages import Artifacts, Page, page_of
from studies import HOSTILE, made_study, made_trial, numbered

from tbptt.cli import main
from tbptt.reports import optuna_figures, page
from tbptt.reports.page import write_report
from tbptt.studies.ranking import best_trial, pareto_front

SPEED = "time/timesteps_per_second"  # maximized


# --- the answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "best"), [("val/loss", 1), (SPEED, 2)])
def test_best_trial_is_best_in_the_objectives_direction(here: Path, objective: str, best: int) -> None:
    study = made_study([made_trial(values=[v]) for v in (3.0, 1.0, 4.0, 1.5)], [objective])
    found = best_trial(study.trials(), objective)
    assert found is not None
    assert found.number == best == study.optuna.best_trial.number
    assert f"Best: trial {best}" in page_of(write_report(study)).text


def test_pruned_and_failed_trials_are_never_the_best() -> None:
    trials = numbered([made_trial("PRUNED", curve=[0.1]), made_trial("FAIL", curve=[0.1]), made_trial(values=[2.0])])
    found = best_trial(trials, "val/loss")
    assert found is trials[2]


def test_of_equally_good_trials_the_next_objective_decides_then_the_number() -> None:
    trials = numbered([made_trial(values=v) for v in ([1.0, 5.0], [1.0, 9.0], [1.0, 9.0], [2.0, 99.0])])
    assert best_trial(trials, "val/loss", SPEED) is trials[1]
    assert best_trial(trials, "val/loss") is trials[0]


def test_pareto_front_is_optunas_and_begins_with_the_best(here: Path) -> None:
    rng, objectives = random.Random(0), ["val/loss", SPEED, "grad/norm_max"]
    study = made_study([made_trial(values=[rng.randrange(5) for _ in range(3)]) for _ in range(80)], objectives)
    front = pareto_front(study.trials(), objectives)
    assert sorted(t.number for t in front) == sorted(t.number for t in study.optuna.best_trials)
    assert front[0] is best_trial(study.trials(), *objectives)


def test_answer_says_what_predicting_the_mean_has_and_what_comes_next(here: Path) -> None:
    text = page_of(write_report(made_study([made_trial(values=[v]) for v in (1.1, 1.0)]))).text
    assert "Predicting the training mean has 1.25 there; what was chosen by it looks better than it is." in text
    assert "below" not in text
    assert "The next best, trial 0, has 1.1." in text
    assert "One seed" in text


@pytest.mark.parametrize(("others", "said"), [([1.3, 1.4], "do not overlap"), ([1.1, 1.4], "overlap")])
def test_answer_says_whether_seeds_keep_the_best_two_apart(here: Path, others: list[float], said: str) -> None:
    best = made_trial(values=[1.1], by_seed=[1.0, 1.2])
    text = page_of(write_report(made_study([best, made_trial(values=[1.25], by_seed=others)]))).text
    assert "Mean of 2 seeds, which range from 1 to 1.2 (standard deviation 0.14)." in text
    assert f"over their seeds the two {said}." in text


def test_answer_says_that_a_pruned_trial_had_been_better(here: Path) -> None:
    trials = [made_trial(values=[1.2]), made_trial("PRUNED", curve=[2.0, 0.9, 1.4])]
    assert "Trial 1 (pruned) had a better val/loss, 0.9, at epoch 2." in page_of(write_report(made_study(trials))).text


def test_a_trial_whose_last_epoch_was_its_best_is_said_to_have_had_no_more(here: Path) -> None:
    text = page_of(write_report(made_study([made_trial(values=[1.2], best_epochs=[2])]))).text
    assert "Its last epoch, 3, was its best" in text


def test_what_ended_the_study_early_is_said_until_it_has_gone_on(here: Path) -> None:
    study = made_study([made_trial(values=[1.2])], n_trials=4)
    over = "study.timeout of 60 s is over: 1 of 4 trials; the same command goes on"
    study.note_end(over)
    assert over in page_of(write_report(study)).text
    study.note_end(None)
    assert "study.timeout" not in page_of(write_report(study)).text


def test_without_a_complete_trial_the_best_value_so_far_is_said(here: Path) -> None:
    trials = [made_trial("PRUNED", curve=[3.0]), made_trial("RUNNING", curve=[2.0, 1.7])]
    text = page_of(write_report(made_study(trials))).text
    assert "No trial is complete yet. The best value so far is 1.7, of trial 1 (running) at epoch 2." in text


def test_several_objectives_are_answered_with_their_front(here: Path) -> None:
    trials = [made_trial(values=v, params={"clip": v[0]}) for v in ([1.0, 10.0], [2.0, 30.0], [3.0, 20.0])]
    page = page_of(write_report(made_study(trials, ["val/loss", SPEED])))
    assert "Best by val/loss: trial 0, one of 2 on the Pareto front of 3 complete trials" in page.text
    assert page.tables["front"][1:] == [["0", "1", "10", "clip=1"], ["1", "2", "30", "clip=2"]]


def test_command_is_one_that_a_shell_takes(here: Path) -> None:
    study = made_study([made_trial(values=[1.0])], name="two words; rm")
    text = page_of(write_report(study, Artifacts(here, ("ab" * 16,)))).text
    assert "python train.py --config-dir 'sweeps/two words; rm' --config-name best" in text
    assert "python predict.py 'two words; rm' data.path=FILE" in text


def test_no_command_is_given_where_the_config_is_gone(here: Path) -> None:
    study = made_study([made_trial(values=[1.0])])
    text = page_of(write_report(study, Artifacts(here, ()))).text
    assert "--config-name best" not in text
    assert "no command reruns it" in text


# --- the page -------------------------------------------------------------------------------------------------------


def test_names_and_values_are_data(here: Path) -> None:
    points = [{HOSTILE: value, "clip": clip} for value, clip in ((HOSTILE, 1.0), ("b", 2.0), (HOSTILE, 3.0))]
    trials = [made_trial(values=[p["clip"]], params=p) for p in points]
    trials.append(made_trial("FAIL", params=points[0], reason=HOSTILE))
    spec = {"space": {HOSTILE: HOSTILE}, "config": {HOSTILE: HOSTILE}, "seeds": None}
    study = made_study(trials, name=HOSTILE.replace("/", "|"), spec=spec, changes=[HOSTILE])
    page = page_of(write_report(study))
    tags = [tag for tag, _ in page.elements]
    assert "img" not in tags
    assert tags.count("script") == 2 + sum(attrs.get("type") == "application/json" for _, attrs in page.elements)
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert page.text.count(HOSTILE) > 5
    assert "49" not in page.tables["failures"][1][1]


def test_nothing_is_loaded_and_only_mlflow_is_linked(here: Path) -> None:
    trials = [made_trial(values=[v], params={"clip": v}) for v in (1.0, 2.0, 3.0)]
    page = page_of(write_report(made_study(trials, parent_run="ef" * 16), Artifacts(here, ("ab" * 16,))))
    targets = [attrs[name] or "" for _, attrs in page.elements for name in ("src", "href", "srcset") if name in attrs]
    links = [target for target in targets if not target.startswith(("data:", "#"))]
    runs = ["ef" * 16] + 3 * ["ab" * 16]
    pages = [f"http://127.0.0.1:5000/#/experiments/3/runs/{run}?workflowType=machine_learning" for run in runs]
    assert links[1:] == pages
    first = urlsplit(urlsplit(links[0]).fragment)
    assert links[0].startswith("http://127.0.0.1:5000/#/experiments/3/runs?")
    assert dict(parse_qsl(first.query)) == {
        "searchFilter": "tags.`study.name` = 'a-study'",
        "orderByKey": "metrics.`best/val/loss`",
        "orderByAsc": "true",
        "compareRunsMode": "CHART",
        "workflowType": "machine_learning",
    }
    policy = [attrs["content"] for tag, attrs in page.elements if "http-equiv" in attrs]
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")
    assert "http" not in policy[0]


def test_plotly_has_no_button_that_uploads_the_data() -> None:
    assert page.PLOTLY["showSendToCloud"] is False
    assert page.PLOTLY["plotlyServerURL"] == ""


def test_table_holds_every_trial_best_first(here: Path) -> None:
    trials = [made_trial(values=[v], params={"clip": 1.0 / 3}) for v in (3.0, 1.0, 2.0)]
    trials += [made_trial("PRUNED", curve=[5.0]), made_trial("PRUNED", stop_reason="diverged"), made_trial("FAIL")]
    rows = page_of(write_report(made_study(trials))).tables["trials"]
    assert rows[0] == ["trial", "state", "val/loss", "clip", "epochs run", "seconds", "runs"]
    assert [row[:4] for row in rows[1:4]] == [
        [n, "complete", n_, "0.333333"] for n, n_ in zip("120", "123", strict=True)
    ]
    assert {tuple(row[:2]) for row in rows[4:]} == {("3", "pruned"), ("4", "diverged"), ("5", "failed")}


def test_values_are_held_side_by_side_where_nothing_else_differs(here: Path) -> None:
    losses = {1.0: [1.0, 2.0], 2.0: [1.5, 1.75]}
    trials = [made_trial(values=[1.6], params={"clip": clip}, by_seed=of) for clip, of in losses.items()]
    page = page_of(write_report(made_study(trials)))
    assert page.tables["pairs"][1:] == [["clip", "1", "2", "1 of 2", "0.125", "-0.25 to 0.5"]]
    changed = made_study(trials, name="changed", changes=["study.seeds: was [0, 1], is [2, 3]"])
    assert "pairs" not in page_of(write_report(changed)).tables


def test_failures_are_listed_with_their_reasons(here: Path) -> None:
    trials = [made_trial("FAIL", params={"clip": 1.0}, reason=f"reason {i}", requeued=bool(i)) for i in range(2)]
    page = page_of(write_report(made_study(trials)))
    assert page.tables["failures"][1:] == [["0", "reason 0", "clip=1"], ["1", "reason 1 (run again)", "clip=1"]]
    assert [row[1] for row in page.tables["trials"][1:]] == ["failed", "run again"]
    assert "0 complete, 1 failed, 1 run again, of 2 " in page.text


def drawn(page: Page, path: Path) -> list[str]:
    return [
        html.unescape(title) for title in re.findall(r"(?<!hidden>)<h2>(.*?)</h2>", path.read_text(encoding="utf-8"))
    ]


def test_sections_come_in_the_order_in_which_they_are_looked_at(here: Path) -> None:
    rng = random.Random(2)
    trials = [
        made_trial(values=[rng.random()], params={"clip": rng.uniform(1, 9), "schedule.chunks": rng.choice("ab")})
        for _ in range(12)
    ]
    path = write_report(made_study([*trials, made_trial("FAIL", reason="out of memory")]))
    assert drawn(page_of(path), path) == [
        "Loss curves",
        "History",
        "What explains the differences",
        "Parallel coordinates",
        "Slices",
        "Two keys together: clip against schedule.chunks",
        "Timeline",
        "Failed or interrupted",
        "Trials",
    ]
    assert "Not drawn" not in page_of(path).text


@pytest.mark.parametrize(
    ("trials", "titles", "said"),
    [
        (lambda: [], [], "no trial has finished an epoch"),
        (lambda: [made_trial("PRUNED")], ["Loss curves", "Timeline"], "no trial is complete"),
        (
            lambda: [made_trial(values=[1.0], params={"clip": 1.0})],
            ["Loss curves", "History", "Timeline"],
            "needs two complete trials at different points",
        ),
        (
            lambda: [made_trial(values=[1.0], params={"clip": c}) for c in (1.0, 2.0)],
            ["Loss curves", "History", "Timeline"],
            "all complete trials have the same val/loss",
        ),
        (
            lambda: [made_trial(values=[c], params={"clip": c}) for c in (1.0, 2.0)],
            ["Loss curves", "History", "Slices", "Timeline"],
            "needs two keys that vary together",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(here: Path, trials: Callable[[], Any], titles: list[str], said: str) -> None:
    path = write_report(made_study(trials()))
    assert drawn(page_of(path), path) == [*titles, "Trials"]
    assert said in page_of(path).text


def test_a_figure_that_fails_costs_only_itself(here: Path, monkeypatch: Any, caplog: Any) -> None:
    def fails(*args: Any, **settings: Any) -> Any:
        raise AssertionError("inside Optuna")

    monkeypatch.setattr(optuna_figures.visualization, "plot_slice", fails)
    path = write_report(made_study([made_trial(values=[c], params={"clip": c, "optimizer.lr": c}) for c in (1.0, 2.0)]))
    titles = drawn(page_of(path), path)
    assert "Slices" not in titles
    assert "Parallel coordinates" in titles
    assert "Slices: could not be drawn (AssertionError: inside Optuna)." in page_of(path).text
    assert "Slices" in caplog.text


def test_a_study_that_runs_can_be_reported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_study([made_trial(values=[1.5]), made_trial("RUNNING", curve=[3.0, 2.0]), made_trial("RUNNING", curve=[])])
    assert main.report(["a-study", "tracking.uri=sqlite:///mlruns/mlflow.db"], CONF) == 0
    path = Path(capsys.readouterr().out.strip())
    page = page_of(path)
    assert "1 complete, 2 running, of 3" in page.text
    assert ["1", "running", "", "2", "", ""] in page.tables["trials"]
    assert drawn(page, path)[0] == "Loss curves"
