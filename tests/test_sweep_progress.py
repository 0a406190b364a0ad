"""What a person sees of a running study: one line, and a line a finished trial where there is no terminal."""

import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from tbptt.studies.sweep_progress import SweepProgress, failure_lines

BEGAN = datetime(2026, 1, 1)
DISTRIBUTIONS = {"clip": FloatDistribution(0.1, 10), "optimizer": CategoricalDistribution(["adam", "sgd"])}


def trial(number: int, state: TrialState, value: float | None = None, seconds: float = 60, **attrs: Any) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=value,
        params={"clip": 0.123456789, "optimizer": "adam"},
        distributions=DISTRIBUTIONS,
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
        "2 pruned",
        "1 failed",
        "1 running",
        "best 0.25 (trial 2: clip=0.123457 optimizer=adam)",
        "2:30 left",  # 5 more, 60 s each, 2 at once
    ]


def test_a_study_without_a_total_or_a_trial_says_what_it_can() -> None:
    progress = SweepProgress("none", "s", None, ["val/loss"], 1)
    assert progress.line([]) == "study s  0/… done  0 pruned  0 failed  0 running"
    assert " left" not in progress.line(TRIALS)


def test_the_best_is_that_of_the_first_objectives_direction() -> None:
    trials = [trial(0, TrialState.COMPLETE, 1.0), trial(1, TrialState.COMPLETE, 2.0)]
    for objective, number in (("val/loss", 0), ("time/timesteps_per_second", 1)):
        assert f"(trial {number}: " in SweepProgress("none", "s", 2, [objective], 1).line(trials)


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


def test_a_terminal_shows_the_study_and_each_running_trial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    trials = [*TRIALS[:6], running(6), running(7, epoch=4), running(8, seed=2, seeds=3, held_out=None)]
    with SweepProgress("auto", "s", 9, ["val/loss"], 3) as progress:
        assert progress.mode == "live"
        assert "starting 3 workers" in str(progress._spinner.text)
        progress.update(trials)
        console = Console(width=90, file=io.StringIO())
        with console.capture() as captured:
            console.print(progress._render())
    assert str(progress._spinner.text) == progress.line(trials)
    point = "clip=0.123457 optimizer=adam"
    assert [line.rstrip() for line in captured.get().splitlines()][-3:] == [
        f"  trial 6  {point}  first epoch",
        f"  trial 7  {point}  epoch 4/50  held-out 0.61  2:10 left",
        f"  trial 8  {point}  seed 2/3  epoch 4/50  held-out -  2:10 left",
    ]
    assert "trial 2  complete" not in capsys.readouterr().err


def test_many_running_trials_are_not_all_shown() -> None:
    progress = SweepProgress("none", "s", 99, ["val/loss"], 64)
    progress._running = [str(n) for n in range(64)]
    console = Console(width=90, file=io.StringIO())
    with console.capture() as captured:
        console.print(progress._render())
    assert captured.get().splitlines()[-1].strip() == "… 48 more"
    assert len(captured.get().splitlines()) == 18


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
