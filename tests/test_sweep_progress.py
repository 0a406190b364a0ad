"""What a person sees of a running study: one line, and a line a finished trial where there is no terminal."""

import io
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.cells import cell_len
from rich.console import Console

from tbptt.options.values import short_value
from tbptt.studies.sweep_progress import SweepProgress, failure_lines

BEGAN = datetime(2026, 1, 1)
POINT = {"clip": 0.123456789, "optimizer": "adam"}
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "clip": FloatDistribution(0.1, 10),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
}


def trial(
    number: int,
    state: TrialState,
    value: float | None = None,
    seconds: float = 60,
    point: Mapping[str, Any] = POINT,
    **attrs: Any,
) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=value,
        params=dict(point),
        distributions={k: DISTRIBUTIONS.get(k, CategoricalDistribution([v])) for k, v in point.items()},
        user_attrs=attrs,
    )
    made.number = number
    made.datetime_start = BEGAN
    made.datetime_complete = BEGAN + timedelta(seconds=seconds) if state.is_finished() else None
    return made


TRIALS = [
    trial(0, TrialState.COMPLETE, 0.5, seconds=100),
    trial(1, TrialState.PRUNED, 0.1, seconds=20, stop_reason="pruned"),
    trial(2, TrialState.COMPLETE, 0.25, seconds=60),
    trial(3, TrialState.FAIL, reason="ValueError: no", seconds=60),
    trial(4, TrialState.PRUNED, 0.2, seconds=60, stop_reason="diverged"),
    trial(5, TrialState.FAIL, reason="interrupted", seconds=60, requeued=True),
    trial(6, TrialState.RUNNING),
]


def test_the_line_says_how_a_study_stands() -> None:
    line = SweepProgress("none", "clip-1", 9, ["val/loss"], 2).line(TRIALS)
    assert line.split("  ") == [
        "study clip-1",
        "4/9 done",
        "best 0.25",
        "by trial 2",
        "2:30 left",  # 5 more, 60 s each, 2 at once
        "1 running",
        "1 failed",
        "2 pruned",
        "best at clip=0.123457 optimizer=adam",
    ]


def test_a_study_without_a_total_or_a_trial_says_what_it_can() -> None:
    progress = SweepProgress("none", "s", None, ["val/loss"], 1)
    assert progress.line([]) == "study s  0/… done  0 running  0 failed  0 pruned"
    assert " left" not in progress.line(TRIALS)


def test_a_plain_line_is_printed_once_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    with SweepProgress("plain", "s", 9, ["val/loss"], 1) as progress:
        progress.update(TRIALS[:1])  # was there before: a resumed study does not say it again
        progress.update(TRIALS[:6])
        progress.update(TRIALS)
    printed = capsys.readouterr()
    assert printed.out == ""
    point = "clip=0.123457 optimizer=adam"
    assert printed.err.splitlines() == [
        f"trial 1  pruned  0.1  {point}  (4/9)",
        f"trial 2  complete  0.25  {point}  (4/9)",
        f"trial 3  failed  ValueError: no  {point}  (4/9)",
        f"trial 4  diverged  0.2  {point}  (4/9)",
        f"trial 5  run again  interrupted  {point}  (4/9)",
    ]


def test_nothing_is_shown_where_none_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with SweepProgress("none", "s", 9, ["val/loss"], 1) as progress:
        progress.update([])
        progress.update(TRIALS)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_auto_is_plain() -> None:
    assert SweepProgress("auto", "s", 9, ["val/loss"], 1).mode == "plain"


def running(number: int, **at: Any) -> FrozenTrial:
    noted = {"seed": 1, "seeds": 1, "epoch": 4, "epochs": 50, "held_out": 0.61, "seconds_left": 130.0}
    return trial(number, TrialState.RUNNING, **({"progress": noted | at} if at else {}))


def on_a_terminal(progress: SweepProgress, width: int, height: int = 24) -> list[str]:
    """What a terminal of this size shows of a sweep."""
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    console.print(progress._render())
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_terminal_shows_the_study_and_each_running_trial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    trials = [*TRIALS[:6], running(6), running(7, epoch=4), running(8, seed=2, seeds=3, held_out=None)]
    with SweepProgress("auto", "s", 9, ["val/loss"], 3) as progress:
        assert progress.mode == "live"
        assert "starting 3 workers" in str(progress._spinner.text)
        progress.update(trials)
        study, *others = on_a_terminal(progress, 140)
    assert study[2:] == progress.line(trials, 138)
    point = "clip=0.123457 optimizer=adam"
    assert others == [
        f"  trial 6  first epoch  {point}",
        f"  trial 7  epoch  4/50  held-out 0.61  2:10 left  {point}",
        f"  trial 8  seed 2/3  epoch  4/50  held-out -  2:10 left  {point}",
    ]
    assert "trial 2  complete" not in capsys.readouterr().err


def test_many_running_trials_are_not_all_shown() -> None:
    progress = SweepProgress("live", "s", 99, ["val/loss"], 64)
    progress.update([running(n) for n in range(64)])
    lines = on_a_terminal(progress, 80)
    assert (len(lines), lines[-1].strip()) == (18, "… 48 more")
    lines = on_a_terminal(progress, 80, height=10)
    assert (len(lines), lines[-1].strip()) == (9, "… 57 more")


LONG = {"schedule.chunks": "[100, 50, 20, 10, 5, 2, 1]", "clip": 0.123456789, "model.hidden": "[128, 128, 64]"}


def a_large_sweep(name: str) -> SweepProgress:
    """Of long points: 203 of 500 trials are done, and two run."""
    states = [TrialState.COMPLETE] * 200 + [TrialState.PRUNED] * 3 + [TrialState.FAIL] + [TrialState.RUNNING] * 2
    trials = []
    for number, state in enumerate(states):
        at = {"epoch": 4 + number, "epochs": 500, "held_out": 0.61234, "seconds_left": 5000.0}
        noted = {"progress": {"seed": 2, "seeds": 3, "fold": 1, "folds": 4} | at}
        values = 1 - number / 1000 if state == TrialState.COMPLETE else None
        trials.append(trial(number, state, values, 60, LONG, **(noted if state == TrialState.RUNNING else {})))
    progress = SweepProgress("live", name, 500, ["val/loss"], 2)
    progress.update(trials)
    return progress


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("name", ["clip-1", "schedule.chunks-clip-model.hidden-3f9ac01d", "网络" * 20])
def test_on_any_terminal_each_line_says_what_matters_and_is_one_line(width: int, name: str) -> None:
    study, *trials = on_a_terminal(a_large_sweep(name), width)
    assert all(cell_len(line) <= width for line in (study, *trials))
    assert {"203/500 done", "best 0.801", "2:28:30 left"} <= set(study.split("  "))  # 297 more, 60 s each, 2 at once
    assert study.startswith(f"⠋ study {name[:3]}")
    assert study.split("  ")[0].endswith(name[-2:])
    assert len(trials) == 2
    for number, line in zip((204, 205), trials, strict=True):
        parts = line.strip().split("  ")
        assert parts[0] == f"trial {number}"
        assert {f"epoch {4 + number}/500", "1:23:20 left"} <= set(parts)
        assert ("held-out 0.6123" in parts) or width == 60
    if width == 200:
        assert study.split("  ")[0] == f"⠋ study {name}"
        assert {"by trial 199", "2 running", "1 failed", "3 pruned"} <= set(study.split("  "))
        assert trials[0].endswith(" ".join(f"{k}={short_value(v)}" for k, v in LONG.items()))


def test_a_point_in_little_room_loses_the_middle_of_lists_then_keys() -> None:
    line = a_large_sweep("s")
    study, *_ = on_a_terminal(line, 181)
    assert study.endswith("best at schedule.chunks=[100, 50…, 2, 1] clip=0.123457 model.hidden=[128, 128, 64]")
    study, *_ = on_a_terminal(line, 160)
    assert study.endswith("  best at schedule.chunks=[100, 50…, 2, 1] clip=0.123457 +1")
    study, *_ = on_a_terminal(line, 100)
    assert study.endswith("2 running  1 failed  3 pruned")


def test_another_activity_takes_the_place_of_the_study_s_line() -> None:
    progress = a_large_sweep("s")
    progress.now("waiting for the server")
    assert on_a_terminal(progress, 80) == ["⠋ waiting for the server"]


def test_without_a_terminal_running_trials_get_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tbptt.studies.sweep_progress.time.monotonic", lambda: clock[0])
    progress = SweepProgress("plain", "s", 9, ["val/loss"], 2)
    for seconds in (1, 29, 30, 31, 59, 60):
        clock[0] = seconds
        progress.update([running(6), running(7, epoch=seconds)])
    assert capsys.readouterr().err.splitlines() == [
        "running: trial 6 first epoch; trial 7 epoch 30/50 held-out 0.61 2:10 left",
        "running: trial 6 first epoch; trial 7 epoch 60/50 held-out 0.61 2:10 left",
    ]


def test_each_reason_of_failures_is_said_once_in_a_line() -> None:
    away = "ConnectionError:\n  the server is away"
    failed = [trial(n, TrialState.FAIL, reason=away) for n in range(20)]
    failed[3] = trial(3, TrialState.FAIL, reason="ValueError: no")
    assert failure_lines(failed) == [
        "trials 0, 1, 2, 4, 5, 6, 7 and 12 more failed: ConnectionError: the server is away",
        "trial 3 failed: ValueError: no",
    ]
    assert failure_lines(failed[:2]) == ["trials 0 and 1 failed: ConnectionError: the server is away"]


def test_a_plain_line_does_not_say_a_long_reason_again(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "ValueError: data.path: prices.csv\ndoes not exist any more, as it seems"
    with SweepProgress("plain", "s", 9, ["val/loss"], 1) as progress:
        progress.update([])
        progress.update([trial(n, TrialState.FAIL, reason=reason) for n in range(2)])
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("trial 0  failed  ValueError: data.path: prices.csv does not exist any more, as it seems  ")
    assert second.startswith("trial 1  failed  for the same reason as trial 0  ")
