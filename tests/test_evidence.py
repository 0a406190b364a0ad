"""A study against chance: the best of many that are noise is no better, one that is better is found, and whatever the
files hold, the report is written and says what it rests on."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pages import Page, page_of
from studies import HOSTILE, Away, made_study, made_trial

from tbptt.evaluation import study_words, words
from tbptt.evaluation.chance import Verdict
from tbptt.evaluation.results import Judged, PartResult
from tbptt.reports import evidence, losses
from tbptt.reports.arrays import read_arrays
from tbptt.reports.evidence import Tried, tried
from tbptt.reports.losses import Losses, of_trial, read_losses
from tbptt.reports.page import write_report
from tbptt.studies.study import Study
from tbptt.studies.sweep import _say_result

Array = NDArray[np.float64]
POINTS = 600


class Kept:
    """A store of runs with files of arrays, by run; a server where ``is_local`` is false."""

    uri, experiment = "sqlite:///mlruns/mlflow.db", "3"

    def __init__(self, folder: Path, files: Mapping[str, bytes], is_local: bool = True):
        self.folder, self.files, self.is_local = folder, files, is_local
        self.asked: list[str] = []
        folder.mkdir(exist_ok=True)

    def artifact_here(self, run_id: str, path: str) -> Path | None:
        return None

    def artifact(self, run_id: str, path: str, folder: Path | None = None) -> Path | None:
        if path != "evaluation.npz" or run_id not in self.files:
            return None
        self.asked.append(run_id)
        found = (folder or self.folder) / f"{run_id}.file"
        found.write_bytes(self.files[run_id])
        return found


def packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: np.asarray(a, dtype=np.float32) for name, a in arrays.items()})
    return buffer.getvalue()


def steps(loss: Array, mean: Array, block: float = 4.0, **baselines: Array) -> bytes:
    others = {f"val/{name}": values for name, values in baselines.items()}
    return packed({"val/loss": loss, "val/mean": mean, "val/block": np.array(block), **others})


def run_of(i: int) -> str:
    return f"{i:032x}"


def study_of(files: list[list[bytes]], is_local: bool = True) -> tuple[Study, Kept]:
    """Complete trials, the first the best, with a run a file."""
    runs, trials = {}, []
    for i, of_one in enumerate(files):
        ids = [run_of(100 * i + k) for k in range(len(of_one))]
        runs.update(zip(ids, of_one, strict=True))
        trials.append(made_trial(values=[1.0 + i / 100], params={"clip": 1.0 + i / 10}, run_ids=ids))
    return made_study(trials), Kept(Path("store"), runs, is_local)


def compare(files: list[list[bytes]], is_local: bool = True) -> Tried:
    study, store = study_of(files, is_local)
    return tried(study, study.read(), store)


def draws(seed: int = 0) -> Callable[[float], Array]:
    rng = np.random.default_rng(seed)
    return lambda spread: spread * rng.standard_normal(POINTS)


# --- how many were tried --------------------------------------------------------------------------------------------


def test_a_trial_that_is_truly_better_is_found_among_noise(here: Path) -> None:
    draw = draws()
    mean = 2.0 + draw(0.5) ** 2
    better = mean - 0.2 + draw(0.3)
    result = compare([[steps(better, mean)], *([steps(mean + draw(0.3), mean)] for _ in range(19))])
    assert "Given that 20 were compared" in result.lines[0]
    assert "better than predicting the training mean, p < 0.001" in result.lines[0]


def test_trials_that_are_as_good_as_the_best_are_told_from_the_others(here: Path) -> None:
    draw = draws()
    mean = 2.0 + draw(0.5) ** 2
    result = compare([[steps(mean + (-0.2 if i < 5 else 0) + draw(0.3), mean)] for i in range(10)])
    assert result.inside == {i: i < 5 for i in range(10)}
    assert "5 of 10 trials cannot be told from the best on val" in result.lines[1]


def test_the_best_of_many_that_are_noise_is_no_better(here: Path) -> None:
    """Of 20, the best is 2 standard errors ahead by chance: by itself it would look better."""
    draw = draws(7)
    mean = 2.0 + draw(0.5) ** 2
    rows = sorted((mean + draw(0.3) for _ in range(20)), key=lambda row: float(row.mean()))
    alone = (mean - rows[0]).mean() / ((mean - rows[0]).std() / POINTS**0.5)
    assert alone > 1.65
    result = compare([[steps(row, mean, block=1.0)] for row in rows])
    assert "cannot be told from predicting the training mean, p = 0." in result.lines[0]
    assert sum(result.inside.values()) > 15


def test_the_baseline_that_is_best_on_val_is_tested_too(here: Path) -> None:
    draw = draws()
    mean = 2.0 + draw(0.5) ** 2
    ridge = mean - 0.2
    result = compare([[steps(ridge + draw(0.3), mean, ridge=ridge, zero=mean + 1)] for _ in range(4)])
    assert "better than predicting the training mean, p < 0.001" in result.lines[0]
    assert "cannot be told from ridge regression on the same inputs, p = " in result.lines[0]


def test_of_several_seeds_the_mean_is_compared_and_folds_are_put_one_after_the_other() -> None:
    ones, mean, of_fold = np.ones(8), np.arange(8.0), 7.0 + np.arange(5.0)
    first, second = Losses(ones, {"mean": mean}, 2.0), Losses(3 * ones, {"mean": mean * (1 + 1e-6)}, 4.0)
    fold = Losses(5 * np.ones(5), {"mean": of_fold}, 6.0)
    found = of_trial([first, fold, second, fold])
    assert found.model.tolist() == [2.0] * 8 + [5.0] * 5
    assert found.baselines["mean"].tolist() == [*mean, *of_fold]
    assert found.block == 5.0


def test_trials_of_other_targets_or_steps_are_left_out_and_said(here: Path) -> None:
    draw = draws()
    mean = 2.0 + draw(0.5) ** 2
    alike = [[steps(mean + draw(0.3), mean)] for _ in range(3)]
    others = [[steps(mean[:-1], mean[:-1])], [steps(3 * mean, 3 * mean)], [steps(mean, mean, block=0)]]
    result = compare([*alike, *others])
    assert "Given that 3 were compared" in result.lines[0]
    assert set(result.inside) == {0, 1, 2}
    assert result.lines[2] == (
        "Not compared: 3 complete trials (3, 4, 5); other targets or other steps than trial 0 has."
    )


def test_too_short_on_val_is_said_and_nothing_tested(here: Path) -> None:
    draw = draws()
    mean = 2.0 + draw(0.5) ** 2
    result = compare([[steps(mean - 1, mean, block=POINTS / 29)], [steps(mean, mean, block=POINTS / 29)]])
    assert "too short to tell: 29 independent observations, and it takes 30" in result.lines[0]
    assert len(result.lines) == 1
    assert result.inside == {}
    nine = np.arange(9.0) + 1
    of_series = compared_lines(steps(nine / 2, nine, block=0), steps(nine, nine, block=0))
    assert "9 independent observations, and it takes 10" in of_series[0]


def compared_lines(*files: bytes) -> list[str]:
    folder = Path("arrays")
    folder.mkdir()
    for i, content in enumerate(files):
        (folder / f"{i}.npz").write_bytes(content)
    return evidence.compared({i: read_losses(folder / f"{i}.npz") for i in range(len(files))}).lines


def test_only_the_best_are_read_of_very_many(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST_TRIALS", 2)
    mean = 2.0 + draws()(0.5) ** 2
    result = compare([[steps(mean, mean)] for _ in range(4)])
    assert set(result.inside) == {0, 1}
    assert result.lines[-1] == "Not compared: 2 complete trials (2, 3); only the best 2,000 are read."


# --- files ----------------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("val/loss.npy", b"0" * (losses_limit() + 1))
    return buffer.getvalue()


def losses_limit() -> int:
    from tbptt.reports import arrays

    return arrays.MOST_BYTES


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **{"val/loss": np.array([Path("x")], dtype=object)})
    return buffer.getvalue()


FINE = np.ones(8)
BROKEN = {
    "no file of arrays": b"text",
    "cut": packed({"val/loss": FINE, "val/mean": FINE, "val/block": 1})[:-40],
    "much larger than it looks": bomb(),
    "objects": pickled(),
    "no baseline": packed({"val/loss": FINE, "val/block": 1}),
    "another length": packed({"val/loss": FINE, "val/mean": np.ones(7), "val/block": 1}),
    "a baseline that is no number": packed({"val/loss": FINE, "val/mean": np.full(8, np.nan), "val/block": 1}),
    "no block": packed({"val/loss": FINE, "val/mean": FINE}),
    "a block of less than a point": packed({"val/loss": FINE, "val/mean": FINE, "val/block": 0.5}),
    "text": packed({"val/loss": FINE}) and b"PK",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_makes_no_sense_is_refused_with_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evaluation.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^evaluation\.npz cannot be read: "):
        read_losses(path)


def test_broken_and_missing_files_leave_only_their_trials_out(here: Path) -> None:
    draw = draws()
    mean = 2.0 + draw(0.5) ** 2
    fine = [[steps(mean + draw(0.3), mean)] for _ in range(3)]
    study, store = study_of([*fine, [b"text"], [fine[0][0], fine[1][0]]])
    del store.files[run_of(401)]  # type: ignore[attr-defined]
    page = page_of(write_report(study, store))
    assert "Given that 3 were compared" in page.text
    assert "Not compared: one complete trial (4); their losses of each step are not in the store" in page.text
    assert "Not compared: one complete trial (3); their losses cannot be read." in page.text


def test_files_of_a_server_come_once_and_stay_inside_the_studys_folder(here: Path) -> None:
    mean = 2.0 + draws()(0.5) ** 2
    study, store = study_of([[steps(mean, mean)] for _ in range(3)], is_local=False)
    hostile = made_trial(values=[0.5], run_ids=["../../escaped"])
    study.optuna.add_trial(hostile)
    store.files = {**store.files, "../../escaped": steps(mean, mean)}
    first = tried(study, study.read(), store)
    assert sorted(store.asked) == [run_of(100 * i) for i in range(3)]
    assert set(first.inside) == {0, 1, 2}
    assert tried(study, study.read(), store) == first
    assert len(store.asked) == 3
    kept = sorted(path.name for path in Path("sweeps/a-study", losses.FETCHED).iterdir())
    assert kept == [f"{run_of(100 * i)}.npz" for i in range(3)]
    assert not list(here.rglob("*escaped*"))


def test_a_server_that_does_not_answer_is_not_waited_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    never = threading.Event()
    study, store = study_of([[b""], [b""]], is_local=False)
    monkeypatch.setattr(store, "artifact", lambda *_: never.wait(600))
    monkeypatch.setattr(evidence, "SECONDS", 0.1)
    result = tried(study, study.read(), store)
    assert result.inside == {}
    assert "none of them has kept its losses where they can be read" in result.lines[0]


# --- the tables -----------------------------------------------------------------------------------------------------


def test_who_is_in_the_confidence_set_is_in_both_tables(here: Path) -> None:
    draw = draws()
    mean = 2.0 + draw(0.5) ** 2
    study, store = study_of([[steps(mean - 0.3 + draw(0.1), mean)], [steps(mean + draw(0.1), mean)], [b"text"]])
    rows = page_of(write_report(study, store)).tables["trials"]
    at = rows[0].index("in confidence set")
    assert [(row[0], row[at]) for row in rows[1:]] == [("0", "yes"), ("1", "no"), ("2", "")]
    table = pd.read_csv("sweeps/a-study/trials.csv", dtype=str, keep_default_na=False)
    assert table["in_confidence_set"].tolist() == ["true", "false", ""]


def test_a_study_that_is_not_compared_has_no_such_column_on_its_page(here: Path) -> None:
    rows = page_of(write_report(made_study([made_trial(values=[1.0]), made_trial(values=[2.0])]))).tables["trials"]
    assert "in confidence set" not in rows[0]


def test_all_metrics_are_in_the_file_and_the_page_has_those_that_say_more(here: Path) -> None:
    names = ["val/mae", "val/right_side", "val/skill", "val/value", "val/turnover", "val/advantage_r2"]
    trial = made_trial(values=[1.0], metrics=dict.fromkeys(names, 0.5))
    rows = page_of(write_report(made_study([trial]))).tables["trials"]
    assert [name for name in names if name in rows[0]] == ["val/skill", "val/value", "val/advantage_r2"]
    assert set(names) < set(pd.read_csv("sweeps/a-study/trials.csv").columns)
    older = made_trial(values=[1.0], metrics=dict.fromkeys(names[:2], 0.5))
    rows = page_of(write_report(made_study([older], name="older"))).tables["trials"]
    assert [name for name in names if name in rows[0]] == names[:2]


# --- the answer -----------------------------------------------------------------------------------------------------

PART = PartResult(1, 600, 10.0, 60.0, {"loss": 1.0}, {"mean": 1.1, "ridge": 1.05}, {"long": 0.1, "flat": 0.0})


def a_verdict(word: Any = "better than", estimate: float = 0.1, low: Any = 0.02, high: Any = 0.18) -> Verdict:
    return Verdict(estimate, low, high, 60.0, word)


def judged(decision: Verdict | None, skill: Verdict, side: str | None = "long") -> Judged:
    return Judged("ridge", side, PART, PART, {"mean": a_verdict(), "ridge": skill}, decision)


def write_judged(content: Any, study: str = "a-study") -> None:
    Path("sweeps", study).mkdir(parents=True, exist_ok=True)
    Path("sweeps", study, "evaluation.json").write_text(content if isinstance(content, str) else json.dumps(content))


def left(result: Judged, trial: int = 0, uses: int = 3) -> dict[str, Any]:
    return {"trial": trial, "runs": [run_of(0)], "uses": uses, **result.as_dict()}


def page_with(content: Any, **attrs: Any) -> Page:
    study = made_study([made_trial(values=[1.0]), made_trial(values=[2.0])], **attrs)
    if content is not None:
        write_judged(content)
    return page_of(write_report(study))


def test_the_decisions_verdict_is_the_first_that_is_said(here: Path) -> None:
    result = judged(a_verdict("cannot be told from", 0.01, -0.02, 0.03), a_verdict("worse than", -0.2, -0.3, -0.1))
    text = page_with(left(result)).text
    said = [
        "Trial 0, chosen on val, judged on test: Cannot be told from being long all the time",
        "Test, decision: cannot be told from being long all the time, +0.01 standard deviations of a change a step "
        "(95 % interval -0.02 to 0.03, 60 independent observations)",
        "Test, loss: better than predicting the training mean, skill 0.1 (95 % interval 0.02 to 0.18, 60 independent",
        "Test, loss: worse than ridge regression on the same inputs, skill -0.2",
        "2 trials were tried; its test part has judged 3 results in this store",
        "Best: trial 0",
        "1 val/loss, chosen by it",
    ]
    places = [text.index(line) for line in said]
    assert places == sorted(places)
    assert "below predicting the mean" not in text


@pytest.mark.parametrize(
    ("decision", "skill", "side", "said"),
    [
        (a_verdict("too short to tell", 0.1, None, None), a_verdict(), "long", "Too short to tell"),
        (None, a_verdict("too short to tell", 0.1, None, None), None, "Too short to tell"),
        (None, a_verdict("better than"), None, "Better than ridge regression on the same inputs"),
        (a_verdict("worse than"), a_verdict(), "flat", "Worse than doing nothing"),
    ],
)
def test_the_headline_says_what_it_comes_to(decision: Any, skill: Verdict, side: Any, said: str) -> None:
    assert study_words.headline(judged(decision, skill, side)) == said


def test_without_a_test_part_it_is_said_that_nothing_is_left_to_judge_by(here: Path) -> None:
    spec = {"space": {}, "config": {"data.name": "article", "data.test_series": 0}}
    assert words.no_test("data.test_series")[1:] in page_with(None, spec=spec).text
    older: dict[str, Any] = {"space": {}, "config": {"data.name": "market"}}
    assert "data.test_fraction above 0 keeps a part for it" in page_with(None, name="older", spec=older).text


HAS_TEST = {"space": {}, "config": {"data.name": "market", "data.test_fraction": 0.2}}


def test_what_has_not_been_judged_is_said_to_be_so(here: Path) -> None:
    assert "Trial 0 has not been judged on test" in page_with(None, spec=HAS_TEST).text
    running = made_study([made_trial(values=[1.0]), made_trial("RUNNING")], name="running", spec=HAS_TEST)
    assert "Not judged on test yet" in page_of(write_report(running)).text


def test_a_verdict_on_another_trial_is_not_given_as_the_bests(here: Path) -> None:
    text = page_with(left(judged(a_verdict(), a_verdict()), trial=1)).text
    assert "trial 1 was judged on test, and is not the best one any more" in text
    assert "Better than" not in text


def with_(**changes: Any) -> dict[str, Any]:
    return {**left(judged(a_verdict(), a_verdict())), **changes}


WRONG = {
    "no JSON": "{",
    "a list": [],
    "nothing": {},
    "a trial that is a text": with_(trial="0"),
    "a number that is a text": with_(decision={**a_verdict().__dict__, "estimate": HOSTILE}),
    "another word": with_(decision={**a_verdict().__dict__, "word": HOSTILE}),
    "a name that moves the cursor": with_(best_side="\x1b[2J"),
    "no verdicts": with_(skill={}, decision=None),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_a_result_that_makes_no_sense_is_a_line(here: Path, content: Any) -> None:
    page = page_with(content)
    assert "How trial 0 does on test is not known: sweeps/a-study/evaluation.json cannot be read" in page.text
    assert "Better than" not in page.text


def test_names_in_a_result_are_data(here: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    result = Judged(name, name, PART, PART, {name: a_verdict()}, a_verdict())
    page = page_with(left(result))
    assert "img" not in [tag for tag, _ in page.elements]
    assert f"better than {name}" in page.text


def test_a_sweeps_last_lines_say_the_verdict_and_that_the_value_was_chosen_by(here: Path, capsys: Any) -> None:
    study = made_study([made_trial(values=[1.0])])
    write_judged(left(judged(a_verdict("worse than", -0.1, -0.2, -0.05), a_verdict()), uses=1))
    cfg = SimpleNamespace(progress="plain", tracking=SimpleNamespace(uri="sqlite:///mlruns/mlflow.db"))
    plan: Any = SimpleNamespace(cfg=cfg, space=SimpleNamespace(overrides=lambda point: ["clip=1"]))
    store: Any = SimpleNamespace(experiment="1", client=Away())
    _say_result(study, plan, store)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "best: trial 0  val/loss 1, chosen by it  clip=1"
    assert lines[1].startswith("test, decision: worse than being long all the time, -0.1 standard deviations")
    assert lines[2].startswith("test, loss: better than predicting the training mean")
    assert lines[4].startswith("one trial was tried; its test part has judged this result only in this store")
    write_judged("{")
    _say_result(study, plan, store)
    assert capsys.readouterr().out.splitlines()[1].startswith("How trial 0 does on test is not known: ")


# --- figures --------------------------------------------------------------------------------------------------------


def drawn(decides: bool = True, **changes: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "predicted": np.array([[1.0, 0.5], [0.0, 2.0]]),
        "true": np.array([[3.0, 1.0], [1.0, 4.0]]),
    }
    if decides:
        arrays |= {"step": [0.0, 5.0], "profit": [1.0, 2.0], "long": [0.5, 1], "short": [-0.5, -1], "flat": [0, 0]}
    return {f"drawn/{name}": a for name, a in {**arrays, **changes}.items() if a is not None}


def figures_of(content: bytes | None, spec: Any = None) -> tuple[list[Any], list[str]]:
    from tbptt.reports import chosen

    study = made_study([made_trial(values=[1.0])], **({"spec": spec} if spec else {}))
    if content is not None:
        Path("sweeps/a-study").mkdir(exist_ok=True)
        Path("sweeps/a-study/evaluation.npz").write_bytes(content)
    return chosen.sections(study, study.read()[0])


def test_predictions_are_drawn_beside_the_truth_by_what_decides(here: Path) -> None:
    (predictions, _), missing = figures_of(packed(drawn()))
    in_time, beside = predictions.figures
    lines = {trace.name: list(trace.y) for trace in in_time.data}
    assert lines == {"true": [2.0, -3.0], "predicted": [0.5, -2.0]}
    assert (list(beside.data[0].x), list(beside.data[0].y)) == ([0.5, -2.0], [2.0, -3.0])
    assert in_time.layout.yaxis.title.text == "Q(buy) - Q(sell),<br>in units of the price"
    assert missing == []


def test_profit_is_drawn_beside_what_needs_no_prediction_and_the_fee_is_named(here: Path) -> None:
    spec = {"space": {}, "config": {"data.fee": 1.3, "data.fee_unit": "change_std"}}
    (_, profit), _ = figures_of(packed(drawn()), spec)
    traces = {trace.name: list(trace.y) for trace in profit.figures[0].data}
    assert traces == {
        "following the predictions": [1.0, 2.0],
        "being long all the time": [0.5, 1.0],
        "being short all the time": [-0.5, -1.0],
        "doing nothing": [0.0, 0.0],
    }
    assert list(profit.figures[0].data[0].x) == [1.0, 6.0]
    assert "A change of side costs 2 × the fee, 1.3 standard deviations of a change." in profit.note


def test_a_forecast_is_drawn_at_its_first_horizon(here: Path) -> None:
    spec = {"space": {}, "config": {"task.horizons": [5, 20]}}
    sections, _ = figures_of(packed(drawn(decides=False)), spec)
    assert len(sections) == 1
    figure = sections[0].figures[0]
    assert list(figure.data[0].y) == [3.0, 1.0]
    assert figure.layout.yaxis.title.text == "forecast for 5 steps ahead,<br>in units of the price"


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"text",
        packed({}),
        packed(drawn(true=np.ones((3, 2)))),
        packed(drawn(long=None)),
        packed(drawn(long=[1.0])),
        packed(drawn(step=None)),
        packed(drawn(predicted=np.ones((2, 1)), true=np.ones((2, 1)))),
        packed(drawn(decides=False, predicted=np.ones((10_001, 1)), true=np.ones((10_001, 1)))),
    ],
)
def test_what_cannot_be_drawn_of_the_chosen_trial_is_a_line(here: Path, content: bytes | None) -> None:
    sections, missing = figures_of(content)
    assert sections == []
    assert len(missing) == 1
    assert missing[0].startswith("Predictions beside the truth, on test: ")


def test_values_that_are_no_numbers_leave_gaps(here: Path) -> None:
    (predictions, _), _ = figures_of(packed(drawn(predicted=np.array([[np.nan, 1.0], [2.0, 1.0]]))))
    assert list(predictions.figures[0].data[1].y) == [None, 1.0]
    assert "NaN" not in predictions.figures[0].to_json()


def test_the_figures_are_on_the_page_where_the_trial_was_judged(here: Path) -> None:
    Path("sweeps/a-study").mkdir(parents=True)
    Path("sweeps/a-study/evaluation.npz").write_bytes(packed(drawn()))
    assert "Profit so far, on test" in page_with(left(judged(a_verdict(), a_verdict()))).text
    write_judged(left(judged(a_verdict(), a_verdict()), trial=1))
    study = Study("a-study", "sqlite:///sweeps/optuna.db", ["val/loss"])
    assert "Profit so far, on test" not in page_of(write_report(study)).text


def test_arrays_are_read_as_float64_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(packed({"val/loss": [1.5], "test/loss": [2.5]}))
    found = read_arrays(path, lambda name: name.startswith("val/"))
    assert list(found) == ["val/loss"]
    assert found["val/loss"].dtype == np.float64
