"""What a person sees: a plain line an epoch, a last line that says what came of it, and nothing where asked."""

import io
from collections.abc import Callable
from dataclasses import replace
from threading import Timer
from typing import Any

import pytest
from conftest import CONF, SMALL
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console

from tbptt.config.schema import register
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.runs.progress import Progress, Status, now, starting
from tbptt.training.schedule import ChunkSchedule

Compose = Callable[..., DictConfig]
Captured = pytest.CaptureFixture[str]


SCHEDULE = ChunkSchedule([10, 4, 1])
TIMES = {"time/epoch_seconds": 30.0, "time/timesteps_per_second": 12345.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The override for a store that the runs here share, as making one takes a second."""
    return f"tracking.uri=sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def third(store: str) -> Epoch:
    """The third of twelve epochs, in the second of three stages, with numbers that are easily read."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*SMALL, store])
    epochs: list[Epoch] = []
    fit(cfg, RunContext(after_epoch=lambda epoch: bool(epochs.append(epoch))))
    metrics = {"train/loss": 0.5, "val/loss": 0.25, "grad/norm_mean": 1.5} | TIMES
    return replace(epochs[0], number=2, stage=1, chunks=4, metrics=metrics, last=False)


def test_line_names_epoch_stage_chunks_losses_and_time_left(third: Epoch) -> None:
    progress = Progress("plain", 12, "val/loss")
    progress.epoch(third, SCHEDULE, 0.125)
    line = progress.line(third, SCHEDULE, 0.125)
    for part in (
        "epoch  3/12",
        "stage 2/3",
        "4 chunks",
        "train 0.5",
        "held-out 0.25",
        "best 0.125",
        "grad 1.5",
        "12k steps/s",
        "4:30 left",
    ):
        assert part in line, line


def test_one_chunk_is_not_several_and_the_last_line_has_nothing_left(third: Epoch) -> None:
    progress = Progress("plain", 3, "val/loss")
    last = replace(third, chunks=1, last=True)
    progress.epoch(last, SCHEDULE, None)
    line = progress.line(last, SCHEDULE, None)
    assert "1 chunk " in line
    assert "done" in line
    assert "left" not in line


def test_what_was_not_measured_is_a_dash_and_another_objective_is_named(third: Epoch, capsys: Captured) -> None:
    progress = Progress("plain", 3, "train/eval_loss")
    progress.epoch(replace(third, metrics={"val/loss": 0.25} | TIMES), SCHEDULE, None)
    line = capsys.readouterr().err
    assert "train -" in line
    assert "best train/eval_loss -" in line


@pytest.mark.parametrize("best", [0.25, 1.234567e20])
def test_last_lines_say_what_a_run_is_worth_and_then_how_it_ended(best: float, capsys: Captured) -> None:
    verdict = ["test, loss: worse than nothing", "seen twice"]
    Progress("plain", 3, "val/loss", "trial 7").result("epochs", 2, best, "abc123", verdict)
    *before, last = capsys.readouterr().out.splitlines()
    assert before == [f"trial 7  {line}" for line in verdict]
    assert last == f"trial 7  val/loss {best:.4g} at epoch 3, chosen by it; stopped: epochs; run abc123"


@pytest.mark.parametrize("mode", ["none", "silent"])
def test_last_lines_are_not_said_where_nothing_is_to_be(mode: str, capsys: Captured) -> None:
    progress = Progress(mode, 3, "val/loss")
    progress.about(["data: some"])
    progress.result("epochs", 2, 0.5, "abc123", ["a verdict"])
    assert capsys.readouterr() == ("", "")


def test_what_the_data_are_is_said_beside_the_epochs(capsys: Captured) -> None:
    Progress("plain", 3, "val/loss", "trial 7").about(["data: some"], ["warning: odd"])
    assert capsys.readouterr() == ("", "trial 7  data: some\ntrial 7  warning: odd\n")


def test_result_without_any_good_epoch_says_so(capsys: Captured) -> None:
    Progress("plain", 3, "val/loss").result("diverged", None, None, "abc", [])
    assert "val/loss was never measured; stopped: diverged" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["plain", "auto"])
def test_run_prints_one_plain_line_an_epoch_where_there_is_no_terminal(
    mode: str, small: Compose, store: str, capsys: Captured
) -> None:
    result = fit(small(f"progress={mode}", store))
    captured = capsys.readouterr()
    about, *lines = captured.err.splitlines()
    assert about.startswith("data: 3 series of 173 rows; steps: 360 trained on, 240 to choose by (2 independent series")
    assert len(lines) == 3
    for number, (line, chunks) in enumerate(zip(lines, (10, 2, 1), strict=True), 1):
        assert line.startswith(f"epoch {number}/3  stage {number}/3, {chunks} chunk")
        assert "train 0." in line or "train 1." in line
    assert f"best {result.best.value:.4g}" in lines[-1]
    *verdict, last = captured.out.splitlines()
    assert [line.split(":")[0] for line in verdict[:2]] == ["test, decision", "test, loss"]
    assert f"{result.best.value:.4g}" in last
    assert "predicting the mean" not in last
    assert result.run_id in last
    assert "\x1b" not in captured.err + captured.out


def test_none_prints_the_runs_id_alone_where_a_script_can_read_it(
    small: Compose, store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = fit(small("progress=none", store))
    assert capfd.readouterr() == (f"run {result.run_id}\n", "")


def test_a_workers_run_prints_nothing(small: Compose, store: str, capfd: pytest.CaptureFixture[str]) -> None:
    fit(small("progress=plain", store), RunContext(show=False))
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)


def text_of(status: Status, width: int = 200) -> str:
    """What a live display shows now."""
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(status._render())
    return captured.get()


def test_live_line_goes_to_the_terminal_and_is_gone_at_the_end(
    third: Epoch, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("auto", 12, "val/loss") as progress:
        progress.epoch(third, SCHEDULE, 0.125)
    assert progress.mode == "live"
    assert "epoch  3/12" not in capsys.readouterr().err.splitlines()  # no plain line an epoch


def test_live_line_moves_within_an_epoch(third: Epoch, terminal: None) -> None:
    with Progress("auto", 12, "val/loss") as progress:
        progress.now("preparing the data")
        assert "preparing the data" in text_of(progress)
        progress.parts = lambda: 8
        progress.opened("abc", 0)
        assert "run abc: epoch 1 of 12 is under way" in text_of(progress)
        progress.moved()
        assert "run abc  (epoch 1: 12%)" in text_of(progress)
        progress.epoch(third, SCHEDULE, 0.125)
        assert "(epoch" not in text_of(progress)
        for _ in range(6):
            progress.moved()
        assert "4:30 left  (epoch 4: 75%)" in text_of(progress)


@pytest.mark.parametrize(
    ("width", "says"),
    [
        (200, "{whole}"),
        (80, "epoch  3/12  train 0.5  held-out 0.25  best 0.125  4:30 left  (epoch 4: 75%)"),
        (60, "epoch  3/12  held-out 0.25  best 0.125  4:30 left"),
    ],
)
def test_the_live_line_is_one_line_with_what_matters(third: Epoch, terminal: None, width: int, says: str) -> None:
    with Progress("auto", 12, "val/loss") as progress:
        progress.parts = lambda: 8
        progress.epoch(third, SCHEDULE, 0.125)
        for _ in range(6):
            progress.moved()
        whole = progress.line(third, SCHEDULE, 0.125) + "  (epoch 4: 75%)"
        (line,) = text_of(progress, width).splitlines()
    assert len(line) <= width
    assert line[2:].rstrip() == says.replace("{whole}", whole)


@pytest.mark.parametrize("segment", ["auto", None, 3, 50])
def test_parts_of_an_epoch_are_as_many_as_the_run_counts(
    segment: int | str | None, small: Compose, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    expected: list[int] = []
    end = Progress.epoch

    def seen(self: Progress, *what: Any) -> None:
        counted.append(self._moved)
        end(self, *what)

    monkeypatch.setattr(Progress, "epoch", seen)
    monkeypatch.setattr(Progress, "opened", lambda self, *what: expected.append(self.parts()))
    fit(small(f"segment_length={'null' if segment is None else segment}", "schedule.chunks=[7]", "epochs=2", store))
    assert counted == expected * 2


def test_a_phase_gets_a_plain_line_only_where_it_lasts(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    waiting: list[Any] = []

    class AtWill(Timer):
        def start(self) -> None:
            waiting.append(self)

    monkeypatch.setattr("tbptt.runs.progress.Timer", AtWill)
    with Status("plain") as status:
        status.now("starting", after=0)
        now("short")
        now("long")
        first, second = waiting
        assert first.finished.is_set()  # given up
        second.function(*second.args)
    assert capsys.readouterr() == ("", "starting\nlong\n")
    assert second.finished.is_set()


@pytest.mark.parametrize(("mode", "says"), [("plain", "starting a study: loading libraries\n"), ("none", "")])
def test_a_command_that_was_found_right_says_that_it_starts(mode: str, says: str, capsys: Captured) -> None:
    with Status("auto"):
        starting(" a study", mode)
        assert (Status.shown is None) is (mode == "none")
    assert capsys.readouterr() == ("", says)


def test_there_is_one_display_at_a_time(terminal: None) -> None:
    with Status("auto") as outer, Progress("auto", 3, "val/loss") as inner:
        assert Status.shown is inner
        assert outer._live is not None
        assert not outer._live.is_started
    assert Status.shown is None
