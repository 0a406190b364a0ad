"""The report's figures: what they draw is what the trials say, and never more than a browser draws smoothly."""

import datetime
import math
import random
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from studies import BEGAN, HOSTILE, made_trial, numbered

from tbptt.reports import figures
from tbptt.reports.figures import curve_points, curves, thinned, timeline, with_curves
from tbptt.studies.ranking import best_first

SPEED = "time/timesteps_per_second"  # maximized


def of_loss(figure: go.Figure, metric: str = "val/loss") -> list[Any]:
    return [trace for trace in figure.data if (trace.meta or {}).get("loss") == metric]


def own(figure: go.Figure, metric: str = "val/loss") -> dict[int, Any]:
    """The traces that are one trial's."""
    return {trace.meta["trial"]: trace for trace in of_loss(figure, metric) if "trial" in trace.meta}


def highlighted(figure: go.Figure) -> Any:
    return next(trace for trace in of_loss(figure) if trace.meta.get("highlight"))


# --- loss curves ----------------------------------------------------------------------------------------------------


def test_every_trial_has_its_curves() -> None:
    trials = numbered(
        [made_trial(values=[v], curve=[3.0, v]) for v in (1.5, 1.2)] + [made_trial("PRUNED", curve=[4.0])]
    )
    figure = curves(best_first(trials, "val/loss"), "val/loss")
    assert {n: list(trace.y) for n, trace in own(figure).items()} == {0: [3.0, 1.5], 1: [3.0, 1.2], 2: [4.0]}
    assert list(own(figure, "train/loss")[1].y) == pytest.approx([3.3, 1.32])
    assert list(own(figure, "train/eval_loss")[1].x) == [1]


def test_best_curve_is_highlighted_and_what_is_not_complete_is_dimmed() -> None:
    trials = numbered([made_trial("PRUNED", curve=[0.1, 0.1]), made_trial(values=[2.0]), made_trial(values=[1.0])])
    figure = curves(best_first(trials, "val/loss"), "val/loss")
    assert highlighted(figure).name == "trial 2"
    assert list(highlighted(figure).y) == list(own(figure)[2].y)
    assert figure.data.index(highlighted(figure)) > max(map(figure.data.index, own(figure).values()))
    assert own(figure)[0].opacity < own(figure)[1].opacity
    assert own(figure)[0].line.color == figures.GREY


def test_a_curve_of_one_epoch_is_seen() -> None:
    figure = curves(numbered([made_trial("PRUNED", curve=[2.0])]), "val/loss")
    assert own(figure)[0].mode == "markers"


def test_epochs_without_a_finite_loss_leave_no_point() -> None:
    trial = made_trial(curve=[2.0, None, math.nan, math.inf, 1.0], values=[1.0])
    assert curve_points(trial, "val/loss") == {1: 2.0, 5: 1.0}


def test_a_running_trial_is_drawn_as_far_as_it_has_reported() -> None:
    trials = numbered([made_trial("RUNNING", curve=[2.0, 1.5])])
    assert with_curves(trials, "val/loss") == trials
    assert list(own(curves(trials, "val/loss"))[0].y) == [2.0, 1.5]
    assert with_curves(trials, "grad/norm_max") == []


def test_a_mark_stands_where_the_schedule_moves_on() -> None:
    trials = numbered([made_trial(values=[1.0], curve=[4.0, 3.0, 2.0, 1.0], chunks=[100, 100, 10, 1])])
    marks = next(trace for trace in of_loss(curves(trials, "val/loss")) if trace.meta.get("marks"))
    assert list(zip(marks.x, marks.y, marks.hovertext, strict=True)) == [
        (3, 2.0, "100 → 10 chunks"),
        (4, 1.0, "10 → 1 chunks"),
    ]


def test_menu_shows_one_loss_at_a_time() -> None:
    figure = curves(numbered([made_trial(values=[1.0])]), "val/loss")
    always = [trace.name for trace in figure.data if not (trace.meta or {}).get("loss")]
    assert always == ["predicting the mean"]
    shown = {button.label: button.args[1] for button in figure.layout.updatemenus[0].buttons}
    for label, metrics in (
        ("held-out, weights frozen", {"val/loss"}),
        ("training, online", {"train/loss"}),
        ("held-out and online", {"val/loss", "train/loss"}),
    ):
        on = {(t.meta or {}).get("loss") for t, visible in zip(figure.data, shown[label], strict=True) if visible}
        assert on == metrics | {None}
    assert [trace.visible for trace in figure.data[:-1]] == list(shown["held-out, weights frozen"])[:-1]


def test_predicting_the_mean_is_drawn_only_where_it_is_the_same_for_all() -> None:
    same, other = made_trial(values=[1.0]), made_trial(values=[1.0], baseline=0.7)
    assert any(t.name == "predicting the mean" for t in curves(numbered([same]), "val/loss").data)
    assert not any(t.name == "predicting the mean" for t in curves(numbered([same, other]), "val/loss").data)


@pytest.mark.parametrize(("losses", "axis"), [([4.0, 1.0], "linear"), ([60.0, 1.0], "log"), ([60.0, -1.0], "linear")])
def test_losses_far_apart_are_drawn_on_a_log_axis(losses: list[float], axis: str) -> None:
    figure = curves(numbered([made_trial(values=[1.0], curve=losses)]), "val/loss")
    assert figure.layout.yaxis.type == axis


def test_a_thousand_curves_are_all_there_in_a_few_traces() -> None:
    rng = random.Random(0)
    trials = numbered([made_trial(values=[v], curve=[2.0, v]) for v in (rng.random() for _ in range(1000))])
    ranked = best_first(trials, "val/loss")
    assert len(thinned(ranked)) == 1000
    figure = curves(thinned(ranked), "val/loss")
    assert len(figure.data) < 4 * figures.MOST_OWN
    shared = next(trace for trace in of_loss(figure) if trace.customdata is not None and not trace.meta.get("marks"))
    assert set(shared.customdata) | set(own(figure)) == set(range(1000))
    n = int(ranked[500].number)
    there = [float(y) for y, number in zip(shared.y, shared.customdata, strict=True) if number == n]
    assert there[:2] == pytest.approx([2.0, trials[n].values[0]], rel=1e-4)
    assert math.isnan(there[2])  # the gap to the next curve


def test_more_curves_than_can_be_drawn_are_thinned_evenly_behind_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_POINTS", 300)
    trials = numbered([made_trial(values=[float(i)], curve=[1.0] * 3) for i in range(1000)])
    kept = [t.number for t in thinned(best_first(trials, "val/loss"))]
    assert kept[: figures.MOST_OWN] == list(range(figures.MOST_OWN))
    rest = np.array(kept[figures.MOST_OWN :])
    assert 3 * len(rest) <= 300
    assert set(np.diff(rest)) == {rest[1] - rest[0]}


def test_what_a_box_says_of_a_trial_is_escaped() -> None:
    (trial,) = numbered([made_trial(values=[1.0], params={HOSTILE: HOSTILE, "clip": 1 / 3})])
    label = figures.label(trial)
    assert label.startswith("<b>trial 0</b><br>&lt;script&gt;")
    assert label.endswith("<br>clip = 0.333333")
    assert "<script" not in label
    assert "<img" not in label


# --- timeline -------------------------------------------------------------------------------------------------------


def test_timeline_has_a_row_a_worker_and_a_bar_a_trial() -> None:
    trials = numbered([made_trial(values=[1.0]), made_trial("FAIL"), made_trial("PRUNED"), made_trial(values=[2.0])])
    for i, t in enumerate(trials):
        t.user_attrs["worker"] = {"host": HOSTILE, "pid": i % 2, "started": "1"}
        t.datetime_start = BEGAN + datetime.timedelta(seconds=40 * i)
        t.datetime_complete = t.datetime_start + datetime.timedelta(seconds=10 + i)
    figure = timeline(trials)
    assert figure is not None
    bars = {
        int(n): (y, b, x) for bar in figure.data for n, y, b, x in zip(bar.text, bar.y, bar.base, bar.x, strict=True)
    }
    assert bars == {0: (1, 0, 10), 1: (2, 40, 11), 2: (1, 80, 12), 3: (2, 120, 13)}
    assert [bar.name for bar in figure.data] == ["complete", "pruned or diverged", "failed or interrupted"]
    assert list(figure.layout.yaxis.ticktext) == ["worker 1", "worker 2"]
    assert figure.layout.xaxis.title.text == "seconds since the study began"
    assert "<img" not in figure.to_json()


def test_timeline_of_a_running_trial_goes_to_now() -> None:
    (trial,) = numbered([made_trial("RUNNING")])
    trial.datetime_start = datetime.datetime.now() - datetime.timedelta(hours=2)
    figure = timeline([trial])
    assert figure is not None
    assert figure.data[0].name == "running"
    assert figure.data[0].x[0] == pytest.approx(120, abs=0.1)
    assert figure.layout.xaxis.title.text.startswith("minutes")


def test_timeline_needs_a_trial_that_began() -> None:
    waiting = made_trial("WAITING")
    waiting.datetime_start = None
    assert timeline(numbered([waiting])) is None
