"""benchmarks/learnable.py: its rows against what they are said to be."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from parts import article, q_values

from tbptt.tasks.prepare import prepare


@pytest.fixture(scope="module")
def learnable() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("learnable")


def test_moving_averages_are_causal_weighted_means(learnable: ModuleType) -> None:
    """Each written out: weights that fall by (span - 1) / (span + 1) a step, back to the first price."""
    prices = 100 + np.random.default_rng(0).normal(0, 1, (2, 60)).cumsum(axis=1)

    def average(values: Any, span: int) -> Any:
        weights = ((span - 1) / (span + 1)) ** np.arange(60)
        return np.array([[np.average(row[t::-1], weights=weights[: t + 1]) for t in range(60)] for row in values])

    away = [prices - average(prices, span) for span in (2, 8, 32, 128)]
    moved = [np.abs(each) for each in away]
    expected = np.stack([*away, *moved, *(average(each, 1000) for each in moved)], axis=-1)
    np.testing.assert_allclose(learnable.averages_of(prices, memory=True), expected, atol=1e-9)
    np.testing.assert_allclose(learnable.averages_of(prices, memory=False), expected[..., :8], atol=1e-9)
    later = prices.copy()
    later[:, 40:] += 5
    np.testing.assert_array_equal(
        learnable.averages_of(later, memory=True)[:, :40], learnable.averages_of(prices, memory=True)[:, :40]
    )


def test_a_loss_is_that_of_the_decision_and_that_of_what_decides_nothing(learnable: ModuleType) -> None:
    prediction, target = torch.randn(3, 50, 2), torch.randn(3, 50, 2)
    found = learnable.loss_of(prediction, target)
    wrong = (prediction.double() - target.double()).numpy()
    half, mean = (wrong[..., 0] - wrong[..., 1]) / 2, (wrong[..., 0] + wrong[..., 1]) / 2
    assert found.decision == pytest.approx(np.mean(half**2))
    assert found.both == pytest.approx(np.mean(half**2) + np.mean(mean**2)) == pytest.approx(np.mean(wrong**2))


def test_rows_of_series_with_random_phases(learnable: ModuleType) -> None:
    """The mean and the clock are those of a run; the oracle, to know anything, has to know where each series starts."""
    settings = article(n_series=8, val_series=6, test_series=0, length=1500, frequencies=[0.01, 0.01], phase="random")
    task = q_values(gamma=0.9, fee=0.02, fee_unit="price")
    data = prepare(settings, task)
    found = list(learnable.losses_of(settings, task, data, draws=40).values())
    mean, clock, *ridges, oracle = (each.both for each in found)
    assert mean == pytest.approx(data.baseline, rel=1e-5)
    assert clock > 0.9 * mean
    assert oracle < 0.5 * min(mean, clock, *ridges)
    assert all(each.decision < each.both for each in found)
