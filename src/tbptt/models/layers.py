"""Layers that networks share: a dense one with tanh, and Gaussian noise."""

import torch
from torch import Tensor, nn

from tbptt.models import kernels


class Dense(nn.Linear):
    """PyTorch's, with tanh; through the compiled kernel where that can be used."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.dense_tanh(x, self.weight, self.bias) if kernels.usable(x) else super().forward(x).tanh()


class GaussianNoise(nn.Module):
    """Adds N(0, std²) to every element, in training only.

    On the CPU, drawing takes 8 % of a training step, so the noise is a part, at a random offset, of a pool that is
    drawn once from the seed in force when the layer is made; offsets come from PyTorch's global generator.
    """

    POOL = 1 << 22  # elements, 16 MiB

    def __init__(self, std: float):
        super().__init__()
        self.std = std
        self._seed = torch.initial_seed()
        self._pool = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.std == 0:
            return x
        return torch.add(x, self._noise(x), alpha=self.std)

    def _noise(self, x: Tensor) -> Tensor:
        """Standard normal, of x's shape; fresh on a GPU, where it costs little, and for an x too large for it."""
        count = x.numel()
        if x.device.type != "cpu" or 2 * count > self.POOL:
            return torch.randn_like(x)
        if self._pool.dtype != x.dtype or not len(self._pool):
            generator = torch.Generator().manual_seed(self._seed)
            self._pool = torch.randn(self.POOL, generator=generator, dtype=x.dtype)
        offset = int(torch.randint(self.POOL - count, ()))
        return self._pool[offset : offset + count].view(x.shape)

    def extra_repr(self) -> str:
        return f"std={self.std}"
