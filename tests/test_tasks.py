"""What is learnt of a series: targets, losses and metrics of the tasks, and the names that their keys had."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONF, SMALL
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name
from omegaconf import DictConfig, OmegaConf

from tbptt.config.checks import problems
from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.config.moved import MOVED, moved
from tbptt.config.plain import plain, rerunnable
from tbptt.config.schema import flatten, register, typed
from tbptt.data.features import Scaler
from tbptt.data.options import DataConfig, SplitData
from tbptt.data.sequences import Sequences
from tbptt.data.split import as_panel
from tbptt.evaluation.losses import measure
from tbptt.options.metrics import METRICS, Metric, measured, metric
from tbptt.options.option import GROUPS, key
from tbptt.options.takes import whole
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.fit import fit
from tbptt.serving.load import load_run
from tbptt.studies.plan import make_plan
from tbptt.tasks.options import Forecast, QValues, TaskConfig
from tbptt.tasks.prepare import prepare

Compose = Callable[..., DictConfig]
OF_ANY_TASK = [word for word in SMALL if not word.startswith("task.")]
FORECAST = (*OF_ANY_TASK, "task=forecast", "task.horizons=[1,5,20]")
TWO_PARTS = ("data.test_fraction=0", "data.warm_steps=0")


# --- forecasts ------------------------------------------------------------------------------------------------------


def test_a_forecasts_targets_are_the_changes_some_steps_ahead() -> None:
    prices = np.random.default_rng(0).normal(0, 1, (2, 30)).cumsum(1)
    task = Forecast(name="forecast", horizons=[3, 1])
    targets = task.targets(prices, np.ones(2))
    assert task.outputs == targets.shape[2] == 2
    for t in range(30 - task.ahead):
        np.testing.assert_allclose(targets[:, t, 0], prices[:, t + 3] - prices[:, t])
        np.testing.assert_allclose(targets[:, t, 1], prices[:, t + 1] - prices[:, t])


def test_each_horizon_of_a_forecast_has_a_scale_of_its_own(config: Compose) -> None:
    cfg = config(*FORECAST)
    data = SequenceDataModule(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task))
    assert data.scaler.target_std.shape == (1, 3)
    assert data.scaler.fee is None
    targets = data.train.targets
    torch.testing.assert_close(targets.mean((0, 1)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(targets.square().mean((0, 1)), torch.ones(3), atol=1e-4, rtol=0)
    back = data.scaler.to_price_units(targets.double())
    torch.testing.assert_close(data.scaler.scale_targets(back).float(), targets)


def test_no_step_is_trained_on_whose_target_would_need_a_price_of_the_other_part(here: Path, config: Compose) -> None:
    prices = np.random.default_rng(1).normal(0, 1, 200).cumsum()
    Path("p.csv").write_text("\n".join(["a", *map(str, prices)]))
    cfg = config("data=prices", "data.path=p.csv", "data.window=4", "task=forecast", "task.horizons=[7]", *TWO_PARTS)
    found = prepare(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task))
    assert found.train.steps == [160 - 4 - 7]
    assert found.val.steps == [40 - 7]
    last = found.scaler.to_price_units(found.train.targets[:, -1:].double())
    assert last.item() == pytest.approx(prices[159] - prices[152], rel=1e-5)


def test_a_forecast_trains_and_comes_back_with_as_many_outputs(here: Path, config: Compose) -> None:
    result = fit(config(*FORECAST, "objective=val/right_sign"))
    network, scaler, cfg = load_run(result.run_id)
    y, _ = network(torch.zeros(2, 6, 8), network.zero_state(2))
    assert y.shape == (2, 6, 3)
    assert scaler.to_price_units(y).shape == (2, 6, 3)
    assert list(cfg.task.horizons) == [1, 5, 20]
    assert 0 <= result.best.values[0] <= 1


def test_a_line_in_a_straight_line_has_nothing_to_forecast(here: Path, config: Compose) -> None:
    Path("p.csv").write_text("\n".join(["a", *(str(100 + i / 8) for i in range(300))]))
    (line,) = problems(config("data=prices", "data.path=p.csv", "data.window=4", "task=forecast"))
    assert line.startswith("data.path: a changes by 0.125 at every step that trains, so nothing is there to be learnt")


# --- metrics --------------------------------------------------------------------------------------------------------


class Echo(torch.nn.Module):
    """Predicts what it is told to."""

    def __init__(self, y: torch.Tensor):
        super().__init__()
        self.y, self.at = y, 0

    def zero_state(self, batch: int) -> list[torch.Tensor]:
        self.at = 0
        return []

    def forward(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self.at += x.shape[1]
        return self.y[:, self.at - x.shape[1] : self.at], state


def test_metrics_are_means_over_valid_steps_whatever_the_chunks(here: Path, config: Compose) -> None:
    rng = np.random.default_rng(2)
    columns = {"a": rng.normal(0, 1, 300).cumsum(), "b": rng.normal(0, 9, 200).cumsum()}
    rows = [f"{columns['a'][i]},{columns['b'][i] if i < 200 else ''}" for i in range(300)]
    Path("p.csv").write_text("\n".join(["a,b", *rows]))
    each = ("data.split=each", *TWO_PARTS)
    cfg = config("data=prices", "data.path=p.csv", "data.window=4", "task.gamma=0.5", *each)
    held_out = prepare(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)).val
    y = torch.randn(held_out.targets.shape, generator=torch.Generator().manual_seed(0))
    metrics = [m for m in measured("q_values") if m.measure]
    assert [m.name for m in metrics] == ["val/mae", "val/right_side"]
    errors, sides = [], []
    assert held_out.scaler is not None
    q, truth = (held_out.scaler.to_price_units(v) for v in (y, held_out.targets))
    for b, n in enumerate(held_out.steps):
        errors += (y[b, :n] - held_out.targets[b, :n]).abs().flatten().tolist()
        sides += ((q[b, :n, 0] > q[b, :n, 1]) == (truth[b, :n, 0] > truth[b, :n, 1])).tolist()
    for chunk in (3, 1000):
        found = measure(Echo(y), held_out, metrics, chunk)  # type: ignore[arg-type]
        assert found["val/mae"].item() == pytest.approx(np.mean(errors), rel=1e-6)
        assert found["val/right_side"].item() == pytest.approx(np.mean(sides), rel=1e-6)


def test_a_metric_cannot_take_anothers_name_or_go_nowhere() -> None:
    with pytest.raises(ValueError, match="val/loss is there already"):
        metric("val/loss", direction="minimize", label="x")
    with pytest.raises(ValueError, match="takes a name like val/NAME"):
        metric("mine", direction="minimize", label="x")
    with pytest.raises(ValueError, match="takes one of minimize, maximize"):
        metric("val/mine", direction="up", label="x")


@pytest.mark.parametrize(
    "name", ["val/hit%", "val/a\tb", "val/a,b", "val//a", "val/a/", "val/../a", "val/" + 247 * "a"]
)
def test_a_metric_takes_no_name_that_mlflow_refuses(name: str) -> None:
    if len(name) <= 250:
        with pytest.raises(MlflowException):
            _validate_metric_name(name)
    with pytest.raises(ValueError, match="MLflow takes no such name; takes letters, digits") as caught:
        metric(name, direction="minimize", label="x")
    assert "\n" not in str(caught.value)
    assert name not in METRICS


@pytest.mark.parametrize("name", ["val/Größe_1-2. a:b/c", "val/" + 246 * "a"])
def test_a_metric_takes_a_name_that_mlflow_takes(name: str) -> None:
    _validate_metric_name(name)
    metric(name, direction="minimize", label="x")


def test_what_a_change_costs_is_kept_in_float64_and_is_one_number_a_series(config: Compose) -> None:
    class Mine(Forecast):
        cost: Any = None

        def change_cost(self, change_std: Any) -> Any:
            return self.cost

    cfg = config(*FORECAST)
    data, task = OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)
    mine = Mine(**vars(task))
    mine.cost = np.ones(1, dtype=np.int64)
    fee = prepare(data, mine).scaler.fee  # type: ignore[arg-type]
    assert fee is not None
    assert (fee.dtype, fee.tolist()) == (torch.float64, [1.0])
    mine.cost = 1
    with pytest.raises(ValueError, match=r"change_cost gives \(\); takes \(1,\), as change_std"):
        prepare(data, mine)  # type: ignore[arg-type]
    assert "val/mine" not in METRICS


def test_an_objective_of_another_task_is_refused(small: Compose) -> None:
    (line,) = problems(small("objective=val/right_sign"))
    assert line.startswith("objective: got 'val/right_sign'; takes with task=q_values one of val/loss, ")
    assert problems(small("objective=val/right_side")) == []


# --- a task of one's own ----------------------------------------------------------------------------------------------


class Odd(QValues):
    """Gives what it does not say."""

    def targets(self, prices: np.ndarray, change_std: np.ndarray) -> np.ndarray:
        return np.zeros((len(prices), prices.shape[1], 3))


def test_targets_of_another_shape_are_told_in_a_line(small: Compose) -> None:
    data = OmegaConf.to_object(small().data)
    task = Odd(name="q_values", gamma=0.9, fee=0.0, fee_unit="price")
    with pytest.raises(
        ValueError, match=r"task=q_values: targets gives \(3, 165, 3\) for prices .*; takes \(3, 120 or"
    ):
        prepare(data, task)


class Classes(Forecast):
    """Whether a price will be higher: a task whose loss and scale are not those of a regression."""

    common_scale = None

    def targets(self, prices: np.ndarray, change_std: np.ndarray) -> np.ndarray:
        return (super().targets(prices, change_std) > 0).astype(float)

    def loss(self, y: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        each = torch.nn.functional.binary_cross_entropy_with_logits(y, target, reduction="none")
        return (each if mask is None else each * mask[:, :, None]).sum()

    def baseline(self, target: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return super().baseline(target, mask).logit()


def test_a_task_has_its_own_loss_scale_and_baseline(small: Compose) -> None:
    data = OmegaConf.to_object(small().data)
    found = prepare(data, Classes(name="forecast", horizons=[1, 4]))
    sequences: Sequences = found.train
    assert set(sequences.targets.unique().tolist()) == {0.0, 1.0}
    share = sequences.targets.mean((0, 1)).double()
    ahead = found.val.targets.double()
    expected = -(ahead * share.log() + (1 - ahead) * (1 - share).log()).mean()
    assert found.baseline == pytest.approx(expected.item(), rel=1e-5)


# --- names that keys had ----------------------------------------------------------------------------------------------


@pytest.fixture
def source() -> ConfigSource:
    register()
    return ConfigSource(CONF)


def test_an_old_name_typed_is_the_new_one(source: ConfigSource) -> None:
    words, lines = parsed(["data.gamma=0.8", "data.fee_unit=change_std", "data.horizon=7"])
    assert lines == []
    assert [o.input_line for o in words] == ["task.gamma=0.8", "task.fee_unit=change_std", "task.horizon=7"]


def test_a_file_with_old_names_means_the_same(source: ConfigSource, tmp_path: Path) -> None:
    with source.opened():
        now = source.compose([*SMALL, "task.gamma=0.7", "task.fee=0.5", "task.horizon=9"])
    content = rerunnable(now)
    old = content.replace("- override task: q_values\n", "")
    assert old != content
    before, task, rest = old.partition("\ntask:\n")
    settings, _, after = rest.partition("\nmodel:\n")
    lines = [line for line in settings.splitlines() if f"data.{line.strip().split(':')[0]}" in MOVED]
    old = before + "\n" + "\n".join(lines) + "\nmodel:\n" + after
    assert task
    (tmp_path / "old.yaml").write_text(old)
    elsewhere = ConfigSource(tmp_path, "old", CONF, shipped=CONF)
    with elsewhere.opened():
        again = elsewhere.compose([])
        assert plain(again)["task"] == plain(now)["task"]
        assert "gamma" not in plain(again)["data"]
        assert elsewhere.compose(["task.gamma=0.6"]).task.gamma == 0.6, "what is typed comes first"
        assert elsewhere.compose(["task=forecast"]).task.name == "forecast"
        assert problems(again) == []


def test_a_checkpoints_config_with_old_names_is_read(source: ConfigSource) -> None:
    with source.opened():
        now = plain(source.compose([*SMALL, "task.gamma=0.7"]))
    old = {**now, "data": {**now["data"], **{k: v for k, v in now["task"].items() if f"data.{k}" in MOVED}}}
    del old["task"]
    assert plain(typed(old)) == plain(typed(now))
    assert moved(now) == now
    assert "gamma" in old["data"], "what was given is left as it was"


def test_a_study_of_a_key_that_has_another_name_now_is_the_same_study(source: ConfigSource) -> None:
    with source.opened():
        plans = [make_plan(source, parsed([*SMALL, f"{key}=0.8,0.9"])[0]) for key in ("data.gamma", "task.gamma")]
    assert plans[0].name == plans[1].name
    for plan in plans:
        assert [d.name for d in plan.space.dimensions] == ["data.gamma"], "as it is in Optuna"
        assert plan.space.overrides({"data.gamma": 0.8}) == ["task.gamma=0.8"]
        assert not any(key.startswith("task.") for key in plan.spec["config"])
        assert plan.spec["config"]["data.fee"] == 0.02


def test_tasks_can_be_searched(source: ConfigSource) -> None:
    with source.opened():
        plan = make_plan(source, parsed([*OF_ANY_TASK, "task=q_values,forecast"])[0])
        with pytest.raises(CommandError, match=r"task\.gamma: a key of task=q_values, and another task is chosen"):
            make_plan(source, parsed(["task=forecast", "task.gamma=0.8,0.9"])[0])
    assert [list(point.values()) for point in plan.points()] == [["q_values"], ["forecast"]]


def test_every_moved_key_is_one_of_the_schema(source: ConfigSource) -> None:
    with source.opened():
        cfg = source.compose([])
    for old, new in MOVED.items():
        assert OmegaConf.select(cfg, new) == OmegaConf.select(cfg, old), "of which the data say the default"
    assert not set(MOVED) & set(flatten(plain(cfg)))
    assert (cfg.task.fee, cfg.task.fee_unit) == (0.02, "price")
    with source.opened():
        assert source.compose(["data=market"]).task.fee_unit == "change_std"


# --- what an option of one's own has to say ---------------------------------------------------------------------------


def test_a_class_that_does_not_say_what_its_group_needs_is_no_option() -> None:
    with pytest.raises(ValueError, match=r"task=half: class Half does not define outputs and targets"):

        class Half(TaskConfig, options=["half"]):
            ahead = 3  # type: ignore[assignment]

    with pytest.raises(ValueError, match=r"data=bare: class Bare builds on DataConfig; takes SplitData"):

        class Bare(DataConfig, options=["bare"]):
            def prices(self) -> dict[str, np.ndarray]:
                return {}

    assert "half" not in GROUPS["task"]
    assert "bare" not in GROUPS["data"]


def test_a_data_source_may_give_a_table(config: Compose) -> None:
    walk = np.arange(300.0) ** 1.5
    table = pd.DataFrame({"a": walk, "b": np.where(np.arange(300) < 200, walk, np.nan)})
    data = cast(SplitData, OmegaConf.to_object(config("data=market").data))
    found = as_panel(table, data).series
    assert {name: len(each.prices) for name, each in found.items()} == {"a": 300, "b": 200}
    np.testing.assert_array_equal(found["b"].prices, walk[:200])
    data.columns = ["b"]
    assert list(as_panel(table, data).series) == ["b"]


def test_a_data_source_on_top_of_the_articles_has_its_fee(source: ConfigSource, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "long.yaml").write_text("defaults: [article, _self_]\nlength: 777\ngamma: 0.95\n")
    with ConfigSource(CONF, also=tmp_path).opened():
        cfg = ConfigSource(CONF, also=tmp_path).compose(["data=long"])
    assert (cfg.task.fee, cfg.task.fee_unit, cfg.task.gamma) == (0.02, "price", 0.95)


def test_a_change_of_zero_has_no_sign_that_could_be_right() -> None:
    mean, std = torch.tensor([[0.123]], dtype=torch.float64), torch.tensor([0.17], dtype=torch.float64)
    scaler = Scaler(torch.zeros(1), torch.ones(1), mean, std)
    changes = torch.tensor([[[0.0], [0.5], [-0.5], [0.0]]], dtype=torch.float64)
    standardised = scaler.scale_targets(changes).float()
    assert scaler.to_price_units(standardised)[0, 0].item() != 0, "or this says nothing"
    found = scaler.targets_in_prices(standardised)
    assert (found[0, :, 0] == 0).tolist() == [True, False, False, True]
    for sign in (1.0, -1.0):
        total, count = METRICS["val/right_sign"].measure(sign * torch.ones(1, 4, 1), found, None)  # type: ignore[misc]
        assert (total.item(), count) == (1.0, 4.0)


def test_a_metric_of_ones_own_cannot_change_what_is_measured_after_it(small: Compose) -> None:
    cfg = small()
    held_out = prepare(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)).val
    before, y = held_out.targets.clone(), torch.randn(held_out.targets.shape)

    def spoils(y: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, float]:
        return y.zero_().sum() + target.zero_().sum(), 1.0

    metrics = [Metric("val/spoils", "minimize", "x", measure=spoils), METRICS["val/mae"]]
    found = measure(Echo(y), held_out, metrics)  # type: ignore[arg-type]
    assert torch.equal(held_out.targets, before)
    assert found["val/mae"].item() == pytest.approx((y - before).abs().mean().item(), rel=1e-5)


def test_a_key_that_nothing_reads_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"task=deaf: class Deaf has a key never_named that nothing in its file reads"):

        class Deaf(Forecast, options=["deaf"]):
            locals()["never" + "_named"] = key(whole(1), 1)

    assert "deaf" not in GROUPS["task"]
