"""Four ways to bound a gradient. All work on the device and return what they saw without the host waiting."""

from collections.abc import Sequence

import torch
from torch import Tensor

MODES = ("norm", "tensor_norm", "value", "std")


@torch.no_grad()
def clip_gradients(flat: Tensor, parts: Sequence[Tensor], clip: float | None, mode: str) -> tuple[Tensor, Tensor]:
    """Bound the gradient in place.

    - ``norm``: the norm of all of it together, to ``clip`` (Keras 2.2's ``clipnorm``; Pascanu et al., 2013).
    - ``tensor_norm``: each parameter tensor's own norm, to ``clip`` (Keras's ``clipnorm`` today).
    - ``value``: each element, to [-clip, clip].
    - ``std``: each tensor's elements, to its mean ± clip·(its population standard deviation).

    Args:
        flat: (P,) the whole gradient.
        parts: its tensors, one a parameter, views of ``flat``.
        clip: above 0, or None for no clipping.
        mode: one of MODES.

    Returns:
        The global norm before clipping, and whether clipping changed anything (0 or 1): two scalars on the device.
    """
    norm = torch.linalg.vector_norm(flat)
    if clip is None:
        return norm, torch.zeros_like(norm)
    if mode == "norm":
        changed = norm > clip
        flat.mul_(clip / norm.clamp(min=clip))
    elif mode == "tensor_norm":
        norms = torch.stack([torch.linalg.vector_norm(g) for g in parts])
        changed = (norms > clip).any()
        for g, n in zip(parts, norms.unbind(), strict=True):
            g.mul_(clip / n.clamp(min=clip))
    elif mode == "value":
        changed = flat.abs().amax() > clip
        flat.clamp_(-clip, clip)
    elif mode == "std":
        outside = []
        for g in parts:
            std, mean = torch.std_mean(g, correction=0)
            low, high = mean - clip * std, mean + clip * std
            smallest, largest = torch.aminmax(g)
            outside.append((smallest < low) | (largest > high))
            g.clamp_(low, high)
        changed = torch.stack(outside).any()
    else:
        raise ValueError(f"clip mode {mode!r} is not one of {', '.join(MODES)}")
    return norm, changed.to(norm.dtype)
