"""Predicting block by block gives the numbers of one pass over all prices."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tbptt.data.features import LagFeatures, Scaler
from tbptt.models.build import build_network
from tbptt.serving.load import sides
from tbptt.serving.predictor import Predictor
from tbptt.serving.source import Source
from tbptt.serving.trained import Trained

Compose = Callable[..., DictConfig]


def network(config: Compose, series: int, *words: str, inputs: int = 0) -> Trained:
    cfg = config("task.gamma=0.9", "data.window=12", "model.dense=[8]", "model.hidden=[8,8]", *words)
    torch.manual_seed(1)
    size = 12 + 2 * inputs
    net = build_network(OmegaConf.to_object(cfg.model), size, 2).eval()  # type: ignore[arg-type]
    ones = torch.ones(series, dtype=torch.float64)
    scaler = Scaler(
        0.1 * ones,
        3 * ones,
        torch.randn(series, 2).double(),
        2 * ones,
        fee=0.05 * ones,
        mixing=None,
    )
    return Trained(net, scaler, cfg, None, Source({}, "run x"))


def walks(series: int, steps: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).standard_normal((series, steps)).cumsum(1) + 100)


def one_go(trained: Trained, prices: torch.Tensor) -> torch.Tensor:
    features = LagFeatures(prices, trained.scaler, trained.window, trained.config.data.features)
    with torch.no_grad():
        return trained.network(features(0, features.length), trained.network.zero_state(len(prices)))[0]


@pytest.mark.parametrize("features", ["lagged_change", "one_step_change"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("scales", [1, 3])
def test_blocks_of_any_length_give_the_numbers_of_one_pass(
    config: Compose, features: str, cell: str, scales: int
) -> None:
    trained = network(config, scales, f"data.features={features}", f"model.cell={cell}")
    prices = walks(3, 700)
    expected = one_go(trained, prices)
    gain = (expected[..., 0] - expected[..., 1]).mean()
    means = torch.tensor([[0.0, 1.0]]).repeat(scales, 1) * 2 * gain  # so that both sides are worth more at times
    trained = dataclasses.replace(trained, scaler=dataclasses.replace(trained.scaler, target_mean=means.double()))
    predictor = Predictor(trained, 3)
    found = [predictor(part) for part in prices.split([1, 5, 7, 0, 600, 87], dim=1)]
    scaled = torch.cat([each.scaled for each in found], dim=1)
    assert scaled[:, :12].isnan().all()
    torch.testing.assert_close(scaled[:, 12:], expected, atol=1e-5, rtol=0)
    q = trained.scaler.to_price_units(expected.double())
    torch.testing.assert_close(torch.cat([each.values for each in found], dim=1)[:, 12:], q, atol=1e-4, rtol=0)
    side = torch.cat([each.side for each in found if each.side is not None], dim=1)[:, 12:]
    assert torch.equal(side > 0, sides(q, trained.scaler.fee))
    assert len(set(side.flatten().tolist())) == 2


def test_a_series_whose_price_is_missing_waits(config: Compose) -> None:
    trained = network(config, 3)
    trained = dataclasses.replace(
        trained, scaler=dataclasses.replace(trained.scaler, input_std=torch.tensor([1.0, 2.0, 3.0]).double())
    )
    prices = walks(3, 300)
    prices[1, 40:55] = torch.nan
    prices[2, ::3] = torch.nan
    predictor = Predictor(trained, 3)
    found = torch.cat([predictor(part).scaled for part in prices.split(37, dim=1)], dim=1)
    for i in range(3):
        known = prices[i].isfinite()
        own = dataclasses.replace(trained, scaler=trained.scaler.of_series(torch.tensor([i])))
        expected = one_go(own, prices[i : i + 1, known])[0]
        torch.testing.assert_close(found[i, known][12:], expected, atol=1e-5, rtol=0)
        assert found[i, ~known].isnan().all()


def test_a_state_goes_on_in_another_predictor_and_not_in_that_of_another_network(config: Compose) -> None:
    trained = network(config, 1)
    prices = walks(2, 100)
    first, whole = Predictor(trained, 2), Predictor(trained, 2)
    first(prices[:, :60])
    second = Predictor(trained, 2)
    second.load_state_dict(first.state_dict())
    expected = whole(prices)
    torch.testing.assert_close(second(prices[:, 60:]).scaled, expected.scaled[:, 60:], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="is not of 3 series"):
        Predictor(trained, 3).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="another network"):
        Predictor(network(config, 1, "model.cell=gru"), 2).load_state_dict(first.state_dict())
