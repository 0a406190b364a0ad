"""Trained networks for the tests of what is done with one, without training: of a config and with random weights."""

from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tbptt.config.try_out import input_size
from tbptt.data.features import Scaler
from tbptt.models.build import build_network
from tbptt.serving.source import Source
from tbptt.serving.trained import Trained

Compose = Callable[..., DictConfig]
TINY = ("task.gamma=0.9", "data.window=6", "model.dense=[5]", "model.hidden=[4,7]")


def of_config(config: Compose, *words: str, series: int = 1, network: Any = None, **scaler: Any) -> Trained:
    """A network of a config of tiny sizes and these words, or one that is given, with weights large enough that its
    state matters."""
    cfg = config(*TINY, *words)
    torch.manual_seed(1)
    outputs = OmegaConf.to_object(cfg.task).outputs  # type: ignore[union-attr]
    built: Any = network or build_network(OmegaConf.to_object(cfg.model), input_size(cfg), outputs)  # type: ignore[arg-type]
    for parameter in built.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    ones = torch.arange(1, series + 1, dtype=torch.float64)
    moments = Scaler(0.1 * ones, 3 * ones, torch.randn(series, outputs).double(), 2 * ones, fee=0.05 * ones)
    moments = Scaler(**{**moments.state_dict(), **scaler})
    return Trained(built.eval(), moments, cfg, None, Source({}, "run x", run_id="x"))
