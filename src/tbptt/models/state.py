"""A recurrent state is any tree of tensors: a tensor, a dict, list, tuple or namedtuple of trees, None for nothing.

PyTorch's own tree functions are private (torch.utils._pytree), so the few that are needed are here.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

State = Any  # such a tree


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in an order that depends on its form alone. Raises TypeError for what is no tree."""
    found: list[Tensor] = []
    _collect(state, found)
    return found


def with_places(state: State, place: str = "state") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state, each with where it is, as ``state['h'][0]``."""
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
    """A tree of the same form with other tensors, in the order of :func:`leaves`."""
    return _rebuilt(state, iter(tensors))


def detach(state: State) -> State:
    """The same state, cut off from what computed it: no gradient passes."""
    return rebuild(state, [leaf.detach() for leaf in leaves(state)])


def copy_into(places: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Write each tensor into its place, as if all were written at once: a tensor may be a view of another's place."""
    owners = {place.untyped_storage().data_ptr() for place in places}
    given = [
        tensor.clone() if tensor is not place and tensor.untyped_storage().data_ptr() in owners else tensor
        for place, tensor in zip(places, tensors, strict=True)
    ]
    for place, tensor in zip(places, given, strict=True):
        if tensor is not place:
            place.copy_(tensor)


def difference(before: State, after: State) -> str | None:
    """How the state after a chunk differs in form from the one before; None where it does not."""
    one, other = dict(with_places(before)), dict(with_places(after))
    for place in one.keys() ^ other.keys():
        return f"{place} is in the state {'before' if place in one else 'after'} a chunk only"
    for place, leaf in one.items():
        new = other[place]
        if (leaf.shape, leaf.dtype) != (new.shape, new.dtype):
            return f"{place} is {_said(leaf)} before a chunk and {_said(new)} after it; takes one shape and type"
    return None


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
    """A dict's keys: forward may give them in another order than zero_state."""
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
