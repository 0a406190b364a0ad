"""From a config to a network."""

from tbptt.models.article import QNetwork
from tbptt.models.options import ModelConfig


def build_network(model: ModelConfig, inputs: int, outputs: int) -> QNetwork:
    """The network that a model config describes, for so many features and predictions a step, with fresh weights."""
    return QNetwork(inputs, model.dense, model.hidden, model.cell, model.noise_std, model.init, outputs)
