"""Gradient clipping: four shipped modes, and modes of your own (clip_modes.py). All compute and return their results on
the device, so that the host does not wait."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tbptt.options.own import said_of
from tbptt.training.clip_modes import CLIP_MODE, OWN, Clip, Gradient


def _norm(gradient: Gradient, clip: float) -> Tensor:
    """Scale the whole gradient down to the norm ``clip`` (Keras 2.2's ``clipnorm``; Pascanu et al., 2013)."""
    gradient.flat.mul_(clip / gradient.norm.clamp(min=clip))
    return gradient.norm > clip


def _tensor_norm(gradient: Gradient, clip: float) -> Tensor:
    """Scale each parameter's gradient down to the norm ``clip`` by itself (Keras's ``clipnorm`` today)."""
    norms = torch.stack([torch.linalg.vector_norm(g) for g in gradient.parts])
    for g, n in zip(gradient.parts, norms.unbind(), strict=True):
        g.mul_(clip / n.clamp(min=clip))
    return (norms > clip).any()


def _value(gradient: Gradient, clip: float) -> Tensor:
    """Clamp each element to [-clip, clip]."""
    changed = gradient.flat.abs().amax() > clip
    gradient.flat.clamp_(-clip, clip)
    return changed


def _std(gradient: Gradient, clip: float) -> Tensor:
    """Clamp the elements of each parameter's gradient to its mean ± clip · (its population standard deviation)."""
    outside = []
    for g in gradient.parts:
        std, mean = torch.std_mean(g, correction=0)
        low, high = mean - clip * std, mean + clip * std
        smallest, largest = torch.aminmax(g)
        outside.append((smallest < low) | (largest > high))
        g.clamp_(low, high)
    return torch.stack(outside).any()


MODES: dict[str, Clip] = {"norm": _norm, "tensor_norm": _tensor_norm, "value": _value, "std": _std}


@torch.no_grad()
def clip_gradients(
    flat: Float[Tensor, " P"],
    parts: Sequence[Tensor],
    clip: float | None,
    mode: str,
    weights: Sequence[Tensor] = (),
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Bound the gradient in place.

    Args:
        flat: (P,) the whole gradient.
        parts: one tensor per parameter, views of ``flat``.
        clip: above 0, or None for no clipping.
        mode: one of MODES, or a mode of your own.
        weights: the parameters, in the order of ``parts``; only modes of your own use them.

    Returns:
        The global norm before clipping, and whether clipping changed anything (0 or 1): two scalars on the device.
    """
    norm = torch.linalg.vector_norm(flat)
    if clip is None:
        return norm, torch.zeros_like(norm)
    gradient = Gradient(flat, parts, weights, norm)
    if mode in MODES:
        return norm, MODES[mode](gradient, clip).to(norm.dtype)
    if mode not in OWN:
        raise ValueError(f"clip mode {mode!r} is not {CLIP_MODE.text}")
    with said_of(OWN[mode], f"clip_mode={mode}:"):
        changed = OWN[mode](gradient, clip)
    if not isinstance(changed, Tensor) or changed.dim() != 0:
        takes = "takes a scalar tensor: whether it changed the gradient"
        raise ValueError(f"clip_mode={mode}: returned {changed!r}; {takes}")
    return norm, changed.to(norm.dtype)
