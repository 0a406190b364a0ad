"""h_t = f_t · h_{t-1} + b_t over many steps at once, element by element, forward and backward.

The T steps are cut into about √T blocks of about √T steps. First, all blocks are computed together, each from a zero
state: this gives each block's end as a function of its start, end = product · start + rest. Second, these functions
give the start of each block from that of the block before. Third, all blocks are computed together again, each from its
true start. These are about 3·√T steps instead of T, each on √T times as many numbers.

If f is in [0, 1], as a gate is, products of f only shrink. So no logarithms are needed, however many steps there are,
and the rounding error is that of the computation step by step. (A scan in the log domain, such as Heinsen's of 2023,
subtracts sums of logarithms that grow with T. At 20,000 steps they are around 10⁴, and float32 then leaves three
digits.)
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tbptt.models import traced


def scan(f: Float[Tensor, "T ..."], b: Float[Tensor, "T ..."], h0: Float[Tensor, "..."]) -> Float[Tensor, "T ..."]:
    """All h_t of h_t = f_t · h_{t-1} + b_t.

    Args:
        f: (T, ...), the factors, best from 0 to 1; T is at least 1.
        b: (T, ...), the terms that are added.
        h0: (...), the h before the first step.

    Returns:
        (T, ...), all h; differentiable once.
    """
    if torch.compiler.is_exporting():
        return traced.scan(f, b, h0)
    if traced.traced(f):
        return sequential(f, b, h0)
    return _Scan.apply(f, b, h0)


def sequential(f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """The same as :func:`scan`, step by step."""
    steps, h = [], h0
    for f_t, b_t in zip(f, b, strict=True):
        h = f_t * h + b_t
        steps.append(h)
    return torch.stack(steps)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        h = torch.empty_like(b, memory_format=torch.contiguous_format)
        _walk(f, b, h0, h, backwards=False)
        ctx.save_for_backward(f, h, h0)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor) -> Any:
        """The gradient of b_t is g_t = dh_t + f_{t+1} · g_{t+1}: the same recurrence, from the end to the beginning."""
        f, h, h0 = ctx.saved_tensors
        g = torch.empty_like(h)
        g[-1] = dh[-1]
        _walk(f[1:], dh[:-1], g[-1], g[:-1], backwards=True)
        df = torch.empty_like(h)
        torch.mul(g[0], h0, out=df[0])
        torch.mul(g[1:], h[:-1], out=df[1:])
        return df, g, f[0] * g[0]


def _walk(f: Tensor, b: Tensor, start: Tensor, h: Tensor, backwards: bool) -> None:
    """Compute the recurrence into ``h`` (T, ...), with ``start`` (...) as the value before the first step (backwards:
    after the last step)."""
    steps = len(b)
    width = math.isqrt(steps)
    if not width:
        return
    body = width * (steps // width)
    cut = slice(steps - body, steps) if backwards else slice(body)
    f_, b_, h_ = (t[cut].unflatten(0, (-1, width)) for t in (f, b, h))  # (blocks, width, ...)
    within, blocks = list(range(width)), list(range(len(b_)))
    rest = list(range(body, steps))
    if backwards:
        within, blocks, rest = within[::-1], blocks[::-1], list(range(steps - body))[::-1]

    product, end = f_[:, within[0]].clone(), b_[:, within[0]].clone()  # of each block: (blocks, ...)
    for j in within[1:]:
        product.mul_(f_[:, j])
        torch.addcmul(b_[:, j], f_[:, j], end, out=end)
    starts = torch.empty_like(end)
    before = start
    for i in blocks:
        starts[i] = before
        before = torch.addcmul(end[i], product[i], before)
    before = starts
    for j in within:
        before = torch.addcmul(b_[:, j], f_[:, j], before, out=h_[:, j])
    last = h[cut][0 if backwards else -1]
    for t in rest:
        last = torch.addcmul(b[t], f[t], last, out=h[t])
