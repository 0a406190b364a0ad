"""Series cut at the same times that end before a part, or begin after training, as stocks are delisted and listed."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONF, SMALL
from mlflow import MlflowClient
from omegaconf import DictConfig
from parts import WARM, WINDOW, Told, forecast, of_panel, panel_of, q_values, scored
from test_by_time import own_rows, slow_borders

import tbptt
from tbptt.config.checks import problems
from tbptt.config.compose import ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.data.options import SplitData
from tbptt.data.panel import Panel
from tbptt.data.prices import fingerprint
from tbptt.data.split import Split, load_split
from tbptt.evaluation.data_words import data_lines, described
from tbptt.evaluation.judged import judge
from tbptt.evaluation.results import RESULT, STEPS
from tbptt.evaluation.steps import aligned
from tbptt.reports.losses import of_trial, read_losses
from tbptt.runs.fit import fit
from tbptt.studies import sweep, worker
from tbptt.studies.best_of import Chosen
from tbptt.studies.chosen import judge_chosen
from tbptt.studies.plan import make_plan
from tbptt.studies.records import TrialRecord
from tbptt.system.runtime import StopSignals
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.prepare import Prepared, prepare

AHEAD = forecast(1, 3).ahead
# The first one is delisted while the others train: what is of "the first series" has to be of another one.
ROWS = {"gone_early": range(150), "whole": range(600), "gone_in_val": range(420), "listed_in_val": range(400, 600)}
TRAINED = ["gone_early", "whole", "gone_in_val"]
SCORED = {"val": ["whole", "gone_in_val"], "test": ["whole"]}
HELD_OUT = ("val", "test")


def borders(panel: Panel) -> tuple[int, int]:
    """Of the default fractions here."""
    val, test = slow_borders(panel, 0.25, 0.25)
    assert 150 < val < 400 < 420 < test
    return val, test


def alone(panel: Panel, names: Sequence[str], task: TaskConfig) -> Prepared:
    """These series by themselves, with the fractions that cut them where the whole panel is cut."""
    val, test = borders(panel)
    few = panel.only(list(names))
    rows = np.concatenate([series.rows for series in few.series.values()])
    fractions = {"val_fraction": ((rows >= val) & (rows < test)).mean(), "test_fraction": (rows >= test).mean()}
    return prepare(of_panel(few, **fractions), task)


def part_of(prepared: Prepared, part: str) -> tbptt.data.sequences.Sequences:
    found = prepared.val if part == "val" else prepared.test()
    assert found is not None
    return found


# --- which steps are scored -----------------------------------------------------------------------------------------


def test_a_series_is_scored_where_it_has_prices_and_keeps_its_place_where_it_has_none() -> None:
    panel = panel_of(ROWS)
    val, test = borders(panel)
    data = prepare(of_panel(panel), forecast(1, 3))
    split = data.split
    bounds = {"train": (0, val), "val": (val, test), "test": (test, 600)}
    for part, (first, end) in bounds.items():
        assert list(getattr(split, part)) == TRAINED
        sequences = data.train if part == "train" else part_of(data, part)
        back = WINDOW if part == "train" else 0  # the prices that the first step looks back to
        expected = [max(0, sum(first <= r < end for r in own_rows(panel, n)) - AHEAD - back) for n in TRAINED]
        assert [split.scored(part, name) for name in TRAINED] == expected
        assert [sum(b == i for b, _ in scored(sequences)) for i in range(3)] == expected
        assert sequences.valid_steps == sum(expected)
        if part != "train":
            assert [n for n, count in zip(TRAINED, expected, strict=True) if count] == SCORED[part]
            assert sequences.mask is not None
            assert sequences.mask.sum(1).tolist() == expected
            assert sequences.change_std is not None
            assert len(sequences.change_std) == len(sequences.mask)
    assert split.moments("val") == test - val - AHEAD
    assert split.moments("test") == 600 - test - AHEAD


@pytest.mark.parametrize(("count", "steps"), [(0, 0), (1, 0), (AHEAD, 0), (AHEAD + 1, 1), (AHEAD + 2, 2)])
def test_a_step_needs_its_own_price_and_those_that_its_targets_look_ahead_to(count: int, steps: int) -> None:
    rows = [*range(300), *range(520, 520 + count)]  # halted when val begins
    panel, fractions = panel_of({"halted": rows, "whole": range(600)}), {"val_fraction": 0.15, "test_fraction": 0.17}
    val, test = slow_borders(panel, **fractions)
    assert val >= 300
    assert test <= 520
    data = prepare(of_panel(panel, **fractions), forecast(1, 3))
    assert data.split.scored("val", "halted") == 0
    assert data.split.scored("test", "halted") == steps
    assert part_of(data, "test").valid_steps == steps + 600 - test - AHEAD
    assert math.isfinite(data.baseline)


def test_a_series_that_is_not_there_in_val_is_scored_in_test_with_what_it_looks_back_to() -> None:
    rows = {"halted": [*range(300), *range(480, 600)], "whole": range(600)}
    panel = panel_of(rows)
    val, test = slow_borders(panel, 0.15, 0.25)
    assert val >= 300
    assert test <= 480
    split = load_split(of_panel(panel, val_fraction=0.15), forecast(1, 3))
    assert split.scored("val", "halted") == 0
    assert split.scored("test", "halted") == 120 - AHEAD
    assert split.rows_of["test"]["halted"].tolist() == [*range(300 - WINDOW - WARM, 300), *range(480, 600)]
    (line,) = [line for line in data_lines(described(of_panel(panel), forecast(1), split)) if "trains" in line]
    assert line.endswith("; not scored in val: halted")


def test_a_task_that_looks_at_no_price_ahead_may_leave_one_price_where_a_series_is_not_scored() -> None:
    class Level(type(forecast(1))):  # type: ignore[misc]
        ahead = 0

        def targets(self, prices: np.ndarray, change_std: np.ndarray) -> np.ndarray:
            return prices[:, :, None]

    split = load_split(of_panel(panel_of(ROWS), window=1), Level(name="forecast"))
    assert len(split.test["gone_early"]) == 1
    assert split.scored("test", "gone_early") == 0


# --- what is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", HELD_OUT)
@pytest.mark.parametrize("task", [forecast(1, 3), q_values()], ids=lambda task: task.name)
def test_the_scored_series_are_judged_as_without_the_others(part: str, task: TaskConfig) -> None:
    """The same predictions for the same steps; those where nothing is scored are far off."""
    panel = panel_of(ROWS)
    names = SCORED[part]
    every, few = prepare(of_panel(panel), task), alone(panel, names, task)
    random = torch.Generator().manual_seed(1)
    told: dict[str, list[torch.Tensor]] = {"every": [], "few": []}
    for each in HELD_OUT:
        there, here = part_of(every, each), part_of(few, each)
        y = torch.randn(here.targets.shape, generator=random)
        wide = torch.full(there.targets.shape, 1e6)
        if each == part:
            assert here.targets.shape[1:] == there.targets.shape[1:]
            wide[[TRAINED.index(name) for name in names]] = y
        told["every"].append(wide)
        told["few"].append(y)
    found, kept = judge([Told(*told["every"])], every, with_test=True)
    expected, expected_kept = judge([Told(*told["few"])], few, with_test=True)
    mine, other = getattr(found, part), getattr(expected, part)
    assert mine.series == other.series == len(names)
    assert (mine.steps, mine.metrics.keys()) == (other.steps, other.metrics.keys())
    same = [name for name in other.metrics if name not in ("skill",)]  # which is measured from the training mean
    assert {name: mine.metrics[name] for name in same} == pytest.approx({n: other.metrics[n] for n in same}, rel=1e-5)
    for name in ("mean", "zero"):
        assert mine.baselines[name] == pytest.approx(other.baselines[name], rel=1e-4)
    assert mine.sides == pytest.approx(other.sides, rel=1e-5)
    for name in ("loss", "zero", *(("profit", "long") if task.decides else ())):
        np.testing.assert_allclose(kept[f"{part}/{name}"], expected_kept[f"{part}/{name}"], rtol=1e-4, atol=1e-6)
    if part == "test":
        for name in ("drawn/true", "drawn/predicted"):
            np.testing.assert_allclose(kept[name], expected_kept[name], rtol=1e-5, atol=1e-6)


def test_every_number_is_finite_and_by_series_only_those_that_are_scored_count() -> None:
    class OfIndependent(type(of_panel(panel_of(ROWS)))):  # type: ignore[misc]
        independent_series = True

    panel = panel_of(ROWS, inputs=2)
    for of in (of_panel, lambda *a, **k: OfIndependent(**vars(of_panel(*a, **k)))):
        for warm in (0, WARM):
            data = prepare(of(panel, inputs=["x0", "x1"], warm_steps=warm), q_values())
            y = [torch.randn(part_of(data, part).targets.shape) for part in HELD_OUT]
            found, kept = judge([Told(*y)], data, with_test=True)
            assert found.test is not None
            assert [found.val.series, found.test.series] == [2, 1]
            for part in (found.val, found.test):
                assert np.isfinite([*part.metrics.values(), *part.baselines.values(), *part.sides.values()]).all()
            assert all(np.isfinite(values).all() for values in kept.values())
            assert math.isfinite(found.skill["mean"].estimate)
    losses = part_of(data, "test").targets.square().mean(2)
    steps = aligned(part_of(data, "test"), loss=losses)
    (b,) = [i for i, name in enumerate(TRAINED) if name == "whole"]
    np.testing.assert_array_equal(steps.by_series("loss"), [float(steps.values["loss"].sum())])
    np.testing.assert_allclose(steps.values["loss"][0], losses[b, WARM : WARM + steps.present.shape[1]])


def test_fingerprints_know_what_trains_and_what_is_scored_and_nothing_else() -> None:
    panel = panel_of(ROWS, inputs=1)
    val, test = borders(panel)
    split = load_split(of_panel(panel, inputs=["x0"]), forecast(1, 3))
    expected: dict[str, np.ndarray] = {}
    for beside in ("/", "\0"):
        for word, names, first, end in (
            ("training", TRAINED, 0, val),
            ("held_out", SCORED["val"], val - WINDOW, test),
            ("test", SCORED["test"], test - WINDOW, 600),
        ):
            for name in names:
                each = panel.series[name]
                values = each.prices if beside == "/" else each.inputs
                expected[f"{word}{beside}{name}"] = values[(each.rows >= first) & (each.rows < end)]
    assert split.fingerprint() == fingerprint(expected)
    assert split.test_fingerprint() == alone(panel, ["whole"], forecast(1, 3)).split.test_fingerprint()


def test_a_surrogates_test_part_is_the_same_whatever_is_left_out() -> None:
    """Also where one that is left out ends within it."""
    panel = panel_of({"whole": range(600), "late": range(200, 540), "gone": range(250)})
    assert slow_borders(panel, 0.25, 0.25)[1] < 500
    splits = [load_split(of_panel(panel, surrogate="shuffle", fold=f"{k}/3"), forecast(1)) for k in (1, 3)]
    assert [list(split.train) for split in splits] == [["whole", "gone"], ["whole", "late", "gone"]]
    first, last = (split.test["whole"][WINDOW + WARM :] for split in splits)
    np.testing.assert_allclose(first, last, rtol=1e-9)
    plain = load_split(of_panel(panel, fold="1/3"), forecast(1))
    assert not np.allclose(first, plain.test["whole"][WINDOW + WARM :], rtol=1e-3)


# --- what is said ---------------------------------------------------------------------------------------------------


def said(split: Split, data: SplitData) -> str:
    return " ".join(" ".join(data_lines(described(data, forecast(1, 3), split))).split())


def test_a_series_that_begins_too_late_is_left_out_and_those_that_end_too_early_are_named() -> None:
    panel = panel_of(ROWS)
    panel = replace(panel, findings=replace(panel.findings, left_out={"Volume": "volume"}))
    assert panel.times is not None
    val = str(panel.times[borders(panel)[0]])[:10]
    data = of_panel(panel)
    split = load_split(data, forecast(1, 3))
    assert split.panel is not None
    why = f"too few prices to train on before {val}"
    assert split.panel.findings.left_out == {"Volume": "volume", "listed_in_val": why}
    assert list(split.panel.series) == TRAINED
    about = described(data, forecast(1, 3), split)
    assert [one["steps"]["test"] > 0 for one in about["series"]] == [False, True, False]
    line = said(split, data)
    assert f"left out: Volume (volume), listed_in_val ({why});" in line
    early, in_val = ("(ends 2001-05-30)", "(ends 2002-02-24)")  # the 150th and the 420th day
    assert f"; not scored in val and test: gone_early {early}; not scored in test: gone_in_val {in_val}" in line
    without = of_panel(panel, test_fraction=0.0, val_fraction=0.4)
    line = said(load_split(without, forecast(1, 3)), without)
    assert f"; not scored in val: gone_early {early} data: steps" in line
    rolling = of_panel(panel, fold="3/3", fold_window="rolling")
    left = load_split(rolling, forecast(1, 3)).panel.findings.left_out  # type: ignore[union-attr]
    assert left["gone_early"].startswith("too few prices to train on from 2001-")
    assert set(left) == {"Volume", "gone_early", "listed_in_val"}


def test_of_many_the_first_six_are_named() -> None:
    panel = panel_of({"whole": range(5000), "short": range(20)})
    series = {"whole": panel.series["whole"], **{f"s{i}": panel.series["short"] for i in range(26)}}
    data = of_panel(replace(panel, series=series))
    split = load_split(data, forecast(1, 3))
    ends = "(ends 2001-01-20)"
    assert f"val and test: {', '.join(f's{i} {ends}' for i in range(6))} and 20 more" in said(split, data)


def test_without_times_the_names_are_said_alone() -> None:
    data = of_panel(replace(panel_of(ROWS), times=None))
    line = said(load_split(data, forecast(1, 3)), data)
    assert "left out: listed_in_val (too few prices to train on)" in line
    assert "not scored in val and test: gone_early; not scored in test: gone_in_val" in line


REFUSED = {  # the series, the fractions, and the series that has most of the prices that the part needs
    "train": ({"a": range(3, 100), "b": range(2, 100), "c": range(100)}, (0.72, 0.25), "c"),
    "val": ({"a": [*range(250), 310, 311], "b": range(300, 600)}, (0.345, 0.2), "a"),
    "test": ({"a": range(600), "b": range(600)}, (0.25, 0.005), "a"),
}


@pytest.mark.parametrize("part", REFUSED)
def test_what_leaves_no_series_is_refused_with_the_times_and_the_keys(part: str) -> None:
    rows, fractions, name = REFUSED[part]
    panel = panel_of(rows)
    assert panel.times is not None
    val, test = slow_borders(panel, *fractions)
    first, end = {"train": (0, val), "val": (val, test), "test": (test, 600)}[part]
    count = sum(first <= row < end for row in rows[name])
    if part != "val":  # for which b cannot be trained
        assert count == max(sum(first <= row < end for row in own) for own in rows.values())
    word = {"train": "training", "val": "validation", "test": "test"}[part]
    data = of_panel(panel, val_fraction=fractions[0], test_fraction=fractions[1])
    with pytest.raises(
        ValueError, match=f"^{name} has {len(rows[name])} prices, {count} of them in its {word}"
    ) as caught:
        load_split(data, forecast(1, 3))
    line = str(caught.value)
    begins = f"(validation begins {str(panel.times[val])[:10]}, test begins {str(panel.times[test])[:10]})"
    for said_too in (begins, "task.horizons shortens that", "data.val_fraction and data.test_fraction"):
        assert said_too in line
    assert line.endswith("data.split=each cuts each at shares of its own length")
    assert "\n" not in line


def test_of_one_series_the_line_says_nothing_of_others() -> None:
    panel = panel_of({"only": range(100)})
    with pytest.raises(ValueError, match=r"^only has 100 prices, 1 of them in its test part") as caught:
        load_split(of_panel(panel, test_fraction=0.01), forecast(1, 3))
    end = "; data.val_fraction and data.test_fraction say where it is cut (validation begins 2001-03-16, test begins"
    assert f"{end} 2001-04-10)" in str(caught.value)
    with pytest.raises(ValueError, match=r"data\.test_fraction and the number of folds say where it is cut"):
        load_split(of_panel(panel, fold="1/30"), forecast(1, 3))


def test_times_are_in_the_zone_of_the_file_and_to_the_second_where_it_has_seconds() -> None:
    panel = panel_of({"fine": range(400), "late": range(390, 400)})
    assert panel.times is not None

    def why(times: np.ndarray, zone: str | None) -> str:
        split = load_split(of_panel(replace(panel, times=times, zone=zone)), forecast(1))
        return split.panel.findings.left_out["late"]  # type: ignore[union-attr]

    day = str(panel.times[slow_borders(panel, 0.25, 0.25)[0]])[:10]
    midnights = pd.date_range("2001-01-01", periods=400, tz="Europe/Berlin").tz_convert("UTC").tz_localize(None)
    assert why(midnights.to_numpy(), "Europe/Berlin") == f"too few prices to train on before {day}"
    later = panel.times + np.timedelta64(3_661, "s")
    assert why(later, None) == f"too few prices to train on before {day} 01:01:01"


def test_a_series_that_never_changes_in_training_is_still_refused_by_name() -> None:
    panel = panel_of(ROWS)
    flat = replace(panel.series["gone_early"], prices=np.full(150, 7.0))
    with pytest.raises(ValueError, match=r"^gone_early never changes in its training part"):
        load_split(of_panel(replace(panel, series={**panel.series, "gone_early": flat})), forecast(1))


def test_where_each_is_cut_by_itself_all_are_scored() -> None:
    split = load_split(of_panel(panel_of(ROWS), split="each"), forecast(1, 3))
    assert all(split.scored(part, name) == len(ROWS[name]) // 4 - AHEAD for part in HELD_OUT for name in ROWS)


# --- from the file to the verdict -----------------------------------------------------------------------------------


WORDS = [
    *(word for word in SMALL if not word.startswith(("data.", "task.", "schedule.", "epochs"))),
    *("data=prices", "data.path=stocks.csv", "data.warm_steps=20", "data.window=8", "task.gamma=0.5"),
    *("schedule.chunks=[10,2]", "epochs=3"),
]


def write_stocks(rows: dict[str, Sequence[int]]) -> None:
    """A file of a panel with a column of dates, blank where a series has no price."""
    panel = panel_of(rows)
    assert panel.times is not None
    frame = pd.DataFrame({name: pd.Series(s.prices, index=s.rows) for name, s in panel.series.items()})
    frame.insert(0, "date", panel.times[frame.index].astype("datetime64[D]"))
    frame.to_csv("stocks.csv", index=False)


def test_a_run_trains_on_all_and_its_numbers_are_finite(here: Path, config: Callable[..., DictConfig]) -> None:
    write_stocks(ROWS)
    cfg = config(*WORDS)
    assert problems(cfg) == []
    result = fit(cfg)
    client = MlflowClient(f"sqlite:///{Path('mlruns/mlflow.db').absolute()}")
    run = client.get_run(result.run_id)
    assert len(client.get_metric_history(result.run_id, "val/loss")) == 3
    for name in run.data.metrics:
        values = [point.value for point in client.get_metric_history(result.run_id, name)]
        assert np.isfinite(values).all(), name
    assert {"test/loss", "test/skill_over_mean", "test/value", "val/turnover"} <= set(run.data.metrics)
    assert "listed_in_val (too few prices to train on before" in run.data.tags["data.left_out"]
    (path,) = Path("mlruns").rglob("evaluation.json")
    content = json.loads(path.read_text())
    assert [content[part]["series"] for part in HELD_OUT] == [2, 1]
    assert list(tbptt.panel(result.run_id).series) == TRAINED


def test_folds_have_different_series_and_are_joined_and_judged(here: Path) -> None:
    write_stocks({**ROWS, "listed_in_training": range(200, 600)})
    register()
    source = ConfigSource(CONF)
    words = [*WORDS, "epochs=1", "clip=choice(2)", "study.folds=3", "study/pruner=none", "data.test_fraction=0.1"]
    with source.opened():
        plan = make_plan(source, parsed(words)[0])
    study, store = sweep._opened(plan, plan.name, StopSignals())
    parent = sweep._prepare(study, plan, store, plan.points(), Chosen(), sweep._spec(plan))
    worker.work(sweep._worker_spec(plan, study.name, words, parent))
    (trial,) = study.trials()
    runs = list(TrialRecord.of(trial).run_ids)
    tags = [store.client.get_run(run).data.tags for run in runs]
    assert ["listed_in_val" in each["data.left_out"] for each in tags] == [True] * 3
    assert ["listed_in_training" in each["data.left_out"] for each in tags] == [True, False, False]
    assert ["listed_in_training" in each["data.series"] for each in tags] == [False, True, True]
    values = [store.client.get_metric_history(run, "val/loss")[-1].value for run in runs]
    assert trial.values == pytest.approx([np.mean(values)])
    each = [read_losses(path) for run in runs if (path := store.artifact_here(run, STEPS))]
    joined = of_trial(each)
    np.testing.assert_array_equal(joined.model, np.concatenate([one.model for one in each]))
    assert len(each) == 3
    judge_chosen(study, store, parent)
    content = json.loads((Path("sweeps") / study.name / RESULT).read_text())
    assert content["test"]["series"] == 2
    assert all(map(math.isfinite, content["test"]["metrics"].values()))
