"""From a config to a network."""

import warnings
from typing import cast

import torch
from torch import nn

from tbptt.models.options import ModelConfig
from tbptt.models.protocol import Network
from tbptt.options.own import said_of


def build_network(model: ModelConfig, inputs: int, outputs: int) -> Network:
    """The network that a model config describes, with fresh weights.

    Args:
        inputs: features a step, D.
        outputs: predictions a step, O.

    Raises:
        ValueError: its ``build`` raised something, or gives no network; a line that names the option.
    """
    with said_of(type(model), f"model={model.name}: build"):
        network = model.build(inputs, outputs)
    if problem := _lacks(network):
        raise ValueError(f"model={model.name}: {problem}")
    return cast(Network, network)


def outline(model: ModelConfig, inputs: int, outputs: int) -> Network | None:
    """The shapes of a network without their numbers, which take no memory; None where it can only be built whole."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is built in earnest too
            return build_network(model, inputs, outputs)
    except (ValueError, RuntimeError):
        return None


def _lacks(module: object) -> str | None:
    """What an object lacks to be a network, as can be told without calling it."""
    if not isinstance(module, nn.Module):
        return f"build gives a {type(module).__name__}; takes an nn.Module"
    if not callable(getattr(module, "zero_state", None)):
        return f"its {type(module).__name__} has no zero_state(batch)"
    if any(map(nn.parameter.is_lazy, module.parameters())):
        return "it has lazy layers; takes layers that are told their sizes"
    return None
