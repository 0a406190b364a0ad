"""The data that a worker keeps between its trials is that of the config, and no other."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tbptt.data.options import DataConfig, PricesData
from tbptt.tasks.options import Forecast, TaskConfig
from tbptt.tasks.prepare import PreparedLast, prepare


@pytest.fixture
def data(small: Callable[..., DictConfig]) -> Callable[..., tuple[DataConfig, TaskConfig]]:
    def of(*overrides: str) -> tuple[DataConfig, TaskConfig]:
        cfg = small(*overrides)
        return OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)  # type: ignore[return-value]

    return of


def test_the_same_data_are_prepared_once(data: Callable[..., tuple[DataConfig, TaskConfig]]) -> None:
    kept = PreparedLast()
    first = kept(*data())
    assert kept(*data("clip=3")) is first
    fresh = prepare(*data())
    assert first.fingerprint == fresh.fingerprint
    assert torch.equal(first.train.targets, fresh.train.targets)


@pytest.mark.parametrize("other", ["data.seed=5", "task.gamma=0.8", "data.length=130", "data.features=one_step_change"])
def test_other_data_are_prepared_anew(data: Callable[..., tuple[DataConfig, TaskConfig]], other: str) -> None:
    kept = PreparedLast()
    first = kept(*data())
    second = kept(*data(other))
    assert second is not first
    assert not torch.equal(second.train.features(0, 5), first.train.features(0, 5)) or "gamma" in other
    assert kept(*data()) is not first  # only the last is kept


def test_a_file_that_changed_is_read_again(here: Path, config: Callable[..., DictConfig]) -> None:
    def write(last: int) -> None:
        rows = [str(100 + i % 7) for i in range(300)]
        Path("prices.csv").write_text("\n".join(["a", *rows, str(last)]))
        os.utime("prices.csv", ns=(last, last))

    cfg = config("data=prices", "data.path=prices.csv", "data.window=8", "task.gamma=0.9")
    kept = PreparedLast()
    write(100)
    first = kept(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task))
    assert kept(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)) is first
    write(105)
    assert kept(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)).fingerprint != first.fingerprint


def test_a_file_that_changes_in_a_folder_makes_the_data_others(here: Path) -> None:
    """What is kept for the next trial is keyed on every file of a folder, not on the folder alone."""
    (here / "parts").mkdir()
    rows = np.random.default_rng(0).normal(0, 1, 200).cumsum()
    pd.DataFrame({"a": rows}).to_parquet(here / "parts" / "0.parquet")
    data = PricesData(name="prices", path="parts", reading="auto", window=8)
    task = Forecast(name="forecast", horizons=[1])
    kept = PreparedLast()
    before = kept(data, task)
    assert kept(data, task) is before
    pd.DataFrame({"a": rows + 1}).to_parquet(here / "parts" / "0.parquet")
    after = kept(data, task)
    assert after.fingerprint != before.fingerprint
    np.testing.assert_allclose(after.split.train["a"], before.split.train["a"] + 1)
