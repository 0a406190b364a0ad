"""What the report leaves beside its page: the tables, the best trial's files, each whole."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from pages import Artifacts, page_of
from sqlalchemy import event
from studies import HOSTILE, Away, made_study, made_trial

from tbptt.reports import page
from tbptt.reports.page import write_report
from tbptt.studies.sweep import _say_result

SPEED = "time/timesteps_per_second"  # maximized


@pytest.mark.parametrize(("objective", "seed"), [("val/loss", "b"), (SPEED, "a")])
def test_best_files_come_from_the_best_seed_of_the_best_trial(here: Path, objective: str, seed: str) -> None:
    best = made_trial(values=[2.0], by_seed=[2.5, 1.5], run_ids=["a", "b"])
    write_report(made_study([best], [objective]), Artifacts(here, ("a", "b")))
    assert Path("sweeps/a-study/best.yaml").read_text().splitlines()[1:] == [f"config.yaml of {seed}"]
    assert Path("sweeps/a-study/best.ckpt").read_text() == f"checkpoints/best.ckpt of {seed}"


@pytest.mark.parametrize(("seeds", "changes", "which"), [([7, 8, 9], [], "seed 9"), ([7, 8, 9], ["seeds"], "run 3")])
def test_best_files_are_said_to_be_the_luckiest_seeds(here: Path, seeds: list[int], changes: Any, which: str) -> None:
    best = made_trial(values=[0.4], by_seed=[0.5, 0.41, 0.29], run_ids=["a", "b", "c"])
    study = made_study([best, made_trial(values=[0.9])], spec={"seeds": seeds}, changes=changes)
    page = page_of(write_report(study, Artifacts(here, ("a", "b", "c"))))
    words = f"of {which}, the luckiest of trial 0's 3 seeds: val/loss 0.29; their mean is 0.4."
    assert f"best.yaml and best.ckpt are {words}" in page.text
    assert Path("sweeps/a-study/best.yaml").read_text().startswith(f"# {words[0].upper()}{words[1:]}\n")


def test_of_a_single_seed_nothing_is_said_of_luck(here: Path) -> None:
    page = page_of(write_report(made_study([made_trial(values=[0.4], run_ids=["a"])]), Artifacts(here, ("a",))))
    assert "luckiest" not in page.text
    assert Path("sweeps/a-study/best.yaml").read_text() == "config.yaml of a"


@pytest.mark.parametrize(("by_seed", "said"), [([0.5, 0.3], "best.ckpt: of seed 8, the luckiest"), ([0.4], "")])
def test_the_last_lines_of_a_sweep_say_whose_the_checkpoint_is(
    here: Path, capsys: pytest.CaptureFixture[str], by_seed: list[float], said: str
) -> None:
    best = made_trial(values=[0.4], by_seed=by_seed, run_ids=["a", "b"][: len(by_seed)])
    cfg = SimpleNamespace(progress="plain", tracking=SimpleNamespace(uri="sqlite:///mlruns/mlflow.db"))
    plan: Any = SimpleNamespace(cfg=cfg, space=SimpleNamespace(overrides=lambda point: []))
    store: Any = SimpleNamespace(experiment="3", client=Away())
    _say_result(made_study([best], spec={"seeds": [7, 8]}), plan, store)
    out = capsys.readouterr().out
    assert said in out
    assert ("luckiest" in out) == bool(said)


def test_best_files_of_another_trial_do_not_stay(here: Path) -> None:
    study = made_study([made_trial(values=[2.0], run_ids=["a"])])
    write_report(study, Artifacts(here, ("a",)))
    study.optuna.add_trials([made_trial(values=[1.0], run_ids=["lost"])])
    write_report(study, Artifacts(here, ("a",)))
    assert not list(Path("sweeps/a-study").glob("best.*"))


def test_table_round_trips_through_pandas(here: Path) -> None:
    rng = random.Random(1)
    points = [
        {"clip": rng.uniform(0.1, 10), "epochs": 3, "schedule.chunks": "[100, 50, 1]", "optimizer": HOSTILE + "\nb,c"}
        for _ in range(6)
    ]
    trials = [made_trial(values=[rng.random(), rng.random()], params=p, by_seed=[0.1, 0.2]) for p in points]
    trials.append(made_trial("FAIL", params={"clip": 2.0}, reason="line one\nline two, with commas"))
    study = made_study(trials, ["val/loss", SPEED])
    write_report(study)
    table = pd.read_csv("sweeps/a-study/trials.csv")
    assert list(table["trial"]) == list(range(7))
    assert list(table["state"]) == ["COMPLETE"] * 6 + ["FAIL"]
    assert table["clip"].tolist() == [t.params["clip"] for t in study.trials()]
    assert table[["val/loss", SPEED]].to_numpy()[:6].tolist() == [t.values for t in study.trials()[:6]]
    assert table["epochs"].tolist()[:6] == [3] * 6
    assert table["epochs_run"].tolist() == [3] * 7
    assert table["best_epoch"].tolist()[:6] == [2] * 6, "epochs count from 1"
    assert set(table["schedule.chunks"][:6]) == {"[100, 50, 1]"}
    assert table["by_seed"][0] == "0.1 0.2"
    assert table["reason"][6] == "line one\nline two, with commas"
    assert table["optimizer"].isna().tolist() == [False] * 6 + [True]


def test_a_report_asks_the_storage_little_and_no_more_of_a_larger_study(here: Path) -> None:
    """On a server, each statement is a round trip."""
    statements: list[str] = []
    asked = []
    for trials in (2, 30):
        study = made_study([made_trial(values=[1.0 + i]) for i in range(trials)], name=f"of-{trials}")
        statements.clear()
        with listening(study.storage.engine, "before_cursor_execute", lambda *a: statements.append(a[2])):
            write_report(study)
        asked.append(len(statements))
    assert asked[1] <= asked[0] < 60


@contextmanager
def listening(target: Any, name: str, heard: Callable[..., Any]) -> Iterator[None]:
    event.listen(target, name, heard)
    try:
        yield
    finally:
        event.remove(target, name, heard)


@pytest.mark.parametrize("broken", ["render", "write_table"])
def test_a_report_that_fails_leaves_the_old_one_whole(here: Path, monkeypatch: Any, broken: str) -> None:
    study = made_study([made_trial(values=[1.0])])
    path = write_report(study)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}

    def fails(*args: Any, **settings: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(page, broken, fails)
    with pytest.raises(OSError, match="no space left"):
        write_report(study)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_half_written_file_never_has_the_name(here: Path, monkeypatch: Any) -> None:
    study = made_study([made_trial(values=[1.0])])
    path = write_report(study)
    before, write_text = path.read_text(), Path.write_text

    def half(self: Path, data: str, **settings: Any) -> int:
        write_text(self, data[: len(data) // 2], **settings)
        assert path.read_text() == before
        raise OSError("killed")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="killed"):
        write_report(study)
    assert path.read_text() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["explained.csv", "report.html", "trials.csv"]
