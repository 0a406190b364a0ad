"""From a config to a network."""

from tbptt.models.article import QNetwork
from tbptt.models.options import ModelConfig


def build_network(model: ModelConfig, window: int) -> QNetwork:
    """The network that a model config describes, for ``window`` features a step, with fresh weights."""
    return QNetwork(window, model.dense, model.hidden, model.cell, model.noise_std, model.init)
