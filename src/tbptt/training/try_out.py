"""Whether an optimizer that nobody has tested can step as training calls it, seen before a run begins with it."""

from inspect import Parameter, signature

import torch

from tbptt.models.protocol import Network
from tbptt.options.own import said_of
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import optimizer_of
from tbptt.training.options import OptimizerConfig

RIGHT = "takes step(self, closure=None), which needs no closure: when it is called, the gradient is there"


def try_optimizer(config: OptimizerConfig, network: Network) -> None:
    """Build an optimizer of a network's parameters, and make one step with a small gradient; the network is not one to
    train afterwards.

    Raises:
        ValueError: it cannot be built or stepped; a line that names the option.
    """
    parameters = FlatParameters(network)
    with said_of(type(config), f"optimizer={config.name}: building it"):
        optimizer = optimizer_of(config, parameters)
    parameters.attach()
    parameters.grad.fill_(1e-3)
    try:
        with said_of(type(config), f"optimizer={config.name}: step()"), torch.no_grad():
            optimizer.step()  # Lightning gives a closure that does nothing, which would hide that one is needed
    except ValueError as error:
        raise ValueError(f"{error}; {RIGHT}" if "closure" in str(error) else str(error)) from error
    takes = signature(optimizer.step).parameters
    if "closure" not in takes and not any(each.kind is Parameter.VAR_KEYWORD for each in takes.values()):
        raise ValueError(f"optimizer={config.name}: its step() has no parameter closure; {RIGHT}")
