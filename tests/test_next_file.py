"""A run with other inputs, from training to predictions on the next file of the same shape."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import CONF
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from test_docs import blocks

import tbptt
from tbptt.cli.command_line import checked
from tbptt.config.checks import problems
from tbptt.config.compose import ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.data.panel import Panel, Series
from tbptt.data.panels import panel_file
from tbptt.runs import checkpoint
from tbptt.runs.contents import OF_A_RUN, is_scaler
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit
from tbptt.runs.resume import resume_problems
from tbptt.tasks.prepare import prepare

Compose = Callable[..., DictConfig]

INPUTS = ("volume", "signal")
WORDS = [
    *("data=prices", "data.path=first.csv", "data.reading=auto", "data.inputs=[signal,volume]", "data.input_window=2"),
    *("data.window=8", "data.warm_steps=20", "task.gamma=0.5", "model.dense=[]"),
    *("model.hidden=[4]", "schedule=fixed", "schedule.chunks=[5]", "epochs=2", "progress=none"),
]


def panel_of(names: str, rows: int, seed: int, inputs: tuple[str, ...] = INPUTS) -> Panel:
    """Series called by the letters of ``names``; some volumes are missing."""
    random = np.random.default_rng(seed)
    series = {}
    for i, name in enumerate(names):
        values = random.normal(1000, 10, (rows, len(inputs)))
        values[random.random(rows) < 0.1, 0] = np.nan
        series[name] = Series(100.0 * (i + 1) + random.normal(0, 1 + i, rows).cumsum(), np.arange(rows), values)
    return Panel(series, shared=True, inputs=inputs)


FILES: Mapping[str, Panel] = {
    "first.csv": panel_of("AB", 300, 0),
    "next.csv": panel_of("BCA", 120, 1, ("spread", *INPUTS)),  # another order, a new series and a new input
    "other.csv": panel_of("AXY", 120, 2),
    "no_signal.csv": panel_of("AB", 120, 3, ("volume",)),
    "one.csv": panel_of("A", 120, 4),
}


def read(path: str, data: Any) -> Panel:
    """What :data:`FILES` says of a file, whatever its format is."""
    return FILES[path]


@pytest.fixture
def files(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which these files can be read."""
    monkeypatch.setattr(panel_file, "panel_of_file", read)
    return here


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of a run on first.csv."""
    folder = tmp_path_factory.mktemp("trained")
    register()
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONF), version_base="1.3"):
        patch.setattr(panel_file, "panel_of_file", read)
        fit(compose("config", [*WORDS, f"tracking.uri=sqlite:///{folder}/mlflow.db"]))
    (found,) = folder.glob("artifacts/**/best.ckpt")
    return found


@pytest.fixture
def trained(best: Path, files: Path) -> Path:
    return best


def altered(path: Path, without: str = "", **changes: Any) -> Path:
    """A checkpoint with other content beside it."""
    content = {**checkpoint.load(path, OF_A_RUN), **changes}
    content.pop(without, None)
    other = path.with_name("altered.ckpt")
    checkpoint.save(other, content)
    return other


def stacked(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    every = panel.series.values()
    return np.stack([each.prices for each in every]), np.stack([each.inputs for each in every])


def test_inputs_of_the_runs_own_file_are_those_that_training_saw(trained: Path) -> None:
    _, scaler, cfg = tbptt.load_run(trained)
    prices, extra = stacked(tbptt.panel(trained))
    x = tbptt.inputs(prices, scaler, cfg, extra)
    found = prepare(cast(Any, OmegaConf.to_object(cfg.data)), cast(Any, OmegaConf.to_object(cfg.task)))
    assert x.shape == (2, 292, 8 + 2 * 2 * 2)
    assert torch.equal(x[:, : found.train.length], found.train.features(0, found.train.length))
    for part, prices_of in ((found.val, found.split.val), (found.test(), found.split.test)):
        assert part is not None
        first = int(np.flatnonzero(prices[0] == prices_of["A"][0])[0])  # the row of the part's look-back
        got, expected = x[:, first : first + part.length], part.features(0, part.length)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)  # prices are centred at another one
        assert torch.equal(got[..., 8:], expected[..., 8:])


def test_from_a_run_to_predictions_on_the_next_file(trained: Path) -> None:
    network, scaler, cfg = tbptt.load_run(trained)
    panel = tbptt.panel(trained, "next.csv")
    assert (list(panel.series), panel.inputs) == (["A", "B"], ("signal", "volume"))
    assert panel.findings.left_out == {"C": "no series of the run"}
    for name, each in panel.series.items():
        given = FILES["next.csv"].series[name]
        np.testing.assert_array_equal(each.prices, given.prices)
        np.testing.assert_array_equal(each.inputs, given.inputs[:, [2, 1]])
    prices, extra = stacked(panel)
    with torch.inference_mode():
        y, _ = network(tbptt.inputs(prices, scaler, cfg, extra), network.zero_state(batch=2))
        extra[:, 60:] += 5.0
        changed, _ = network(tbptt.inputs(prices, scaler, cfg, extra), network.zero_state(batch=2))
    assert y.shape == (2, 112, 2)
    assert torch.equal(y[:, :52], changed[:, :52])
    assert not torch.equal(y[:, 52], changed[:, 52])


def test_the_guides_example_predicts_on_the_next_file(trained: Path) -> None:
    (example,) = [code for code in blocks("docs/using.md", "python") if "tbptt.panel" in code]
    names: dict[str, Any] = {}
    exec(example.replace("sweeps/folds/best.ckpt", str(trained)).replace('"prices.csv"', '"next.csv"'), names)
    network, scaler, cfg = tbptt.load_run(trained)
    series = [FILES["next.csv"].series[name] for name in "AB"]
    prices, others = np.stack([s.prices for s in series]), np.stack([s.inputs[:, [2, 1]] for s in series])
    with torch.inference_mode():
        y, _ = network(tbptt.inputs(prices, scaler, cfg, others), network.zero_state(batch=2))
    assert torch.equal(names["q"], scaler.to_price_units(y))
    assert names["side"].shape == (2, 112)


def test_a_file_of_another_shape_is_refused_by_name(trained: Path) -> None:
    for path, says in {
        "other.csv": r"other.csv has no series B, on which .*best.ckpt was trained; new are X, Y",
        "one.csv": r"one.csv has no series B, on which .*best.ckpt was trained$",
        "no_signal.csv": r"no_signal.csv has no input signal, which .*best.ckpt sees \(it has: volume\)",
    }.items():
        with pytest.raises(ValueError, match=says):
            tbptt.panel(trained, path)


def test_series_are_found_though_the_next_file_writes_their_names_in_another_way(trained: Path) -> None:
    names_of = {"lower.csv": panel_of("ba", 120, 5), "both.csv": panel_of("Aab", 120, 6)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panel_file, "panel_of_file", lambda path, data: names_of[path])
        found = tbptt.panel(trained, "lower.csv")
        assert list(found.series) == ["A", "B"]
        for name in "AB":
            np.testing.assert_array_equal(found.series[name].prices, names_of["lower.csv"].series[name.lower()].prices)
        both = tbptt.panel(trained, "both.csv")
    np.testing.assert_array_equal(both.series["A"].prices, names_of["both.csv"].series["A"].prices)
    assert both.findings.left_out == {"a": "no series of the run"}


def test_a_file_that_gained_its_symbol_is_the_next_if_its_prices_are_in_the_runs_column(here: Path, best: Path) -> None:
    days = np.datetime_as_string(np.datetime64("2024-01-01") + np.arange(60))
    prices = np.round(100 + np.random.default_rng(8).normal(0, 1, 60).cumsum(), 4)
    for file, column in (("next.csv", "CLOSE"), ("other.csv", "Settle")):
        rows = [f"{day},ABC,{price}" for day, price in zip(days, prices, strict=True)]
        Path(file).write_text(f"Date,symbol,{column}\n" + "\n".join(rows))
    content = checkpoint.load(best)
    config = {**content["config"], "data": {**content["config"]["data"], "inputs": []}}
    scaler = {key: value[:1] if isinstance(value, torch.Tensor) else value for key, value in content["scaler"].items()}
    one = altered(best, series=["Close"], config=config, scaler=scaler)
    np.testing.assert_array_equal(tbptt.panel(one, "next.csv").series["Close"].prices, prices)
    with pytest.raises(ValueError, match=r"other.csv has no series Close, on which .*; new are ABC"):
        tbptt.panel(one, "other.csv")


def test_an_older_checkpoint_goes_by_its_columns_or_the_number_of_series(trained: Path) -> None:
    older = altered(trained, without="series")
    assert list(tbptt.panel(older).series) == ["A", "B"]
    with pytest.raises(ValueError, match=r"next.csv has 3 series, and .* was trained on 2: give it the same"):
        tbptt.panel(older, "next.csv")
    content = checkpoint.load(trained)["config"]
    older = altered(trained, without="series", config={**content, "data": {**content["data"], "columns": ["B", "A"]}})
    assert list(tbptt.panel(older, "next.csv").series) == ["B", "A"]


def test_data_without_a_file_are_said(trained: Path, small: Compose) -> None:
    fit(small("epochs=1", "tracking.uri=sqlite:///article/mlflow.db"))
    (article,) = Path("article").glob("artifacts/**/best.ckpt")
    with pytest.raises(ValueError, match="has data=article, whose series are held out whole and come from no source"):
        tbptt.panel(article)
    assert checkpoint.load(article)["series"] is None, "they share one scale"
    content = checkpoint.load(trained)["config"]
    data = {key: value for key, value in content["data"].items() if key in ("window", "features", "inputs")}
    market = altered(trained, config={**content, "data": {**data, "name": "market"}})
    with pytest.raises(ValueError, match=r"path: got next.csv; .* has data=market, which reads no path"):
        tbptt.panel(market, "next.csv")
    with pytest.raises(ValueError, match="its weights are not those of its model"):
        tbptt.load_run(market)  # without data.input_window=2 it has fewer inputs


def test_inputs_are_asked_for_where_the_run_has_them(trained: Path) -> None:
    _, scaler, cfg = tbptt.load_run(trained)
    prices, extra = stacked(tbptt.panel(trained))
    takes = r"takes \(2, 300, 2\), signal, volume beside each price"
    for wrong, got in ((None, "None"), (extra[:, 1:], r"\(2, 299, 2\)"), (extra[..., :1], r"\(2, 300, 1\)")):
        with pytest.raises(ValueError, match=f"extra: got {got}; {takes}"):
            tbptt.inputs(prices, scaler, cfg, wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (prices, extra):
            array.flags.writeable = False  # as those of a panel are
        as_arrays = tbptt.inputs(prices, scaler, cfg, extra)
    assert torch.equal(as_arrays, tbptt.inputs(torch.tensor(prices), scaler, cfg, torch.tensor(extra)))
    cfg.data.inputs = []
    plain = replace(scaler, extra_mean=None, extra_std=None)
    with pytest.raises(ValueError, match=r"extra: got \(2, 300, 2\); takes \(2, 300, 0\), as the run has no other inp"):
        tbptt.inputs(prices, plain, cfg, extra)
    assert torch.equal(tbptt.inputs(prices, plain, cfg), tbptt.inputs(torch.tensor(prices), plain, cfg, extra[..., :0]))


def test_a_resumed_run_equals_one_that_was_never_stopped(files: Path, config: Compose) -> None:
    whole, stopped = config(*WORDS, "epochs=4"), config(*WORDS, "epochs=2")
    weights = []
    for name, cfg in (("whole", whole), ("stopped", stopped)):
        cfg.tracking.uri = f"sqlite:///{name}/mlflow.db"
        run_id = fit(cfg).run_id
        if name == "stopped":
            cfg.resume = run_id
            cfg.epochs = 4
            assert resume_problems(cfg, ["resume", "epochs"], False) == []
            fit(cfg, RunContext(resume=run_id))
        weights.append(tbptt.load_run(run_id, cfg.tracking.uri, "last")[0].state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_file_that_reruns_a_run_has_its_inputs(trained: Path) -> None:
    """config.yaml, which a study's best.yaml is a copy of."""
    folder = trained.parents[1]
    assert checked(["--config-dir", str(folder), "--config-name", "config"], CONF)
    again = OmegaConf.load(folder / "config.yaml")
    assert (list(again.data.inputs), again.data.input_window) == (["signal", "volume"], 2)


def test_a_run_whose_inputs_changed_is_not_resumed(
    files: Path, config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(*WORDS)
    cfg.resume = fit(cfg).run_id
    cfg.epochs = 4
    assert resume_problems(cfg, ["resume", "epochs"], False) == []
    first = FILES["first.csv"]
    changed = replace(first.series["A"], inputs=first.series["A"].inputs + 1)
    other = replace(first, series={**first.series, "A": changed})
    monkeypatch.setattr(panel_file, "panel_of_file", lambda path, data: other)
    (line,) = resume_problems(cfg, ["resume", "epochs"], False)
    assert "the data are not those that the run was begun with" in line


def test_moments_of_inputs_in_a_checkpoint_are_checked(trained: Path) -> None:
    scaler = checkpoint.load(trained)["scaler"]
    assert scaler["extra_mean"].shape == scaler["extra_std"].shape == (2, 2)
    assert is_scaler(scaler)
    assert is_scaler({name: value for name, value in scaler.items() if not name.startswith("extra")})
    one = scaler["extra_mean"]
    for wrong in (one[:1], one[:, :1], one.int(), one[0], None, "mean"):
        assert not is_scaler({**scaler, "extra_mean": wrong})
    with pytest.raises(ValueError, match=r"its scaler is not that of its data\.inputs"):
        tbptt.load_run(altered(trained, scaler={**scaler, "extra_mean": one[:, :1], "extra_std": one[:, :1]}))
    for wrong in ("A", [1, 2]):
        with pytest.raises(ValueError, match="something else is in place of its series"):
            tbptt.load_run(altered(trained, series=wrong))


@pytest.mark.usefixtures("files")
def test_a_network_of_too_many_inputs_is_refused_before_the_run(config: Compose) -> None:
    assert problems(config(*WORDS)) == []
    (line,) = problems(config(*WORDS, "data.input_window=1000000000000"))
    assert line.startswith("model: got ")
    assert "of memory" in line


def test_a_dry_run_times_a_network_of_all_inputs(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tbptt.models import build
    from tbptt.studies import dry_run
    from tbptt.studies.plan import make_plan

    built = []
    network = build.build_network
    monkeypatch.setattr(build, "build_network", lambda m, inputs, out: built.append(inputs) or network(m, inputs, out))
    source = ConfigSource(CONF)
    register()
    with source.opened():
        plan = make_plan(source, parsed([*WORDS, "clip=1,2"])[0])
    assert dry_run._seconds_an_epoch(plan) > 0
    assert built[-1] == 16
