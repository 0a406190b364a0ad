"""Building a network from a config."""

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
        ValueError: ``build`` raised an error or did not return a network. The message is a line that names the option.
    """
    with said_of(type(model), f"model={model.name}: build"):
        network = model.build(inputs, outputs)
    if problem := _lacks(network):
        raise ValueError(f"model={model.name}: {problem}")
    return cast(Network, network)


def outline(model: ModelConfig, inputs: int, outputs: int) -> Network | None:
    """A network whose tensors have shapes but no numbers, and so take no memory. None if it cannot be built so."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # building the real network gives the same warnings
            return build_network(model, inputs, outputs)
    except (ValueError, RuntimeError):
        return None


def _lacks(module: object) -> str | None:
    """Why an object is no network, as far as can be told without calling it; None if nothing is wrong."""
    if not isinstance(module, nn.Module):
        return f"build gives a {type(module).__name__}; takes an nn.Module"
    if not callable(getattr(module, "zero_state", None)):
        return f"its {type(module).__name__} has no zero_state(batch)"
    if any(map(nn.parameter.is_lazy, module.parameters())):
        return "it has lazy layers; takes layers that are told their sizes"
    return None
