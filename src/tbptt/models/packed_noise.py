"""The noise of many trials at once, on any device: the numbers of noise.py, by seed, update, call and element.

So a trial has the same noise alone and in any pack. Seeds and updates are tensors: nothing waits for the host, and a
CUDA graph draws the noise of another update at each replay.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from tbptt.models.noise import PLACES, _table

# Philox 4x64 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"), as NumPy has it.
ROUNDS = 10
FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
A_BLOCK = 16  # elements for which one counter has bits
_LOW = 0xFFFFFFFF


class PackedNoise:
    """The noise of N trials, each with its own seed and standard deviation.

    Args:
        stds: of each trial, in the units of what the noise is added to.
        seeds: (N,) int64 on the device: the bits of each trial's seed, an unsigned number.
        updates: (N,) int64 on the device: each trial's updates since its training began. It may change in place.
        dtype: of the numbers.
    """

    def __init__(self, stds: Sequence[float], seeds: Tensor, updates: Tensor, dtype: torch.dtype):
        self.seeds, self.updates = seeds, updates
        different = sorted(set(stds))
        self.is_none = different == [0.0]
        tables = [_table(std, dtype) if std else torch.zeros(PLACES, dtype=dtype) for std in different]
        self._tables = torch.cat(tables).to(seeds.device)
        begin = [different.index(std) * PLACES for std in stds]
        self._begin = torch.tensor(begin, dtype=torch.int32, device=seeds.device)[:, None]

    def draw(self, first: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
        """The noise of a forward pass.

        Args:
            first: for each call within the pass, the index of its first element; not 0 where the pass begins at a later
                step of the chunk.
            counts: for each call, its elements.

        Returns:
            For each call (N, its count).
        """
        if self.seeds.is_cuda and has_triton():
            each = enumerate(zip(first, counts, strict=True))
            return [self.draw_with_triton(call, begin, count) for call, (begin, count) in each]
        device = self.seeds.device
        blocks, calls, parts = [], [], []
        at = 0
        for call, (begin, count) in enumerate(zip(first, counts, strict=True)):
            block, skip = divmod(begin, A_BLOCK)
            some = -(-(skip + count) // A_BLOCK)
            # NumPy counts on before it draws.
            blocks.append(torch.arange(block + 1, block + 1 + some, device=device))
            calls.append(torch.full((some,), call, device=device))
            parts.append(slice(at + skip, at + skip + count))
            at += some * A_BLOCK
        words = philox(self.seeds[:, None], (torch.cat(blocks), torch.cat(calls), self.updates[:, None]))
        places = words.view(torch.int16)  # (N, elements)
        return [self._tables.take((places[:, part].long() & (PLACES - 1)) + self._begin) for part in parts]

    def draw_with_triton(self, call: int, first: int, count: int) -> Tensor:
        """The same (N, count) of one call, from a Triton kernel."""
        from tbptt.models import noise_kernel

        trials = len(self.seeds)
        out = self._tables.new_empty(trials, count)
        block, skip = divmod(first, A_BLOCK)
        of_a_program = 128  # blocks
        grid = trials, -(-(skip + count) // (of_a_program * A_BLOCK))
        given = self.seeds, self.updates, self._tables, self._begin, out, call, block, skip, count
        with torch.cuda.device_of(out):
            noise_kernel.draw[grid](*given, BLOCKS=of_a_program)
        return out


def philox(key: Tensor, counter: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The random words of counters.

    Args:
        key: (N, 1) int64, the first word of each key; the second is 0.
        counter: the first three words of the counters, int64 of the shapes (M,) or (N, 1); the fourth is 0.

    Returns:
        (N, 4·M) int64, the four words of each counter side by side.
    """
    c0, c1, c2 = counter
    shape = torch.broadcast_shapes(key.shape, c0.shape)
    # The two halves of a round are computed as one tensor: (2, N, M).
    even = torch.stack([c0.expand(shape), c2.expand(shape)])
    odd = torch.stack([c1.expand(shape), torch.zeros_like(even[0])])
    keys = torch.stack([key, torch.zeros_like(key)])  # (2, N, 1)
    high, low, factors, steps = _constants(key.device)
    for _ in range(ROUNDS):
        odd, even = (even * factors).flip(0), _high_product(even, high, low).flip(0).bitwise_xor_(odd ^ keys)
        keys = keys + steps
    return torch.stack([even[0], odd[0], even[1], odd[1]], dim=2).flatten(1)


def _high_product(numbers: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """The upper 64 bits of the product of unsigned numbers with factors, whose halves are given."""
    mine, above = numbers & _LOW, _upper(numbers)
    first = (mine * low).bitwise_right_shift_(32).bitwise_and_(_LOW).add_(mine * high)
    second = (above * low).add_(first & _LOW)
    return (above * high).add_(_upper(first)).add_(_upper(second))


def _upper(numbers: Tensor) -> Tensor:
    """The upper 32 of 64 bits; int64 is shifted with its sign, which is taken off."""
    return (numbers >> 32).bitwise_and_(_LOW)


def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each (2, 1, 1): the halves of the factors, the factors and the steps of the keys. They are filled in on the
    device, as a copy from the host would not go into a CUDA graph."""
    return (
        _pair((FACTORS[0] >> 32, FACTORS[1] >> 32), device),
        _pair((FACTORS[0] & _LOW, FACTORS[1] & _LOW), device),
        _pair(FACTORS, device),
        _pair(KEY_STEPS, device),
    )


def _pair(numbers: tuple[int, int], device: torch.device) -> Tensor:
    return torch.stack([torch.full((1, 1), as_signed(number), device=device) for number in numbers])


@cache
def has_triton() -> bool:
    """Whether Triton can be imported; it comes with PyTorch for CUDA."""
    try:
        import triton  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def as_signed(number: int) -> int:
    """The number whose 64 bits are those of an unsigned one: PyTorch computes with signed ones."""
    return number - 2**64 if number >= 2**63 else number
