"""The weights of recurrent layers in memory as cuDNN wants them: each layer one block.

Otherwise cuDNN would copy a layer's weights together at every call.
"""

import copy
import logging
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

log = logging.getLogger("tbptt")

COPIES = "not part of single contiguous chunk"  # of PyTorch's warning that a layer's weights are copied at every call


class Module(Protocol):
    """The methods of an ``nn.Module`` that are used here."""

    def modules(self) -> Iterable[nn.Module]: ...


class Block(NamedTuple):
    """Where the parameters of one recurrent layer lie in its block of memory.

    Attributes:
        layer: the layer.
        starts: each parameter, and the element of the block at which it begins.
        size: elements of the block, also those that no parameter has.
    """

    layer: nn.RNNBase
    starts: dict[nn.Parameter, int]
    size: int


def blocks(module: Module) -> list[Block]:
    """A block for each recurrent layer that can have one: it shares no parameter, and its frozen ones are 0."""
    found: list[Block] = []
    taken: set[nn.Parameter] = set()
    for layer in (m for m in module.modules() if isinstance(m, nn.RNNBase)):
        parameters = list(layer.parameters())
        frozen = [p for p in parameters if not p.requires_grad]
        is_own = taken.isdisjoint(parameters)
        if is_own and len(frozen) < len(parameters) and not any(bool(p.any()) for p in frozen):
            found.append(_laid_out(layer, parameters))
            taken |= set(parameters)
    return found


def _laid_out(layer: nn.RNNBase, parameters: list[nn.Parameter]) -> Block:
    """The block of a layer. What cuDNN wants is read from a copy of the layer, which PyTorch lays out for it. Where it
    does not, as on a CPU, the parameters lie one after the other."""
    other = copy.deepcopy(layer)
    other.flatten_parameters()
    laid_out = list(other.parameters())
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in laid_out}
    if len(laid_out) > 1 and len(storages) == 1:
        (storage,) = storages.values()
        starts = [int(p.storage_offset()) for p in laid_out]
        return Block(layer, dict(zip(parameters, starts, strict=True)), storage.nbytes() // laid_out[0].itemsize)
    starts, size = [], 0
    for p in parameters:
        starts.append(size)
        size += p.numel()
    return Block(layer, dict(zip(parameters, starts, strict=True)), size)


def check_in_place(laid_out: Iterable[Block]) -> None:
    """Warn, once in a process, if PyTorch says that cuDNN does not read the weights where they are."""
    if any(is_copied(block.layer) for block in laid_out):
        _say_that_weights_are_copied()


def is_copied(layer: nn.RNNBase) -> bool:
    """Whether PyTorch warns that a layer's weights are copied together at every call. Calls the layer on one step."""
    kind: Any = next((kind for kind in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(layer, kind)), None)
    if kind is None:
        return False
    weight = next(layer.parameters())
    x = weight.new_zeros(1, 1, layer.input_size)
    devices = [weight.device] if weight.is_cuda else []
    with torch.random.fork_rng(devices), torch.no_grad(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kind.forward(layer, x)  # as on a GPU, whatever the layer itself would do
    return any(COPIES in str(warning.message) for warning in said)


@cache
def _say_that_weights_are_copied() -> None:
    log.warning(
        "cuDNN does not read the recurrent layers' weights where they are, but copies them at every call: training "
        "computes the same, more slowly"
    )
