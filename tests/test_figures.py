"""The report's figures: what they draw is what the trials say."""

import datetime
import math

import pytest
from studies import BEGAN, HOSTILE, made_trial, numbered

from tbptt.reports import figures
from tbptt.reports.figures import curve_points, timeline

# --- curves ---------------------------------------------------------------------------------------------------------


def test_epochs_without_a_finite_loss_leave_no_point() -> None:
    trial = made_trial(curve=[2.0, None, math.nan, math.inf, 1.0], values=[1.0])
    assert curve_points(trial, "val/loss") == {1: 2.0, 5: 1.0}


def test_a_running_trial_has_what_it_has_reported() -> None:
    (trial,) = numbered([made_trial("RUNNING", curve=[2.0, 1.5])])
    assert curve_points(trial, "val/loss", "val/loss") == {1: 2.0, 2: 1.5}
    assert curve_points(trial, "grad/norm_max", "val/loss") == {}


@pytest.mark.parametrize(("losses", "axis"), [([4.0, 1.0], "linear"), ([60.0, 1.0], "log"), ([60.0, -1.0], "linear")])
def test_losses_far_apart_are_drawn_on_a_log_axis(losses: list[float], axis: str) -> None:
    assert figures.axis_type(losses) == axis


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
