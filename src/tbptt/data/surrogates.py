"""Series that look like the real ones but hold nothing to learn: they show what luck alone would find."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tbptt.data.options import DataConfig

Prices = NDArray[np.float64]
Places = NDArray[np.int64]

SHORTEST_PIECE = 1 / 8  # of a part's rows; shorter ones would leave changes close to where they were


def surrogate_of(data: DataConfig, prices: Prices, borders: Sequence[int], stream: Sequence[int] = ()) -> Prices:
    """The series itself, or its surrogate if the config asks for one; see :func:`surrogate`."""
    if data.surrogate is None:
        return prices
    return surrogate(prices, borders, data.surrogate, data.surrogate_seed, stream)


def surrogate(prices: Prices, borders: Sequence[int], kind: str, seed: int, stream: Sequence[int] = ()) -> Prices:
    """A series with the first price and the changes of ``prices``, but with the changes in another order or with other
    signs; see :func:`draw_alone` and :meth:`Draw.of_prices`."""
    return draw_alone(len(prices), borders, kind, seed, stream).of_prices(prices)


@dataclass(frozen=True, eq=False)
class Draw:
    """What a surrogate of a series of N prices does to its N - 1 changes; change i leads to price i + 1.

    Attributes:
        order: (N - 1,) which change comes to each place.
        signs: (N - 1,) 1 or -1, what the change that comes to a place is multiplied by.
    """

    order: Places
    signs: Prices

    def of_prices(self, prices: Prices) -> Prices:
        """(N,), a series with the first price of ``prices`` and these changes.

        If all prices are positive, the changes are those of the logarithm: the surrogate's prices are then positive,
        too.
        """
        positive = bool((prices > 0).all())
        level = np.log(prices) if positive else prices
        changes = np.diff(level)[self.order] * self.signs
        made = level[0] + np.concatenate(([0.0], np.cumsum(changes)))
        return np.exp(made) if positive else made

    def of_inputs(self, inputs: Prices) -> Prices:
        """(N, D), the other inputs of each step.

        Those of price i + 1 go where change i goes. So they keep what they say of the step that they belong to, and
        know nothing of the one after it. A sign that is drawn anew moves no input.
        """
        return np.concatenate([inputs[:1], inputs[1:][self.order]])


def draw_alone(n: int, borders: Sequence[int], kind: str, seed: int, stream: Sequence[int] = ()) -> Draw:
    """The surrogate of a series of ``n`` prices by itself.

    Changes stay within their part, so each part keeps its own distribution of changes. Series with parts of the same
    lengths get the same permutation, so changes of the same day stay together.

    Args:
        borders: the index of each part's first price.
        kind: ``shuffle`` permutes single changes. ``blocks`` permutes blocks of sqrt(n) of a part's n changes, and so
            keeps patterns of a few steps. ``signs`` keeps the order of the changes, and so the times of large ones, but
            draws their signs anew.
        seed: the same seed gives the same surrogate.
        stream: whole numbers that name a series without a day in common with others. It gets its own permutation.
    """
    order, signs = np.arange(n - 1), np.ones(n - 1)
    edges = [0, *(b - 1 for b in sorted(borders) if 1 < b < n), n - 1]  # change i leads to price i + 1
    for i, (start, stop) in enumerate(pairwise(edges)):
        random = _random(seed, i, edges, *stream)
        if kind == "signs":
            signs[start:stop] = _signs(stop - start, random)
        else:
            order[start:stop] = start + _permuted(stop - start, kind, random)
    return Draw(order, signs)


def draw_by_time(rows: Mapping[str, Places], borders: Sequence[int], kind: str, seed: int) -> dict[str, Draw]:
    """The surrogates of series of which a row is the same time in each: changes of the same day stay together.

    A change belongs to the row of the price that it leads to. What is drawn is drawn for the rows of each part, and not
    for each series: a sign for each row, or from which row each row gets its changes. A series that does not have the
    row that a change would come from gets one of its changes that would go to a row that it does not have. So every
    permutation of its changes is as likely as any other (``shuffle``), whatever days it has. What two series have on
    one day stays on one day, unless that is a day, or goes to a day, that one of the two does not have.

    Where a series begins or ends within a part, the part is cut into pieces, each at least an eighth of it, and rows
    are permuted within each piece. So changes stay together for series of different lengths, too. Series that all have
    the same rows get what :func:`draw_alone` draws for each.

    Args:
        rows: (N,) by series name, the row of each price, ascending.
        borders: the row at which each part begins.
        kind, seed: as for :func:`draw_alone`; a block is of sqrt(n) of n consecutive rows.
    """
    known = np.flatnonzero(
        np.bincount(np.concatenate([own[1:] for own in rows.values()]))
    )  # the rows that have changes
    places = {name: np.searchsorted(known, own[1:]) for name, own in rows.items()}
    inner = sorted({int(at) for at in np.searchsorted(known, borders)})
    edges = [0, *(at for at in inner if 0 < at < len(known)), len(known)]
    source, signs = np.arange(len(known)), np.ones(len(known))
    pieces: list[tuple[int, int]] = []
    for i, (start, stop) in enumerate(pairwise(edges)):
        random = _random(seed, i, edges)
        if kind == "signs":
            signs[start:stop] = _signs(stop - start, random)
            continue
        for a, b in pairwise(_piece_edges(places, start, stop)):
            source[a:b] = a + _permuted(b - a, kind, random)
            pieces.append((a, b))
    return {name: Draw(_own_order(source, own, pieces), signs[own]) for name, own in places.items()}


def _random(seed: int, i: int, edges: Sequence[int], *stream: int) -> np.random.Generator:
    part = (i + 4 - len(edges)) % 16  # counted from the end: the last part has the same number in all folds
    return np.random.default_rng([seed, part, edges[i + 1] - edges[i], *stream])


def _signs(n: int, random: np.random.Generator) -> Prices:
    return random.choice([-1.0, 1.0], n)


def _permuted(n: int, kind: str, random: np.random.Generator) -> Places:
    if kind == "shuffle":
        return random.permutation(n)
    blocks = np.array_split(np.arange(n), max(1, math.isqrt(n)))
    return np.concatenate([blocks[i] for i in random.permutation(len(blocks))])


def _piece_edges(places: Mapping[str, Places], start: int, stop: int) -> list[int]:
    """The edges of the pieces of a part [start, stop); rows are permuted within each of them."""
    own = [each[(each >= start) & (each < stop)] for each in places.values()]
    shortest = max(1, (stop - start) * SHORTEST_PIECE)
    edges = [start]
    for at in sorted({int(end) for each in own if len(each) for end in (each[0], each[-1] + 1)}):
        if at - edges[-1] >= shortest and stop - at >= shortest:
            edges.append(at)
    return [*edges, stop]


def _own_order(source: Places, own: Places, pieces: Sequence[tuple[int, int]]) -> Places:
    """Which of its changes comes to each place of a series, (M,).

    Args:
        source: (R,) which row's changes come to each row.
        own: (M,) the rows in which the series has changes, ascending.
        pieces: first row and end of each piece within which rows were permuted.
    """
    found = own.copy()
    has = np.zeros(len(source), dtype=bool)
    has[own] = True
    place = np.empty_like(source)
    place[source] = np.arange(len(source))
    for start, stop in pieces:
        at = slice(*np.searchsorted(own, (start, stop)))
        rows = own[at]
        wanted = source[rows]
        there = has[wanted]
        left = rows[~has[place[rows]]]  # these would go to rows that the series does not have
        wanted[~there] = left[np.argsort(place[left])]
        found[at] = wanted
    number = np.empty_like(source)
    number[own] = np.arange(len(own))
    return number[found]
