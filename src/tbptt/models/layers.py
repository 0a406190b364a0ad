"""Layers that networks share: a dense one with tanh, and Gaussian noise."""

import torch
from torch import Tensor, nn

from tbptt.models import kernels


class Dense(nn.Linear):
    """PyTorch's linear layer with tanh. It uses the compiled kernel if possible (``kernels.usable``)."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.dense_tanh(x, self.weight, self.bias) if kernels.usable(x) else super().forward(x).tanh()


class GaussianNoise(nn.Module):
    """Adds N(0, std²) to every element, in training only.

    On the CPU, drawing fresh numbers would take 8 % of a training step. So a pool of noise is drawn once, with the seed
    that PyTorch had when the layer was made, and each call takes a slice of it. The slice's random offset comes from
    PyTorch's global generator.
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
        """Standard normal noise of x's shape. It is drawn fresh on a GPU, where this is cheap, and if x is larger than
        half the pool."""
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
