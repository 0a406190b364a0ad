"""The optimizers that a config can name: PyTorch's own, with Keras's values in conf/optimizer/."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

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


def build_optimizer(parameters: Iterable[nn.Parameter], name: str, **settings: Any) -> torch.optim.Optimizer:
    """The named optimizer on ``parameters``; ``settings`` are the arguments of its PyTorch class."""
    kind, extra = OPTIMIZERS[name]
    if kind is torch.optim.Adagrad:
        parameters = list(parameters)
        if any(p.is_cuda for p in parameters):  # PyTorch has AdaGrad's fused kernel on the CPU only
            extra = {}
    return kind(parameters, **settings, **extra)
