"""Series that look like the real ones but hold nothing to learn: they show what luck alone would find."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tbptt.data.options import DataConfig

Prices = NDArray[np.float64]


def surrogate_of(data: DataConfig, prices: Prices, borders: Sequence[int], stream: Sequence[int] = ()) -> Prices:
    """The series itself, or its surrogate if the config asks for one; see :func:`surrogate`."""
    if data.surrogate is None:
        return prices
    return surrogate(prices, borders, data.surrogate, data.surrogate_seed, stream)


def surrogate(prices: Prices, borders: Sequence[int], kind: str, seed: int, stream: Sequence[int] = ()) -> Prices:
    """A series with the first price and the changes of ``prices``, but with the changes in another order or with other
    signs.

    If all prices are positive, the changes are those of the logarithm: the surrogate's prices are then positive, too.
    Changes stay within their part, so each part keeps its own distribution of changes. Series with parts of the same
    lengths get the same permutation, so changes of the same day stay together.

    Args:
        prices: (N,).
        borders: the index of each part's first price.
        kind: ``shuffle`` permutes single changes. ``blocks`` permutes blocks of sqrt(n) of a part's n changes, and so
            keeps patterns of a few steps. ``signs`` keeps the order of the changes, and so the times of large ones, but
            draws their signs anew.
        seed: the same seed gives the same surrogate.
        stream: whole numbers that name a series without a day in common with others. It gets its own permutation.
    """
    positive = bool((prices > 0).all())
    level = np.log(prices) if positive else prices
    changes = np.diff(level)
    edges = [0, *(b - 1 for b in sorted(borders) if 1 < b < len(prices)), len(changes)]  # change i leads to price i + 1
    for i, (start, stop) in enumerate(pairwise(edges)):
        part = (i + 4 - len(edges)) % 16  # counted from the end: the last part has the same number in all folds
        random = np.random.default_rng([seed, part, stop - start, *stream])
        changes[start:stop] = _redrawn(changes[start:stop], kind, random)
    made = level[0] + np.concatenate(([0.0], np.cumsum(changes)))
    return np.exp(made) if positive else made


def _redrawn(changes: Prices, kind: str, random: np.random.Generator) -> Prices:
    if kind == "shuffle":
        return random.permutation(changes)
    if kind == "signs":
        return changes * random.choice([-1.0, 1.0], len(changes))
    blocks = np.array_split(changes, max(1, math.isqrt(len(changes))))
    return np.concatenate([blocks[i] for i in random.permutation(len(blocks))])
