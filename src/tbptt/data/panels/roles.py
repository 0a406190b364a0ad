"""What each column of a table is: a series of prices, or something else that is left out, and why."""

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from tbptt.data.panels.columns import kind_of
from tbptt.data.panels.fields import are_letters, field_of, is_bare
from tbptt.data.prices import Prices
from tbptt.data.tables import names as vocabulary
from tbptt.data.tables.names import words_of

SAVED_INDEX = "a saved index"
VOLUME, COUNT, OPEN_INTEREST, SPREAD = "volume", "a count", "open interest", "a spread"
CHANGE, PAYMENT, CONSTANT, UNUSED = "changes, not prices", "dividends or splits", "the same value everywhere", "unused"
MARKET_VALUE, VOLATILITY = "a market value", "a volatility"
TWO_VALUES, FEW_VALUES = "two values alone, as yes or no", "a few small whole numbers, as of kinds or counts"
TEXTS, FLAGS, DURATIONS, EMPTY = "texts", "yes or no", "durations", "no values"
OTHER_KINDS = {"bool": FLAGS, "duration": DURATIONS, "time": "times"}
# Columns with these roles are taken if a table has nothing else: a file of returns has no prices.
WEAK = (CHANGE, SPREAD, VOLATILITY)
COUNTS_UP, IDENTIFIER = "counts up by the same step at every row", "numbers that name something"
_WORDS = {
    VOLUME: vocabulary.VOLUME,
    MARKET_VALUE: vocabulary.MARKET_VALUE,
    COUNT: "count ct nobs num trades tradecount numtrades transactions ticks anzahl orders 成交笔数 сделки",
    OPEN_INTEREST: "openint openinterest oi",
    SPREAD: "spread",
    CHANGE: vocabulary.CHANGE,
    PAYMENT: "dividend dividends split splits dividende dividenden splitfactor divcash adjfactor coefficient",
    UNUSED: "ignore unused",
    SAVED_INDEX: "rownum rowid rownumber",
}
ROLES = {word: role for role, words in _WORDS.items() for word in words.split()}
ALONE = ("shares", "size", "sz", "amount")  # volumes if that is all of the name: iShares are none
# Words beside a role that name no asset: Count Basie Inc is no count, and a vol index no volume.
BESIDE = frozenset([*vocabulary.BESIDE.split(), *vocabulary.CODES.lower().split()])
IDENTIFIERS = {"id", "ids", "seq", "sequence", "permno", "permco", "gvkey", "cik", "zip"}
_PAIRS = {
    ("open", "interest"): OPEN_INTEREST,
    ("number", "of"): COUNT,
    ("market", "cap"): MARKET_VALUE,
    ("market", "value"): MARKET_VALUE,
    ("capital", "gains"): PAYMENT,
}
SIZES = (["size"], ["sz"], ["qty"], ["quantity"], ["amount"], ["count"], ["orders"], ["vol"], ["volume"])
STRONG = {"volume", "volumes", "volumen", "turnover", "dividend", "dividends", "splits", "openinterest", "trades"}
VOLATILE = {"realized", "realised", "implied", "hist", "historic", "historical", "garch", "annualized", "annualised"}
BOOK_SIZES = re.compile(r"[ab](?:v|q|s|vol|sz|qty)\d{1,2}|(?:bid|ask)(?:v|q|s|vol|volume|sz|size|qty)\d{1,2}")
LETTERS = {"v": VOLUME, "n": COUNT, "q": VOLUME}  # beside o, h, l and c
SMALL, MOST_KINDS = 100, 12  # whole numbers below this, and how many of them, that are rather kinds or counts
LONG_ENOUGH = 10  # rows from which on a constant step is no price's
DATE_PARTS = (["year"], ["quarter"], ["month"], ["week"], ["day"], ["weekday"], ["hour"], ["minute"])
# How much a volume jumps from step to step: a price does so by far less.
JUMPS = 0.2


def role_by_name(name: str, assets: Collection[str] = (), alone: bool = False) -> str | None:
    """What a column is by its name; None: a price, or what no name says.

    A word such as volume is all of the name, or stands beside words that name no asset, or beside an asset that other
    columns name, too.

    Args:
        assets: what the other columns of the table are about: ``aapl``, if there is ``AAPL Close``.
        alone: whether the table is known to be about one asset: whatever stands beside the word is this one.
    """
    words = [word for word in words_of(name) if not word.isdigit()]
    pair = next((pair for pair in pairwise(words) if pair in _PAIRS), None)
    if VOLATILE & set(words) and {"vol", "volatility", "volatilities"} & set(words):
        return VOLATILITY
    if len(words) > 1 and words[-1] == "n" and " ".join(words[:-1]) in assets:  # AAPL_n beside AAPL
        return COUNT
    if words in (["ct"], ["num"]) and name.isupper():
        return None
    if words[:1] == ["taker"] and set(words) <= BESIDE | ROLES.keys():
        return VOLUME
    if "%" in name and (not words or words in (["var"], ["fark"], ["diff"])):  # Var. %, +/- %
        return CHANGE
    if (len(words) == 1 and words[0] in ALONE) or (alone and words == ["v"]):
        return VOLUME
    if BOOK_SIZES.fullmatch("".join(words_of(name))):  # bv1, bid_sz_00
        return VOLUME
    if (
        words[:1] in (["bid"], ["ask"], ["bids"], ["asks"])
        and [word.rstrip("0123456789") for word in words[1:]] in SIZES
    ):
        return VOLUME
    role = _PAIRS[pair] if pair else next((ROLES[word] for word in words if word in ROLES), None)
    if role is None or (role == CHANGE and {"index", "total"} & set(words)):  # a total return index has a level
        return None
    rest = [word for word in words if word not in ROLES and word not in BESIDE and word not in (pair or ())]
    if not rest or alone or " ".join(rest) in assets:
        return role
    ticker = len(rest) == 1 and re.search(rf"(?<![A-Za-z]){re.escape(rest[0].upper())}(?![A-Za-z])", name) is not None
    return role if ticker and len(rest[0]) <= 6 and STRONG & set(words) else None


def assets_of(names: Iterable[str]) -> set[str]:
    """What the columns of a table are about, by their names: ``aapl`` of ``AAPL`` and of ``AAPL Close``."""
    found = set()
    for name in names:
        field = field_of(name)
        found.add(" ".join(words_of(name)) if field is None else field.asset)
    return found - {""}


def counts_up(values: Prices) -> bool:
    """Whether whole numbers rise, or fall, by the same step at every row, as no price does."""
    if len(values) < LONG_ENOUGH or np.isnan(values).any() or not np.isfinite(values).all() or (values % 1).any():
        return False
    steps = np.diff(values)
    return bool(steps[0] != 0 and np.all(steps == steps[0]))


def is_saved_index(name: str, values: Prices) -> bool:
    """Whether a column counts the rows from 0 or 1, as pandas saves an index; also backwards."""
    if not len(values) or np.isnan(values).any():
        return False
    for each in (values, values[::-1]):
        if each[0] in (0, 1) and np.array_equal(each, np.arange(len(each)) + each[0]):
            return True
    unnamed = not name.strip() or words_of(name)[:1] in (["unnamed"], ["index"]) or name == "column 1"
    steps = np.diff(values)  # rows may have been left out of it
    return unnamed and len(values) > 1 and bool(np.all(values % 1 == 0) and (np.all(steps > 0) or np.all(steps < 0)))


def roles_of(columns: Mapping[str, Any], numbers: Mapping[str, Prices], percent: tuple[str, ...]) -> dict[str, str]:
    """Why each column is no series, by name; columns that may be prices are not in it.

    Args:
        columns: the columns of a table that are neither times nor the names of series.
        numbers: (R,) float64 of those that are numbers.
        percent: those that were written with a % sign.
    """
    roles = {}
    letters = are_letters(columns)
    alone = any(is_bare(name, letters) for name in numbers)
    assets = set() if alone else assets_of(columns)
    for name, column in columns.items():
        if letters and name.lower() in LETTERS:
            roles[name] = LETTERS[name.lower()]
            continue
        if words_of(name) in DATE_PARTS:
            roles[name] = "a part of the date"
            continue
        if name not in numbers:
            roles[name] = OTHER_KINDS.get(kind_of(column), TEXTS)
            continue
        values = numbers[name]
        known = values[~np.isnan(values)]
        if not len(known):
            roles[name] = EMPTY
        elif is_saved_index(name, values):
            roles[name] = SAVED_INDEX
        elif counts_up(values):
            roles[name] = COUNTS_UP
        elif set(words_of(name)) & IDENTIFIERS and not (known % 1).any():
            roles[name] = IDENTIFIER
        elif (role := role_by_name(name, assets, alone)) and not (role == CHANGE and _moves_as_a_price(known)):
            roles[name] = role
        elif len(known) > 2 and known.min() == known.max():
            roles[name] = CONSTANT
        elif field_of(name) is None and (role := _kinds_by_content(known)):
            roles[name] = role
    rest = {name: values for name, values in numbers.items() if name not in roles}
    roles |= {name: CHANGE for name in percent if name in rest and len(rest) > 1 and looks_like_returns(rest[name])}
    rest = {name: values for name, values in rest.items() if name not in roles}
    return roles | _volumes_by_content(rest)


def _kinds_by_content(known: Prices) -> str | None:
    """Columns that say which of a few kinds a row is of, or count a few of something.

    A price that takes few values is left out with them, but for one that is called a price: what is left out is said.
    """
    if len(known) < 2 * LONG_ENOUGH:
        return None
    values = np.unique(known)
    if len(values) == 2:
        return TWO_VALUES
    few = len(values) <= min(MOST_KINDS, len(known) // 4)
    whole = np.isfinite(values).all() and not (values % 1).any()
    return FEW_VALUES if few and whole and np.abs(values).max() < SMALL else None


def _moves_as_a_price(values: Prices) -> bool:
    """Whether values are above 0 and each is near the one before it, as those of a Total Return Fund are."""
    jump = _jump(values)
    return jump is not None and bool(values.min() > 0) and jump < JUMPS / 4


def _volumes_by_content(columns: Mapping[str, Prices]) -> dict[str, str]:
    """Columns that jump as volumes do, beside columns that move as prices do."""
    jumps = {name: _jump(values) for name, values in columns.items()}
    if not any(jump is not None and jump < JUMPS / 4 for jump in jumps.values()):
        return {}
    return {name: "jumps as volumes do" for name, jump in jumps.items() if jump is not None and jump > JUMPS}


def _jump(values: Prices) -> float | None:
    """The middle relative change from step to step, if neighbours are no nearer than others; None if some are below 0.

    A price is near the one before it; volumes are not.
    """
    known = values[~np.isnan(values)][: 2**16]
    if len(known) < 20 or known.min() < 0:
        return None
    size = float(np.median(known))
    change = float(np.median(np.abs(np.diff(known))))
    if size <= 0:
        return None
    half = len(known) // 2
    far = float(np.median(np.abs(known[half : 2 * half] - known[:half])))
    return change / size if change > 0.5 * far else min(change / size, JUMPS / 2)


def looks_like_returns(values: Prices) -> bool:
    """Whether values are around 0, with both signs, and have no level that moves on from step to step."""
    known = values[~np.isnan(values)]
    if len(known) < 20:
        return False
    if min((known > 0).mean(), (known < 0).mean()) < 0.2:
        return False
    # Of values that know nothing of each other, changes vary twice as much as the values; of a walk, far less.
    return bool(np.var(np.diff(known)) > np.var(known))
