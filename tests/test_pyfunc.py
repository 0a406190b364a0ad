"""A run's model in MLflow: it is there, and gives the numbers of the network itself."""

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import CONF, ROOT, SMALL
from forked import python
from hydra import initialize_config_dir
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig
from test_outbox import free_port

import tbptt
from tbptt.config.compose import ConfigSource
from tbptt.config.schema import register
from tbptt.runs import checkpoint, model_files
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit
from tbptt.runs.model import CHECKPOINT, write
from tbptt.serving.pyfunc import packed, unpacked

LITTLE = [w for w in SMALL if not w.startswith("data.") or w.startswith("data.window")]
WIDE = ["data=prices", "data.path=prices.csv", "data.columns=[a,b]", "data.inputs=[volume:log1p,rate:change]"]
WIDE += ["data.time=none", "data.test_fraction=0.2", "data.warm_steps=10", "data.gaps=drop"]


def composed(*words: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return ConfigSource(CONF).compose(words)


class Made(NamedTuple):
    folder: Path
    shared: str  # the run of series that share a scale
    wide: str  # of two series with two other inputs

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/mlruns/mlflow.db")

    def model_of(self, run: str) -> Path:
        (output,) = self.client.get_run(run).outputs.model_outputs
        return self.folder / "mlruns" / "artifacts" / "models" / output.model_id / "artifacts"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/mlflow.db"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    table = {name: 50 + size * random.standard_normal(300).cumsum() for name, size in (("a", 1.0), ("b", 5.0))}
    table |= {"volume": random.integers(10, 1000, 300).astype(float), "rate": random.standard_normal(300).cumsum()}
    frame = pd.DataFrame(table)
    frame.loc[40, "volume"] = np.nan
    frame.loc[[60, 61], "b"] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        frame.to_csv("prices.csv", index=False)
        shared = fit(composed(*SMALL, "task.fee=0.001"))
        wide = fit(composed(*LITTLE, *WIDE, "task.fee=0.001"))
        yield Made(folder, shared.run_id, wide.run_id)


def loaded(folder: Path) -> Any:
    return mlflow.pyfunc.load_model(str(folder))


def walk(steps: int, seed: int = 5) -> np.ndarray:
    return np.asarray(100 + np.random.default_rng(seed).standard_normal(steps).cumsum())


def expected(made: Made, run: str, prices: np.ndarray, extra: np.ndarray | None = None) -> tuple[Any, Any]:
    """(B, T, O) predictions and (B, T) sides, by the network itself; the first step is the W-th."""
    network, scaler, config = tbptt.load_run(run, made.uri)
    with torch.no_grad():
        x = tbptt.inputs(prices, scaler, config, extra)
        y = network(x, network.zero_state(len(prices)))[0]
    q = scaler.to_price_units(y.double())
    return q.numpy(), tbptt.sides(q, scaler.fee).numpy()


def test_a_model_gives_the_numbers_of_the_network(made: Made) -> None:
    model = loaded(made.model_of(made.shared))
    prices = walk(200)
    found = model.predict(pd.DataFrame({"price": prices}))
    q, long = expected(made, made.shared, prices[None])
    assert list(found) == ["price.buy", "price.sell", "price.side"]
    assert found[:8].isna().all(axis=None)
    np.testing.assert_allclose(found[8:].to_numpy()[:, :2], q[0], atol=1e-5)
    assert (found["price.side"][8:] == np.where(long[0], 1, -1)).all()


def test_blocks_with_the_state_carried_give_the_numbers_of_one_go(made: Made) -> None:
    model = loaded(made.model_of(made.shared))
    table = pd.DataFrame({"price": walk(100)})
    whole, parts, state = model.predict(table), [], ""
    for begin, end in ((0, 3), (3, 50), (50, 51), (51, 100)):
        part = model.predict(table[begin:end], params={"state": state, "return_state": True})
        assert part["state"][:-1].isna().all()
        state = part.pop("state").iloc[-1]
        parts.append(part)
    pd.testing.assert_frame_equal(pd.concat(parts), whole, atol=1e-5, rtol=0, check_frame_type=False)


def test_rows_of_several_series_that_share_a_scale(made: Made) -> None:
    """Each row names its series; one that comes later begins then, and one that is silent for a while goes on."""
    model = loaded(made.model_of(made.shared))
    x, y = walk(60, 1), walk(40, 2)
    rows = pd.DataFrame({"price": [*x[:30], *y[:20]], "series": [*["x"] * 30, *["y"] * 20]}).sample(
        30 + 20, random_state=0
    )
    rows = rows.sort_index(kind="stable")
    first = model.predict(rows, params={"return_state": True})
    middle = model.predict(
        pd.DataFrame({"price": x[30:], "series": "x"}), params={"state": first["state"].iloc[-1], "return_state": True}
    )
    last = model.predict(pd.DataFrame({"price": y[20:], "series": "y"}), params={"state": middle["state"].iloc[-1]})
    of_x = np.concatenate([first["price.buy"][:30], middle["price.buy"]])
    of_y = np.concatenate([first["price.buy"][30:], last["price.buy"]])
    for found, prices in ((of_x, x), (of_y, y)):
        np.testing.assert_allclose(found[8:], expected(made, made.shared, prices[None])[0][0, :, 0], atol=1e-5)


def test_series_with_a_scale_each_and_other_inputs(made: Made) -> None:
    """By their names, in any order of the columns; inputs as the file has them, in their forms as training had them."""
    model = loaded(made.model_of(made.wide))
    table = pd.read_csv(made.folder / "prices.csv")
    shuffled = table[["volume", "b", "rate", "a"]]
    found = model.predict(shuffled)
    assert list(found) == [f"{name}.{output}" for name in "ab" for output in ("buy", "sell", "side")]
    panel = tbptt.panel(made.wide, made.folder / "prices.csv", made.uri)
    network, scaler, config = tbptt.load_run(made.wide, made.uri)
    for i, (name, series) in enumerate(panel.series.items()):
        own = scaler.of_series(torch.tensor([i]))
        x = tbptt.inputs(series.prices[None], own, config, series.inputs[None])
        with torch.no_grad():
            q = own.to_price_units(network(x, network.zero_state(1))[0].double())[0].numpy()
        rows = found.loc[series.rows, [f"{name}.buy", f"{name}.sell"]].to_numpy()
        np.testing.assert_allclose(rows[8:], q, atol=1e-4)
    assert found.loc[[60, 61], "b.buy"].isna().all()
    parts, state = [], ""
    for begin, end in ((0, 41), (41, 61), (61, 300)):  # between are a missing volume and missing prices
        part = model.predict(table[begin:end], params={"state": state, "return_state": True})
        state = part.pop("state").iloc[-1]
        parts.append(part)
    pd.testing.assert_frame_equal(pd.concat(parts), found, atol=1e-4, rtol=0, check_frame_type=False)
    own_volume = table.rename(columns={"volume": "a.volume"}).assign(**{"b.volume": table["volume"]})
    pd.testing.assert_frame_equal(model.predict(own_volume), found)


def test_any_columns_are_series_of_a_shared_scale(made: Made) -> None:
    """Where no signature of MLflow stands before it."""
    model = loaded(made.model_of(made.shared))._model_impl
    prices = np.stack([walk(50, 1), walk(50, 2)])
    found = model.predict(pd.DataFrame({"x": prices[0], "other one": prices[1]}))
    q, _ = expected(made, made.shared, prices)
    np.testing.assert_allclose(found[["x.sell", "other one.sell"]][8:].to_numpy(), q[..., 1].T, atol=1e-5)


def test_signature_and_example(made: Made) -> None:
    shared, wide = (loaded(made.model_of(run)) for run in (made.shared, made.wide))
    inputs = {each.name: each.required for each in wide.metadata.get_input_schema().inputs}
    of_one = dict.fromkeys(["a.volume", "b.volume", "a.rate", "b.rate", "volume", "rate"], False)
    assert inputs == {"a": True, "b": True, **of_one}
    assert {p.name: p.default for p in shared.metadata.get_params_schema().params} == {
        "state": "",
        "return_state": False,
    }
    for model in (shared, wide):
        found = model.predict(model.input_example)
        out = {each.name for each in model.metadata.get_output_schema().inputs if each.required}
        assert set(found) == out
        assert found.notna().all(axis=1).sum() == 3
        assert len(found) == 8 + 3


def test_what_a_model_cannot_take_is_one_line(made: Made) -> None:
    model, other = (loaded(made.model_of(run))._model_impl for run in (made.wide, made.shared))
    table = pd.read_csv(made.folder / "prices.csv")
    with pytest.raises(ValueError, match=r"^no column b; takes the prices of a, b$"):
        model.predict(table.drop(columns="b"))
    with pytest.raises(ValueError, match=r"^no column rate, which is an input of the network$"):
        model.predict(table.drop(columns="rate"))
    with pytest.raises(ValueError, match=r"^column a: .*; takes numbers$"):
        model.predict(table.astype(object).assign(a="x"))
    state = model.predict(table, {"return_state": True})["state"].iloc[-1]
    with pytest.raises(ValueError, match=r"^state: is of other series$"):
        other.predict(pd.DataFrame({"x": walk(9)}), {"state": state})
    days = pd.date_range("2026-01-01", periods=9)
    for column, kind in ((days, "dates"), (days.tz_localize("UTC"), "dates"), ([True] * 9, "true and false")):
        with pytest.raises(ValueError, match=rf"^column when: holds {kind}; takes numbers$"):
            other.predict(pd.DataFrame({"when": column, "x": walk(9)}))
    with pytest.raises(ValueError, match=r"^column when: .*; takes numbers$"):
        other.predict(pd.DataFrame({"when": [str(day) for day in days], "x": walk(9)}))


def test_a_state_of_other_series_is_refused_by_rows_too(made: Made) -> None:
    """Not that of a new name beside a known one: such a series begins."""
    model = loaded(made.model_of(made.shared))._model_impl

    def state_of(table: dict[str, Any], state: str = "") -> str:
        found = model.predict(pd.DataFrame(table), {"state": state, "return_state": True})
        return str(found["state"].iloc[-1])

    rows = {"price": walk(9)}
    wrong = (
        (rows, state_of({"x": walk(9), "y": walk(9)})),  # of two series in step
        ({**rows, "series": "x"}, state_of({"x": walk(9), "y": walk(9)})),
        (rows, state_of({**rows, "series": "x"})),  # the column of names is forgotten
        ({**rows, "series": "x"}, state_of(rows)),
    )
    for table, state in wrong:
        with pytest.raises(ValueError, match=r"^state: is of other series$"):
            state_of(table, state)
    of_both = state_of({**rows, "series": "y"}, state_of({**rows, "series": "x"}))
    assert [part["series"] for part in unpacked(of_both)] == [["x"], ["y"]]


def test_a_servers_answer_to_a_mistake_is_its_line(made: Made) -> None:
    from mlflow.pyfunc.scoring_server import invocations

    model = loaded(made.model_of(made.wide))
    table = pd.read_csv(made.folder / "prices.csv")[:12].dropna()
    for frame, params, line in (
        (table, {"state": "zz"}, "state: is none that this model gave, or was cut short"),
        (table.drop(columns="rate"), {}, "no column rate, which is an input of the network"),
    ):
        body = json.dumps({"dataframe_split": frame.to_dict("split", index=False), "params": params})
        with pytest.raises(MlflowException) as caught:
            invocations(body, "application/json", model, model.metadata.get_input_schema())
        assert caught.value.get_http_status_code() == 400
        assert json.loads(caught.value.serialize_as_json())["error_code"] == "INVALID_PARAMETER_VALUE"
        assert caught.value.message.endswith(f"Error: {line}")


def test_a_folder_whose_files_fail_is_not_looked_at_again(here: Path) -> None:
    from tbptt import own
    from tbptt.options.own import load_own
    from tbptt.serving.pyfunc import use_own

    bad = here / "model" / "own"
    bad.mkdir(parents=True)
    (bad / "fails_at_once.py").write_text("1 / 0\n")
    before = list(own.of_models)
    with pytest.raises(ValueError, match=r"fails_at_once\.py: ZeroDivisionError"):
        use_own(bad)
    assert own.of_models == before
    load_own()


def test_a_later_model_is_what_mlflow_would_have_written(made: Made, here: Path) -> None:
    """All files, but for the id and the time that each model has of its own; it loads and predicts."""
    for run, ids in ((made.shared, ("a" * 32, "m-1")), (made.wide, (None, None))):
        best = made.folder / "mlruns" / "artifacts" / run / "artifacts" / "checkpoints" / "best.ckpt"
        content = checkpoint.load(best)
        model_files._made.clear()
        write(content, here / run / "first", "b" * 32, "m-0")
        (kind,) = model_files._made
        write(content, here / run / "later", *ids)
        write({**content, "series": content["series"]}, here / run / "last", *ids)
        assert [*model_files._made] == [kind]
        model_files._made.clear()
        by_mlflow = write(content, here / run / "mlflow", *ids)
        for name in ("later", "last"):
            folder = here / run / name
            files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
            assert files == [path.relative_to(by_mlflow) for path in sorted(by_mlflow.rglob("*")) if path.is_file()]
            said, expected = (yaml.safe_load((each / "MLmodel").read_text()) for each in (folder, by_mlflow))
            own = [(each.pop("model_uuid"), each.pop("utc_time_created")) for each in (said, expected)]
            assert list(said.items()) == list(expected.items())
            assert len({*own[0], *own[1]}) == 4
            assert [len(each) for each in own[0]] == [len(each) for each in own[1]]
            for file in files:
                assert file.name == "MLmodel" or (folder / file).read_bytes() == (by_mlflow / file).read_bytes()
        table = pd.read_csv(made.folder / "prices.csv")[70:90].assign(price=walk(20))
        columns = list(loaded(by_mlflow).metadata.get_input_schema().input_names())
        table = table[[name for name in columns if name in table]]
        pd.testing.assert_frame_equal(loaded(folder).predict(table), loaded(by_mlflow).predict(table))


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was_run"),))


def test_a_state_from_others_is_data(made: Made, here: Path) -> None:
    model = loaded(made.model_of(made.shared))._model_impl
    table = pd.DataFrame({"price": walk(20)})
    given = model.predict(table, {"return_state": True})["state"].iloc[-1]
    pickled = io.BytesIO()
    torch.save({"parts": [Evil()]}, pickled)
    for text in ("no base64!", "abcd", base64.b64encode(pickled.getvalue()).decode(), given[: len(given) // 8 * 4]):
        with pytest.raises(ValueError, match=r"^state: is none that this model gave, or was cut short$"):
            model.predict(table, {"state": text})
    assert not Path("was_run").exists()
    (part,) = unpacked(given)
    for change in ({"seen": -part["predictor"]["seen"]}, {"side": part["predictor"]["side"] * 0 + 9}):
        wrong = packed([{**part, "predictor": {**part["predictor"], **change}}])
        with pytest.raises(ValueError, match=r"^state: holds numbers that no state has"):
            model.predict(table.assign(series=""), {"state": wrong})
    with pytest.raises(ValueError, match=r"^state: has 67,108,868 characters; takes at most"):
        model.predict(table, {"state": "AAAA" * (2**24 + 1)})


def test_a_model_holds_the_best_epoch_and_nothing_pickled(made: Made) -> None:
    folder = made.model_of(made.shared)
    network, _, _ = tbptt.load_run(made.shared, made.uri)
    from_it, _, config = tbptt.load_run(folder / CHECKPOINT)
    for name, value in network.state_dict().items():
        assert torch.equal(value, from_it.state_dict()[name])
    assert config.data.window == 8
    run = made.folder / "mlruns" / "artifacts" / made.shared / "artifacts" / "checkpoints" / "best.ckpt"
    assert (folder / CHECKPOINT).stat().st_size < 0.7 * run.stat().st_size
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    ours = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", CHECKPOINT}
    assert names == ours | {"input_example.json", "serving_input_example.json"}
    needed = (folder / "requirements.txt").read_text().splitlines()
    assert f"torch=={torch.__version__.split('+')[0]}" in needed
    assert not [line for line in needed if line.startswith("tbptt")]  # on PyPI that name is not ours
    text = "".join((folder / name).read_text() for name in names - {CHECKPOINT})
    assert str(made.folder) not in text
    assert str(ROOT) not in text


def test_the_runs_page_shows_the_model_with_its_metrics(made: Made) -> None:
    client = made.client
    run = client.get_run(made.shared)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert output.step + 1 == run.data.metrics["best/epoch"]
    assert model.name == f"best-epoch-{output.step + 1}"
    assert (model.status, model.source_run_id) == ("READY", made.shared)
    assert {m.key: m.value for m in model.metrics}["best/val/loss"] == run.data.metrics["best/val/loss"]


def models(client: MlflowClient, run: str) -> list[str]:
    """Of a run, the oldest first."""
    outputs = client.get_run(run).outputs
    assert outputs is not None
    found = [client.get_logged_model(o.model_id) for o in outputs.model_outputs]
    return [m.name for m in sorted(found, key=lambda m: m.creation_timestamp)]


def test_a_run_that_trains_on_has_one_model_for_each_best(here: Path, small: Callable[..., DictConfig]) -> None:
    first = fit(small("epochs=2", "optimizer.lr=0.001", "schedule.patience=null"))
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    epochs = [first.best.epoch]
    for count in (4, 4):
        more = fit(
            small(f"epochs={count}", "optimizer.lr=0.001", "schedule.patience=null"), RunContext(resume=first.run_id)
        )
        epochs.append(more.best.epoch)
    assert epochs[0] != epochs[1]
    assert models(client, first.run_id) == [
        f"best-epoch-{epoch + 1}" for epoch in dict.fromkeys(epochs) if epoch is not None
    ]


def test_a_run_without_an_end_of_its_own_has_no_model(here: Path, small: Callable[..., DictConfig]) -> None:
    pruned = fit(small(), RunContext(after_epoch=lambda epoch: epoch.number == 1))
    assert pruned.stop_reason == "pruned"
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    assert not client.search_logged_models(["1"])
    diverged = fit(small("optimizer=sgd", "optimizer.lr=1e18", "clip=null"))
    assert diverged.stop_reason == "diverged"
    has_best = diverged.best.epoch is not None
    assert len(client.search_logged_models(["1"])) == int(has_best)


def test_a_model_that_cannot_be_made_is_one_warning(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise MlflowException("no room\nfor it")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", full)
    result = fit(small())
    (line,) = [record.message for record in caplog.records if "model" in record.message]
    assert line == f"run {result.run_id}: its best epoch is not among MLflow's models: no room"
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert not client.search_logged_models(["1"])


def test_models_move_with_their_project(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tbptt.serving.registry import register as register_model
    from tbptt.serving.source import find

    before, after = here / "before", here / "after"
    before.mkdir()
    monkeypatch.chdir(before)
    result = fit(small())
    register_model(find(result.run_id), "N", None, None)
    monkeypatch.chdir(here)
    before.rename(after)
    monkeypatch.chdir(after)
    assert find("models:/N/1").run_id == result.run_id  # before anything has corrected the places
    fit(small("epochs=1"))
    client = MlflowClient(f"sqlite:///{after}/mlruns/mlflow.db")
    (output,) = client.get_run(result.run_id).outputs.model_outputs
    place = client.get_logged_model(output.model_id).artifact_location
    assert place == (after / "mlruns" / "artifacts" / "models" / output.model_id / "artifacts").as_uri()
    assert client.get_model_version_download_uri("N", "1") == place


# --- served ---------------------------------------------------------------------------------------------------------


def asked(port: int, **body: Any) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read(), parse_constant=pytest.fail)["predictions"]
    return found


@pytest.mark.slow  # a server starts; .ci/run runs it
def test_mlflow_serves_a_model(made: Made, tmp_path: Path) -> None:
    """From a folder with nothing in it, as the same numbers, with and without a state."""
    port = free_port()
    words = ["models", "serve", "-m", str(made.model_of(made.shared)), "--env-manager", "local", "-p", str(port)]
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PATH": commands}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "-h", "127.0.0.1"],
            cwd=tmp_path,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as server,
    ):
        try:
            deadline = time.monotonic() + 120
            while True:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                assert server.poll() is None, (tmp_path / "log").read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ping").close()
                    break
                except OSError:
                    time.sleep(0.2)
            prices = walk(40)
            q, long = expected(made, made.shared, prices[None])
            rows = [[price] for price in prices]
            found = asked(port, dataframe_split={"columns": ["price"], "data": rows})
            assert [row["price.buy"] for row in found[:8]] == [None] * 8
            np.testing.assert_allclose([[r["price.buy"], r["price.sell"]] for r in found[8:]], q[0], atol=1e-5)
            assert [row["price.side"] for row in found[8:]] == np.where(long[0], 1, -1).tolist()
            records = [{"price": price} for price in prices]
            first = asked(port, dataframe_records=records[:25], params={"return_state": True})
            then = asked(port, dataframe_records=records[25:], params={"state": first[-1]["state"]})
            np.testing.assert_allclose([r["price.sell"] for r in (first + then)[8:]], q[0, :, 1], atol=1e-5)
            with pytest.raises(urllib.error.HTTPError) as caught:
                asked(port, dataframe_records=records, params={"state": "AAAA"})
            assert caught.value.code == 400
            assert b"state: is none that this model gave" in caught.value.read()
            caught.value.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)


OWN_TASK = """
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from tbptt.extend import TaskConfig
from tbptt.own.helper import NAMES

Path("own_was_run").touch()

@dataclass
class Mine(TaskConfig, options=["mine"]):
    outputs = 1
    ahead = 1
    output_names = NAMES

    def targets(self, prices, change_std):
        return np.diff(prices)[:, :, None]
"""
USE = """
import pathlib, sys, mlflow.pyfunc, pandas as pd, tbptt
try:
    tbptt.load_run(sys.argv[1] + "/data/tbptt/model.ckpt")
except ValueError as error:
    print(error, pathlib.Path("own_was_run").exists())
try:
    model = mlflow.pyfunc.load_model(sys.argv[1])
except ValueError as error:
    print(error)
    sys.exit()
found = model.predict(pd.DataFrame({"price": [100.0 + i % 3 for i in range(12)]}))
print(list(found), int(found.notna().all(axis=1).sum()))
"""


def test_the_users_own_files_travel_with_a_model_and_only_mlflow_runs_them(tmp_path: Path) -> None:
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    (mine / "own").mkdir(parents=True)
    (mine / "more" / "task").mkdir(parents=True)
    elsewhere.mkdir()
    (mine / "own" / "mine.py").write_text(OWN_TASK)
    (mine / "own" / "helper.py").write_text('NAMES = ["step"]\n')
    (mine / "own" / "no_part_of_it.py").write_text("")
    (mine / "more" / "task" / "mine.yaml").write_text("defaults: [{/schema/task@_here_: mine}, _self_]\nname: mine\n")

    def ran(*words: str, cwd: Path) -> str:
        done = python(*words, cwd=cwd, path=str(ROOT / "src"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = [word for word in SMALL if not word.startswith("task.")]
    ran(str(ROOT / "train.py"), "--config-dir", "more", "task=mine", *small, cwd=mine)
    (model,) = (mine / "mlruns" / "artifacts" / "models").glob("*/artifacts")
    assert sorted(p.name for p in (model / "data" / "tbptt" / "own").iterdir()) == ["helper.py", "mine.py"]
    ours, theirs = ran("-c", USE, str(model), cwd=elsewhere).splitlines()
    takes = "takes one of q_values, forecast, or the file in own/ that brings it"
    assert ours == f"a config that is none of tbptt's: task: got 'mine'; {takes} False"
    assert theirs == "['price.step'] 4"
    assert (elsewhere / "own_was_run").exists()
    (elsewhere / "own").mkdir()
    (elsewhere / "own" / "helper.py").write_text('NAMES = ["another"]\n')
    said = ran("-c", USE, str(model), cwd=elsewhere).splitlines()[-1]
    assert said == "the model came with own/helper.py, and this process uses another file of that name already"
