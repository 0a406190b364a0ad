"""Which columns are prices of the same asset: open, high, low and close are no independent series."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tbptt.data.prices import Prices
from tbptt.data.tables.names import CODES, FIELDS, PLAIN_WORDS, words_of

UNKNOWN = "not known as prices of another asset; data.columns or data.inputs takes them"
SAME_ASSET = "prices of the same asset; data.inputs takes them"
WORDS = {word: name for name, words in FIELDS.items() for word in words.split()}
LETTERS = {"o": "open", "h": "high", "l": "low", "c": "close"}
ADJUSTED = {"adj", "adjusted", "adjclose", "bereinigt"}
AVERAGE = {("weighted", "price"), ("average", "price"), ("avg", "price"), ("average",), ("weighted", "average")}
# Which price of an asset is its series.
RANKS = ("close", "last", "settle", "price", "mid", "adjusted", "vwap", "bid", "ask", "open", "high", "low", "previous")
BARE = ("close", "last", "settle", "price", "adjusted")
BEFORE = {"prev", "previous", "pre", "prior", "yesterday"}
# Words that name no asset: the traded price, plus haut, cours de clôture.
PLAIN = frozenset(PLAIN_WORDS.split())
MONEY = frozenset(CODES.lower().split())
# Words of what is computed from a price, which is no price of another asset.
DERIVED = re.compile(
    r"(?:lag|lagged|ma|sma|ema|wma|vwma|mean|avg|std|dev|diff|delta|pct|log|ln|shift|shifted|roll|rolling|median|zscore|"
    r"scaled|norm|normalized|next|future|tomorrow|target|label|pred|predicted|forecast|signal|ratio|t|n|d)?\d*[dhmw]?"
)
SIDES = ("mid", "bid", "ask")
NEAR = 0.1  # share of a price within which other prices of the same step are
SAME = 0.98  # correlation of changes above which two columns are one asset
TOGETHER = 0.3  # correlation of the changes of an asset's high, low and close, at least
MOST_COLUMNS = 2000  # the rest of a wider table is not compared
SAMPLE = 4000  # rows by which columns are compared


@dataclass(frozen=True)
class Field:
    """What a column's name says: which price of which asset.

    Attributes:
        name: one of :data:`RANKS`; ``side`` bid, ask or mid may come before it.
        asset: the rest of the name; "" if it says only which price it is.
        level: of an order book, ``bid_price_2``.
    """

    name: str
    asset: str
    side: str = ""
    level: int = 0

    @property
    def rank(self) -> tuple[int, int, int]:
        side = SIDES.index(self.side) + 1 if self.side else 0
        return self.level, RANKS.index(self.name), side


def field_of(name: str) -> Field | None:
    """What a name such as ``Close AAPL``, ``AAPL.Adjusted``, ``bid_close`` or ``4. close`` says; None: no price."""
    bare = re.sub(r"^\d+[a-z]?\. +", "", name.strip().strip("<>").strip())
    words = words_of(bare)
    if tuple(words) in AVERAGE:
        return Field("vwap", "")
    if len(words) == 1 and words[0] in LETTERS:
        return Field(LETTERS[words[0]], "")
    words = [part for word in words for part in _apart(word)]
    if len(words) == 2 and WORDS.get(words[0]) in SIDES and words[1] in LETTERS:  # mid.c
        return Field(LETTERS[words[1]], "", str(WORDS[words[0]]))
    known = [WORDS.get(word) for word in words]
    adjusted = any(word in ADJUSTED for word in words)
    sides = [each for each in known if each in SIDES]
    prices = [each for each in known if each and each not in SIDES and each != "price"]
    names = list(dict.fromkeys(prices))
    if names == ["close", "last"] or names == ["last", "close"]:
        names = ["close"]
    if len(names) > 1 or len(set(sides)) > 1:
        return None
    if not (names or sides or adjusted or "price" in known):
        return None
    rest = [w for w, k in zip(words, known, strict=True) if k is None and w not in ADJUSTED]
    level = int(rest.pop()) if sides and rest and re.fullmatch(r"\d{1,2}", rest[-1]) else 0
    asset = " ".join(word for word in rest if word not in PLAIN)
    if BEFORE & set(rest) and names in ([], ["close"], ["settle"], ["last"]):
        return Field("previous", " ".join(word for word in asset.split() if word not in BEFORE))
    if adjusted and names in ([], ["close"]):
        return Field("adjusted", asset)
    if names:
        return Field(names[0], asset, sides[0] if sides else "", level)
    return Field(sides[0] if sides else "price", asset, level=level)


def _apart(word: str) -> Sequence[str]:
    """``bidclose``, ``px2`` and ``bp1`` (a price of an order book) in their parts."""
    if book := re.fullmatch(r"(b|a|bid|ask)p(\d{1,2})", word):
        return ["bid" if book[1][0] == "b" else "ask", book[2]]
    parts = re.fullmatch(r"(bid|ask|mid)(open|high|low|close|price|px)(\d{0,2})|(bid|ask|px|price)(\d{1,2})", word)
    return [part for part in parts.groups() if part] if parts else (word,)


def are_letters(names: Iterable[str]) -> bool:
    """Whether columns are called o, h, l and c, and the others as an answer of Polygon's has them."""
    single = {name for name in names if len(name) == 1}
    return any(set(letters) <= single for letters in ("ohlc", "OHLC")) and {s.lower() for s in single} <= set(
        "ohlcvntwqsx"
    )


def is_bare(name: str, letters: bool) -> bool:
    """Whether a name says that a column is the price of the table's one asset: Close, Last, Price (USD)."""
    field = field_of(name)
    if field is None or field.name not in BARE or not set(field.asset.split()) <= MONEY:
        return False
    return letters or len(name) > 1


def is_of_an_asset(name: str, letters: bool) -> bool:
    """Whether a name says which price of which asset a column is; close_lag1 and SMA_Close do not."""
    field = field_of(name)
    if field is None or (len(name) == 1 and not letters):
        return False
    return not field.asset or not all(DERIVED.fullmatch(word) for word in field.asset.split())


def one_of_each_asset(columns: Mapping[str, Prices]) -> tuple[list[str], dict[str, str]]:
    """The columns that are series of their own, and of the others, why they are not.

    Args:
        columns: (R,) each, NaN where blank, in the file's order; columns that are no prices are left out already.
    """
    left_out = _by_name(columns)
    letters = are_letters(columns)
    if any(is_bare(name, letters) for name in columns):
        unknown = [name for name in columns if not is_bare(name, letters) and not is_of_an_asset(name, letters)]
        left_out |= dict.fromkeys([name for name in unknown if name not in left_out], UNKNOWN)
    rest = {name: values for name, values in columns.items() if name not in left_out}
    left_out |= _open_high_low_close(rest)
    rest = {name: values for name, values in columns.items() if name not in left_out}
    left_out |= _nearly_identical(rest)
    return [name for name in columns if name not in left_out], left_out


def best_of(names: Sequence[str]) -> str:
    """The column that stands for an asset: its close before others; of two alike the first.

    A name that says nothing comes before an open, a high and a low: beside these, it is the asset's level.
    """
    unnamed = (0, RANKS.index("open") - 0.5, 0)
    return min(names, key=lambda name: field.rank if (field := field_of(name)) else unnamed)


def _by_name(columns: Mapping[str, Prices]) -> dict[str, str]:
    """Groups of which the names say that they are prices of one asset, and the values do not say otherwise."""
    fields = {name: field for name in columns if (field := field_of(name))}
    if not are_letters(columns):  # columns named A, B, C and so on say nothing
        fields = {name: field for name, field in fields.items() if len(name) > 1}
    groups: dict[str, list[str]] = {}
    for name, field in fields.items():
        groups.setdefault(field.asset, []).append(name)
    left_out = {}
    for asset, names in groups.items():
        best = best_of(names)
        if asset and RANKS.index(fields[best].name) >= RANKS.index("open"):  # Low Cost plc and High Cost plc
            continue
        for name in names:
            if fields[name].rank == fields[best].rank:  # best itself, or another that is called the same
                continue
            if fields[name].name == "adjusted":
                left_out[name] = f"prices of the same asset; data.columns=[{name}] takes it"
            elif fields[best].name == "adjusted" or _is_near(columns[name], columns[best]):
                left_out[name] = SAME_ASSET
    return left_out


def _is_near(one: Prices, other: Prices) -> bool:
    """Whether two columns may be prices of one asset: mostly as near as an asset's prices of one step are."""
    rows = _sampled(len(one))
    both = ~np.isnan(one[rows]) & ~np.isnan(other[rows])
    if not both.any():
        return True
    a, b = one[rows][both], other[rows][both]
    spread = float(np.median(np.abs(np.diff(b)))) if len(b) > 1 else 0.0
    return bool(np.median(np.abs(a - b)) <= max(2 * NEAR * np.median(np.abs(b)), 5 * spread))


def _sampled(count: int) -> slice:
    """Consecutive rows from the middle, by which columns are compared: changes need neighbours."""
    start = max(0, (count - SAMPLE) // 2)
    return slice(start, start + SAMPLE)


def _open_high_low_close(columns: Mapping[str, Prices]) -> dict[str, str]:
    """Four columns side by side, with names that say nothing, of which one is always the highest, one the lowest."""
    names = [name for name in columns if field_of(name) is None]
    left_out: dict[str, str] = {}
    i = 0
    while i + 4 <= len(names):
        four = names[i : i + 4]
        if (close := _close_of(np.stack([columns[name][_sampled(len(columns[name]))] for name in four]))) is None:
            i += 1
            continue
        why = f"looks like a price of the asset of {four[close]}; data.columns takes it as a series"
        left_out |= {name: why for j, name in enumerate(four) if j != close}
        i += 4
    return left_out


def _close_of(four: Prices) -> int | None:
    """Which of four columns (4, R) is the close of an asset; None if they are not its four prices."""
    values = four[:, ~np.isnan(four).any(axis=0)]
    if values.shape[1] < 10 or not np.ptp(values):
        return None
    high = [j for j in range(4) if (values[j] >= values.max(axis=0)).all()]
    low = [j for j in range(4) if (values[j] <= values.min(axis=0)).all()]
    near = np.median(np.ptp(values, axis=0)) <= NEAR * np.median(np.abs(values))
    if len(high) != 1 or len(low) != 1 or high == low or not near:
        return None
    first, close = [j for j in range(4) if j not in (high[0], low[0])]
    if _opens_at(values[close], values[first]) < _opens_at(values[first], values[close]) / 2:
        first, close = close, first
    together = _correlations(np.stack([values[high[0]], values[low[0]], values[close]]))
    return close if together.min() > TOGETHER else None


def _opens_at(one: Prices, other: Prices) -> float:
    """How far a column is from what another one was a step before: an open is near the close before it."""
    return float(np.median(np.abs(one[1:] - other[:-1])))


def _nearly_identical(columns: Mapping[str, Prices]) -> dict[str, str]:
    """Columns whose levels and changes are nearly those of another one: of these, the first that is like a close."""
    names = list(columns)
    if not 1 < len(names) <= MOST_COLUMNS:
        return {}
    values = np.stack([columns[name][_sampled(len(columns[name]))] for name in names])
    group = list(range(len(names)))
    for i, j in zip(*np.nonzero(np.triu(_correlations(values) > SAME - 0.1, 1)), strict=True):
        if _same_asset(values[i], values[j]):
            old, new = group[j], group[i]
            group = [new if of == old else of for of in group]
    left_out: dict[str, str] = {}
    for of in dict.fromkeys(group):
        alike = [name for name, each in zip(names, group, strict=True) if each == of]
        best = best_of(alike)
        why = f"nearly the same as {best}; data.columns takes it as a series"
        left_out |= {name: why for name in alike if name != best}
    return left_out


def _correlations(values: Prices) -> Prices:
    """About the correlations of the changes of columns (C, R), (C, C): a change that is not known counts as none."""
    if values.shape[1] < 2:
        return np.zeros((len(values), len(values)))
    changes = np.nan_to_num(np.diff(values, axis=1), posinf=0.0, neginf=0.0)
    changes -= changes.mean(axis=1, keepdims=True)
    size = np.sqrt((changes**2).sum(axis=1, keepdims=True))
    changes /= np.where(size > 0, size, 1)
    together: Prices = changes @ changes.T
    return together


def _same_asset(one: Prices, other: Prices) -> bool:
    changes = [np.diff(values) for values in (one, other)]
    both = ~np.isnan(changes[0]) & ~np.isnan(changes[1])
    if both.sum() < 10:
        return False
    known = ~np.isnan(one) & ~np.isnan(other)
    if np.median(np.abs(one[known] - other[known])) > NEAR / 2 * np.median(np.abs(other[known])):
        return False
    a, b = (each[both] - each[both].mean() for each in changes)
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return size > 0 and float((a * b).sum()) / size > SAME
