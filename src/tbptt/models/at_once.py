"""A whole network of the compiled layers (kernels.py) in one call forward and one backward.

Where chunks are short, most of an update's time would be between the calls of its layers: with chunks of one step an
update takes two thirds of the time, with chunks of 200 steps it is 2 % less.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tbptt.models import kernels


class Noise(NamedTuple):
    """The noise of a call of :func:`network`: what :func:`tbptt.models.kernels.noise` takes for the first layer that
    has some. Each further layer has the next call.

    Attributes:
        first_step: the step of the chunk at which the call begins.
    """

    table: Tensor
    first_step: int
    seed: int
    counter: tuple[int, int, int]


def network(
    x: Float[Tensor, "T B I"],
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    layers: tuple[int, int],
    noise: Noise | None,
) -> tuple[Float[Tensor, "T B O"], list[Tensor]]:
    """Dense layers with tanh, recurrent layers and a linear one, in one call, to be trained: the same numbers as from
    layer to layer. Noise is added between any two layers but the last two.

    Args:
        x: (T, B, I).
        state: of each recurrent layer h, and c of an LSTM, (1, B, H) each.
        weights: of each dense layer weight and bias, of each recurrent one w_ih, w_hh, b_ih and b_hh, of the linear one
            weight and bias.
        layers: how many are dense, and how many recurrent.

    Returns:
        (T, B, O), and the state after the last step.
    """
    dense, recurrent = layers
    is_lstm = len(state) > recurrent
    of_noise = (1, noise.first_step, noise.seed, *noise.counter) if noise else (0,) * 6
    sizes = layer_sizes(x, state, weights, dense, is_lstm)
    plan = (*x.shape, len(weights[-1]), dense, recurrent, int(is_lstm), 1, *of_noise, *sizes)
    y, *after = _Network.apply(plan, noise and noise.table, x, len(state), *state, *weights)
    return y, after


def layer_sizes(x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], dense: int, is_lstm: bool) -> list[int]:
    """The sizes of the dense and recurrent layers. Raises as :func:`tbptt.models.kernels.check` does."""
    _, batch, size = x.shape
    sizes: list[int] = []
    biases = weights[1 : 2 * dense : 2]
    for weight, bias in zip(weights[: 2 * dense : 2], biases, strict=True):
        kernels.check(x.dtype, (weight, (len(bias), size)), (bias, (len(bias),)))
        size = len(bias)
        sizes.append(size)
    parts, gates = (2, 4) if is_lstm else (1, 3)
    for i, first in enumerate(range(2 * dense, len(weights) - 2, 4)):
        w_ih, w_hh, *two = weights[first : first + 4]
        hidden = w_hh.shape[1]
        kernels.check(x.dtype, (w_ih, (gates * hidden, size)), (w_hh, (gates * hidden, hidden)))
        kernels.check(x.dtype, *((bias, (gates * hidden,)) for bias in two))
        kernels.check(x.dtype, *((each, (1, batch, hidden)) for each in state[i * parts : (i + 1) * parts]))
        size = hidden
        sizes.append(size)
    weight, bias = weights[-2:]
    kernels.check(x.dtype, (weight, (len(bias), size)), (bias, (len(bias),)))
    return sizes


def pointers(tensors: Sequence[Tensor]) -> Any:
    """An array of the tensors' addresses."""
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, numbers: tuple[int, ...], table: Tensor | None, x: Tensor, states: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        x = x.contiguous()
        tensors = tuple(t.contiguous() for t in tensors)
        state, weights = tensors[:states], tensors[states:]
        found, prefix = kernels.library(), kernels.PREFIX[x.dtype]
        assert found is not None
        plan = (ctypes.c_long * len(numbers))(*numbers)
        ctx.plan, ctx.states, ctx.room = plan, states, getattr(found, prefix + "network_room")(plan)
        y, after = x.new_empty(*x.shape[:2], numbers[3]), [torch.empty_like(t) for t in state]
        kept, room = x.new_empty(getattr(found, prefix + "network_kept")(plan)), x.new_empty(ctx.room)
        getattr(found, prefix + "network_forward")(
            *(plan, pointers(weights), pointers(state), x.data_ptr(), None if table is None else table.data_ptr()),
            *(y.data_ptr(), pointers(after), kept.data_ptr(), room.data_ptr()),
        )
        ctx.save_for_backward(x, kept, *weights)
        return y, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *dafter: Tensor) -> Any:
        x, kept, *weights = ctx.saved_tensors
        dstate = [d.clone(memory_format=torch.contiguous_format) for d in dafter]
        dx = torch.empty_like(x) if ctx.needs_input_grad[2] else None
        dweights = [torch.empty_like(w) for w in weights]
        dy, room = dy.contiguous(), x.new_empty(ctx.room)
        getattr(kernels.library(), kernels.PREFIX[x.dtype] + "network_backward")(
            *(ctx.plan, pointers(weights), x.data_ptr(), kept.data_ptr(), dy.data_ptr(), pointers(dstate)),
            *(None if dx is None else dx.data_ptr(), pointers(dweights), room.data_ptr()),
        )
        return None, None, dx, None, *dstate, *dweights
