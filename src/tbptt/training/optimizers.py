"""Build the optimizers that a config can name: PyTorch's, with Keras's values in conf/optimizer/, and your own."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn

from tbptt.options.option import GROUPS
from tbptt.training.flat import FlatParameters
from tbptt.training.options import OptimizerConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], name: str, *, capturable: bool = False, **settings: Any
) -> torch.optim.Optimizer:
    """The named optimizer on ``parameters``.

    Args:
        capturable: whether a CUDA graph is to hold its step.
        settings: the arguments of its PyTorch class.
    """
    kind = cast(type[OptimizerConfig], GROUPS["optimizer"][name]).kind()
    vectors, takes, extra = list(parameters), signature(kind).parameters, dict[str, Any]()
    of_torch = kind.__module__.startswith("torch.optim")
    on_gpu = any(p.is_cuda for p in vectors)
    if of_torch and "fused" in takes and not (on_gpu and kind is torch.optim.Adagrad):  # it has it on the CPU only
        extra["fused"] = True  # one kernel for the whole update
    if capturable and "capturable" in takes:  # the others can be as they are
        extra["capturable"] = True
    return kind(vectors, **settings, **extra)


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: FlatParameters) -> dict[str, Any]:
    """The ``state_dict`` of an optimizer on a vector of parameters, in an order that is the same on every device."""
    return {**optimizer.state_dict(), "state": _state(optimizer.state_dict()["state"], parameters.in_order)}


def load_optimizer(optimizer: torch.optim.Optimizer, parameters: FlatParameters, saved: dict[str, Any]) -> None:
    """Go on from an :func:`optimizer_state`, of whatever device; settings stay the optimizer's own, some of which
    belong to a device."""
    state = _state(saved["state"], parameters.from_order)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _state(state: dict[Any, dict[str, Any]], convert: Callable[[Tensor], Tensor]) -> dict[Any, dict[str, Any]]:
    """Whatever there is for each element of the vector, converted."""
    return {
        number: {k: convert(v) if isinstance(v, Tensor) and v.dim() == 1 else v for k, v in of_one.items()}
        for number, of_one in state.items()
    }
