"""All trained parameters as one vector, so that the optimizer, clipping and the finite check each touch one tensor."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tbptt.training.cudnn_blocks import Block, check_in_place
from tbptt.training.cudnn_blocks import blocks as blocks_of

_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a number


class Steps(Protocol):
    """An optimizer, or Lightning's wrapper around one."""

    def step(self) -> Any: ...


class Module(Protocol):
    """The methods of an ``nn.Module`` that are used here."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def modules(self) -> Iterator[nn.Module]: ...


def why_not_flat(module: Module) -> str | None:
    """Why the trained parameters of a module cannot be one vector; None if they can. A shared parameter counts once, a
    frozen one does not count."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        return "the network has no parameters that are trained"
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in trained})
    if len(kinds) > 1 or not trained[0].is_floating_point():
        return f"the network trains parameters of the types {', '.join(kinds)}; takes one floating-point type"
    return None


class FlatParameters:
    """All trained parameters of a module as one vector, and all their gradients as another.

    The module's parameters become views of the vector. Make this after the module is on its device. An optimizer that
    works element by element gets the vector and computes the same numbers as on separate tensors. Any other optimizer
    gets the separate tensors. These are views of the vector too, and their gradients are views of its gradient.

    On a GPU, each recurrent layer is a block of the vector, with its frozen biases, laid out as cuDNN wants it
    (cudnn_blocks.py), and each block has a storage of its own. Otherwise cuDNN would copy the weights together at every
    call. Frozen biases, and elements that no parameter has, are zero and get no gradient, so every optimizer leaves
    them zero. A layer with other frozen parameters is no block, as weight decay would change them.

    Args:
        blocks: whether recurrent layers are blocks. By default they are on a GPU only.

    Raises:
        ValueError: the parameters cannot be one vector; see :func:`why_not_flat`.

    Attributes:
        vector: (P,) an nn.Parameter; its ``grad`` is the whole gradient.
        named: the module's trained parameters by their names, views of the vector.
        grads: one view of ``vector.grad`` per trained parameter.
        weights: the trained parameters, detached from autograd.
    """

    ALIGNED = 64  # elements; cuDNN's kernels read several at once

    def __init__(self, module: Module, blocks: bool | None = None):
        if problem := why_not_flat(module):
            raise ValueError(problem)
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        parameters = list(self.named.values())
        first = parameters[0]
        laid_out = blocks_of(module) if (blocks if blocks is not None else first.is_cuda) else []
        starts, begins, length = self._layout(parameters, laid_out)
        self.vector = nn.Parameter(first.detach().new_zeros(length))
        self.vector.grad = torch.zeros_like(self.vector)
        weights = self.vector.detach()
        memory: dict[nn.Parameter, tuple[Tensor, int]] = {}  # by parameter in a block: the block, and where it begins
        for block, begin in zip(laid_out, begins, strict=True):
            # DLPack is the only way to get a tensor with a storage of its own on this part of the vector's memory.
            own = torch.utils.dlpack.from_dlpack(weights[begin : begin + block.size])
            memory |= dict.fromkeys(block.starts, (own, begin))
        for p, start in starts.items():
            storage, begin = memory.get(p, (weights, 0))
            w = storage[start - begin : start - begin + p.numel()].view_as(p)
            w.copy_(p.detach())
            p.data = w
        self.grads = [self.vector.grad[starts[p] : starts[p] + p.numel()].view_as(p) for p in parameters]
        self.weights = [p.detach() for p in parameters]
        places = [torch.arange(starts[p], starts[p] + p.numel(), device=first.device) for p in parameters]
        self._places = torch.cat(places) if laid_out else None
        self.attach()
        self._before = torch.empty_like(self.vector.detach())
        if first.is_cuda:
            check_in_place(laid_out)

    def _layout(
        self, trained: list[nn.Parameter], laid_out: list[Block]
    ) -> tuple[dict[nn.Parameter, int], list[int], int]:
        """The index in the vector at which each parameter begins, that of each block, and the vector's length."""
        starts: dict[nn.Parameter, int] = {}
        begins: list[int] = []
        length = 0
        for block in laid_out:
            begins.append(-(-length // self.ALIGNED) * self.ALIGNED)
            starts |= {p: begins[-1] + start for p, start in block.starts.items()}
            length = begins[-1] + block.size
        for p in trained:
            if p not in starts:
                starts[p], length = length, length + p.numel()
        return starts, begins, length

    def in_order(self, values: Tensor) -> Tensor:
        """Sort numbers that belong to the vector's elements, (P,), by the module's trained parameters: in an order that
        is the same on every device."""
        return values if self._places is None else values[self._places]

    def from_order(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`in_order`; zero at elements that are not trained."""
        if self._places is None:
            return values
        values = values.to(self.vector.device)
        return values.new_zeros(self.vector.shape).index_copy(0, self._places, values)

    def attach(self) -> None:
        """Let the module's gradients accumulate in the vector's gradient. Call it again after ``module.zero_grad()``,
        which removes them; Lightning calls that around a validation."""
        for p, g in zip(self.named.values(), self.grads, strict=True):
            p.grad = g

    @property
    def grad(self) -> Tensor:
        """(P,) the whole gradient."""
        assert self.vector.grad is not None
        return self.vector.grad

    @torch.no_grad()
    def guarded_step(self, optimizer: Steps, finite: Tensor, share: Tensor | None = None) -> None:
        """Make one update. The weights stay as they were if ``finite`` is False, or if the update makes one of them
        infinite or NaN.

        Args:
            finite: scalar bool tensor, updated in place.
            share: scalar tensor; the weights move by this share of the optimizer's step only. The steps of PyTorch's
                optimizers are proportional to the learning rate, so this is what a lower rate does.
        """
        weights = self.vector.detach()
        self._before.copy_(weights)
        # With a zero gradient instead of a bad one, the optimizer's averages stay finite too.
        as_bits(self.grad).bitwise_and_(bit_mask(finite, self.grad))
        optimizer.step()
        if share is not None:
            torch.lerp(self._before, weights, share, out=weights)
        finite.logical_and_(weights.sum().isfinite())
        before = as_bits(self._before)
        as_bits(weights).bitwise_xor_(before).bitwise_and_(bit_mask(finite, weights)).bitwise_xor_(before)


def as_bits(numbers: Tensor) -> Tensor:
    """The bits of floating-point numbers, as whole numbers in the same memory.

    To choose between two vectors by their bits takes a tenth of the time of ``torch.where`` on a CPU, which computes it
    number by number.
    """
    return numbers.view(_WHOLE[numbers.itemsize])


def bit_mask(condition: Tensor, like: Tensor) -> Tensor:
    """Scalar: all bits 1 if the scalar bool tensor is True, else all 0; in the type that ``as_bits(like)`` has."""
    return condition.to(_WHOLE[like.itemsize]).neg_()
