"""Choose what is drawn of a study with more trials than a page can hold, and say so in words.

If a study has fewer trials, everything is drawn and nothing is said.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

MOST_DRAWN = 2000  # trials with a mark of their own in a figure: a page of 10^5 was 78 MB
MOST_ROWS = 1000  # of a table; trials.csv has all
MOST_JUDGED = 5000  # trials from which the explained shares are computed
MOST_PAIRED = 10_000  # trials that are compared in pairs


def best_and_even(ranked: Sequence[T], most: int = MOST_DRAWN) -> list[T]:
    """At most ``most`` items: the best ones as the first half, and an even choice of the others."""
    half = most // 2
    if len(ranked) <= most:
        return list(ranked)
    return [*ranked[:half], *ranked[half :: -(-(len(ranked) - half) // half)]]


def at_random(items: Sequence[T], most: int = MOST_DRAWN) -> list[T]:
    """At most ``most`` items at random, the same each time, in their order. Every tenth item would not do: in a grid
    those may all have one value of a key, or one worker."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in sorted(random.Random(0).sample(range(len(items)), most))]


def said(drawn: Sequence[Any], of: Sequence[Any], what: str = "complete trials", is_random: bool = False) -> str:
    """A sentence on how many were drawn, and in which of the two ways above they were chosen. Empty if all were
    drawn."""
    if len(drawn) >= len(of):
        return ""
    how = "chosen at random" if is_random else "the best and an even choice of the others"
    return f" Drawn: {len(drawn)} of {len(of)} {what}, {how}."


def numbers_in(figures: Iterable[Any]) -> set[int]:
    """The numbers of the trials that figures name in their hover boxes (see :mod:`tbptt.reports.figures`)."""
    found: set[int] = set()
    for trace in (trace for figure in figures for trace in figure.data):
        found.update(n for n in _plain(trace.customdata) if isinstance(n, int))
        if isinstance(own := (trace.meta or {}).get("trial"), int):
            found.add(own)
    return found


def _plain(values: Any) -> Sequence[Any]:
    return values.tolist() if hasattr(values, "tolist") else values or ()
