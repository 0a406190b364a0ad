"""What looks wrong in a series of prices: one line of warning each, never a refusal."""

from collections.abc import Callable, Iterator

import numpy as np

from tbptt.data.panels.roles import looks_like_returns
from tbptt.data.prices import Prices

STEPS_OF = 50  # a step of more standard deviations than this is suspicious
SENTINELS = (-9999.0, -999.0, -99999.0, -99.0, -999.25, -1.0, 0.0, 9999.0, 99999.0, 999999.0)
REPEATED = (-9999.9, -999.9, -99.99, -99.9, 999.9, 9999.9, 9999.99, 99999.9)  # a single one may be a price
STANDS_STILL = 0.2  # the share of a series at its beginning or end that is suspicious if it never changes


def suspicions(name: str, prices: Prices, where: Callable[[int], str], returns: bool = False) -> Iterator[str]:
    """The warnings about a series.

    Args:
        prices: (N,) without blanks.
        where: the place of price i in the file, in words: ``line 62``.
        returns: whether the name of the column says that it holds changes.
    """
    if len(prices) < 20:
        return
    if looks_like_returns(prices) or (returns and _has_both_signs(prices)):
        yield f"{name} looks like returns, not prices: its values are around 0, with both signs"
    changes = np.diff(prices)
    sentinel = next((value for value in (*SENTINELS, *REPEATED) if _is_sentinel(prices, value)), None)
    if sentinel is not None:
        rows = np.flatnonzero(prices == sentinel)
        times = f"{len(rows)} times, first" if len(rows) > 1 else "once,"
        size = _in_deviations(changes, int(rows[0]))
        yield f"{name} holds {sentinel:g} {times} in {where(int(rows[0]))}: a sign for a missing price?{size}"
    yield from _large_steps(name, prices, changes, where, sentinel)
    first = int(np.flatnonzero(changes)[0]) + 1 if changes.any() else 0  # how many prices are as the first one
    if first > max(10, STANDS_STILL * len(prices)) and prices[0] != sentinel:
        yield (
            f"{name} does not change before {where(first)}: its first {first} of {len(prices)} prices are {prices[0]:g}"
        )
    last = int(np.flatnonzero(changes)[-1]) + 1 if changes.any() else 0
    still = len(prices) - last
    if still > max(10, STANDS_STILL * len(prices)):
        yield (
            f"{name} does not change after {where(last)}: its last {still} of {len(prices)} prices are {prices[-1]:g}"
        )


def _has_both_signs(prices: Prices) -> bool:
    return bool((prices > 0).mean() > 0.1 and (prices < 0).mean() > 0.1)


def _deviation(changes: Prices) -> float:
    """The standard deviation of usual steps: of those that are not far out; robust against single bad prices."""
    moved = np.abs(changes[changes != 0])
    if len(moved) < 10:
        return 0.0
    usual = changes[np.abs(changes) <= 20 * np.median(moved)]
    return float(np.std(usual))


def _in_deviations(changes: Prices, row: int) -> str:
    spread = _deviation(changes)
    moved = np.flatnonzero(changes)
    step = changes[row - 1] if row else changes[moved[0]]  # of the first price, the step out of its value
    return f" The step there is {abs(step) / spread:.3g} standard deviations of the others" if spread else ""


def _is_sentinel(prices: Prices, value: float) -> bool:
    """Whether a value stands for a missing price: it is far from the prices on both sides of it."""
    here = prices == value
    if here.sum() < (2 if value in REPEATED else 1) or here.mean() > 0.5:
        return False
    others = prices[~here]
    low, high = float(others.min()), float(others.max())
    if low <= value <= high:
        return False
    away = low - value if value < low else value - high
    # A price of 0 or -1 may come after one of 0.5; between 84 and 86 it is none.
    return away > max(high - low, 10 * float(np.median(np.abs(np.diff(others)))))


def _large_steps(
    name: str, prices: Prices, changes: Prices, where: Callable[[int], str], sentinel: float | None
) -> Iterator[str]:
    spread = _deviation(changes)
    if spread <= 1e-9 * np.abs(prices).max():  # steps that are all the same, but for rounding
        return
    far = np.abs(changes) > STEPS_OF * spread
    if sentinel is not None:  # said already
        far &= (prices[1:] != sentinel) & (prices[:-1] != sentinel)
    rows = np.flatnonzero(far)
    if not len(rows):
        return
    largest = int(rows[np.abs(changes[rows]).argmax()])
    more = f" ({len(rows)} such steps)" if len(rows) > 1 else ""
    yield (
        f"{name} steps from {prices[largest]:g} to {prices[largest + 1]:g} in {where(largest + 1)}: "
        f"{abs(changes[largest]) / spread:.3g} standard deviations of the other steps{more}"
    )
