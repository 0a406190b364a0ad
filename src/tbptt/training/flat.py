"""All that is trained as one vector: the optimizer, clipping and the finite check touch one tensor instead of many."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Steps(Protocol):
    """An optimizer, or Lightning's wrapper around one."""

    def step(self) -> Any: ...


class Module(Protocol):
    """What is needed of an ``nn.Module``."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def modules(self) -> Iterator[nn.Module]: ...


def why_not_flat(module: Module) -> str | None:
    """Why the trained parameters of a module cannot be one vector; None where they can. Parameters that are shared
    count once, frozen ones not at all."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        return "the network has no parameters that are trained"
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in trained})
    if len(kinds) > 1 or not trained[0].is_floating_point():
        return f"the network trains parameters of the types {', '.join(kinds)}; takes one floating-point type"
    return None


class FlatParameters:
    """All trained parameters of a module as one vector, and all their gradients as another.

    The module's parameters become views of the vector, so optimizer, clipping and the finite check each touch one
    tensor instead of many. Make it after the module is on its device. An optimizer that works element by element gets
    the vector: the numbers are those of the separate tensors. Any other gets the tensors, which lie in the vector all
    the same, and their gradients in its gradient.

    On a GPU each recurrent layer is a block of the vector, its frozen biases included, and has it as a memory of its
    own: only so does cuDNN read the weights where they are, instead of copying them together at every call. Frozen
    biases are zero and get no gradient, which leaves them so with every optimizer. A layer with anything else that is
    frozen is no block: weight decay would change it.

    Args:
        blocks: whether recurrent layers are blocks; on a GPU by default.

    Raises:
        ValueError: the parameters cannot be one vector; see :func:`why_not_flat`.

    Attributes:
        vector: (P,) nn.Parameter whose ``grad`` is the whole gradient.
        named: the module's trained parameters by their names, views of the vector.
        grads: one view of ``vector.grad`` a trained parameter.
        weights: the trained parameters without autograd.
    """

    ALIGNED = 64  # elements; cuDNN's kernels read several at once

    def __init__(self, module: Module, blocks: bool | None = None):
        if problem := why_not_flat(module):
            raise ValueError(problem)
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        parameters = list(self.named.values())
        first = parameters[0]
        layers = _blocks(module) if (blocks if blocks is not None else first.is_cuda) else []
        starts, length = self._layout(parameters, layers)
        self.vector = nn.Parameter(first.detach().new_zeros(length))
        self.vector.grad = torch.zeros_like(self.vector)
        weights = self.vector.detach()
        memory: dict[nn.Parameter, tuple[Tensor, int]] = {}  # of one in a block: the block, and where that begins
        for layer in layers:
            begin, end = starts[layer[0]], starts[layer[-1]] + layer[-1].numel()
            # The one way to a tensor with a storage of its own over this part of the vector's.
            block = torch.utils.dlpack.from_dlpack(weights[begin:end])
            memory |= dict.fromkeys(layer, (block, begin))
        for p, start in starts.items():
            storage, begin = memory.get(p, (weights, 0))
            w = storage[start - begin : start - begin + p.numel()].view_as(p)
            w.copy_(p.detach())
            p.data = w
        self.grads = [self.vector.grad[starts[p] : starts[p] + p.numel()].view_as(p) for p in parameters]
        self.weights = [p.detach() for p in parameters]
        places = [torch.arange(starts[p], starts[p] + p.numel(), device=first.device) for p in parameters]
        self._places = torch.cat(places) if layers else None
        self.attach()
        self._before = torch.empty_like(self.vector.detach())
        self._zero = self._before.new_zeros(())

    def _layout(
        self, trained: list[nn.Parameter], layers: list[list[nn.Parameter]]
    ) -> tuple[dict[nn.Parameter, int], int]:
        """Where in the vector each parameter begins, and the vector's length."""
        starts: dict[nn.Parameter, int] = {}
        length = 0
        for layer in layers:
            length = -(-length // self.ALIGNED) * self.ALIGNED
            for p in layer:
                starts[p], length = length, length + p.numel()
        for p in trained:
            if p not in starts:
                starts[p], length = length, length + p.numel()
        return starts, length

    def in_order(self, values: Tensor) -> Tensor:
        """What belongs to the vector, element by element, in the order of the module's trained parameters: (P,) → the
        same on every device."""
        return values if self._places is None else values[self._places]

    def from_order(self, values: Tensor) -> Tensor:
        """The way back from :meth:`in_order`, zero where nothing is trained."""
        if self._places is None:
            return values
        values = values.to(self.vector.device)
        return values.new_zeros(self.vector.shape).index_copy(0, self._places, values)

    def attach(self) -> None:
        """Let the module's gradients accumulate in the vector (again: ``module.zero_grad()``, which Lightning calls
        around a validation, takes them away)."""
        for p, g in zip(self.named.values(), self.grads, strict=True):
            p.grad = g

    @property
    def grad(self) -> Tensor:
        """(P,) the whole gradient."""
        assert self.vector.grad is not None
        return self.vector.grad

    @torch.no_grad()
    def guarded_step(self, optimizer: Steps, finite: Tensor) -> None:
        """One update; where ``finite`` is False, or becomes False by the update itself, the weights stay as they are.

        Args:
            finite: scalar bool tensor, updated in place.
        """
        weights = self.vector.detach()
        self._before.copy_(weights)
        # A zero gradient instead of a bad one keeps the optimizer's own averages finite too.
        torch.where(finite, self.grad, self._zero, out=self.grad)
        optimizer.step()
        finite.logical_and_(weights.sum().isfinite())
        torch.where(finite, weights, self._before, out=weights)


def _blocks(module: Module) -> list[list[nn.Parameter]]:
    """The parameters of each recurrent layer that can be a block: all of them its own, those that are frozen zero."""
    layers: list[list[nn.Parameter]] = []
    taken: set[nn.Parameter] = set()
    for layer in (m for m in module.modules() if isinstance(m, nn.RNNBase)):
        parameters = list(layer.parameters())
        frozen = [p for p in parameters if not p.requires_grad]
        is_own = taken.isdisjoint(parameters)
        if is_own and len(frozen) < len(parameters) and not any(bool(p.any()) for p in frozen):
            layers.append(parameters)
            taken |= set(parameters)
    return layers
