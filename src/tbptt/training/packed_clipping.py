"""Gradient clipping of many trials at once, each with its own value: the modes of clipping.py, a row a trial."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tbptt.models.packed import Place
from tbptt.training.clipping import clip_gradients

# Bounds the gradients (R, P) in place, given their parts, the values (R, 1) and the norms (R, 1). Returns whether it
# changed each, (R,) or (R, 1).
ClipRows = Callable[[Tensor, Sequence[Tensor], Tensor, Tensor], Tensor]


def _norm(grad: Tensor, parts: Sequence[Tensor], clip: Tensor, norm: Tensor) -> Tensor:
    grad.mul_(torch.maximum(norm, clip).reciprocal() * clip)
    return norm > clip


def _tensor_norm(grad: Tensor, parts: Sequence[Tensor], clip: Tensor, norm: Tensor) -> Tensor:
    norms = torch.cat([torch.linalg.vector_norm(g, dim=1, keepdim=True) for g in parts], dim=1)  # (R, parts)
    factors = torch.maximum(norms, clip).reciprocal() * clip
    for i, g in enumerate(parts):
        g.mul_(factors[:, i : i + 1])
    return (norms > clip).any(1)


def _value(grad: Tensor, parts: Sequence[Tensor], clip: Tensor, norm: Tensor) -> Tensor:
    changed = grad.abs().amax(1, keepdim=True) > clip
    grad.clamp_(-clip, clip)
    return changed


def _std(grad: Tensor, parts: Sequence[Tensor], clip: Tensor, norm: Tensor) -> Tensor:
    outside = []
    for g in parts:
        std, mean = torch.std_mean(g, dim=1, correction=0, keepdim=True)
        low, high = mean - clip * std, mean + clip * std
        smallest, largest = torch.aminmax(g, dim=1, keepdim=True)
        outside.append((smallest < low) | (largest > high))
        g.clamp_(low, high)
    return torch.cat(outside, dim=1).any(1)


ROW_MODES: dict[str, ClipRows] = {"norm": _norm, "tensor_norm": _tensor_norm, "value": _value, "std": _std}


@torch.no_grad()
def clip_rows(
    grad: Float[Tensor, "R P"],
    weights: Float[Tensor, "R P"],
    places: Mapping[str, Place],
    mode: str | None,
    values: Float[Tensor, "R 1"],
    value: float | None,
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Bound the gradients of trials that clip in one mode, in place.

    A mode of your own is called once for each row.

    Args:
        weights: the parameters; only modes of your own use them.
        places: where each parameter lies in a row.
        mode: None for no clipping.
        values: each trial's, above 0, in the gradient's type.
        value: a mode of your own takes one number, which all of these trials have.

    Returns:
        Each trial's norm before clipping, and whether clipping changed anything (0 or 1).
    """
    norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
    if mode is None:
        return norm[:, 0], torch.zeros_like(norm[:, 0])
    if mode in ROW_MODES:
        changed = ROW_MODES[mode](grad, [grad[:, p.start : p.stop] for p in places.values()], values, norm)
        return norm[:, 0], changed.reshape(-1).to(norm.dtype)
    found = []
    for one, w in zip(grad.unbind(), weights.unbind(), strict=True):
        parts, of_weights = ([row[p.start : p.stop].view(p.shape) for p in places.values()] for row in (one, w))
        found.append(clip_gradients(one, parts, value, mode, of_weights)[1])
    return norm[:, 0], torch.stack(found)
