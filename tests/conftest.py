"""What the tests share: configs small enough to train in a second, in a folder of their own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tbptt.config import register

for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):  # tests keep to stores of their own
    os.environ.pop(name, None)

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"

# A run of these takes well under a second, once Lightning is imported.
SMALL = [
    "data.n_series=3",
    "data.val_series=2",
    "data.length=120",
    "data.window=8",
    "data.gamma=0.9",
    "model.dense=[8]",
    "model.hidden=[8]",
    "schedule.chunks=[10,2,1]",
    "epochs=3",
    "progress=none",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory, where runs leave what they leave."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config() -> Callable[..., DictConfig]:
    """Composes the shipped config with overrides, as train.py does."""

    def composed(*overrides: str) -> DictConfig:
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", list(overrides))

    return composed


@pytest.fixture
def small(config: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """The same, on small data, with a small network."""
    return lambda *overrides: config(*SMALL, *overrides)
