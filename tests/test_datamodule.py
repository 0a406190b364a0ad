"""The data that a worker keeps between its trials is that of the config, and no other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tbptt.data.options import DataConfig
from tbptt.tasks.options import TaskConfig
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
