"""predict.py and tbptt.predict: the table, the numbers of training on the rows of training, what is written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONF
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from mlflow import MlflowClient
from omegaconf import OmegaConf

import tbptt
from tbptt.cli.predict import main
from tbptt.config.schema import register
from tbptt.runs import checkpoint
from tbptt.runs.contents import OF_A_RUN
from tbptt.runs.fit import fit
from tbptt.serving.picture import draw
from tbptt.serving.predict import Result, predicted
from tbptt.serving.source import find
from tbptt.system.stores import absolute_uri
from tbptt.tasks.prepare import prepare

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(tbptt.__file__).parents[1])}
URI = "sqlite:///mlruns/mlflow.db"
FEW = ["data.window=8", "model.dense=[]", "model.hidden=[4]", "schedule=fixed", "schedule.chunks=[5]", "epochs=2"]
OF_FILE = ["data=prices", "data.reading=auto", "data.split=time", "data.test_fraction=0.2", "data.warm_steps=30", *FEW]
RUNS = {
    "q_values": [*OF_FILE, "data.path=first.csv", "task.gamma=0.5"],
    "split": [
        *(*OF_FILE, "data.path=first.csv", "task.gamma=0.5", "task.loss=split", "task.fee_unit=price", "task.fee=0.1"),
    ],
    "forecast": [*OF_FILE, "data.path=first.csv", "task=forecast", "task.horizons=[1,10]"],
    "article": [
        *("data.n_series=3", "data.val_series=2", "data.test_series=2", "data.length=100", *FEW, "task.gamma=0.5"),
    ],
    "inputs": [
        *OF_FILE,
        *("data.path=gaps.csv", "data.time=Date", "data.columns=[A,B]", "data.inputs=['volume:log1p',A:change]"),
        *("data.input_window=2", "data.gaps=carry", "task=forecast"),
    ],
    "long": [*OF_FILE, "data.path=long.csv", "data.by=name", "data.split=each", "task=forecast", "task.horizons=[2]"],
}


class Trained(NamedTuple):
    folder: Path
    runs: dict[str, str]


def walks(days: int) -> pd.DataFrame:
    """The first days of two random walks."""
    random = np.random.default_rng(5)
    dates = pd.bdate_range("2020-01-01", periods=450)
    a, b = 100 + random.normal(0, 1, 450).cumsum(), 50 + random.normal(0, 0.5, 450).cumsum()
    return pd.DataFrame({"Date": dates, "A": a, "B": b}).iloc[:days]


def with_gaps(days: int) -> pd.DataFrame:
    table = walks(450)
    table["volume"] = np.random.default_rng(6).integers(1000, 9000, 450).astype(float)
    table.loc[[50, 51, 200], "B"] = np.nan
    table.loc[70, "volume"] = np.nan
    return table.iloc[:days]


def long(days: int) -> pd.DataFrame:
    """A begins later, B ends earlier."""
    table = walks(days).melt("Date", var_name="name", value_name="Close").sort_values(["Date", "name"])
    late, early = table["Date"] >= "2020-03-01", table["Date"] < "2021-03-01"
    return table[((table["name"] == "A") & late) | ((table["name"] == "B") & early)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    register()
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONF), version_base="1.3"):
        patch.chdir(folder)
        for name, table in (("first", walks(400)), ("gaps", with_gaps(400)), ("long", long(400))):
            table.to_csv(f"{name}.csv", index=False)
        for name, table in (("grown", walks(450)), ("more_gaps", with_gaps(450)), ("longer", long(450))):
            table.to_csv(f"{name}.csv", index=False)
        runs = {
            name: fit(compose("config", [*words, "progress=none", f"tracking.uri={URI}"])).run_id
            for name, words in RUNS.items()
        }
    return Trained(folder, runs)


@pytest.fixture
def there(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.chdir(trained.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return trained


@pytest.fixture
def of(there: Trained) -> Callable[..., Result]:
    def found(name: str, data: Any = None, **more: Any) -> Result:
        return predicted(find(there.runs[name]), data, **more)

    return found


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(RUNS))
def test_metrics_of_the_runs_own_rows_are_those_of_training(
    there: Trained, of: Callable[..., Result], name: str
) -> None:
    result = of(name)
    run = MlflowClient(absolute_uri(URI)).get_run(there.runs[name]).data.metrics
    best = checkpoint.load(next(there.folder.glob(f"mlruns/**/{there.runs[name]}/**/best.ckpt")), OF_A_RUN)
    logged = {name: value for name, value in best["record"]["metrics"].items() if name.startswith("val/")}
    assert len(logged) >= 3
    for metric, value in logged.items():
        assert result.metrics["val"][metric.removeprefix("val/")] == pytest.approx(value, abs=1e-5), metric
    judged = {name: value for name, value in run.items() if name.removeprefix("test/") in result.metrics["test"]}
    assert len(judged) >= 3
    for metric, value in judged.items():
        assert result.metrics["test"][metric.removeprefix("test/")] == pytest.approx(value, abs=1e-5), metric
    assert set(result.metrics) == {"val", "test"}
    assert set(result.table["part"]) == {"train", "val", "test"}


def test_profit_in_the_table_adds_up_to_the_metric(of: Callable[..., Result]) -> None:
    result = of("split")
    std = result.given.change_std
    assert std is not None
    for part in ("val", "test"):
        rows = result.table[(result.table["part"] == part) & result.table["true_buy"].notna()]
        ahead = result.trained.task.ahead
        sums = []
        for i, series in enumerate("AB"):
            own = result.table[(result.table["part"] == part) & (result.table["series"] == series)]
            sums.append(own["profit"].iloc[: len(own) - ahead].sum() / std[i])
        assert len(rows) > 0
        value = sum(sums) / result.metrics[part]["steps"]
        assert value == pytest.approx(result.metrics[part]["value"], abs=1e-9)


@pytest.mark.parametrize("name", ["q_values", "forecast"])
def test_the_table_has_the_networks_numbers_the_truth_and_the_profit(there: Trained, name: str) -> None:
    table = tbptt.predict(there.runs[name], "grown.csv")
    prices = walks(450)[["A", "B"]].to_numpy().T
    network, scaler, config = tbptt.load_run(there.runs[name])
    with torch.no_grad():
        x = tbptt.inputs(prices, scaler, config)
        values = scaler.to_price_units(network(x, network.zero_state(2))[0].double()).numpy()
    columns = {"q_values": ["buy", "sell"], "forecast": ["h1", "h10"]}[name]
    assert list(table.columns[:6]) == ["time", "series", "part", "price", *columns]
    for i, series in enumerate("AB"):
        rows = table[table["series"] == series]
        assert list(rows["time"]) == list(walks(450)["Date"][8:])
        np.testing.assert_array_equal(rows["price"], prices[i, 8:])
        np.testing.assert_allclose(rows[columns], values[i], atol=1e-5, rtol=0)
        if name == "forecast":
            for h in (1, 10):
                ahead = np.append(prices[i, 8 + h :] - prices[i, 8:-h], [np.nan] * h)[: len(rows) + h][: len(rows)]
                known = len(rows) - 10  # as training has it: where all horizons are known
                np.testing.assert_allclose(rows[f"true_h{h}"].iloc[:known], ahead[:known], rtol=1e-9)
                assert rows[f"true_h{h}"].iloc[known:].isna().all()
            continue
        cost, side, expected = 2 * float(scaler.fee[i]), 0, []
        for t, (buy, sell) in enumerate(values[i]):
            gain, before = buy - sell, side
            side = (1 if gain > 0 else -1) if side == 0 or abs(gain) > cost else side
            change = prices[i, 9 + t] - prices[i, 8 + t] if t + 1 < len(rows) else np.nan
            expected.append((side, side * change - cost * (side * before < 0)))
        assert rows["side"].tolist() == [one for one, _ in expected]
        np.testing.assert_allclose(rows["profit"], [profit for _, profit in expected], rtol=1e-9)


def test_rows_of_another_file_are_told_from_those_that_were_trained_on(
    there: Trained, of: Callable[..., Result]
) -> None:
    config = tbptt.load_run(there.runs["q_values"])[2]
    split = prepare(OmegaConf.to_object(config.data), OmegaConf.to_object(config.task)).split  # type: ignore[arg-type]
    whole = of("q_values", "grown.csv")
    assert whole.given.at is None
    for series in "AB":
        rows = whole.table[whole.table["series"] == series]
        assert (rows["part"] == "train").sum() == split.scored("train", series) + split.ahead
        assert (rows["part"] == "val").sum() == split.scored("val", series) + split.ahead
        assert (rows["part"] == "test").sum() == split.scored("test", series) + split.ahead
        assert (rows["part"] == "new").sum() == 50
    assert set(whole.metrics) == {"val", "test", "new"}
    assert whole.metrics["new"]["steps"] == 2 * (50 - whole.trained.task.ahead)
    # Without times: by the prices, and only if they are the run's.
    arrays = {name: walks(450)[name].to_numpy() for name in "AB"}
    by_place = of("q_values", arrays).table
    assert by_place["part"].tolist() == whole.table["part"].tolist()
    assert by_place["row"].tolist() == [row for row in range(9, 451) for _ in range(2)]
    other = of("q_values", {name: each + 1.0 for name, each in arrays.items()})
    assert set(other.table["part"]) == {""}
    assert any("is not known" in note for note in other.notes)
    assert set(other.metrics) == {"unknown"}


def test_paths_frames_arrays_and_panels_are_the_same(there: Trained) -> None:
    run = there.runs["forecast"]
    from_path, frame = tbptt.predict(run, Path("grown.csv")), walks(450)
    pd.testing.assert_frame_equal(tbptt.predict(run, frame), from_path, check_dtype=False)
    pd.testing.assert_frame_equal(tbptt.predict(run, tbptt.panel(run, "grown.csv")), from_path)
    arrays = tbptt.predict(run, {"B": frame["B"].to_numpy(), "A": frame["A"].to_numpy(), "C": np.ones(9)})
    columns = ["series", "price", "h1", "h10"]
    pd.testing.assert_frame_equal(arrays[columns], from_path[columns])
    with pytest.raises(ValueError, match="has no series B, on which run"):
        tbptt.predict(run, {"A": frame["A"].to_numpy()})


@pytest.mark.parametrize(("name", "path"), [("inputs", "more_gaps.csv"), ("long", "longer.csv")])
def test_gaps_other_inputs_and_long_files_are_read_as_the_runs_was(there: Trained, name: str, path: str) -> None:
    run, table = there.runs[name], tbptt.predict(there.runs[name], path)
    panel = tbptt.panel(run, path)
    network, scaler, config = tbptt.load_run(run)
    (column,) = [column for column in table if str(column).startswith("h")]
    for i, (series, each) in enumerate(panel.series.items()):
        own = scaler.of_series(torch.tensor([i]))
        extra = each.inputs[None] if panel.inputs else None
        with torch.no_grad():
            x = tbptt.inputs(each.prices[None], own, config, extra)
            values = own.to_price_units(network(x, network.zero_state(1))[0].double())[0, :, 0].numpy()
        rows = table[table["series"] == series]
        np.testing.assert_allclose(rows[column], values, atol=1e-5, rtol=0)
        assert panel.times is not None
        assert list(rows["time"]) == list(pd.DatetimeIndex(panel.times[each.rows[8:]]))


def test_a_network_of_generated_series_takes_any_file(of: Callable[..., Result]) -> None:
    result = of("article", "grown.csv")
    assert set(result.table["series"]) == {"A", "B"}
    assert set(result.metrics) == {"new"}
    own = {"train 0", "train 1", "train 2", "val 0", "val 1", "test 0", "test 1"}
    assert set(of("article").table["series"]) == own
    with pytest.raises(ValueError, match=r"takes data\.path too"):
        of("article", changes={"delimiter": ";"})


def test_keys_that_say_how_a_file_is_read_count_before_the_runs(
    there: Trained, of: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "other.csv"
    walks(450).to_csv(path, index=False, sep="|", decimal=",")
    found = of("forecast", path, changes={"delimiter": "|", "decimal": ","})
    pd.testing.assert_frame_equal(found.table, of("forecast", "grown.csv").table, rtol=1e-12)
    walks(450).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"^data\.decimal: got ',', which has no effect with Parquet"):
        of("forecast", tmp_path / "other.parquet", changes={"decimal": ","})


def test_what_was_changed_since_is_said_and_told_by_its_times(
    there: Trained, of: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find(there.runs["q_values"])
    monkeypatch.chdir(tmp_path)
    walks(430).to_csv("first.csv", index=False)
    result = predicted(source)
    assert any("is not what run" in note for note in result.notes)
    assert (result.table["part"] == "new").sum() == 2 * 30


def test_an_older_checkpoint_is_told_by_its_data_read_again(there: Trained, tmp_path: Path) -> None:
    (path,) = there.folder.glob(f"mlruns/**/{there.runs['q_values']}/**/best.ckpt")
    content = checkpoint.load(path, OF_A_RUN)
    del content["change_std"], content["borders"]
    checkpoint.save(tmp_path / "older.ckpt", content)
    newer, older = (predicted(find(each), "grown.csv") for each in (path, tmp_path / "older.ckpt"))
    pd.testing.assert_frame_equal(older.table, newer.table)
    assert older.metrics == newer.metrics
    content["config"]["data"]["path"] = "gone.csv"
    checkpoint.save(tmp_path / "older.ckpt", content)
    alone = predicted(find(tmp_path / "older.ckpt"), "grown.csv")
    assert "true_buy" not in alone.table
    assert set(alone.table["part"]) == {""}
    assert any("cannot be read again (gone.csv" in note for note in alone.notes)


# --- the state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make"), [("q_values", walks), ("inputs", with_gaps), ("long", long)], ids=["columns", "inputs", "long"]
)
def test_each_day_alone_gives_the_numbers_of_one_go(there: Trained, tmp_path: Path, name: str, make: Any) -> None:
    path, state, run = tmp_path / "daily.csv", tmp_path / "state", there.runs[name]
    found = []
    for days in (300, 301, 302, 450):
        make(days).to_csv(path, index=False)
        found.append(tbptt.predict(run, path, state=state))
    whole, parts = tbptt.predict(run, path), pd.concat(found, ignore_index=True)
    known = [column for column in whole if not str(column).startswith(("true_", "profit"))]
    pd.testing.assert_frame_equal(parts[known], whole[known], check_exact=False, rtol=0, atol=1e-5)
    assert len(found[1]) in (1, 2)
    if name == "q_values":
        assert found[0]["profit"].isna().sum() == 2
        np.testing.assert_allclose(found[3]["profit"], whole["profit"][-len(found[3]) :], rtol=1e-9)
    again = predicted(find(run), path, state=state)
    assert len(again.table) == 0
    assert again.metrics == {}
    assert any(note.startswith("state: 450 rows were predicted before, up to ") for note in again.notes)


def test_without_times_rows_are_counted(there: Trained, tmp_path: Path) -> None:
    arrays = {name: walks(450)[name].to_numpy() for name in "AB"}
    some = {name: each[:200] for name, each in arrays.items()}
    first = tbptt.predict(there.runs["forecast"], some, state=tmp_path / "s")
    then = tbptt.predict(there.runs["forecast"], arrays, state=tmp_path / "s")
    whole = tbptt.predict(there.runs["forecast"], arrays)
    assert [*first["row"], *then["row"]] == whole["row"].tolist()
    np.testing.assert_allclose([*first["h10"], *then["h10"]], whole["h10"], atol=1e-5)
    with pytest.raises(ValueError, match="which are new is not known"):
        tbptt.predict(there.runs["forecast"], "grown.csv", state=tmp_path / "s")


def test_a_state_of_something_else_is_refused(there: Trained, tmp_path: Path) -> None:
    state = tmp_path / "state"
    tbptt.predict(there.runs["q_values"], state=state)
    kept = state.read_bytes()
    for run, says in (("split", "another network"), ("article", "other series"), ("inputs", "other series or inputs")):
        data = None if run == "inputs" else "grown.csv"
        with pytest.raises(ValueError, match=says):
            tbptt.predict(there.runs[run], {"x": walks(90)["A"].to_numpy()} if run == "article" else data, state=state)
    assert state.read_bytes() == kept
    (tmp_path / "link").symlink_to(state)
    with pytest.raises(ValueError, match="is a link"):
        tbptt.predict(there.runs["q_values"], state=tmp_path / "link")
    state.write_bytes(kept[:-200] + b"x" * 200)
    with pytest.raises(ValueError, match=r"damaged|altered|not a checkpoint"):
        tbptt.predict(there.runs["q_values"], state=state)


@pytest.mark.parametrize(("name", "make"), [("q_values", walks), ("forecast", walks), ("inputs", with_gaps)])
@pytest.mark.parametrize("new", [1, 2, 5, 12, 50])
def test_a_file_of_new_rows_alone_goes_on_from_the_state(
    there: Trained, tmp_path: Path, name: str, make: Any, new: int
) -> None:
    run, state, path = there.runs[name], tmp_path / "state", tmp_path / "new.csv"
    make(400).to_csv(tmp_path / "old.csv", index=False)
    make(400 + new).to_csv(tmp_path / "whole.csv", index=False)
    make(400 + new).iloc[400:].to_csv(path, index=False)
    tbptt.predict(run, tmp_path / "old.csv", state=state)
    expected = predicted(find(run), tmp_path / "whole.csv", state=state)
    found = predicted(find(run), path, state=state)
    assert len(found.table) == 2 * new
    if name == "inputs":  # the change of the first row is not known
        assert set(found.metrics) == set(expected.metrics)
        return
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert found.metrics == {part: pytest.approx(each, nan_ok=True) for part, each in expected.metrics.items()}
    assert bool(found.metrics) == (new > found.trained.task.ahead)


def test_a_series_without_a_new_price_waits(there: Trained, tmp_path: Path) -> None:
    run, state, table = there.runs["forecast"], tmp_path / "state", walks(403)
    table.loc[400, "B"] = np.nan
    table.iloc[:400].to_csv(tmp_path / "old.csv", index=False)
    table.iloc[400:401].to_csv(tmp_path / "one.csv", index=False)
    table.iloc[401:].to_csv(tmp_path / "then.csv", index=False)
    tbptt.predict(run, tmp_path / "old.csv", state=state)
    found = [tbptt.predict(run, tmp_path / f"{name}.csv", state=state) for name in ("one", "then")]
    assert found[0]["series"].tolist() == ["A"]
    whole = tbptt.predict(run, table.drop(index=400))
    own = whole[(whole["series"] == "B") & (whole["time"] > table["Date"][400])]
    np.testing.assert_allclose(found[1][found[1]["series"] == "B"]["h1"], own["h1"], atol=1e-5)
    with pytest.raises(ValueError, match="a series needs at least 2"):
        tbptt.predict(run, tmp_path / "one.csv")


def test_the_state_is_kept_last(
    there: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("tbptt.serving.picture.draw", fails)
    words = ["data.path=grown.csv", "--state", str(tmp_path / "s"), "--out", str(tmp_path / "o.csv")]
    run = there.runs["forecast"]
    assert main([run, *words, "--picture", str(tmp_path / "p.png")], CONF) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv"]
    assert main([run, *words], CONF) == 2
    assert "o.csv is there already; --force replaces it" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    assert main([run, *words, "--force"], CONF) == 0
    assert (tmp_path / "s").exists()
    kept = (tmp_path / "o.csv").read_bytes()
    assert len(kept.splitlines()) == 1 + 2 * (450 - 8)
    assert main([run, *words, "--force"], CONF) == 0
    assert f"no new rows; {tmp_path}/o.csv stays as it is\n" in capsys.readouterr().out
    assert (tmp_path / "o.csv").read_bytes() == kept


def test_a_hole_between_state_and_file_is_told(there: Trained, tmp_path: Path) -> None:
    run, state = there.runs["forecast"], tmp_path / "state"
    tbptt.predict(run, walks(400), state=state)
    said = [
        [note for note in predicted(find(run), data, state=state).notes if "hole" in note]
        for data in (walks(401), walks(402)[400:], walks(450)[406:], walks(450)[406:407])
    ]
    assert said[:2] == [[], []]
    for (line,) in said[2:]:
        assert line.startswith("a hole between the state and the new rows, 2021-07-13T00:00:00 to 2021-07-22T00:00:00:")
        assert "9 days, and rows are usually 1 day apart (3 days at most); rows may be missing" in line


def test_too_few_prices_are_told(there: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walks(8).to_csv(tmp_path / "few.csv", index=False)
    assert main([there.runs["forecast"], f"data.path={tmp_path}/few.csv"], CONF) == 0
    printed = capsys.readouterr().out
    assert "steps: none, as data.window=8 asks for more than 8 prices of a series\n" in printed


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_shows_and_writes_what_python_has(
    there: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = there.runs["q_values"]
    words = ["data.path=grown.csv", "--last", "4"]
    for name in ("out.csv", "out.parquet"):
        assert main([run, *words, "--out", str(tmp_path / name), "--picture", str(tmp_path / "p.png")], CONF) == 0
    printed = capsys.readouterr().out
    assert "data: grown.csv, 450 rows, 2020-01-01 to 2021-09-21 by Date\n" in printed
    assert "data: predicts 2 series: A, B\n" in printed
    assert "that it was trained on, which say nothing of how good it is;" in printed
    assert "100 that are new to it\n" in printed
    table = tbptt.predict(run, "grown.csv")
    assert printed.count("2021-09-21") >= 2
    assert "2021-09-17" not in printed.split("steps:")[1]
    metrics = predicted(find(run), "grown.csv").metrics["new"]
    assert f"new: loss {metrics['loss']:.4g}, mae {metrics['mae']:.4g}," in printed
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), table, check_dtype=False)
    read = pd.read_csv(tmp_path / "out.csv", parse_dates=["time"])
    pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-12)
    png = (tmp_path / "p.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(png[16:20], "big") == 1200
    assert not list(tmp_path.glob(".*"))


def test_a_study_is_its_best_trial_and_that_is_said(there: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    from studies import made_study, made_trial

    trials = [made_trial(values=[0.5], run_ids=[there.runs["forecast"]])]
    made_study(trials, name="mine", tracking_uri=URI)
    assert main(["mine", "data.path=grown.csv"], CONF) == 0
    assert capsys.readouterr().out.startswith("study mine: trial 0, the only complete trial by val/loss (0.5); run ")


def test_wrong_words_are_told_at_once_and_nothing_is_written(
    there: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = there.runs["q_values"]
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    wrong = ["data.paht=x", "data.header=z", "epochs=3", "foo", "--last", "0", "--out", str(tmp_path / "link.csv")]
    assert main([run, *wrong, "--picture", str(tmp_path / "no" / "p.png")], CONF) == 2
    assert capsys.readouterr().err.splitlines() == [
        "foo: takes KEY=VALUE",
        "epochs: nothing is trained here; takes keys that say how data are read (data.path, data.reading, "
        "data.delimiter, …), device, tracking.uri, study.storage",
        f"--out: {tmp_path}/link.csv is a link, and nothing is written there; takes another path",
        f"--picture: there is no folder {tmp_path}/no",
        "--last: got 0; takes a whole number from 1",
        "data.paht: unknown key; did you mean data.path?",
        "data.header: got 'z'; takes a whole number from 0 to 10, or null",
    ]
    for words, says in (
        ([], "usage: python predict.py RUN|STUDY|"),
        (["nothing"], "got 'nothing': "),
        (["0" * 32], f"run {'0' * 32} in "),
        ([run, "data.path=none.csv"], "none.csv"),
        ([run, "--out", "x.txt"], "--out: got 'x.txt'; takes a file that ends in .csv or .parquet"),
        ([run, "all.csv"], "all.csv: takes KEY=VALUE; a file to predict on is data.path=all.csv"),
        ([run, "data.window=8"], "data.window: the run fixes it, as nothing is trained here; takes keys that say how"),
        ([run, "--force"], "--force: is about the table at --out"),
        ([run, "--state", "first.csv"], "state: got 'first.csv', which is no file that --state has written"),
        ([run, "--which", "worst"], "argument --which: invalid choice"),
        ([run, "--stream", "data.path=grown.csv", "--last", "3"], "--last: has no effect with --stream"),
        ([run, "--on-error", "skip"], "--on-error: is about the rows of a stream"),
    ):
        assert main(words, CONF) == 2
        error = capsys.readouterr().err
        assert says in error
        assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, list[str]]]]:
    """Of each picture that is written: the name of each series, and the words about parts above it."""
    pictures: list[list[tuple[str, list[str]]]] = []
    saved = Figure.savefig

    def seen(figure: Figure, *given: Any, **more: Any) -> None:
        for_each = [(axes.get_title(loc="left"), axes.texts) for axes in figure.axes[::2]]
        pictures.append([(name, [text.get_text().strip() for text in texts]) for name, texts in for_each])
        saved(figure, *given, **more)

    monkeypatch.setattr(Figure, "savefig", seen)
    return pictures


def test_a_picture_begins_with_series_that_were_not_trained_on(
    there: Trained, tmp_path: Path, drawn: list[list[tuple[str, list[str]]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the seven series of a run on the article's process, six have room."""
    assert main([there.runs["article"], "--picture", str(tmp_path / "p.png")], CONF) == 0
    parts = {"test": "test: judged by", "val": "val: chosen by", "train": "train: trained on"}
    expected = [*("test 0", "test 1", "val 0", "val 1"), *("train 0", "train 1")]
    assert drawn == [[(name, [parts[name.split()[0]]]) for name in expected]]
    assert "without 1 more series" in capsys.readouterr().out


def test_a_picture_of_a_file_has_its_series_in_the_files_order_and_each_part_where_it_begins(
    there: Trained, tmp_path: Path, drawn: list[list[tuple[str, list[str]]]]
) -> None:
    words = [there.runs["q_values"], "data.path=grown.csv", "--picture", str(tmp_path / "p.png")]
    assert main(words, CONF) == 0
    parts = ["train: trained on", "val: chosen by", "test: judged by", "new"]
    assert drawn == [[("A", parts), ("B", parts)]]


def test_a_series_that_ended_while_it_was_trained_on_is_drawn_last(
    tmp_path: Path, drawn: list[list[tuple[str, list[str]]]]
) -> None:
    parts = {"old": ["train"] * 3, "whole": ["train", "val", "test"], "other": [""] * 3, "late": ["val"] * 3}
    rows = [
        {"row": i, "series": name, "part": part, "price": 100.0 + i, "change": 0.1}
        for i in range(3)
        for name, part in ((name, each[i]) for name, each in parts.items())
    ]
    assert draw(pd.DataFrame(rows), ["change"], "price units", "parts", tmp_path / "p.png") == []
    (picture,) = drawn
    assert [name for name, _ in picture] == ["whole", "late", "other", "old"]
    assert picture[2][1] == []


def test_names_of_a_file_cannot_command_a_terminal(
    there: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = walks(60).rename(columns={"A": "A\x1b[2J$x$", "B": "<b>"})
    table.to_csv(tmp_path / "hostile.csv", index=False)
    picture = tmp_path / "p.png"
    assert main([there.runs["article"], f"data.path={tmp_path}/hostile.csv", "--picture", str(picture)], CONF) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "A?[2J$x$" in printed
    assert picture.stat().st_size > 10_000


def test_help_needs_no_torch() -> None:
    code = "import sys; from tbptt.cli.predict import main; main(['--help'], '.'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "--stream" in done.stdout


def test_a_frame_is_the_same_as_the_file_of_its_rows(there: Trained) -> None:
    run, frame = there.runs["forecast"], walks(450)
    expected = tbptt.predict(run, "grown.csv")
    texts = frame.assign(Date=frame["Date"].dt.strftime("%Y-%m-%d"))
    for given in (texts, texts.set_index("Date"), frame.set_index("Date"), texts.set_index("Date").rename_axis(None)):
        pd.testing.assert_frame_equal(tbptt.predict(run, given), expected, check_dtype=False)
    for given in (texts, frame):
        with pytest.raises(ValueError, match=r"^data.*2021-09-21"):
            tbptt.predict(run, pd.concat([given, given.iloc[-1:]]))
    columns = ["series", "part", "price", "h1", "h10"]
    prices = frame[["A", "B"]].to_numpy().T
    for array in (prices, torch.tensor(prices), prices.tolist()):
        pd.testing.assert_frame_equal(tbptt.predict(run, array)[columns], expected[columns])
    for wrong, says in (
        (prices.T, r"got an array \(450, 2\); takes \(2, prices\), of A, B"),
        (["a"], "got a list that"),
    ):
        with pytest.raises(ValueError, match=f"^data: {says}"):
            tbptt.predict(run, wrong)


def test_python_says_what_it_takes(there: Trained) -> None:
    for what in (None, ""):
        with pytest.raises(ValueError, match=f"^got {what!r} as what to load; takes a run's id, "):
            tbptt.load_run(what)  # type: ignore[arg-type]
    _, scaler, config = tbptt.load_run(there.runs["forecast"])
    with pytest.raises(ValueError, match=r"take numbers alone: got columns Date \("):
        tbptt.inputs(walks(60), scaler, config)
    q = np.random.default_rng(1).normal(size=(2, 30, 2))
    found = tbptt.sides(q, 0.3, held=np.array([True, False]))
    assert torch.equal(found, tbptt.sides(torch.tensor(q), 0.3, held=torch.tensor([True, False])))


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_inputs_take_numpy_pandas_and_torch(there: Trained) -> None:
    _, scaler, config = tbptt.load_run(there.runs["forecast"])
    frame = walks(60)[["A", "B"]]
    expected = tbptt.inputs(torch.from_numpy(frame.to_numpy().T.copy()), scaler, config)
    for prices in (frame, frame.to_numpy().T, frame.astype("Float64"), torch.tensor(frame.to_numpy().T)):
        assert torch.equal(tbptt.inputs(prices, scaler, config), expected)
    one = scaler.of_series(torch.tensor([1]))
    assert torch.equal(tbptt.inputs(frame["B"], one, config), expected[1:])


def test_checkpoints_say_where_the_parts_begin(there: Trained) -> None:
    content = find(there.runs["q_values"]).content
    assert content["borders"]["at"].tolist() == [[0, 240, 320, 320, 400]] * 2
    dates = walks(400)["Date"].to_numpy().astype("datetime64[us]").astype(int)
    expected = [*dates[[0, 240, 320, 320]], dates[-1] + 1]
    assert content["borders"]["times"].tolist() == [expected] * 2
    assert find(there.runs["article"]).content["borders"] is None
    np.testing.assert_allclose(content["change_std"], [walks(240)[name].diff().std(ddof=0) for name in "AB"], rtol=1e-9)
