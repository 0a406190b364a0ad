"""Recurrent states. A state is any tree of tensors: a tensor, None, or a dict, list, tuple or namedtuple of trees.

PyTorch's own functions for trees are private (torch.utils._pytree), so this module has the few that are needed.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from tbptt.models.protocol import Network

State = Any  # such a tree


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in an order that depends only on its form. Raises TypeError if it is no such tree."""
    found: list[Tensor] = []
    _collect(state, found)
    return found


def with_places(state: State, place: str = "state") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state, each with its place, such as ``state['h'][0]``."""
    if isinstance(state, Tensor):
        yield place, state
    elif isinstance(state, Mapping):
        for name in _in_order(state):
            yield from with_places(state[name], f"{place}[{name!r}]")
    elif isinstance(state, list | tuple):
        for i, part in enumerate(state):
            yield from with_places(part, f"{place}[{i}]")
    elif state is not None:
        raise TypeError(_no_tree(place, state))


def rebuild(state: State, tensors: Iterable[Tensor]) -> State:
    """A tree of the same form with other tensors, which are given in the order of :func:`leaves`."""
    return _rebuilt(state, iter(tensors))


def detach(state: State) -> State:
    """The same state, detached from the graph that computed it: no gradient passes through it."""
    return rebuild(state, [leaf.detach() for leaf in leaves(state)])


def copy_into(places: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy each tensor into its place. A tensor may be a view of another tensor's place: the result is as if all were
    copied at once."""
    owners = {place.untyped_storage().data_ptr() for place in places}
    given = [
        tensor.clone() if tensor is not place and tensor.untyped_storage().data_ptr() in owners else tensor
        for place, tensor in zip(places, tensors, strict=True)
    ]
    for place, tensor in zip(places, given, strict=True):
        if tensor is not place:
            place.copy_(tensor)


def difference(before: State, after: State) -> str | None:
    """How the state after a chunk differs from the one before in form, shape or type; None if it does not."""
    one, other = dict(with_places(before)), dict(with_places(after))
    for place in one.keys() ^ other.keys():
        return f"{place} is in the state {'before' if place in one else 'after'} a chunk only"
    for place, leaf in one.items():
        new = other[place]
        if (leaf.shape, leaf.dtype) != (new.shape, new.dtype):
            return f"{place} is {_said(leaf)} before a chunk and {_said(new)} after it; takes one shape and type"
    return None


def batch_dims(network: "Network") -> list[int | None]:
    """For each tensor of a network's state, in the order of :func:`leaves`: the dimension that counts the sequences;
    None for a tensor that all sequences share.

    Raises ValueError if a tensor changes more than one of its sizes with the number of sequences.
    """
    one, other = (leaves(network.zero_state(batch)) for batch in (2, 3))
    found: list[int | None] = []
    for a, b in zip(one, other, strict=True):
        dims = [i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n]
        if len(dims) > 1:
            raise ValueError(f"a state of {tuple(a.shape)} for 2 sequences and {tuple(b.shape)} for 3 cannot be parted")
        found.append(dims[0] if dims else None)
    return found


def _collect(state: State, found: list[Tensor]) -> None:
    if isinstance(state, Tensor):
        found.append(state)
    elif isinstance(state, Mapping):
        for name in _in_order(state):
            _collect(state[name], found)
    elif isinstance(state, list | tuple):
        for part in state:
            _collect(part, found)
    elif state is not None:
        raise TypeError(_no_tree("a part of the state", state))


def _in_order(state: Mapping[Any, Any]) -> list[Any]:
    """A dict's keys in sorted order, as ``forward`` may return them in another order than ``zero_state``."""
    return sorted(state, key=str)


def _rebuilt(state: State, tensors: Iterator[Tensor]) -> State:
    if isinstance(state, Tensor):
        return next(tensors)
    if isinstance(state, Mapping):
        new: Any = copy.copy(state)
        for name in _in_order(state):
            new[name] = _rebuilt(state[name], tensors)
        return new
    if isinstance(state, list | tuple):
        parts = [_rebuilt(part, tensors) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def _said(leaf: Tensor) -> str:
    return f"{tuple(leaf.shape)} of {str(leaf.dtype).removeprefix('torch.')}"


def _no_tree(place: str, found: object) -> str:
    return f"{place} is of the type {type(found).__name__}; takes tensors, and dicts, lists and tuples of them"
