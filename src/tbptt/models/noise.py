"""Gaussian noise by counter: the seed, the update, the layer and the element decide each number, and nothing else does.

So a run has the same noise alone, beside other runs in one process, and after it was interrupted; and so has a chunk
that is computed twice, segment by segment.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from tbptt.models import at_once, kernels

PLACES = 1 << 16  # of the table: an element takes 16 random bits
_A_BLOCK = 16  # elements for which one counter of Philox has bits


class GaussianNoise(nn.Module):
    """Adds N(0, std²) to every element, in training only.

    On the CPU the random bits are those of NumPy's ``Philox``: the key is the seed, the counter is the block of 16
    elements, the call within a forward, the update and the layer. 16 bits choose one of 65,536 equally likely quantiles
    of the normal distribution (the outermost are 4.3 std away), scaled to a standard deviation of exactly 1. The
    compiled layers draw the same numbers, faster.

    On a GPU, PyTorch's own generator draws, which is Philox too; its state is in checkpoints.

    The seed is the one that PyTorch had when the layer was made. The chunk loop says which update comes
    (:func:`begin`). Outside of it, every call has other noise than the one before.

    Args:
        std: standard deviation, in the units of the input.
        pool: draw as earlier versions did on the CPU: a pool of noise is drawn once, and each call takes a slice of it
            at an offset from PyTorch's global generator. What they began goes on so.
    """

    POOL = 1 << 22  # elements

    def __init__(self, std: float, pool: bool = False):
        super().__init__()
        self.std = std
        self.seed = torch.initial_seed() % 2**64
        self._layer = self._update = self._first_step = self._calls = 0
        self._pool = torch.empty(0) if pool else None

    def begin(self, layer: int, update: int, first_step: int) -> None:
        """Say which noise the next forward has.

        Args:
            layer: the number of this layer among the network's noise layers.
            update: the number of the update since training began.
            first_step: the step of the chunk at which the forward begins.
        """
        self._layer, self._update, self._first_step, self._calls = layer, update, first_step, 0

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, …), step by step, of any shape otherwise."""
        if not self.training or self.std == 0:
            return x
        if x.device.type != "cpu":
            return torch.add(x, torch.randn_like(x), alpha=self.std)
        if self._pool is not None:
            return torch.add(x, self._of_pool(x, self._pool), alpha=self.std)
        first = self._first_step * (x.numel() // len(x)) if len(x) else 0
        counter = (self._calls, self._update, self._layer)
        self._calls += 1
        exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
        if kernels.usable(exact, autocast=True):
            return kernels.noise(exact, _table(self.std, exact.dtype), first, self.seed, counter).to(x.dtype)
        return (exact + noise(x.numel(), self.std, exact.dtype, first, self.seed, counter).view(x.shape)).to(x.dtype)

    def of_calls(self, calls: int, dtype: torch.dtype) -> at_once.Noise | None:
        """What so many calls from here on would add, for :func:`tbptt.models.at_once.network`; None if nothing."""
        assert self.is_counted
        table = self.table(dtype) if self.training else None
        if table is None:
            return None
        counter = (self._calls, self._update, self._layer)
        self._calls += calls
        return at_once.Noise(table, self._first_step, self.seed, counter)

    def table(self, dtype: torch.dtype) -> Tensor | None:
        """(PLACES,) what is added, by 16 random bits; None if nothing is."""
        return _table(self.std, dtype) if self.std != 0 else None

    @property
    def is_counted(self) -> bool:
        """Whether a counter decides the noise, and not a pool."""
        return self._pool is None

    def _of_pool(self, x: Tensor, pool: Tensor) -> Tensor:
        """Standard normal noise of x's shape."""
        count = x.numel()
        if 2 * count > self.POOL:
            return torch.randn_like(x)
        if pool.dtype != x.dtype or not len(pool):
            generator = torch.Generator().manual_seed(self.seed)
            self._pool = pool = torch.randn(self.POOL, generator=generator, dtype=x.dtype)
        offset = int(torch.randint(self.POOL - count, ()))
        return pool[offset : offset + count].view(x.shape)

    def extra_repr(self) -> str:
        return f"std={self.std}"


def noise_layers(modules: Iterable[nn.Module]) -> list[GaussianNoise]:
    """Those of the modules that add noise."""
    return [module for module in modules if isinstance(module, GaussianNoise)]


def begin(layers: Iterable[GaussianNoise], update: int, first_step: int = 0) -> None:
    """Say to a network's noise layers which update its next forward belongs to, and at which step of the chunk it
    begins."""
    for number, layer in enumerate(layers):
        layer.begin(number, update, first_step)


def noise(count: int, std: float, dtype: torch.dtype, first: int, seed: int, counter: tuple[int, int, int]) -> Tensor:
    """(count,) noise as :func:`tbptt.models.kernels.noise` adds it, without the compiled library.

    Args:
        first: the index of the first element.
        seed: a whole number of 64 bits.
        counter: the call, the update and the layer.
    """
    block, skip = divmod(first, _A_BLOCK)
    words = -(-(skip + count) // 4)  # of 64 bits, for four elements
    key, start = (np.array(each, dtype=np.uint64) for each in ([seed, 0], [block, *counter]))  # NumPy would take floats
    bits = np.random.Philox(key=key, counter=start).random_raw(words)
    places = bits.view(np.uint16)[skip : skip + count]
    return torch.from_numpy(np.take(_table(std, dtype).numpy(), places))


@lru_cache(maxsize=8)
def _table(std: float, dtype: torch.dtype) -> Tensor:
    """(PLACES,) the quantiles of N(0, std²) at the middle of each place."""
    middles = (torch.arange(PLACES, dtype=torch.float64) + 0.5) / PLACES
    quantiles = torch.special.ndtri(middles)
    return (quantiles * (std / quantiles.square().mean().sqrt())).to(dtype)
