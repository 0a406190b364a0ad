"""The optimizers that a config can name: PyTorch's own, with Keras's values in conf/optimizer/."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from tbptt.flat import FlatParameters

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    # fused: one kernel for the whole update, on the CPU too
    "sgd": (torch.optim.SGD, {"fused": True}),
    "momentum": (torch.optim.SGD, {"fused": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "adagrad": (torch.optim.Adagrad, {"fused": True}),
    "adadelta": (torch.optim.Adadelta, {}),
}


def build_optimizer(
    parameters: Iterable[nn.Parameter], name: str, *, capturable: bool = False, **settings: Any
) -> torch.optim.Optimizer:
    """The named optimizer on ``parameters``.

    Args:
        capturable: whether a CUDA graph is to hold its step.
        settings: the arguments of its PyTorch class.
    """
    kind, extra = OPTIMIZERS[name]
    if kind is torch.optim.Adagrad:
        parameters = list(parameters)
        if any(p.is_cuda for p in parameters):  # PyTorch has AdaGrad's fused kernel on the CPU only
            extra = {}
    if capturable and "capturable" in signature(kind).parameters:  # the others can be as they are
        extra = {**extra, "capturable": True}
    return kind(parameters, **settings, **extra)


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
