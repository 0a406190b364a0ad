"""Keras's eps on PyTorch's optimizers: what RMSprop, Adam and AdamW need to make Keras's updates.

``tests/test_keras.py`` holds these against Keras itself; ``keras_parity.py`` trains with them.
"""

from itertools import count
from math import sqrt
from typing import Any

import torch
from torch import Tensor


class RMSprop(torch.optim.Optimizer):
    """s = alpha·s + (1-alpha)·g²; w -= lr·g / sqrt(s + eps). PyTorch's RMSprop has eps outside the square root."""

    def __init__(self, params: Any, lr: float, alpha: float, eps: float):
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                mean: Tensor = self.state[p].setdefault("square_avg", torch.zeros_like(p))
                mean.mul_(group["alpha"]).addcmul_(p.grad, p.grad, value=1 - group["alpha"])
                p.addcdiv_(p.grad, (mean + group["eps"]).sqrt(), value=-group["lr"])


def with_keras_eps(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An Adam or AdamW that has made no step yet, and from now on makes Keras's.

    PyTorch adds eps to sqrt(v̂), where v̂ = v / (1 - β₂^t); Keras adds it to sqrt(v). So Keras's is PyTorch's with
    eps / sqrt(1 - β₂^t) at step t: 32 times as large at first, and the same in the end.
    """
    steps, eps = count(1), [group["eps"] for group in optimizer.param_groups]

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        t = next(steps)
        for group, of_keras in zip(optimizer.param_groups, eps, strict=True):
            group["eps"] = of_keras / sqrt(1 - group["betas"][1] ** t)

    optimizer.register_step_pre_hook(before)
    return optimizer


def as_keras(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A new RMSprop, Adam or AdamW of PyTorch, of the same settings with Keras's eps."""
    if isinstance(optimizer, torch.optim.RMSprop):
        groups = [{key: group[key] for key in ("params", "lr", "alpha", "eps")} for group in optimizer.param_groups]
        return RMSprop(groups, **{key: groups[0][key] for key in ("lr", "alpha", "eps")})
    return with_keras_eps(optimizer)
