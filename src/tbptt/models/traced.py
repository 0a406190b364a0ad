"""Recurrent layers while PyTorch writes a network down as a graph: torch.export, torch.compile, torch.jit.trace.

The compiled layers compute on memory, which a graph does not see, and a loop in Python is written down as often as it
ran. So what is exported loops in an operation of PyTorch's that a graph can hold, and its chunks may have any length.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

_PLAIN = (Tensor, nn.Parameter)


def traced(x: Tensor) -> bool:
    """Whether what is computed on ``x`` is written down as a graph, or ``x`` stands for a tensor and has no memory."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in _PLAIN


# Called as ``scan(step, [state…], [inputs…], (constants…))``: for each k along the first dimension of the inputs,
# ``step(state…, inputs[k]…, constants…)`` gives the state after it and outputs, which are no views of what it was given
# and no tensor twice; the result is the state after the last step and the outputs, stacked.
_loop: Any = torch.ops.higher_order.scan


def lstm(
    x: Float[Tensor, "K B D"],
    state: tuple[Float[Tensor, "1 B H"], Float[Tensor, "1 B H"]],
    w_ih: Float[Tensor, "G D"],
    w_hh: Float[Tensor, "G H"],
    bias: Float[Tensor, " G"],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What ``nn.LSTM`` with one layer computes; the arguments are those of :func:`tbptt.models.kernels.lstm`."""

    def step(h: Tensor, c: Tensor, given: Tensor, w_hh: Tensor) -> tuple[Tensor, ...]:
        i, f, new, o = (given + linear(h, w_hh)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * new.tanh()
        h = o.sigmoid() * c.tanh()
        return h, c, h.clone()

    h, c, y = _loop(step, [state[0][0], state[1][0]], [linear(x, w_ih, bias)], (w_hh,))
    return y, (h[None], c[None])


def gru(
    x: Float[Tensor, "K B D"],
    state: Float[Tensor, "1 B H"],
    w_ih: Float[Tensor, "G D"],
    w_hh: Float[Tensor, "G H"],
    b_ih: Float[Tensor, " G"],
    b_hh: Float[Tensor, " G"],
) -> tuple[Tensor, Tensor]:
    """What ``nn.GRU`` with one layer computes: x (K, B, D) and h (1, B, H) → all h (K, B, H) and the last one."""

    def step(h: Tensor, given: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, ...]:
        (r, z, new), (of_r, of_z, of_new) = given.chunk(3, dim=-1), linear(h, w_hh, b_hh).chunk(3, dim=-1)
        new = (new + (r + of_r).sigmoid() * of_new).tanh()
        z = (z + of_z).sigmoid()
        h = (1 - z) * new + z * h
        return h, h.clone()

    h, y = _loop(step, [state[0]], [linear(x, w_ih, b_ih)], (w_hh, b_hh))
    return y, h[None]


def scan(f: Float[Tensor, "T ..."], b: Float[Tensor, "T ..."], h0: Float[Tensor, "..."]) -> Float[Tensor, "T ..."]:
    """What :func:`tbptt.models.scan.scan` computes, without its gradient."""

    def step(h: Tensor, f: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        h = f * h + b
        return h, h.clone()

    found: Tensor = _loop(step, [h0], [f, b], ())[1]
    return found
