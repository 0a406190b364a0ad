"""What clip modes there are, by name, and without PyTorch, as ``--help`` answers; clipping.py has the shipped ones.

One of your own is a function with a name, in a file in ``own/``::

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
        flat: (P,) all of it.
        parts: its tensors, one a trained parameter, views of ``flat``.
        weights: the parameters, of the same shapes and in the same order; only to be read.
        norm: () of all of it together.
    """

    flat: "Tensor"
    parts: "Sequence[Tensor]"
    weights: "Sequence[Tensor]"
    norm: "Tensor"


# Bounds a gradient in place, given ``clip``, and returns whether that changed anything: a scalar on the device. Called
# at every update without autograd; nothing in it may wait for the device (``.item()``, ``if`` on a tensor).
Clip = Callable[[Gradient, float], "Tensor"]


def clip_mode(name: str) -> Callable[[Clip], Clip]:
    """Make a function the clip mode ``name``, which is then checked, searched and shown like the shipped ones.

    Raises:
        ValueError: the name is taken, or has other letters than those of a Python name.
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
