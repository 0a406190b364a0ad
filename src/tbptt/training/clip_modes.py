"""The names of all clip modes. ``--help`` uses this module, so it does not import PyTorch. clipping.py has the
functions of the shipped modes.

A mode of your own is a function with a name, in a file in ``own/``::

    @clip_mode("half")
    def half(gradient: Gradient, clip: float) -> Tensor: ...
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tbptt.options.own import TABLES
from tbptt.options.takes import OneOfKnown

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = ("norm", "tensor_norm", "value", "std")
OWN: "dict[str, Clip]" = {}
TABLES.append(OWN)


@dataclass(frozen=True)
class Gradient:
    """A gradient that is about to be clipped.

    Attributes:
        flat: (P,) the whole gradient as one vector.
        parts: one tensor per trained parameter, views of ``flat``.
        weights: the parameters, with the same shapes and in the same order; do not change them.
        norm: () the norm of the whole gradient.
    """

    flat: "Tensor"
    parts: "Sequence[Tensor]"
    weights: "Sequence[Tensor]"
    norm: "Tensor"


# Bounds a gradient in place, given ``clip``. Returns whether that changed it, as a scalar tensor on the device. Called
# at every update, without autograd. It must not wait for the device (no ``.item()``, no ``if`` on a tensor).
Clip = Callable[[Gradient, float], "Tensor"]


def clip_mode(name: str) -> Callable[[Clip], Clip]:
    """Make a function the clip mode ``name``. It is then checked, searched and shown like the shipped modes.

    Raises:
        ValueError: the name is taken, or is not a valid Python name.
    """
    if not name.isidentifier():
        raise ValueError(f"clip_mode={name}: takes a name of letters, digits and _")
    if name in SHIPPED or name in OWN:
        raise ValueError(f"clip_mode={name} is there already")

    def known(function: Clip) -> Clip:
        OWN[name] = function
        return function

    return known


CLIP_MODE = OneOfKnown(lambda: (*SHIPPED, *OWN))
