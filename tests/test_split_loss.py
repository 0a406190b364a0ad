"""``task.loss=split``: the common part of both Q-values and their difference are learnt apart, with one weight."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf
from test_resume import RUN, URI, curves, interrupted, last

from tbptt.config.checks import problems
from tbptt.config.compose import ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.data.features import LagFeatures, Scaler
from tbptt.data.sequences import Sequences
from tbptt.evaluation.losses import measure
from tbptt.options.metrics import METRICS, Metric, measured
from tbptt.options.option import GROUPS, Option, key
from tbptt.options.takes import one_of
from tbptt.runs import contents
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit
from tbptt.serving.load import load_run
from tbptt.studies.plan import make_plan
from tbptt.system.stores import absolute_uri
from tbptt.tasks.options import Forecast, QValues, TaskConfig
from tbptt.tasks.prepare import Prepared, prepare
from tbptt.tasks.q_values import q_values
from tbptt.tasks.try_out import mixing_of, try_task

Compose = Callable[..., DictConfig]
SPLIT = "task.loss=split"
FILE = [
    "data=prices",
    "data.path=p.csv",
    "data.window=4",
    "data.split=each",  # so that the series that ends early is scored too
    "task.gamma=0.8",
    "task.fee=0.3",
    "task.fee_unit=price",
    "data.test_fraction=0",
    "data.warm_steps=0",
]


def prepared(cfg: DictConfig) -> Prepared:
    return prepare(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task))  # type: ignore[arg-type]


def write_walks(level: float = 0.0) -> np.ndarray:
    """Two series of 300 and 200 prices, of different sizes, in p.csv."""
    rng = np.random.default_rng(2)
    walks = level + rng.normal(0, [1.0, 9.0], (300, 2)).cumsum(axis=0)
    rows = [f"{a!r},{b!r}" if i < 200 else f"{a!r}," for i, (a, b) in enumerate(walks.tolist())]
    Path("p.csv").write_text("\n".join(["a,b", *rows]))
    return walks


def q_of(column: np.ndarray, steps: int) -> np.ndarray:
    """(steps, 2) Q-values of the steps of a training part whose first prices are those of the window, by hand."""
    change, q = np.diff(column[4:]), np.zeros((len(column) - 4, 2))
    for t in range(len(change) - 1, -1, -1):
        buy, sell = q[t + 1]
        q[t] = change[t] + 0.8 * max(buy, sell - 0.6), -change[t] + 0.8 * max(sell, buy - 0.6)
    return q[:steps]


class Echo(torch.nn.Module):
    """Predicts what it is told to, from the first step on."""

    def __init__(self, y: torch.Tensor):
        super().__init__()
        self.y, self.at = y, 0

    def zero_state(self, batch: int) -> list[torch.Tensor]:
        self.at = 0
        return []

    def forward(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self.at += x.shape[1]
        return self.y[:, self.at - x.shape[1] : self.at], state


# --- what is learnt ---------------------------------------------------------------------------------------------------


def test_each_series_common_part_and_difference_have_moments_of_their_own(here: Path, config: Compose) -> None:
    walks = write_walks()
    train = prepared(config(*FILE, SPLIT)).train
    for b, column in enumerate((walks[:240, 0], walks[:160, 1])):
        q = q_of(column, train.steps[b])
        both = np.stack([(q[:, 0] + q[:, 1]) / 2, q[:, 0] - q[:, 1]], axis=1)
        expected = (both - both.mean(axis=0)) / both.std(axis=0)
        np.testing.assert_allclose(train.targets[b, : train.steps[b]], expected, rtol=1e-5, atol=1e-6)


def test_series_that_share_a_scale_have_moments_of_one_together(small: Compose) -> None:
    targets = prepared(small(SPLIT)).train.targets.double()
    torch.testing.assert_close(targets.mean((0, 1)), torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.square().mean((0, 1)), torch.ones(2).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
def test_q_values_come_back(here: Path, config: Compose, small: Compose, shared: bool) -> None:
    if not shared:
        write_walks(level=1e5)
    joint, split = (prepared(small(word) if shared else config(*FILE, word)) for word in ("task.loss=joint", SPLIT))
    assert joint.scaler.mixing is None
    assert split.scaler.target_std.shape == (1 if shared else 2, 2)
    q = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (len(split.train.steps), 50, 2)))
    torch.testing.assert_close(split.scaler.to_price_units(split.scaler.scale_targets(q)), q, rtol=1e-12, atol=1e-12)
    for part in ("train", "val"):
        a, b = (found.scaler.to_price_units(getattr(found, part).targets.double()).numpy() for found in (joint, split))
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * a.std())
    single = split.scaler.to_price_units(split.train.targets)
    assert single.dtype == torch.float32


def test_the_loss_is_the_mean_of_both_squared_errors(here: Path, config: Compose) -> None:
    write_walks()
    found = prepared(config(*FILE, SPLIT))
    scaler, val = found.scaler, found.val
    q = np.random.default_rng(5).normal(0, 4, val.targets.shape)  # what is predicted, in price units
    truth = scaler.to_price_units(val.targets.double()).numpy()
    errors = []
    for b, steps in enumerate(val.steps):
        error = (q - truth)[b, :steps]
        std = scaler.target_std[b].numpy()
        errors += [((error[:, 0] + error[:, 1]) / 2 / std[0]) ** 2, ((error[:, 0] - error[:, 1]) / std[1]) ** 2]
    y = scaler.scale_targets(torch.from_numpy(q)).float()
    loss = measure(Echo(y), val, (), 7)["loss"].item()  # type: ignore[arg-type]
    assert loss == pytest.approx(np.concatenate(errors).mean(), rel=1e-5)
    nothing = measure(Echo(torch.zeros_like(y)), val, (), 7)["loss"].item()  # type: ignore[arg-type]
    assert found.baseline == pytest.approx(nothing, rel=1e-6), "the training mean is the zero of what is standardised"


# --- the decision -----------------------------------------------------------------------------------------------------


def steep(change: float) -> tuple[Sequences, Scaler, np.ndarray]:
    """Q-values of about 1,000 whose difference is of the size of ``change``, zero at every third step: what a
    network is to give of them, their scaler, and they themselves, (1, 300, 2)."""
    rng = np.random.default_rng(3)
    difference = np.where(np.arange(300) % 3, rng.normal(change / 2, change, 300), 0.0)
    common = rng.normal(1000, 200, 300)
    q = np.stack([common + difference / 2, common - difference / 2], axis=1)[None]
    q[0, ::3, 1] = q[0, ::3, 0]
    prices = torch.from_numpy(rng.normal(0, 1, (1, 304)).cumsum(1))
    mixing = torch.from_numpy(np.asarray(QValues(name="q_values", loss="split").mixing()))
    scaler = Scaler.fit(
        prices, torch.tensor([300]), torch.from_numpy(q), 4, "lagged_change", True, common_scale=False, mixing=mixing
    )
    features = LagFeatures(prices, scaler, 4, "lagged_change")
    targets = scaler.scale_targets(torch.from_numpy(q)).float()
    return Sequences(features, targets, None, [300], QValues(name="q_values", loss="split"), scaler), scaler, q


def test_the_side_of_a_small_difference_of_large_values_is_kept() -> None:
    """float32 has steps of 6e-5 at 1,000: there the Q-values themselves are equal."""
    sequences, scaler, q = steep(1e-6)
    single = scaler.to_price_units(sequences.targets)
    assert (single[..., 0] == single[..., 1]).double().mean() > 0.9, "or this says nothing"
    found = scaler.targets_in_prices(sequences.targets.double()).numpy()
    assert np.array_equal(np.sign(found[..., 0] - found[..., 1]), np.sign(q[..., 0] - q[..., 1]))
    wrong = q[..., ::-1].copy()
    wrong[..., 0] += 1e-9 * (wrong[..., 0] == wrong[..., 1])  # where both are worth the same, buying
    y = scaler.scale_targets(torch.from_numpy(wrong)).float()
    metrics = [METRICS["val/right_side"]]
    assert measure(Echo(y), sequences, metrics)["val/right_side"].item() == 0  # type: ignore[arg-type]


def test_a_difference_of_zero_is_zero_after_rounding() -> None:
    sequences, scaler, q = steep(1.0)
    assert (np.diff(scaler.to_price_units(sequences.targets.double())[0, ::3]) != 0).all(), "or this says nothing"
    found = scaler.targets_in_prices(sequences.targets.double()).numpy()
    assert np.array_equal(found[..., 0] == found[..., 1], q[..., 0] == q[..., 1])


@pytest.mark.parametrize("level", [0.0, 1e5])
def test_a_perfect_network_is_always_on_the_right_side(here: Path, config: Compose, level: float) -> None:
    write_walks(level)
    val = prepared(config(*FILE, SPLIT)).val
    metrics = measured("q_values")
    found = measure(Echo(val.targets), val, metrics)  # type: ignore[arg-type]
    assert (found["loss"].item(), found["val/right_side"].item()) == (0, 1)
    swapped = val.targets.clone()
    difference = val.scaler.target_mean[:, 1] / val.scaler.target_std[:, 1]  # type: ignore[union-attr]
    swapped[..., 1] = -swapped[..., 1] - 2 * difference[:, None].float()
    found = measure(Echo(swapped), val, metrics)  # type: ignore[arg-type]
    assert found["val/right_side"].item() < 0.02, "of no step but those at which both are worth the same"


def test_a_metric_in_prices_gets_q_values(here: Path, config: Compose) -> None:
    write_walks()
    val, seen = prepared(config(*FILE, SPLIT)).val, []

    def look(y: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, float]:
        seen.append((y.clone(), target.clone()))
        return y.sum(), 1.0

    measure(Echo(val.targets), val, [Metric("val/look", None, "x", measure=look, in_prices=True)])  # type: ignore[arg-type]
    ((y, target),) = seen
    q = prepared(config(*FILE)).val
    assert q.scaler is not None
    torch.testing.assert_close(y.float(), q.scaler.to_price_units(q.targets), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(target, y, rtol=1e-5, atol=1e-5)


# --- the key ----------------------------------------------------------------------------------------------------------


def test_joint_is_what_was_done_before(small: Compose) -> None:
    data = OmegaConf.to_object(small().data)
    cfg = small("task.loss=joint")
    q = QValues(name="q_values", gamma=0.9, fee=0.02, fee_unit="price")
    assert q == OmegaConf.to_object(cfg.task)
    assert (q.loss, q.common_scale, q.mixing()) == ("joint", True, None)
    found = prepare(data, q)  # type: ignore[arg-type]
    assert found.scaler.target_std.shape == (1,)
    targets = found.scaler.to_price_units(found.train.targets.double())
    assert found.train.targets.double().square().mean().item() == pytest.approx(1, rel=1e-5)
    assert targets[..., 0].std().item() == pytest.approx(targets[..., 1].std().item(), rel=0.2)


def test_the_key_stays_out_of_a_studys_digest_while_it_is_joint() -> None:
    register()
    from conftest import CONF

    source = ConfigSource(CONF)
    with source.opened():
        plans = {
            words: make_plan(source, parsed([*SMALL, "clip=1,2", *words])[0])
            for words in ((), ("task.loss=joint",), (SPLIT,))
        }
        (searched,) = [d.name for d in make_plan(source, parsed([*SMALL, "task.loss=joint,split"])[0]).space.dimensions]
    assert plans[()].name == plans["task.loss=joint",].name != plans[SPLIT,].name
    assert "task.loss" not in plans[()].spec["config"]
    assert plans[SPLIT,].spec["config"]["task.loss"] == "split"
    assert searched == "task.loss"


def test_another_word_and_a_common_part_that_is_nothing_are_told(here: Path, small: Compose, config: Compose) -> None:
    assert problems(small("task.loss=both")) == ["task.loss: got 'both'; takes one of joint, split"]
    (line,) = problems(small(SPLIT, "task.gamma=0"))
    assert line.startswith("task.loss: got 'split'; takes joint where task.gamma is 0")
    write_walks()
    with pytest.raises(ValueError, match="output 0 of what is learnt, a mixture of the targets, is the same at every"):
        prepared(config(*FILE, SPLIT, "task.fee=1e6"))  # no change of side ever pays


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_split_run_is_stopped_gone_on_with_and_loaded(here: Path, small: Compose) -> None:
    cfg = small(*RUN, SPLIT, "objective=val/right_side")
    whole = fit(cfg)
    run_id = interrupted(cfg, 14)
    assert fit(cfg, RunContext(resume=run_id)).run_id == run_id
    assert curves(run_id) == curves(whole.run_id)
    network, scaler, loaded = load_run(whole.run_id)
    assert loaded.task.loss == "split"
    found = prepared(cfg)
    assert scaler.mixing is not None
    for name, value in vars(found.scaler).items():
        got = getattr(scaler, name)
        assert got is value is None or torch.equal(got, value), name
    with torch.no_grad():
        y, _ = network(found.val.features(0, found.val.length), network.zero_state(found.val.batch))
    said, true = scaler.to_price_units(y.double()), scaler.to_price_units(found.val.targets.double())
    right = ((said[..., 0] > said[..., 1]) == (true[..., 0] > true[..., 1])).double().mean().item()
    assert whole.best.values[0] == pytest.approx(right, abs=1e-6)
    values = [p.value for p in MlflowClient(absolute_uri(URI)).get_metric_history(whole.run_id, "val/right_side")]
    assert max(values) == pytest.approx(right, abs=1e-6)


def test_a_checkpoints_mixing_has_a_shape_that_fits(here: Path, small: Compose) -> None:
    cfg = small(SPLIT, "epochs=1")
    scaler = last(fit(cfg).run_id)["scaler"]
    assert contents.is_scaler(scaler)
    older = {name: value for name, value in scaler.items() if name not in ("fee", "mixing")}
    assert contents.is_scaler(older)
    for wrong in (torch.eye(3), torch.eye(2)[0], torch.eye(2).int(), [[1.0, 0.0], [0.0, 1.0]], torch.ones(2, 1)):
        assert not contents.is_scaler({**scaler, "mixing": wrong})


# --- a task of one's own ----------------------------------------------------------------------------------------------


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to the tasks is gone after it."""
    monkeypatch.setitem(GROUPS, "task", dict(GROUPS["task"]))


def test_a_task_with_a_loss_of_its_own_is_measured_by_it(here: Path, small: Compose, options: None) -> None:
    @dataclass
    class Absolute(Forecast):
        def loss(self, y: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return (y - target).abs().sum()

    cfg = small()
    found = prepare(OmegaConf.to_object(cfg.data), Absolute(name="forecast", horizons=[1, 4]))  # type: ignore[arg-type]
    assert found.baseline == pytest.approx(found.val.targets.double().abs().mean().item(), rel=1e-5)


def test_a_loss_of_ones_own_on_top_of_the_q_values_stands_beside_the_key(small: Compose) -> None:
    @dataclass
    class Twice(QValues):
        def loss(self, y: Any, target: Any, mask: Any) -> Any:  # type: ignore[override]
            return 2 * super().loss(y, target, mask)  # type: ignore[misc,operator]

    cfg = OmegaConf.structured(Twice)
    assert cfg.loss == "joint"
    data = OmegaConf.to_object(small().data)
    settings = {"name": "q_values", "gamma": 0.9, "fee": 0.02, "fee_unit": "price"}
    for loss in ("joint", "split"):
        twice, once = (prepare(data, kind(**settings, loss=loss)).baseline for kind in (Twice, QValues))  # type: ignore[arg-type]
        assert twice == 2 * once
        assert Twice(**settings, loss=loss).loss == loss  # type: ignore[arg-type]


def test_a_task_of_ones_own_may_mix_its_targets(small: Compose) -> None:
    @dataclass
    class Level(Forecast):
        """The mean of the changes ahead, and how each differs from it."""

        given: Any = None

        def mixing(self) -> Any:
            return self.given

    task = Level(name="forecast", horizons=[1, 2, 5])
    task.given = [[1 / 3, 1, 0], [1 / 3, -1, 1], [1 / 3, 0, -1]]
    try_task(task)
    found = prepare(OmegaConf.to_object(small().data), task)  # type: ignore[arg-type]
    plain = prepare(OmegaConf.to_object(small().data), Forecast(name="forecast", horizons=[1, 2, 5]))  # type: ignore[arg-type]
    changes = plain.scaler.to_price_units(plain.train.targets.double())
    mixed = torch.stack([changes.mean(2), changes[..., 0] - changes[..., 1], changes[..., 1] - changes[..., 2]], dim=2)
    expected = (mixed - mixed.mean((0, 1))) / mixed.flatten(0, 1).std(0, correction=0)
    torch.testing.assert_close(found.train.targets.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.scaler.to_price_units(found.train.targets.double()), changes, rtol=1e-4, atol=1e-4)
    for wrong, said in (
        (np.eye(2), r"mixing gives \(2, 2\); takes \(3, 3\)"),
        (np.ones((3, 3)), "mixing has no inverse"),
        (np.full((3, 3), np.nan), "mixing has no inverse"),
        ("x", "mixing raised ValueError"),
    ):
        task.given = wrong
        with pytest.raises(ValueError, match=f"task=forecast: {said}"):
            mixing_of(task)


def test_a_key_with_the_name_of_a_method_is_refused_unless_it_says_so(options: None) -> None:
    with pytest.raises(ValueError, match="class Named has a key loss, which is the name of something that TaskConfig"):

        @dataclass
        class Named(Forecast, options=["named"]):
            loss: str = key(one_of("a", "b"), "a")  # type: ignore[assignment]

    assert "named" not in GROUPS["task"]
    assert issubclass(QValues, Option)
    assert QValues.loss is TaskConfig.loss, "which the class keeps"  # type: ignore[comparison-overlap]


def test_q_values_are_those_of_the_recursion_written_out_here() -> None:
    column = np.random.default_rng(1).normal(0, 1, 60).cumsum()
    np.testing.assert_allclose(q_of(column, 40), q_values(column[None, 4:], 0.8, 0.3)[0, :40], atol=1e-12)
