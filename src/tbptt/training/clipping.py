"""Four ways to bound a gradient, and those of your own (clip_modes.py). All work on the device and return what they saw
without the host waiting."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tbptt.options.own import said_of
from tbptt.training.clip_modes import CLIP_MODE, OWN, Clip, Gradient


def _norm(gradient: Gradient, clip: float) -> Tensor:
    """The norm of all of it together, to ``clip`` (Keras 2.2's ``clipnorm``; Pascanu et al., 2013)."""
    gradient.flat.mul_(clip / gradient.norm.clamp(min=clip))
    return gradient.norm > clip


def _tensor_norm(gradient: Gradient, clip: float) -> Tensor:
    """Each parameter tensor's own norm, to ``clip`` (Keras's ``clipnorm`` today)."""
    norms = torch.stack([torch.linalg.vector_norm(g) for g in gradient.parts])
    for g, n in zip(gradient.parts, norms.unbind(), strict=True):
        g.mul_(clip / n.clamp(min=clip))
    return (norms > clip).any()


def _value(gradient: Gradient, clip: float) -> Tensor:
    """Each element, to [-clip, clip]."""
    changed = gradient.flat.abs().amax() > clip
    gradient.flat.clamp_(-clip, clip)
    return changed


def _std(gradient: Gradient, clip: float) -> Tensor:
    """Each tensor's elements, to its mean ± clip·(its population standard deviation)."""
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
        parts: its tensors, one a parameter, views of ``flat``.
        clip: above 0, or None for no clipping.
        mode: one of MODES, or of your own.
        weights: the parameters, as the parts; for modes of your own.

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
        raise ValueError(f"clip_mode={mode}: gives {changed!r}; takes a tensor of one, whether it changed anything")
    return norm, changed.to(norm.dtype)
