"""The networks that a config can name, with their settings."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tbptt.options.option import Option, key
from tbptt.options.takes import list_of, number, one_of, whole

if TYPE_CHECKING:
    from torch import nn

NOISE_FROM = one_of("counter", "pool")  # pool: as versions drew it that had no counter
SIZES, SOME_SIZES = (list_of("whole numbers from 1", whole(1), low) for low in (0, 1))


@dataclass
class ModelConfig(Option):
    """A network. All fields except ``name`` are its settings, and ``build`` reads them."""

    group = "model"
    needs = ("build",)

    def build(self, inputs: int, outputs: int) -> "nn.Module":
        """The network with fresh weights, drawn from PyTorch's generator; see :class:`tbptt.models.protocol.Network`.

        Args:
            inputs: features a step, D.
            outputs: predictions a step, O.
        """
        raise NotImplementedError  # each option has its own

    def parameters_estimate(self, inputs: int, outputs: int) -> int | None:
        """About how many trained parameters the network has, computed without building it; None if unknown."""
        return None

    def computed_by(self, device: str, precision: object) -> str:
        """The implementation that computes the layers, for the tag ``versions.kernels`` of a run.

        Args:
            device: ``cpu`` or ``cuda``.
            precision: as in a config.
        """
        return "torch"


@dataclass
class ArticleModel(ModelConfig, options=["article"]):
    dense: list[int] = key(SIZES, [64, 64])
    hidden: list[int] = key(SOME_SIZES, [64, 64])
    cell: str = key(one_of("lstm", "gru"), "lstm")
    noise_std: float = key(number(0), 0.01)
    init: str = key(one_of("keras", "torch"), "keras")
    noise_from: str = key(NOISE_FROM, "pool", new=True)

    def build(self, inputs: int, outputs: int) -> "nn.Module":
        from tbptt.models.article import QNetwork

        pool = self.noise_from == "pool"
        return QNetwork(inputs, self.dense, self.hidden, self.cell, self.noise_std, self.init, outputs, pool)

    def parameters_estimate(self, inputs: int, outputs: int) -> int | None:
        return _weights([inputs, *self.dense]) + _recurrent_weights([*[inputs, *self.dense][-1:], *self.hidden])

    def computed_by(self, device: str, precision: object) -> str:
        from tbptt.models import kernels

        return kernels.describe(device, precision, self.cell, bool(self.dense))


@dataclass
class MinLSTMModel(ModelConfig, options=["minlstm"]):
    dense: list[int] = key(SIZES, [64, 64])
    hidden: list[int] = key(SOME_SIZES, [64, 64])
    noise_std: float = key(number(0), 0.01)
    forget_bias: float = key(number(0), 1.0)
    scan: str = key(one_of("parallel", "sequential"), "parallel")
    noise_from: str = key(NOISE_FROM, "pool", new=True)

    def build(self, inputs: int, outputs: int) -> "nn.Module":
        from tbptt.models.minlstm import MinLSTMNetwork

        return MinLSTMNetwork(
            inputs,
            outputs,
            self.dense,
            self.hidden,
            self.noise_std,
            self.forget_bias,
            self.scan == "parallel",
            self.noise_from == "pool",
        )

    def parameters_estimate(self, inputs: int, outputs: int) -> int | None:
        sizes = [inputs, *self.dense]
        return _weights(sizes) + 3 * _weights([sizes[-1], *self.hidden])

    def computed_by(self, device: str, precision: object) -> str:
        from tbptt.models import kernels

        if device == "cuda" or not self.dense:
            return "torch"
        return kernels.describe(device, precision, "minlstm")


def _weights(sizes: list[int]) -> int:
    """The number of weights of stacked dense layers with these sizes."""
    return sum(a * b for a, b in pairwise(sizes))


def _recurrent_weights(sizes: list[int]) -> int:
    """The number of weights of stacked recurrent layers with four gates and these sizes."""
    return sum(4 * b * (a + b) for a, b in pairwise(sizes))
