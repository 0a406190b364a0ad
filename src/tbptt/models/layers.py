"""Layers that networks share: dense ones, with tanh or without, and Gaussian noise (noise.py)."""

from torch import Tensor, nn

from tbptt.models import kernels
from tbptt.models.noise import GaussianNoise as GaussianNoise


class Linear(nn.Linear):
    """PyTorch's linear layer. It uses the compiled kernel if possible (``kernels.usable``)."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.dense(x, self.weight, self.bias) if kernels.usable(x) else super().forward(x)


class Dense(nn.Linear):
    """PyTorch's linear layer with tanh. It uses the compiled kernel if possible (``kernels.usable``)."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.dense(x, self.weight, self.bias, tanh=True) if kernels.usable(x) else super().forward(x).tanh()
